//! The shapes of `channels.pairing.*`, which our commands ask other gateways for: our own has no
//! channels, and so none of these methods.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Reply of `channels.pairing.list` (`ChannelsPairingListResult`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelPairing {
    /// The accounts of channels that ask before they let a person in.
    pub(crate) accounts: Vec<PairingAccount>,
    /// Who waits, the oldest of an account first.
    pub(crate) requests: Vec<SenderRequest>,
    /// Whether anybody is the owner whose commands an agent obeys.
    #[serde(default)]
    pub(crate) command_owner_configured: bool,
}

/// An account of a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PairingAccount {
    /// `telegram`, …
    pub(crate) channel: String,
    /// `default`, or as it is called in the configuration.
    pub(crate) account_id: String,
}

/// A person who wrote to a channel and waits to be let in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SenderRequest {
    /// What an approval names. The code that the person was sent is told to nobody else.
    pub(crate) request_id: String,
    /// `telegram`, …
    pub(crate) channel: String,
    /// The channel's account that they wrote to.
    pub(crate) account_id: String,
    /// Who they are to the channel.
    pub(crate) sender_id: String,
    /// What such an id is called there.
    #[serde(default)]
    pub(crate) sender_label: String,
    /// What else the channel knows of them.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
    /// When they first asked, RFC 3339.
    pub(crate) created_at: String,
}

/// Params of `channels.pairing.list` (`ChannelsPairingListParams`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelPairingAsk {
    /// Only of this channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<String>,
    /// Only of this account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account_id: Option<String>,
}

/// Params of `channels.pairing.approve` and `channels.pairing.dismiss`
/// (`ChannelsPairingApproveParams`, `ChannelsPairingDismissParams`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SenderDecision {
    /// The request's channel.
    pub(crate) channel: String,
    /// The request's account.
    pub(crate) account_id: String,
    /// The request.
    pub(crate) request_id: String,
    /// Whether the person is told; left out where they are dismissed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) notify: Option<bool>,
    /// Whether they become the command owner where there is none; takes an administrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bootstrap_command_owner: Option<bool>,
}

/// Reply of `channels.pairing.approve` (`ChannelsPairingApproveResult`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SenderApproved {
    /// Who was let in.
    pub(crate) sender_id: String,
    /// `not-requested`, `sent`, `unsupported`, `failed`.
    #[serde(default)]
    pub(crate) notification: String,
    /// `not-requested`, `configured`, `already-configured`, `unavailable`.
    #[serde(default)]
    pub(crate) command_owner_bootstrap: String,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn payload(text: &str) -> Value {
        serde_json::from_str::<Value>(text).unwrap()["payload"].clone()
    }

    #[test]
    fn what_the_reference_gateway_answers_is_read() {
        let list =
            include_str!("../../fixtures/frames/openclaw-2026.9.6/channels.pairing.list.json");
        let pairing: ChannelPairing = serde_json::from_value(payload(list)).unwrap();
        assert_eq!((pairing.accounts.len(), pairing.command_owner_configured), (2, false));
        let [request] = pairing.requests.as_slice() else { panic!("{pairing:?}") };
        assert_eq!((request.sender_id.as_str(), request.metadata.len()), ("4242", 2));
        let approve =
            include_str!("../../fixtures/frames/openclaw-2026.9.6/channels.pairing.approve.json");
        let approved: SenderApproved = serde_json::from_value(payload(approve)).unwrap();
        assert_eq!(approved.command_owner_bootstrap, "configured");
    }

    #[test]
    fn what_is_asked_for_holds_no_field_that_is_not_meant() {
        assert_eq!(json!(ChannelPairingAsk::default()), json!({}));
        let dismissed = SenderDecision {
            channel: "telegram".to_owned(),
            account_id: "work".to_owned(),
            request_id: "r".to_owned(),
            notify: None,
            bootstrap_command_owner: None,
        };
        let expected = json!({"channel": "telegram", "accountId": "work", "requestId": "r"});
        assert_eq!(json!(dismissed), expected);
    }
}
