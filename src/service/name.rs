//! What our services are called: never as any of OpenClaw's own (`openclaw.service`,
//! `openclaw-gateway*.service`, `openclaw-node*.service`).

use super::{Part, Starter};

/// The file name of a unit of systemd. Profiles hold no `:`, and neither do users.
pub(crate) fn unit_name(part: Part, manager: &Starter, profile: Option<&str>) -> String {
    let whose = match (manager, profile) {
        (Starter::User, None) => String::new(),
        (Starter::User, Some(profile)) => format!("-{profile}"),
        (Starter::System { user }, None) => format!("-{}", plain(user)),
        (Starter::System { user }, Some(profile)) => format!("-{}:{profile}", plain(user)),
    };
    format!("{}{whose}.service", part.stem())
}

/// A user's name in what the names of units may hold; other characters as their numbers.
fn plain(user: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let one =
        |c: char| if is_plain(c) { c.to_string() } else { format!("\\x{:02x}", u32::from(c)) };
    user.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_services_never_share_a_name() {
        let system = |user: &str| Starter::System { user: user.to_owned() };
        let of = |manager: &Starter, profile| unit_name(Part::Remotes, manager, profile);
        let names = [
            of(&Starter::User, None),
            of(&Starter::User, Some("work")),
            of(&system("ann"), None),
            of(&system("ann"), Some("work")),
            of(&system("ann-work"), None),
            of(&system("ann.work"), None),
            of(&system("dom\\ann"), None),
        ];
        let expected = [
            "openclaw-remote.service",
            "openclaw-remote-work.service",
            "openclaw-remote-ann.service",
            "openclaw-remote-ann:work.service",
            "openclaw-remote-ann-work.service",
            "openclaw-remote-ann.work.service",
            "openclaw-remote-dom\\x5cann.service",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_gateway_is_never_called_as_openclaws_own_units_are() {
        let name = |profile| unit_name(Part::Gateway, &Starter::User, profile);
        assert_eq!(name(None), "openclaw-rs-gateway.service");
        assert_eq!(name(Some("work")), "openclaw-rs-gateway-work.service");
        for profile in [None, Some("work"), Some("gateway")] {
            assert!(!name(profile).starts_with("openclaw-gateway"));
            assert!(!name(profile).starts_with("openclaw-node"));
        }
    }
}
