//! `health` and `status`.

use std::collections::BTreeMap;

use crate::{
    gateway::{
        Shared, VERSION,
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome},
    },
    protocol::{
        Health, HealthMethod, HealthParams, Heartbeat, Plugins, ProcessMemory, SessionDefaults,
        SessionSummary, Status, StatusMethod, StatusParams, StatusSessions,
    },
};

/// The agent that answers where none is named.
const DEFAULT_AGENT: &str = "main";

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<HealthMethod, _>(health);
    dispatcher.on::<StatusMethod, _>(status);
}

async fn health(call: Call, params: HealthParams) -> Outcome<Health> {
    let health = summary(&call.shared);
    if params.probe {
        call.shared.hub.tell_health(&health);
    }
    Ok(health)
}

async fn status(call: Call, _params: StatusParams) -> Outcome<Status> {
    let shared = &call.shared;
    let path = sessions_path(shared);
    Ok(Status {
        runtime_version: VERSION.to_owned(),
        pid: std::process::id(),
        uptime_ms: shared.uptime_ms(),
        clients: shared.hub.count() as u64,
        heartbeat: Heartbeat { default_agent_id: DEFAULT_AGENT.to_owned(), agents: Vec::new() },
        channel_summary: Vec::new(),
        queued_system_events: Vec::new(),
        sessions: StatusSessions {
            paths: vec![path],
            count: 0,
            defaults: SessionDefaults::default(),
            recent: Vec::new(),
            by_agent: Vec::new(),
        },
        process_memory: resident().map(|rss_bytes| ProcessMemory { rss_bytes }),
    })
}

/// How the gateway is, now.
pub(in crate::gateway) fn summary(shared: &Shared) -> Health {
    Health {
        ok: true,
        ts: now_ms(),
        duration_ms: 0,
        plugins: Plugins::default(),
        channels: BTreeMap::new(),
        channel_order: Vec::new(),
        channel_labels: BTreeMap::new(),
        default_agent_id: DEFAULT_AGENT.to_owned(),
        agents: Vec::new(),
        sessions: SessionSummary { path: sessions_path(shared), count: 0, recent: Vec::new() },
    }
}

fn sessions_path(shared: &Shared) -> String {
    shared.paths.own().join("state.sqlite").display().to_string()
}

/// Resident memory of this process in bytes, where the system tells it without a call of its own.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
