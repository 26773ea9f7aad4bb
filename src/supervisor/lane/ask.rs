//! Asks the gateway through a path whether it is there, and words its missing answer.

use tokio::time::timeout;

use super::PROBE_LIMIT;
use crate::{
    client::{self, NotAnswered},
    config::Destination,
    supervisor::{link::NotOpened, path::Path},
    tunnel::{Cause, Failure, Probe},
};

/// Asks the gateway through a stream of its own; `None` if there is nothing to say.
pub(super) async fn ask_gateway(
    path: &Path,
    destination: &Destination,
    probe: Probe,
) -> Result<(), Option<Failure>> {
    let opened = timeout(PROBE_LIMIT, path.link.open(destination)).await;
    let port = destination.port();
    let stream = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(NotOpened::Prohibited(reason))) => {
            return Err(Some(prohibited(port, &reason)));
        }
        Ok(Err(NotOpened::Refused(_))) => {
            return Err(Some(absent(port)));
        }
        Ok(Err(NotOpened::SessionLost | NotOpened::Silent)) | Err(_) => return Err(None),
    };
    let answer = match probe {
        Probe::Challenge => client::challenge(stream, PROBE_LIMIT).await,
        Probe::Healthz => client::healthz(stream, PROBE_LIMIT).await,
    };
    answer.map_err(|not| failure_of(not, port))
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
