//! `exec.approval.*` and `exec.approvals.node.*`: requests, decisions, and the nodes' own rules.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::nodes::{answered, asker};
use crate::{
    gateway::{
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome, unwritten},
        hub::Member,
        nodes::{Ask, Found, Meant, NotAsked, NotDecided, Standing, Task, Viewer, shown},
    },
    protocol::{
        Decision, Done, ErrorShape, ExecApprovalAccepted, ExecApprovalAnswer, ExecApprovalAsk,
        ExecApprovalAsked, ExecApprovalAwaited, ExecApprovalDecide, ExecApprovalEnded,
        ExecApprovalGet, ExecApprovalGrantRevoked, ExecApprovalGrants, ExecApprovalGrantsList,
        ExecApprovalGrantsListParams, ExecApprovalGrantsRevoke, ExecApprovalGrantsRevokeParams,
        ExecApprovalId, ExecApprovalList, ExecApprovalPending, ExecApprovalRequest,
        ExecApprovalResolve, ExecApprovalResolved, ExecApprovalShown, ExecApprovalWait,
        ExecApprovalsNodeGet, ExecApprovalsNodeSet, ExecApprovalsNodeSetParams, GrantOutcome,
        NoParams, NodeId, RunPlan, event,
    },
    store::Error,
};

/// How long a node may take to tell its rules, milliseconds.
const RULES_TIMEOUT_MS: u64 = 30_000;
/// The longest command that a person is shown, bytes: nobody approves what cannot be read.
const MAX_COMMAND: usize = 64 * 1024;
/// The longest request in all, bytes: each is kept until it is decided.
const MAX_REQUEST: usize = 256 * 1024;
/// How long a client should wait when too many requests are open, milliseconds.
const FULL_RETRY_MS: u64 = 5_000;

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<ExecApprovalRequest, _>(request);
    dispatcher.on::<ExecApprovalGet, _>(get);
    dispatcher.on::<ExecApprovalList, _>(list);
    dispatcher.on::<ExecApprovalWait, _>(wait);
    dispatcher.on_change::<ExecApprovalResolve, _>(resolve);
    dispatcher.on::<ExecApprovalGrantsList, _>(grants);
    dispatcher.on::<ExecApprovalGrantsRevoke, _>(revoke);
    dispatcher.on::<ExecApprovalsNodeGet, _>(node_get);
    dispatcher.on::<ExecApprovalsNodeSet, _>(node_set);
}

async fn request(call: Call, params: ExecApprovalAsk) -> Outcome<ExecApprovalAsked> {
    let is_two_phase = params.two_phase == Some(true);
    let ask = checked(&call, params)?;
    let shared = call.shared.clone();
    // What is on the disk is known here and shown, even if its client goes meanwhile.
    let taken_up = async move {
        let standing = shared.nodes.ask(ask).await?;
        let told = pending(standing.clone());
        let kind = event::EXEC_APPROVAL_REQUESTED;
        shared.hub.tell_those(kind, &told, |member| is_shown_to(member, &standing));
        Ok(standing)
    };
    let taken_up = call.shared.finishing.spawn(taken_up.in_current_span()).await;
    let standing = taken_up
        .map_err(|_| ErrorShape::unavailable("the gateway is stopping", FULL_RETRY_MS))?
        .map_err(|refusal| match refusal {
            NotAsked::Taken => ErrorShape::invalid("approval id already pending"),
            NotAsked::Full => ErrorShape::unavailable("too many approvals wait", FULL_RETRY_MS),
            NotAsked::Unkept(error) => unkept(&error),
        })?;
    let id = standing.id.clone();
    if is_two_phase {
        let member = call.caller.member;
        let is_shown =
            call.shared.hub.has_approver_beside(member, |member| is_shown_to(member, &standing));
        let Standing { id, created_at_ms, expires_at_ms, .. } = standing;
        let delivery_route = if is_shown { "approval-client" } else { "none" };
        return Ok(ExecApprovalAsked::Accepted(ExecApprovalAccepted {
            status: "accepted",
            id,
            delivery_route,
            created_at_ms,
            expires_at_ms,
        }));
    }
    let decided = call.shared.nodes.decision(&id).await?.unwrap_or(standing);
    tell_expired(&call, &decided);
    Ok(ExecApprovalAsked::Answered(answer(decided)))
}

async fn get(call: Call, params: ExecApprovalId) -> Outcome<ExecApprovalShown> {
    let standing = find(&call, &params.id, Meant::Waiting)?;
    let of = |name: &str| standing.request.get(name).cloned().unwrap_or(Value::Null);
    Ok(ExecApprovalShown {
        command_text: of("command"),
        command_preview: of("commandPreview"),
        allowed_decisions: decisions(&standing.request),
        host: of("host"),
        node_id: of("nodeId"),
        agent_id: of("agentId"),
        expires_at_ms: standing.expires_at_ms,
        id: standing.id,
    })
}

async fn list(call: Call, _params: NoParams) -> Outcome<Vec<ExecApprovalPending>> {
    let waiting = call.shared.nodes.undecided(viewer(&call)).into_iter();
    Ok(waiting.map(pending).collect())
}

async fn wait(call: Call, params: ExecApprovalAwaited) -> Outcome<ExecApprovalEnded> {
    let unknown = || ErrorShape::invalid("approval expired or not found");
    let known = call.shared.nodes.known(&params.id);
    known.filter(|standing| standing.is_shown_to(viewer(&call))).ok_or_else(unknown)?;
    let standing = call.shared.nodes.decision(&params.id).await?.ok_or_else(unknown)?;
    tell_expired(&call, &standing);
    let terminal_reason = if standing.decision.is_some() { "user" } else { "timeout" };
    Ok(ExecApprovalEnded { answer: answer(standing), terminal_reason })
}

async fn resolve(call: Call, params: ExecApprovalDecide) -> Outcome<Done> {
    let decision =
        Decision::of(&params.decision).ok_or_else(|| ErrorShape::invalid("invalid decision"))?;
    // Sent again after a lost answer, the beginning of an id must not decide another request.
    let asked = find(&call, &params.id, Meant::WaitingOrDecided)?;
    if asked.is_waiting() && !decisions(&asked.request).contains(&decision) {
        return Err(ErrorShape::invalid("allow-always is unavailable for this command")
            .details(json!({"reason": "APPROVAL_ALLOW_ALWAYS_UNAVAILABLE"}))
            .into());
    }
    let standing = match call.shared.nodes.decide(&asked.id, decision).await {
        Ok(standing) => standing,
        // Nobody hears of it a second time.
        Err(NotDecided::Repeated) => return Ok(Done { ok: true }),
        Err(NotDecided::Unknown) => return Err(not_found().into()),
        Err(NotDecided::Unkept(error)) => return Err(unkept(&error).into()),
        Err(NotDecided::Decided) => {
            return Err(ErrorShape::invalid("approval already resolved")
                .details(json!({"reason": "APPROVAL_ALREADY_RESOLVED"}))
                .into());
        }
    };
    let caller = &call.caller;
    let by = caller.client.display_name.clone().unwrap_or_else(|| caller.client.id.clone());
    let (device, connection) = (caller.device_id.as_deref(), &caller.connection);
    tracing::info!(id = standing.id, by, device, connection, ?decision, "an approval was decided");
    tell_resolved(&call, &standing, Some(by));
    Ok(Done { ok: true })
}

async fn grants(_call: Call, _params: ExecApprovalGrantsListParams) -> Outcome<ExecApprovalGrants> {
    Ok(ExecApprovalGrants::default())
}

async fn revoke(
    _call: Call,
    _params: ExecApprovalGrantsRevokeParams,
) -> Outcome<ExecApprovalGrantRevoked> {
    Ok(ExecApprovalGrantRevoked { outcome: GrantOutcome::NotFound })
}

async fn node_get(call: Call, params: NodeId) -> Outcome<Value> {
    // It alone says what holds where its rules say nothing.
    let is_mac_app = call.shared.nodes.is_mac_app(&params.node_id);
    let wanted = if is_mac_app { json!({"includeResolvedDefaults": true}) } else { json!({}) };
    rules(&call, &params.node_id, "system.execApprovals.get", wanted).await
}

async fn node_set(call: Call, params: ExecApprovalsNodeSetParams) -> Outcome<Value> {
    let change = match (params.file, params.native, params.base_hash) {
        (Some(file), None, Some(base)) => json!({"file": file, "baseHash": base}),
        (Some(file), None, None) => json!({"file": file}),
        // The node's own form has no `file` around it, and the hash stands among its fields.
        (None, Some(mut native), Some(base)) => {
            if let Some(fields) = native.as_object_mut() {
                fields.insert("baseHash".to_owned(), json!(base));
            }
            native
        }
        (None, Some(_), None) => {
            let message = "exec.approvals.node.set wants the baseHash of the native rules; \
                           re-run exec.approvals.node.get and retry";
            return Err(ErrorShape::invalid(message).into());
        }
        (Some(_), Some(_), _) | (None, None, _) => {
            return Err(ErrorShape::invalid("exec.approvals.node.set wants file or native").into());
        }
    };
    rules(&call, &params.node_id, "system.execApprovals.set", change).await
}

/// Asks a node for its rules, or gives it others.
async fn rules(call: &Call, node: &str, command: &str, params: Value) -> Outcome<Value> {
    let task = Task {
        node,
        command,
        params: Some(params.to_string()),
        timeout_ms: Some(RULES_TIMEOUT_MS),
        asker: asker(&call.caller),
        key: None,
        gone: CancellationToken::new(),
    };
    let (payload, _) = answered(call.shared.nodes.run(&task).await?)?;
    let read = payload.map_or(Ok(Value::Null), |payload| serde_json::from_str(payload.get()));
    read.map_err(|error| unwritten(&error))
}

/// The request as it is kept: what it shows is what its plan holds.
fn checked(call: &Call, params: ExecApprovalAsk) -> Outcome<Ask> {
    let ExecApprovalAsk {
        id, command, system_run_plan, env, node_id, host, timeout_ms, rest, ..
    } = params;
    if id.as_ref().is_some_and(|id| id.is_empty() || id.starts_with("plugin:")) {
        return Err(
            ErrorShape::invalid("approval id must not be empty or start with plugin:").into()
        );
    }
    let is_node = host.as_deref() == Some("node");
    let node = node_id.filter(|node| is_node && !node.is_empty());
    let plan = system_run_plan.filter(|_| is_node);
    if is_node {
        let Some(plan) = &plan else {
            return Err(ErrorShape::invalid("systemRunPlan is required for host=node").into());
        };
        check_plan(plan)?;
        if node.is_none() {
            return Err(ErrorShape::invalid("nodeId is required for host=node").into());
        }
    }
    let command = match &plan {
        Some(plan) => plan.command_text.clone(),
        None => command.unwrap_or_default(),
    };
    if command.trim().is_empty() || command.len() > MAX_COMMAND {
        let message = format!("command must have 1 to {MAX_COMMAND} bytes");
        return Err(ErrorShape::invalid(message).into());
    }
    let env = env.unwrap_or_default();
    let of_plan = plan.as_ref().map(|plan| {
        [
            ("commandArgv", json!(plan.argv)),
            ("systemRunPlan", json!(plan)),
            ("commandPreview", json!(plan.command_preview)),
            ("cwd", json!(plan.cwd)),
            ("agentId", json!(plan.agent_id)),
            ("sessionKey", json!(plan.session_key)),
        ]
    });
    let own = [
        ("command", json!(command)),
        ("host", json!(host)),
        ("nodeId", json!(node)),
        ("envKeys", json!(env.keys().collect::<Vec<_>>())),
    ];
    // What is shown is what runs, whatever else the request says under these names.
    let mut request = rest;
    let shown = own.into_iter().chain(of_plan.into_iter().flatten());
    request.extend(shown.map(|(name, value)| (name.to_owned(), value)));
    let mut request = Value::Object(request);
    let allowed = json!(decisions(&request));
    if let Some(fields) = request.as_object_mut() {
        fields.insert("allowedDecisions".to_owned(), allowed);
    }
    let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let env_bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bytes = id.len() + env_bytes + request.to_string().len();
    if bytes > MAX_REQUEST {
        let message = format!("a request for approval must have at most {MAX_REQUEST} bytes");
        return Err(ErrorShape::invalid(message).into());
    }
    let asker = asker(&call.caller);
    Ok(Ask { id, request, node, env, asker, wait_ms: timeout_ms })
}

/// A plan shows the very words that run.
fn check_plan(plan: &RunPlan) -> Outcome<()> {
    let words: Vec<&str> = plan.argv.iter().map(String::as_str).collect();
    if words.first().is_none_or(|word| word.trim().is_empty()) {
        return Err(ErrorShape::invalid("commandArgv is required for host=node").into());
    }
    if plan.command_text != shown(&words) {
        return Err(ErrorShape::invalid("systemRunPlan.commandText does not show its argv").into());
    }
    Ok(())
}

/// What may be decided: nothing for good where each run is asked about, or who asks says so.
fn decisions(request: &Value) -> Vec<Decision> {
    let asks = request.get("ask").and_then(Value::as_str).map(str::trim);
    let unavailable = request.get("unavailableDecisions").and_then(Value::as_array);
    let is_once = asks.is_some_and(|ask| ask.eq_ignore_ascii_case("always"))
        || unavailable.into_iter().flatten().any(|decision| decision == "allow-always");
    match is_once {
        true => vec![Decision::AllowOnce, Decision::Deny],
        false => vec![Decision::AllowOnce, Decision::AllowAlways, Decision::Deny],
    }
}

fn pending(standing: Standing) -> ExecApprovalPending {
    let Standing { id, request, created_at_ms, expires_at_ms, .. } = standing;
    ExecApprovalPending { approval_kind: "exec", id, request, created_at_ms, expires_at_ms }
}

fn answer(standing: Standing) -> ExecApprovalAnswer {
    let Standing { id, decision, created_at_ms, expires_at_ms, .. } = standing;
    ExecApprovalAnswer { id, decision, created_at_ms, expires_at_ms }
}

fn resolved(standing: Standing, by: Option<String>) -> ExecApprovalResolved {
    let Standing { id, request, decision, .. } = standing;
    ExecApprovalResolved { id, decision, resolved_by: by, ts: now_ms(), request }
}

/// Those who may decide learn that it is too late.
fn tell_expired(call: &Call, standing: &Standing) {
    if standing.has_expired && call.shared.nodes.is_news(&standing.id) {
        tell_resolved(call, standing, None);
    }
}

fn tell_resolved(call: &Call, standing: &Standing, by: Option<String>) {
    let told = resolved(standing.clone(), by);
    let kind = event::EXEC_APPROVAL_RESOLVED;
    call.shared.hub.tell_those(kind, &told, |member| is_shown_to(member, standing));
}

/// The request that the caller may see and means, by its id or the beginning of it.
fn find(call: &Call, id: &str, meant: Meant) -> Outcome<Standing> {
    match call.shared.nodes.look_up(id, viewer(call), meant) {
        Found::One(standing) => Ok(standing),
        Found::Nothing => Err(not_found().into()),
        Found::Many => {
            Err(ErrorShape::invalid("ambiguous approval id prefix; use the full id").into())
        }
    }
}

fn viewer(call: &Call) -> Viewer<'_> {
    let caller = &call.caller;
    Viewer {
        scopes: &caller.scopes,
        device: caller.device_id.as_deref(),
        connection: &caller.connection,
    }
}

fn is_shown_to(member: &Member, standing: &Standing) -> bool {
    standing.is_shown_to(Viewer {
        scopes: &member.scopes,
        device: member.device_id.as_deref(),
        connection: &member.connection,
    })
}

fn unkept(error: &Error) -> ErrorShape {
    tracing::warn!(%error, "an approval was not stored");
    ErrorShape::unavailable(error.to_string(), FULL_RETRY_MS)
}

fn not_found() -> ErrorShape {
    ErrorShape::invalid("unknown or expired approval id").details(json!({
        "reason": "APPROVAL_NOT_FOUND",
        "remediation": "Re-request the action; pending approvals end with their time.",
    }))
}
