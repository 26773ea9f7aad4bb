//! What waits for a node, handed to it: work that is stored before anybody hears of it, and commands
//! that want its foreground.

use super::{
    foreground::Postponed,
    shell::{Nodes, Task, locked},
    work::{Given, Leaving, LeftWork, is_left},
};
use crate::{
    gateway::{clock::now_ms, receipts::Receipts},
    protocol::{ErrorShape, PendingAction, Priority, Work, WorkKind},
    store::Error,
};

/// How long a client should wait when there is no room, milliseconds.
const FULL_RETRY_MS: u64 = 5_000;

impl Nodes {
    /// Leaves a piece of work for a node; at which revision, and the like of it if that waits already.
    pub(in crate::gateway) async fn leave_work(
        &self,
        node: &str,
        kind: WorkKind,
        priority: Priority,
        lasts_ms: Option<u64>,
    ) -> Result<(u64, Work), Box<ErrorShape>> {
        let _turn = self.handing.lock().await;
        let (id, now) = (uuid::Uuid::new_v4().to_string(), now_ms());
        let work = LeftWork::work(id, kind, priority, lasts_ms, now);
        let leaving = locked(&self.work).leave(node, work, now);
        let (left, before) = match leaving {
            Leaving::Known(revision, work) => return Ok((revision, work)),
            Leaving::New(left, before) => (left, before),
            Leaving::Full => {
                return Err(ErrorShape::unavailable("no room for more work", FULL_RETRY_MS).into());
            }
        };
        let stored = self.store.node_work().leave(left.clone(), before, now).await;
        if !stored.map_err(|error| unkept(&error))? {
            return Err(ErrorShape::invalid("unknown nodeId").into());
        }
        let (revision, work) = (left.revision, left.work.clone());
        locked(&self.work).keep(left);
        Ok((revision, work))
    }

    /// Gives a node the work that waits for it, with its revision and whether there is more. Its
    /// answer is the next of the connection's whose arrival matters, if there is any such work.
    pub(in crate::gateway) fn hand_work(
        &self,
        node: &str,
        (member, receipts): (u64, &Receipts),
        most: Option<usize>,
    ) -> (u64, Vec<Work>, bool) {
        let given = Given { connection: member, answer: receipts.coming() };
        let handed = locked(&self.work).give(node, given, most, now_ms());
        if handed.1.iter().any(is_left) {
            receipts.give();
        }
        handed
    }

    /// A node has all of its connection's answers up to `answer`, and so what it was given in them.
    pub(in crate::gateway) async fn has_arrived(&self, node: &str, member: u64, answer: u64) {
        let given = Given { connection: member, answer };
        if locked(&self.work).taken_up(node, given).is_empty() {
            return;
        }
        let _turn = self.handing.lock().await;
        let has = locked(&self.work).taken_up(node, given);
        if has.is_empty() {
            return;
        }
        match self.store.node_work().taken_up(has.clone()).await {
            Ok(()) => locked(&self.work).take_out(node, &has),
            // It is tried again at the node's next drain, or the node is given it once more.
            Err(error) => tracing::warn!(%error, node, "what a node took up was not forgotten"),
        }
    }

    /// Keeps a command until the node's foreground, once for a key; `None` where there is no room.
    pub(in crate::gateway) fn postpone(&self, task: &Task<'_>) -> Option<Postponed> {
        let now = self.time();
        let action = PendingAction {
            id: uuid::Uuid::new_v4().to_string(),
            command: task.command.to_owned(),
            params_json: task.params.clone(),
            enqueued_at_ms: now,
        };
        locked(&self.foreground).postpone(task.node, action, task.repeated(), now)
    }

    /// What became of the key of a command, if it was one that was to wait for the foreground.
    pub(in crate::gateway) fn postponed_before(&self, task: &Task<'_>) -> Option<Postponed> {
        let key = task.repeated()?;
        let asked = (task.command, task.params.as_deref());
        let now = self.time();
        locked(&self.foreground).postponed_before(task.node, asked, &key, now)
    }

    /// The commands that wait for the node's foreground, as far as it may still be given them.
    pub(in crate::gateway) fn postponed(&self, node: &str) -> Vec<PendingAction> {
        let now = self.time();
        let mut actions = locked(&self.foreground).postponed(node, now);
        let live = locked(&self.present).find(node).cloned();
        actions.retain(|action| {
            live.as_ref().is_some_and(|live| {
                let (declared, effective) = (&live.declared.commands, &live.effective.commands);
                self.rules().check(live.platform, &action.command, declared, effective).is_ok()
            })
        });
        actions
    }

    /// The node has done these; how many are left.
    pub(in crate::gateway) fn acknowledged(&self, node: &str, ids: &[String]) -> usize {
        let now = self.time();
        locked(&self.foreground).done(node, ids, now)
    }

    /// Nothing waits any more for a node that is none.
    pub(super) async fn forget_waiting(&self, node: &str) {
        // Who leaves something just now has done so, or finds in the store that there is no such node.
        let turn = self.handing.lock().await;
        locked(&self.work).forget(node);
        locked(&self.foreground).forget(node);
        drop(turn);
        self.forget_approvals(|it| it.node.as_deref() == Some(node)).await;
    }
}

fn unkept(error: &Error) -> ErrorShape {
    tracing::warn!(%error, "work for a node was not stored");
    ErrorShape::unavailable(error.to_string(), FULL_RETRY_MS)
}
