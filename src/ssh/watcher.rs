//! The SSH library's callbacks of one session.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use russh::{
    Names, Preferred,
    client::{self, DisconnectReason},
    keys::PublicKey,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    dial::plain,
    host_key::Shown,
    inbound::{Inbound, Knock},
    preferred::{Negotiated, was_asked_for},
    session::End,
    stream::Taps,
};
use crate::{
    config::Listen,
    tunnel::{Cause, Failure},
};

/// A host key on its way to the check.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) shown: Shown,
    /// Sent to if the key may be used.
    pub(super) accept: oneshot::Sender<()>,
}

/// The library's callbacks: hands the host key to the check, hands on the connections of a
/// listener that was asked for, refuses what else the server opens, and says when and why the session ended.
#[derive(Debug)]
pub(super) struct Watcher {
    /// What was asked for.
    pub(super) asked: Preferred,
    /// To where a host key goes.
    pub(super) offers: mpsc::Sender<Offer>,
    /// To where the host keys go that the server announces.
    pub(super) announces: mpsc::Sender<Vec<PublicKey>>,
    /// What both sides agreed on first.
    pub(super) agreed: Arc<OnceLock<Negotiated>>,
    pub(super) end: Arc<End>,
    pub(super) taps: Arc<Taps>,
    /// To where the connections go that the server brings.
    pub(super) inbound: Arc<Inbound>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end.finish();
        self.taps.end();
        self.inbound.close();
    }
}

impl client::Handler for Watcher {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        if !was_asked_for(&self.asked, shown) {
            return Ok(false);
        }
        let (accept, accepted) = oneshot::channel();
        let shown = Shown {
            key: shown.public_key().to_bytes()?,
            certificate: shown.certificate().cloned(),
            at: SystemTime::now(),
        };
        if self.offers.send(Offer { shown, accept }).await.is_err() {
            return Ok(false);
        }
        // A check that fails or is given up drops its end.
        Ok(accepted.await.is_ok())
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        names: &Names,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        // Later exchanges only renew the keys.
        self.agreed.get_or_init(|| names.into());
        Ok(())
    }

    async fn openssh_ext_host_keys_announced(
        &mut self,
        keys: Vec<PublicKey>,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        // Only the first list counts, and only where somebody waits for it.
        drop(self.announces.try_send(keys));
        Ok(())
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<Self::Error>,
    ) -> Result<(), Self::Error> {
        let failure = match reason {
            DisconnectReason::ReceivedDisconnect(info) => Failure::new(
                Cause::LinkLost,
                format!("the SSH server ended the session: {}", info.message.escape_debug()),
            ),
            DisconnectReason::Error(russh::Error::IO(error)) => {
                Failure::new(Cause::LinkLost, format!("the ssh link broke: {}", plain(&error)))
            }
            DisconnectReason::Error(russh::Error::Disconnect | russh::Error::HUP) => {
                Failure::new(Cause::LinkLost, "the SSH server closed the connection")
            }
            // The library ends a session whose server has no method left.
            DisconnectReason::Error(russh::Error::NoAuthMethod) => {
                Failure::new(Cause::Authentication, "the SSH server has no way left to log in")
            }
            DisconnectReason::Error(error) => {
                Failure::new(Cause::LinkLost, format!("the ssh session failed: {error}"))
            }
        };
        self.end.note(failure);
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: russh::Channel<client::Msg>,
        address: &str,
        port: u32,
        from: &str,
        _: u32,
        reply: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        // A port that is none fits no listener; dropping the reply refuses.
        let Ok(port) = u16::try_from(port) else { return Ok(()) };
        let at = Listen::Port { bind: Some(address.to_owned()), port };
        self.inbound.knock(Knock::new(at, from.to_owned(), channel, reply, &self.taps)).await;
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: russh::Channel<client::Msg>,
        path: &str,
        reply: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        let at = Listen::Socket(path.to_owned());
        self.inbound.knock(Knock::new(at, String::new(), channel, reply, &self.taps)).await;
        Ok(())
    }

    // Whatever else the server opens was not asked for: dropping the reply refuses it.

    async fn server_channel_open_agent_forward(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: russh::Channel<client::Msg>,
        _: &str,
        _: u32,
        _: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}
