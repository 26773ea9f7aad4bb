//! The handshake: challenge, `connect`, `hello-ok` (`ConnectParams`, `HelloOk`).

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::Device;
use crate::secret::Secret;

/// Payload of the first event, `connect.challenge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Challenge {
    /// Goes into the device signature.
    pub(crate) nonce: String,
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
}

/// Parameters of `connect`, the first request on a connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Connect {
    /// The lowest version the client speaks.
    pub(crate) min_protocol: u32,
    /// The highest version the client speaks.
    pub(crate) max_protocol: u32,
    /// Who is calling.
    pub(crate) client: Client,
    /// `operator` (the default) or `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    /// What the client asks for; what it gets is the server's decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scopes: Option<Vec<String>>,
    /// Secrets offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auth: Option<Auth>,
    /// Capabilities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) caps: Vec<String>,
    /// A node's commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commands: Option<Vec<String>>,
    /// A node's permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) permissions: Option<Value>,
    /// A node's PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path_env: Option<String>,
    /// A node's screen control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) computer_use: Option<Value>,
    /// A worker's bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) worker_runs: Option<Value>,
    /// Device identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<Device>,
    /// A language tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) locale: Option<String>,
    /// Program and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent: Option<String>,
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Client {
    /// One of the schema's client ids: `cli`, `gateway-client`, `openclaw-probe`, …
    pub(crate) id: String,
    /// Its version.
    pub(crate) version: String,
    /// `linux`, `darwin`, …
    pub(crate) platform: String,
    /// `cli`, `ui`, `backend`, `node`, `probe`, …
    pub(crate) mode: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// The build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build_id: Option<String>,
    /// `Mac`, `iPhone`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    /// The hardware's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model_identifier: Option<String>,
    /// An IANA zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<String>,
    /// One running program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance_id: Option<String>,
}

/// What headless node hosts of OpenClaw call a system, its platform, and the family of such machines.
const HOST_SYSTEMS: [(&str, &str, &str); 5] = [
    ("darwin", "macos", "Mac"),
    ("macos", "macos", "Mac"),
    ("linux", "linux", "Linux"),
    ("win32", "windows", "Windows"),
    ("windows", "windows", "Windows"),
];

impl Client {
    /// Its platform and family. What an older headless node host leaves out or calls by another name
    /// follows from its system, as OpenClaw's gateway has it; one that names another family stays as
    /// it says.
    pub(crate) fn machine(&self) -> (&str, Option<&str>) {
        let family = self.device_family.as_deref();
        let as_said = (self.platform.as_str(), family);
        if self.id != "node-host" || self.mode != "node" {
            return as_said;
        }
        let Some((_, platform, usual)) =
            HOST_SYSTEMS.into_iter().find(|(system, ..)| *system == self.platform)
        else {
            return as_said;
        };
        match family.map(str::trim).filter(|family| !family.is_empty()) {
            None => (platform, Some(usual)),
            Some(family) if family.eq_ignore_ascii_case(usual) => (platform, Some(family)),
            Some(_) => as_said,
        }
    }
}

/// Secrets offered in `connect`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Auth {
    /// The gateway's shared token (or password: the gateway's mode decides).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
    /// The gateway's shared password (or token).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<Secret>,
    /// A setup code's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bootstrap_token: Option<Secret>,
    /// A paired device's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_token: Option<Secret>,
    /// OpenClaw's own, unused here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) approval_runtime_token: Option<Secret>,
    /// OpenClaw's own, unused here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent_runtime_identity_token: Option<Secret>,
}

/// Payload of the answer to `connect`. Fields a newer gateway adds are ignored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename = "hello-ok", rename_all = "camelCase")]
pub(crate) struct HelloOk {
    /// The version agreed on.
    pub(crate) protocol: u32,
    /// Who answers.
    pub(crate) server: Server,
    /// What it can do.
    pub(crate) features: Features,
    /// How things stand.
    pub(crate) snapshot: Snapshot,
    /// What the client may do.
    pub(crate) auth: Granted,
    /// Limits.
    pub(crate) policy: Policy,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Server {
    /// The gateway's version.
    pub(crate) version: String,
    /// This connection's id.
    pub(crate) conn_id: String,
    /// Changes with every start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boot_id: Option<String>,
}

/// What a gateway can do: nothing is listed that is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Features {
    /// Method names.
    pub(crate) methods: Vec<String>,
    /// Event names.
    pub(crate) events: Vec<String>,
    /// Further abilities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) capabilities: Vec<String>,
}

/// How things stand at the moment of the answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Snapshot {
    /// Who is connected (`PresenceEntry`), as they are written.
    pub(crate) presence: Vec<Box<RawValue>>,
    /// The `health` summary, as it is written; null where it cannot be.
    pub(crate) health: Box<RawValue>,
    /// Versions of the two.
    pub(crate) state_version: StateVersion,
    /// Since the gateway's start, milliseconds.
    pub(crate) uptime_ms: u64,
    /// Which agent and session are meant where none is named, where the gateway says so; not read of
    /// another gateway, whose own form of it is no reason to stay away.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(crate) session_defaults: Option<NamelessSession>,
    /// Which revision of the configuration counts (`appliedConfigHash` of `config.get`), where the
    /// gateway says so; not read of another gateway.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(crate) applied_config_hash: Option<String>,
    /// How it asks who somebody is, in a word of `gateway.auth.mode`: only for administrators, as
    /// what follows, and not read of another gateway either.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(crate) auth_mode: Option<String>,
    /// Its `openclaw.json`.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(crate) config_path: Option<String>,
    /// Its state directory.
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(crate) state_dir: Option<String>,
}

/// The agent and the session that are meant where none is named (`Snapshot.sessionDefaults`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NamelessSession {
    /// The agent.
    pub(crate) default_agent_id: String,
    /// Whether a model is configured for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model_configured: Option<bool>,
    /// `sole`, `legacy`, `explicit`: how that agent is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ownership: Option<String>,
    /// Whether one has to be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) selection_required: Option<bool>,
    /// What main sessions are called after their agent.
    pub(crate) main_key: String,
    /// The session.
    pub(crate) main_session_key: String,
    /// `per-sender` or `global`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<String>,
}

/// Versions of presence and health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateVersion {
    /// Grows with every change of presence.
    pub(crate) presence: u64,
    /// Grows with every change of health.
    pub(crate) health: u64,
}

/// What the client may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Granted {
    /// `operator` or `node`.
    pub(crate) role: String,
    /// Scopes granted.
    pub(crate) scopes: Vec<String>,
    /// A token for the next time, for a paired device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_token: Option<Secret>,
    /// Since when that token holds what it holds, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) issued_at_ms: Option<u64>,
    /// Its tokens in other roles, which a setup code gave it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) device_tokens: Vec<GrantedToken>,
}

/// A device's token in a role other than the one that it came in with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrantedToken {
    /// For the next time, in this role.
    pub(crate) device_token: Secret,
    /// `operator` or `node`.
    pub(crate) role: String,
    /// What it may ask for with it.
    pub(crate) scopes: Vec<String>,
    /// Since when this token has been the one, milliseconds since 1970.
    pub(crate) issued_at_ms: u64,
}

/// Limits of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Policy {
    /// The largest frame, bytes.
    pub(crate) max_payload: u64,
    /// What may wait unsent before the client counts as slow, bytes.
    pub(crate) max_buffered_bytes: u64,
    /// Between two `tick` events, milliseconds.
    pub(crate) tick_interval_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_node_host_leaves_out_of_its_machine_follows_from_its_system() {
        for (said, expected) in [
            (("node-host", "linux", None), ("linux", Some("Linux"))),
            (("node-host", "darwin", None), ("macos", Some("Mac"))),
            (("node-host", "darwin", Some(" mac ")), ("macos", Some("mac"))),
            (("node-host", "win32", Some("")), ("windows", Some("Windows"))),
            (("node-host", "linux", Some("Toaster")), ("linux", Some("Toaster"))),
            (("node-host", "freebsd", None), ("freebsd", None)),
            (("openclaw-android", "linux", None), ("linux", None)),
        ] {
            let (id, platform, family) = said;
            let client = serde_json::json!({"id": id, "version": "1", "platform": platform,
                "mode": "node", "deviceFamily": family});
            let client: Client = serde_json::from_value(client).unwrap();
            assert_eq!(client.machine(), expected, "{said:?}");
            assert_eq!(Client { mode: "cli".to_owned(), ..client }.machine(), (platform, family));
        }
    }
}
