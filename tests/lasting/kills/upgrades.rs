//! A device that is in asks for more scopes, and gets them, or does not.

use std::io;

use serde_json::{Value, json};

use super::{
    Dice, Kept,
    door::{Door, ask, find, text},
};
use crate::support::Device;

/// The device.
const DEVICE: u8 = 3;

/// What it may do.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum May {
    #[default]
    Nothing,
    Read,
    /// It may read, and asks to write under this request; none where its id never came.
    Asks(Option<String>),
    Write,
}

/// The device's scopes.
#[derive(Default)]
pub(super) struct Upgrade(Kept<May>);

impl Upgrade {
    pub(super) async fn hold(&mut self, door: &Door) {
        let mut admin = door.admin().await.unwrap();
        let list = ask(&mut admin, "device.pair.list", json!({})).await.unwrap();
        let found = may(&list);
        if let May::Asks(Some(_)) = &found
            && self.0.may_be(&May::Asks(None))
        {
            self.0.asked(found.clone());
        }
        self.0.hold(found, "what a device may do");
    }

    pub(super) async fn change(
        &mut self,
        door: &Door,
        dice: &mut Dice,
        _count: u64,
    ) -> io::Result<()> {
        let (device, kept) = (Device::new(DEVICE), &mut self.0);
        let (method, params) = match kept.known.clone() {
            May::Nothing => {
                kept.asked(May::Read);
                let entered = door.operator(&device, &door.secret(), &["operator.read"]).await?;
                assert_eq!(entered.1["ok"], true, "{}", entered.1);
                kept.confirmed();
                return Ok(());
            }
            May::Read => {
                let (mut wire, hello) =
                    door.operator(&device, &door.secret(), &["operator.read"]).await?;
                assert_eq!(hello["ok"], true, "{hello}");
                kept.asked(May::Asks(None));
                let more = json!({ "scopes": ["operator.read", "operator.write"] });
                let asked = ask(&mut wire, "device.scopes.requestUpgrade", more).await?;
                kept.is(May::Asks(Some(text(&asked["requestId"]))));
                return Ok(());
            }
            May::Asks(request) if dice.below(3) == 0 => {
                kept.asked(May::Read);
                ("device.pair.reject", json!({ "requestId": request }))
            }
            May::Asks(request) => {
                kept.asked(May::Write);
                ("device.pair.approve", json!({ "requestId": request }))
            }
            May::Write => {
                kept.asked(May::Nothing);
                ("device.pair.remove", json!({ "deviceId": device.id() }))
            }
        };
        ask(&mut door.admin().await?, method, params).await?;
        kept.confirmed();
        Ok(())
    }
}

/// What the device may do by what `device.pair.list` answers.
fn may(list: &Value) -> May {
    let id = Device::new(DEVICE).id();
    let Some(paired) = find(&list["paired"], "deviceId", &id) else { return May::Nothing };
    let may_write = paired["scopes"].as_array().unwrap().contains(&json!("operator.write"));
    match find(&list["pending"], "deviceId", &id) {
        Some(request) => {
            assert!(!may_write, "it asks for what it has: {request}");
            May::Asks(Some(text(&request["requestId"])))
        }
        None if may_write => May::Write,
        None => May::Read,
    }
}
