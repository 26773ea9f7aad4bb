//! What `remote connect` is told: its arguments, and the definition that they make.

use std::path::PathBuf;

use super::remote::LOCAL;
use crate::{
    config::{self, Family, Forward, OpenClaw, Remote, Remotes, SshOptions, check_name},
    problem::{Class, Problem},
    ssh,
};

/// The gateway's port where nothing else is said.
pub(super) const GATEWAY_PORT: u16 = 18789;
/// The name of the remote that stands in `openclaw.json`.
const CONFIGURED: &str = "config";

/// Arguments of `remote connect`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// `[user@]host[:port]`, or the name of a saved remote; without it the default one
    pub(super) target: Option<String>,
    /// Port of the SSH server
    #[arg(short, value_name = "PORT")]
    pub(super) port: Option<u16>,
    /// Private key file; may be repeated
    #[arg(short, value_name = "FILE")]
    pub(super) identity: Vec<PathBuf>,
    /// Jump hosts, comma-separated: `[user@]host[:port],…`
    #[arg(short = 'J', value_name = "HOPS")]
    pub(super) jump: Option<String>,
    /// Read this ssh configuration file instead of ~/.ssh/config and the machine's; `none` for no
    /// file
    #[arg(short = 'F', value_name = "FILE", overrides_with = "config_file")]
    pub(super) config_file: Option<PathBuf>,
    /// An option as in ssh_config, Key=Value; may be repeated
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    pub(super) option: Vec<String>,
    /// A further forward, `[bind:]port:host:hostport`; may be repeated
    #[arg(short = 'L', value_name = "SPEC")]
    pub(super) forward: Vec<String>,
    /// A remote forward (not yet)
    #[arg(short = 'R', value_name = "SPEC")]
    pub(super) remote_forward: Vec<String>,
    /// User on the SSH server
    #[arg(short = 'l', value_name = "USER")]
    pub(super) login: Option<String>,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    pub(super) ipv4: bool,
    /// IPv6 only
    #[arg(short = '6')]
    pub(super) ipv6: bool,
    /// Agent forwarding (refused)
    #[arg(short = 'A', hide = true)]
    pub(super) forward_agent: bool,
    /// A SOCKS proxy (refused)
    #[arg(short = 'D', hide = true, value_name = "SPEC")]
    pub(super) dynamic_forward: Vec<String>,
    /// Accepted and ignored, as in `ssh -N -f -T -n -q`
    #[arg(short = 'N', hide = true, action = clap::ArgAction::Count)]
    pub(super) no_command: u8,
    #[arg(short = 'f', hide = true, action = clap::ArgAction::Count)]
    pub(super) background: u8,
    #[arg(short = 'T', hide = true, action = clap::ArgAction::Count)]
    pub(super) no_terminal: u8,
    #[arg(short = 'n', hide = true, action = clap::ArgAction::Count)]
    pub(super) no_input: u8,
    #[arg(short = 'q', hide = true, action = clap::ArgAction::Count)]
    pub(super) quiet: u8,
    /// What to call the remote; its host otherwise
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Local port that leads to the gateway; 18789 or the next free one otherwise
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) local_port: Option<u16>,
    /// The gateway's port on the far side [default: 18789]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) remote_port: Option<u16>,
    /// The gateway's token (others can see it in the process list; prefer --token-file)
    #[arg(long)]
    pub(super) token: Option<String>,
    /// File that holds the gateway's token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(super) token_file: Option<PathBuf>,
    /// File that holds the gateway's password
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// Read the gateway's token over this login
    #[arg(long)]
    pub(super) fetch_token: bool,
    /// Accept this host key of the last hop
    #[arg(long, value_name = "SHA256:…")]
    pub(super) accept_host_key: Option<String>,
    /// Never ask a person
    #[arg(long)]
    pub(super) batch: bool,
    /// Forget a key that was unlocked: the next login asks for its passphrase again
    #[arg(long)]
    pub(super) no_remember: bool,
    /// Ask an idle server for a sign of life every 30 s instead of every 7: for a radio or a battery;
    /// a link that dies unnoticed is then found out later, though at once when somebody comes
    #[arg(long, value_name = "on|off", num_args = 0..=1, require_equals = true, default_missing_value = "on", value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) low_power: Option<bool>,
    /// How long to try, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) timeout: u64,
    /// Be the supervisor, for this remote, in the foreground
    #[arg(long)]
    pub(super) foreground: bool,
    /// Do not make it the default remote
    #[arg(long)]
    pub(super) no_default: bool,
    /// Also write it into openclaw.json, with the gateway's secret as plain text, so that OpenClaw's
    /// own programs use the tunnel
    #[arg(long, conflicts_with = "foreground")]
    pub(super) write_config: bool,
    /// Answer scrapes of the metrics (OpenMetrics) at this address, a port alone being one on
    /// loopback; `off` for no more. Holds for all remotes; kept, unless with --foreground
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) metrics: Option<String>,
}

/// What is asked of the supervisor.
pub(super) struct Order {
    pub(super) name: String,
    /// `None`: the saved definition as it is.
    pub(super) definition: Option<Remote>,
    pub(super) make_default: bool,
    pub(super) is_new: bool,
}

pub(super) fn refuse_unsupported(arguments: &Arguments) -> Result<(), Problem> {
    let refused = |what: &str, fix: &str| Err(Problem::new(Class::Usage, what).fix(fix));
    if arguments.forward_agent {
        return refused(
            "-A is refused: a forwarded agent lets the far host log in as you elsewhere",
            "use -J to go through a host without lending it your agent",
        );
    }
    if !arguments.dynamic_forward.is_empty() {
        return refused("-D: a SOCKS proxy is not supported", "use ssh -D beside the tunnel");
    }
    if !arguments.remote_forward.is_empty() {
        return refused("-R: remote forwards are not built yet", "use ssh -R beside the tunnel");
    }
    Ok(())
}

impl Order {
    pub(super) fn new(
        arguments: &Arguments,
        saved: &Remotes,
        paths: &config::Paths,
    ) -> Result<Self, Problem> {
        let (name, base) = subject(arguments, saved, paths)?;
        let is_new = !saved.remotes.contains_key(&name);
        let make_default = !arguments.no_default;
        let before = saved.remotes.get(&name);
        if name == CONFIGURED && is_new {
            return Ok(Self { name, definition: None, make_default: false, is_new });
        }
        let definition = definition(arguments, base, before)?;
        let is_unchanged = before == Some(&definition);
        Ok(Self { name, definition: (!is_unchanged).then_some(definition), make_default, is_new })
    }
}

/// The name of the remote meant, and the definition that the options change.
fn subject(
    arguments: &Arguments,
    saved: &Remotes,
    paths: &config::Paths,
) -> Result<(String, Option<Remote>), Problem> {
    let Some(target) = &arguments.target else {
        refuse_options_alone(arguments)?;
        let default = || saved.default.clone().filter(|name| name != LOCAL);
        let Some(name) = arguments.name.clone().or_else(default) else {
            OpenClaw::load(paths)?.remote_definition().map_err(|_| {
                Problem::new(Class::Usage, "no target, and there is no default remote")
                    .fix("openclaw remote connect user@host")
            })?;
            return Ok((CONFIGURED.to_owned(), None));
        };
        let definition = saved.named(&name)?.clone();
        return Ok((name, Some(definition)));
    };
    if arguments.name.is_none()
        && let Some(definition) = saved.remotes.get(target)
    {
        return Ok((target.clone(), Some(definition.clone())));
    }
    if let Err(why) = ssh::Target::parse(target) {
        return Err(Problem::new(Class::Usage, why).fix(ssh::Target::FIX));
    }
    let name = arguments.name.clone().unwrap_or_else(|| name_of(target));
    check_name(&name)?;
    if name == CONFIGURED && target != CONFIGURED {
        return Err(Problem::new(
            Class::Usage,
            format!("`{CONFIGURED}` is the name of the remote in openclaw.json, not of {target}"),
        )
        .fix("choose another one with --name"));
    }
    Ok((name, None))
}

/// A target that looks like an option (`-oProxyCommand=…`) is read as one: without another target
/// it must not become a command for the default remote.
fn refuse_options_alone(arguments: &Arguments) -> Result<(), Problem> {
    let is_told = arguments.port.is_some()
        || !arguments.identity.is_empty()
        || arguments.jump.is_some()
        || arguments.config_file.is_some()
        || !arguments.option.is_empty()
        || !arguments.forward.is_empty()
        || arguments.login.is_some()
        || arguments.ipv4
        || arguments.ipv6;
    if !is_told {
        return Ok(());
    }
    Err(Problem::new(Class::Usage, "ssh options, and no target that they are for")
        .fix("name the host or the remote as well: openclaw remote connect [ssh options] NAME"))
}

/// The host of a target, as a name.
fn name_of(target: &str) -> String {
    let rest = target.strip_prefix("ssh://").unwrap_or(target);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host).trim_end_matches('/');
    let host = match host.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, _)) => v6,
        _ if host.matches(':').count() == 1 => host.split(':').next().unwrap_or(host),
        None => host,
    };
    let name: String = host.chars().map(|c| if c == ':' || c == '%' { '-' } else { c }).collect();
    // `::1` and its like: a name starts with no `-`.
    if host.starts_with(':') { format!("v6{name}") } else { name }
}

fn definition(
    arguments: &Arguments,
    base: Option<Remote>,
    before: Option<&Remote>,
) -> Result<Remote, Problem> {
    let mut remote = match base {
        Some(remote) => remote,
        None => Remote {
            target: arguments.target.clone().unwrap_or_default(),
            ssh: SshOptions::default(),
            remote_port: GATEWAY_PORT,
            local_port: before.map_or(0, |before| before.local_port),
            forwards: Vec::new(),
            wanted: true,
        },
    };
    remote.remote_port = arguments.remote_port.unwrap_or(remote.remote_port);
    let options = &mut remote.ssh;
    options.port = arguments.port.or(options.port);
    options.user = arguments.login.clone().or(options.user.take());
    if !arguments.identity.is_empty() {
        options.identities.clone_from(&arguments.identity);
    }
    if let Some(hops) = &arguments.jump {
        // `none` stays: it says that the ssh configuration's jumps do not count.
        options.jumps = hops.split(',').map(str::to_owned).collect();
    }
    if !arguments.option.is_empty() {
        options.options =
            arguments.option.iter().map(|option| key_value(option)).collect::<Result<_, _>>()?;
    }
    options.family = match (arguments.ipv4, arguments.ipv6) {
        (true, _) => Family::V4,
        (_, true) => Family::V6,
        _ => options.family,
    };
    options.config_file = arguments.config_file.clone().or(options.config_file.take());
    options.no_remember |= arguments.no_remember;
    options.low_power = arguments.low_power.unwrap_or(options.low_power);
    options.host_key_pin = arguments.accept_host_key.clone().or(options.host_key_pin.take());
    let folder = std::env::current_dir().map_err(|error| {
        Problem::new(Class::Usage, format!("the current folder is not there: {error}"))
    })?;
    ssh::anchor(options, &folder);
    let mut local_port = arguments.local_port;
    if !arguments.forward.is_empty() {
        let forwards = arguments
            .forward
            .iter()
            .map(|spec| parse_forward(spec))
            .collect::<Result<Vec<_>, _>>()?;
        // What people type today, `-L 18789:127.0.0.1:18789`, is the forward that we make anyway.
        let (own, further): (Vec<_>, Vec<_>) =
            forwards.into_iter().partition(|forward| forward.leads_to_gateway(remote.remote_port));
        local_port = local_port.or(own.first().map(|forward| forward.port));
        remote.forwards = further;
    }
    remote.local_port = local_port.unwrap_or(remote.local_port);
    check_ports(&remote)?;
    check_destinations(&remote)?;
    remote.wanted = true;
    Ok(remote)
}

/// The gateway's companion port for browser control is operator access, and never forwarded; the
/// gateway itself is for this machine.
fn check_destinations(remote: &Remote) -> Result<(), Problem> {
    let gateway = remote.remote_port;
    for forward in &remote.forwards {
        let why = if forward.leads_to_browser_control(gateway) {
            "the gateway's browser control is as good as its owner's login, and is not forwarded"
        } else if forward.opens_gateway(gateway) {
            "would open the gateway to everybody on the network"
        } else {
            continue;
        };
        let Forward { port, host, host_port, .. } = forward;
        return Err(Problem::new(Class::Usage, format!("-L {port}:{host}:{host_port}: {why}"))
            .fix("leave that -L out; the gateway itself needs none"));
    }
    Ok(())
}

/// Whether each local port leads to one place.
fn check_ports(remote: &Remote) -> Result<(), Problem> {
    let mut taken = vec![(None, remote.local_port)];
    for forward in &remote.forwards {
        let is_loopback = |bind: &&str| matches!(*bind, "127.0.0.1" | "::1");
        let bind = forward.bind.as_deref().filter(|bind| !is_loopback(bind));
        if taken.contains(&(bind, forward.port)) {
            let port = forward.port;
            return Err(Problem::new(
                Class::Usage,
                format!("local port {port} would lead to two places of this remote"),
            )
            .fix("give every -L a port of its own"));
        }
        taken.push((bind, forward.port));
    }
    Ok(())
}

fn key_value(option: &str) -> Result<(String, String), Problem> {
    // As in a file: blanks, with one `=` at most among them, end the keyword.
    let option = option.trim();
    let end = option.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(option.len());
    let (key, rest) = option.split_at(end);
    let rest = rest.trim_start();
    if key.is_empty() || rest.is_empty() {
        return Err(Problem::new(Class::Usage, format!("-o {option}: not Key=Value"))
            .fix("write it as in ssh_config(5), such as -o ConnectTimeout=5"));
    }
    let value = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    Ok((key.to_owned(), value.to_owned()))
}

/// `[bind:]port:host:hostport`, as `ssh -L` has it; IPv6 addresses in brackets.
fn parse_forward(spec: &str) -> Result<Forward, Problem> {
    let wrong = || {
        Problem::new(Class::Usage, format!("-L {spec}: not [bind:]port:host:hostport"))
            .fix("-L 8080:127.0.0.1:8080")
    };
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut bracketed = false;
    for c in spec.chars() {
        match c {
            '[' => bracketed = true,
            ']' => bracketed = false,
            ':' if !bracketed => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    let port = |text: &String| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    match fields.as_slice() {
        [local, host, far] if !host.is_empty() => Ok(Forward {
            bind: None,
            port: port(local)?,
            host: host.clone(),
            host_port: port(far)?,
        }),
        [bind, local, host, far] if !host.is_empty() => Ok(Forward {
            bind: Some(bind.clone()).filter(|bind| bind != "localhost"),
            port: port(local)?,
            host: host.clone(),
            host_port: port(far)?,
        }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn vps() -> Remote {
        Remote {
            target: "me@vps".to_owned(),
            ssh: SshOptions::default(),
            remote_port: 18789,
            local_port: 18789,
            forwards: Vec::new(),
            wanted: true,
        }
    }

    #[test]
    fn names_a_remote_after_its_host() {
        for (target, name) in [
            ("me@vps.example.com", "vps.example.com"),
            ("vps:2222", "vps"),
            ("ssh://me@vps:22/", "vps"),
            ("me@[fe80::1%eth0]:22", "fe80--1-eth0"),
            ("::1", "v6--1"),
            ("me@[::1]:22", "v6--1"),
            ("-x", "-x"),
        ] {
            assert_eq!(name_of(target), name);
        }
    }

    #[test]
    fn reads_forwards_as_ssh_does() {
        let forward = parse_forward("[::1]:8080:[fe80::2]:80").unwrap();
        assert_eq!(forward.bind.as_deref(), Some("::1"));
        assert_eq!((forward.port, forward.host.as_str(), forward.host_port), (8080, "fe80::2", 80));
        assert_eq!(parse_forward("8080:db:5432").unwrap().bind, None);
        assert_eq!(parse_forward("localhost:8080:db:5432").unwrap().bind, None);
        for wrong in ["", "8080", "8080:db", "0:db:1", "8080:db:99999", "8080::1", "/tmp/s:db:1"] {
            let problem = parse_forward(wrong).unwrap_err();
            assert_eq!(problem.class, Class::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_local_port_leads_to_one_place() {
        let ports = |words: &str| {
            let words = ["connect", "me@vps"].into_iter().chain(words.split(' '));
            let line = Line::parse_from(words);
            definition(&line.arguments, None, None).map(|remote| remote.forwards.len())
        };
        assert_eq!(ports("--local-port 8000 -L 8001:db:1 -L 127.0.0.2:8001:db:2").unwrap(), 2);
        assert_eq!(ports("-L 18789:127.0.0.1:18789 -L 8001:db:1").unwrap(), 1);
        for twice in [
            "--local-port 8000 -L 8000:db:1",
            "-L 8000:127.0.0.1:18789 -L 127.0.0.1:8000:db:1",
            "-L 8000:db:1 -L localhost:8000:db:2",
        ] {
            let problem = ports(twice).unwrap_err();
            assert_eq!(problem.class, Class::Usage, "{twice}");
            assert!(problem.message.contains("8000"), "{problem}");
        }
    }

    #[test]
    fn the_name_of_the_configured_remote_is_given_to_no_other() {
        let (_home, paths) = config::Paths::temporary();
        for words in
            [["connect", "me@config"].as_slice(), &["connect", "me@vps", "--name", "config"]]
        {
            let line = Line::parse_from(words);
            let outcome = Order::new(&line.arguments, &Remotes::default(), &paths);
            assert_eq!(outcome.map(|order| order.name).unwrap_err().class, Class::Usage);
        }
    }

    #[test]
    fn the_forward_that_people_type_today_is_ours() {
        let own = parse_forward("18789:127.0.0.1:18789").unwrap();
        assert!(own.leads_to_gateway(18789));
        assert!(!own.leads_to_gateway(19000));
        assert!(!parse_forward("1:db:18789").unwrap().leads_to_gateway(18789));
    }

    #[test]
    fn never_forwards_the_browser_control_nor_opens_the_gateway() {
        let remote = |spec: &str| Remote { forwards: vec![parse_forward(spec).unwrap()], ..vps() };
        for refused in [
            "1:127.0.0.1:18791",
            "1:localhost:18791",
            "1:[::1]:18791",
            "*:1:localhost:18789",
            "0.0.0.0:1:127.0.0.1:18789",
        ] {
            assert_eq!(check_destinations(&remote(refused)).unwrap_err().class, Class::Usage);
        }
        check_destinations(&remote("1:db:18791")).unwrap();
        check_destinations(&remote("1:127.0.0.1:18790")).unwrap();
    }

    #[test]
    fn a_target_that_is_read_as_an_option_commands_no_saved_remote() {
        let (_home, paths) = config::Paths::temporary();
        let saved = Remotes {
            default: Some("vps".to_owned()),
            service_offered: false,
            remotes: [("vps".to_owned(), vps())].into(),
            ..Remotes::default()
        };
        let order = |words: &[&str]| {
            let line = Line::parse_from(["connect"].iter().chain(words));
            Order::new(&line.arguments, &saved, &paths).map(|order| order.name)
        };
        for words in [
            ["-oProxyCommand=touch /tmp/x"].as_slice(),
            &["-F/tmp/x"],
            &["-Jme@elsewhere"],
            &["--name", "vps", "-oProxyCommand=touch /tmp/x"],
        ] {
            let problem = order(words).unwrap_err();
            assert_eq!(problem.class, Class::Usage, "{words:?}");
            assert!(problem.fix.is_some(), "{words:?}");
        }
        assert_eq!(order(&[]).unwrap(), "vps");
        assert_eq!(order(&["--local-port", "18790"]).unwrap(), "vps");
        assert_eq!(order(&["-p2222", "vps"]).unwrap(), "vps");
    }

    #[test]
    fn a_target_that_is_none_is_told_from_a_name_that_is_none() {
        let (_home, paths) = config::Paths::temporary();
        for (words, what) in [
            (["connect", "--", "a b"].as_slice(), "the target"),
            (&["connect", "--", "-oProxyCommand=true"], "the target"),
            (&["connect", "--name", "a b", "vps"], "name"),
        ] {
            let line = Line::parse_from(words);
            let outcome = Order::new(&line.arguments, &Remotes::default(), &paths);
            let problem = outcome.map(|order| order.name).unwrap_err();
            assert_eq!(problem.class, Class::Usage, "{words:?}");
            assert!(problem.message.contains(what) && problem.fix.is_some(), "{problem}");
        }
    }

    #[test]
    fn splits_options_at_the_first_sign() {
        let split = |text| key_value(text).map(|(key, value)| format!("{key}|{value}"));
        assert_eq!(split("Port=22").unwrap(), "Port|22");
        assert_eq!(split("Port 22").unwrap(), "Port|22");
        assert_eq!(split("Port = 22 ").unwrap(), "Port|22");
        assert_eq!(split("ProxyCommand=a=b").unwrap(), "ProxyCommand|a=b");
        assert_eq!(split("ProxyCommand nc -o a=b").unwrap(), "ProxyCommand|nc -o a=b");
        assert!(split("Port").is_err() && split("=22").is_err());
    }
}
