//! TLS at both ends of the tap: callers are shown the certificate that the gateway shows.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The first byte of every TLS connection: a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// What is spoken inside.
const HTTP: &[u8] = b"http/1.1";

/// The files of a gateway's certificate and key, which are read anew for each connection: they may be
/// renewed.
pub(super) struct Cover {
    folder: PathBuf,
}

/// Both ends of a connection.
type Ends = (server::TlsStream<TcpStream>, client::TlsStream<TcpStream>);

impl Cover {
    /// That of the gateway with its files in this folder.
    pub(super) fn of(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Waits for the first byte of either side; whether the caller begins a handshake.
    pub(super) async fn is_wanted(near: &TcpStream, far: &TcpStream) -> bool {
        let (mut first, mut end) = ([0], [0]);
        let said = tokio::select! {
            said = near.peek(&mut first) => said,
            _ = far.peek(&mut end) => return false,
        };
        matches!(said, Ok(1)) && first == [HANDSHAKE]
    }

    /// Shakes hands with the gateway, and then with the caller as the gateway would have. `None` where
    /// one of them does not want to; an error where the gateway shows what its file does not hold.
    pub(super) async fn over(
        &self,
        near: TcpStream,
        far: TcpStream,
    ) -> Result<Option<Ends>, String> {
        let Some(chain) = self.chain() else { return Ok(None) };
        let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
        let connector = TlsConnector::from(Arc::new(as_client(&chain)));
        let far = match connector.connect(name, far).await {
            Ok(far) => far,
            // Renewed meanwhile, the next connection finds both alike.
            Err(_) if self.chain().as_ref() != Some(&chain) => return Ok(None),
            Err(error) if is_another(&error) => {
                return Err("the gateway shows another certificate than its file".to_owned());
            }
            Err(_) => return Ok(None),
        };
        let Some(config) = self.as_server(chain) else { return Ok(None) };
        let near = TlsAcceptor::from(Arc::new(config)).accept(near).await;
        Ok(near.ok().map(|near| (near, far)))
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }

    /// The gateway's own certificate and those that vouch for it.
    fn chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        let read = CertificateDer::pem_file_iter(self.file("cert.pem")).ok()?;
        read.collect::<Result<Vec<_>, _>>().ok()
    }

    /// The gateway's end; `None` while its files do not fit.
    fn as_server(&self, chain: Vec<CertificateDer<'static>>) -> Option<ServerConfig> {
        let key = PrivateKeyDer::from_pem_file(self.file("key.pem")).ok()?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS");
        let mut config = config.with_no_client_auth().with_single_cert(chain, key).ok()?;
        config.alpn_protocols = vec![HTTP.to_vec()];
        Some(config)
    }
}

/// The caller's end towards a gateway that has to show this certificate.
fn as_client(chain: &[CertificateDer<'static>]) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let only = Only { wanted: chain.first().cloned(), provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(only))
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP.to_vec()];
    config
}

fn is_another(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(inner, Some(Error::InvalidCertificate(_)))
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Only {
    wanted: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.wanted {
            Some(wanted) if wanted == shown => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
