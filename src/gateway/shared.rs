//! What every connection of one gateway shares.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::task::TaskTracker;

use super::{
    clock::now_ms,
    device_token::Mint,
    dispatch::Dispatcher,
    hub::Hub,
    ingress::Ways,
    methods::Summary,
    news::News,
    nodes::Nodes,
    reload::{Known, Live},
    scrape::Scrapes,
    slots::Slots,
    tailscale::Whois,
    tally::{Levels, Tally},
    throttle::{Culprit, Throttle, Verdict},
    upgrades::Upgrades,
};
use crate::{
    config::{Paths, RateLimit},
    protocol::{GatewayIdentity, Policy, PresenceEntry},
    store::Store,
};

/// How long the outcome of the last look at the database counts for whoever asks, milliseconds.
const LOOK_MS: u64 = 5_000;
/// How long a look at the database may take.
const LOOK: Duration = Duration::from_secs(2);

/// The version that clients are told.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One gateway without its listeners.
pub(super) struct Shared {
    pub(super) paths: Paths,
    pub(super) identity: GatewayIdentity,
    pub(super) policy: Policy,
    pub(super) boot_id: String,
    pub(super) store: Store,
    pub(super) mint: Mint,
    /// Devices that wait for more scopes.
    pub(super) upgrades: Upgrades,
    /// What was read of the configuration, for reading it again; none where nobody does.
    pub(super) known: tokio::sync::Mutex<Option<Known>>,
    /// What has begun and comes to its end without its client.
    pub(super) finishing: TaskTracker,
    /// What waits for the sessions' next turns.
    pub(super) news: News,
    /// How many rights were taken away from devices since the start.
    pub(super) withdrawals: AtomicU64,
    pub(super) hub: Arc<Hub>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) slots: Arc<Slots>,
    pub(super) dispatcher: Dispatcher,
    pub(super) summary: Summary,
    /// Everything that is counted.
    pub(super) tally: Arc<Tally>,
    pub(super) scrapes: Scrapes,
    live: RwLock<Arc<Live>>,
    applied: RwLock<Option<String>>,
    /// Whose word about others counts.
    pub(super) ways: Ways,
    /// Asks Tailscale who somebody is.
    pub(super) whois: Whois,
    /// The origin under which Tailscale publishes this gateway.
    pub(super) served_as: OnceLock<String>,
    throttle: Mutex<Throttle>,
    started: Instant,
    /// When the database was last tried, since the start, milliseconds.
    tried_at: AtomicU64,
    clients: AtomicU64,
}

impl Shared {
    /// A gateway that starts now.
    pub(super) fn new(
        paths: Paths,
        live: Live,
        identity: GatewayIdentity,
        (store, mint): (Store, Mint),
        scrapes: Scrapes,
    ) -> Self {
        let boot_id = uuid::Uuid::new_v4().to_string();
        let hub = Arc::new(Hub::new(own_presence(&boot_id)));
        Self {
            paths,
            identity,
            policy: Policy {
                max_payload: 26_214_400,
                max_buffered_bytes: 52_428_800,
                tick_interval_ms: 30_000,
            },
            boot_id,
            nodes: Arc::new(Nodes::new(store.clone(), Arc::clone(&hub))),
            store,
            mint,
            upgrades: Upgrades::default(),
            known: tokio::sync::Mutex::new(None),
            finishing: TaskTracker::new(),
            news: News::default(),
            withdrawals: AtomicU64::new(0),
            hub,
            slots: Arc::new(Slots::default()),
            dispatcher: Dispatcher::new(),
            summary: Summary::default(),
            tally: Arc::new(Tally::new()),
            scrapes,
            live: RwLock::new(Arc::new(live)),
            applied: RwLock::new(None),
            throttle: Mutex::new(Throttle::new(RateLimit::default())),
            ways: Ways::default(),
            whois: Whois::default(),
            served_as: OnceLock::new(),
            started: Instant::now(),
            tried_at: AtomicU64::new(0),
            clients: AtomicU64::new(0),
        }
    }

    /// What counts now of what may change.
    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets something else count.
    pub(super) fn set_live(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    /// The revision of the configuration that counts; none where nobody follows it.
    pub(super) fn applied(&self) -> Option<String> {
        self.applied.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets another revision count.
    pub(super) fn set_applied(&self, revision: Option<String>) {
        *self.applied.write().unwrap_or_else(PoisonError::into_inner) = revision;
    }

    /// Since the start, milliseconds.
    pub(super) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether what is to last is stored. Tries it where that was not done for a while, so that it is
    /// noticed though nobody stores anything, that a full disk has room again as well; waits 2 s at
    /// most.
    pub(super) async fn is_storing(&self) -> bool {
        let (now, last) = (self.uptime_ms(), self.tried_at.load(Ordering::Relaxed));
        let is_due = now >= last + LOOK_MS;
        let order = Ordering::Relaxed;
        if !is_due || self.tried_at.compare_exchange(last, now, order, order).is_err() {
            return self.store.takes_writes();
        }
        self.store.is_writable_within(LOOK).await
    }

    /// How much there is of everything at this moment.
    pub(super) fn levels(&self) -> Levels {
        let (sockets, waiting) = self.slots.counts();
        Levels {
            clients: self.hub.count() as u64,
            sockets: sockets as u64,
            waiting: waiting as u64,
            uptime: self.started.elapsed(),
        }
    }

    /// A number for the next client's span.
    pub(super) fn next_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a wrong secret.
    pub(super) fn failed(&self, culprit: &Culprit, secret: &str) -> Verdict {
        self.throttle().failed(culprit, secret, Instant::now())
    }

    /// How long nothing of `culprit` is heard any more.
    pub(super) fn shut_out(&self, culprit: &Culprit) -> Option<Duration> {
        self.throttle().shut_out(culprit, Instant::now())
    }

    /// Counts failures by these limits from now on.
    pub(super) fn limit(&self, limit: RateLimit) {
        self.throttle().obey(limit);
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The gateway's own line of presence.
fn own_presence(boot_id: &str) -> PresenceEntry {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.filter(|name| !name.is_empty()).unwrap_or_else(|| "gateway".to_owned());
    PresenceEntry {
        text: Some(format!("Gateway: {host} · {VERSION}")),
        host: Some(host),
        version: Some(VERSION.to_owned()),
        platform: Some(std::env::consts::OS.to_owned()),
        mode: Some("gateway".to_owned()),
        reason: Some("self".to_owned()),
        ts: now_ms(),
        instance_id: Some(boot_id.to_owned()),
        ..PresenceEntry::default()
    }
}
