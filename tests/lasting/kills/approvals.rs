//! Requests for approval, and what was decided about them.

use std::io;

use serde_json::{Value, json};

use super::{
    Dice, Kept,
    door::{Door, ask, text},
    runs,
};
use crate::support::Wire;

/// How many there are, for the same reason as of runs.
const MOST: u64 = 250;

/// The last request: its id, and what was decided.
type Request = Option<(String, Option<String>)>;

/// The requests, one after the other.
#[derive(Default)]
pub(super) struct Approvals {
    request: Kept<Request>,
    number: u64,
}

impl Approvals {
    pub(super) async fn hold(&mut self, door: &Door) {
        let mut admin = door.admin().await.unwrap();
        let found = look(&mut admin, &self.request.known).await.unwrap();
        self.request.hold(found, "a request for approval");
    }

    /// Asks, and decides; what was decided is kept for a while after each start, so that there may not
    /// be many in one life.
    pub(super) async fn change(
        &mut self,
        door: &Door,
        dice: &mut Dice,
        count: u64,
    ) -> io::Result<()> {
        let mut admin = door.admin().await?;
        let (method, params, next) = match self.request.known.clone() {
            known if count > 1 || self.number == MOST => {
                assert_eq!(look(&mut admin, &known).await?, known);
                return Ok(());
            }
            Some((id, None)) => {
                let decision = ["allow-once", "deny"][usize::try_from(dice.below(2)).unwrap()];
                let params = json!({ "id": id, "decision": decision });
                ("exec.approval.resolve", params, (id, Some(decision.to_owned())))
            }
            None | Some((_, Some(_))) => {
                self.number += 1;
                let id = format!("request-{}", self.number);
                let params = json!({
                    "id": id, "command": "id -u", "host": "gateway", "runId": id, "twoPhase": true,
                    "requireDeliveryRoute": false, "timeoutMs": 3_600_000,
                });
                ("exec.approval.request", params, (id, None))
            }
        };
        self.request.asked(Some(next));
        ask(&mut admin, method, params).await?;
        self.request.confirmed();
        Ok(())
    }
}

/// The last request as it is there, given what is known of it.
async fn look(admin: &mut Wire, known: &Request) -> io::Result<Request> {
    let waiting = ask(admin, "exec.approval.list", json!({})).await?;
    let ids = waiting.as_array().unwrap().iter().map(|request| text(&request["id"]));
    let ids: Vec<String> = ids.filter(|id| !id.starts_with(runs::PREFIX)).collect();
    if let [id] = ids.as_slice() {
        return Ok(Some((id.clone(), None)));
    }
    assert!(ids.is_empty(), "one at a time");
    let Some((id, _)) = known else { return Ok(None) };
    let decided: Value = ask(admin, "exec.approval.waitDecision", json!({ "id": id })).await?;
    Ok(Some((id.clone(), decided["decision"].as_str().map(str::to_owned))))
}
