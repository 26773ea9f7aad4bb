//! The nodes of one gateway: the machines behind their locks, and the waits of those who ask.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{sync::oneshot, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    approvals::{Admitted, Approvals, Asker, Standing},
    book::{Book, Facts, Record, Surface},
    foreground::Foreground,
    invocations::{Begun, Invocations, Key, Order, Outcome, Over, Told},
    live::{Live, Present},
    policy::{Denied, Platform, Rules},
    published::Published,
    work::LeftWork,
};
use crate::{
    gateway::{
        clock::{SteadyClock, now_ms},
        hub::Hub,
        outbox::Outbox,
    },
    problem::{Class, Problem},
    protocol::{Connect, ErrorShape, NodeInvokeCancel, NodeInvokeRequest, code, event},
    store::{Error, Store},
};

/// How long a command may take if nobody said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a command may take.
const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long to wait before a node that was not ready is asked again, and how often.
const READINESS_PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// How long a caller should wait when too much is under way, milliseconds.
pub(super) const BUSY_RETRY_MS: u64 = 500;

/// The nodes of one gateway.
pub(in crate::gateway) struct Nodes {
    pub(super) store: Store,
    /// Those who hear of changes.
    pub(super) hub: Arc<Hub>,
    rules: RwLock<Rules>,
    pub(super) book: tokio::sync::Mutex<Book>,
    pub(super) present: Mutex<Present>,
    invocations: Mutex<Invocations<Waiter>>,
    /// Held by who changes what is left for nodes, in the store and here.
    pub(super) handing: tokio::sync::Mutex<()>,
    pub(super) work: Mutex<LeftWork>,
    pub(super) foreground: Mutex<Foreground>,
    /// Held by who changes approvals, in the store and here.
    pub(super) deciding: tokio::sync::Mutex<()>,
    pub(super) approvals: Mutex<Approvals<oneshot::Sender<Standing>>>,
    /// The clock of approvals, and of what waits for a foreground.
    clock: Mutex<SteadyClock>,
}

/// A node that has been let in and not been told so yet.
#[derive(Debug)]
pub(in crate::gateway) struct Arriving {
    pub(super) node: String,
    pub(super) facts: Facts,
    pub(super) platform: Platform,
    pub(super) declared: Surface,
    pub(super) path_env: Option<String>,
}

/// A node's place among those that are here; leaves when dropped.
pub(in crate::gateway) struct Seat {
    nodes: Arc<Nodes>,
    node: String,
    member: u64,
}

/// A command that somebody wants to run on a node.
#[derive(Debug)]
pub(in crate::gateway) struct Task<'a> {
    pub(in crate::gateway) node: &'a str,
    pub(in crate::gateway) command: &'a str,
    /// Its parameters as JSON text.
    pub(in crate::gateway) params: Option<String>,
    pub(in crate::gateway) timeout_ms: Option<u64>,
    /// Who wants it, for approvals and repeated keys.
    pub(in crate::gateway) asker: Asker,
    pub(in crate::gateway) key: Option<String>,
    /// Cancelled when nobody is there any longer who would hear the outcome.
    pub(in crate::gateway) gone: CancellationToken,
}

/// Who waits for an outcome.
#[derive(Debug)]
pub(super) struct Waiter {
    sender: oneshot::Sender<Outcome>,
    gone: CancellationToken,
}

/// A command's parameters as they may go out, as JSON text.
#[derive(Debug)]
pub(super) struct Params(Option<String>);

/// What became of a command that was to be sent.
#[derive(Debug)]
pub(super) enum Started {
    /// It is on its way.
    Sent(Params),
    /// The same was on its way already.
    Joined,
    /// The same has ended so before.
    Known(Outcome),
}

/// Looks for what nobody waits for once its own wait is over, however that ended.
struct Leaving<'a>(&'a Nodes);

impl Nodes {
    /// No nodes yet; [`Self::load`] brings those that `store` knows.
    pub(in crate::gateway) fn new(store: Store, hub: Arc<Hub>) -> Self {
        Self {
            store,
            hub,
            rules: RwLock::default(),
            book: tokio::sync::Mutex::default(),
            present: Mutex::default(),
            invocations: Mutex::default(),
            handing: tokio::sync::Mutex::default(),
            work: Mutex::default(),
            foreground: Mutex::default(),
            deciding: tokio::sync::Mutex::default(),
            approvals: Mutex::default(),
            clock: Mutex::default(),
        }
    }

    /// Brings in what is stored; class `config` if it cannot be read.
    pub(in crate::gateway) async fn load(&self) -> Result<(), Problem> {
        let unread = |error: Error| {
            Problem::new(Class::Config, format!("the nodes cannot be read: {error}"))
                .fix("openclaw doctor")
        };
        let records: Vec<Record> = self.store.nodes().all().await.map_err(unread)?;
        let left = self.store.node_work().all(now_ms()).await.map_err(unread)?;
        let now = self.time();
        let kept = self.store.approvals().all(now).await.map_err(unread)?;
        *locked(&self.approvals) = Approvals::open(kept, now);
        *self.book.lock().await = Book::open(records);
        *locked(&self.work) = LeftWork::open(left);
        // What ended while no gateway ran.
        self.forget_approvals(|_| false).await;
        Ok(())
    }

    /// Which commands may run from now on; what may not any longer is stopped.
    pub(in crate::gateway) fn obey(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        let mut invocations = locked(&self.invocations);
        let is_allowed = |order: &Order| {
            let live = locked(&self.present).find(&order.node).cloned();
            live.is_none_or(|live| self.check(&live, &order.command).is_ok())
        };
        self.finish(invocations.forbid(is_allowed, now()));
    }

    /// The time by which approvals and waits for a foreground end, milliseconds since 1970.
    pub(super) fn time(&self) -> u64 {
        locked(&self.clock).read(now(), now_ms())
    }

    pub(super) fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `connect` of the paired device `node` says of the node.
    pub(super) fn said(&self, connect: &Connect, remote_ip: Option<String>) -> (Facts, Surface) {
        let client = &connect.client;
        let (system, family) = client.machine();
        let platform = Platform::of(system, family);
        let permissions = connect.permissions.as_ref().and_then(Value::as_object);
        let surface = Surface {
            caps: connect.caps.iter().map(|cap| cap.trim().to_owned()).collect(),
            commands: self.rules().declarable(platform, connect.commands.iter().flatten()),
            permissions: permissions
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), value.as_bool()?)))
                .collect(),
        };
        let facts = Facts {
            display_name: client.display_name.clone(),
            platform: system.to_owned(),
            version: client.version.clone(),
            client_id: client.id.clone(),
            client_mode: client.mode.clone(),
            device_family: family.map(str::to_owned),
            model_identifier: client.model_identifier.clone(),
            remote_ip,
        };
        (facts, surface)
    }

    /// Seats a node once its `hello-ok` is queued, with what of it is approved by then; `None` if
    /// it was removed meanwhile.
    pub(in crate::gateway) async fn seat(
        self: &Arc<Self>,
        arriving: Arriving,
        member: u64,
        outbox: Arc<Outbox>,
    ) -> Option<Seat> {
        let Arriving { node, facts, platform, declared, path_env } = arriving;
        // Held until the node is seated: an approval comes before, or finds it here.
        let book = self.book.lock().await;
        let effective = book.find(&node)?.effective(&declared);
        let live = Live {
            member,
            outbox,
            facts,
            platform,
            declared,
            effective,
            path_env,
            connected_at_ms: now_ms(),
            activity: None,
            host_stats: None,
            published: Published::default(),
        };
        let before = locked(&self.present).arrive(&node, live);
        drop(book);
        tracing::info!(node, replaced = before.is_some(), "a node connected");
        Some(Seat { nodes: Arc::clone(self), node, member })
    }

    /// Runs a command and waits for its outcome; an error frame where it never ran. Whoever stops
    /// waiting, or goes, has it stopped, unless somebody else waits for the same.
    pub(in crate::gateway) async fn run(
        &self,
        task: &Task<'_>,
    ) -> Result<Outcome, Box<ErrorShape>> {
        let timeout = task.timeout_ms.filter(|timeout| *timeout > 0);
        let timeout = timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis).min(MAX_TIMEOUT);
        let deadline = now() + timeout;
        let live = self.reach(task)?;
        let (mut admitted, mut pauses) = (None, READINESS_PAUSES.into_iter());
        loop {
            let _leaving = Leaving(self);
            let (waiter, receiver) = Waiter::new(task.gone.clone());
            let params = match self.start(&live, task, admitted, deadline, waiter).await? {
                Started::Sent(params) => Some(params),
                Started::Joined => None,
                Started::Known(outcome) => return Ok(outcome),
            };
            let outcome = self.outcome(receiver, deadline, &task.gone).await?;
            // Whoever joined asks again: what was approved for the other was not for it.
            let (true, Some(params), Some(pause)) = (outcome.is_not_ready(), params, pauses.next())
            else {
                return Ok(outcome);
            };
            admitted = Some(params);
            tokio::select! {
                () = sleep_until((now() + pause).min(deadline).into()) => {}
                () = task.gone.cancelled() => return Ok(Outcome::aborted()),
            }
            if deadline <= now() {
                return Ok(Outcome::timed_out());
            }
            if self.reach(task)?.member != live.member {
                let message = "the node connected anew before it was ready";
                return Err(ErrorShape::unavailable(message, BUSY_RETRY_MS)
                    .details(json!({"code": "ROUTE_CHANGED"}))
                    .into());
            }
        }
    }

    /// The node of a task, if it is here and may be given the command.
    fn reach(&self, task: &Task<'_>) -> Result<Live, Box<ErrorShape>> {
        let live = locked(&self.present).find(task.node).cloned().ok_or_else(not_connected)?;
        self.check(&live, task.command).map_err(|denied| {
            ErrorShape::invalid(denied.message(task.command, &live.facts.platform))
                .details(json!({"reason": denied.reason(), "command": task.command}))
        })?;
        Ok(live)
    }

    fn check(&self, live: &Live, command: &str) -> Result<(), Denied> {
        let (declared, effective) = (&live.declared.commands, &live.effective.commands);
        self.rules().check(live.platform, command, declared, effective)
    }

    /// Waits for an outcome until the deadline, and says once that nobody is there who wants it.
    async fn outcome(
        &self,
        mut receiver: oneshot::Receiver<Outcome>,
        deadline: Instant,
        gone: &CancellationToken,
    ) -> Result<Outcome, Box<ErrorShape>> {
        let mut has_gone = false;
        loop {
            tokio::select! {
                told = &mut receiver => return told.map_err(|_| {
                    ErrorShape::unavailable("the command was given up", BUSY_RETRY_MS).into()
                }),
                () = gone.cancelled(), if !has_gone => {
                    has_gone = true;
                    self.give_up();
                }
                () = sleep_until(deadline.into()) => {
                    self.finish(locked(&self.invocations).due(now()));
                    return Ok(Outcome::timed_out());
                }
            }
        }
    }

    /// Sends a command out, with the parameters `admitted` where it was let through before. What uses
    /// up an approval goes once that is on the disk.
    pub(super) async fn start(
        &self,
        live: &Live,
        task: &Task<'_>,
        admitted: Option<Params>,
        deadline: Instant,
        waiter: Waiter,
    ) -> Result<Started, Box<ErrorShape>> {
        let program = if admitted.is_none() { program_of(task)? } else { None };
        let id = uuid::Uuid::new_v4().to_string();
        let order = Order {
            id: id.clone(),
            node: task.node.to_owned(),
            connection: live.member,
            command: task.command.to_owned(),
            deadline,
            key: task.repeated(),
        };
        let program = {
            let mut invocations = locked(&self.invocations);
            // Some of those who asked have gone, and nobody else watches the time of what they wanted.
            self.finish(invocations.due(now()));
            match invocations.begin(order.clone(), waiter, now()) {
                Begun::Started => {}
                Begun::Joined => return Ok(Started::Joined),
                Begun::Known(_, outcome) => return Ok(Started::Known(outcome)),
                Begun::Taken(_) => {
                    return Err(key_taken().into());
                }
                Begun::Full(_) => {
                    let message = "too many commands are under way";
                    return Err(ErrorShape::unavailable(message, BUSY_RETRY_MS).into());
                }
            }
            // A node that left a moment ago has had its orders ended before there was this one.
            let is_here =
                locked(&self.present).find(task.node).is_some_and(|now| now.member == live.member);
            let program =
                if is_here { self.admitted(task, program) } else { Err(not_connected().into()) };
            program.inspect_err(|_| invocations.abandon(&id))?
        };
        // Parameters may be long: nobody waits while they are read or written.
        let (program, used) = program.map(|it| (it.params, it.used)).unzip();
        let Params(params_json) = admitted.unwrap_or_else(|| {
            Params(program.map(|params| params.to_string()).or_else(|| task.params.clone()))
        });
        if let Some(approval) = used.flatten() {
            let noted = self.use_up(&approval).await;
            noted.inspect_err(|_| locked(&self.invocations).abandon(&id))?;
            if !locked(&self.invocations).is_running(&id) || deadline <= now() {
                // Whoever waits has heard why, or hears that its time is over.
                return Ok(Started::Sent(Params(params_json)));
            }
        }
        let left = deadline.saturating_duration_since(now());
        let request = NodeInvokeRequest {
            id,
            node_id: task.node.to_owned(),
            command: task.command.to_owned(),
            params_json,
            timeout_ms: u64::try_from(left.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX),
            idempotency_key: task.key.clone(),
        };
        live.outbox.event(event::NODE_INVOKE_REQUEST, &json!(request).to_string(), None);
        if !locked(&self.invocations).is_running(&request.id) {
            // It was given up while it was written, and what says so may have gone ahead of it.
            self.cancel(&order);
        }
        Ok(Started::Sent(Params(request.params_json)))
    }

    /// Stops what nobody waits for any longer.
    fn give_up(&self) {
        let has_gone = |waiter: &Waiter| waiter.gone.is_cancelled() || waiter.sender.is_closed();
        let can_be_stopped = |order: &Order| {
            let present = locked(&self.present);
            let live = present.find(&order.node).filter(|live| live.member == order.connection);
            live.is_none_or(Live::is_host)
        };
        self.finish(locked(&self.invocations).unwanted(has_gone, can_be_stopped, now()));
    }

    /// Tells those who wait that it is over, and the nodes to stop.
    fn finish(&self, over: Over<Waiter>) {
        tell(over.told);
        over.stopped.iter().for_each(|order| self.cancel(order));
    }

    /// Tells a node to stop a command, if it is one of those that can.
    fn cancel(&self, order: &Order) {
        let present = locked(&self.present);
        let live = present.find(&order.node).filter(|live| live.member == order.connection);
        if let Some(live) = live.filter(|live| live.is_host()) {
            let cancel = NodeInvokeCancel { invoke_id: &order.id, node_id: &order.node };
            live.outbox.event(event::NODE_INVOKE_CANCEL, &json!(cancel).to_string(), None);
        }
    }

    /// The parameters of a program that runs as they may go out; `None` for other commands, whose
    /// parameters go out as they are.
    fn admitted(
        &self,
        task: &Task<'_>,
        program: Option<Value>,
    ) -> Result<Option<Admitted>, Box<ErrorShape>> {
        let Some(params) = program else { return Ok(None) };
        let now = self.time();
        locked(&self.approvals).admit(task.node, &params, &task.asker, now).map(Some)
    }

    /// A node says how a command ended; false if it is late.
    pub(in crate::gateway) fn ended(
        &self,
        id: &str,
        node: &str,
        member: u64,
        outcome: &Outcome,
    ) -> bool {
        let told = locked(&self.invocations).result(id, node, member, outcome, now());
        told.map(tell).is_some()
    }

    /// A node says how far a command is; false if it is late.
    pub(in crate::gateway) fn progressed(
        &self,
        id: &str,
        node: &str,
        member: u64,
        number: u64,
    ) -> bool {
        locked(&self.invocations).progress(id, node, member, number)
    }

    /// The gateway stops: nobody waits any longer.
    pub(in crate::gateway) fn stop(&self) {
        self.finish(locked(&self.invocations).stop(now()));
    }

    /// Whether a node wants its foreground for what `outcome` refused.
    pub(in crate::gateway) fn wants_foreground(
        &self,
        node: &str,
        command: &str,
        outcome: &Outcome,
    ) -> bool {
        let Outcome::Failed { code, .. } = outcome else { return false };
        let is_personal = ["camera.", "screen.", "talk."].iter().any(|it| command.starts_with(it));
        let is_ios =
            locked(&self.present).find(node).is_some_and(|live| live.platform == Platform::Ios);
        is_ios && is_personal && code.as_deref() == Some("NODE_BACKGROUND_UNAVAILABLE")
    }

    /// Keeps every command from beginning until it is dropped.
    #[cfg(test)]
    pub(super) fn hold_commands(&self) -> impl Sized + '_ {
        locked(&self.invocations)
    }

    /// Keeps everybody from the nodes' records until it is dropped, as a slow disk does.
    #[cfg(test)]
    pub(in crate::gateway) async fn busy(&self) -> impl Sized + '_ {
        self.book.lock().await
    }
}

impl Task<'_> {
    /// What tells a repetition.
    pub(super) fn repeated(&self) -> Option<Key> {
        // Whoever has the gateway's secret is one caller, on whatever connection.
        let caller = self.asker.device.clone().unwrap_or_default();
        self.key.clone().map(|key| Key { caller, key })
    }
}

impl Waiter {
    /// Somebody who has gone once `gone` is cancelled, and where the outcome comes.
    pub(super) fn new(gone: CancellationToken) -> (Self, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, gone }, receiver)
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut present = locked(&self.nodes.present);
        let took_workers = present.find(&self.node).is_some_and(Live::takes_workers);
        let was_current = present.leave(&self.node, self.member, now_ms());
        drop(present);
        if was_current && took_workers {
            self.nodes.tell_of_runners(&self.node);
        }
        tell(locked(&self.nodes.invocations).gone(self.member, now()));
        tracing::info!(node = self.node, was_current, "a node left");
    }
}

/// The parameters of a program that is to run, read; `None` for other commands.
fn program_of(task: &Task<'_>) -> Result<Option<Value>, Box<ErrorShape>> {
    let params = task.params.as_ref().filter(|_| task.command == "system.run");
    let read = params.map(|params| serde_json::from_str(params)).transpose();
    Ok(read.map_err(|error| ErrorShape::invalid(format!("invalid node.invoke params: {error}")))?)
}

/// The error of a key that stands for something else.
pub(in crate::gateway) fn key_taken() -> ErrorShape {
    ErrorShape::invalid("the idempotency key was used for another command")
}

/// The error of a node that is away.
fn not_connected() -> ErrorShape {
    ErrorShape::new(code::UNAVAILABLE, "node not connected").details(json!({
        "code": "NOT_CONNECTED", "nodeCommandDispatched": false,
        "nodeError": {"code": "NOT_CONNECTED", "message": "node not connected"},
    }))
}

/// Tells those who wait; who has stopped waiting misses nothing.
fn tell(told: Told<Waiter>) {
    for (waiter, outcome) in told {
        drop(waiter.sender.send(outcome));
    }
}

/// The clock by which the runtime wakes, which a test may stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A lock that no panic closes: each machine is whole between two calls.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
