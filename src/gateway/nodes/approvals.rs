//! Approvals of commands: who asked for what, who decided, and the one run that it is good for.
//!
//! A client's word about an approval is worth nothing: what counts is the record here, and each
//! change of it is stored before anybody hears of it. Pure: the clock is an argument, `W` is whoever
//! waits for a decision.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    gateway::repeats::digest,
    protocol::{Decision, ErrorShape, RunPlan},
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

    /// Those that wait for a decision, the oldest first.
    pub(super) fn waiting(&self, now_ms: u64) -> Vec<Standing> {
        let mut waiting: Vec<_> = self
            .records
            .values()
            .filter(|record| record.is_waiting(now_ms))
            .map(|record| record.standing(now_ms))
            .collect();
        waiting.sort_by_key(|standing| standing.created_at_ms);
        waiting
    }

    /// The request with this id, if it can still be asked about.
    pub(super) fn find(&self, id: &str, now_ms: u64) -> Option<Standing> {
        self.records.get(id).map(|record| record.standing(now_ms))
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
        Standing {
            id: id.clone(),
            request: request.clone(),
            created_at_ms: *created_at_ms,
            expires_at_ms: *expires_at_ms,
            decision: decided.map(|(decision, _)| decision),
            has_expired: decided.is_none() && now_ms >= *expires_at_ms,
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
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;

    fn plan() -> RunPlan {
        serde_json::from_value(json!({
            "argv": ["/usr/bin/echo", "hi there"], "cwd": "/home/node",
            "commandText": "/usr/bin/echo \"hi there\"", "commandPreview": null,
            "agentId": "main", "sessionKey": "agent:main:main",
        }))
        .unwrap()
    }

    fn asker() -> Asker {
        Asker { device: Some("laptop".to_owned()), connection: "c1".to_owned() }
    }

    fn ask(id: &str) -> Ask {
        Ask {
            id: id.to_owned(),
            request: json!({"command": "echo", "systemRunPlan": plan()}),
            node: Some("box".to_owned()),
            env: BTreeMap::new(),
            asker: asker(),
            wait_ms: Some(60_000),
        }
    }

    /// Takes up a request that is stored at once.
    fn take<W>(approvals: &mut Approvals<W>, ask: Ask) -> Result<Standing, NotAsked> {
        let it = approvals.draft(ask, NOW)?;
        Ok(approvals.keep(it, NOW))
    }

    fn run(changes: &Value) -> Value {
        let mut params = json!({
            "command": ["/usr/bin/echo", "hi there"], "cwd": "/home/node", "agentId": "main",
            "sessionKey": "agent:main:main", "runId": "a", "approved": true,
            "approvalDecision": "allow-once",
        });
        for (name, value) in changes.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    }

    fn allowed() -> Approvals<char> {
        let mut approvals = Approvals::default();
        take(&mut approvals, ask("a")).unwrap();
        approvals.decide("a", Decision::AllowOnce, NOW).unwrap();
        approvals
    }

    fn code(outcome: Result<Admitted, Box<ErrorShape>>) -> String {
        outcome.unwrap_err().details.unwrap()["code"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_was_approved_runs_once_and_exactly_so() {
        let mut approvals = allowed();
        let admitted = approvals.admit("box", &run(&json!({})), &asker(), NOW).unwrap();
        assert_eq!(admitted.used.as_deref(), Some("a"));
        let forwarded = admitted.params;
        assert_eq!(forwarded["command"], json!(["/usr/bin/echo", "hi there"]));
        assert_eq!(forwarded["systemRunPlan"], json!(plan()));
        assert_eq!(forwarded["approved"], true);
        assert_eq!(forwarded["approvalDecision"], "allow-once");
        let again = approvals.admit("box", &run(&json!({})), &asker(), NOW);
        assert_eq!(code(again), "APPROVAL_REQUIRED");
        approvals.give_back("a");
        assert!(approvals.admit("box", &run(&json!({})), &asker(), NOW).is_ok());
    }

    // CVE-2026-28466: a client says that its own command is approved.
    #[test]
    fn a_clients_word_about_approval_is_not_believed() {
        let mut approvals = Approvals::<char>::default();
        let said = json!({"command": ["id"], "approved": true, "approvalDecision": "allow-always"});
        assert_eq!(code(approvals.admit("box", &said, &asker(), NOW)), "MISSING_RUN_ID");
        let unknown = run(&json!({"runId": "made-up"}));
        assert_eq!(code(approvals.admit("box", &unknown, &asker(), NOW)), "UNKNOWN_APPROVAL_ID");
        let source = json!({"command": ["id"], "approvalSource": "auto-review"});
        assert_eq!(code(approvals.admit("box", &source, &asker(), NOW)), "INVALID_APPROVAL_SOURCE");
        let sneaky = json!({"command": ["id"], "approved": false, "askFallback": "full", "x": 1});
        let forwarded = approvals.admit("box", &sneaky, &asker(), NOW).unwrap();
        assert_eq!(forwarded, Admitted { params: json!({"command": ["id"]}), used: None });
    }

    #[test]
    fn nothing_runs_before_it_is_decided_or_once_it_is_denied() {
        let mut approvals = Approvals::<char>::default();
        take(&mut approvals, ask("a")).unwrap();
        let early = approvals.admit("box", &run(&json!({})), &asker(), NOW);
        assert_eq!(code(early), "APPROVAL_REQUIRED");
        approvals.decide("a", Decision::Deny, NOW).unwrap();
        let denied = approvals.admit("box", &run(&json!({})), &asker(), NOW);
        assert_eq!(code(denied), "APPROVAL_REQUIRED");
    }

    // CVE-2026-26325: one command is shown, another one runs.
    #[test]
    fn the_text_and_the_words_of_a_command_say_the_same() {
        let mut approvals = Approvals::<char>::default();
        for (command, raw, is_in) in [
            (json!(["/bin/echo", "hi there"]), json!("/bin/echo \"hi there\""), true),
            (json!(["/bin/sh", "-lc", "ls | wc"]), json!("ls | wc"), true),
            (json!(["/bin/sh", "-lc", "rm -rf ~", "x"]), json!("rm -rf ~"), false),
            (json!(["rm", "-rf", "/"]), json!("ls"), false),
            (json!(["/bin/echo", "a b"]), json!("/bin/echo a b"), false),
            (json!(null), json!("ls"), false),
            (json!("ls"), json!(null), false),
            (json!([1]), json!(null), false),
        ] {
            let params = json!({"command": command, "rawCommand": raw});
            let outcome = approvals.admit("box", &params, &asker(), NOW);
            assert_eq!(outcome.is_ok(), is_in, "{params}");
        }
        let plan = json!({"command": ["ls"], "systemRunPlan": {"argv": ["rm"]}});
        assert_eq!(code(approvals.admit("box", &plan, &asker(), NOW)), "SYSTEM_RUN_PLAN_MISMATCH");
    }

    // CVE-2026-32065: an approval for one command is used for another.
    #[test]
    fn an_approval_fits_nothing_but_its_own_plan() {
        for changes in [
            json!({"command": ["/usr/bin/echo", "other"]}),
            json!({"command": ["/usr/bin/echo", "hi", "there"]}),
            json!({"cwd": "/tmp"}),
            json!({"sessionKey": "agent:main:other"}),
            json!({"agentId": "other"}),
        ] {
            let outcome = allowed().admit("box", &run(&changes), &asker(), NOW);
            assert_eq!(code(outcome), "APPROVAL_REQUEST_MISMATCH", "{changes}");
        }
        let env = run(&json!({"env": {"LD_PRELOAD": "/tmp/x.so"}}));
        let outcome = allowed().admit("box", &env, &asker(), NOW);
        assert_eq!(code(outcome), "APPROVAL_ENV_MISMATCH");
    }

    // CVE-2026-28463: an approval for one place is used in another.
    #[test]
    fn an_approval_is_bound_to_its_node_its_asker_and_its_time() {
        let params = run(&json!({}));
        let elsewhere = allowed().admit("other", &params, &asker(), NOW);
        assert_eq!(code(elsewhere), "APPROVAL_NODE_MISMATCH");
        let stranger = Asker { device: Some("phone".to_owned()), connection: "c1".to_owned() };
        assert_eq!(
            code(allowed().admit("box", &params, &stranger, NOW)),
            "APPROVAL_DEVICE_MISMATCH"
        );
        let reconnected = Asker { connection: "c2".to_owned(), ..asker() };
        assert!(allowed().admit("box", &params, &reconnected, NOW).is_ok());
        let late = allowed().admit("box", &params, &asker(), NOW + 60_000);
        assert_eq!(code(late), "APPROVAL_EXPIRED");
    }

    #[test]
    fn without_a_device_an_approval_is_bound_to_the_connection() {
        let mut approvals = Approvals::<char>::default();
        let nobody = Asker { device: None, connection: "c1".to_owned() };
        take(&mut approvals, Ask { asker: nobody.clone(), ..ask("a") }).unwrap();
        approvals.decide("a", Decision::AllowOnce, NOW).unwrap();
        let other = Asker { connection: "c2".to_owned(), ..nobody.clone() };
        let params = run(&json!({}));
        assert_eq!(code(approvals.admit("box", &params, &other, NOW)), "APPROVAL_CLIENT_MISMATCH");
        assert!(approvals.admit("box", &params, &nobody, NOW).is_ok());
    }

    #[test]
    fn the_first_decision_counts_and_wakes_those_who_wait() {
        let mut approvals = Approvals::default();
        take(&mut approvals, ask("a")).unwrap();
        assert_eq!(take(&mut approvals, ask("a")), Err(NotAsked::Taken));
        assert_eq!(approvals.wait("a", 'x', NOW), Waited::Kept);
        assert_eq!(approvals.waiting(NOW).len(), 1);
        let (standing, waiters) = approvals.decide("a", Decision::Deny, NOW).unwrap();
        assert_eq!((standing.decision, waiters), (Some(Decision::Deny), vec!['x']));
        assert_eq!(approvals.decide("a", Decision::Deny, NOW), Err(NotDecided::Repeated));
        assert_eq!(approvals.decide("a", Decision::AllowOnce, NOW), Err(NotDecided::Decided));
        assert_eq!(approvals.decide("b", Decision::Deny, NOW), Err(NotDecided::Unknown));
        assert!(approvals.waiting(NOW).is_empty());
        assert!(matches!(approvals.wait("a", 'y', NOW), Waited::Over('y', _)));
        assert_eq!(approvals.wait("b", 'y', NOW), Waited::Unknown('y'));
    }

    #[test]
    fn a_request_that_nobody_decides_ends_and_is_forgotten() {
        let mut approvals = Approvals::default();
        take(&mut approvals, ask("a")).unwrap();
        assert_eq!(approvals.wait("a", 'x', NOW), Waited::Kept);
        assert!(approvals.expire(NOW + 59_999).is_empty());
        let ended = approvals.expire(NOW + 60_000);
        assert!(matches!(ended.as_slice(), [(standing, _)] if standing.has_expired));
        assert_eq!((approvals.is_news("a"), approvals.is_news("a")), (true, false));
        let late = approvals.decide("a", Decision::AllowOnce, NOW + 60_000);
        assert_eq!(late, Err(NotDecided::Unknown));
        approvals.expire(NOW + 60_000 + KEPT_MS);
        assert_eq!(approvals.find("a", NOW), None);
    }

    #[test]
    fn what_was_kept_is_taken_up_within_the_same_bounds() {
        let draft = Approvals::<char>::default().draft(ask("a"), NOW).unwrap();
        let kept = (0..=MAX_RECORDS)
            .map(|number| KeptApproval { id: number.to_string(), ..draft.clone() });
        let approvals = Approvals::<char>::open(kept.collect(), NOW);
        assert_eq!(approvals.waiting(NOW).len(), MAX_RECORDS);
        assert_eq!(approvals.gone(), [MAX_RECORDS.to_string()]);
    }

    #[test]
    fn requests_are_bounded() {
        let mut approvals = Approvals::<char>::default();
        for number in 0..MAX_RECORDS {
            take(&mut approvals, ask(&number.to_string())).unwrap();
        }
        assert_eq!(take(&mut approvals, ask("more")), Err(NotAsked::Full));
        for _ in 0..MAX_WAITERS {
            assert_eq!(approvals.wait("1", 'x', NOW), Waited::Kept);
        }
        assert_eq!(approvals.wait("1", 'x', NOW), Waited::Full('x'));
        approvals.forget_waiters("1", |waiter| *waiter == 'x');
        assert_eq!(approvals.wait("1", 'y', NOW), Waited::Kept, "those who left make room");
        let mut approvals = Approvals::<char>::default();
        let large = |id: &str| Ask { request: "x".repeat(MAX_BYTES / 2 - 10).into(), ..ask(id) };
        take(&mut approvals, large("1")).unwrap();
        take(&mut approvals, large("2")).unwrap();
        assert_eq!(take(&mut approvals, ask("small")), Err(NotAsked::Full), "their bytes");
    }

    /// What a process leaves that ends now.
    fn left<W>(approvals: &Approvals<W>) -> Vec<KeptApproval> {
        approvals.records.values().map(|record| record.kept.clone()).collect()
    }

    #[test]
    fn the_next_process_knows_what_was_asked_decided_and_used() {
        let mut before = allowed();
        for id in ["used", "denied", "waits"] {
            take(&mut before, ask(id)).unwrap();
        }
        before.decide("used", Decision::AllowAlways, NOW).unwrap();
        before.admit("box", &run(&json!({"runId": "used"})), &asker(), NOW).unwrap();
        before.decide("denied", Decision::Deny, NOW).unwrap();
        let kept = left(&before);
        // However long the start took, whoever waited has a while to ask again.
        let later = NOW + 59_000;
        let mut after = Approvals::open(kept, later);
        let waits = after.waiting(later);
        assert_eq!(waits.len(), 1);
        assert_eq!((waits[0].id.as_str(), waits[0].expires_at_ms), ("waits", NOW + 60_000));
        assert_eq!(after.wait("waits", 'x', later), Waited::Kept);
        let Waited::Over('y', denied) = after.wait("denied", 'y', later) else { panic!() };
        assert_eq!(denied.decision, Some(Decision::Deny));
        assert_eq!(after.decide("denied", Decision::AllowOnce, later), Err(NotDecided::Decided));
        let mut runs = |id: &str, changes: Value, at| {
            let mut params = run(&changes);
            params["runId"] = json!(id);
            after.admit("box", &params, &asker(), at).map(|admitted| admitted.used)
        };
        for (id, changes, at, is_code) in [
            ("used", json!({}), later, "APPROVAL_REQUIRED"),
            ("denied", json!({}), later, "APPROVAL_REQUIRED"),
            ("waits", json!({}), later, "APPROVAL_REQUIRED"),
            ("a", json!({"cwd": "/tmp"}), later, "APPROVAL_REQUEST_MISMATCH"),
            ("a", json!({"env": {"A": "b"}}), later, "APPROVAL_ENV_MISMATCH"),
            ("a", json!({}), NOW + 60_000, "APPROVAL_EXPIRED"),
        ] {
            let details = runs(id, changes, at).unwrap_err().details.unwrap();
            assert_eq!(details["code"], is_code, "{id}");
        }
        assert_eq!(runs("a", json!({}), later).unwrap().as_deref(), Some("a"));
        assert!(runs("a", json!({}), later).is_err(), "once");
    }

    #[test]
    fn what_is_forgotten_here_is_known_until_the_store_has_forgotten_it() {
        let mut approvals = allowed();
        take(&mut approvals, ask("b")).unwrap();
        approvals.decide("b", Decision::Deny, NOW).unwrap();
        approvals.expire(NOW + KEPT_MS - 1);
        assert!(approvals.gone().is_empty());
        approvals.expire(NOW + KEPT_MS);
        assert_eq!(approvals.gone(), ["b"]);
        assert_eq!(approvals.gone(), ["b"], "until then");
        approvals.cleared(&["b".to_owned()]);
        assert!(approvals.gone().is_empty());
        let old: Approvals<char> = Approvals::open(left(&approvals), NOW + 60_000 + KEPT_MS);
        assert_eq!((old.find("a", NOW), old.gone()), (None, vec!["a".to_owned()]));
    }

    #[test]
    fn nothing_is_left_of_a_device_or_a_node_that_is_no_more() {
        let mut approvals = allowed();
        approvals.forget(|it| it.node.as_deref() == Some("other"));
        assert!(approvals.find("a", NOW).is_some());
        approvals.forget(|it| it.node.as_deref() == Some("box"));
        assert_eq!(approvals.gone(), ["a"], "the store is told as well");
        let gone = approvals.admit("box", &run(&json!({})), &asker(), NOW);
        assert_eq!(code(gone), "UNKNOWN_APPROVAL_ID");
    }
}
