//! News that wait for a session, with and without a key under which they may be told again.

use std::io;

use serde_json::{Value, json};

use super::{
    Dice, Kept,
    door::{Door, ask},
};
use crate::support::Wire;

/// How many lines wait for one session.
const LINES: usize = 20;

/// What was told.
#[derive(Default)]
pub(super) struct News {
    lines: Kept<Vec<String>>,
    /// What was told last under a key and confirmed, and what was asked and never answered.
    confirmed: Option<Value>,
    open: Option<Value>,
    number: u64,
}

impl News {
    pub(super) async fn hold(&mut self, door: &Door) {
        let mut admin = door.admin().await.unwrap();
        self.lines.hold(waiting(&mut admin).await, "the news");
        if let Some(told) = self.open.take() {
            let answer = admin.call("system-event", told.clone()).await.unwrap();
            let is_unknown = answer["error"]["details"]["code"] == "OUTCOME_UNKNOWN";
            assert!(is_unknown || answer["ok"] == true, "{answer}");
            let once = with(&self.lines.known, told["text"].as_str().unwrap());
            if !is_unknown && self.lines.known.last() != once.last() {
                self.lines.is(once);
            }
        }
        if let Some(told) = self.confirmed.clone() {
            ask(&mut admin, "system-event", told).await.unwrap();
        }
        // Nothing is told twice under one key.
        let lines = waiting(&mut admin).await;
        assert_eq!(lines, self.lines.known);
    }

    pub(super) async fn change(
        &mut self,
        door: &Door,
        dice: &mut Dice,
        _count: u64,
    ) -> io::Result<()> {
        let mut admin = door.admin().await?;
        for _ in 0..=dice.below(4) {
            self.number += 1;
            let line = format!("line {}", self.number);
            let mut told = json!({ "text": line });
            let has_key = dice.below(2) == 0;
            if has_key {
                told["idempotencyKey"] = format!("key {}", self.number).into();
                self.open = Some(told.clone());
            }
            self.lines.asked(with(&self.lines.known, &line));
            ask(&mut admin, "system-event", told.clone()).await?;
            self.lines.confirmed();
            if has_key {
                (self.confirmed, self.open) = (Some(told), None);
            }
        }
        Ok(())
    }
}

/// The lines and one more, as far as they are kept.
fn with(lines: &[String], more: &str) -> Vec<String> {
    let first = (lines.len() + 1).saturating_sub(LINES);
    let mut lines = lines[first..].to_vec();
    lines.push(more.to_owned());
    lines
}

async fn waiting(admin: &mut Wire) -> Vec<String> {
    let status = ask(admin, "status", json!({})).await.unwrap();
    serde_json::from_value(status["queuedSystemEvents"].clone()).unwrap()
}
