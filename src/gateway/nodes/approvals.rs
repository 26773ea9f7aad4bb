//! Approvals of commands: who asked for what, who decided, and the one run that it is good for.
//!
//! A client's word about an approval is worth nothing: what counts is the record here, and each
//! change of it is stored before anybody hears of it. Pure: the clock is an argument, `W` is whoever
//! waits for a decision.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    gateway::repeats::digest,
    protocol::{Decision, ErrorShape, RunPlan, Scope},
    store::{Error, KeptApproval},
};

/// How long a request waits for a decision if it does not say, milliseconds.
const DEFAULT_WAIT_MS: u64 = 1_800_000;
/// The longest that a request may wait, milliseconds.
const MAX_WAIT_MS: u64 = 86_400_000;
/// How long a decided request can be asked about, milliseconds.
const KEPT_MS: u64 = 15_000;
/// How many requests are kept.
const MAX_RECORDS: usize = 512;
/// What all requests together may come to, bytes.
const MAX_BYTES: usize = 16 << 20;
/// How many may wait for one decision.
const MAX_WAITERS: usize = 16;
/// What of `system.run`'s parameters reaches a node; every word about approval is ours.
const FORWARDED: [&str; 11] = [
    "command",
    "rawCommand",
    "systemRunPlan",
    "cwd",
    "env",
    "timeoutMs",
    "needsScreenRecording",
    "agentId",
    "sessionKey",
    "runId",
    "suppressNotifyOnExit",
];

/// Who asks: a device, or the connection of a caller without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Asker {
    pub(in crate::gateway) device: Option<String>,
    pub(in crate::gateway) connection: String,
}

/// Whoever is shown requests.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct Viewer<'a> {
    pub(in crate::gateway) scopes: &'a [Scope],
    pub(in crate::gateway) device: Option<&'a str>,
    pub(in crate::gateway) connection: &'a str,
}

impl Viewer<'_> {
    /// Whether it is shown what was asked from there and may decide it: an administrator, and who
    /// asked.
    fn sees(self, device: Option<&str>, connection: &str) -> bool {
        let is_asker = match device {
            Some(asker) => self.device == Some(asker),
            None => self.connection == connection,
        };
        is_asker || Scope::Admin.is_within(self.scopes)
    }
}

/// Which requests are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum Meant {
    /// Those that wait for a decision.
    Waiting,
    /// Those that are decided as well.
    WaitingOrDecided,
}

/// A request for approval, checked.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) struct Ask {
    pub(in crate::gateway) id: String,
    /// As it is shown to those who decide; its `systemRunPlan` is what exactly may run.
    pub(in crate::gateway) request: Value,
    /// The node that may run it; `None` for what no node runs.
    pub(in crate::gateway) node: Option<String>,
    /// The environment that it may run with.
    pub(in crate::gateway) env: BTreeMap<String, String>,
    pub(in crate::gateway) asker: Asker,
    pub(in crate::gateway) wait_ms: Option<u64>,
}

/// A request as it stands.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) struct Standing {
    pub(in crate::gateway) id: String,
    pub(in crate::gateway) request: Value,
    pub(in crate::gateway) created_at_ms: u64,
    pub(in crate::gateway) expires_at_ms: u64,
    /// `None` while it waits, and once it has expired.
    pub(in crate::gateway) decision: Option<Decision>,
    pub(in crate::gateway) has_expired: bool,
    asker: Asker,
}

impl Standing {
    /// Whether somebody may still decide it.
    pub(in crate::gateway) fn is_waiting(&self) -> bool {
        self.decision.is_none() && !self.has_expired
    }

    /// Whether a client is shown it and may decide it.
    pub(in crate::gateway) fn is_shown_to(&self, viewer: Viewer<'_>) -> bool {
        viewer.sees(self.asker.device.as_deref(), &self.asker.connection)
    }
}

/// Why a request was not taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum NotAsked {
    /// The id is in use.
    Taken,
    /// Too many requests.
    Full,
    /// It could not be stored.
    Unkept(Error),
}

/// Why a decision changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum NotDecided {
    /// No such request, or too late.
    Unknown,
    /// Somebody decided otherwise before.
    Decided,
    /// Somebody decided the same before.
    Repeated,
    /// It could not be stored.
    Unkept(Error),
}

/// What an id, or the beginning of one, leads to.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) enum Found {
    /// This request.
    One(Standing),
    /// More than one begins so.
    Many,
    /// None.
    Nothing,
}

/// What may go to a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Admitted {
    /// The parameters.
    pub(super) params: Value,
    /// The request that they use up, which is to be stored before they go.
    pub(super) used: Option<String>,
}

/// What became of who wants to wait for a decision.
#[derive(Debug, PartialEq)]
pub(super) enum Waited<W> {
    /// It waits.
    Kept,
    /// There is nothing to wait for: so things stand.
    Over(W, Standing),
    /// Too many wait already.
    Full(W),
    /// No such request.
    Unknown(W),
}

/// Every request.
#[derive(Debug)]
pub(super) struct Approvals<W> {
    records: BTreeMap<String, Record<W>>,
    /// Those that are forgotten here and not yet in the store.
    gone: Vec<String>,
}

#[derive(Debug)]
struct Record<W> {
    kept: KeptApproval,
    /// What exactly may run.
    plan: Option<RunPlan>,
    /// What it comes to, about.
    bytes: usize,
    /// From when on what was decided can be asked about, milliseconds since 1970.
    told_ms: u64,
    /// Somebody was told that it is too late.
    is_told: bool,
    waiters: Vec<W>,
}

impl<W> Default for Approvals<W> {
    fn default() -> Self {
        Self { records: BTreeMap::new(), gone: Vec::new() }
    }
}

impl<W> Approvals<W> {
    /// What was kept, by a process that has ended. Those who wait for a decision ask again.
    pub(super) fn open(kept: Vec<KeptApproval>, now_ms: u64) -> Self {
        let mut approvals = Self::default();
        for it in kept {
            if approvals.has_room(bytes_of(&it)) {
                approvals.keep(it, now_ms);
            } else {
                approvals.gone.push(it.id);
            }
        }
        approvals.expire(now_ms);
        approvals
    }

    /// A request as it is to be stored, if it can be taken up.
    pub(super) fn draft(&self, ask: Ask, now_ms: u64) -> Result<KeptApproval, NotAsked> {
        if self.records.contains_key(&ask.id) {
            return Err(NotAsked::Taken);
        }
        let wait = ask.wait_ms.unwrap_or(DEFAULT_WAIT_MS).min(MAX_WAIT_MS);
        let it = KeptApproval {
            id: ask.id,
            node: ask.node,
            device: ask.asker.device,
            connection: ask.asker.connection,
            request: ask.request,
            environment: environment(&ask.env),
            created_at_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(wait),
            decided: None,
            used_at_ms: None,
        };
        if self.has_room(bytes_of(&it)) { Ok(it) } else { Err(NotAsked::Full) }
    }

    fn has_room(&self, bytes: usize) -> bool {
        let taken: usize = self.records.values().map(|record| record.bytes).sum();
        self.records.len() < MAX_RECORDS && taken + bytes <= MAX_BYTES
    }

    /// Takes up a request that is stored.
    pub(super) fn keep(&mut self, kept: KeptApproval, now_ms: u64) -> Standing {
        let plan = kept.request.get("systemRunPlan").cloned();
        let record = Record {
            plan: plan.and_then(|plan| serde_json::from_value(plan).ok()),
            bytes: bytes_of(&kept),
            told_ms: now_ms,
            is_told: false,
            waiters: Vec::new(),
            kept,
        };
        let standing = record.standing(now_ms);
        self.records.insert(standing.id.clone(), record);
        standing
    }

    /// Those that are forgotten here and may still be in the store.
    pub(super) fn gone(&self) -> Vec<String> {
        self.gone.clone()
    }

    /// The store has forgotten these as well.
    pub(super) fn cleared(&mut self, gone: &[String]) {
        self.gone.retain(|id| !gone.contains(id));
    }

    /// Forgets what is for a node, or a device asked for, that is no more.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&KeptApproval) -> bool) {
        let gone = self.records.extract_if(.., |_, record| is_gone(&record.kept));
        self.gone.extend(gone.map(|(id, _)| id));
    }

    /// Those that wait for a decision and are shown to this one, the oldest first.
    pub(super) fn waiting(&self, viewer: Viewer<'_>, now_ms: u64) -> Vec<Standing> {
        let mut waiting: Vec<_> = self
            .records
            .values()
            .filter(|record| record.is_meant(viewer, Meant::Waiting, now_ms))
            .map(|record| record.standing(now_ms))
            .collect();
        waiting.sort_by_key(|standing| standing.created_at_ms);
        waiting
    }

    /// The request with this id, if it can still be asked about.
    pub(super) fn find(&self, id: &str, now_ms: u64) -> Option<Standing> {
        self.records.get(id).map(|record| record.standing(now_ms))
    }

    /// The request with this id if it is meant and shown to this one, or the only one that is and
    /// whose id begins so.
    pub(super) fn look_up(&self, id: &str, viewer: Viewer<'_>, meant: Meant, now_ms: u64) -> Found {
        // A request may be long: only the one that is found is copied.
        let found = |record: &Record<W>| Found::One(record.standing(now_ms));
        let is_meant = |record: &&Record<W>| record.is_meant(viewer, meant, now_ms);
        if let Some(record) = self.records.get(id).or_else(|| self.records.get(id.trim())) {
            return Some(record).filter(is_meant).map_or(Found::Nothing, found);
        }
        let start = id.trim().to_lowercase();
        if start.is_empty() {
            return Found::Nothing;
        }
        let like = self.records.iter().filter(|(id, _)| id.to_lowercase().starts_with(&start));
        let mut like = like.map(|(_, record)| record).filter(is_meant);
        match (like.next(), like.next()) {
            (None, _) => Found::Nothing,
            (Some(one), None) => found(one),
            (Some(_), Some(_)) => Found::Many,
        }
    }

    /// Waits for a decision: the waiter is kept, or given back with the reason.
    pub(super) fn wait(&mut self, id: &str, waiter: W, now_ms: u64) -> Waited<W> {
        let Some(record) = self.records.get_mut(id) else { return Waited::Unknown(waiter) };
        if !record.is_waiting(now_ms) {
            return Waited::Over(waiter, record.standing(now_ms));
        }
        if record.waiters.len() >= MAX_WAITERS {
            return Waited::Full(waiter);
        }
        record.waiters.push(waiter);
        Waited::Kept
    }

    /// Forgets who no longer waits for a decision.
    pub(super) fn forget_waiters(&mut self, id: &str, is_gone: impl Fn(&W) -> bool) {
        if let Some(record) = self.records.get_mut(id) {
            record.waiters.retain(|waiter| !is_gone(waiter));
        }
    }

    /// Whether it is news that this request has expired; once.
    pub(super) fn is_news(&mut self, id: &str) -> bool {
        self.records.get_mut(id).is_some_and(|record| !std::mem::replace(&mut record.is_told, true))
    }

    /// Whether this can be decided.
    pub(super) fn check(
        &self,
        id: &str,
        decision: Decision,
        now_ms: u64,
    ) -> Result<(), NotDecided> {
        let record = self.records.get(id).ok_or(NotDecided::Unknown)?;
        match record.kept.decided {
            Some((before, _)) if before == decision => Err(NotDecided::Repeated),
            Some(_) => Err(NotDecided::Decided),
            None if !record.is_waiting(now_ms) => Err(NotDecided::Unknown),
            None => Ok(()),
        }
    }

    /// Decides, and gives back those who waited.
    pub(super) fn decide(
        &mut self,
        id: &str,
        decision: Decision,
        now_ms: u64,
    ) -> Result<(Standing, Vec<W>), NotDecided> {
        self.check(id, decision, now_ms)?;
        let record = self.records.get_mut(id).ok_or(NotDecided::Unknown)?;
        record.kept.decided = Some((decision, now_ms));
        record.told_ms = now_ms;
        let waiters = std::mem::take(&mut record.waiters);
        Ok((record.standing(now_ms), waiters))
    }

    /// Ends what nobody decided in time, and forgets what is over.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<(Standing, Vec<W>)> {
        let mut ended = Vec::new();
        for record in self.records.values_mut() {
            let is_over = record.kept.decided.is_none() && !record.is_waiting(now_ms);
            if is_over && !record.waiters.is_empty() {
                let waiters = std::mem::take(&mut record.waiters);
                ended.push((record.standing(now_ms), waiters));
            }
        }
        let old = |record: &Record<W>| record.is_forgotten(now_ms);
        self.gone.extend(self.records.extract_if(.., |_, record| old(record)).map(|(id, _)| id));
        ended
    }

    /// What of `params` may go to `node` as `system.run`: approved only if a record says so, and
    /// then exactly what the record holds, once.
    pub(super) fn admit(
        &mut self,
        node: &str,
        params: &Value,
        asker: &Asker,
        now_ms: u64,
    ) -> Result<Admitted, Box<ErrorShape>> {
        let Value::Object(params) = params else {
            return Err(refused("system.run wants an object", "INVALID_PARAMS", Value::Null));
        };
        if params.get("approvalSource").is_some_and(|source| !source.is_null()) {
            return Err(refused("approval source invalid", "INVALID_APPROVAL_SOURCE", Value::Null));
        }
        let mut next: Map<String, Value> = params
            .iter()
            .filter(|(name, _)| FORWARDED.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        check_command(&next)?;
        let wants_approval = params.get("approved").is_some_and(|approved| *approved == true)
            || params.get("approvalDecision").and_then(Value::as_str).is_some();
        if !wants_approval {
            return Ok(Admitted { params: Value::Object(next), used: None });
        }
        let Some(id) = params.get("runId").and_then(Value::as_str).filter(|id| !id.is_empty())
        else {
            let message = "approval override requires params.runId";
            return Err(refused(message, "MISSING_RUN_ID", Value::Null));
        };
        let record = self.records.get_mut(id).ok_or_else(|| {
            refused("unknown or expired approval id", "UNKNOWN_APPROVAL_ID", id.into())
        })?;
        let plan = record.check(id, node, &next, asker, now_ms)?.clone();
        let Some((decision @ (Decision::AllowOnce | Decision::AllowAlways), _)) =
            record.kept.decided
        else {
            return Err(not_approved(id));
        };
        if record.kept.used_at_ms.is_some() {
            return Err(not_approved(id));
        }
        record.kept.used_at_ms = Some(now_ms);
        plan.write_to(&mut next);
        next.insert("approved".to_owned(), true.into());
        next.insert("approvalDecision".to_owned(), json!(decision));
        Ok(Admitted { params: Value::Object(next), used: Some(id.to_owned()) })
    }

    /// Gives back what was to be used up and was not, since that could not be stored.
    pub(super) fn give_back(&mut self, id: &str) {
        if let Some(record) = self.records.get_mut(id) {
            record.kept.used_at_ms = None;
        }
    }
}

impl<W> Record<W> {
    fn is_waiting(&self, now_ms: u64) -> bool {
        self.kept.decided.is_none() && now_ms < self.kept.expires_at_ms
    }

    fn is_meant(&self, viewer: Viewer<'_>, meant: Meant, now_ms: u64) -> bool {
        let is_meant = match meant {
            Meant::Waiting => self.is_waiting(now_ms),
            Meant::WaitingOrDecided => self.is_waiting(now_ms) || self.kept.decided.is_some(),
        };
        is_meant && viewer.sees(self.kept.device.as_deref(), &self.kept.connection)
    }

    /// A refusal needs no memory; what is allowed is kept until it is used or expires.
    fn is_forgotten(&self, now_ms: u64) -> bool {
        let is_done = self.kept.decided.is_some_and(|(decision, _)| {
            self.kept.used_at_ms.is_some() || decision == Decision::Deny
        });
        now_ms >= self.kept.expires_at_ms.saturating_add(KEPT_MS)
            || (is_done && now_ms >= self.told_ms.saturating_add(KEPT_MS))
    }

    fn standing(&self, now_ms: u64) -> Standing {
        let KeptApproval { id, request, created_at_ms, expires_at_ms, decided, .. } = &self.kept;
        let KeptApproval { device, connection, .. } = &self.kept;
        Standing {
            id: id.clone(),
            request: request.clone(),
            created_at_ms: *created_at_ms,
            expires_at_ms: *expires_at_ms,
            decision: decided.map(|(decision, _)| decision),
            has_expired: decided.is_none() && now_ms >= *expires_at_ms,
            asker: Asker { device: device.clone(), connection: connection.clone() },
        }
    }

    /// Whether the record is for this run; its plan if so.
    fn check(
        &self,
        id: &str,
        node: &str,
        params: &Map<String, Value>,
        asker: &Asker,
        now_ms: u64,
    ) -> Result<&RunPlan, Box<ErrorShape>> {
        let refuse = |message: &str, code: &str| Err(refused(message, code, id.into()));
        if now_ms >= self.kept.expires_at_ms {
            return refuse("approval expired", "APPROVAL_EXPIRED");
        }
        match &self.kept.node {
            None => {
                return refuse("approval id missing node binding", "APPROVAL_NODE_BINDING_MISSING");
            }
            Some(bound) if bound != node => {
                return refuse("approval id not valid for this node", "APPROVAL_NODE_MISMATCH");
            }
            Some(_) => {}
        }
        match (&self.kept.device, &asker.device) {
            (Some(bound), device) if device.as_ref() != Some(bound) => {
                return refuse("approval id not valid for this device", "APPROVAL_DEVICE_MISMATCH");
            }
            (Some(_), _) => {}
            (None, _) if self.kept.connection != asker.connection => {
                return refuse("approval id not valid for this client", "APPROVAL_CLIENT_MISMATCH");
            }
            (None, _) => {}
        }
        let Some(plan) = &self.plan else {
            return refuse("approval id does not match request", "APPROVAL_REQUEST_MISMATCH");
        };
        if !plan.agrees_with(params) {
            return refuse("approval id does not match request", "APPROVAL_REQUEST_MISMATCH");
        }
        let env = params.get("env").cloned().unwrap_or_else(|| json!({}));
        let env: Option<BTreeMap<String, String>> = serde_json::from_value(env).ok();
        if env.map(|env| environment(&env)) != Some(self.kept.environment) {
            return refuse("approval id does not match the environment", "APPROVAL_ENV_MISMATCH");
        }
        Ok(plan)
    }
}

/// Tells environments apart; what is in one may be a secret, and is kept nowhere.
fn environment(env: &BTreeMap<String, String>) -> [u8; 32] {
    let texts: Vec<&str> =
        env.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect();
    digest(&texts)
}

/// What a request comes to, about.
fn bytes_of(it: &KeptApproval) -> usize {
    it.id.len() + it.connection.len() + it.request.to_string().len()
}

/// One argument vector: a text beside it must say the same, and so must a plan.
fn check_command(params: &Map<String, Value>) -> Result<(), Box<ErrorShape>> {
    let argv: Vec<&str> = match params.get("command") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(words)) => {
            let texts: Option<Vec<_>> = words.iter().map(Value::as_str).collect();
            texts.ok_or_else(|| {
                refused("command must be a list of texts", "INVALID_COMMAND", Value::Null)
            })?
        }
        Some(_) => {
            return Err(refused("command must be a list of texts", "INVALID_COMMAND", Value::Null));
        }
    };
    let raw = params.get("rawCommand").and_then(Value::as_str).map(str::trim);
    if let Some(raw) = raw.filter(|raw| !raw.is_empty()) {
        if argv.is_empty() {
            let message = "rawCommand requires params.command";
            return Err(refused(message, "MISSING_COMMAND", Value::Null));
        }
        if raw != shown(&argv) && Some(raw) != script_of(&argv) {
            let message = "INVALID_REQUEST: rawCommand does not match command";
            return Err(refused(message, "RAW_COMMAND_MISMATCH", Value::Null));
        }
    }
    let plan = params.get("systemRunPlan").and_then(|plan| plan.get("argv"));
    if plan.is_some_and(|plan| *plan != json!(argv)) {
        let message = "systemRunPlan does not match command";
        return Err(refused(message, "SYSTEM_RUN_PLAN_MISMATCH", Value::Null));
    }
    Ok(())
}

/// The words as OpenClaw shows them.
pub(in crate::gateway) fn shown(argv: &[&str]) -> String {
    let word = |word: &&str| {
        if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c == '"') {
            format!("\"{}\"", word.replace('"', "\\\""))
        } else {
            (*word).to_owned()
        }
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// The script in `sh -c SCRIPT`, which older clients show instead of the words.
fn script_of<'a>(argv: &[&'a str]) -> Option<&'a str> {
    let [shell, "-c" | "-lc", script] = argv else { return None };
    let name = shell.rsplit('/').next()?;
    matches!(name, "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash").then(|| script.trim())
}

fn not_approved(id: &str) -> Box<ErrorShape> {
    refused("approval required", "APPROVAL_REQUIRED", id.into())
}

fn refused(message: &str, code: &str, run_id: Value) -> Box<ErrorShape> {
    let mut details = json!({ "code": code });
    if let (Some(details), false) = (details.as_object_mut(), run_id.is_null()) {
        details.insert("runId".to_owned(), run_id);
    }
    ErrorShape::invalid(message).details(details).into()
}

#[cfg(test)]
#[path = "approvals_tests.rs"]
mod tests;
