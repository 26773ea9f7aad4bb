//! `openclaw.json` and the secrets beside it, read again while the gateway runs.
//!
//! Whoever edits a file, or sends SIGHUP, gets what is safe at once and a line about what waits for
//! the next start. A file that is wrong changes nothing. The files are looked at every two seconds
//! rather than watched by the kernel: they are few, they may be links that somebody turns (a
//! mounted secret), on file systems that tell nothing, and one look is five calls of the system.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::Value;
use tokio::{task::JoinError, time::sleep};

use super::{
    Shared,
    caller::Caller,
    clock::now_ms,
    methods::config_revision,
    outbox::Ending,
    private,
    settings::{Guard, Refusal, Settings},
};
use crate::{
    config::{self, ReloadKind, ReloadMode, Review},
    problem::{Class, Problem},
    protocol::{Reloaded, close, event},
    secret::Secret,
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a file has to stay the same before it is read: editors write in several steps.
const SETTLED: Duration = Duration::from_millis(250);

/// Where the settings come from.
pub(crate) trait Source: Send + Sync + 'static {
    /// Reads files and environment again; changes nothing. Class `config` if they are refused.
    fn read(&self) -> Result<Fresh, Problem>;
    /// Everything in a text that may become the file for which a start would be refused, beside its
    /// issues. Blocks.
    fn refusals(&self, review: &Review) -> Vec<Refusal>;
    /// What was read last counts now: what is not the gateway's own (how much is logged) follows.
    fn adopted(&self);
}

/// What a source has read.
pub(crate) struct Fresh {
    /// The settings.
    pub(crate) settings: Settings,
    /// What stands in the file and in those that it includes.
    pub(crate) whole: Value,
    /// The file's own value.
    pub(crate) own: Value,
    /// `gateway.reload.mode`.
    pub(crate) mode: ReloadMode,
    /// Every file that was read, or would be if it were there.
    pub(crate) files: Vec<PathBuf>,
}

/// Why it is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Somebody asked for it: `SIGHUP`.
    Asked,
    /// A file is another one.
    Changed,
}

/// What was read last, and what of it counts.
pub(super) struct Known {
    source: Arc<dyn Source>,
    running: Settings,
    /// What stood in the file and those that it includes when it was last taken up.
    whole: Value,
    /// The same when nothing of it waited for the next start.
    applied: Value,
    /// What stands in the file, as clients were told of it.
    own: Value,
    files: Vec<PathBuf>,
    seen: Stamps,
}

/// What may change while the gateway runs.
#[derive(Debug, Clone)]
pub(super) struct Live {
    /// What opens the gateway.
    pub(super) guard: Guard,
    /// Origins of web pages that may connect beside its own.
    pub(super) allowed_origins: Vec<String>,
    /// `gateway.nodes.pairing.autoApproveLocal`.
    pub(super) pair_local: Option<bool>,
}

/// What a source held before the gateway listened: whoever edits from then on is noticed.
pub(crate) struct FirstReading {
    source: Arc<dyn Source>,
    whole: Value,
    own: Value,
    files: Vec<PathBuf>,
    seen: Stamps,
}

impl FirstReading {
    /// Reads; class `config` if what is there is refused.
    pub(crate) fn of(source: Arc<dyn Source>) -> Result<Self, Problem> {
        // Which files there are is known only once they were read; what is read after a look at
        // them is not older than the look.
        let seen = looked_at(source.read()?.files);
        let Fresh { whole, own, files, .. } = source.read()?;
        Ok(Self { source, whole, own, files, seen })
    }

    /// What stood in the file and those that it includes.
    pub(super) fn whole(&self) -> &Value {
        &self.whole
    }
}

impl Known {
    /// What the gateway has started with.
    pub(super) fn new(first: FirstReading, running: Settings) -> Self {
        let FirstReading { source, whole, own, files, seen } = first;
        Self { source, running, applied: whole.clone(), whole, own, files, seen }
    }

    /// The revision of what counts.
    pub(super) fn revision(&self) -> Option<String> {
        config_revision(&self.applied).ok()
    }
}

/// Where the settings come from; `None` where nothing is followed.
pub(super) async fn source(shared: &Shared) -> Option<Arc<dyn Source>> {
    shared.known.lock().await.as_ref().map(|known| Arc::clone(&known.source))
}

/// Looks at the files for ever, and takes up what has changed.
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        sleep(LOOK).await;
        let Some((seen, mut now)) = look(&shared).await else { return };
        if now == seen {
            continue;
        }
        loop {
            sleep(SETTLED).await;
            let Some((_, later)) = look(&shared).await else { return };
            if later == now {
                break;
            }
            now = later;
        }
        take_up(&shared, Why::Changed, None).await;
        let mut known = shared.known.lock().await;
        let Some(known) = known.as_mut() else { return };
        // A file that is new among them is looked at for the first time.
        known.seen = looked_at(known.files.clone());
        for (file, stamp) in &mut known.seen {
            if let Some(before) = now.get(file) {
                *stamp = *before;
            }
        }
    }
}

/// Reads everything again and takes up what is safe. `caller` is who wrote the file, and hears the
/// answer before a changed secret ends its connection.
pub(super) async fn take_up(shared: &Arc<Shared>, why: Why, caller: Option<&Caller>) -> Reloaded {
    let mut known = shared.known.lock().await;
    let Some(known) = known.as_mut() else { return Reloaded::default() };
    let read = match read_all(shared, Arc::clone(&known.source)).await {
        Ok(read) => read,
        Err(problem) => return refuse(problem),
    };
    let Fresh { settings, whole, own, mode, files } = read.fresh;
    let changed = config::changed(&known.whole, &whole);
    let is_other = known.own != own;
    (known.own, known.files) = (own, files);
    if is_other {
        tell_changed(shared, &known.own);
    }
    let new = known_guard(settings, read.own_token, &known.running);
    if mode == ReloadMode::Off && why == Why::Changed {
        let is_news = !changed.is_empty()
            || !same_secret(&known.running.guard, &new.guard)
            || read.metrics_token.is_some_and(|token| !shared.scrapes.opens_for(&token));
        return if is_news { refuse(switched_off()) } else { Reloaded::default() };
    }
    known.whole = whole;
    shared.summary.know(&known.whole);
    // What waits since an earlier change still does.
    let since = config::changed(&known.applied, &known.whole);
    if plan(&known.running, &new, since).needs_restart.is_empty() {
        known.applied.clone_from(&known.whole);
    }
    let mut plan = plan(&known.running, &new, changed);
    if read.metrics_token.is_some_and(|token| shared.scrapes.open_for(token)) {
        plan.applied.push("the token of the metrics".to_owned());
    }
    if adopt(shared, &mut known.running, new, caller) {
        withdraw_codes(shared).await;
    }
    known.source.adopted();
    shared.set_applied(known.revision());
    if !plan.applied.is_empty() {
        tracing::info!(applied = plan.applied.join(", "), "the configuration was taken up");
    }
    if !plan.needs_restart.is_empty() {
        tracing::warn!(
            needs_restart = plan.needs_restart.join(", "),
            "a part of the configuration counts from the next start of the gateway on; to start it: openclaw gateway restart"
        );
    }
    plan
}

/// Everything that is read anew.
struct Read {
    fresh: Fresh,
    /// What `rs/gateway-token` holds.
    own_token: Option<Secret>,
    /// What `rs/metrics-token` holds.
    metrics_token: Option<Secret>,
}

async fn read_all(shared: &Shared, source: Arc<dyn Source>) -> Result<Read, Problem> {
    let files = [shared.paths.gateway_token(), shared.paths.metrics_token()];
    let read = tokio::task::spawn_blocking(move || {
        let fresh = source.read()?;
        let [own, metrics] = files.map(|file| private::read(&file));
        let secret = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Secret::new);
        Ok(Read { fresh, own_token: secret(own?), metrics_token: secret(metrics?) })
    });
    read.await.unwrap_or_else(|error| Err(unread(&error)))
}

/// Nobody has read the files: no fault of theirs.
fn unread(error: &JoinError) -> Problem {
    if error.is_cancelled() {
        return Problem::new(Class::Internal, "the gateway is stopping")
            .fix("openclaw gateway start");
    }
    Problem::new(Class::Internal, "a fault of the gateway kept it from reading its files")
        .fix("openclaw gateway restart")
}

/// `gateway.reload.mode` leaves everything for the next start.
fn switched_off() -> Problem {
    let why = "gateway.reload.mode is off: what changed counts from the next start or SIGHUP on";
    Problem::new(Class::Config, why).fix("openclaw gateway restart")
}

/// Says what keeps the configuration from counting, and what to type.
fn refuse(problem: Problem) -> Reloaded {
    let Problem { message: why, fix, .. } = problem;
    // That a file is to be edited is plain; this command tells all that is wrong with it.
    let fix = fix.filter(|fix| !fix.starts_with("edit "));
    let fix = fix.unwrap_or_else(|| "openclaw config validate".to_owned());
    tracing::warn!(why, fix, "the configuration was not taken up; what counted before still does");
    Reloaded { refused: Some(format!("{why}; type: {fix}")), ..Reloaded::default() }
}

/// `settings` with the token that the gateway made for itself where none is configured.
fn known_guard(mut settings: Settings, own_token: Option<Secret>, running: &Settings) -> Settings {
    if matches!(settings.guard, Guard::OwnToken) {
        settings.guard = match (own_token, &running.guard) {
            (Some(token), _) => Guard::Token(token),
            // The file is gone: what it held counts until the next start makes another.
            (None, guard) => guard.clone(),
        };
    }
    settings
}

/// What becomes of a change: `changed` are the paths of the file that are others.
fn plan(running: &Settings, new: &Settings, changed: Vec<String>) -> Reloaded {
    let mut plan = Reloaded::default();
    let waits = !takes_secrets(running, new);
    for path in changed {
        let is_secret =
            path.starts_with("gateway.auth.token") || path.starts_with("gateway.auth.password");
        match config::reload_of(&path) {
            ReloadKind::Hot if is_secret && waits => plan.needs_restart.push(path),
            ReloadKind::Hot => plan.applied.push(path),
            ReloadKind::Restart if differs(&path, running, new) => plan.needs_restart.push(path),
            ReloadKind::Restart | ReloadKind::None => {}
        }
    }
    let is_told = |plan: &Reloaded| {
        plan.applied.iter().chain(&plan.needs_restart).any(|path| path.starts_with("gateway.auth"))
    };
    if !waits && !same_secret(&running.guard, &new.guard) && !is_told(&plan) {
        // A file beside openclaw.json, or the environment.
        plan.applied.push(format!("the gateway's {}", new.guard.mode()));
    }
    plan
}

/// Whether a change at `path` makes the next start another one: a flag may go before the file, and
/// a change may be taken back.
fn differs(path: &str, running: &Settings, new: &Settings) -> bool {
    match path {
        "gateway.port" => running.port != new.port,
        "gateway.bind" | "gateway.customBindHost" => running.listen != new.listen,
        "gateway.auth.mode" => running.guard.mode() != new.guard.mode(),
        path if path.starts_with("gateway.tls.") => running.tls != new.tls,
        _ => true,
    }
}

/// Whether another secret counts at once: where a token stays a token, and a password a password.
fn takes_secrets(running: &Settings, new: &Settings) -> bool {
    matches!(
        (&running.guard, &new.guard),
        (Guard::Token(_), Guard::Token(_)) | (Guard::Password(_), Guard::Password(_))
    )
}

fn same_secret(one: &Guard, other: &Guard) -> bool {
    match (one.secret(), other.secret()) {
        (Some(one), Some(other)) => one.matches(other.expose()),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Makes what is safe of `new` count; the rest stays as it is in `running`. Whether the secret is
/// another one now.
fn adopt(
    shared: &Arc<Shared>,
    running: &mut Settings,
    new: Settings,
    caller: Option<&Caller>,
) -> bool {
    let is_new_secret = takes_secrets(running, &new) && !same_secret(&running.guard, &new.guard);
    if is_new_secret {
        if let Some(secret) = new.guard.secret() {
            running.log.conceal(secret);
        }
        running.guard = new.guard;
    }
    running.allowed_origins = new.allowed_origins;
    running.pair_local = new.pair_local;
    running.node_rules = new.node_rules;
    running.rate_limit = new.rate_limit;
    shared.limit(running.rate_limit);
    shared.nodes.obey(running.node_rules.clone());
    shared.set_live(Live {
        guard: running.guard.clone(),
        allowed_origins: running.allowed_origins.clone(),
        pair_local: running.pair_local,
    });
    if is_new_secret {
        cut_by_secret(shared, caller);
    }
    is_new_secret
}

/// Whoever had the old secret may have made setup codes with it, and they pair whoever shows one.
async fn withdraw_codes(shared: &Shared) {
    match shared.store.devices().withdraw_codes().await {
        Ok(codes) => {
            tracing::info!(codes, "setup codes of before the secret changed are worthless");
        }
        Err(error) => {
            tracing::error!(%error, "setup codes of before the secret changed are still good");
        }
    }
}

/// Ends the connections that the old secret opened, and those that are coming in just now; that of
/// the caller once it has its answer.
fn cut_by_secret(shared: &Shared, caller: Option<&Caller>) {
    shared.withdrawals.fetch_add(1, Ordering::SeqCst);
    let ending = Ending::close(close::RESTART, "the gateway's secret changed; connect again");
    let ended = shared.hub.dismiss(&ending, |number, member| {
        let is_caller = caller.is_some_and(|caller| caller.member == number);
        if member.by_secret
            && is_caller
            && let Some(caller) = caller
        {
            caller.farewell.get_or_init(|| ending.clone());
        }
        member.by_secret && !is_caller
    });
    tracing::info!(ended, "the gateway's secret changed");
}

fn tell_changed(shared: &Shared, own: &Value) {
    match config_revision(own) {
        Ok(hash) => {
            let path = shared.paths.config.display().to_string();
            let change = event::ConfigChange { path, hash, ts: now_ms() };
            shared.hub.tell(event::CONFIG_CHANGED, &change);
        }
        Err(error) => tracing::warn!(error = error.message, "clients were not told"),
    }
}

/// What tells one state of a file from another; `None` without the file.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

type Stamps = BTreeMap<PathBuf, Stamp>;

/// What was seen of the files, and what is to be seen now.
async fn look(shared: &Shared) -> Option<(Stamps, Stamps)> {
    let (seen, files) = {
        let known = shared.known.lock().await;
        let known = known.as_ref()?;
        (known.seen.clone(), known.files.clone())
    };
    let now = tokio::task::spawn_blocking(move || looked_at(files)).await.ok()?;
    Some((seen, now))
}

fn looked_at(files: Vec<PathBuf>) -> Stamps {
    let look = |file: PathBuf| {
        let stamp = stamp(&file);
        (file, stamp)
    };
    files.into_iter().map(look).collect()
}

fn stamp(file: &Path) -> Stamp {
    let of = |facts: Metadata| {
        let (modified, changed) =
            ((facts.mtime(), facts.mtime_nsec()), (facts.ctime(), facts.ctime_nsec()));
        (facts.dev(), facts.ino(), facts.len(), modified, changed)
    };
    std::fs::metadata(file).ok().map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_nobody_could_read_is_not_called_wrong() {
        let stopped = tokio::spawn(std::future::pending::<()>());
        stopped.abort();
        let faulty = tokio::task::spawn_blocking(|| panic!("a fault, as the test wants it"));
        for (error, why, fix) in [
            (stopped.await.unwrap_err(), "is stopping", "gateway start"),
            (faulty.await.unwrap_err(), "a fault of the gateway", "gateway restart"),
        ] {
            let said = refuse(unread(&error)).refused.unwrap();
            assert!(said.contains(why) && said.ends_with(fix), "{said}");
        }
    }
}
