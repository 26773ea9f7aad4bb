//! A new `rs/gateway-token` in the place of one that others may know, and what is left of the old one.
//!
//! Nothing is replaced where another secret counts: that would look like safety and be none.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{
    super::{Context, devices, which::left},
    finding::{Finding, Mend, Severity},
};
use crate::{
    client::{Asked, Credential, EVERYTHING, OwnDevice, Plan, Source},
    config::{AuthMode, Gateway, Handed, OpenClaw, ReloadMode, file},
    gateway::{self, Runner},
    problem::Problem,
    protocol::{DevicePairing, PairedDevice},
    secret::Secret,
};

/// How long a gateway that runs may take to hear of it; it looks every two seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is asked meanwhile.
const LOOK: Duration = Duration::from_millis(300);
/// What makes a new token for openclaw.json.
const SET: &str = "openclaw config set gateway.auth.token \"$(openssl rand -base64 32)\"";

/// A renewal that may be made.
pub(super) struct Renewal {
    old: Secret,
    runner: Option<Runner>,
    /// Whether a gateway that runs takes it up by itself.
    is_heard: bool,
}

/// Decides whether a new token would be one that counts; adds what `mend` is to do about it, or why
/// nothing is done.
pub(super) async fn prepare(
    context: &Context,
    config: Option<&OpenClaw>,
    findings: &mut Vec<Finding>,
) -> Option<Renewal> {
    let path = context.paths.gateway_token();
    let refuse = |what: String, fix: &str| {
        Finding::new("secret", Severity::Error, format!("no token was replaced: {what}"))
            .why("what others may know of goes on opening the gateway")
            .fix(fix)
    };
    let Some(config) = config else {
        findings.push(refuse("openclaw.json cannot be read".into(), "openclaw config validate"));
        return None;
    };
    if let Some((what, fix)) = elsewhere(&config.gateway) {
        findings.push(refuse(what.to_owned(), fix));
        return None;
    }
    let runner = gateway::running(&context.paths);
    let old = file::read_private(&path).ok().flatten().map(|text| Secret::new(text.trim()));
    if old.as_ref().is_some_and(|old| old.expose().is_empty()) {
        let fix = format!("rm {} (the next start of the gateway makes one)", path.display());
        findings.push(refuse(format!("{} is empty", path.display()), &fix));
        return None;
    }
    let Some(old) = old else {
        let what = format!("there is no {}", path.display());
        findings.push(refuse(
            what,
            "replace the file of --token-file, or the variable, that the gateway is started with",
        ));
        return None;
    };
    match &runner {
        Some(Runner { is_ours: false, pid, .. }) => {
            let what = format!("OpenClaw's own gateway runs in this profile (pid {pid})");
            findings.push(refuse(what, SET));
            return None;
        }
        Some(runner) => {
            let opens = opens(context, runner, &old, Instant::now() + PATIENCE).await;
            if matches!(opens, Ok(false)) {
                let what = format!(
                    "the gateway that runs (pid {}) was started with another one",
                    runner.pid
                );
                findings.push(refuse(what, "replace the file of --token-file, or the variable, that it was started with; openclaw gateway restart"));
                return None;
            }
        }
        None => {}
    }
    findings.extend(overridden());
    if !findings.iter().any(|finding| matches!(finding.mend, Some(Mend::Renew(_)))) {
        findings.push(
            Finding::new("secret", Severity::Note, "rs/gateway-token is to be replaced")
                .why("you asked for it")
                .fix("openclaw doctor --fix --regenerate-token")
                .mend(Mend::Renew(path)),
        );
    }
    Some(Renewal { old, runner, is_heard: config.gateway.reload != ReloadMode::Off })
}

/// Where another secret than `rs/gateway-token` counts, by the file.
fn elsewhere(gateway: &Gateway) -> Option<(&'static str, &'static str)> {
    let auth = &gateway.auth;
    match (auth.mode, &auth.token, &auth.password) {
        (Some(AuthMode::None), ..) => Some((
            "gateway.auth.mode is `none`, and no token is asked for",
            "openclaw config set gateway.auth.mode token",
        )),
        (Some(AuthMode::TrustedProxy), ..) => Some((
            "gateway.auth.mode is `trusted-proxy`, and no token counts",
            "take the user away where the proxy knows him; a password is at gateway.auth.password",
        )),
        (Some(AuthMode::Password), ..) | (None, None, Some(_)) => Some((
            "the gateway has a password, and no token counts",
            "openclaw config set gateway.auth.password \"$(openssl rand -base64 32)\"",
        )),
        (Some(AuthMode::Token) | None, Some(_), _) => {
            Some(("the token stands at gateway.auth.token in openclaw.json", SET))
        }
        (Some(AuthMode::Token) | None, None, _) => None,
    }
}

/// A variable that goes before the file for whatever is started from here.
fn overridden() -> Option<Finding> {
    let name = ["OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD"]
        .into_iter()
        .find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let handed = || Handed::GatewayToken.file().map(|_| "openclaw-gateway-token");
    let name = name.or_else(handed)?;
    Some(
        Finding::new("secret", Severity::Warning, format!("{name} goes before rs/gateway-token"))
            .why("a gateway that is started from here takes that, and not the new token")
            .fix(format!("unset {name}")),
    )
}

/// Waits until the old token opens nothing, and says what is left to do.
pub(super) async fn follow(context: &Context, renewal: &Renewal) -> Vec<Finding> {
    let Some(runner) = &renewal.runner else {
        return vec![
            Finding::new(
                "devices",
                Severity::Note,
                "no gateway runs; the next one has the new token",
            )
            .why(
                "devices that were paired with the old token have tokens of their own, which go on",
            )
            .fix("openclaw gateway start, then: openclaw devices list"),
        ];
    };
    let deadline = Instant::now() + PATIENCE;
    match renewed(context, runner, renewal, deadline).await {
        Ok(None) => {}
        Ok(Some(finding)) => return vec![finding],
        Err(problem) => return vec![unsure(runner, &problem)],
    }
    match paired(context, runner, deadline).await {
        Ok(pairing) => {
            let own = OwnDevice::known(&context.paths).map(|device| device.id());
            survivors(own.as_deref(), &pairing).into_iter().collect()
        }
        Err(problem) => vec![
            Finding::new(
                "devices",
                Severity::Warning,
                format!("who is paired could not be asked: {}", problem.message),
            )
            .why(
                "devices that were paired with the old token have tokens of their own, which go on",
            )
            .fix("openclaw devices list"),
        ],
    }
}

/// `None` once the old token opens nothing and the new one does.
async fn renewed(
    context: &Context,
    runner: &Runner,
    renewal: &Renewal,
    deadline: Instant,
) -> Result<Option<Finding>, Problem> {
    while opens(context, runner, &renewal.old, deadline).await? {
        if !renewal.is_heard || left(deadline) <= LOOK {
            return Ok(Some(
                Finding::new(
                    "secret",
                    Severity::Error,
                    format!("the gateway that runs (pid {}) still takes the old token", runner.pid),
                )
                .why("only a restart takes it up where gateway.reload.mode is `off`")
                .fix("openclaw gateway restart"),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
    let new = file::read_private(&context.paths.gateway_token())?.unwrap_or_default();
    if opens(context, runner, &Secret::new(new.trim()), deadline).await? {
        return Ok(None);
    }
    Ok(Some(
        Finding::new("secret", Severity::Error, "the gateway that runs takes neither token")
            .why("something else was changed at the same time")
            .fix("openclaw gateway restart"),
    ))
}

fn unsure(runner: &Runner, problem: &Problem) -> Finding {
    let what = format!(
        "whether the gateway that runs (pid {}) has the new token could not be asked: {}",
        runner.pid, problem.message
    );
    Finding::new("secret", Severity::Error, what)
        .why("the old token may go on opening it")
        .fix("openclaw gateway restart")
}

fn plan(context: &Context, runner: &Runner, token: Option<Secret>) -> Result<Plan, Problem> {
    let asked = Asked { local_gateway: true, port: runner.port, ..Asked::default() };
    Plan::make(&context.paths, &asked, Credential::new(token, None, Source::Given))
}

async fn opens(
    context: &Context,
    runner: &Runner,
    token: &Secret,
    deadline: Instant,
) -> Result<bool, Problem> {
    plan(context, runner, Some(token.clone()))?.opens(deadline).await
}

async fn paired(
    context: &Context,
    runner: &Runner,
    deadline: Instant,
) -> Result<DevicePairing, Problem> {
    let token = file::read_private(&context.paths.gateway_token())?;
    let token = token.map(|token| Secret::new(token.trim()));
    let reached = plan(context, runner, token)?.reach(EVERYTHING, deadline).await?;
    let answer = reached.call(devices::LIST, Some(json!({})), left(deadline)).await;
    reached.gateway.close().await;
    super::super::talk::typed(devices::LIST, &answer?)
}

/// Who comes in without the new token and may owe that to the old one: for knowing it, or let in by
/// whoever knew it, which is all that an operator is let in by.
fn survivors(own: Option<&str>, pairing: &DevicePairing) -> Option<Finding> {
    let may_owe = |device: &&PairedDevice| {
        is_in(device) && (device.approved_via == "silent" || may_operate(device))
    };
    let names: Vec<String> = pairing
        .paired
        .iter()
        .filter(may_owe)
        .map(|device| {
            let mine = own == Some(device.device_id.as_str());
            let mine = if mine { " (this one)" } else { "" };
            format!("{}{mine}, let in {}", devices::summary(device), devices::reason(device))
        })
        .collect();
    if names.is_empty() {
        return None;
    }
    let what = format!("still in, each with a token of its own: {}", names.join("; "));
    Some(
        Finding::new("devices", Severity::Warning, what)
            .why("a device's token opens the gateway whatever the secret is now, and whoever knew the old one may have let it in")
            .fix("openclaw devices remove DEVICE for each that is not yours, or all: openclaw devices clear --yes --pending"),
    )
}

/// Whether a token of the device is good.
fn is_in(device: &PairedDevice) -> bool {
    device.tokens.iter().any(|token| token.revoked_at_ms.is_none())
}

/// Whether it holds a good token with scopes of an operator.
fn may_operate(device: &PairedDevice) -> bool {
    device.tokens.iter().any(|token| token.revoked_at_ms.is_none() && !token.scopes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::SecretInput, protocol::DeviceToken};

    #[test]
    fn who_was_let_in_for_knowing_the_old_secret_is_named_as_long_as_a_token_is_good() {
        let with = |id: &str, via: &str, revoked_at_ms, scopes: &[&str]| PairedDevice {
            device_id: id.to_owned(),
            approved_via: via.to_owned(),
            tokens: vec![DeviceToken {
                revoked_at_ms,
                scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
                ..DeviceToken::default()
            }],
            ..PairedDevice::default()
        };
        let device = |id: &str, via: &str, revoked_at_ms| with(id, via, revoked_at_ms, &[]);
        let admin = ["operator.admin"];
        let paired = vec![
            device("stranger", "silent", None),
            device("mine", "silent", None),
            device("gone", "silent", Some(1)),
            device("camera", "owner", None),
            with("telephone", "bootstrap", None, &admin),
            with("approved", "owner", None, &admin),
            with("former", "bootstrap", Some(1), &admin),
        ];
        let pairing = DevicePairing { paired, ..DevicePairing::default() };
        let found = survivors(Some("mine"), &pairing).unwrap();
        assert!(found.what.contains("stranger") && found.what.contains("(this one)"), "{found:?}");
        for (name, how) in [("telephone", "by a setup code"), ("approved", "by its owner")] {
            let said = found.what.split(';').find(|said| said.contains(name)).unwrap();
            assert!(said.contains(how), "{said}");
        }
        for out in ["gone", "camera", "former"] {
            assert!(!found.what.contains(out), "{found:?}");
        }
        assert!(found.fix.contains("openclaw devices remove"), "{found:?}");
        assert_eq!(survivors(None, &DevicePairing::default()), None);
    }

    #[test]
    fn where_another_secret_counts_it_is_named_with_what_replaces_it() {
        let known = || Some(SecretInput::Known(Secret::new("s")));
        let auth = |mode, token: bool, password: bool| {
            let mut gateway = Gateway::default();
            gateway.auth.mode = mode;
            gateway.auth.token = token.then(known).flatten();
            gateway.auth.password = password.then(known).flatten();
            gateway
        };
        for (auth, word) in [
            (auth(None, true, false), "gateway.auth.token"),
            (auth(Some(AuthMode::Token), true, true), "gateway.auth.token"),
            (auth(None, false, true), "password"),
            (auth(Some(AuthMode::Password), true, true), "password"),
            (auth(Some(AuthMode::None), true, false), "`none`"),
            (auth(Some(AuthMode::TrustedProxy), false, false), "`trusted-proxy`"),
        ] {
            let (what, _) = elsewhere(&auth).unwrap();
            assert!(what.contains(word), "{what}");
        }
        assert_eq!(elsewhere(&auth(None, false, false)), None);
        assert_eq!(elsewhere(&auth(Some(AuthMode::Token), false, true)), None);
    }
}
