//! Clients that ask and do not read: what they may miss they miss, and who leaves more unread than
//! the policy allows is closed, beside others who get everything.

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    siege::{MEMORY, PATIENCE, Siege},
    support::{Wire, connect},
};

/// A method that nobody else here asks for.
const METHOD: &str = "last-heartbeat";
/// The event that may be missed.
const CHANGED: &str = "voicewake.changed";
const ANSWERED: &str = r#"openclaw_gateway_requests_total{method="last-heartbeat",outcome="ok"}"#;
const MISSED: &str = r#"openclaw_gateway_dropped_events_total{event="voicewake.changed"}"#;
const CLOSED: &str = "openclaw_gateway_slow_consumers_total";

/// Asks for an answer of about `bytes` bytes: a request's id comes back in its answer.
async fn ask_for(wire: &mut Wire, bytes: usize) {
    let id = "x".repeat(bytes);
    let request = json!({ "type": "req", "id": id, "method": METHOD });
    timeout(PATIENCE, wire.say(request.to_string())).await.expect("it is heard").unwrap();
}

/// Somebody who changes the wake words, and with each change has everybody told.
struct Speaker {
    wire: Wire,
    said: u64,
}

impl Speaker {
    async fn of(siege: &Siege) -> Self {
        let mut wire = siege.open().await.0;
        let mut params = connect(&json!({ "token": siege.token }));
        params["scopes"] = json!(["operator.write"]);
        assert_eq!(wire.call("connect", params).await.unwrap()["ok"], true);
        Self { wire, said: 0 }
    }

    /// The word that stands in the event.
    async fn speak(&mut self) -> String {
        self.said += 1;
        let word = format!("word {}", self.said);
        let params = json!({ "triggers": [word] });
        let answer = self.wire.call("voicewake.set", params).await.unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
        word
    }
}

/// Reads until the wake words change, and gives that event with how many others came before it.
async fn change(wire: &mut Wire) -> (Value, u64) {
    let mut others = 0;
    loop {
        let frame = wire.frame().await.unwrap();
        if frame["event"] == CHANGED {
            return (frame, others);
        }
        others += u64::from(frame["type"] == "event");
    }
}

/// Somebody who reads what comes: no event is missing, and each says the word that was spoken.
struct Neighbour {
    wire: Wire,
    seq: Option<u64>,
}

impl Neighbour {
    async fn of(siege: &Siege) -> Self {
        Self { wire: siege.login().await, seq: None }
    }

    async fn hears(&mut self, word: &str) {
        let (event, others) = change(&mut self.wire).await;
        assert_eq!(event["payload"]["triggers"], json!([word]), "{event}");
        let seq = event["seq"].as_u64().unwrap();
        if let Some(before) = self.seq {
            assert_eq!(seq, before + others + 1, "{event}");
        }
        self.seq = Some(seq);
    }
}

#[tokio::test]
async fn a_slow_reader_misses_what_it_may_miss_and_sees_the_gap() {
    const ANSWERS: u64 = 40;
    const SPOKEN: u64 = 50;
    let mut siege = Siege::begin().await;
    let mut slow = siege.login().await;
    let (mut speaker, mut neighbour) = (Speaker::of(&siege).await, Neighbour::of(&siege).await);
    neighbour.hears(&speaker.speak().await).await;
    let before = change(&mut slow).await.0["seq"].as_u64().unwrap();

    // Far more than sockets hold, far less than closes it.
    for _ in 0..ANSWERS {
        ask_for(&mut slow, 512 << 10).await;
    }
    let all = async { while siege.metric(ANSWERED).await < ANSWERS {} };
    timeout(PATIENCE, all).await.expect("all are answered");
    for _ in 0..SPOKEN {
        neighbour.hears(&speaker.speak().await).await;
    }
    assert_eq!(siege.metric(MISSED).await, SPOKEN);
    assert_eq!(siege.metric(CLOSED).await, 0);

    let (mut answers, mut events) = (0, 0);
    while answers < ANSWERS {
        let frame = slow.frame().await.unwrap();
        assert_ne!(frame["event"], CHANGED, "missed, or kept: not both");
        answers += u64::from(frame["ok"] == true);
        events += u64::from(frame["type"] == "event");
    }
    // It reads again, and so hears again, with every number that it missed used up.
    slow.ask("health", json!({})).await.unwrap();
    events += loop {
        let frame = slow.frame().await.unwrap();
        if frame["id"] == "health" {
            break 0;
        }
        events += u64::from(frame["type"] == "event");
    };
    neighbour.hears(&speaker.speak().await).await;
    let (event, others) = change(&mut slow).await;
    let missed = siege.metrics("openclaw_gateway_dropped_events_total").await;
    let missed: u64 = missed.iter().map(|(_, count)| count).sum();
    assert_eq!(event["seq"], before + events + others + missed + 1, "{event}");
    siege.goes_unnoticed().await;
    siege.end_within(MEMORY + (ANSWERS << 20)).await;
}

#[tokio::test]
async fn who_leaves_more_unread_than_the_policy_allows_is_closed_and_others_hear_everything() {
    let mut siege = Siege::begin().await;
    let mut slow = siege.open().await.0;
    let params = connect(&json!({ "token": siege.token }));
    let hello = slow.call("connect", params).await.unwrap();
    let most = hello["payload"]["policy"]["maxBufferedBytes"].as_u64().unwrap();
    let (mut speaker, mut neighbour) = (Speaker::of(&siege).await, Neighbour::of(&siege).await);
    let mut asked = 0;
    while siege.metric(CLOSED).await == 0 {
        assert!(asked < 2 * most, "it holds {asked} bytes for who does not read");
        ask_for(&mut slow, 1 << 20).await;
        asked += 1 << 20;
        neighbour.hears(&speaker.speak().await).await;
    }
    assert!(asked > most, "closed after {asked} bytes of {most}");
    assert_eq!(slow.closed().await, 1008);
    assert_eq!(siege.metric(CLOSED).await, 1);
    neighbour.hears(&speaker.speak().await).await;
    siege.goes_unnoticed().await;
    siege.end_within(MEMORY + most).await;
}
