//! What nodes offer and people approve: each change is stored before anybody hears of it.

use serde_json::json;

use super::{
    book::{Asked, Book, Facts, Record, Surface},
    policy::{Platform, scopes_to_approve},
    shell::{Arriving, Nodes, locked},
};
use crate::{
    gateway::{caller::Caller, clock::now_ms, hub::Hub},
    protocol::{
        Connect, ErrorShape, NodePairApproved, NodePairListReply, NodePairRequest,
        NodePairResolved, NodePairing, event,
    },
    store::Error,
};

/// How long a client should wait when the database is busy, milliseconds.
const STORE_RETRY_MS: u64 = 500;
/// The longest name that a person may give a node.
const MAX_NAME: usize = 200;

impl Nodes {
    /// A paired device connects as a node: what it declares is compared with what is approved,
    /// and the difference is asked about.
    pub(in crate::gateway) async fn arrived(
        &self,
        hub: &Hub,
        node: &str,
        connect: &Connect,
        remote_ip: Option<String>,
    ) -> Result<Arriving, Box<ErrorShape>> {
        let (facts, declared) = self.said(connect, remote_ip);
        let request_id = uuid::Uuid::new_v4().to_string();
        let mut book = self.book.lock().await;
        let arrival = book
            .arrived(node, facts.clone(), &declared, request_id, now_ms())
            .ok_or_else(|| ErrorShape::unavailable("too many nodes", STORE_RETRY_MS))?;
        self.keep(&mut book, arrival.record.clone()).await?;
        drop(book);
        if let Some(withdrawn) = arrival.withdrawn {
            resolved(hub, &withdrawn.request_id, node, "superseded");
        }
        if let Some(asked) = &arrival.requested {
            tracing::info!(node, request = asked.request_id, "a node asks to offer something");
            hub.tell(event::NODE_PAIR_REQUESTED, &request_of(&arrival.record, asked));
        }
        let platform = Platform::of(&facts.platform, facts.device_family.as_deref());
        Ok(Arriving {
            node: node.to_owned(),
            facts,
            platform,
            declared,
            path_env: connect.path_env.clone(),
        })
    }

    /// What waits for a person, and what was approved.
    pub(in crate::gateway) async fn pairings(&self) -> NodePairListReply {
        let book = self.book.lock().await;
        let pending =
            book.all().filter_map(|record| Some(request_of(record, record.asked.as_ref()?)));
        let paired = book.all().filter(|record| record.approved.is_some()).map(approved_of);
        NodePairListReply { pending: pending.collect(), paired: paired.collect() }
    }

    /// The node of which this request is.
    pub(in crate::gateway) async fn whose(&self, request: &str) -> Option<String> {
        self.book.lock().await.asking(request).map(|record| record.node_id.clone())
    }

    /// Approves a request; the approver holds what the commands in it want.
    pub(in crate::gateway) async fn approve(
        &self,
        hub: &Hub,
        caller: &Caller,
        request: &str,
    ) -> Result<NodePairApproved, Box<ErrorShape>> {
        let mut book = self.book.lock().await;
        let asked = book.asking(request).and_then(|record| record.asked.as_ref());
        let asked = asked.ok_or_else(|| ErrorShape::invalid("unknown requestId"))?;
        let needed = scopes_to_approve(&asked.surface.commands);
        if let Some(missing) = needed.iter().find(|scope| !caller.holds(**scope)) {
            return Err(ErrorShape::missing_scope(*missing).into());
        }
        let record = book
            .approved(request, now_ms())
            .ok_or_else(|| ErrorShape::invalid("unknown requestId"))?;
        self.keep(&mut book, record.clone()).await?;
        let node = &record.node_id;
        tracing::info!(node, request, "what a node offers was approved");
        let told = resolved(hub, request, node, "approved");
        let takes_workers = locked(&self.present).find_mut(node).is_some_and(|live| {
            live.effective = record.effective(&live.declared);
            live.outbox.event(event::NODE_PAIR_RESOLVED, &json!(told).to_string(), None);
            live.takes_workers()
        });
        if takes_workers {
            self.tell_of_runners(node);
        }
        // Not before: a node that is just coming in is seated with what is approved.
        drop(book);
        Ok(NodePairApproved { request_id: request.to_owned(), node: approved_of(&record) })
    }

    /// Refuses a request; whose it was.
    pub(in crate::gateway) async fn reject(
        &self,
        hub: &Hub,
        request: &str,
    ) -> Result<String, Box<ErrorShape>> {
        let mut book = self.book.lock().await;
        let record =
            book.rejected(request).ok_or_else(|| ErrorShape::invalid("unknown requestId"))?;
        self.keep(&mut book, record.clone()).await?;
        drop(book);
        resolved(hub, request, &record.node_id, "rejected");
        Ok(record.node_id)
    }

    /// Gives a node the name that people see.
    pub(in crate::gateway) async fn rename(
        &self,
        node: &str,
        name: &str,
    ) -> Result<(), Box<ErrorShape>> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            let message = format!("displayName must have 1 to {MAX_NAME} bytes on one line");
            return Err(ErrorShape::invalid(message).into());
        }
        let mut book = self.book.lock().await;
        let record =
            book.renamed(node, name).ok_or_else(|| ErrorShape::invalid("unknown nodeId"))?;
        self.keep(&mut book, record).await
    }

    /// A device is no node any more: what was approved for it is gone, and so is its connection.
    /// Whether there was anything.
    pub(in crate::gateway) async fn forget(
        &self,
        hub: &Hub,
        node: &str,
    ) -> Result<bool, Box<ErrorShape>> {
        let mut book = self.book.lock().await;
        self.store.nodes().remove(node).await.map_err(|error| unavailable(&error))?;
        let was_known = book.forget(node).is_some();
        let live = locked(&self.present).remove(node);
        drop(book);
        self.forget_waiting(node).await;
        if let Some(live) = &live {
            live.dismiss("device removed");
        }
        if was_known || live.is_some() {
            resolved(hub, "", node, "removed");
        }
        Ok(was_known || live.is_some())
    }

    pub(super) async fn keep(
        &self,
        book: &mut Book,
        record: Record,
    ) -> Result<(), Box<ErrorShape>> {
        self.store.nodes().keep(&record).await.map_err(|error| unavailable(&error))?;
        book.keep(record);
        Ok(())
    }
}

fn unavailable(error: &Error) -> ErrorShape {
    tracing::warn!(%error, "a change to a node was not stored");
    ErrorShape::unavailable(error.to_string(), STORE_RETRY_MS)
}

fn resolved(hub: &Hub, request: &str, node: &str, decision: &'static str) -> NodePairResolved {
    let told = NodePairResolved {
        request_id: request.to_owned(),
        node_id: node.to_owned(),
        decision,
        ts: now_ms(),
    };
    hub.tell(event::NODE_PAIR_RESOLVED, &told);
    told
}

fn request_of(record: &Record, asked: &Asked) -> NodePairRequest {
    NodePairRequest {
        request_id: asked.request_id.clone(),
        node: pairing_of(record, &asked.surface),
        required_approve_scopes: scopes_to_approve(&asked.surface.commands),
        ts: asked.ts,
    }
}

fn approved_of(record: &Record) -> NodePairing {
    let Some(approved) = &record.approved else {
        return pairing_of(record, &Surface::default());
    };
    NodePairing {
        created_at_ms: Some(approved.created_at_ms),
        approved_at_ms: Some(approved.approved_at_ms),
        last_seen_at_ms: record.last_seen().map(|(at, _)| at),
        last_seen_reason: record.last_seen().map(|(_, occasion)| occasion.to_owned()),
        ..pairing_of(record, &approved.surface)
    }
}

fn pairing_of(record: &Record, surface: &Surface) -> NodePairing {
    let Facts { platform, version, client_id, client_mode, device_family, remote_ip, .. } =
        record.facts.clone();
    NodePairing {
        node_id: record.node_id.clone(),
        client_id,
        client_mode,
        display_name: record.name().map(str::to_owned),
        platform,
        version,
        device_family,
        remote_ip,
        caps: surface.caps.iter().cloned().collect(),
        commands: surface.commands.iter().cloned().collect(),
        permissions: (!surface.permissions.is_empty()).then(|| surface.permissions.clone()),
        ..NodePairing::default()
    }
}
