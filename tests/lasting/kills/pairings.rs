//! Devices: who asks and is approved, rejected, named, removed, and who is let in without a word.

use std::{collections::BTreeSet, io};

use serde_json::{Value, json};

use super::{
    Dice, Kept,
    door::{Door, ask, find, request_in, text},
};
use crate::support::Device;

/// Devices that ask to be nodes, and so have to be approved.
const CANDIDATES: std::ops::Range<u8> = 20..24;
/// Devices that are operators here, and so need not.
const FRIENDS: std::ops::Range<u8> = 100..200;

/// What is known of a device that asks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Standing {
    #[default]
    Unknown,
    /// Under this request; none where the answer with its id never came.
    Waits(Option<String>),
    /// With the name that its owner gave it.
    Paired(Option<String>),
}

/// Everybody who comes.
#[derive(Default)]
pub(super) struct Pairings {
    candidates: [Kept<Standing>; 4],
    friends: BTreeSet<String>,
    number: u64,
}

impl Pairings {
    pub(super) async fn hold(&mut self, door: &Door) {
        let mut admin = door.admin().await.unwrap();
        let list = ask(&mut admin, "device.pair.list", json!({})).await.unwrap();
        for (seed, kept) in CANDIDATES.zip(&mut self.candidates) {
            let found = standing(&list, &Device::new(seed).id());
            if let Standing::Waits(Some(_)) = &found
                && kept.may_be(&Standing::Waits(None))
            {
                kept.asked(found.clone());
            }
            kept.hold(found, "a device");
        }
        for id in &self.friends {
            assert!(find(&list["paired"], "deviceId", id).is_some(), "{id} is not there any more");
        }
    }

    pub(super) async fn change(
        &mut self,
        door: &Door,
        dice: &mut Dice,
        _count: u64,
    ) -> io::Result<()> {
        self.number += 1;
        if dice.below(4) == 0 {
            let seed = FRIENDS.start + u8::try_from(self.number % FRIENDS.len() as u64).unwrap();
            let device = Device::new(seed);
            let (_, hello) = door.operator(&device, &door.secret(), &["operator.read"]).await?;
            assert_eq!(hello["ok"], true, "{hello}");
            self.friends.insert(device.id());
            return Ok(());
        }
        let chosen = dice.below(self.candidates.len() as u64);
        let device = Device::new(CANDIDATES.start + u8::try_from(chosen).unwrap());
        let kept = &mut self.candidates[usize::try_from(chosen).unwrap()];
        let (id, coin) = (device.id(), dice.below(3));
        let (method, params) = match kept.known.clone() {
            Standing::Unknown => {
                kept.asked(Standing::Waits(None));
                let (_, refused) = door.node(&device, &door.secret(), &["system.which"]).await?;
                kept.is(Standing::Waits(Some(request_in(&refused))));
                return Ok(());
            }
            Standing::Waits(request) if coin == 0 => {
                let (_, refused) = door.node(&device, &door.secret(), &["system.which"]).await?;
                assert_eq!(request, Some(request_in(&refused)), "another request for the same");
                return Ok(());
            }
            Standing::Waits(request) => {
                let (method, next) = if coin == 1 {
                    ("device.pair.approve", Standing::Paired(None))
                } else {
                    ("device.pair.reject", Standing::Unknown)
                };
                kept.asked(next);
                (method, json!({ "requestId": request }))
            }
            Standing::Paired(_) if coin == 0 => {
                kept.asked(Standing::Unknown);
                ("device.pair.remove", json!({ "deviceId": id }))
            }
            Standing::Paired(_) => {
                let label = format!("number {}", self.number);
                kept.asked(Standing::Paired(Some(label.clone())));
                ("device.pair.rename", json!({ "deviceId": id, "label": label }))
            }
        };
        ask(&mut door.admin().await?, method, params).await?;
        kept.confirmed();
        Ok(())
    }
}

/// How a device stands in what `device.pair.list` answers.
fn standing(list: &Value, id: &str) -> Standing {
    let waits = find(&list["pending"], "deviceId", id);
    let paired = find(&list["paired"], "deviceId", id);
    match (waits, paired) {
        (None, None) => Standing::Unknown,
        (Some(request), None) => Standing::Waits(Some(text(&request["requestId"]))),
        (None, Some(device)) => {
            Standing::Paired(device["operatorLabel"].as_str().map(str::to_owned))
        }
        (Some(request), Some(_)) => panic!("paired, and asks for the same: {request}"),
    }
}
