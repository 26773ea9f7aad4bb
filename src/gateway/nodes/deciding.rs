//! Approvals as they are asked for, decided and used: each change is on the disk before anybody hears
//! of it, and before a command goes to its node.

use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;

use super::{
    approvals::{Ask, Found, Meant, NotAsked, NotDecided, Standing, Viewer, Waited},
    live::Live,
    shell::{BUSY_RETRY_MS, Nodes, locked},
};
use crate::{
    protocol::{Decision, ErrorShape},
    store::KeptApproval,
};

impl Nodes {
    /// Takes up a request for approval.
    pub(in crate::gateway) async fn ask(&self, ask: Ask) -> Result<Standing, NotAsked> {
        let _turn = self.deciding.lock().await;
        let now = self.time();
        let (kept, gone) = {
            let mut approvals = locked(&self.approvals);
            wake(approvals.expire(now));
            (approvals.draft(ask, now)?, approvals.gone())
        };
        let stored = self.store.approvals().keep(kept.clone(), gone.clone()).await;
        stored.map_err(NotAsked::Unkept)?;
        let mut approvals = locked(&self.approvals);
        approvals.cleared(&gone);
        Ok(approvals.keep(kept, now))
    }

    /// Waits until a request is decided or expires; `None` if it is not known, an error where too
    /// many wait already.
    pub(in crate::gateway) async fn decision(
        &self,
        id: &str,
    ) -> Result<Option<Standing>, Box<ErrorShape>> {
        let now = self.time();
        let (sender, receiver) = oneshot::channel();
        let left = {
            let mut approvals = locked(&self.approvals);
            approvals.forget_waiters(id, oneshot::Sender::is_closed);
            match approvals.wait(id, sender, now) {
                Waited::Kept => {}
                Waited::Over(_, standing) => return Ok(Some(standing)),
                Waited::Unknown(_) => return Ok(None),
                Waited::Full(_) => {
                    let message = "too many wait for this decision";
                    return Err(ErrorShape::unavailable(message, BUSY_RETRY_MS).into());
                }
            }
            let until = approvals.find(id, now).map_or(now, |standing| standing.expires_at_ms);
            Duration::from_millis(until.saturating_sub(now))
        };
        if let Ok(Ok(standing)) = tokio::time::timeout(left, receiver).await {
            return Ok(Some(standing));
        }
        let now = self.time();
        let mut approvals = locked(&self.approvals);
        let standing = approvals.find(id, now);
        wake(approvals.expire(now));
        Ok(standing)
    }

    /// Whether it is news that this request has expired; once.
    pub(in crate::gateway) fn is_news(&self, id: &str) -> bool {
        locked(&self.approvals).is_news(id)
    }

    /// Whether OpenClaw's program for macOS is here as this node.
    pub(in crate::gateway) fn is_mac_app(&self, node: &str) -> bool {
        locked(&self.present).find(node).is_some_and(Live::is_mac_app)
    }

    /// Those that wait for a decision and are shown to this one.
    pub(in crate::gateway) fn undecided(&self, viewer: Viewer<'_>) -> Vec<Standing> {
        let now = self.time();
        locked(&self.approvals).waiting(viewer, now)
    }

    /// One that can still be asked about, whether it waits for a decision or not.
    pub(in crate::gateway) fn known(&self, id: &str) -> Option<Standing> {
        let now = self.time();
        locked(&self.approvals).find(id, now)
    }

    /// The one with this id that is meant and shown to this one, or the only one whose id begins so.
    pub(in crate::gateway) fn look_up(&self, id: &str, viewer: Viewer<'_>, meant: Meant) -> Found {
        let now = self.time();
        locked(&self.approvals).look_up(id, viewer, meant, now)
    }

    /// Decides.
    pub(in crate::gateway) async fn decide(
        &self,
        id: &str,
        decision: Decision,
    ) -> Result<Standing, NotDecided> {
        let _turn = self.deciding.lock().await;
        let now = self.time();
        locked(&self.approvals).check(id, decision, now)?;
        let stored = self.store.approvals().decide(id, decision, now).await;
        if !stored.map_err(NotDecided::Unkept)? {
            // It went with its device or its node. What does not wait there for a decision does not
            // wait here either.
            locked(&self.approvals).forget(|it| it.id == id);
            return Err(NotDecided::Unknown);
        }
        let (standing, waiters) = locked(&self.approvals).decide(id, decision, now)?;
        wake(vec![(standing.clone(), waiters)]);
        Ok(standing)
    }

    /// Uses up what was decided, for the one run that is about to begin.
    pub(super) async fn use_up(&self, id: &str) -> Result<(), Box<ErrorShape>> {
        let now = self.time();
        match self.store.approvals().use_up(id, now).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ErrorShape::invalid("approval required")
                .details(json!({ "code": "APPROVAL_REQUIRED", "runId": id }))
                .into()),
            Err(error) => {
                tracing::warn!(%error, id, "the use of an approval was not stored");
                locked(&self.approvals).give_back(id);
                Err(ErrorShape::unavailable(error.to_string(), BUSY_RETRY_MS).into())
            }
        }
    }

    /// Nothing is left of what a device asked for that may not ask any more.
    pub(in crate::gateway) async fn forget_asker(&self, device: &str) {
        self.forget_approvals(|it| it.device.as_deref() == Some(device)).await;
    }

    /// Forgets approvals, whether they were stored before their device or node went or just now.
    pub(super) async fn forget_approvals(&self, is_gone: impl Fn(&KeptApproval) -> bool) {
        let _turn = self.deciding.lock().await;
        let gone = {
            let mut approvals = locked(&self.approvals);
            approvals.forget(is_gone);
            approvals.gone()
        };
        if gone.is_empty() {
            return;
        }
        match self.store.approvals().forget(gone.clone()).await {
            Ok(()) => locked(&self.approvals).cleared(&gone),
            // They are no more here, and the store is asked again with the next request.
            Err(error) => tracing::warn!(%error, "approvals were not forgotten"),
        }
    }
}

pub(super) fn wake(ended: Vec<(Standing, Vec<oneshot::Sender<Standing>>)>) {
    for (standing, waiters) in ended {
        for waiter in waiters {
            drop(waiter.send(standing.clone()));
        }
    }
}
