//! Tailscale's own program: who somebody on the tailnet is, and the way that it publishes for us.

mod answers;
mod route;
mod whois;

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

pub(super) use route::{Plan, Route, claim};
pub(super) use whois::{Unverified, Whois};

/// How long a question may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Where the program is on a Mac that has it from the store.
const IN_THE_STORE: &str = "/Applications/Tailscale.app/Contents/MacOS/Tailscale";

/// The program: on the PATH, or where macOS has it.
fn program() -> PathBuf {
    let store = PathBuf::from(IN_THE_STORE);
    if cfg!(target_os = "macos") && store.exists() { store } else { PathBuf::from("tailscale") }
}

/// Takes what opens the gateway out of a child's environment.
fn keep_secrets_from(command: &mut Command) {
    for name in ["OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD", "CREDENTIALS_DIRECTORY"] {
        command.env_remove(name);
    }
}

/// What a question is answered with.
struct Answer {
    is_success: bool,
    out: String,
    err: String,
}

/// Asks; an error where the program is missing or does not answer within [`ANSWER_LIMIT`].
async fn ask(program: &PathBuf, arguments: &[&str]) -> io::Result<Answer> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    keep_secrets_from(&mut command);
    let output = timeout(ANSWER_LIMIT, command.output())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(Answer {
        is_success: output.status.success(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}
