//! TLS to a gateway: by its pinned certificate, or by the authorities that this machine trusts.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, ring::default_provider, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    config::{Paths, Tls},
    fingerprint::Fingerprint,
};

/// Which certificate is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// This one, whatever name and dates stand in it.
    Pin(Fingerprint),
    /// One that an authority in this machine's store vouches for, for the name that was dialled.
    Authorities,
    /// None: only to see which one is shown.
    Nobody,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTls {
    /// Another certificate than the pinned one.
    #[error("its TLS certificate is {shown}, not {pinned}")]
    OtherCertificate {
        /// What it showed.
        shown: Fingerprint,
        /// What was expected.
        pinned: Fingerprint,
    },
    /// No authority vouches for the certificate.
    #[error("its TLS certificate ({shown}) is not trusted: {why}")]
    Untrusted {
        /// What it showed.
        shown: Fingerprint,
        /// What is wrong with it.
        why: String,
    },
    /// The handshake failed or stopped.
    #[error("no TLS: {0}")]
    Failed(io::Error),
}

impl NoTls {
    /// Whether somebody answered who is not the owner of the certificate: another one was shown, what
    /// was said is no TLS, or the handshake was refused in so many words. One that broke off or took
    /// too long tells nothing of that.
    pub(crate) fn is_somebody_else(&self) -> bool {
        match self {
            Self::OtherCertificate { .. } | Self::Untrusted { .. } => true,
            Self::Failed(error) => said_by_tls(error).is_some(),
        }
    }
}

/// Shakes hands on `stream`. The certificate is judged inside the handshake, so nothing of what is
/// written to the returned stream can reach anybody else. The fingerprint is the certificate's.
pub(crate) async fn connect<S>(
    stream: S,
    name: ServerName<'static>,
    trust: Trust,
) -> Result<(TlsStream<S>, Fingerprint), NoTls>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let judge = Arc::new(Judge::new(trust));
    let config = ClientConfig::builder_with_provider(Arc::clone(&judge.provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| NoTls::Failed(io::Error::other(error)))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&judge) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let outcome = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    match (outcome, judge.shown(), trust) {
        (Ok(stream), Some(shown), _) => Ok((stream, shown)),
        (Ok(_), None, _) => Err(NoTls::Failed(io::Error::other("no certificate was shown"))),
        (Err(_), Some(shown), Trust::Pin(pinned)) if shown != pinned => {
            Err(NoTls::OtherCertificate { shown, pinned })
        }
        (Err(error), Some(shown), Trust::Authorities | Trust::Nobody)
            if is_about_certificate(&error) =>
        {
            Err(NoTls::Untrusted { shown, why: error.to_string() })
        }
        (Err(error), ..) => Err(NoTls::Failed(error)),
    }
}

/// The certificate that the gateway of this machine serves, as far as its file can be read.
pub(crate) fn own_certificate(tls: &Tls, paths: &Paths) -> Option<Fingerprint> {
    let own = paths.tls().join("cert.pem");
    first_in(tls.certificate.as_deref().unwrap_or(&own))
}

fn first_in(file: &Path) -> Option<Fingerprint> {
    let text = std::fs::read(file).ok()?;
    let certificate = CertificateDer::pem_slice_iter(&text).next()?.ok()?;
    Some(Fingerprint::of(&certificate))
}

fn is_about_certificate(error: &io::Error) -> bool {
    let said = said_by_tls(error);
    matches!(said, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::General(_)))
}

/// What the TLS library found wrong, if it was not the stream below.
fn said_by_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>())
}

/// Decides about the certificate, and remembers which it was.
struct Judge {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    shown: Mutex<Option<Fingerprint>>,
}

impl Judge {
    fn new(trust: Trust) -> Self {
        Self { trust, provider: Arc::new(default_provider()), shown: Mutex::new(None) }
    }

    fn shown(&self) -> Option<Fingerprint> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store of this machine says.
    fn ask_authorities(
        &self,
        end: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (taken, left) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(
            taken,
            left,
            errors = found.errors.len(),
            "read this machine's authorities"
        );
        if roots.is_empty() {
            let error = "this machine's store of certificate authorities is empty or missing";
            return Err(rustls::Error::General(error.to_owned()));
        }
        let provider = Arc::clone(&self.provider);
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end, intermediates, name, &[], now)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(end);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        match self.trust {
            Trust::Pin(pinned) if pinned == shown => Ok(ServerCertVerified::assertion()),
            Trust::Pin(_) | Trust::Nobody => {
                let refused = CertificateError::ApplicationVerificationFailure;
                Err(rustls::Error::InvalidCertificate(refused))
            }
            Trust::Authorities => self.ask_authorities(end, intermediates, name, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        end: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, end, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        end: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, end, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A far side with a certificate of its own, and what it heard after the handshake.
    pub(crate) fn far() -> (Fingerprint, TlsAcceptor) {
        let made = rcgen::generate_simple_self_signed(vec!["gateway.example".to_owned()]).unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes());
        let certificate = made.cert.der().clone();
        let fingerprint = Fingerprint::of(&certificate);
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.unwrap())
            .unwrap();
        (fingerprint, TlsAcceptor::from(Arc::new(config)))
    }

    async fn heard(acceptor: TlsAcceptor, stream: DuplexStream) -> Vec<u8> {
        let Ok(mut stream) = acceptor.accept(stream).await else { return Vec::new() };
        let mut heard = Vec::new();
        // The client goes without a farewell, which is not what this is about.
        let _end = stream.read_to_end(&mut heard).await;
        heard
    }

    async fn say_hello(
        acceptor: TlsAcceptor,
        trust: Trust,
    ) -> (Result<Fingerprint, NoTls>, Vec<u8>) {
        let (near, there) = duplex(65_536);
        let name = ServerName::try_from("another.example").unwrap();
        let near = async {
            let (mut stream, shown) = connect(near, name, trust).await?;
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            // Until the far side has heard it.
            let _end = stream.read_to_end(&mut Vec::new()).await;
            Ok(shown)
        };
        tokio::join!(near, heard(acceptor, there))
    }

    #[tokio::test]
    async fn whoever_refuses_or_speaks_no_tls_is_somebody_else_and_a_break_is_nobody() {
        // A fatal alert, `handshake_failure` (RFC 8446, sections 5.1 and 6.2).
        let refusal: &[u8] = &[21, 3, 3, 0, 2, 2, 40];
        let greeting: &[u8] = b"220 mail.example ESMTP\r\n";
        for (answer, is_somebody_else) in [(refusal, true), (greeting, true), (b"", false)] {
            let (near, mut there) = duplex(65_536);
            there.write_all(answer).await.unwrap();
            there.shutdown().await.unwrap();
            let name = ServerName::try_from("another.example").unwrap();
            let why = connect(near, name, Trust::Pin(Fingerprint::of(b"ours"))).await.unwrap_err();
            assert_eq!(why.is_somebody_else(), is_somebody_else, "{why}");
        }
    }

    #[tokio::test]
    async fn the_pinned_certificate_is_believed_whatever_its_name() {
        let (fingerprint, acceptor) = far();
        let (outcome, heard) = say_hello(acceptor, Trust::Pin(fingerprint)).await;
        assert_eq!(outcome.unwrap(), fingerprint);
        assert_eq!(heard, b"hello");
    }

    #[tokio::test]
    async fn another_certificate_hears_not_one_byte() {
        let (fingerprint, acceptor) = far();
        let pinned = Fingerprint::of(b"another");
        let (outcome, heard) = say_hello(acceptor, Trust::Pin(pinned)).await;
        let NoTls::OtherCertificate { shown, pinned: expected } = outcome.unwrap_err() else {
            panic!("it is refused for its fingerprint");
        };
        assert_eq!((shown, expected), (fingerprint, pinned));
        assert_eq!(heard, b"");
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_vouches_for_hears_nothing_without_a_pin() {
        let (fingerprint, acceptor) = far();
        let (outcome, heard) = say_hello(acceptor, Trust::Authorities).await;
        let NoTls::Untrusted { shown, .. } = outcome.unwrap_err() else {
            panic!("it is refused for its certificate");
        };
        assert_eq!(shown, fingerprint);
        assert_eq!(heard, b"");
    }
}
