//! The stream to a gateway behind a tunnel: plain, or in TLS that only the pinned certificate ends.

use std::{io, net::IpAddr, net::Ipv4Addr, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::tls::{self, NoTls, Trust};
use crate::{
    fingerprint::Fingerprint,
    problem::{Class, Problem},
};

/// As it came, or in TLS.
pub(crate) type Covered<S> = Either<S, Box<TlsStream<S>>>;

/// A gateway behind a tunnel is on the far loopback; with a pin its name does not matter.
fn far_loopback() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into())
}

/// Shakes hands with the owner of the certificate `pin`, before anything else is sent; without one
/// the stream stays as it is.
pub(crate) async fn cover<S>(stream: S, pin: Option<Fingerprint>) -> Result<Covered<S>, NoTls>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(pin) = pin else { return Ok(Either::Left(stream)) };
    let (stream, _) = tls::connect(stream, far_loopback(), Trust::Pin(pin)).await?;
    Ok(Either::Right(Box::new(stream)))
}

/// The same by `deadline`, for the gateway on `port` over there, with the problem for a person.
pub(crate) async fn covered<S>(
    stream: S,
    pin: Option<Fingerprint>,
    port: u16,
    deadline: Instant,
) -> Result<Covered<S>, Problem>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let shaken = timeout_at(deadline, cover(stream, pin)).await;
    let late = |_| Err(NoTls::Failed(io::ErrorKind::TimedOut.into()));
    shaken.unwrap_or_else(late).map_err(|why| uncovered(port, &why))
}

/// The certificate that whoever answers on `stream` shows, if it speaks TLS; waits `patience` at
/// most, and hangs up inside the handshake.
pub(crate) async fn shown<S>(stream: S, patience: Duration) -> Option<Fingerprint>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let look = tls::connect(stream, far_loopback(), Trust::Nobody);
    match timeout(patience, look).await {
        Ok(Err(NoTls::Untrusted { shown, .. })) => Some(shown),
        Ok(Ok(_) | Err(NoTls::OtherCertificate { .. } | NoTls::Failed(_))) | Err(_) => None,
    }
}

/// Why there is no TLS with the gateway on `port` over there, as a person is told.
pub(crate) fn uncovered(port: u16, why: &NoTls) -> Problem {
    match why {
        NoTls::OtherCertificate { shown, .. } => {
            let message =
                format!("nothing was sent to the gateway on port {port} over there: {why}");
            Problem::new(Class::HostKey, message).code(PIN_MISMATCH).fix(format!(
                "if it was renewed on purpose ({}), add to remote connect: --tls-fingerprint {shown}",
                compare(port)
            ))
        }
        NoTls::Untrusted { shown, .. } => unpinned(port, *shown),
        NoTls::Failed(error) if error.kind() == io::ErrorKind::TimedOut => Problem::new(
            Class::Unreachable,
            format!("the gateway on port {port} over there does not answer in time"),
        )
        .code("ETIMEDOUT"),
        NoTls::Failed(_) => Problem::new(
            Class::GatewayDown,
            format!("what listens on port {port} over there does not speak TLS as pinned: {why}"),
        )
        .fix(format!(
            "over there: openclaw gateway status --port {port}; if it speaks no TLS any more, add \
             to remote connect: --tls-fingerprint none"
        )),
    }
}

/// The gateway on `port` over there speaks TLS, and nobody said which certificate is its own.
pub(crate) fn unpinned(port: u16, shown: Fingerprint) -> Problem {
    let message = format!(
        "the gateway on port {port} over there speaks TLS, and its certificate ({shown}) is not \
         pinned"
    );
    Problem::new(Class::HostKey, message).code(PIN_MISSING).fix(format!(
        "compare it ({}), then add to remote connect: --tls-fingerprint {shown}",
        compare(port)
    ))
}

/// The code of another certificate than the pinned one.
const PIN_MISMATCH: &str = "TLS_PIN_MISMATCH";
/// The code of a certificate that nobody vouches for.
const PIN_MISSING: &str = "TLS_UNTRUSTED";

/// The command that prints the fingerprint on the other side.
fn compare(port: u16) -> String {
    format!("over there: openclaw gateway status --port {port} prints it")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{super::tls::tests::far, *};

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn without_a_pin_the_bytes_go_as_they_are() {
        let (near, mut there) = duplex(64);
        let mut stream = cover(near, None).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        there.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn a_look_learns_the_certificate_and_says_nothing() {
        let (fingerprint, acceptor) = far();
        let (near, there) = duplex(65_536);
        let (seen, heard) = tokio::join!(shown(near, PATIENCE), acceptor.accept(there));
        assert_eq!(seen, Some(fingerprint));
        assert!(heard.is_err(), "the handshake is not ended");
    }

    #[tokio::test]
    async fn a_plain_gateway_never_hears_plain_text_where_a_pin_is_set() {
        let pin = Fingerprint::of(b"pinned");
        let (near, mut there) = duplex(65_536);
        let far = async {
            let mut first = [0; 3];
            there.read_exact(&mut first).await.unwrap();
            there.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            first
        };
        let (outcome, first) = tokio::join!(cover(near, Some(pin)), far);
        let why = outcome.err().unwrap();
        // A TLS handshake record, and no HTTP.
        assert_eq!(first[..2], [0x16, 0x03]);
        let problem = uncovered(18_789, &why);
        assert_eq!(problem.class, Class::GatewayDown);
        assert!(problem.fix.unwrap().contains("--tls-fingerprint none"));
    }

    #[test]
    fn another_certificate_and_a_missing_pin_say_what_to_compare_and_what_to_type() {
        let shown = Fingerprint::of(b"shown");
        let other = NoTls::OtherCertificate { shown, pinned: Fingerprint::of(b"pinned") };
        for (problem, code) in
            [(uncovered(7, &other), PIN_MISMATCH), (unpinned(7, shown), PIN_MISSING)]
        {
            assert_eq!((problem.class, problem.code.as_deref()), (Class::HostKey, Some(code)));
            let fix = problem.fix.unwrap();
            assert!(fix.contains("openclaw gateway status --port 7"), "{fix}");
            assert!(fix.ends_with(&format!("--tls-fingerprint {shown}")), "{fix}");
        }
    }
}
