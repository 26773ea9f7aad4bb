//! The forwards that a command and a configuration ask for, as `ssh` would make them. Pure.

use super::config::{self as file, Direction, End, Origin, Settings};
use crate::{
    config::{self, Destination, Forward, Listen},
    problem::{Class, Problem},
};

/// Who can open a socket of ours where nobody says otherwise (ssh_config(5)).
const BIND_MASK: u32 = 0o177;

/// What a socket of this machine lacks in a file.
const LOOSE: &str =
    "with a socket means another file in every folder; write `/`, `%d/` or `${HOME}/`";
/// Why a forward is not made that leads to the port after the next one of a gateway.
const BROWSER_CONTROL: &str =
    "the gateway's browser control is as good as its owner's login, and is not forwarded";
/// What `-L` and `-R` take.
const FORM: &str = "not [bind:]port:host:hostport, nor with a socket at either end";

/// How sockets of ours are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketRule {
    /// What others may not do (`StreamLocalBindMask`).
    pub(crate) mask: u32,
    /// Whether a socket that is in the way is removed, used or not (`StreamLocalBindUnlink`).
    pub(crate) unlink: bool,
}

impl Default for SocketRule {
    fn default() -> Self {
        Self { mask: BIND_MASK, unlink: false }
    }
}

/// What the forwards of a configuration come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Forwards {
    /// `LocalForward`, without those that cannot be made.
    pub(crate) local: Vec<Forward>,
    /// `RemoteForward`, likewise.
    pub(crate) remote: Vec<Forward>,
    /// Whether one that cannot be made is a failure (`ExitOnForwardFailure`).
    pub(crate) all_or_nothing: bool,
    /// How sockets of ours are made.
    pub(crate) sockets: SocketRule,
    /// Whether `GatewayPorts` opens forwards that name no address of this machine.
    gateway_ports: bool,
    /// What cannot be made, each with its place and the reason: sentences for people.
    pub(crate) left_out: Vec<String>,
}

/// What stands between a forward and its making.
type Obstacle = &'static str;

/// The forwards of the target's `settings`; class `config` if some cannot be made and
/// `ExitOnForwardFailure` is set.
pub(super) fn of(settings: &Settings) -> Result<Forwards, Problem> {
    let mut forwards = Forwards {
        all_or_nothing: settings.is_yes("ExitOnForwardFailure"),
        gateway_ports: settings.is_yes("GatewayPorts"),
        sockets: SocketRule {
            mask: mask(settings).unwrap_or(BIND_MASK),
            unlink: settings.is_yes("StreamLocalBindUnlink"),
        },
        ..Forwards::default()
    };
    if settings.is_yes("ClearAllForwardings") {
        return Ok(forwards);
    }
    for (forward, origin) in settings.forwards("LocalForward") {
        match local(&forward, forwards.gateway_ports).and_then(local_in_full) {
            Ok(forward) => forwards.local.push(forward),
            Err(why) => forwards.leave_out("LocalForward", why, &origin),
        }
    }
    for (forward, origin) in settings.forwards("RemoteForward") {
        match remote(&forward).and_then(remote_in_full) {
            Ok(forward) => forwards.remote.push(forward),
            Err(why) => forwards.leave_out("RemoteForward", why, &origin),
        }
    }
    for (_, origin) in settings.forwards("DynamicForward") {
        forwards.leave_out("DynamicForward", "is not supported; run `ssh -D` beside us", &origin);
    }
    if forwards.all_or_nothing && !forwards.left_out.is_empty() {
        return Err(Problem::new(
            Class::Config,
            format!("{}, and ExitOnForwardFailure is set", forwards.left_out.join("; ")),
        )
        .fix("-o ClearAllForwardings=yes, or -o ExitOnForwardFailure=no"));
    }
    Ok(forwards)
}

fn mask(settings: &Settings) -> Option<u32> {
    u32::from_str_radix(settings.word("StreamLocalBindMask")?, 8).ok()
}

impl Forwards {
    fn leave_out(&mut self, what: &str, why: &str, origin: &Origin) {
        self.left_out.push(format!("{origin}: {what} {why}"));
    }

    /// Takes out what `remote` makes itself or must not make: nothing opens its gateway, or that of
    /// this machine at `own_gateway`, to strangers. The port of the first forward that leads to the
    /// gateway, which is the one that is made anyway.
    pub(crate) fn settle(&mut self, remote: &config::Remote, own_gateway: u16) -> Option<u16> {
        let gateway = remote.remote_port;
        let found = std::mem::take(&mut self.local);
        let own = found.iter().find(|forward| forward.is_made_anyway(gateway, None));
        let port = own.and_then(|forward| forward.listen.port());
        let is_bare = |it: &&Forward| matches!(it.listen, Listen::Port { bind: None, .. });
        for typed in remote.forwards.iter().filter(|it| self.gateway_ports && is_bare(it)) {
            self.left_out.push(format!(
                "GatewayPorts: -L {typed} listens for this machine alone; for others write -L \
                 '*:{typed}'"
            ));
        }
        let ours = if remote.local_port == 0 { port } else { Some(remote.local_port) };
        let ours_is_opened = |it: &Forward| ours.is_some_and(|port| it.opens_gateway(port));
        let our_place = ours.map(Listen::loopback);
        let companion = remote.companion();
        // Others that lead to the gateway are wanted beside that one.
        for forward in found.into_iter().filter(|it| !it.is_made_anyway(gateway, ours)) {
            let mut taken = remote.forwards.iter().chain(&self.local).chain(&companion);
            let is_taken = our_place.as_ref().is_some_and(|ours| forward.listen.collides(ours))
                || taken.any(|it| it.listen.collides(&forward.listen));
            let why = if forward.leads_to_browser_control(gateway) {
                BROWSER_CONTROL
            } else if forward.opens_gateway(gateway) {
                "would open the gateway to everybody on the network"
            } else if is_taken {
                "this remote uses that local place already"
            } else {
                self.local.push(forward);
                continue;
            };
            self.left_out.push(format!("LocalForward {} to {}: {why}", forward.listen, forward.to));
        }
        for forward in std::mem::take(&mut self.remote) {
            let mut taken = remote.remote_forwards.iter().chain(&self.remote);
            let why = if forward.leads_to_browser_control(own_gateway) {
                BROWSER_CONTROL
            } else if forward.opens_gateway(own_gateway) || ours_is_opened(&forward) {
                "would open a gateway to everybody who reaches the far machine"
            } else if taken.any(|it| it.listen.collides(&forward.listen)) {
                "this remote has that place over there already"
            } else {
                self.remote.push(forward);
                continue;
            };
            self.left_out
                .push(format!("RemoteForward {} to {}: {why}", forward.listen, forward.to));
        }
        port
    }
}

/// `-L SPEC` as `ssh` reads it; the error says in a few words what is wrong.
pub(crate) fn read_local(spec: &str) -> Result<Forward, Obstacle> {
    local(&file::Forward::parse(spec, Direction::Local).ok_or(FORM)?, false)
}

/// `-R SPEC` as `ssh` reads it.
pub(crate) fn read_remote(spec: &str) -> Result<Forward, Obstacle> {
    if let Some(forward) = file::Forward::parse(spec, Direction::Remote) {
        return remote(&forward);
    }
    let is_socks = file::Forward::socks_over_there(spec).is_some();
    Err(if is_socks { "a SOCKS proxy over there is not supported" } else { FORM })
}

/// One `LocalForward`.
fn local(forward: &file::Forward, gateway_ports: bool) -> Result<Forward, Obstacle> {
    let listen = match &forward.listen {
        End::Port { host: None, port } if gateway_ports => {
            Listen::Port { bind: Some("*".to_owned()), port: *port }
        }
        End::Port { .. } | End::Path(_) => listen(&forward.listen),
    };
    let to = forward.connect.as_ref().ok_or("says not where it leads")?;
    Ok(Forward { listen, to: destination(to)? })
}

/// One `RemoteForward`.
fn remote(forward: &file::Forward) -> Result<Forward, Obstacle> {
    let to = forward
        .connect
        .as_ref()
        .ok_or("without a destination is a SOCKS proxy over there, which is not supported")?;
    Ok(Forward { listen: listen(&forward.listen), to: destination(to)? })
}

/// The forward, if its socket on this machine means the same wherever we run.
fn local_in_full(forward: Forward) -> Result<Forward, Obstacle> {
    match &forward.listen {
        Listen::Socket(path) if !path.starts_with('/') => Err(LOOSE),
        Listen::Socket(_) | Listen::Port { .. } => Ok(forward),
    }
}

/// The same of one whose local end is where it leads.
fn remote_in_full(forward: Forward) -> Result<Forward, Obstacle> {
    match &forward.to {
        Destination::Socket(path) if !path.starts_with('/') => Err(LOOSE),
        Destination::Socket(_) | Destination::Port { .. } => Ok(forward),
    }
}

fn listen(end: &End) -> Listen {
    let bind = |host: &str| match host {
        "" => Some("*".to_owned()),
        host if host.eq_ignore_ascii_case("localhost") => None,
        host => Some(host.to_owned()),
    };
    match end {
        End::Port { host, port } => {
            Listen::Port { bind: host.as_deref().and_then(bind), port: *port }
        }
        End::Path(path) => Listen::Socket(path.clone()),
    }
}

fn destination(end: &End) -> Result<Destination, Obstacle> {
    match end {
        End::Port { host: Some(host), .. } if host.is_empty() => Err(FORM),
        End::Port { host, port } => {
            let host = host.clone().unwrap_or_else(|| "localhost".to_owned());
            Ok(Destination::Port { host, port: *port })
        }
        End::Path(path) => Ok(Destination::Socket(path.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(host: Option<&str>, port: u16) -> End {
        End::Port { host: host.map(str::to_owned), port }
    }

    fn bind(host: Option<&str>, gateway_ports: bool) -> Option<String> {
        let forward = file::Forward { listen: end(host, 1), connect: Some(end(Some("db"), 5432)) };
        match local(&forward, gateway_ports).unwrap().listen {
            Listen::Port { bind, .. } => bind,
            Listen::Socket(path) => panic!("{path}"),
        }
    }

    #[test]
    fn listens_where_ssh_would() {
        assert_eq!(bind(None, false), None);
        assert_eq!(bind(None, true).as_deref(), Some("*"));
        assert_eq!(bind(Some("localhost"), true), None);
        assert_eq!(bind(Some(""), false).as_deref(), Some("*"));
        assert_eq!(bind(Some("*"), false).as_deref(), Some("*"));
        assert_eq!(bind(Some("10.0.0.1"), false).as_deref(), Some("10.0.0.1"));
    }

    #[test]
    fn takes_every_form_that_ssh_takes() {
        for (spec, shown) in [
            ("8080:db:5432", "8080:db:5432"),
            ("localhost:8080:db:5432", "8080:db:5432"),
            ("127.0.0.1:8080:db:5432", "127.0.0.1:8080:db:5432"),
            (":8080:db:5432", "*:8080:db:5432"),
            ("*:8080:db:5432", "*:8080:db:5432"),
            ("[::1]:8080:[fe80::2]:80", "[::1]:8080:[fe80::2]:80"),
            ("[::]:8080:/run/db", "[::]:8080:/run/db"),
            ("8080:/run/db", "8080:/run/db"),
            ("/run/here:db:5432", "/run/here:db:5432"),
            ("/run/here:[::1]:5432", "/run/here:[::1]:5432"),
            ("/run/here:/run/there", "/run/here:/run/there"),
        ] {
            assert_eq!(read_local(spec).unwrap().to_string(), shown, "-L {spec}");
            assert_eq!(read_remote(spec).unwrap().to_string(), shown, "-R {spec}");
        }
        assert_eq!(read_remote("0:db:5432").unwrap().to_string(), "0:db:5432");
        assert_eq!(read_remote("*:0:/run/db").unwrap().to_string(), "*:0:/run/db");
        for wrong in ["", "8080", "8080:db", "0:db:1", "8080:db:99999", "8080::1", "/a:/b:/c"] {
            assert!(read_local(wrong).is_err(), "-L {wrong}");
        }
        for socks in ["1080", "localhost:1080", "/run/socks"] {
            let why = read_remote(socks).unwrap_err();
            assert!(why.contains("SOCKS"), "-R {socks}: {why}");
        }
        for wrong in ["", "8080:db", "8080:db:0", "8080:db:99999"] {
            let why = read_remote(wrong).unwrap_err();
            assert!(why.contains("hostport"), "-R {wrong}: {why}");
        }
    }

    #[test]
    fn a_socket_of_a_file_is_written_in_full() {
        let socket = |path: &str| End::Path(path.to_owned());
        let forward = |listen, connect| file::Forward { listen, connect: Some(connect) };
        let full = forward(socket("/run/a"), socket("/run/b"));
        assert_eq!(
            local(&full, true).and_then(local_in_full).unwrap().to_string(),
            "/run/a:/run/b"
        );
        let loose = forward(socket("./a"), socket("/run/b"));
        assert!(local(&loose, false).and_then(local_in_full).is_err());
        let loose = forward(end(None, 1), socket("./b"));
        assert!(remote(&loose).and_then(remote_in_full).is_err());
    }

    #[test]
    fn absorbs_what_is_made_anyway_and_leaves_out_what_must_not_be() {
        let forward = |text: &str| read_local(text).unwrap();
        let mut remote: config::Remote = serde_json::from_str(
            r#"{"target": "box", "remotePort": 18789, "localPort": 0,
                "forwards": [{"bind": null, "port": 7, "host": "db", "hostPort": 1}]}"#,
        )
        .unwrap();
        let local = vec![
            forward("5:localhost:18789"),
            forward("127.0.0.1:6:[::1]:18789"),
            forward("*:8:localhost:18789"),
            forward("*:11:db:18789"),
            forward("9:db:18789"),
            forward("10:localhost:18791"),
            forward("7:elsewhere:1"),
            forward("5:elsewhere:1"),
        ];
        let made = Forwards { local, ..Forwards::default() };
        let mut forwards = made.clone();
        assert_eq!(forwards.settle(&remote, 18789), Some(5));
        let ports = |forwards: &Forwards| -> Vec<u16> {
            forwards.local.iter().filter_map(|forward| forward.listen.port()).collect()
        };
        assert_eq!(ports(&forwards), [6, 11, 9], "the one that is made anyway is not made twice");
        assert_eq!(forwards.left_out.len(), 4, "{:?}", forwards.left_out);
        assert!(forwards.left_out[1].contains("browser control"));
        // A port of our own that was saved stays, and theirs lead to the gateway beside it.
        remote.local_port = 4;
        let mut forwards = made;
        forwards.settle(&remote, 18789);
        assert_eq!(ports(&forwards), [5, 6, 11, 9]);
    }

    #[test]
    fn a_remote_forward_opens_this_machines_gateway_to_nobody() {
        let remote = ["1:localhost:18789", "*:2:localhost:18789", "3:[::1]:18791", "4:db:18789"];
        let remote = remote.map(|spec| read_remote(spec).unwrap()).to_vec();
        let mut forwards = Forwards { remote, ..Forwards::default() };
        forwards.settle(&config::Remote::new("box"), 18789);
        let kept: Vec<String> = forwards.remote.iter().map(ToString::to_string).collect();
        assert_eq!(kept, ["1:localhost:18789", "4:db:18789"]);
        assert_eq!(forwards.left_out.len(), 2, "{:?}", forwards.left_out);
    }
}
