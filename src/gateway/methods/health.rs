//! `health` and `status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::value::{RawValue, to_raw_value};

use super::catalog::{configured, main_session, projection, roster};
use crate::{
    gateway::{
        Shared, VERSION,
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome, Written, encode, unwritten},
    },
    protocol::{
        Health, HealthMethod, HealthParams, Heartbeat, Plugins, ProcessMemory, SessionDefaults,
        SessionSummary, Status, StatusMethod, StatusParams, StatusSessions,
    },
};

/// The agent that answers where none is named.
const DEFAULT_AGENT: &str = "main";

/// How long a summary may be given out before it is taken anew, milliseconds.
const FRESH_MS: u64 = 1_000;

/// The latest health summary as it is written: it is asked for far more often than it changes.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Summary(Mutex<Option<(u64, Arc<RawValue>)>>);

impl Summary {
    /// The summary, at most a second old, for a frame of its own.
    pub(in crate::gateway) fn owned(&self, shared: &Shared, now_ms: u64) -> Box<RawValue> {
        let text = self.written(shared, now_ms);
        text.map_or_else(|_| RawValue::NULL.to_owned(), |text| (*text).to_owned())
    }

    fn written(&self, shared: &Shared, now_ms: u64) -> serde_json::Result<Arc<RawValue>> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, text)) = &*latest
            && (*since..since + FRESH_MS).contains(&now_ms)
        {
            return Ok(Arc::clone(text));
        }
        let text: Arc<RawValue> = to_raw_value(&summary(shared, now_ms))?.into();
        *latest = Some((now_ms, Arc::clone(&text)));
        Ok(text)
    }
}

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on_written::<HealthMethod, _>(health);
    dispatcher.on::<StatusMethod, _>(status);
}

async fn health(call: Call, params: HealthParams) -> Outcome<Written> {
    let Call { shared, .. } = call;
    if params.probe {
        let health = summary(&shared, now_ms());
        shared.hub.tell_health(&health);
        return encode(&health).map(Written::Own);
    }
    match shared.summary.written(&shared, now_ms()) {
        Ok(text) => Ok(Written::Shared(text)),
        Err(error) => Err(unwritten(&error)),
    }
}

async fn status(call: Call, params: StatusParams) -> Outcome<Status> {
    let shared = &call.shared;
    let whole = if params.include_cli_projection || !shared.news.is_empty() {
        Some(configured(&shared.paths).await?)
    } else {
        None
    };
    let queued_system_events = whole.as_ref().map(|whole| {
        let session = main_session(&roster(whole));
        shared.news.waiting(&session, now_ms())
    });
    let cli_projection = whole.as_ref().filter(|_| params.include_cli_projection).map(projection);
    let path = sessions_path(shared);
    Ok(Status {
        runtime_version: VERSION.to_owned(),
        pid: std::process::id(),
        uptime_ms: shared.uptime_ms(),
        clients: shared.hub.count() as u64,
        cli_projection,
        heartbeat: Heartbeat { default_agent_id: DEFAULT_AGENT.to_owned(), agents: Vec::new() },
        channel_summary: Vec::new(),
        queued_system_events: queued_system_events.unwrap_or_default(),
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

/// How the gateway is.
fn summary(shared: &Shared, now_ms: u64) -> Health {
    Health {
        ok: true,
        ts: now_ms,
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
