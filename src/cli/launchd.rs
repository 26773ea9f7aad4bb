//! Hands an agent to launchd on macOS, and takes it back.

use std::{process::ExitCode, time::Duration};

use serde_json::json;
use tokio::{process::Command, time::timeout};

use super::{Context, gateway_service::Verb, installed::Place, systemd};
use crate::{
    problem::{Class, Problem},
    service::{self, Owner, Service, Starter},
};

/// How long `launchctl` may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Writes the agent and has it started.
pub(super) async fn install(
    context: &Context,
    service: &Service,
    place: &Place,
) -> anyhow::Result<ExitCode> {
    let file = place.file.as_path();
    if service.manager != Starter::User {
        return Err(Problem::new(Class::Usage, "--system is for systemd only")
            .fix(format!("openclaw {} install, as the user who logs in", place.part.group()))
            .into());
    }
    let old = std::fs::read(file).ok().map(|old| String::from_utf8_lossy(&old).into_owned());
    if old.as_deref().is_some_and(|old| service::judge(old) != Owner::Ours) {
        let message = format!("{} was not written by us, and is not touched", file.display());
        return Err(Problem::new(Class::Config, message).fix("move it away").into());
    }
    let text = service::plist(service)
        .map_err(|why| Problem::new(Class::Config, why).fix("move it to a plainer path"))?;
    systemd::write(file, &text)?;
    let label = label(place);
    // One that is not loaded cannot be taken back, which is as good.
    let _absent = launchctl(&["bootout", &format!("{}/{label}", domain())]).await;
    launchctl(&["bootstrap", &domain(), &file.to_string_lossy()]).await?;
    if context.output.is_json() {
        let value = json!({"ok": true, "unit": label, "path": file, "scope": "user"});
        context.output.value(&value)?;
    } else {
        context.output.line(format!("{label}: started; written to {}", file.display()));
        context.output.line("  it starts at your login and ends with your logout");
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the agent and removes its file.
pub(super) async fn uninstall(place: &Place) -> Result<(), Problem> {
    let file = place.file.as_path();
    let _absent = launchctl(&["bootout", &format!("{}/{}", domain(), label(place))]).await;
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Problem::new(Class::Config, format!("cannot remove {}: {error}", file.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Starts, stops or restarts the agent; the word of what was done.
pub(super) async fn control(place: &Place, verb: Verb) -> Result<&'static str, Problem> {
    let agent = format!("{}/{}", domain(), label(place));
    if !place.file.exists() {
        if verb == Verb::Stop {
            return Ok("not-loaded");
        }
        return Err(Problem::new(Class::Config, format!("{} is not installed", label(place)))
            .fix("openclaw gateway install"));
    }
    match verb {
        Verb::Start => {
            // One that is loaded already is only to be started.
            let _loaded = launchctl(&["bootstrap", &domain(), &place.file.to_string_lossy()]).await;
            launchctl(&["kickstart", &agent]).await.map(|()| "started")
        }
        Verb::Stop => launchctl(&["bootout", &agent]).await.map(|()| "stopped"),
        Verb::Restart => launchctl(&["kickstart", "-k", &agent]).await.map(|()| "restarted"),
    }
}

fn label(place: &Place) -> String {
    service::label(place.part, place.paths.profile.as_deref())
}

fn domain() -> String {
    format!("gui/{}", nix::unistd::getuid())
}

async fn launchctl(words: &[&str]) -> Result<(), Problem> {
    let line = format!("launchctl {}", words.join(" "));
    let failed = |why: String| Problem::new(Class::Config, format!("{line}: {why}"));
    let mut command = Command::new("launchctl");
    command.args(words).stdin(std::process::Stdio::null()).kill_on_drop(true);
    match timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no end within {} s", LIMIT.as_secs()))),
    }
}
