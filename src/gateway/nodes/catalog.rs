//! Nodes as operators see them: what is stored, who is paired and who is here, in one list.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    book::{Asked, Facts, Record, Surface},
    live::Live,
    published::Runners,
    shell::{Nodes, locked},
};
use crate::protocol::{ApprovalState, NodeEntry, NodeIssue};

/// A device that may come as a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::gateway) struct Paired {
    pub(in crate::gateway) node_id: String,
    pub(in crate::gateway) name: Option<String>,
    pub(in crate::gateway) platform: Option<String>,
    pub(in crate::gateway) approved_at_ms: u64,
}

impl Nodes {
    /// Every node that is paired or here, those that are here first. What waits for a person is
    /// only for those who may decide it; `own`, the device that asks, finds its own request.
    pub(in crate::gateway) async fn list(
        &self,
        paired: Vec<Paired>,
        may_decide: bool,
        own: Option<&str>,
    ) -> Vec<NodeEntry> {
        let paired: BTreeMap<String, Paired> =
            paired.into_iter().map(|device| (device.node_id.clone(), device)).collect();
        let book = self.book.lock().await;
        let present = locked(&self.present);
        let ids: BTreeSet<&String> =
            paired.keys().chain(book.all().map(|record| &record.node_id)).collect();
        let mut nodes: Vec<NodeEntry> = ids
            .into_iter()
            .map(|id| {
                let record = book.find(id).cloned().unwrap_or_default();
                let live = present.find(id);
                let gone_at = present.departed(id).filter(|_| live.is_none());
                let request = record.asked.as_ref().map(|asked| asked.request_id.clone());
                NodeEntry {
                    node_plugin_tools: live.map(|live| self.tools_of(live)),
                    pending_request_id: request.filter(|_| may_decide || own == Some(id.as_str())),
                    ..entry(id, &record, live, paired.get(id), gone_at, may_decide)
                }
            })
            .filter(|node| node.paired || node.connected)
            .collect();
        mark_active(&mut nodes);
        nodes.sort_by_cached_key(|node| {
            let name = node.display_name.as_deref().unwrap_or(&node.node_id).to_lowercase();
            (!node.connected, name, node.node_id.clone())
        });
        nodes
    }
}

/// Marks the node whose machine was used last, of two the one that told it last.
fn mark_active(nodes: &mut [NodeEntry]) {
    let told = nodes.iter_mut().filter(|node| node.last_active_at_ms.is_some());
    if let Some(node) =
        told.max_by_key(|node| (node.last_active_at_ms, node.presence_updated_at_ms))
    {
        node.active = true;
    }
}

fn entry(
    id: &str,
    record: &Record,
    live: Option<&Live>,
    paired: Option<&Paired>,
    gone_at: Option<u64>,
    may_decide: bool,
) -> NodeEntry {
    let facts: &Facts = live.map_or(&record.facts, |live| &live.facts);
    let nothing = Surface::default();
    let approved = record.approved.as_ref();
    let surface = match live {
        Some(live) => &live.effective,
        None => approved.map_or(&nothing, |approved| &approved.surface),
    };
    let asked: Option<&Asked> = record.asked.as_ref();
    let shown = asked.filter(|_| may_decide);
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let connected_at = live.map(|live| live.connected_at_ms);
    let last_seen = connected_at.map(|at| (at, "connect")).max(record.last_seen());
    let runners = live.map(|live| live.published.runners);
    NodeEntry {
        node_id: id.to_owned(),
        display_name: record
            .label
            .clone()
            .or_else(|| paired.and_then(|paired| paired.name.clone()))
            .or_else(|| facts.display_name.clone()),
        platform: some(&facts.platform).or_else(|| paired.and_then(|it| it.platform.clone())),
        version: some(&facts.version),
        client_id: some(&facts.client_id),
        client_mode: some(&facts.client_mode),
        device_family: facts.device_family.clone(),
        model_identifier: facts.model_identifier.clone(),
        remote_ip: facts.remote_ip.clone(),
        caps: surface.caps.iter().cloned().collect(),
        commands: surface.commands.iter().cloned().collect(),
        permissions: (!surface.permissions.is_empty()).then(|| surface.permissions.clone()),
        session_host: match runners {
            Some(runners) => approved.is_some() && runners.slots().is_some(),
            None => record.session_host,
        },
        worker_slots: runners.filter(|_| approved.is_some()).and_then(Runners::slots),
        issues: (runners == Some(Runners::Outdated)).then(|| vec![NodeIssue::outdated()]),
        node_plugin_tools: None,
        last_active_at_ms: live.and_then(|live| Some(live.activity?.last_active_at_ms)),
        presence_updated_at_ms: live.and_then(|live| Some(live.activity?.updated_at_ms)),
        active: false,
        host_stats: live.and_then(|live| live.host_stats.clone()),
        path_env: live.and_then(|live| live.path_env.clone()),
        approval_state: match (approved, asked) {
            (None, Some(_)) => ApprovalState::PendingApproval,
            (Some(_), Some(_)) => ApprovalState::PendingReapproval,
            (Some(_), None) => ApprovalState::Approved,
            (None, None) => ApprovalState::Unapproved,
        },
        pending_request_id: None,
        pending_declared_caps: shown.map(|asked| asked.surface.caps.iter().cloned().collect()),
        pending_declared_commands: shown
            .map(|asked| asked.surface.commands.iter().cloned().collect()),
        pending_declared_permissions: shown
            .map(|asked| asked.surface.permissions.clone())
            .filter(|permissions| !permissions.is_empty()),
        connected_at_ms: connected_at,
        last_connected_at_ms: connected_at.or(record.last_connected_at_ms),
        last_disconnected_at_ms: gone_at,
        last_seen_at_ms: last_seen.map(|(at, _)| at),
        last_seen_reason: last_seen.map(|(_, occasion)| occasion.to_owned()),
        approved_at_ms: approved
            .map(|approved| approved.approved_at_ms)
            .or_else(|| paired.map(|paired| paired.approved_at_ms)),
        paired: paired.is_some(),
        connected: live.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_whose_machine_was_used_last_is_active() {
        let active = |told: &[(Option<u64>, Option<u64>)]| {
            let of = |&(last_active_at_ms, presence_updated_at_ms): &(Option<u64>, Option<u64>)| {
                NodeEntry { last_active_at_ms, presence_updated_at_ms, ..NodeEntry::default() }
            };
            let mut nodes: Vec<NodeEntry> = told.iter().map(of).collect();
            mark_active(&mut nodes);
            let active = nodes.iter().enumerate().filter(|(_, node)| node.active);
            active.map(|(place, _)| place).collect::<Vec<_>>()
        };
        let nothing: [usize; 0] = [];
        assert_eq!(active(&[(None, None), (None, None)]), nothing);
        assert_eq!(active(&[(None, None), (Some(1), Some(9)), (Some(2), Some(3))]), [2]);
        assert_eq!(active(&[(Some(2), Some(4)), (Some(2), Some(3))]), [0]);
    }
}
