//! `health` and `status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use tokio::time::sleep;

use super::catalog::{configured, main_session, nameless, projection, roster};
use crate::{
    gateway::{
        Shared, VERSION,
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome, Written, encode, unwritten},
    },
    protocol::{
        AgentBeat, AgentHealth, AgentSessions, AgentsListResult, Health, HealthBeat, HealthMethod,
        HealthParams, Heartbeat, NamelessSession, Plugins, ProcessMemory, SessionDefaults,
        SessionSummary, Status, StatusMethod, StatusParams, StatusSessions,
    },
};

/// How long a summary may be given out before it is taken anew, milliseconds; as long is the
/// configuration as it was.
const FRESH_MS: u64 = 1_000;
/// How often clients are told of health, as by the reference gateway.
const EVERY: Duration = Duration::from_secs(60);

/// The latest health summary as it is written: it is asked for far more often than it changes.
#[derive(Debug)]
pub(in crate::gateway) struct Summary(Mutex<Latest>);

#[derive(Debug)]
struct Latest {
    written: Option<(u64, Arc<RawValue>)>,
    /// What the configuration names.
    agents: Arc<AgentsListResult>,
    /// What it means where nothing is named.
    nameless: NamelessSession,
    /// When that was read for a summary.
    read_at: u64,
}

impl Default for Summary {
    fn default() -> Self {
        let agents = Arc::new(roster(&Value::Null));
        let nameless = nameless(&Value::Null);
        Self(Mutex::new(Latest { written: None, agents, nameless, read_at: 0 }))
    }
}

impl Summary {
    /// The summary, at most a second old, for a frame of its own.
    pub(in crate::gateway) fn owned(&self, shared: &Shared, now_ms: u64) -> Box<RawValue> {
        let text = self.written(shared, now_ms);
        text.map_or_else(|_| RawValue::NULL.to_owned(), |text| (*text).to_owned())
    }

    /// Takes up what the configuration names from now on.
    pub(in crate::gateway) fn know(&self, whole: &Value) {
        let (agents, nameless) = (Arc::new(roster(whole)), nameless(whole));
        let mut latest = self.lock();
        (latest.agents, latest.nameless, latest.written) = (agents, nameless, None);
    }

    /// The agent and the session that are meant where none is named.
    pub(in crate::gateway) fn nameless(&self) -> NamelessSession {
        self.lock().nameless.clone()
    }

    /// What the configuration names.
    fn agents(&self) -> Arc<AgentsListResult> {
        Arc::clone(&self.lock().agents)
    }

    /// Whether the configuration is to be read for a summary of `now_ms`; says so once a second.
    fn is_due(&self, now_ms: u64) -> bool {
        let mut latest = self.lock();
        let is_due = !(latest.read_at..latest.read_at + FRESH_MS).contains(&now_ms);
        if is_due {
            latest.read_at = now_ms;
        }
        is_due
    }

    fn written(&self, shared: &Shared, now_ms: u64) -> serde_json::Result<Arc<RawValue>> {
        let mut latest = self.lock();
        if let Some((since, text)) = &latest.written
            && (*since..since + FRESH_MS).contains(&now_ms)
        {
            return Ok(Arc::clone(text));
        }
        let text: Arc<RawValue> = to_raw_value(&summary(shared, &latest.agents, now_ms))?.into();
        latest.written = Some((now_ms, Arc::clone(&text)));
        Ok(text)
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on_written::<HealthMethod, _>(health);
    dispatcher.on::<StatusMethod, _>(status);
}

/// Looks at how the gateway is and tells every client, once a minute for ever.
pub(in crate::gateway) async fn tell_of_health(shared: Arc<Shared>) {
    loop {
        sleep(EVERY).await;
        look_again(&shared).await;
    }
}

async fn health(call: Call, params: HealthParams) -> Outcome<Written> {
    let Call { shared, .. } = call;
    if params.probe {
        return encode(&look_again(&shared).await).map(Written::Own);
    }
    match shared.summary.written(&shared, now_ms()) {
        Ok(text) => Ok(Written::Shared(text)),
        Err(error) => Err(unwritten(&error)),
    }
}

/// Looks at everything that health is made of, and tells every client.
async fn look_again(shared: &Shared) -> Health {
    if shared.summary.is_due(now_ms()) {
        // A file that is wrong, or cannot be read, changes nothing.
        if let Ok(whole) = configured(&shared.paths).await {
            shared.summary.know(&whole);
        }
        if !shared.store.takes_writes() {
            shared.is_storing().await;
        }
    }
    let health = summary(shared, &shared.summary.agents(), now_ms());
    shared.hub.tell_health(&health);
    health
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
    let agents = shared.summary.agents();
    let ids = || agents.agents.iter().map(|agent| agent.id.clone());
    let beat = |agent_id| AgentBeat { agent_id, ..AgentBeat::default() };
    let sessions = |agent_id| AgentSessions { agent_id, sessions: no_sessions(shared) };
    Ok(Status {
        runtime_version: VERSION.to_owned(),
        pid: std::process::id(),
        uptime_ms: shared.uptime_ms(),
        clients: shared.hub.count() as u64,
        cli_projection,
        heartbeat: Heartbeat {
            default_agent_id: agents.default_id.clone(),
            agents: ids().map(beat).collect(),
        },
        channel_summary: Vec::new(),
        queued_system_events: queued_system_events.unwrap_or_default(),
        sessions: StatusSessions {
            paths: vec![sessions_path(shared)],
            count: 0,
            defaults: SessionDefaults::default(),
            recent: Vec::new(),
            by_agent: ids().map(sessions).collect(),
        },
        process_memory: resident().map(|rss_bytes| ProcessMemory { rss_bytes }),
    })
}

/// How the gateway is, with these agents.
fn summary(shared: &Shared, agents: &AgentsListResult, now_ms: u64) -> Health {
    let rows = agents.agents.iter().map(|agent| AgentHealth {
        agent_id: agent.id.clone(),
        name: agent.name.clone(),
        is_default: agent.id == agents.default_id,
        heartbeat: HealthBeat::default(),
        sessions: no_sessions(shared),
    });
    Health {
        ok: shared.store.takes_writes().then_some(true),
        ts: now_ms,
        duration_ms: 0,
        plugins: Plugins::default(),
        channels: BTreeMap::new(),
        channel_order: Vec::new(),
        channel_labels: BTreeMap::new(),
        default_agent_id: agents.default_id.clone(),
        agents: rows.collect(),
        sessions: no_sessions(shared),
    }
}

/// No chat session is kept yet.
fn no_sessions(shared: &Shared) -> SessionSummary {
    SessionSummary { path: sessions_path(shared), ..SessionSummary::default() }
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
