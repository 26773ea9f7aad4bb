//! What our services are called: never as any of OpenClaw's own (`openclaw.service`,
//! `openclaw-gateway*.service`, `openclaw-node*.service`).

use super::Starter;

/// The file name of a unit of systemd. Profiles hold no `:`, and neither do users.
pub(crate) fn unit_name(manager: &Starter, profile: Option<&str>) -> String {
    let whose = match (manager, profile) {
        (Starter::User, None) => String::new(),
        (Starter::User, Some(profile)) => format!("-{profile}"),
        (Starter::System { user }, None) => format!("-{}", plain(user)),
        (Starter::System { user }, Some(profile)) => format!("-{}:{profile}", plain(user)),
    };
    format!("openclaw-remote{whose}.service")
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
        let names = [
            unit_name(&Starter::User, None),
            unit_name(&Starter::User, Some("work")),
            unit_name(&system("ann"), None),
            unit_name(&system("ann"), Some("work")),
            unit_name(&system("ann-work"), None),
            unit_name(&system("ann.work"), None),
            unit_name(&system("dom\\ann"), None),
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
}
