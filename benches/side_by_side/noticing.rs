//! When a broken path shows in `remote status`.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Home, openclaw, wait_until};

/// How often the status is asked for.
const PACE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(120);

/// The status object of a remote.
pub(crate) fn status(home: &Home, name: &str) -> Value {
    let ran = openclaw(home).args(["remote", "status", name, "--json"]).run().exits(0);
    ran.json().get(0).cloned().expect("one status object")
}

/// How often a remote's path has been made anew.
pub(crate) fn reconnects(home: &Home, name: &str) -> u64 {
    status(home, name).get("reconnects").and_then(Value::as_u64).expect("a number of reconnects")
}

/// Asks until the remote is not live, or was made anew after `reconnects` times, and says how long
/// after `since` that was.
pub(crate) fn noticed_after(home: &Home, name: &str, reconnects: u64, since: Instant) -> Duration {
    loop {
        let status = status(home, name);
        let took = since.elapsed();
        let is_made_anew = status.get("reconnects").and_then(Value::as_u64) > Some(reconnects);
        if is_made_anew || status.get("phase").and_then(Value::as_str) != Some("live") {
            return took;
        }
        assert!(took < LIMIT, "nothing is noticed after {took:?}: {status:#}");
        thread::sleep(PACE);
    }
}

/// Waits until a remote is live.
pub(crate) fn wait_until_live(home: &Home, name: &str) {
    wait_until("the remote is live", LIMIT, || {
        (status(home, name).get("phase").and_then(Value::as_str) == Some("live")).then_some(())
    });
}
