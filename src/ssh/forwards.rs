//! The forwards that a configuration asks for, as `ssh` would make them. Pure.

use super::config::{End, Origin, Settings};
use crate::{
    config::{self, Forward},
    problem::{Class, Problem},
};

/// What the forwards of a configuration come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Forwards {
    /// `LocalForward`, without those that cannot be made.
    pub(crate) local: Vec<Forward>,
    /// Whether one that cannot be made is a failure (`ExitOnForwardFailure`).
    pub(crate) all_or_nothing: bool,
    /// Whether `GatewayPorts` opens forwards that name no address of this machine.
    gateway_ports: bool,
    /// What cannot be made, each with its place and the reason: sentences for people.
    pub(crate) left_out: Vec<String>,
}

/// The forwards of the target's `settings`; class `config` if some cannot be made and
/// `ExitOnForwardFailure` is set.
pub(super) fn of(settings: &Settings) -> Result<Forwards, Problem> {
    let mut forwards = Forwards {
        all_or_nothing: settings.is_yes("ExitOnForwardFailure"),
        gateway_ports: settings.is_yes("GatewayPorts"),
        ..Forwards::default()
    };
    if settings.is_yes("ClearAllForwardings") {
        return Ok(forwards);
    }
    for (forward, origin) in settings.forwards("LocalForward") {
        match local(&forward.listen, forward.connect.as_ref(), forwards.gateway_ports) {
            Some(forward) => forwards.local.push(forward),
            None => forwards.leave_out("LocalForward with a socket", "is not built yet", &origin),
        }
    }
    for (_, origin) in settings.forwards("RemoteForward") {
        forwards.leave_out("RemoteForward", "is not built yet; run `ssh -R` beside us", &origin);
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

impl Forwards {
    fn leave_out(&mut self, what: &str, why: &str, origin: &Origin) {
        self.left_out.push(format!("{origin}: {what} {why}"));
    }

    /// Takes out what `remote` makes itself or must not make. The port of the first forward that
    /// leads to the gateway, which is the one that is made anyway.
    pub(crate) fn settle(&mut self, remote: &config::Remote) -> Option<u16> {
        let gateway = remote.remote_port;
        let (own, further): (Vec<_>, Vec<_>) = std::mem::take(&mut self.local)
            .into_iter()
            .partition(|forward| forward.leads_to_gateway(gateway));
        let port = own.first().map(|forward| forward.port);
        for typed in remote.forwards.iter().filter(|it| self.gateway_ports && it.bind.is_none()) {
            let (port, host, host_port) = (typed.port, &typed.host, typed.host_port);
            self.left_out.push(format!(
                "GatewayPorts: -L {port}:{host}:{host_port} listens for this machine alone; for \
                 others write -L '*:{port}:{host}:{host_port}'"
            ));
        }
        let ours = if remote.local_port == 0 { port } else { Some(remote.local_port) };
        for forward in further {
            let at = (forward.bind.as_deref(), forward.port);
            let is_taken = ours.is_some_and(|ours| forward.collides(None, ours))
                || remote.forwards.iter().chain(&self.local).any(|it| it.collides(at.0, at.1));
            let shown = format!("LocalForward {} to {}", forward.port, forward.host);
            if forward.leads_to_browser_control(gateway) {
                self.left_out.push(format!(
                    "{shown}: the gateway's browser control is as good as its owner's login, and \
                     is not forwarded"
                ));
            } else if forward.opens_gateway(gateway) {
                self.left_out
                    .push(format!("{shown}: would open the gateway to everybody on the network"));
            } else if is_taken {
                self.left_out.push(format!("{shown}: this remote uses that local port already"));
            } else {
                self.local.push(forward);
            }
        }
        port
    }
}

/// One `LocalForward` between ports; `None` where an end is a socket.
fn local(listen: &End, connect: Option<&End>, gateway_ports: bool) -> Option<Forward> {
    let (End::Port { host: bind, port }, Some(End::Port { host, port: host_port })) =
        (listen, connect)
    else {
        return None;
    };
    let bind = match bind.as_deref() {
        None if gateway_ports => Some("*".to_owned()),
        None => None,
        Some(bind) if bind.eq_ignore_ascii_case("localhost") => None,
        Some("") => Some("*".to_owned()),
        Some(bind) => Some(bind.to_owned()),
    };
    let host = host.clone().unwrap_or_else(|| "localhost".to_owned());
    Some(Forward { bind, port: *port, host, host_port: *host_port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(host: Option<&str>, port: u16) -> End {
        End::Port { host: host.map(str::to_owned), port }
    }

    fn bind(host: Option<&str>, gateway_ports: bool) -> Option<String> {
        let far = end(Some("db"), 5432);
        local(&end(host, 1), Some(&far), gateway_ports).unwrap().bind
    }

    #[test]
    fn listens_where_ssh_would() {
        assert_eq!(bind(None, false), None);
        assert_eq!(bind(None, true).as_deref(), Some("*"));
        assert_eq!(bind(Some("localhost"), true), None);
        assert_eq!(bind(Some(""), false).as_deref(), Some("*"));
        assert_eq!(bind(Some("*"), false).as_deref(), Some("*"));
        assert_eq!(bind(Some("10.0.0.1"), false).as_deref(), Some("10.0.0.1"));
        let socket = End::Path("/tmp/s".to_owned());
        assert_eq!(local(&socket, Some(&end(None, 1)), false), None);
        assert_eq!(local(&end(None, 1), Some(&socket), false), None);
    }

    #[test]
    fn absorbs_what_leads_to_the_gateway_and_leaves_out_what_must_not_be() {
        let forward = |bind: Option<&str>, port, host: &str, host_port| Forward {
            bind: bind.map(str::to_owned),
            port,
            host: host.to_owned(),
            host_port,
        };
        let mut remote: config::Remote = serde_json::from_str(
            r#"{"target": "box", "remotePort": 18789, "localPort": 0,
                "forwards": [{"bind": null, "port": 7, "host": "db", "hostPort": 1}]}"#,
        )
        .unwrap();
        let local = vec![
            forward(None, 5, "localhost", 18789),
            forward(Some("127.0.0.1"), 6, "::1", 18789),
            forward(Some("*"), 8, "localhost", 18789),
            forward(Some("*"), 11, "db", 18789),
            forward(None, 9, "db", 18789),
            forward(None, 10, "localhost", 18791),
            forward(None, 7, "elsewhere", 1),
            forward(None, 5, "elsewhere", 1),
        ];
        let made = Forwards { local, ..Forwards::default() };
        let mut forwards = made.clone();
        assert_eq!(forwards.settle(&remote), Some(5));
        let ports: Vec<u16> = forwards.local.iter().map(|forward| forward.port).collect();
        assert_eq!(ports, [11, 9]);
        assert_eq!(forwards.left_out.len(), 4, "{:?}", forwards.left_out);
        assert!(forwards.left_out[1].contains("browser control"));
        // A port of our own that was saved stays, and then theirs is free.
        remote.local_port = 4;
        let mut forwards = made;
        forwards.settle(&remote);
        let ports: Vec<u16> = forwards.local.iter().map(|forward| forward.port).collect();
        assert_eq!(ports, [11, 9, 5]);
    }
}
