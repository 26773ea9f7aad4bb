//! The methods `config.get`, `config.set` and `config.patch`: `openclaw.json` of the gateway.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Access, Scope, method::methods};

methods! {
    /// What stands in the file, without its secrets, and the revision that a change must name.
    ConfigGet = "config.get", Access::Holder(Scope::Read), ConfigGetParams => ConfigSnapshot;
    /// Makes the file hold what is sent, its comments kept where nothing changes.
    ConfigSet = "config.set", Access::Holder(Scope::Admin), ConfigSetParams => ConfigWritten;
    /// Merges what is sent into the file.
    ConfigPatch = "config.patch", Access::Holder(Scope::Admin), ConfigPatchParams => ConfigWritten;
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

/// Parameters of `config.patch`. What says where to report a restart to is taken and not used: a
/// change restarts nothing here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConfigPatchParams {
    /// A merge patch as JSON5; `null` removes.
    pub(crate) raw: String,
    /// The revision that it starts from; needed where there is a file.
    #[serde(default)]
    pub(crate) base_hash: Option<String>,
    /// Lists that may lose entries.
    #[serde(default)]
    pub(crate) replace_paths: Vec<String>,
    /// Whom a restart would concern.
    #[serde(default)]
    pub(crate) session_key: Option<String>,
    /// Where a restart would be reported.
    #[serde(default)]
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

/// Reply of `config.set` and `config.patch`.
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
}
