//! Setup codes: what was issued is good once, before a kill or after it, and what was used stays so.

use std::{
    io,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    Dice, Kept,
    door::{Door, ask, find, text, token_in},
};
use crate::support::{Device, Wire};

/// Devices that use codes.
const DEVICES: std::ops::Range<u8> = 30..40;
/// One that comes too late.
const LATE: u8 = 41;
/// How long a code is counted on; ten minutes are promised.
const YOUNG: Duration = Duration::from_secs(480);
/// How many codes are looked at after each start, beside all that nobody has used.
const LOOKED_AT: usize = 6;
/// How many wait to be used at most.
const UNUSED: usize = 3;

/// A code that was issued.
struct Code {
    id: String,
    token: String,
    since: Instant,
    /// Where it may be fetched, as long as nobody asked for it there.
    join: Option<String>,
    /// The device that used it.
    by: Kept<Option<String>>,
}

/// The codes, in their order.
#[derive(Default)]
pub(super) struct SetupCodes {
    codes: Vec<Code>,
    /// Where one was fetched last.
    fetched: Option<String>,
    number: u64,
}

impl SetupCodes {
    pub(super) async fn hold(&mut self, door: &Door) {
        let mut admin = door.admin().await.unwrap();
        let list = ask(&mut admin, "device.pair.list", json!({})).await.unwrap();
        let mut latest_used = None;
        let codes = self.codes.iter_mut().rev().enumerate();
        let looked_at = codes.filter(|(age, code)| *age < LOOKED_AT || code.by.known.is_none());
        for (_, code) in looked_at {
            let used_by = user(&mut admin, code).await;
            if let Some(device) = &used_by {
                let paired = find(&list["paired"], "deviceId", device);
                assert!(paired.is_some(), "a code is used, and nobody is paired by it");
                latest_used = latest_used.or(Some(code.token.clone()));
            }
            code.by.hold(used_by, "who used a setup code");
        }
        if let Some(path) = &self.fetched {
            assert_eq!(door.get(path).await.unwrap().0, 404, "a code is fetched twice");
        }
        let Some(used) = latest_used else { return };
        let code = json!({ "bootstrapToken": used });
        let (_, refused) = door.node(&Device::new(LATE), &code, &[]).await.unwrap();
        let why = &refused["error"]["details"]["code"];
        assert_eq!(why, "AUTH_BOOTSTRAP_TOKEN_INVALID", "{refused}");
    }

    pub(super) async fn change(
        &mut self,
        door: &Door,
        dice: &mut Dice,
        _count: u64,
    ) -> io::Result<()> {
        let mut unused: Vec<&mut Code> =
            self.codes.iter_mut().filter(|it| it.is_unused()).collect();
        if unused.is_empty() || (unused.len() < UNUSED && dice.below(2) == 0) {
            let url = format!("ws://127.0.0.1:{}", door.port);
            let has_url = dice.below(2) == 0;
            let params =
                json!({ "bootstrapProfile": "node", "publicUrl": url, "joinUrl": has_url });
            let issued = ask(&mut door.admin().await?, "device.pair.setupCode", params).await?;
            let payload = URL_SAFE_NO_PAD.decode(text(&issued["setupCode"])).unwrap();
            let payload: Value = serde_json::from_slice(&payload).unwrap();
            self.codes.push(Code {
                id: text(&issued["setupId"]),
                token: text(&payload["bootstrapToken"]),
                since: Instant::now(),
                join: has_url.then(|| path_of(&issued["joinUrl"])),
                by: Kept::default(),
            });
            return Ok(());
        }
        self.number += 1;
        let chosen = usize::try_from(dice.below(unused.len() as u64)).unwrap();
        let code = &mut unused[chosen];
        let Some(path) = code.join.take() else { return code.use_up(door, self.number).await };
        let (status, payload) = door.get(&path).await?;
        assert_eq!((status, &payload["bootstrapToken"]), (200, &json!(code.token)), "{payload}");
        self.fetched = Some(path);
        Ok(())
    }

    /// Uses every code that nobody used yet.
    pub(super) async fn redeem_all(&mut self, door: &Door) {
        for code in self.codes.iter_mut().filter(|code| code.is_unused()) {
            self.number += 1;
            code.use_up(door, self.number).await.unwrap();
        }
    }
}

impl Code {
    fn is_unused(&self) -> bool {
        self.by.known.is_none() && self.since.elapsed() < YOUNG
    }

    async fn use_up(&mut self, door: &Door, number: u64) -> io::Result<()> {
        let seed = DEVICES.start + u8::try_from(number % DEVICES.len() as u64).unwrap();
        let device = Device::new(seed);
        self.by.asked(Some(device.id()));
        let code = json!({ "bootstrapToken": self.token });
        let (_, hello) = door.node(&device, &code, &[]).await?;
        token_in(&hello);
        self.by.confirmed();
        Ok(())
    }
}

/// What follows the host in a URL.
fn path_of(url: &Value) -> String {
    let url = text(url);
    let start = url.find("/j/").expect("a join URL");
    url[start..].to_owned()
}

/// Who used a code, as the gateway says.
async fn user(admin: &mut Wire, code: &Code) -> Option<String> {
    let params = json!({ "setupId": code.id });
    let status = ask(admin, "device.pair.setupStatus", params).await.unwrap();
    // A kill may come before the gateway knows that the device has read its answer.
    let known = ["completion", "deliveryUncertain"].map(|key| status[key]["deviceId"].as_str());
    known.into_iter().flatten().next().map(str::to_owned)
}
