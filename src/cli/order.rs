//! What `remote connect` is told: its arguments, and the definition that they make.

use std::path::PathBuf;

use super::{remote::LOCAL, ssh_options};
use crate::{
    config::{
        self, HELD_MOST_MOST, HOLD_SECONDS_MOST, Kind, Listen, OpenClaw, Remote, Remotes,
        UNREAD_MIB, check_name,
    },
    fingerprint::Fingerprint,
    problem::{Class, Problem},
    ssh,
};

/// The gateway's port where nothing else is said.
pub(super) const GATEWAY_PORT: u16 = 18789;
/// The name of the remote that stands in `openclaw.json`.
const CONFIGURED: &str = "config";

/// A value of `--unread-most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnreadMost {
    /// What all remotes without a bound of their own share.
    Shared,
    /// A bound of this remote's own, MiB, within [`UNREAD_MIB`].
    Own(u16),
}

/// Arguments of `remote connect`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// `[user@]host[:port]`, or the name of a saved remote; without it the default one
    pub(super) target: Option<String>,
    #[command(flatten)]
    pub(super) ssh: ssh_options::Arguments,
    /// A further forward from here, as in ssh: `[bind:]port:host:hostport`, or a socket at either
    /// end; may be repeated
    #[arg(short = 'L', value_name = "SPEC")]
    pub(super) forward: Vec<String>,
    /// A forward from over there, as in ssh; port 0 leaves the choice to the server; may be
    /// repeated
    #[arg(short = 'R', value_name = "SPEC")]
    pub(super) remote_forward: Vec<String>,
    /// Forward the gateway's companion as well, the sandbox of its widgets (the port after its own)
    #[arg(long)]
    pub(super) companions: bool,
    /// How long a local connection waits for a path before it is turned away [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=i64::from(HOLD_SECONDS_MOST)))]
    pub(super) hold: Option<u16>,
    /// How many connections may wait at a local port [default: 256]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=i64::from(HELD_MOST_MOST)))]
    pub(super) held_most: Option<u16>,
    /// What slow local readers of this remote may leave unread, MiB [default: 64, shared by all
    /// remotes without this]; `shared` for that again
    #[arg(long, value_name = "MIB", value_parser = unread_most)]
    pub(super) unread_most: Option<UnreadMost>,
    /// What to call the remote; its host otherwise
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Local port that leads to the gateway; 18789 or the next free one otherwise
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) local_port: Option<u16>,
    /// The gateway's port on the far side [default: 18789]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) remote_port: Option<u16>,
    /// The certificate that the gateway shows (`openclaw gateway status` over there prints it); TLS
    /// is spoken through the tunnel then. `none` for a gateway without TLS
    #[arg(long, value_name = "SHA256")]
    pub(super) tls_fingerprint: Option<String>,
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
    /// Never ask a person
    #[arg(long)]
    pub(super) batch: bool,
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
            let bare = Remote::new(CONFIGURED);
            if definition(arguments, Some(bare.clone()), None, 0)? != bare {
                return Err(Problem::new(
                    Class::Usage,
                    format!(
                        "openclaw.json says how `{CONFIGURED}` is reached; options are not kept"
                    ),
                )
                .fix("openclaw remote connect user@host --name NAME, with the same options"));
            }
            return Ok(Self { name, definition: None, make_default: false, is_new });
        }
        if before.is_some_and(|before| before.kind == Kind::Exposed) {
            return Err(config::leads_nowhere(&name)
                .fix(format!("openclaw remote expose {name}, or another --name")));
        }
        let own_gateway = OpenClaw::load(paths)?.gateway.own_port();
        let definition = definition(arguments, base, before, own_gateway)?;
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
    let is_told = arguments.ssh.is_given()
        || !arguments.forward.is_empty()
        || !arguments.remote_forward.is_empty();
    if !is_told {
        return Ok(());
    }
    Err(Problem::new(Class::Usage, "ssh options, and no target that they are for")
        .fix("name the host or the remote as well: openclaw remote connect [ssh options] NAME"))
}

/// The host of a target, as a name.
pub(super) fn name_of(target: &str) -> String {
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
    own_gateway: u16,
) -> Result<Remote, Problem> {
    let mut remote = match base {
        Some(remote) => remote,
        None => Remote {
            local_port: before.map_or(0, |before| before.local_port),
            // Only `--tls-fingerprint` takes a pin away: another gateway of this name is a mismatch.
            tls_fingerprint: before.and_then(|before| before.tls_fingerprint),
            // As the port: they are of this machine, not of the way.
            hold_seconds: before.and_then(|before| before.hold_seconds),
            held_most: before.and_then(|before| before.held_most),
            unread_most_mib: before.and_then(|before| before.unread_most_mib),
            ..Remote::new(arguments.target.clone().unwrap_or_default())
        },
    };
    remote.remote_port = arguments.remote_port.unwrap_or(remote.remote_port);
    if let Some(text) = &arguments.tls_fingerprint {
        remote.tls_fingerprint = pin(text)?;
    }
    remote.companions |= arguments.companions;
    remote.hold_seconds = arguments.hold.or(remote.hold_seconds);
    remote.held_most = arguments.held_most.or(remote.held_most);
    match arguments.unread_most {
        Some(UnreadMost::Own(mib)) => remote.unread_most_mib = Some(mib),
        Some(UnreadMost::Shared) => remote.unread_most_mib = None,
        None => {}
    }
    let folder = current_folder()?;
    let mut problems = Vec::new();
    problems.extend(arguments.ssh.change(&mut remote.ssh, &folder).err());
    let mut local_port = arguments.local_port;
    if !arguments.forward.is_empty() {
        let read = arguments.forward.iter().map(|spec| ssh_options::local_forward(spec, &folder));
        let mut forwards = sound(read, &mut problems);
        // What people type today, `-L 18789:127.0.0.1:18789`, is the forward that we make anyway.
        let gateway = remote.remote_port;
        let own = forwards.iter().find(|forward| forward.is_made_anyway(gateway, local_port));
        local_port = local_port.or(own.and_then(|forward| forward.listen.port()));
        forwards.retain(|forward| !forward.is_made_anyway(gateway, local_port));
        remote.forwards = forwards;
    }
    if !arguments.remote_forward.is_empty() {
        let specs = arguments.remote_forward.iter();
        let read = specs.map(|spec| ssh_options::remote_forward(spec, &folder));
        remote.remote_forwards = sound(read, &mut problems);
    }
    remote.local_port = local_port.unwrap_or(remote.local_port);
    problems.extend(check_places(&remote));
    problems.extend(check_destinations(&remote, own_gateway));
    remote.wanted = true;
    Problem::of_all(problems).map_or(Ok(remote), Err)
}

/// Reads the value of `--unread-most`.
fn unread_most(text: &str) -> Result<UnreadMost, String> {
    if text == "shared" {
        return Ok(UnreadMost::Shared);
    }
    let mib = text.parse().ok().filter(|mib| UNREAD_MIB.contains(mib));
    mib.map(UnreadMost::Own).ok_or_else(|| format!("neither `shared` nor in {UNREAD_MIB:?}"))
}

/// What was read, without what has problems.
fn sound<T>(read: impl Iterator<Item = Result<T, Problem>>, problems: &mut Vec<Problem>) -> Vec<T> {
    read.filter_map(|outcome| outcome.map_err(|problem| problems.push(problem)).ok()).collect()
}

/// The certificate to pin; `none` for no TLS.
fn pin(text: &str) -> Result<Option<Fingerprint>, Problem> {
    if text == "none" {
        return Ok(None);
    }
    Fingerprint::parse(text).map(Some).ok_or_else(|| {
        Problem::new(
            Class::Usage,
            format!("--tls-fingerprint is no SHA-256 of a certificate: {text:?}"),
        )
        .fix("over there: openclaw gateway status prints it: sha256: and 64 hex digits")
    })
}

/// Where the person stands.
pub(super) fn current_folder() -> Result<PathBuf, Problem> {
    std::env::current_dir().map_err(|error| {
        Problem::new(Class::Usage, format!("the current folder is not there: {error}"))
    })
}

/// The gateway's companion port for browser control is operator access, and never forwarded; a
/// gateway, the far one or that of this machine at `own_gateway`, is for its own machine.
fn check_destinations(remote: &Remote, own_gateway: u16) -> Vec<Problem> {
    const BROWSER_CONTROL: &str =
        "the gateway's browser control is as good as its owner's login, and is not forwarded";
    let gateway = remote.remote_port;
    let mut problems = Vec::new();
    for forward in &remote.forwards {
        let why = if forward.leads_to_browser_control(gateway) {
            BROWSER_CONTROL
        } else if forward.opens_gateway(gateway) {
            "would open the gateway to everybody on the network"
        } else {
            continue;
        };
        let problem = Problem::new(Class::Usage, format!("-L {forward}: {why}"));
        problems.push(problem.fix("leave that -L out; the gateway itself needs none"));
    }
    for forward in &remote.remote_forwards {
        let why = if forward.leads_to_browser_control(own_gateway) {
            BROWSER_CONTROL
        } else if forward.opens_gateway(own_gateway) || forward.opens_gateway(remote.local_port) {
            "would open a gateway to everybody who reaches the far machine"
        } else {
            continue;
        };
        let problem = Problem::new(Class::Usage, format!("-R {forward}: {why}"));
        let fix = "openclaw remote expose [user@]jump publishes it on the loopback over there";
        problems.push(problem.fix(fix));
    }
    problems
}

/// The places on either machine that would lead to more than one destination.
fn check_places(remote: &Remote) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut taken: Vec<Listen> = Vec::new();
    if remote.local_port != 0 {
        taken.push(Listen::loopback(remote.local_port));
    }
    let companion = remote.companion().map(|forward| forward.listen);
    let typed = remote.forwards.iter().map(|forward| forward.listen.clone());
    for listen in companion.into_iter().chain(typed) {
        if taken.iter().any(|other| other.collides(&listen)) {
            let what = if listen.port().is_some() { "port" } else { "socket" };
            let what = format!("local {what} {listen} would lead to two places of this remote");
            let fix = "give every -L a place of its own, and the gateway one with --local-port";
            problems.push(Problem::new(Class::Usage, what).fix(fix));
        }
        taken.push(listen);
    }
    let mut taken: Vec<&Listen> = Vec::new();
    for listen in remote.remote_forwards.iter().map(|forward| &forward.listen) {
        if taken.iter().any(|other| other.collides(listen)) {
            let what = format!("{listen} over there would lead to two places here");
            problems.push(Problem::new(Class::Usage, what).fix("give every -R a place of its own"));
        }
        taken.push(listen);
    }
    problems
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
        Remote { local_port: 18789, ..Remote::new("me@vps") }
    }

    fn local(spec: &str) -> config::Forward {
        ssh::read_local(spec).unwrap()
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
    fn a_pin_stays_when_the_target_is_typed_again_until_it_is_taken_away() {
        let pinned = Fingerprint::parse(&format!("sha256:{}", "ab".repeat(32)));
        let before = Remote { tls_fingerprint: pinned, ..vps() };
        let after = |words: &[&str]| {
            let words = ["connect"].iter().chain(words);
            let line = Line::parse_from(words);
            definition(&line.arguments, None, Some(&before), 18789).unwrap().tls_fingerprint
        };
        assert!(pinned.is_some());
        assert_eq!(after(&["me@vps"]), pinned);
        assert_eq!(after(&["me@another", "--name", "vps"]), pinned);
        assert_eq!(after(&["me@vps", "--tls-fingerprint", "none"]), None);
    }

    #[test]
    fn a_local_port_leads_to_one_place() {
        let ports = |words: &str| {
            let words = ["connect", "me@vps"].into_iter().chain(words.split(' '));
            let line = Line::parse_from(words);
            definition(&line.arguments, None, None, 18789).map(|remote| remote.forwards.len())
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
    fn options_for_the_configured_remote_are_refused_and_what_is_said_of_this_login_is_not() {
        let (_home, paths) = config::Paths::temporary();
        let order = |words: &str| {
            let words = ["connect", "config"].into_iter().chain(words.split_whitespace());
            Order::new(&Line::parse_from(words).arguments, &Remotes::default(), &paths)
        };
        for words in ["", "--token-file /run/token", "--fetch-token --batch"] {
            assert!(order(words).unwrap().definition.is_none(), "{words}");
        }
        for words in [
            "--hold 8",
            "--held-most 9",
            "--unread-most 20",
            "-p 2222",
            "-L 8000:db:1",
            "--local-port 8000",
        ] {
            let problem = order(words).map(|order| order.name).unwrap_err();
            assert_eq!(problem.class, Class::Usage, "{words}");
            assert!(problem.fix.is_some_and(|fix| fix.contains("--name")), "{words}");
        }
    }

    #[test]
    fn the_bounds_at_the_port_stay_when_the_target_is_typed_again() {
        let before = Remote {
            hold_seconds: Some(8),
            held_most: Some(9),
            unread_most_mib: Some(20),
            ..Remote::new("me@vps")
        };
        let made = |words: &[&str]| {
            let line =
                Line::parse_from([&["connect", "me@other", "--name", "vps"], words].concat());
            let made = definition(&line.arguments, None, Some(&before), 18789).unwrap();
            (made.hold_seconds, made.held_most, made.unread_most_mib)
        };
        assert_eq!(made(&[]), (Some(8), Some(9), Some(20)));
        assert_eq!(made(&["--hold", "30"]), (Some(30), Some(9), Some(20)));
        assert_eq!(made(&["--unread-most", "1024"]), (Some(8), Some(9), Some(1024)));
        assert_eq!(made(&["--unread-most", "shared"]), (Some(8), Some(9), None));
        for wrong in ["15", "1025", "all", "-1", ""] {
            let value = format!("--unread-most={wrong}");
            assert!(Line::try_parse_from(["connect", "me@vps", &value]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_place_over_there_leads_to_one_place_and_port_0_is_many() {
        let count = |words: &str| {
            let words = ["connect", "me@vps"].into_iter().chain(words.split(' '));
            let line = Line::parse_from(words);
            let made = definition(&line.arguments, None, None, 18789);
            made.map(|remote| remote.remote_forwards.len())
        };
        assert_eq!(count("-R 0:db:1 -R 0:db:2 -R 8001:db:1 -R /run/x:/run/y").unwrap(), 4);
        for twice in ["-R 8001:db:1 -R localhost:8001:db:2", "-R /run/x:db:1 -R /run/x:db:2"] {
            assert_eq!(count(twice).unwrap_err().class, Class::Usage, "{twice}");
        }
        // A port over there is none of ours.
        assert_eq!(count("-L 8001:db:1 -R 8001:db:1").unwrap(), 1);
    }

    #[test]
    fn the_companion_has_the_number_that_the_gateway_tells_its_pages() {
        let made = |words: &str| {
            let words = ["connect", "me@vps", "--companions"].into_iter().chain(words.split(' '));
            definition(&Line::parse_from(words).arguments, None, None, 18789)
        };
        let companion = made("--remote-port 19000").unwrap().companion().unwrap();
        assert_eq!(companion.to_string(), "19001:127.0.0.1:19001");
        for taken in ["--local-port 18790", "-L 18790:db:1"] {
            let problem = made(taken).unwrap_err();
            assert!(problem.message.contains("18790"), "{problem}");
        }
    }

    #[test]
    fn the_forward_that_people_type_today_is_ours_and_those_beside_it_are_theirs() {
        let own = local("18789:127.0.0.1:18789");
        assert!(own.is_made_anyway(18789, None) && own.is_made_anyway(18789, Some(18789)));
        assert!(!own.is_made_anyway(19000, None) && !own.is_made_anyway(18789, Some(18790)));
        assert!(!local("1:db:18789").is_made_anyway(18789, None));
        let made = |words: &str| {
            let words = ["connect", "me@vps"].into_iter().chain(words.split(' '));
            let made = definition(&Line::parse_from(words).arguments, None, None, 18789).unwrap();
            let further: Vec<String> = made.forwards.iter().map(ToString::to_string).collect();
            (made.local_port, further.join(" "))
        };
        let told = |port, further: &str| (port, further.to_owned());
        let gateway = "127.0.0.1:18789";
        assert_eq!(made(&format!("-L 8000:{gateway}")), told(8000, ""));
        let further = format!("8001:{gateway}");
        let line = format!("--local-port 8000 -L {further}");
        assert_eq!(made(&line), told(8000, &further));
        assert_eq!(made(&format!("{line} -L 8000:localhost:18789")), told(8000, &further));
        let second = format!("-L 8000:{gateway} -L {further}");
        assert_eq!(made(&second), told(8000, &further));
        let elsewhere = format!("127.0.0.2:8001:{gateway}");
        assert_eq!(made(&format!("-L {elsewhere}")), told(0, &elsewhere));
        let socket = format!("/run/gateway.sock:{gateway}");
        assert_eq!(made(&format!("-L {socket}")), told(0, &socket));
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let words = "connect me@vps -o x -L 1:a:2x -L :: -R a -L 5:db:1 -L 5:db:2 \
                     -L *:7:localhost:18789";
        let line = Line::parse_from(words.split_whitespace());
        let problem = definition(&line.arguments, None, None, 18789).unwrap_err();
        assert_eq!(problem.class, Class::Usage);
        for part in ["-o x:", "-L 1:a:2x:", "-L :::", "-R a:", "local port 5 ", "-L *:7:"] {
            assert!(problem.message.contains(part), "{part}: {problem}");
        }
        let fix = problem.fix.unwrap_or_default();
        assert_eq!(fix.matches("-L 8080:127.0.0.1:8080").count(), 1, "{fix}");
    }

    #[test]
    fn never_forwards_the_browser_control_nor_opens_the_gateway() {
        let remote = |spec: &str| Remote { forwards: vec![local(spec)], ..vps() };
        for refused in [
            "1:127.0.0.1:18791",
            "1:localhost:18791",
            "1:[::1]:18791",
            "*:1:localhost:18789",
            "0.0.0.0:1:127.0.0.1:18789",
        ] {
            let problems = check_destinations(&remote(refused), 18789);
            assert!(problems.iter().any(|problem| problem.class == Class::Usage), "{refused}");
        }
        for harmless in ["1:db:18791", "1:127.0.0.1:18790"] {
            assert_eq!(check_destinations(&remote(harmless), 18789), [], "{harmless}");
        }
    }

    #[test]
    fn a_remote_forward_opens_no_gateway_either() {
        let remote = |spec: &str| Remote {
            local_port: 18800,
            remote_forwards: vec![ssh::read_remote(spec).unwrap()],
            ..vps()
        };
        for refused in
            ["*:1:localhost:19000", ":1:127.0.0.1:18800", "0.0.0.0:1:[::1]:19000", "1:[::1]:19002"]
        {
            let problem = check_destinations(&remote(refused), 19000).pop().expect("refused");
            assert!(problem.fix.is_some_and(|fix| fix.contains("expose")), "{refused}");
        }
        for fine in ["1:localhost:19000", "*:1:localhost:8080", "/run/x:localhost:19000"] {
            assert_eq!(check_destinations(&remote(fine), 19000), [], "{fine}");
        }
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
}
