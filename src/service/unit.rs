//! The unit of systemd: what it runs, when it is started again, and what it may do.

use std::{fmt::Write as _, path::Path};

use super::{Part, Service, Starter, Work, seal::seal};
use crate::control::ALLOCATOR;

/// Exit codes after which another start of a supervisor would fail in the same way: a person must act
/// (login, host key, forward), or the configuration is wrong.
const SUPERVISOR_PREVENTED: &str = "4 5 9 78";
/// The same of a gateway: the configuration is wrong. A port that is taken may come free.
const GATEWAY_PREVENTED: &str = "78";
/// The first version of systemd that has `Type=notify-reload`.
const HAS_NOTIFY_RELOAD: u32 = 253;

/// The description of a unit of all remotes, and how that of one remote begins.
const ALL: &str = "OpenClaw remotes";
const ONE: &str = "OpenClaw remote ";

/// What every service may do. A service manager of a user can enforce no more than this: the
/// directives that need a name space of files would need one of users as well there, in which the
/// owner of /etc/ssh/ssh_config is nobody that `ssh` would believe.
const NARROW: &str = "\
NoNewPrivileges=yes
UMask=0077
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
";

/// What the machine's service manager enforces beyond that. /tmp stays the common one, for the
/// sockets of agents lie there.
const NARROWER: &str = "\
AmbientCapabilities=
CapabilityBoundingSet=
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
";

/// The unit for systemd of that version. The error names a path that no unit can hold.
pub(crate) fn unit(service: &Service, version: u32) -> Result<String, String> {
    let is_system = matches!(service.manager, Starter::System { .. });
    let wanted_by = if is_system { "multi-user.target" } else { "default.target" };
    let part = service.work.part();
    let group = part.group();
    let mut text = format!(
        "# Written by `openclaw {group} install`, removed by `openclaw {group} uninstall` as long as it is\n\
         # as it was written. What you want otherwise goes into a drop-in: systemctl edit.\n\
         [Unit]\n\
         Description={}\n\
         {}\
         StartLimitIntervalSec=0\n\n\
         [Service]\n",
        percent(one_line(&described(&service.work))?),
        order(part, is_system, wanted_by),
    );
    text.push_str(&command(service)?);
    text.push_str(match part {
        Part::Remotes if version >= HAS_NOTIFY_RELOAD => "Type=notify-reload\n",
        Part::Remotes => "Type=notify\nExecReload=/bin/kill -HUP $MAINPID\n",
        Part::Gateway => "Type=notify\n",
    });
    let (pause, prevented, files) = match part {
        Part::Remotes => (2, SUPERVISOR_PREVENTED, 16_384),
        Part::Gateway => (5, GATEWAY_PREVENTED, 65_536),
    };
    write!(
        text,
        "NotifyAccess=main\n\
         Restart=on-failure\n\
         RestartSec={pause}\n\
         RestartPreventExitStatus={prevented}\n\
         TimeoutStartSec=90\n\
         TimeoutStopSec=15\n\
         WatchdogSec=60\n\
         KillMode=mixed\n\
         LimitNOFILE={files}\n\n\
         {NARROW}"
    )
    .map_err(|error| error.to_string())?;
    if let Starter::System { user } = &service.manager {
        let own = quoted(path(&service.own)?)?;
        text.push_str(NARROWER);
        text.push_str(&format!("ReadWritePaths={own}\nUser={}\n", percent(one_line(user)?)));
    }
    text.push_str(&format!("\n[Install]\nWantedBy={wanted_by}\n"));
    Ok(seal(part, &text, ("#", "")))
}

fn described(work: &Work) -> String {
    match work {
        Work::Remotes => ALL.to_owned(),
        Work::Remote(name) | Work::Exposed(name) => format!("{ONE}{name}"),
        Work::Gateway { port, .. } => format!("OpenClaw gateway on port {port}"),
    }
}

/// When it is started.
fn order(part: Part, is_system: bool, wanted_by: &str) -> String {
    match (part, is_system) {
        (Part::Remotes, _) => {
            let after = if is_system { "network.target nss-lookup.target " } else { "" };
            format!(
                "# Readiness means a live path: nothing that boots has to wait for that unless it says so.\n\
                 After={after}{wanted_by}\n"
            )
        }
        // An address that it shall listen on may come late.
        (Part::Gateway, true) => {
            "After=network-online.target tailscaled.service\nWants=network-online.target\n"
                .to_owned()
        }
        (Part::Gateway, false) => String::new(),
    }
}

/// What a unit of ours keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All remotes that are wanted.
    All,
    /// One remote.
    One(String),
}

/// What the unit with this text keeps.
pub(crate) fn kept(text: &str) -> Option<Kept> {
    let what = text.lines().find_map(|line| line.strip_prefix("Description="))?;
    match what.strip_prefix(ONE) {
        Some(name) => Some(Kept::One(name.to_owned())),
        None => (what == ALL).then_some(Kept::All),
    }
}

/// `ExecStart` and `Environment`.
fn command(service: &Service) -> Result<String, String> {
    let mut text = String::new();
    for (name, value) in &service.environment {
        let value = path(value)?;
        text.push_str(&format!("Environment={}\n", quoted(&format!("{name}={value}"))?));
    }
    if service.work.part() == Part::Remotes {
        let (variable, value) = ALLOCATOR;
        text.push_str(&format!("Environment={variable}={value}\n"));
    }
    text.push_str(&format!("ExecStart={}", quoted(program(&service.program)?)?));
    for word in service.arguments() {
        text.push_str(&format!(" {}", quoted(&word)?.replace('$', "$$")));
    }
    text.push('\n');
    if let Work::Gateway { credentials, .. } = &service.work {
        for (name, file) in credentials {
            let file = path(file)?;
            text.push_str(&format!("LoadCredential={}\n", quoted(&format!("{name}:{file}"))?));
        }
    }
    Ok(text)
}

/// The command of a unit of ours, word by word; `None` if the text has none as we write it.
pub(crate) fn command_of(text: &str) -> Option<Vec<String>> {
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => word.extend(letters.next()),
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            '%' | '$' if letters.peek() == Some(&letter) => word.extend(letters.next()),
            other => word.push(other),
        }
    }
    words.push(word);
    (!is_quoted).then_some(words)
}

/// systemd starts no program with quotes or backslashes in its path, however they are written.
fn program(file: &Path) -> Result<&str, String> {
    path(file).ok().filter(|text| !text.contains(['\'', '"', '\\'])).ok_or_else(|| unfit(file))
}

/// A path that fits into a line.
fn path(path: &Path) -> Result<&str, String> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    text.ok_or_else(|| unfit(path))
}

fn unfit(path: &Path) -> String {
    format!("no unit can name {}", path.display().to_string().escape_debug())
}

/// A text that adds no line.
fn one_line(text: &str) -> Result<&str, String> {
    match text.chars().any(char::is_control) {
        true => Err(format!("no unit can name {}", text.escape_debug())),
        false => Ok(text),
    }
}

/// A word as systemd.syntax(7) reads it, quoted only if it must be.
fn quoted(word: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@+,".contains(c);
    if word.chars().all(is_plain) && !word.is_empty() {
        return Ok(word.to_owned());
    }
    let word = percent(&one_line(word)?.replace('\\', "\\\\").replace('"', "\\\""));
    Ok(format!("\"{word}\""))
}

/// `%` would begin a specifier.
fn percent(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Owner, judge,
            tests::{ann, gateway, golden, odd},
        },
        *,
    };

    #[test]
    fn units_are_as_the_golden_files() {
        golden("user.service", &unit(&ann(), 252).unwrap());
        golden("user-one-remote.service", &unit(&of_one(ann()), 257).unwrap());
        let exposed = Service { work: Work::Exposed("vps".to_owned()), ..of_one(ann()) };
        golden("user-exposed.service", &unit(&exposed, 252).unwrap());
        golden("system.service", &unit(&of_deploy(ann()), 252).unwrap());
        golden("gateway-user.service", &unit(&gateway(ann()), 257).unwrap());
        golden(
            "gateway-system.service",
            &unit(&with_secret(gateway(of_deploy(ann()))), 252).unwrap(),
        );
        golden("odd.service", &unit(&odd(), 252).unwrap());
        assert_eq!(judge(&unit(&odd(), 252).unwrap()), Owner::Ours);
    }

    fn of_one(service: Service) -> Service {
        let profile = Some("work".to_owned());
        Service { work: Work::Remote("vps".to_owned()), profile, ..service }
    }

    fn of_deploy(service: Service) -> Service {
        Service {
            own: "/home/deploy/.openclaw/rs".into(),
            manager: Starter::System { user: "deploy".to_owned() },
            ..service
        }
    }

    fn with_secret(service: Service) -> Service {
        let file = "/etc/openclaw/100% token".into();
        let credentials = vec![("openclaw-gateway-token", file)];
        Service { work: Work::Gateway { port: 19_789, credentials }, ..service }
    }

    #[test]
    fn the_command_of_a_unit_is_read_as_it_was_written() {
        for service in [ann(), odd(), of_one(ann()), with_secret(gateway(odd()))] {
            let program = service.program.to_str().unwrap().to_owned();
            let written = std::iter::once(program).chain(service.arguments());
            let read = command_of(&unit(&service, 252).unwrap()).unwrap();
            assert_eq!(read, written.collect::<Vec<_>>());
        }
        assert_eq!(command_of("[Unit]\n"), None);
    }

    #[test]
    fn a_path_adds_no_line() {
        let mut service = ann();
        service.program = "/opt/a\nExecStartPre=/bin/evil".into();
        assert!(unit(&service, 252).unwrap_err().contains("no unit can name"));
        let service = Service { work: Work::Remote("a\nb".to_owned()), ..ann() };
        assert!(unit(&service, 252).unwrap_err().contains("no unit can name"));
        let user = "a\nUser=root".to_owned();
        let service = Service { manager: Starter::System { user }, ..ann() };
        assert!(unit(&service, 252).unwrap_err().contains("no unit can name"));
    }

    #[test]
    fn a_program_that_systemd_does_not_start_is_refused() {
        for program in ["/opt/it's/openclaw", "/opt/\"x\"/openclaw", "/opt/a\\b/openclaw"] {
            let service = Service { program: program.into(), ..ann() };
            assert!(unit(&service, 252).unwrap_err().contains("no unit can name"), "{program}");
        }
    }

    #[test]
    fn a_unit_tells_what_it_keeps() {
        assert_eq!(kept(&unit(&ann(), 252).unwrap()), Some(Kept::All));
        assert_eq!(kept(&unit(&of_one(ann()), 252).unwrap()), Some(Kept::One("vps".to_owned())));
        assert_eq!(kept("[Unit]\nDescription=another\n"), None);
    }

    /// What systemd itself says of them; it must be installed.
    #[test]
    fn systemd_has_nothing_to_say_against_them() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("open claw/100%/open$claw");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &program).unwrap();
        let said = std::process::Command::new("systemd-analyze").arg("--version").output();
        let Ok(said) = said else { return };
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let number = said.split_whitespace().nth(1).unwrap();
        let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        // Of the newer form an older systemd knows nothing.
        let newest: u32 = number.get(..digits).unwrap().parse().unwrap();
        let services = [
            ("a", ann(), 252),
            ("b", of_one(ann()), 252),
            ("c", of_deploy(ann()), 252),
            ("d", odd(), 252),
            ("f", gateway(ann()), 252),
            ("g", with_secret(gateway(of_deploy(ann()))), 252),
            ("e", odd(), newest),
        ];
        for (name, service, version) in services {
            let manager = match service.manager {
                Starter::User => Starter::User,
                Starter::System { .. } => Starter::System { user: "root".to_owned() },
            };
            let service = Service { program: program.clone(), manager, ..service };
            let path = folder.path().join(format!("openclaw-test-{name}.service"));
            std::fs::write(&path, unit(&service, version).unwrap()).unwrap();
            let checked =
                std::process::Command::new("systemd-analyze").arg("verify").arg(&path).output();
            let Ok(checked) = checked else { return };
            let said = String::from_utf8_lossy(&checked.stderr).into_owned();
            assert!(checked.status.success() && !said.contains("openclaw-test"), "{said}");
        }
    }
}
