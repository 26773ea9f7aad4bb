//! What is wrong with a listener over there, and with what it leads to, in words.

use crate::{
    client::{NoTls, NotAnswered},
    config::{Destination, Listen},
    tunnel::{Cause, Failure, Refusal},
};

/// No gateway is here to be published.
pub(super) fn absent_here(port: u16) -> Failure {
    Failure::new(Cause::GatewayAbsent, format!("no gateway listens on port {port} of this machine"))
        .fix(format!("openclaw gateway run --port {port}"))
}

/// The gateway here does not answer as one.
pub(super) fn failing_here(not: &NotAnswered, port: u16) -> Failure {
    let (cause, what) = match not {
        NotAnswered::NotAGateway(what) => {
            (Cause::NotAGateway, format!("what answers there is not a gateway: {what}"))
        }
        NotAnswered::Starting => (Cause::GatewayStarting, "it is still starting".to_owned()),
        NotAnswered::Silent | NotAnswered::Io(_) | NotAnswered::Closed => {
            (Cause::GatewayStarting, "it does not answer".to_owned())
        }
    };
    Failure::new(cause, format!("the gateway on port {port} of this machine: {what}"))
        .fix(format!("openclaw gateway status --port {port}"))
}

/// The gateway here shows another certificate than it did when it was published, or speaks no TLS,
/// or breaks off.
pub(super) fn uncovered_here(why: &NoTls, port: u16) -> Failure {
    if !why.is_somebody_else() {
        return failing_here(&NotAnswered::Silent, port);
    }
    let cause = match why {
        NoTls::OtherCertificate { .. } | NoTls::Untrusted { .. } => Cause::OtherCertificate,
        NoTls::Failed(_) => Cause::NotAGateway,
    };
    Failure::new(cause, format!("the gateway on port {port} of this machine: {why}"))
        .fix("openclaw remote expose (the same again), which publishes it as it is now")
}

/// The gateway here is well, and is not seen from over there.
pub(super) fn not_through(at: &Listen) -> Failure {
    Failure::new(
        Cause::GatewayStarting,
        format!("the gateway answers here, but not through port {at} over there"),
    )
    .fix(format!("over there: curl http://127.0.0.1:{at}/healthz"))
}

/// What a connection from over there leads to does not answer.
pub(super) fn unanswered(to: &Destination, why: &str) -> Failure {
    Failure::new(Cause::GatewayAbsent, format!("{to} does not answer here: {why}"))
        .fix("start what listens there; the next connection tries it again")
}

/// A listener that was to be private is not.
pub(super) fn opened_wide(at: &Listen) -> Failure {
    Failure::new(
        Cause::ForwardRefused,
        format!(
            "the SSH server opens {at} to other machines (GatewayPorts yes); their connections are \
             turned away"
        ),
    )
    .fix("over there: GatewayPorts no or clientspecified; if others shall connect: -R '*:PORT:…'")
}

/// A listener that was to be open to others is not.
pub(super) fn not_opened(at: &Listen) -> Failure {
    Failure::new(
        Cause::ForwardRefused,
        format!(
            "the SSH server listens at {at} for its own machine alone (GatewayPorts no), as far as \
             can be seen from here: no other address of its answers there"
        ),
    )
    .fix(
        "over there: GatewayPorts clientspecified in sshd_config (`ss -ltn` shows where it listens), \
         or leave the address out of that -R",
    )
}

/// Why the server does not listen at `at`, as far as can be told.
pub(super) fn refused_at(at: &Listen, why: Refusal, is_stale: bool) -> Failure {
    let (place, allow) = match at {
        Listen::Port { port: 0, .. } => ("any port".to_owned(), "AllowTcpForwarding"),
        Listen::Port { port, .. } => (format!("port {port}"), "AllowTcpForwarding"),
        Listen::Socket(path) => (path.clone(), "AllowStreamLocalForwarding"),
    };
    let alive = "ClientAliveInterval 15 in sshd_config over there ends dead connections sooner";
    match (why, is_stale, at) {
        (Refusal::Taken, true, _) => Failure::new(
            Cause::PlaceTaken,
            format!("the server still holds {place} for a connection that is gone"),
        )
        .fix(format!("wait until it notices; {alive}")),
        (Refusal::Taken, false, _) => Failure::new(
            Cause::PlaceTaken,
            format!(
                "{place} over there is taken: by another program, or by a connection of before \
                 that the server still holds"
            ),
        )
        .fix(format!("look over there with `ss -ltnp`, or choose another place; {alive}")),
        (Refusal::Prohibited, _, _) => Failure::new(
            Cause::ForwardRefused,
            format!("the SSH server does not allow us to listen on {place}"),
        )
        .fix(format!(
            "allow it over there: {allow} yes or remote, and PermitListen, in sshd_config, no \
             `restrict` on the key; ports below 1024 are root's"
        )),
        (Refusal::Unclear, _, Listen::Port { .. }) => Failure::new(
            Cause::PlaceTaken,
            format!(
                "the SSH server refuses to listen on {place}: it does not allow it, or the \
                     place is taken"
            ),
        )
        .fix(format!(
            "allow it over there: {allow} yes or remote, and PermitListen, in sshd_config; {alive}"
        )),
        (Refusal::Unclear, _, Listen::Socket(path)) => Failure::new(
            Cause::PlaceTaken,
            format!(
                "the SSH server refuses to listen on {path}: a file left behind is in the way, or \
                 it does not allow it"
            ),
        )
        .fix(format!(
            "over there: rm {path}, or StreamLocalBindUnlink yes in sshd_config, and {allow} yes"
        )),
        (Refusal::Silent, _, _) => Failure::new(
            Cause::PlaceTaken,
            format!("the SSH server does not say whether it listens on {place}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do_over_there() {
        let port = Listen::loopback(9000);
        let socket = Listen::Socket("/run/x".to_owned());
        for (at, why, is_stale, what, fix) in [
            (&port, Refusal::Taken, true, "still holds port 9000", "ClientAliveInterval"),
            (&port, Refusal::Taken, false, "port 9000 over there is taken", "ss -ltnp"),
            (&port, Refusal::Prohibited, false, "does not allow", "PermitListen"),
            (&port, Refusal::Unclear, false, "or the place is taken", "AllowTcpForwarding"),
            (&socket, Refusal::Unclear, true, "left behind", "rm /run/x"),
            (&socket, Refusal::Prohibited, false, "/run/x", "AllowStreamLocalForwarding"),
        ] {
            let failure = refused_at(at, why, is_stale);
            assert!(failure.message.contains(what), "{failure}");
            assert!(failure.fix.is_some_and(|text| text.contains(fix)), "{what}");
        }
    }
}
