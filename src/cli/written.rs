//! `remote connect --write-config`: the remote in `openclaw.json`, for OpenClaw's own programs.

use serde_json::{Value, json};

use super::Context;
use crate::{
    client::Credential,
    config::{Current, Edit, KeyPath, Run, change},
    fingerprint::Fingerprint,
    problem::Problem,
};

/// How the gateway is reached on this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// The local port.
    pub(super) port: u64,
    /// The gateway's certificate, where it speaks TLS.
    pub(super) tls_fingerprint: Option<Fingerprint>,
}

/// Writes that the gateway is reached that `way` with `credential`, and says so: the
/// secret stands there as it is, which is where OpenClaw's programs look for it.
pub(super) fn write(
    context: &Context,
    name: &str,
    way: Way,
    credential: &Credential,
) -> Result<(), Problem> {
    let mut was_local = false;
    let outcome = change(&context.paths, Run::Real, |current| {
        was_local = current.own.pointer("/gateway/mode") == Some(&json!("local"));
        Ok(edits(current, way, credential))
    });
    let outcome = outcome.map_err(|problem| {
        let message = format!("`{name}` is up and saved, but {}", problem.message);
        Problem { message, ..problem }
    })?;
    let file = context.paths.config.display();
    if !outcome.is_changed {
        context.output.note(format!("{file} leads to `{name}` already"));
        return Ok(());
    }
    let secret = match (&credential.token, &credential.password) {
        (Some(_), _) => " with its token, as plain text (mode 0600)",
        (None, Some(_)) => " with its password, as plain text (mode 0600)",
        (None, None) => "",
    };
    context.output.note(format!("wrote `{name}` into {file}{secret}"));
    if was_local {
        context.output.note(
            "note: gateway.mode was local; an OpenClaw gateway does not start on this machine now",
        );
    }
    Ok(())
}

/// What has to change; a secret that is referred to and right is left where it is.
fn edits(current: &Current, way: Way, credential: &Credential) -> Vec<Edit> {
    let scheme = if way.tls_fingerprint.is_some() { "wss" } else { "ws" };
    let remote = |key: &str| KeyPath::of(&["gateway", "remote", key]);
    let mut edits = vec![
        Edit::Set(KeyPath::of(&["gateway", "mode"]), json!("remote")),
        Edit::Set(remote("url"), json!(format!("{scheme}://127.0.0.1:{}", way.port))),
        Edit::Set(remote("transport"), json!("direct")),
    ];
    let pin = remote("tlsFingerprint");
    match way.tls_fingerprint {
        Some(fingerprint) => edits.push(Edit::Set(pin, json!(fingerprint))),
        None if pin.find(&current.own).is_some() => edits.push(Edit::Unset(pin)),
        None => {}
    }
    for (key, secret) in [("token", &credential.token), ("password", &credential.password)] {
        let path = remote(key);
        let there = path.find(&current.whole);
        match secret.as_ref().map(|secret| Value::from(secret.expose())) {
            Some(secret) if there != Some(&secret) => edits.push(Edit::Set(path, secret)),
            None if path.find(&current.own).is_some() => edits.push(Edit::Unset(path)),
            Some(_) | None => {}
        }
    }
    edits
}
