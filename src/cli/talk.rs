//! A conversation with the gateway that is meant: nothing is asked before its identity is compared.

use std::{process::ExitCode, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Context,
    which::{Which, block_on, left, reach},
};
use crate::{
    client::{EVERYTHING, Reached},
    problem::{Class, Problem},
};

/// A gateway that has been reached and compared, and until when it may answer.
pub(super) struct Talk {
    reached: Reached,
    deadline: Instant,
}

impl Talk {
    /// Whether the gateway says that it has a method.
    pub(super) fn offers(&self, method: &str) -> bool {
        self.reached.gateway.hello.features.methods.iter().any(|known| known == method)
    }

    /// Calls a method; waits no longer than the command may take.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value, Problem> {
        let outcome = self.reached.call(method, Some(params), left(self.deadline)).await;
        outcome.map_err(|problem| with_list(method, problem))
    }
}

/// Reaches the gateway, compares its identity, and only then has `work` done there. The command may
/// take at least as long as `at_least`.
pub(super) fn with_gateway(
    context: &Context,
    which: &Which,
    at_least: Duration,
    work: impl AsyncFnOnce(&Talk) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let plan = which.plan(context)?;
    block_on(async {
        let deadline = Instant::now() + which.patience().max(at_least);
        let reached = reach(context, &plan, EVERYTHING, deadline).await?;
        reached.verify(left(deadline)).await?;
        let talk = Talk { reached, deadline };
        let outcome = work(&talk).await;
        talk.reached.gateway.close().await;
        outcome.map(|()| ExitCode::SUCCESS)
    })
}

/// Reads an answer of `method` as `T`, which another gateway may see otherwise.
pub(super) fn typed<T: DeserializeOwned>(method: &str, answer: &Value) -> Result<T, Problem> {
    T::deserialize(answer).map_err(|error| {
        Problem::new(
            Class::Rpc,
            format!("the gateway's answer to {method} is not understood: {error}"),
        )
        .fix(format!("openclaw gateway call {method}"))
    })
}

/// The same problem with the list to look into, where the gateway does not know an id of ours.
fn with_list(method: &str, problem: Problem) -> Problem {
    let is_of_nodes = method.starts_with("node.");
    let list = if problem.fix.is_some() {
        None
    } else if problem.message.contains("unknown requestId") {
        Some(if is_of_nodes { "openclaw nodes pending" } else { "openclaw devices list" })
    } else if problem.message.contains("unknown deviceId") {
        Some("openclaw devices list")
    } else if problem.message.contains("unknown nodeId") {
        Some("openclaw nodes status")
    } else {
        None
    };
    match list {
        Some(list) => problem.fix(list),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_the_gateway_does_not_know_is_in_a_list() {
        for (method, message, expected) in [
            ("device.pair.approve", "unknown requestId", Some("openclaw devices list")),
            ("node.pair.reject", "unknown requestId", Some("openclaw nodes pending")),
            ("device.token.revoke", "unknown deviceId", Some("openclaw devices list")),
            ("node.rename", "unknown nodeId", Some("openclaw nodes status")),
            ("device.pair.approve", "no", None),
        ] {
            let problem = with_list(method, Problem::new(Class::Rpc, message));
            assert_eq!(problem.fix.as_deref(), expected, "{method}: {message}");
        }
        let known = Problem::new(Class::Rpc, "unknown deviceId").fix("mine");
        assert_eq!(with_list("device.pair.remove", known).fix.as_deref(), Some("mine"));
    }
}
