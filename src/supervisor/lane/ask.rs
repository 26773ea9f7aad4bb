//! Asks the gateway through a path whether it is there, and words its missing answer.

use std::io::ErrorKind;

use tokio::time::timeout;

use super::PROBE_LIMIT;
use crate::{
    client::{self, NoTls, NotAnswered},
    config::Destination,
    fingerprint::Fingerprint,
    problem::Problem,
    supervisor::{
        link::{NotOpened, Stream},
        path::Path,
    },
    tunnel::{Cause, Failure, Probe},
};

/// Asks the gateway, in TLS if it has the certificate `pin`, through a stream of its own; `None` if
/// there is nothing to say.
pub(super) async fn ask_gateway(
    path: &Path,
    destination: &Destination,
    pin: Option<Fingerprint>,
    probe: Probe,
) -> Result<(), Option<Failure>> {
    let port = destination.port();
    let stream = open(path, destination).await?;
    let covered = timeout(PROBE_LIMIT, client::cover(stream, pin)).await.map_err(|_| None)?;
    let stream = covered.map_err(|why| Some(uncovered(&why, port)))?;
    let answer = match probe {
        Probe::Challenge => client::challenge(stream, PROBE_LIMIT).await,
        Probe::Healthz => client::healthz(stream, PROBE_LIMIT).await,
    };
    let Err(not) = answer else { return Ok(()) };
    if pin.is_none() && matches!(not, NotAnswered::NotAGateway(_) | NotAnswered::Closed) {
        let other = open(path, destination).await?;
        if let Some(shown) = client::shown(other, PROBE_LIMIT).await {
            return Err(Some(told(Cause::NoPin, client::unpinned(port, shown))));
        }
    }
    Err(failure_of(not, port))
}

/// A stream to the gateway's port.
async fn open(path: &Path, destination: &Destination) -> Result<Box<dyn Stream>, Option<Failure>> {
    let opened = timeout(PROBE_LIMIT, path.link.open(destination)).await;
    let port = destination.port();
    match opened {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(NotOpened::Prohibited(reason))) => Err(Some(prohibited(port, &reason))),
        Ok(Err(NotOpened::Refused(_))) => Err(Some(absent(port))),
        Ok(Err(NotOpened::SessionLost | NotOpened::Silent)) | Err(_) => Err(None),
    }
}

/// Why there is no TLS with it.
fn uncovered(why: &NoTls, port: u16) -> Failure {
    let cause = match why {
        NoTls::OtherCertificate { .. } => Cause::OtherCertificate,
        NoTls::Untrusted { .. } => Cause::NoPin,
        NoTls::Failed(error)
            if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
        {
            Cause::GatewayStarting
        }
        NoTls::Failed(_) => Cause::NotAGateway,
    };
    told(cause, client::uncovered(port, why))
}

fn told(cause: Cause, problem: Problem) -> Failure {
    Failure { cause, message: problem.message, fix: problem.fix }
}

/// The SSH server's policy forbids the forward to the gateway's port.
pub(crate) fn prohibited(port: u16, reason: &str) -> Failure {
    Failure::new(
        Cause::ForwardRefused,
        format!("the gateway's port {port} is out of reach: {reason}"),
    )
    .fix(format!(
        "allow it over there: AllowTcpForwarding yes, PermitOpen 127.0.0.1:{port} in sshd_config, and no `restrict` on the key"
    ))
}

/// Nothing listens on the gateway's port.
pub(crate) fn absent(port: u16) -> Failure {
    Failure::new(Cause::GatewayAbsent, format!("nothing listens on port {port} over there"))
        .fix("over there: openclaw gateway run (or name its port with --remote-port)")
}

/// What a forward leads to cannot be had.
pub(super) fn unreached(to: &Destination, why: String) -> Failure {
    let fix = match to {
        Destination::Port { .. } => "start what listens there; the next connection tries it again",
        // OpenSSH gives no reason: its policy looks the same.
        Destination::Socket(_) => {
            "start what listens there, or allow it: AllowStreamLocalForwarding yes in sshd_config; \
             the next connection tries it again"
        }
    };
    Failure::new(Cause::GatewayAbsent, why).fix(fix)
}

/// The SSH server's policy forbids what a forward leads to.
pub(super) fn forbidden(to: &Destination) -> Failure {
    let allow = match to {
        Destination::Port { .. } => {
            format!("AllowTcpForwarding yes or local, PermitOpen {to}")
        }
        Destination::Socket(_) => "AllowStreamLocalForwarding yes or local".to_owned(),
    };
    Failure::new(
        Cause::ForwardRefused,
        format!("the SSH server does not allow connections to {to}"),
    )
    .fix(format!("allow it over there: {allow} in sshd_config, and no `restrict` on the key"))
}

/// What a gateway's missing answer means.
fn failure_of(not: NotAnswered, port: u16) -> Option<Failure> {
    let (cause, message) = match not {
        NotAnswered::Silent | NotAnswered::Io(_) => return None,
        NotAnswered::Closed => (
            Cause::GatewayStarting,
            format!("what listens on port {port} over there closes the connection"),
        ),
        NotAnswered::Starting => {
            (Cause::GatewayStarting, "the gateway over there is still starting".to_owned())
        }
        NotAnswered::NotAGateway(what) => (
            Cause::NotAGateway,
            format!("what answers on port {port} over there is not a gateway: {what}"),
        ),
    };
    Some(Failure::new(cause, message).fix(format!(
        "look over there what listens on port {port}, or name the gateway's port with --remote-port"
    )))
}
