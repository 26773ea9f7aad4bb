//! Those who watch: the status of the remotes goes to each of them when it changes, and nothing
//! happens here while nobody watches.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::Duration};

use futures_util::future::{FutureExt, select_all};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    net::{UnixStream, unix::OwnedWriteHalf},
    time::{sleep, timeout},
};

use super::{answers::say, lock::locked, remote::Remote, server::Supervisor};
use crate::{
    control::{self, Reply, Watched},
    problem::{Class, Problem},
};

/// Commands that may watch at once.
const WATCHERS_MOST: usize = 32;
/// Changes closer together than this are told as one.
const TOGETHER: Duration = Duration::from_millis(100);
/// Between two looks at what counts itself and tells nobody: bytes and streams.
const LOOK: Duration = Duration::from_secs(1);
/// How long a command may take to read what it is told.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Entries of the history that a watcher is told.
const HISTORY_MOST: usize = 128;
/// By how much the time of a proof may seem to move without a new proof, milliseconds.
const PROOF_BLUR: i64 = 500;

/// Counts a watcher in until it is dropped.
struct Seat<'a>(&'a Supervisor);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.limits.watchers.fetch_sub(1, Relaxed);
    }
}

impl Supervisor {
    /// Tells a command how the remotes are until it goes away or the supervisor ends.
    pub(super) async fn accompany_watcher(&self, stream: UnixStream, name: Option<&str>) {
        let (mut read, mut write) = stream.into_split();
        let Some(_seat) = self.seat() else {
            let problem = Problem::new(Class::Internal, "too many commands watch already");
            return say(&mut write, Reply::Failed(problem)).await;
        };
        let mut last = None;
        let mut byte = [0];
        loop {
            // Listening begins before looking, so that nothing falls between.
            let changes = self.changes();
            match news(last.as_ref(), self.watched(name)) {
                Ok(Some(now)) => {
                    if !tell(&mut write, now.clone()).await {
                        return;
                    }
                    last = Some(now);
                }
                Ok(None) => {}
                Err(problem) => return say(&mut write, Reply::Failed(problem)).await,
            }
            tokio::select! {
                () = changes => {}
                () = sleep(LOOK) => {}
                // A command that watches says nothing more: what can be read is its end.
                _ = read.read(&mut byte) => return,
                // The successor is asked next.
                () = self.ending.cancelled() => return,
                () = self.moved.cancelled() => return,
            }
            sleep(TOGETHER).await;
        }
    }

    fn seat(&self) -> Option<Seat<'_>> {
        let one_more = |watchers: usize| (watchers < WATCHERS_MOST).then_some(watchers + 1);
        let seated = self.limits.watchers.fetch_update(Relaxed, Relaxed, one_more);
        seated.is_ok().then_some(Seat(self))
    }

    /// Ends at the next change of a remote at work, or the next entry of the history.
    fn changes(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut noted = self.book.watch();
        let noted = async move {
            // The book lives as long as the supervisor, which ends us.
            let _closed = noted.changed().await;
        };
        let mut all = vec![noted.boxed()];
        for remote in locked(&self.remotes).values() {
            for mut state in remote.states() {
                state.mark_unchanged();
                all.push(
                    async move {
                        // A lane that ended is replaced by the time of the next look.
                        if state.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                    .boxed(),
                );
            }
        }
        select_all(all).map(|_| ())
    }

    fn watched(&self, name: Option<&str>) -> Result<Watched, Problem> {
        let remotes = self.statuses(name)?;
        let is_meant = |known: &str| name.is_none_or(|name| name == known);
        let round_trips: BTreeMap<String, Vec<f64>> = locked(&self.remotes)
            .iter()
            .filter(|(name, _)| is_meant(name))
            .map(|(name, remote)| (name.clone(), Remote::round_trips(remote)))
            .collect();
        let history = self.book.at_hand(HISTORY_MOST);
        // All of it: a remote may have had another name before.
        let history = history.into_iter().filter_map(|entry| serde_json::to_value(entry).ok());
        let history = history.collect();
        Ok(Watched { remotes, round_trips, history })
    }
}

/// Writes to a command that reads; false once it does not.
async fn tell(write: &mut OwnedWriteHalf, watched: Watched) -> bool {
    let reply = Reply::Watched(watched);
    matches!(timeout(READ_LIMIT, control::write(write, &reply)).await, Ok(Ok(())))
}

/// What to tell whoever knows `last`; an error if there is nothing to begin with.
fn news(last: Option<&Watched>, now: Result<Watched, Problem>) -> Result<Option<Watched>, Problem> {
    let now = match (now, last) {
        (Ok(now), _) => now,
        // A remote that is removed while it is watched is no more to be seen.
        (Err(problem), Some(_)) if problem.class == Class::Usage => Watched::default(),
        // A file that is being edited says nothing of what is at work.
        (Err(_), Some(_)) => return Ok(None),
        (Err(problem), None) => return Err(problem),
    };
    Ok(last.is_none_or(|last| differs(last, &now)).then_some(now))
}

/// Whether anything changed but the age of what was known already.
fn differs(last: &Watched, now: &Watched) -> bool {
    last.round_trips != now.round_trips
        || last.history != now.history
        || last.remotes.len() != now.remotes.len()
        || last.remotes.iter().zip(&now.remotes).any(|(last, now)| is_other(last, now))
}

/// Whether two status objects differ by more than the age of what was known already.
pub(crate) fn is_other(last: &Value, now: &Value) -> bool {
    if is_new_proof(last, now) {
        return true;
    }
    let (mut last, mut now) = (last.clone(), now.clone());
    for object in [&mut last, &mut now] {
        if let Some(proof) = object.pointer_mut("/proof").and_then(Value::as_object_mut) {
            proof.remove("ageMs");
            proof.remove("at");
        }
    }
    last != now
}

/// Whether the proof is another one, by the instant that was worked out from its age.
fn is_new_proof(last: &Value, now: &Value) -> bool {
    let at = |object: &Value| {
        let at = object.pointer("/proof/at")?.as_str()?;
        at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
    };
    match (at(last), at(now)) {
        (Some(last), Some(now)) => last.abs_diff(now) > PROOF_BLUR.unsigned_abs(),
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn watched(phase: &str, at: &str, age: u64) -> Watched {
        let proof = json!({"kind": "gateway", "ageMs": age, "at": at, "rttMs": 11.8});
        let remotes = vec![json!({"name": "vps", "phase": phase, "proof": proof})];
        Watched { remotes, ..Watched::default() }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_removal() {
        let known = watched("live", "2026-11-26T08:00:00.000Z", 100);
        let problem = |class| Err(Problem::new(class, "why"));
        assert_eq!(news(Some(&known), problem(Class::Config)), Ok(None));
        let removed = Watched::default();
        assert_eq!(news(Some(&known), problem(Class::Usage)), Ok(Some(removed.clone())));
        assert_eq!(news(Some(&removed), problem(Class::Usage)), Ok(None));
        assert!(news(None, problem(Class::Config)).is_err());
        assert_eq!(news(Some(&removed), Ok(known.clone())), Ok(Some(known)));
    }

    #[test]
    fn growing_old_is_no_change_and_a_new_proof_is() {
        let at = "2026-11-26T08:00:00.000Z";
        let first = watched("live", at, 100);
        assert!(!differs(&first, &watched("live", "2026-11-26T08:00:00.003Z", 1103)));
        assert!(differs(&first, &watched("live", "2026-11-26T08:01:00.000Z", 40)));
        assert!(differs(&first, &watched("suspect", at, 100)));
        assert!(differs(&first, &Watched::default()));
    }
}
