//! Which commands of a node may run: those that it declares, a person approved, and the
//! configuration and the platform allow.

use std::collections::BTreeSet;

use crate::protocol::Scope;

/// Commands of desktop hosts that reach files, programs, browsers or the screen.
const HOST: [&str; 12] = [
    "system.run.prepare",
    "system.run",
    "system.which",
    "system.execApprovals.get",
    "system.execApprovals.set",
    "fs.listDir",
    "terminal.upload",
    "browser.proxy",
    "browser.proxy.upload.v1",
    "mcp.tools.call.v1",
    "screen.snapshot",
    "desktop.stream",
];
/// Commands that a platform never has by default: the configuration must name each.
const DANGEROUS: [&str; 11] = [
    "camera.snap",
    "camera.clip",
    "camera.ptz.control",
    "screen.record",
    "contacts.add",
    "calendar.add",
    "reminders.add",
    "sms.send",
    "sms.search",
    "health.summary",
    "agent.cli.claude.run.v1",
];
/// Commands between OpenClaw's own programs begin so; nobody may call them through us.
const PRIVATE: &str = "worker.";
/// Commands that only an administrator may invoke.
const ADMIN_ONLY: [&str; 4] =
    ["browser.proxy", "browser.proxy.upload.v1", "fs.listDir", "terminal.upload"];
/// Commands of which an administrator must approve that a node offers them.
const ADMIN_APPROVED: [&str; 5] = [
    "system.run.prepare",
    "system.run",
    "system.which",
    "system.execApprovals.get",
    "system.execApprovals.set",
];

const PERSONAL: [&str; 8] = [
    "camera.list",
    "location.get",
    "contacts.search",
    "calendar.events",
    "reminders.list",
    "photos.latest",
    "motion.activity",
    "motion.pedometer",
];
const DEVICE: [&str; 2] = ["device.info", "device.status"];
const TALK: [&str; 4] = ["talk.ptt.start", "talk.ptt.stop", "talk.ptt.cancel", "talk.ptt.once"];

/// What kind of machine a node says it is; a contradiction makes it `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Platform {
    Ios,
    Watchos,
    Android,
    Macos,
    Linux,
    Windows,
    Unknown,
}

/// What `gateway.nodes` says of what nodes may offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Beyond the platform's own; also the only way to the dangerous ones.
    pub(crate) allow: BTreeSet<String>,
    /// Never, whatever else says so.
    pub(crate) deny: BTreeSet<String>,
    /// The tools that nodes publish count for nothing.
    pub(crate) without_tools: bool,
    /// The skills that nodes publish count for nothing.
    pub(crate) without_skills: bool,
}

/// Why a command does not run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// Neither the platform nor the configuration has it.
    NotAllowed,
    /// The configuration forbids it.
    Forbidden,
    /// It wants a line in the configuration.
    Dangerous,
    /// The node offers it, and nobody has approved that yet.
    Unapproved,
    /// The node does not offer it.
    Undeclared,
}

impl Platform {
    /// Reads `client.platform` and `client.deviceFamily` of a connect.
    pub(super) fn of(platform: &str, family: Option<&str>) -> Self {
        let platform = platform.trim().to_lowercase();
        let family = family.unwrap_or_default().trim().to_lowercase();
        let name = match platform.split_once(' ') {
            Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => name,
            Some(_) => return Self::Unknown,
            None => platform.as_str(),
        };
        let is_versioned = name.len() != platform.len();
        let (found, families): (Self, &[&str]) = match name {
            "ios" | "ipados" => (Self::Ios, &["iphone", "ipad", "ios"]),
            "watchos" => (Self::Watchos, &["apple watch", "watchos"]),
            "android" => (Self::Android, &["android"]),
            "macos" => (Self::Macos, &["mac"]),
            "windows" if !is_versioned => (Self::Windows, &["windows"]),
            "linux" if !is_versioned => (Self::Linux, &["linux"]),
            _ => return Self::Unknown,
        };
        let is_bare =
            family.is_empty() && !is_versioned && matches!(found, Self::Ios | Self::Android);
        if is_bare || families.contains(&family.as_str()) { found } else { Self::Unknown }
    }

    /// What a node of this platform may offer without a word in the configuration.
    fn has(self, command: &str) -> bool {
        let is_host = HOST.contains(&command) || command == "computer.act";
        let is_personal = PERSONAL.contains(&command) || DEVICE.contains(&command);
        let is_notice = command == "system.notify";
        match self {
            Self::Ios => {
                is_personal || is_notice || matches!(command, "watch.status" | "watch.notify")
            }
            Self::Watchos => DEVICE.contains(&command) || is_notice,
            Self::Android => {
                is_personal
                    || is_notice
                    || matches!(
                        command,
                        "notifications.list"
                            | "notifications.actions"
                            | "device.permissions"
                            | "device.health"
                            | "device.apps"
                            | "callLog.search"
                            | "mobile.ui.observe"
                            | "mobile.ui.act"
                    )
            }
            Self::Macos => {
                is_personal
                    || is_notice
                    || is_host
                    || matches!(command, "camera.ptz.status" | "device.apps")
            }
            Self::Linux => is_notice || is_host,
            Self::Windows => {
                is_notice
                    || is_host
                    || DEVICE.contains(&command)
                    || matches!(command, "camera.list" | "location.get")
            }
            Self::Unknown => is_notice || matches!(command, "camera.list" | "location.get"),
        }
    }
}

impl Rules {
    /// What the configuration says.
    pub(crate) fn of(config: &crate::config::Nodes) -> Self {
        let set = |names: &[String]| names.iter().map(|name| name.trim().to_owned()).collect();
        Self {
            allow: set(&config.allow),
            deny: set(&config.deny),
            without_tools: config.plugin_tools == Some(false),
            without_skills: config.skills == Some(false),
        }
    }

    /// Of what a node declares, what it may ask approval for; the rest is as good as unsaid.
    pub(super) fn declarable<'a>(
        &self,
        platform: Platform,
        declared: impl IntoIterator<Item = &'a String>,
    ) -> BTreeSet<String> {
        let declared = declared.into_iter().map(|command| command.trim());
        let kept = declared.filter(|command| {
            !command.is_empty()
                && !is_private(command)
                && !self.deny.contains(*command)
                && (DANGEROUS.contains(command) || self.may(platform, command))
        });
        kept.map(str::to_owned).collect()
    }

    /// Whether a node that declares `declared`, of which `effective` is approved, may be given
    /// `command`.
    pub(super) fn check(
        &self,
        platform: Platform,
        command: &str,
        declared: &BTreeSet<String>,
        effective: &BTreeSet<String>,
    ) -> Result<(), Denied> {
        if is_private(command) {
            return Err(Denied::NotAllowed);
        }
        if self.deny.contains(command) {
            return Err(Denied::Forbidden);
        }
        if DANGEROUS.contains(&command) && !self.allow.contains(command) {
            return Err(Denied::Dangerous);
        }
        if !self.may(platform, command) {
            return Err(Denied::NotAllowed);
        }
        if effective.contains(command) {
            return Ok(());
        }
        Err(if declared.contains(command) { Denied::Unapproved } else { Denied::Undeclared })
    }

    fn may(&self, platform: Platform, command: &str) -> bool {
        self.allow.contains(command)
            || (!DANGEROUS.contains(&command) && (platform.has(command) || TALK.contains(&command)))
    }
}

impl Denied {
    /// `details.reason`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NotAllowed | Self::Forbidden | Self::Dangerous => "command not allowlisted",
            Self::Unapproved => "node did not declare commands",
            Self::Undeclared => "command not declared by node",
        }
    }

    /// For people, with what to type next.
    pub(super) fn message(self, command: &str, platform: &str) -> String {
        let why = match self {
            Self::NotAllowed => {
                format!("{command:?} is not in the allowlist for platform {platform:?}")
            }
            Self::Forbidden => format!("{command:?} is blocked by gateway.nodes.commands.deny"),
            Self::Dangerous => {
                format!("{command:?} must be named in gateway.nodes.commands.allow")
            }
            Self::Unapproved => "what the node declares is not approved yet; run `openclaw nodes \
                pending`, then `openclaw nodes approve REQUEST`"
                .to_owned(),
            Self::Undeclared => {
                format!("the node (platform: {platform}) does not support {command:?}")
            }
        };
        format!("node command not allowed: {why}")
    }
}

/// Whether `command` is between OpenClaw's own programs.
pub(in crate::gateway) fn is_private(command: &str) -> bool {
    command.starts_with(PRIVATE)
}

/// Whether only an administrator may invoke `command`.
pub(in crate::gateway) fn is_admin_only(command: &str) -> bool {
    ADMIN_ONLY.contains(&command)
}

/// What a person must hold to approve that a node offers `commands`.
pub(super) fn scopes_to_approve(commands: &BTreeSet<String>) -> Vec<Scope> {
    let is_grave =
        |command: &String| is_admin_only(command) || ADMIN_APPROVED.contains(&command.as_str());
    if commands.iter().any(is_grave) {
        vec![Scope::Pairing, Scope::Admin]
    } else if commands.is_empty() {
        vec![Scope::Pairing]
    } else {
        vec![Scope::Pairing, Scope::Write]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_platform_and_a_family_that_contradict_each_other_are_unknown() {
        for (platform, family, expected) in [
            ("linux", Some("Linux"), Platform::Linux),
            ("linux", Some("iPhone"), Platform::Unknown),
            ("linux", None, Platform::Unknown),
            ("iOS 26.4.0", Some("iPhone"), Platform::Ios),
            ("ios", None, Platform::Ios),
            ("iOS 26.4.0", None, Platform::Unknown),
            ("macOS 26.3.1", Some("Mac"), Platform::Macos),
            ("Android 16 (SDK 36)", Some("Android"), Platform::Android),
            ("watchOS 11.1", Some("Apple Watch"), Platform::Watchos),
            ("linux evil", Some("Linux"), Platform::Unknown),
            ("", Some("Linux"), Platform::Unknown),
        ] {
            assert_eq!(Platform::of(platform, family), expected, "{platform} {family:?}");
        }
    }

    #[test]
    fn a_command_runs_only_where_declared_approved_and_allowed() {
        let rules = Rules {
            allow: set(&["camera.snap", "own.thing"]),
            deny: set(&["system.which"]),
            ..Rules::default()
        };
        let declared =
            set(&["system.run", "system.which", "camera.snap", "own.thing", "camera.clip"]);
        let effective = set(&["system.run", "system.which", "camera.snap", "camera.clip"]);
        for (command, expected) in [
            ("system.run", Ok(())),
            ("camera.snap", Ok(())),
            ("own.thing", Err(Denied::Unapproved)),
            ("system.which", Err(Denied::Forbidden)),
            ("camera.clip", Err(Denied::Dangerous)),
            ("system.notify", Err(Denied::Undeclared)),
            ("location.get", Err(Denied::NotAllowed)),
            ("worker.launch.v1", Err(Denied::NotAllowed)),
        ] {
            let outcome = rules.check(Platform::Linux, command, &declared, &effective);
            assert_eq!(outcome, expected, "{command}");
        }
    }

    #[test]
    fn what_a_node_may_not_offer_is_not_asked_about() {
        let rules = Rules { deny: set(&["desktop.stream"]), ..Rules::default() };
        let said: Vec<String> = [
            " system.run ",
            "system.run",
            "dir.list",
            "worker.launch.v1",
            "desktop.stream",
            "screen.record",
        ]
        .map(str::to_owned)
        .to_vec();
        let kept = rules.declarable(Platform::Linux, &said);
        assert_eq!(kept, set(&["system.run", "screen.record"]));
        assert_eq!(rules.declarable(Platform::Unknown, &said), set(&["screen.record"]));
    }

    #[test]
    fn who_may_approve_depends_on_what_is_offered() {
        assert_eq!(scopes_to_approve(&set(&[])), [Scope::Pairing]);
        assert_eq!(scopes_to_approve(&set(&["system.notify"])), [Scope::Pairing, Scope::Write]);
        for grave in ["system.run", "system.which", "fs.listDir", "system.execApprovals.set"] {
            let scopes = scopes_to_approve(&set(&["system.notify", grave]));
            assert_eq!(scopes, [Scope::Pairing, Scope::Admin], "{grave}");
        }
    }

    #[test]
    fn every_refusal_of_a_command_says_why() {
        for denied in [
            Denied::NotAllowed,
            Denied::Forbidden,
            Denied::Dangerous,
            Denied::Unapproved,
            Denied::Undeclared,
        ] {
            assert!(denied.message("a.b", "linux").starts_with("node command not allowed: "));
            assert!(!denied.reason().is_empty());
        }
    }
}
