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
        self.reached.call(method, Some(params), left(self.deadline)).await
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
