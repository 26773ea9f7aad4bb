//! `exec.approvals.get` and `exec.approvals.set`: the rules for programs on the gateway's own host,
//! kept in the store.

use serde_json::Value;

use super::config::revision;
use crate::{
    gateway::{
        Shared,
        dispatch::{Call, Dispatcher, Outcome, unwritten},
        host_rules::{settled, shown},
    },
    protocol::{
        ErrorShape, ExecApprovalsGet, ExecApprovalsSet, ExecApprovalsSetParams, HostRules,
        HostRulesShown, Nothing,
    },
    store::Error,
};

/// The longest document that is kept, bytes.
const LONGEST: usize = 1 << 20;
/// The hash of rules that nobody gave.
const MISSING: &str = "missing";

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<ExecApprovalsGet, _>(get);
    dispatcher.on_change::<ExecApprovalsSet, _>(set);
}

/// The rules as they are kept.
struct Known {
    text: Option<String>,
    rules: HostRules,
    hash: String,
}

async fn get(call: Call, _params: Nothing) -> Outcome<HostRulesShown> {
    let Known { text, rules, hash } = known(&call.shared).await?;
    Ok(reply(&call.shared, text.is_some(), hash, &rules))
}

async fn set(call: Call, params: ExecApprovalsSetParams) -> Outcome<HostRulesShown> {
    let Known { text, rules: before, hash } = known(&call.shared).await?;
    match params.base_hash {
        Some(base) if base.0.trim() != hash => return Err(changed()),
        None if text.is_some() => {
            let message = "exec approvals base hash required; re-run exec.approvals.get and retry";
            return Err(ErrorShape::invalid(message).into());
        }
        Some(_) | None => {}
    }
    let rules = settled(params.file, &before, || uuid::Uuid::new_v4().to_string());
    let value = serde_json::to_value(&rules).map_err(|error| unwritten(&error))?;
    let next = format!("{value:#}\n");
    if next.len() > LONGEST {
        let message = format!("exec approvals must have at most {LONGEST} bytes");
        return Err(ErrorShape::invalid(message).into());
    }
    let kept = call.shared.store.host_rules().replace(text, next).await;
    if !kept.map_err(|error| unstored(&error))? {
        return Err(changed());
    }
    let caller = &call.caller;
    let (device, connection) = (caller.device_id.as_deref(), &caller.connection);
    let client = &caller.client.id;
    tracing::info!(device, connection, client, "the rules for programs of this host changed");
    Ok(reply(&call.shared, true, revision(&value)?, &rules))
}

async fn known(shared: &Shared) -> Outcome<Known> {
    let text = shared.store.host_rules().text().await.map_err(|error| unstored(&error))?;
    let Some(text) = text else {
        let (rules, hash) = (HostRules::default(), MISSING.to_owned());
        return Ok(Known { text: None, rules, hash });
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| unread(&error))?;
    let hash = revision(&value)?;
    let rules = serde_json::from_value(value).map_err(|error| unread(&error))?;
    Ok(Known { text: Some(text), rules, hash })
}

fn reply(shared: &Shared, exists: bool, hash: String, rules: &HostRules) -> HostRulesShown {
    let path = shared.paths.own().join("state.sqlite#host_rules").display().to_string();
    let resolved_defaults = rules.resolved();
    HostRulesShown { path, exists, hash, file: shown(rules), resolved_defaults }
}

fn changed() -> Box<ErrorShape> {
    let message = "exec approvals changed since last load; re-run exec.approvals.get and retry";
    ErrorShape::invalid(message).into()
}

/// The text may hold a secret, so that no more is said of it than where.
fn unread(error: &serde_json::Error) -> Box<ErrorShape> {
    let (line, column) = (error.line(), error.column());
    tracing::error!(line, column, "the kept rules for programs of this host cannot be read");
    ErrorShape::unavailable("the kept rules cannot be read", 60_000).into()
}

fn unstored(error: &Error) -> Box<ErrorShape> {
    tracing::warn!(%error, "the rules for programs of this host were not found or kept");
    ErrorShape::unavailable(error.to_string(), 1_000).into()
}
