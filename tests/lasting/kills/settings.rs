//! Wake words, the configuration by each of the ways to write it, a device's name, and the rules for
//! programs on the gateway's host.

use std::io;

use serde_json::{Value, json};

use super::{
    Dice, Kept,
    door::{Door, ask, find, text},
};
use crate::support::{Device, Wire};

/// The first rule for the main agent.
const RULE: &str = "/file/agents/main/allowlist/0/pattern";

/// What an administrator sets.
#[derive(Default)]
pub(super) struct Settings {
    words: Kept<Option<String>>,
    note: Kept<Option<String>>,
    label: Kept<Option<String>>,
    rule: Kept<Option<String>>,
    number: u64,
}

impl Settings {
    pub(super) async fn hold(&mut self, door: &Door) {
        let mut admin = door.admin().await.unwrap();
        let words = ask(&mut admin, "voicewake.get", json!({})).await.unwrap();
        let words = words["triggers"][0].as_str().filter(|word| word.starts_with("number"));
        self.words.hold(words.map(str::to_owned), "wake words");
        let config = ask(&mut admin, "config.get", json!({})).await.unwrap();
        self.note.hold(config["parsed"]["meta"]["note"].as_str().map(str::to_owned), "a note");
        // The device is paired by coming in.
        let device = Device::new(1);
        let (_, hello) = door.operator(&device, &door.secret(), &["operator.read"]).await.unwrap();
        assert_eq!(hello["ok"], true, "{hello}");
        let list = ask(&mut admin, "device.pair.list", json!({})).await.unwrap();
        let paired = find(&list["paired"], "deviceId", &device.id()).unwrap();
        self.label.hold(paired["operatorLabel"].as_str().map(str::to_owned), "a device's name");
        let rules = ask(&mut admin, "exec.approvals.get", json!({})).await.unwrap();
        let rule = rules.pointer(RULE).and_then(Value::as_str);
        self.rule.hold(rule.map(str::to_owned), "a rule for programs");
    }

    pub(super) async fn change(
        &mut self,
        door: &Door,
        dice: &mut Dice,
        _count: u64,
    ) -> io::Result<()> {
        let mut admin = door.admin().await?;
        self.number += 1;
        let text = format!("number {}", self.number);
        let (kept, method, params) = match dice.below(6) {
            0 => (&mut self.words, "voicewake.set", json!({ "triggers": [text] })),
            1 => {
                let params = json!({ "deviceId": Device::new(1).id(), "label": text });
                (&mut self.label, "device.pair.rename", params)
            }
            2 => (&mut self.rule, "exec.approvals.set", ruled(&mut admin, &text).await?),
            way => {
                let method = ["config.patch", "config.set", "config.apply"][way as usize - 3];
                (&mut self.note, method, written(&mut admin, &text).await?)
            }
        };
        kept.asked(Some(text));
        ask(&mut admin, method, params).await?;
        kept.confirmed();
        Ok(())
    }
}

/// A configuration that holds nothing but a note.
async fn written(admin: &mut Wire, note: &str) -> io::Result<Value> {
    let base = ask(admin, "config.get", json!({})).await?["hash"].clone();
    let mut params = json!({ "raw": json!({ "meta": { "note": note } }).to_string() });
    if !base.is_null() {
        params["baseHash"] = text(&base).into();
    }
    Ok(params)
}

/// Rules that hold nothing but a pattern.
async fn ruled(admin: &mut Wire, pattern: &str) -> io::Result<Value> {
    let base = ask(admin, "exec.approvals.get", json!({})).await?["hash"].clone();
    let agents = json!({ "main": { "allowlist": [{ "pattern": pattern }] } });
    Ok(json!({ "file": { "version": 1, "agents": agents }, "baseHash": base }))
}
