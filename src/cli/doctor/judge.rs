//! From what was found to what is wrong with it. Pure.

use std::path::PathBuf;

use super::{
    super::flaw::Flaw,
    finding::{Finding, Mend, Severity},
};
use crate::config::{AuthMode, Gateway, Issue, TailscaleMode};

/// Parts of the names of variables that hold secrets.
const SECRET_NAMES: [&str; 4] = ["TOKEN", "PASSWORD", "SECRET", "API_KEY"];

/// A file or a folder as the system has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) is_folder: bool,
    /// The lower nine bits.
    pub(super) mode: u32,
    /// Whether it belongs to who asks.
    pub(super) is_own: bool,
    pub(super) kind: Kind,
}

/// What others may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing: keys, tokens, transcripts, logs.
    Private,
    /// Read, but not write: what says whom to trust.
    Trusted,
}

/// Whether others can read or change what they should not.
pub(super) fn entry(entry: &Entry) -> Option<Finding> {
    let shown = entry.path.display();
    if !entry.is_own {
        return Some(
            Finding::new("owner", Severity::Error, format!("{shown} belongs to another user"))
                .why("who owns a file may read and replace it whatever its mode says")
                .fix(format!("sudo chown -R \"$USER\" {shown}")),
        );
    }
    let (allowed, verb) = match entry.kind {
        Kind::Private if entry.is_folder => (0o700, "opened"),
        Kind::Private => (0o600, "read or changed"),
        Kind::Trusted => (0o755, "changed"),
    };
    if entry.mode & 0o077 & !allowed == 0 {
        return None;
    }
    let letters = if entry.kind == Kind::Private { "go-rwx" } else { "go-w" };
    Some(
        Finding::new(
            "modes",
            Severity::Error,
            format!("{shown} can be {verb} by other users (mode {:04o})", entry.mode),
        )
        .why(match entry.kind {
            Kind::Private => "what opens your gateway and your remotes is in there",
            Kind::Trusted => "whoever changes it decides which machine you trust",
        })
        .fix(format!("chmod {letters} {shown}"))
        .mend(Mend::Narrow { path: entry.path.clone(), mode: entry.mode & (allowed | 0o700) }),
    )
}

/// Keys that mean nothing here, all in one.
pub(super) fn strangers(issues: &[Issue]) -> Option<Finding> {
    let paths: Vec<&str> = issues.iter().map(|issue| issue.path.as_str()).collect();
    let first = paths.first()?;
    Some(
        Finding::new("config", Severity::Note, format!("no meaning here: {}", paths.join(", ")))
            .why(
                "a key that is misspelt does nothing; one of OpenClaw's counts for its own gateway",
            )
            .fix(format!("openclaw config unset {first}, if that is misspelt")),
    )
}

/// Ways in that are wider than they look.
pub(super) fn ways_in(gateway: &Gateway) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |check, what: &str, why: &str, fix: &str| {
        findings.push(Finding::new(check, Severity::Warning, what).why(why).fix(fix));
    };
    if gateway.tailscale.mode == TailscaleMode::Funnel {
        warn(
            "bind",
            "gateway.tailscale.mode is `funnel`: the gateway is open to the internet",
            "everybody may try passwords there, from as many addresses as they have",
            "openclaw config set gateway.tailscale.mode serve",
        );
    }
    if gateway.has_roles {
        warn(
            "roles",
            "gateway.roles is not followed here: nobody who comes in is bound by a role",
            "OpenClaw's gateway, which reads the same file, gives named users no more than their role",
            "openclaw config unset gateway.roles",
        );
    }
    if gateway.control_ui.allowed_origins.iter().any(|origin| origin.trim() == "*") {
        warn(
            "origin",
            "gateway.controlUi.allowedOrigins names `*`, which would be every web page there is",
            "this gateway lets nobody in for it; OpenClaw's, which reads the same file, lets them all ask",
            "openclaw config set gateway.controlUi.allowedOrigins '[\"https://control.example.com\"]'",
        );
    }
    if gateway.auth.mode == Some(AuthMode::None) {
        if gateway.nodes.pair_local == Some(false) {
            warn(
                "pairing",
                "gateway.nodes.pairing.autoApproveLocal is false while gateway.auth.mode is `none`",
                "without a secret only paired devices come in, and a new one finds nobody to approve it",
                "openclaw config set gateway.auth.mode token",
            );
        }
        let what = "gateway.auth.mode is `none`: whoever reaches the port is the operator";
        findings.push(
            Finding::new("bind", Severity::Error, what)
                .why(
                    "every user and program of this machine reaches loopback, and so does everybody \
                     behind a tunnel or a proxy",
                )
                .fix("openclaw config set gateway.auth.mode token"),
        );
        return findings;
    }
    if gateway.auth.mode != Some(AuthMode::TrustedProxy) {
        return findings;
    }
    let Some(rules) = &gateway.auth.trusted_proxy else { return findings };
    if rules.allow_loopback {
        warn(
            "proxy",
            "gateway.auth.trustedProxy.allowLoopback: every program of this machine may name a user",
            "who comes from loopback with the header is believed, proxy or not",
            "openclaw config unset gateway.auth.trustedProxy.allowLoopback, with a proxy elsewhere",
        );
    }
    if rules.allow_users.is_empty() {
        warn(
            "proxy",
            "gateway.auth.trustedProxy.allowUsers is empty: whoever the proxy names may come in",
            "a proxy that knows everybody of a company lets all of them ask",
            "openclaw config set gateway.auth.trustedProxy.allowUsers '[\"you@example.com\"]'",
        );
    }
    findings
}

/// Where a gateway's secret stands, and how much it bears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strength {
    /// Where, for people.
    pub(super) place: String,
    /// The file, if it is the one that we made.
    pub(super) own_file: Option<PathBuf>,
    pub(super) flaw: Option<Flaw>,
}

/// A weak secret; worse where other machines may try it.
pub(super) fn strength(strength: &Strength, is_exposed: bool) -> Option<Finding> {
    let how = strength.flaw?;
    if how == Flaw::Empty {
        let finding = Finding::new("secret", Severity::Error, format!("{} {how}", strength.place));
        let finding = finding.why("a gateway does not start with it");
        return Some(match &strength.own_file {
            Some(file) => finding.fix(format!("rm {} (the next start makes one)", file.display())),
            None => finding,
        });
    }
    let severity = if is_exposed { Severity::Error } else { Severity::Warning };
    let finding = Finding::new("secret", severity, format!("{} {how}", strength.place))
        .why("whoever reaches the port and guesses it is the operator of the gateway");
    Some(match &strength.own_file {
        Some(file) => finding
            .fix("openclaw doctor --fix --regenerate-token (clients then need the new one)")
            .mend(Mend::Renew(file.clone())),
        None => finding.fix(
            "openclaw config set gateway.auth.token \"$(openssl rand -base64 32)\" (clients then \
             need the new one)",
        ),
    })
}

/// Secrets in the text of a unit, which everybody may read, by the names of their variables.
pub(super) fn secrets_in_unit(text: &str) -> Vec<String> {
    let assignments = text.lines().filter_map(|line| line.trim().strip_prefix("Environment="));
    let mut names: Vec<String> = assignments
        .flat_map(|line| line.split_whitespace())
        .filter_map(|word| word.trim_matches(['"', '\'']).split_once('='))
        .filter(|(name, value)| {
            !value.is_empty() && SECRET_NAMES.iter().any(|secret| name.contains(secret))
        })
        .map(|(name, _)| name.to_owned())
        .collect();
    names.dedup();
    names
}

/// A unit of ours, or of another gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Its program, if the unit is ours and says one.
    pub(super) program: Option<PathBuf>,
    pub(super) is_program_there: bool,
    /// The command that writes it anew, if it is ours.
    pub(super) install: Option<String>,
}

/// What is wrong with a unit.
pub(super) fn unit(unit: &UnitFile) -> Vec<Finding> {
    let shown = unit.path.display();
    let mut findings = Vec::new();
    for name in secrets_in_unit(&unit.text) {
        findings.push(
            Finding::new("unit", Severity::Error, format!("{shown} holds a secret: {name}"))
                .why("everybody on this machine may read units, by systemctl as well")
                .fix("take the line out and make a new secret; openclaw gateway install --token-file FILE"),
        );
    }
    if let (Some(program), false, Some(install)) =
        (&unit.program, unit.is_program_there, &unit.install)
    {
        let what = format!("{shown} starts {}, which is not there", program.display());
        findings.push(
            Finding::new("unit", Severity::Error, what)
                .why("the service fails at its next start")
                .fix(install.clone()),
        );
    }
    findings
}

/// Whether the clock can be right; `now` in seconds since 1970.
pub(super) fn clock(now: i64) -> Option<Finding> {
    // 2026-01-01: this program was not there before.
    (now < 1_767_225_600).then(|| {
        Finding::new("clock", Severity::Error, "the clock of this machine is years behind")
            .why("device signatures and certificates are refused when the time is wrong")
            .fix("sudo timedatectl set-ntp true")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::flaw::flaw, config::ProxyAuth};

    #[test]
    fn keys_that_mean_nothing_are_one_note() {
        assert_eq!(strangers(&[]), None);
        let issues = ["gateway.prt", "gateway.auth.tokn"].map(|path| Issue::new(path, "nothing"));
        let finding = strangers(&issues).unwrap();
        assert_eq!(finding.severity, Severity::Note);
        assert_eq!(finding.what, "no meaning here: gateway.prt, gateway.auth.tokn");
        assert!(finding.fix.contains("unset gateway.prt"), "{finding:?}");
    }

    fn file(mode: u32, kind: Kind) -> Entry {
        Entry { path: "/s/x".into(), is_folder: false, mode, is_own: true, kind }
    }

    #[test]
    fn what_others_could_read_or_change_is_named_with_the_mode_that_is_safe() {
        assert_eq!(entry(&file(0o600, Kind::Private)), None);
        assert_eq!(entry(&file(0o644, Kind::Trusted)), None);
        let found = entry(&file(0o644, Kind::Private)).unwrap();
        assert_eq!(found.fix, "chmod go-rwx /s/x");
        assert_eq!(found.mend, Some(Mend::Narrow { path: "/s/x".into(), mode: 0o600 }));
        let found = entry(&file(0o666, Kind::Trusted)).unwrap();
        assert_eq!(found.mend, Some(Mend::Narrow { path: "/s/x".into(), mode: 0o644 }));
        let folder = Entry { is_folder: true, ..file(0o755, Kind::Private) };
        let found = entry(&folder).unwrap();
        assert_eq!(found.mend, Some(Mend::Narrow { path: "/s/x".into(), mode: 0o700 }));
        let other = entry(&Entry { is_own: false, ..file(0o600, Kind::Private) }).unwrap();
        assert_eq!((other.check, other.mend), ("owner", None));
    }

    #[test]
    fn a_gateway_that_asks_nobody_is_an_error_and_every_page_as_an_origin_a_warning() {
        let mut gateway = Gateway::default();
        assert_eq!(ways_in(&gateway), Vec::new());
        gateway.has_roles = true;
        let roles = ways_in(&gateway);
        assert_eq!((roles[0].check, roles[0].severity), ("roles", Severity::Warning));
        gateway.has_roles = false;
        gateway.auth.mode = Some(AuthMode::None);
        gateway.control_ui.allowed_origins = vec!["https://a.example".to_owned(), "*".to_owned()];
        let found = ways_in(&gateway);
        let told: Vec<_> = found.iter().map(|it| (it.check, it.severity)).collect();
        assert_eq!(told, [("origin", Severity::Warning), ("bind", Severity::Error)]);
        gateway.control_ui.allowed_origins.clear();
        gateway.nodes.pair_local = Some(false);
        assert_eq!(ways_in(&gateway)[0].check, "pairing");
        assert!(found.iter().all(|it| !it.why.is_empty() && !it.fix.is_empty()), "{found:#?}");
    }

    #[test]
    fn a_weak_secret_is_an_error_where_others_may_try_it() {
        let weak = Strength {
            place: "the token".to_owned(),
            own_file: Some("/s/gateway-token".into()),
            flaw: flaw("short"),
        };
        assert_eq!(strength(&weak, false).unwrap().severity, Severity::Warning);
        let found = strength(&weak, true).unwrap();
        assert_eq!(found.severity, Severity::Error);
        assert!(!format!("{found:?}").contains("\"short\""), "the secret is not shown");
        assert_eq!(strength(&Strength { flaw: None, ..weak }, true), None);
    }

    #[test]
    fn an_empty_secret_is_an_error_everywhere() {
        let empty = Strength {
            place: "the token".to_owned(),
            own_file: Some("/s/gateway-token".into()),
            flaw: flaw("\n"),
        };
        let found = strength(&empty, false).unwrap();
        assert_eq!(found.severity, Severity::Error);
        assert!(format!("{found:?}").contains("rm /s/gateway-token"), "{found:?}");
    }

    #[test]
    fn a_unit_with_a_secret_or_without_its_program_is_named() {
        let text =
            "[Service]\nEnvironment=\"OPENCLAW_GATEWAY_TOKEN=x\" A=b\nEnvironment=X_PASSWORD=\n";
        assert_eq!(secrets_in_unit(text), ["OPENCLAW_GATEWAY_TOKEN"]);
        let file = UnitFile {
            path: "/u".into(),
            text: text.to_owned(),
            program: Some("/gone".into()),
            is_program_there: false,
            install: Some("openclaw gateway install".to_owned()),
        };
        let found = unit(&file);
        assert_eq!(found.len(), 2);
        assert!(found[1].what.contains("/gone") && found[1].fix == "openclaw gateway install");
        let fine = UnitFile { text: "[Service]\n".to_owned(), is_program_there: true, ..file };
        assert_eq!(unit(&fine), []);
    }

    #[test]
    fn a_proxy_that_lets_more_in_than_meant_and_a_funnel_are_named() {
        let of = |gateway: &Gateway| -> Vec<_> {
            ways_in(gateway).into_iter().map(|finding| finding.check).collect()
        };
        let mut gateway = Gateway::default();
        assert_eq!(of(&gateway), [""; 0]);
        gateway.tailscale.mode = TailscaleMode::Funnel;
        assert_eq!(of(&gateway), ["bind"]);
        gateway.tailscale.mode = TailscaleMode::Serve;
        gateway.auth.mode = Some(AuthMode::TrustedProxy);
        gateway.auth.trusted_proxy = Some(ProxyAuth::default());
        assert_eq!(of(&gateway), ["proxy"], "anybody may come in");
        let rules = ProxyAuth {
            allow_loopback: true,
            allow_users: vec!["me@example.com".to_owned()],
            ..ProxyAuth::default()
        };
        gateway.auth.trusted_proxy = Some(rules);
        assert_eq!(of(&gateway), ["proxy"], "every program here may say who it is");
    }

    #[test]
    fn a_clock_before_this_program_is_wrong() {
        assert!(clock(0).is_some());
        assert!(clock(1_795_000_000).is_none());
    }
}
