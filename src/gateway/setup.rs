//! Setup codes: what each makes of the device that redeems it, and whether that device got what it was
//! given.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use url::{Host, Url};

use super::{Shared, clock::now_ms};
use crate::{
    protocol::{Client, Role, Scope, SetupCompletion, event},
    store::{Device, SetupCode},
};

/// What a telephone does as an operator.
const LIMITED: [Scope; 5] =
    [Scope::Approvals, Scope::Questions, Scope::Read, Scope::TalkSecrets, Scope::Write];
/// The same of its owner's own one.
const FULL: [Scope; 6] = [
    Scope::Admin,
    Scope::Approvals,
    Scope::Questions,
    Scope::Read,
    Scope::TalkSecrets,
    Scope::Write,
];

/// What a setup code makes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// A telephone that is a node, and an operator who may do everything.
    Full,
    /// The same, but for what wants an administrator, and pairing.
    Limited,
    /// A node, and nothing else.
    Node,
}

impl Access {
    const ALL: [Self; 3] = [Self::Full, Self::Limited, Self::Node];

    /// The access of this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|access| access.name() == name)
    }

    /// `full`, `limited`, `node`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Limited => "limited",
            Self::Node => "node",
        }
    }

    /// As what the device is paired, the role first in which it redeems its code.
    pub(super) fn grants(self) -> &'static [(Role, &'static [Scope])] {
        match self {
            Self::Full => &[(Role::Node, &[]), (Role::Operator, &FULL)],
            Self::Limited => &[(Role::Node, &[]), (Role::Operator, &LIMITED)],
            Self::Node => &[(Role::Node, &[])],
        }
    }

    /// Whether this program may redeem such a code: what also makes an operator is for telephones.
    pub(super) fn is_for(self, client: &Client) -> bool {
        self == Self::Node || is_phone(client)
    }

    /// What may be given out for a gateway at this address: not everything in the clear to other
    /// machines.
    pub(super) fn at(self, url: &str) -> Self {
        if self == Self::Full && !is_sealed(url) { Self::Limited } else { self }
    }
}

/// Whether it says that it is OpenClaw's program for iOS or Android, and runs there.
fn is_phone(client: &Client) -> bool {
    let plain = |text: &str| text.trim().to_lowercase();
    let platform = plain(&client.platform);
    let system = platform.split_whitespace().next().unwrap_or_default();
    let family = plain(client.device_family.as_deref().unwrap_or_default());
    let is_told = match client.id.as_str() {
        "openclaw-android" => system == "android" && family == "android",
        "openclaw-ios" => {
            matches!(system, "ios" | "ipados") && matches!(&*family, "iphone" | "ipad" | "ios")
        }
        _ => false,
    };
    is_told && client.mode == "node"
}

/// Whether what is told to a gateway at this address stays between the two.
fn is_sealed(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    url.scheme() == "wss"
        || match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        }
}

/// What became of a code that was redeemed.
pub(super) fn completion(code: SetupCode, device: Option<&Device>) -> Option<SetupCompletion> {
    let device_name = device.and_then(|device| device.about.display_name.clone());
    Some(SetupCompletion {
        setup_id: code.id,
        device_id: code.device_id?,
        device_name,
        access: code.access,
        ts: code.redeemed_at?,
    })
}

/// A connection by a setup code, until its device is known to have what it was given; whoever shows
/// the code hears of that, and of an end before it.
pub(super) struct Handoff {
    shared: Arc<Shared>,
    completion: SetupCompletion,
    is_known: AtomicBool,
}

impl Handoff {
    /// One that begins; `None` if its device has had its answer before.
    pub(super) fn begin(shared: &Arc<Shared>, completion: Option<SetupCompletion>) -> Option<Self> {
        let (shared, is_known) = (Arc::clone(shared), AtomicBool::new(false));
        completion.map(|completion| Self { shared, completion, is_known })
    }

    /// The device has read its answer; told once that is stored.
    pub(super) fn arrived(&self) {
        if self.is_known.swap(true, Ordering::SeqCst) {
            return;
        }
        let (shared, completion) = (Arc::clone(&self.shared), self.completion.clone());
        self.shared.finishing.spawn(async move {
            let SetupCompletion { setup_id, device_id, .. } = &completion;
            match shared.store.devices().delivered(setup_id, device_id, now_ms()).await {
                Ok(Some(_)) => {
                    tracing::info!(
                        setup = setup_id,
                        device = device_id,
                        "a setup code did its work"
                    );
                    shared.hub.tell(event::SETUP_COMPLETED, &completion);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "what became of a setup code was not noted");
                    shared.hub.tell(event::SETUP_UNCERTAIN, &completion);
                }
            }
        });
    }
}

impl Drop for Handoff {
    fn drop(&mut self) {
        if !self.is_known.load(Ordering::SeqCst) {
            tracing::warn!(
                setup = self.completion.setup_id,
                device = self.completion.device_id,
                "a device left before it was known to have its tokens"
            );
            self.shared.hub.tell(event::SETUP_UNCERTAIN, &self.completion);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn client(id: &str, platform: &str, family: &str, mode: &str) -> Client {
        let client = json!({"id": id, "version": "1", "platform": platform, "mode": mode,
            "deviceFamily": family});
        serde_json::from_value(client).unwrap()
    }

    #[test]
    fn what_also_makes_an_operator_is_for_telephones() {
        for phone in [
            client("openclaw-ios", "iOS 19.1", "iPhone", "node"),
            client("openclaw-ios", "ipados", "iPad", "node"),
            client("openclaw-android", "Android 16", "Android", "node"),
        ] {
            assert!(Access::ALL.into_iter().all(|access| access.is_for(&phone)), "{phone:?}");
        }
        for other in [
            client("openclaw-ios", "iOS 19.1", "iPhone", "ui"),
            client("openclaw-ios", "iossy", "iPhone", "node"),
            client("openclaw-ios", "android", "Android", "node"),
            client("openclaw-android", "android", "", "node"),
            client("node-host", "linux", "Linux", "node"),
            client("cli", "ios", "iPhone", "node"),
        ] {
            assert!(!Access::Limited.is_for(&other) && !Access::Full.is_for(&other), "{other:?}");
            assert!(Access::Node.is_for(&other));
        }
    }

    #[test]
    fn no_administrator_is_made_in_the_clear() {
        for (url, access) in [
            ("wss://gw.example", Access::Full),
            ("ws://127.0.0.1:1", Access::Full),
            ("ws://[::1]:1", Access::Full),
            ("ws://localhost:1", Access::Full),
            ("ws://192.168.1.7:1", Access::Limited),
            ("ws://box.local:1", Access::Limited),
            ("ws://127.evil.com:1", Access::Limited),
        ] {
            assert_eq!(Access::Full.at(url), access, "{url}");
            assert_eq!(Access::Node.at(url), Access::Node);
        }
    }

    #[test]
    fn only_the_full_one_gives_an_administrators_rights_and_none_gives_pairing() {
        for access in Access::ALL {
            assert_eq!(Access::parse(access.name()), Some(access));
            let scopes: Vec<Scope> =
                access.grants().iter().flat_map(|(_, scopes)| scopes.iter().copied()).collect();
            assert_eq!(scopes.contains(&Scope::Admin), access == Access::Full);
            assert!(!scopes.contains(&Scope::Pairing));
            assert_eq!(access.grants()[0], (Role::Node, [].as_slice()));
        }
        assert_eq!(Access::parse("owner"), None);
    }
}
