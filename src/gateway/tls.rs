//! TLS on the gateway's port: handshakes, and renewed files taken up without cutting a connection.
//!
//! The files are looked at before each handshake rather than watched: whoever connects first after
//! a renewal gets the new certificate, links and whole folders may be swapped, and a gateway that
//! nobody calls does nothing.

mod files;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    server::{NoServerSessionStorage, ServerConfig as Config},
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub(super) use files::Files;
use files::{Material, Stamp};

use crate::{
    fingerprint::Fingerprint,
    problem::{Class, Problem},
};

/// The first byte of every TLS connection: a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// What somebody is told who speaks plain HTTP here.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 52\r\nconnection: close\r\n\r\nthis port speaks TLS: ask with https:// or \
    wss://\n\n\n\n";
/// How long that answer may take.
const REFUSAL: Duration = Duration::from_secs(1);

/// Turns streams into encrypted ones.
pub(super) struct Terminator {
    files: Files,
    current: Mutex<Current>,
}

/// What is served now.
struct Current {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
    /// The files as they were when they were last read, whether they were of use or not.
    seen: Stamp,
}

impl Terminator {
    /// Reads the files, after making them where both are missing and that is allowed; class
    /// `config` if they are of no use. Blocks.
    pub(super) fn new(files: Files) -> Result<Self, Problem> {
        files.make_missing()?;
        let seen = files.stamp();
        let (config, fingerprint) = configure(files.read()?)?;
        Ok(Self { files, current: Mutex::new(Current { config, fingerprint, seen }) })
    }

    /// The certificate that is served now.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).fingerprint
    }

    /// Shakes hands by `deadline`. Somebody who speaks plain HTTP is told so.
    pub(super) async fn accept(
        self: &Arc<Self>,
        mut stream: TcpStream,
        deadline: Instant,
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        let read = timeout_at(deadline, stream.peek(&mut first)).await??;
        if read == 1 && first != [HANDSHAKE] {
            let answer = tokio::time::timeout(REFUSAL, stream.write_all(SPEAK_TLS)).await;
            tracing::debug!(answered = answer.is_ok(), "plain text on a TLS port");
            return Err(io::Error::new(io::ErrorKind::InvalidData, "plain text on a TLS port"));
        }
        let this = Arc::clone(self);
        let config = spawn_blocking(move || this.fresh()).await.map_err(io::Error::other)?;
        timeout_at(deadline, TlsAcceptor::from(config).accept(stream)).await?
    }

    /// What to serve, after a look at the files. Ones that are of no use are told once and change
    /// nothing. Blocks.
    fn fresh(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if stamp != current.seen {
            current.seen = stamp;
            match self.files.read().and_then(configure) {
                Ok((config, fingerprint)) => {
                    let is_same = fingerprint == current.fingerprint;
                    current.config = config;
                    current.fingerprint = fingerprint;
                    tracing::info!(%fingerprint, is_same, "renewed TLS files are served");
                }
                Err(problem) => tracing::warn!(
                    %problem,
                    "renewed TLS files are of no use; the previous certificate stays"
                ),
            }
        }
        Arc::clone(&current.config)
    }
}

fn configure(material: Material) -> Result<(Arc<ServerConfig>, Fingerprint), Problem> {
    let Material { chain, key, names } = material;
    let unfit = |error: &rustls::Error| {
        Problem::new(Class::Config, format!("the TLS certificate and key do not fit: {error}"))
            .fix(format!("ls -l {names}"))
    };
    let Some(first) = chain.first() else {
        return Err(unfit(&rustls::Error::NoCertificatesPresented));
    };
    let fingerprint = Fingerprint::of(first);
    let mut config = Config::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| unfit(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Connections are few and long: remembering sessions would cost memory and buy nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), fingerprint))
}

#[cfg(test)]
mod tests;
