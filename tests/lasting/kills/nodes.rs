//! A node: paired, what it offers approved or rejected, named, removed, and the work left for it.

use std::io;

use serde_json::{Value, json};

use super::{
    Dice, Kept,
    door::{Door, ask, find, request_in, text},
};
use crate::support::{Device, Wire};

/// The device.
const DEVICE: u8 = 9;
/// What it offers at times.
const OFFERS: [&[&str]; 2] = [&["system.which"], &["system.run", "system.which"]];
/// The kinds of work.
const KINDS: [&str; 2] = ["status.request", "location.request"];
/// The id of work that was left without an answer.
const SOME: &str = "an id that nobody was told";

/// What is known of the node.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct State {
    is_paired: bool,
    approved: Option<Vec<String>>,
    asks: Option<Vec<String>>,
    name: Option<String>,
    /// The ids of what waits for it, a kind each.
    work: [Option<String>; 2],
}

/// The node.
#[derive(Default)]
pub(super) struct Node {
    kept: Kept<State>,
    number: u64,
}

impl Node {
    pub(super) async fn hold(&mut self, door: &Door) {
        let mut admin = door.admin().await.unwrap();
        let mut found = look(&mut admin).await.unwrap();
        if found.is_paired {
            let (mut wire, hello) = come(door, &found.offers()).await.unwrap();
            assert_eq!(hello["ok"], true, "{hello}");
            found.work = drain(&mut wire).await.unwrap();
        }
        self.kept.guess(|perhaps| {
            for (perhaps, found) in perhaps.work.iter_mut().zip(&found.work) {
                if perhaps.as_deref() == Some(SOME) && found.is_some() {
                    perhaps.clone_from(found);
                }
            }
        });
        self.kept.hold(found.clone(), "a node");
        // Coming in, it may have asked anew.
        let after = look(&mut admin).await.unwrap();
        self.kept.is(State { work: found.work, ..after });
    }

    pub(super) async fn change(
        &mut self,
        door: &Door,
        dice: &mut Dice,
        _count: u64,
    ) -> io::Result<()> {
        self.number += 1;
        let (known, id) = (self.kept.known.clone(), Device::new(DEVICE).id());
        if !known.is_paired {
            let (_, refused) = come(door, OFFERS[0]).await?;
            let request = json!({ "requestId": request_in(&refused) });
            let paired = State { is_paired: true, ..State::default() };
            self.does(door, "device.pair.approve", request, paired).await?;
            return self.comes(door, OFFERS[0]).await.map(drop);
        }
        match (dice.below(9), &known.asks) {
            (0, _) => {
                let offers = OFFERS[usize::try_from(dice.below(2)).unwrap()];
                self.comes(door, offers).await.map(drop)
            }
            (1 | 2, Some(asks)) => {
                let next = State { approved: Some(asks.clone()), asks: None, ..known.clone() };
                self.decides(door, "node.pair.approve", next).await
            }
            (3, Some(_)) => {
                let next = State { asks: None, ..known };
                self.decides(door, "node.pair.reject", next).await
            }
            (4, _) if dice.below(3) == 0 => {
                let params = json!({ "nodeId": id });
                self.does(door, "node.pair.remove", params, State::default()).await
            }
            (5 | 6, _) => self.has_work_done(door).await,
            (7, _) => {
                let name = format!("number {}", self.number);
                let params = json!({ "nodeId": id, "displayName": name });
                self.does(door, "node.rename", params, State { name: Some(name), ..known }).await
            }
            _ => self.is_left_work(door, usize::try_from(dice.below(2)).unwrap()).await,
        }
    }

    /// Asks for something after which it is so.
    async fn does(
        &mut self,
        door: &Door,
        method: &str,
        params: Value,
        next: State,
    ) -> io::Result<()> {
        let mut admin = door.admin().await?;
        self.kept.asked(next);
        ask(&mut admin, method, params).await?;
        self.kept.confirmed();
        Ok(())
    }

    /// Has what it asks for decided.
    async fn decides(&mut self, door: &Door, method: &str, next: State) -> io::Result<()> {
        let list = ask(&mut door.admin().await?, "node.pair.list", json!({})).await?;
        let request = find(&list["pending"], "nodeId", &Device::new(DEVICE).id()).unwrap();
        self.does(door, method, json!({ "requestId": request["requestId"] }), next).await
    }

    /// Comes in, and asks for what is not approved of its offers.
    async fn comes(&mut self, door: &Door, offers: &[&str]) -> io::Result<Wire> {
        let known = self.kept.known.clone();
        let approved = known.approved.as_deref();
        let is_within = |approved: &[String]| {
            offers.iter().all(|offer| approved.iter().any(|approved| approved == offer))
        };
        let wants = offers.iter().map(|offer| (*offer).to_owned()).collect();
        let asks = (!approved.is_some_and(is_within)).then_some(wants);
        self.kept.asked(State { asks, ..known });
        let (wire, hello) = come(door, offers).await?;
        assert_eq!(hello["ok"], true, "{hello}");
        self.kept.confirmed();
        Ok(wire)
    }

    async fn is_left_work(&mut self, door: &Door, kind: usize) -> io::Result<()> {
        let mut admin = door.admin().await?;
        let mut next = self.kept.known.clone();
        next.work[kind] = Some(SOME.to_owned());
        self.kept.asked(next.clone());
        let params =
            json!({ "nodeId": Device::new(DEVICE).id(), "type": KINDS[kind], "wake": false });
        let left = ask(&mut admin, "node.pending.enqueue", params).await?;
        next.work[kind] = Some(text(&left["queued"]["id"]));
        self.kept.is(next);
        Ok(())
    }

    /// Is given its work, and reads on, to the ping behind it.
    async fn has_work_done(&mut self, door: &Door) -> io::Result<()> {
        let offers = self.kept.known.offers();
        let mut wire = self.comes(door, &offers).await?;
        let known = self.kept.known.clone();
        assert_eq!(drain(&mut wire).await?, known.work, "the work of a node");
        self.kept.asked(State { work: [None, None], ..known });
        ask(&mut wire, "node.pending.pull", json!({})).await?;
        assert_eq!(drain(&mut wire).await?, [None, None], "work was given twice");
        self.kept.confirmed();
        Ok(())
    }
}

impl State {
    /// What the node offers so that it asks for nothing new.
    fn offers(&self) -> Vec<&'static str> {
        let known = self.asks.as_ref().or(self.approved.as_ref());
        let same = OFFERS.iter().find(|offers| known.is_some_and(|known| known == *offers));
        same.unwrap_or(&OFFERS[0]).to_vec()
    }
}

async fn come(door: &Door, offers: &[&str]) -> io::Result<(Wire, Value)> {
    door.node(&Device::new(DEVICE), &door.secret(), offers).await
}

/// The ids of the work that the node is given.
async fn drain(wire: &mut Wire) -> io::Result<[Option<String>; 2]> {
    let drained = ask(wire, "node.pending.drain", json!({})).await?;
    let items = drained["items"].as_array().unwrap();
    let left = |kind: &str| {
        let item = items.iter().find(|item| item["type"] == kind && item["expiresAtMs"].is_u64());
        item.map(|item| text(&item["id"]))
    };
    Ok(KINDS.map(left))
}

/// The node as an administrator sees it, without its work.
async fn look(admin: &mut Wire) -> io::Result<State> {
    let id = Device::new(DEVICE).id();
    let list = ask(admin, "node.pair.list", json!({})).await?;
    let commands = |list: &Value| {
        let entry = find(list, "nodeId", &id)?;
        Some(serde_json::from_value(entry["commands"].clone()).unwrap())
    };
    let devices = ask(admin, "device.pair.list", json!({})).await?;
    let nodes = ask(admin, "node.list", json!({})).await?;
    let shown = find(&nodes["nodes"], "nodeId", &id);
    Ok(State {
        is_paired: find(&devices["paired"], "deviceId", &id).is_some(),
        approved: commands(&list["paired"]),
        asks: commands(&list["pending"]),
        name: shown.and_then(|node| node["displayName"].as_str().map(str::to_owned)),
        work: [None, None],
    })
}
