//! The far gateway's token, read over the login.

use std::time::Duration;

use tokio::time::timeout;

use super::link::Link;
use crate::{
    config,
    control::Reply,
    problem::{Class, Problem},
    secret::Secret,
};

/// The largest token file or configuration read over a login, bytes.
const FETCH_LIMIT: usize = 256 * 1024;
/// How long reading it may take.
const FETCH_PATIENCE: Duration = Duration::from_secs(15);

/// The answer to a command that asks for the token.
pub(super) async fn fetch(link: &dyn Link) -> Result<Reply, Problem> {
    read(link).await.map(|(token, source)| Reply::Token { token, source })
}

/// Our gateway's token file first, then a plain token in the far `openclaw.json`; with which it was.
pub(super) async fn read(link: &dyn Link) -> Result<(Secret, String), Problem> {
    let folder = "\"${OPENCLAW_STATE_DIR:-$HOME/.openclaw}\"";
    let configured =
        "\"${OPENCLAW_CONFIG_PATH:-${OPENCLAW_STATE_DIR:-$HOME/.openclaw}/openclaw.json}\"";
    let print = async |file: String| -> Result<Option<String>, Problem> {
        let printed = timeout(FETCH_PATIENCE, link.run(&format!("cat {file}"), FETCH_LIMIT))
            .await
            .map_err(|_| Problem::new(Class::Timeout, "the far side does not answer"))?
            .map_err(Problem::from)?;
        let text = String::from_utf8(printed.output).ok();
        Ok(text.filter(|text| printed.status == 0 && !text.trim().is_empty()))
    };
    if let Some(token) = print(format!("{folder}/rs/gateway-token")).await? {
        let token = Secret::new(token.trim());
        return Ok((token, "rs/gateway-token".to_owned()));
    }
    let token = match print(configured.to_owned()).await? {
        Some(text) => config::plain_token(&text),
        None => None,
    };
    token
        .map(|token| (token, "openclaw.json".to_owned()))
        .ok_or_else(|| {
            Problem::new(
                Class::GatewayRefused,
                "no gateway token can be read over this login: no rs/gateway-token, and no plain gateway.auth.token in openclaw.json",
            )
            .fix("over there: openclaw gateway auth-token --show; then here: --token-file FILE")
        })
}
