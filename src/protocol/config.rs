//! The methods `config.*`: `openclaw.json` of the gateway.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Access, Scope,
    method::methods,
    shapes::{DeliveryContext, shaped},
};

methods! {
    /// What stands in the file, without its secrets, and the revision that a change must name,
    /// unless it is of `ui.prefs` alone.
    ConfigGet = "config.get", Access::Holder(Scope::Read), ConfigGetParams => ConfigSnapshot;
    /// Makes the file hold what is sent, its comments kept where nothing changes; refused where an
    /// agent would be lost.
    ConfigSet = "config.set", Access::Holder(Scope::Admin), ConfigSetParams => ConfigWritten;
    /// Merges what is sent into the file.
    ConfigPatch = "config.patch", Access::Holder(Scope::Admin), ConfigPatchParams => ConfigWritten;
    /// As `config.set`, but agents may go, and it says what became of the change in the running
    /// gateway.
    ConfigApply = "config.apply", Access::Holder(Scope::Admin), ConfigApplyParams => ConfigWritten;
    /// The keys that this gateway knows, as a JSON Schema.
    ConfigSchema = "config.schema", Access::Holder(Scope::Read), ConfigGetParams => ConfigSchemaReply;
    /// One place of it.
    ConfigSchemaLookup = "config.schema.lookup", Access::Holder(Scope::Read), ConfigSchemaLookupParams => SchemaPlace;
}

/// Parameters of `config.get`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigGetParams {}

/// Parameters of `config.set`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConfigSetParams {
    /// The whole configuration as JSON5.
    pub(crate) raw: String,
    /// The revision that it starts from; needed where there is a file.
    #[serde(default)]
    pub(crate) base_hash: Option<String>,
}

/// Parameters of `config.apply` (`ConfigApplyParams`). What says where to report a restart to is
/// taken and not used: a change restarts nothing here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConfigApplyParams {
    /// The whole configuration as JSON5.
    pub(crate) raw: String,
    /// The revision that it starts from; needed where there is a file.
    #[serde(default)]
    pub(crate) base_hash: Option<String>,
    /// Whom a restart would concern.
    #[serde(default)]
    pub(crate) session_key: Option<String>,
    /// Where a restart would be reported.
    #[serde(default, deserialize_with = "shaped::<DeliveryContext, _>")]
    pub(crate) delivery_context: Option<Value>,
    /// Why, for the log.
    #[serde(default)]
    pub(crate) note: Option<String>,
    /// How long a restart would wait.
    #[serde(default)]
    pub(crate) restart_delay_ms: Option<u64>,
}

/// Parameters of `config.patch`. What says where to report a restart to is taken and not used: a
/// change restarts nothing here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConfigPatchParams {
    /// A merge patch as JSON5; `null` removes.
    pub(crate) raw: String,
    /// The revision that it starts from; needed where there is a file, unless it is about
    /// `ui.prefs` alone.
    #[serde(default)]
    pub(crate) base_hash: Option<String>,
    /// Lists that may lose entries.
    #[serde(default)]
    pub(crate) replace_paths: Vec<String>,
    /// Whom a restart would concern.
    #[serde(default)]
    pub(crate) session_key: Option<String>,
    /// Where a restart would be reported.
    #[serde(default, deserialize_with = "shaped::<DeliveryContext, _>")]
    pub(crate) delivery_context: Option<Value>,
    /// Why, for the log of a restart.
    #[serde(default)]
    pub(crate) note: Option<String>,
    /// How long a restart would wait.
    #[serde(default)]
    pub(crate) restart_delay_ms: Option<u64>,
}

/// Reply of `config.get`, every secret in it replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigSnapshot {
    /// The file.
    pub(crate) path: String,
    /// Whether there is one.
    pub(crate) exists: bool,
    /// Its text; for callers without `operator.admin` its value written anew, since a comment may
    /// hold an old secret. `null` without a file.
    pub(crate) raw: Option<String>,
    /// Its value, without what it includes.
    pub(crate) parsed: Value,
    /// Its value with what it includes.
    pub(crate) source_config: Value,
    /// The same with variables filled in.
    pub(crate) resolved: Value,
    /// The same: nothing is filled in from defaults.
    pub(crate) config: Value,
    /// Whether nothing is wrong with it.
    pub(crate) valid: bool,
    /// Its revision.
    pub(crate) hash: String,
    /// The revision of its value with what it includes; `null` while something is wrong with it.
    pub(crate) config_revision_hash: Option<String>,
    /// The same of what counts: another one while something waits for the next start. `null` where
    /// the gateway does not follow the file.
    pub(crate) applied_config_hash: Option<String>,
    /// What is wrong with it.
    pub(crate) issues: Vec<ConfigIssue>,
    /// What leads nowhere and is no error.
    pub(crate) warnings: Vec<ConfigIssue>,
    /// Keys of older versions; none are told apart here.
    pub(crate) legacy_issues: Vec<ConfigIssue>,
}

/// Something about one place of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigIssue {
    /// Keys joined by dots; empty for the whole file.
    pub(crate) path: String,
    /// For people.
    pub(crate) message: String,
}

/// Reply of `config.set`, `config.patch` and `config.apply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConfigWritten {
    /// Always true.
    pub(crate) ok: bool,
    /// Whether there was nothing to change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) noop: bool,
    /// The file.
    pub(crate) path: String,
    /// Its revision now.
    pub(crate) hash: String,
    /// Its value now, without its secrets.
    pub(crate) config: Value,
    /// What became of the change in the running gateway; ours.
    pub(crate) reload: Reloaded,
    /// The reference gateway's word for it, where the method is `config.apply`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sentinel: Option<Sentinel>,
}

/// What became of a change in the running gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reloaded {
    /// Changed paths that count now.
    pub(crate) applied: Vec<String>,
    /// Changed paths that count from the next start on.
    pub(crate) needs_restart: Vec<String>,
    /// Why nothing was taken up, where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

/// A report of a change; the reference gateway keeps it over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sentinel {
    /// Whether it is kept: nothing restarts by itself here, so there is nothing to keep it for.
    pub(crate) persisted: bool,
    /// The report.
    pub(crate) payload: SentinelPayload,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SentinelPayload {
    /// `config-apply`.
    pub(crate) kind: String,
    /// `ok`: a change that failed is an error instead.
    pub(crate) status: String,
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
    /// What the caller said of it.
    pub(crate) message: Option<String>,
    /// What a person may type next.
    pub(crate) doctor_hint: String,
    /// What it came to.
    pub(crate) stats: SentinelStats,
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SentinelStats {
    /// The method.
    pub(crate) mode: String,
    /// The file.
    pub(crate) root: String,
    /// Whether a part of it counts from the next start on.
    pub(crate) requires_restart: bool,
}

/// Reply of `config.schema` (`ConfigSchemaResponse`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigSchemaReply {
    /// A JSON Schema of draft 7.
    pub(crate) schema: Value,
    /// What forms show beside a key, by its path.
    pub(crate) ui_hints: BTreeMap<String, Hint>,
    /// The gateway's.
    pub(crate) version: String,
    /// When it was made, for programs that keep it.
    pub(crate) generated_at: String,
}

/// What forms show beside a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hint {
    /// What it is for.
    pub(crate) help: String,
    /// Whether its value is a secret.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) sensitive: bool,
}

/// Parameters of `config.schema.lookup` (`ConfigSchemaLookupParams`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigSchemaLookupParams {
    /// Keys joined by dots; `.` for the whole file.
    pub(crate) path: String,
}

/// Reply of `config.schema.lookup` (`ConfigSchemaLookupResult`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SchemaPlace {
    /// The place.
    pub(crate) path: String,
    /// Its schema, without what is below it.
    pub(crate) schema: Value,
    /// What a change of it takes: `hot`, `restart`, `none`.
    pub(crate) reload_kind: String,
    /// What forms show beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<Hint>,
    /// Where the hint belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint_path: Option<String>,
    /// What is right below it.
    pub(crate) children: Vec<SchemaChild>,
}

/// A key right below a place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SchemaChild {
    /// The key.
    pub(crate) key: String,
    /// Its path.
    pub(crate) path: String,
    /// Its kind, where it has one only.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// Whether it must be there; none must.
    pub(crate) required: bool,
    /// Whether something is below it.
    pub(crate) has_children: bool,
    /// What a change of it takes.
    pub(crate) reload_kind: String,
    /// What forms show beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<Hint>,
    /// Where the hint belongs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint_path: Option<String>,
}
