//! What nodes tell of themselves once they are here; each word counts for the connection that it
//! came on, and for no other.

use serde_json::Value;

use super::{
    activity::{Activity, Usage},
    live::Live,
    published::Runners,
    shell::{Nodes, locked},
};
use crate::{
    gateway::clock::now_ms,
    protocol::{
        ErrorShape, NodeHostStatsChange, NodeIssue, NodePresenceChange, NodeRunnerInventory,
        NodeRunnersChange, NodeSkill, NodeSkillName, NodeTool, event,
    },
};

/// How long a node that is not approved yet should wait, milliseconds.
const UNAPPROVED_RETRY_MS: u64 = 5_000;

/// What became of a node's word, as its answer says it: whether it counts, and why.
pub(in crate::gateway) type Heard = (bool, &'static str);

const STALE: Heard = (false, "stale_connection");

impl Nodes {
    /// A node tells of its machine, and everybody who may see it hears that.
    pub(in crate::gateway) fn told_stats(&self, node: &str, member: u64, stats: &Value) -> Heard {
        let kept = self.here(node, member, |live| live.host_stats = Some(stats.clone()));
        if kept.is_none() {
            return STALE;
        }
        let change = NodeHostStatsChange { node_id: node, host_stats: stats };
        self.hub.tell(event::NODE_HOST_STATS, &change);
        (true, "updated")
    }

    /// A node tells when its machine was last used, if its owner lets it.
    pub(in crate::gateway) fn told_usage(&self, node: &str, member: u64, usage: Usage) -> Heard {
        let (heard, activity) = match usage {
            Usage::Clear(_) => match self.here(node, member, |live| live.activity.take()) {
                None => return STALE,
                Some(None) => return (true, "already_clear"),
                Some(Some(_)) => ((true, "cleared"), None),
            },
            Usage::Seen(seen) => {
                let told = self.here(node, member, |live| {
                    let may = live.may_tell(seen);
                    may.then(|| {
                        let activity = Activity::after(live.activity, seen, now_ms());
                        *live.activity.insert(activity)
                    })
                });
                match told {
                    None => return STALE,
                    Some(None) => return (false, "permission_required"),
                    Some(activity) => ((true, "updated"), activity),
                }
            }
        };
        let change = NodePresenceChange {
            node_id: node,
            last_active_at_ms: activity.map(|activity| activity.last_active_at_ms),
            presence_updated_at_ms: activity.map(|activity| activity.updated_at_ms),
        };
        self.hub.tell(event::NODE_PRESENCE, &change);
        heard
    }

    /// Everybody who may see it hears that a node takes workers now, or does so no longer.
    pub(super) fn tell_of_runners(&self, node: &str) {
        self.hub.tell(event::NODE_RUNNERS_CHANGED, &NodeRunnersChange { node_id: node });
    }

    /// A node tells of its tools; those that can be called now.
    pub(in crate::gateway) fn told_tools(
        &self,
        node: &str,
        member: u64,
        tools: Vec<NodeTool>,
    ) -> Result<Vec<NodeTool>, Box<ErrorShape>> {
        let taken = self.here(node, member, |live| {
            live.published.take_tools(tools).map(|()| self.tools_of(live))
        });
        taken.ok_or_else(unknown)?.map_err(|flaw| {
            ErrorShape::invalid(format!("invalid node.pluginTools.update params: {flaw}")).into()
        })
    }

    /// A node tells of its skills; what is kept of them.
    pub(in crate::gateway) fn told_skills(
        &self,
        node: &str,
        member: u64,
        skills: Vec<NodeSkill>,
    ) -> Result<Vec<NodeSkill>, Box<ErrorShape>> {
        let are_wanted = !self.rules().without_skills;
        let taken = self.here(node, member, |live| {
            live.published.take_skills(skills).map(|()| live.published.skills().to_vec())
        });
        let kept = taken.ok_or_else(unknown)?.map_err(|flaw| {
            ErrorShape::invalid(format!("invalid node.skills.update params: {flaw}"))
        })?;
        Ok(if are_wanted { kept } else { Vec::new() })
    }

    /// A node says whether it hosts workers. It tries again until what it offers is approved.
    pub(in crate::gateway) async fn told_runners(
        &self,
        node: &str,
        member: u64,
        told: NodeRunnerInventory,
    ) -> Result<(), Box<ErrorShape>> {
        let runners = Runners::read(told)
            .ok_or_else(|| ErrorShape::invalid("invalid node runner inventory"))?;
        let mut book = self.book.lock().await;
        let before = self.here(node, member, |live| {
            let is_host = live.is_host();
            is_host.then(|| std::mem::replace(&mut live.published.runners, runners))
        });
        let before = before.flatten().ok_or_else(unknown)?;
        if before != runners {
            self.tell_of_runners(node);
        }
        if runners == Runners::Outdated {
            let NodeIssue { update_command, headless_reconnect_command, .. } =
                NodeIssue::outdated();
            return Err(ErrorShape::invalid(format!(
                "this node is too old to host workers; on it: {update_command}, then \
                 {headless_reconnect_command}"
            ))
            .into());
        }
        let record = book.find(node).ok_or_else(unknown)?;
        if record.approved.is_none() {
            let next = match &record.asked {
                Some(asked) => format!("openclaw nodes approve {}", asked.request_id),
                None => "openclaw nodes pending".to_owned(),
            };
            let message = format!("what this node offers is not approved yet; {next}");
            return Err(ErrorShape::unavailable(message, UNAPPROVED_RETRY_MS).into());
        }
        match book.hosting(node, runners.slots().is_some()) {
            Some(record) => self.keep(&mut book, record).await,
            None => Ok(()),
        }
    }

    /// A node says that it is alive; whether that was stored.
    pub(in crate::gateway) async fn told_alive(
        &self,
        node: &str,
        occasion: &str,
    ) -> Result<bool, Box<ErrorShape>> {
        let mut book = self.book.lock().await;
        match book.alive(node, occasion, now_ms()) {
            Some(record) => self.keep(&mut book, record).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// The skills of a node that is here, without their content.
    pub(in crate::gateway) fn skills_of(&self, node: &str) -> Vec<NodeSkillName> {
        if self.rules().without_skills {
            return Vec::new();
        }
        let present = locked(&self.present);
        let skills = present.find(node).map(|live| live.published.skills()).unwrap_or_default();
        let named = skills.iter().map(|skill| NodeSkillName {
            name: skill.name.clone(),
            description: skill.description.clone(),
        });
        named.collect()
    }

    /// The tools of a node that can be called.
    pub(super) fn tools_of(&self, live: &Live) -> Vec<NodeTool> {
        let rules = self.rules();
        if rules.without_tools {
            return Vec::new();
        }
        let (declared, effective) = (&live.declared.commands, &live.effective.commands);
        live.published
            .tools(|command| rules.check(live.platform, command, declared, effective).is_ok())
    }

    /// Has `work` done on a node, if it is here on this connection.
    fn here<T>(&self, node: &str, member: u64, work: impl FnOnce(&mut Live) -> T) -> Option<T> {
        let mut present = locked(&self.present);
        present.find_mut(node).filter(|live| live.member == member).map(work)
    }
}

fn unknown() -> ErrorShape {
    ErrorShape::invalid("unknown nodeId")
}
