//! Certificates made, given, renewed and broken, over real sockets.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{config::Tls, gateway::tests::paths};

const PATIENCE: Duration = Duration::from_secs(10);

fn files(state: &Path, tls: &Tls) -> Files {
    Files::decide(tls, &paths(state)).unwrap()
}

fn given(folder: &Path) -> Tls {
    Tls {
        enabled: true,
        auto_generate: true,
        certificate: Some(folder.join("c.pem")),
        key: Some(folder.join("k.pem")),
        authorities: None,
    }
}

/// Believes anything, and says what it was shown.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A stream through the terminator, and the certificate that its client was shown.
async fn shaken(
    terminator: &Arc<Terminator>,
) -> (TlsStream<TcpStream>, tokio_rustls::client::TlsStream<TcpStream>, Fingerprint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let deadline = Instant::now() + PATIENCE;
    let (far, near) = tokio::join!(terminator.accept(far, deadline), connector.connect(name, near));
    let near = near.unwrap();
    let shown = Fingerprint::of(&near.get_ref().1.peer_certificates().unwrap()[0]);
    (far.unwrap(), near, shown)
}

#[tokio::test]
async fn makes_a_certificate_once_and_for_the_owner_alone() {
    let home = tempfile::tempdir().unwrap();
    let tls = Tls { enabled: true, ..Tls::default() };
    let first = Arc::new(Terminator::new(files(home.path(), &tls)).unwrap());
    let (_, _, shown) = shaken(&first).await;
    assert_eq!(shown, first.fingerprint());
    let folder = home.path().join("rs/tls");
    for (file, expected) in
        [(folder.clone(), 0o700), (folder.join("key.pem"), 0o600), (folder.join("cert.pem"), 0o600)]
    {
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, expected, "{}", file.display());
    }
    let again = Terminator::new(files(home.path(), &tls)).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
}

#[tokio::test]
async fn a_renewed_pair_is_served_to_the_next_and_cuts_nobody() {
    let home = tempfile::tempdir().unwrap();
    let tls = given(home.path());
    let terminator = Arc::new(Terminator::new(files(home.path(), &tls)).unwrap());
    let (mut far, mut near, before) = shaken(&terminator).await;

    for name in ["c.pem", "k.pem"] {
        fs::remove_file(home.path().join(name)).unwrap();
    }
    files(home.path(), &tls).make_missing().unwrap();
    let (_, _, after) = shaken(&terminator).await;
    assert_ne!(before, after);
    assert_eq!(terminator.fingerprint(), after);

    let mut heard = [0; 5];
    far.write_all(b"still").await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still");
}

#[tokio::test]
async fn a_broken_renewal_keeps_what_was_served_until_it_is_whole() {
    let home = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let terminator = Arc::new(Terminator::new(files(home.path(), &given(home.path()))).unwrap());
    let (_, _, before) = shaken(&terminator).await;

    // The certificate of another key, then no certificate at all, then nothing.
    files(other.path(), &given(other.path())).make_missing().unwrap();
    fs::copy(other.path().join("c.pem"), home.path().join("c.pem")).unwrap();
    assert_eq!(shaken(&terminator).await.2, before);
    fs::write(home.path().join("c.pem"), "not PEM").unwrap();
    assert_eq!(shaken(&terminator).await.2, before);
    fs::remove_file(home.path().join("c.pem")).unwrap();
    assert_eq!(shaken(&terminator).await.2, before);
    assert!(!home.path().join("c.pem").exists(), "a renewal makes nothing");

    for name in ["c.pem", "k.pem"] {
        fs::copy(other.path().join(name), home.path().join(name)).unwrap();
    }
    assert_ne!(shaken(&terminator).await.2, before);
}

#[test]
fn half_a_pair_is_refused_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let tls = given(home.path());
    fs::write(home.path().join("c.pem"), "there").unwrap();
    let problem = Terminator::new(files(home.path(), &tls)).err().unwrap();
    assert_eq!(problem.class, Class::Config);
    assert!(problem.message.contains("k.pem is missing"), "{}", problem.message);
    assert!(!home.path().join("k.pem").exists());

    let half = Tls { key: None, ..tls };
    assert_eq!(Files::decide(&half, &paths(home.path())).unwrap_err().class, Class::Config);
}

#[test]
fn makes_nothing_where_that_is_forbidden() {
    let home = tempfile::tempdir().unwrap();
    let tls = Tls { auto_generate: false, ..given(home.path()) };
    let problem = Terminator::new(files(home.path(), &tls)).err().unwrap();
    assert!(problem.message.contains("autoGenerate"), "{}", problem.message);
    assert!(!home.path().join("k.pem").exists());
}

#[test]
fn a_file_that_the_system_denied_may_be_readable_later_and_a_wrong_name_stays_wrong() {
    let home = tempfile::tempdir().unwrap();
    for (authorities, is_lasting) in [(home.path().join("none"), true), (home.path().into(), false)]
    {
        let tls = Tls { authorities: Some(authorities), ..given(home.path()) };
        let problem = Terminator::new(files(home.path(), &tls)).err().unwrap();
        assert_eq!(problem.is_lasting(), is_lasting, "{problem}");
    }
}

#[tokio::test]
async fn plain_text_on_a_tls_port_is_told_so() {
    let home = tempfile::tempdir().unwrap();
    let terminator = Arc::new(Terminator::new(files(home.path(), &given(home.path()))).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    near.write_all(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
    let refused = terminator.accept(far, Instant::now() + PATIENCE).await;
    assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::InvalidData);
    let mut text = String::new();
    // The request was never read, so the end may come as a reset behind the answer.
    let end = near.read_to_string(&mut text).await;
    assert!(end.is_err() || text.contains("speaks TLS"), "{text}");
}
