//! `openclaw devices`: who is paired with the gateway, who asks to be, and with which rights.

use std::{process::ExitCode, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Context,
    output::period,
    talk::{Talk, typed, with_gateway},
    which::Which,
};
use crate::{
    problem::{Class, Problem},
    protocol::{ApprovedDevice, DeviceAbout, DevicePairing, DeviceRequest, PairedDevice},
};

/// The method that lists everybody.
pub(super) const LIST: &str = "device.pair.list";

/// Arguments of `devices`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show who asks to be paired, and who is
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Let a device in that asks; without an id, show the latest request
    Approve {
        /// The request, as `devices list` shows it
        #[arg(value_name = "REQUEST", conflicts_with = "latest")]
        request: Option<String>,
        /// Show the latest request and how to approve it
        #[arg(long)]
        latest: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Turn a device away that asks
    Reject {
        /// The request, as `devices list` shows it
        #[arg(value_name = "REQUEST")]
        request: String,
        #[command(flatten)]
        which: Which,
    },
    /// Forget a paired device and end its connections
    Remove {
        /// The device, as `devices list` shows it
        #[arg(value_name = "DEVICE")]
        device: String,
        #[command(flatten)]
        which: Which,
    },
    /// Call a paired device something else
    Rename {
        /// The device, as `devices list` shows it
        #[arg(long, value_name = "DEVICE")]
        device: String,
        /// Its new name, at most 64 characters
        #[arg(long, value_name = "NAME")]
        name: String,
        #[command(flatten)]
        which: Which,
    },
    /// Forget every paired device; with the last one our gateway ends the setup codes not used yet
    Clear {
        /// Yes, all of them
        #[arg(long)]
        yes: bool,
        /// Turn away those that ask as well
        #[arg(long)]
        pending: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Replace a device's token and end its connections
    Rotate {
        #[command(flatten)]
        token: Token,
        /// What the new token holds; once for each scope
        #[arg(long, value_name = "SCOPE", conflicts_with = "no_scopes")]
        scope: Vec<String>,
        /// The new token holds no scopes
        #[arg(long)]
        no_scopes: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Take a device's token back and end its connections
    Revoke {
        #[command(flatten)]
        token: Token,
        #[command(flatten)]
        which: Which,
    },
    /// Make a code with which one machine joins as a node, within ten minutes
    JoinCode {
        /// How that machine reaches the gateway: wss://…, or ws:// on loopback or a private network
        #[arg(long, value_name = "URL")]
        public_url: Option<String>,
        #[command(flatten)]
        which: Which,
    },
}

/// Whose token.
#[derive(Debug, clap::Args)]
struct Token {
    /// The device, as `devices list` shows it
    #[arg(long, value_name = "DEVICE")]
    device: String,
    /// `operator` or `node`
    #[arg(long, value_name = "ROLE")]
    role: String,
}

/// Runs one of the `devices` commands.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::List { which } => list(context, which),
        Command::Approve { request: Some(request), which, .. } => change(
            context,
            which,
            "device.pair.approve",
            &json!({"requestId": request}),
            |answer| approved(answer, request),
        ),
        Command::Approve { request: None, which, .. } => preview(context, which),
        Command::Reject { request, which } => {
            change(context, which, "device.pair.reject", &json!({"requestId": request}), |_| {
                format!("rejected {request}")
            })
        }
        Command::Remove { device, which } => {
            change(context, which, "device.pair.remove", &json!({"deviceId": device}), |_| {
                format!("removed {device}")
            })
        }
        Command::Rename { device, name, which } => {
            let params = json!({"deviceId": device, "label": name});
            change(context, which, "device.pair.rename", &params, |_| {
                format!("{device} is called {name}")
            })
        }
        Command::Clear { yes, pending, which } => clear(context, which, *yes, *pending),
        Command::Rotate { token: Token { device, role }, scope, no_scopes, which } => {
            let mut params = json!({"deviceId": device, "role": role});
            if let (Some(fields), true) = (params.as_object_mut(), *no_scopes || !scope.is_empty())
            {
                fields.insert("scopes".to_owned(), json!(scope));
            }
            change(context, which, "device.token.rotate", &params, |_| {
                format!("rotated the {role} token of {device}")
            })
        }
        Command::Revoke { token: Token { device, role }, which } => {
            let params = json!({"deviceId": device, "role": role});
            change(context, which, "device.token.revoke", &params, |_| {
                format!("revoked the {role} token of {device}")
            })
        }
        Command::JoinCode { public_url, which } => join_code(context, which, public_url.as_deref()),
    }
}

/// Who is approved, and all that it may do now; less, where another gateway tells less of it.
fn approved(answer: &Value, request: &str) -> String {
    let Ok(ApprovedDevice { device, .. }) = ApprovedDevice::deserialize(answer) else {
        return format!("approved {request}");
    };
    let mut said = format!("approved {}", shown(&device.device_id));
    for (words, before) in [(&device.roles, ", now "), (&device.scopes, " with ")] {
        if !words.is_empty() {
            said += &format!("{before}{}", shown_list(words));
        }
    }
    said
}

/// Calls a method that changes something.
fn change(
    context: &Context,
    which: &Which,
    method: &str,
    params: &Value,
    said: impl Fn(&Value) -> String,
) -> anyhow::Result<ExitCode> {
    with_gateway(context, which, Duration::ZERO, async |talk| {
        let answer = talk.call(method, params.clone()).await?;
        if context.output.is_json() {
            return context.output.value(&answer);
        }
        context.output.line(said(&answer));
        Ok(())
    })
}

/// Who asks and who is paired, as far as we know of it.
async fn pairing(talk: &Talk) -> Result<DevicePairing, Problem> {
    typed(LIST, &talk.call(LIST, json!({})).await?)
}

fn list(context: &Context, which: &Which) -> anyhow::Result<ExitCode> {
    with_gateway(context, which, Duration::ZERO, async |talk| {
        if context.output.is_json() {
            // Another gateway's list may hold more than we know of.
            return context.output.value(&talk.call(LIST, json!({})).await?);
        }
        let pairing = pairing(talk).await?;
        let now = jiff::Timestamp::now().as_millisecond();
        for request in &pairing.pending {
            for line in request_lines(request, &pairing.paired, now) {
                context.output.line(line);
            }
        }
        for device in &pairing.paired {
            for line in device_lines(device, now) {
                context.output.line(line);
            }
        }
        if pairing.pending.is_empty() && pairing.paired.is_empty() {
            context.output.line("no device is paired, and none asks to be");
        }
        Ok(())
    })
}

/// What the latest request is, and how to approve it; approves nothing.
fn preview(context: &Context, which: &Which) -> anyhow::Result<ExitCode> {
    with_gateway(context, which, Duration::ZERO, async |talk| {
        let pairing = pairing(talk).await?;
        let Some(latest) = pairing.pending.iter().max_by_key(|request| request.ts) else {
            return Err(nobody_asks().into());
        };
        let now = jiff::Timestamp::now().as_millisecond();
        if !context.output.is_json() {
            for line in request_lines(latest, &pairing.paired, now) {
                context.output.line(line);
            }
        }
        let message = "nothing was approved: a request is approved by its id";
        Err(Problem::new(Class::Rpc, message).fix(approval("devices", &latest.request_id)).into())
    })
}

fn nobody_asks() -> Problem {
    Problem::new(Class::Rpc, "no device asks to be paired; a request is kept for five minutes").fix(
        "have the device connect (again), then: openclaw devices list; what a paired node asks to \
         offer is at: openclaw nodes pending",
    )
}

fn clear(context: &Context, which: &Which, yes: bool, pending: bool) -> anyhow::Result<ExitCode> {
    if !yes {
        let what = "this forgets every paired device";
        return Err(Problem::new(Class::Usage, what).fix("openclaw devices clear --yes").into());
    }
    with_gateway(context, which, Duration::ZERO, async |talk| {
        let pairing = pairing(talk).await?;
        let (mut removed, mut rejected) = (Vec::new(), Vec::new());
        for device in &pairing.paired {
            let params = json!({"deviceId": device.device_id});
            talk.call("device.pair.remove", params).await?;
            removed.push(&device.device_id);
        }
        for request in pairing.pending.iter().filter(|_| pending) {
            let params = json!({"requestId": request.request_id});
            talk.call("device.pair.reject", params).await?;
            rejected.push(&request.request_id);
        }
        if context.output.is_json() {
            let answer = json!({"removedDevices": removed, "rejectedPending": rejected});
            return context.output.value(&answer);
        }
        let (removed, rejected) = (removed.len(), rejected.len());
        context.output.line(format!("removed {removed} devices, rejected {rejected} requests"));
        if removed == 0 {
            context.output.line(
                "no device was paired; a setup code that nobody has used is good for its ten minutes",
            );
        }
        Ok(())
    })
}

fn join_code(
    context: &Context,
    which: &Which,
    public_url: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let Some(public_url) = public_url else {
        let what = "a gateway does not know how another machine reaches it";
        return Err(Problem::new(Class::Usage, what)
            .fix("openclaw devices join-code --public-url wss://gateway.example")
            .into());
    };
    let params = json!({"bootstrapProfile": "node", "joinUrl": true, "includeQr": false,
        "publicUrl": public_url});
    change(context, which, "device.pair.setupCode", &params, |answer| {
        format!(
            "On the machine that joins, within ten minutes:\n  npx openclaw connect {}\n\
             Then here, for what it asks to offer:\n  openclaw nodes pending",
            join_target(answer)
        )
    })
}

/// What `openclaw connect` takes: the address of the code, or the code itself where that address
/// is plain http:// to another machine, which it refuses to fetch from.
fn join_target(answer: &Value) -> &str {
    let of = |name: &str| answer.get(name).and_then(Value::as_str);
    let is_fetched = |url: &&str| {
        let url = url::Url::parse(url);
        url.is_ok_and(|url| {
            url.scheme() == "https" || url.host().as_ref().is_some_and(is_this_machine)
        })
    };
    of("joinUrl").filter(is_fetched).or_else(|| of("setupCode")).unwrap_or_default()
}

fn is_this_machine(host: &url::Host<&str>) -> bool {
    match host {
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
        url::Host::Domain(name) => *name == "localhost",
    }
}

fn request_lines(request: &DeviceRequest, paired: &[PairedDevice], now: i64) -> [String; 2] {
    let age = u64::try_from(now).unwrap_or(0).saturating_sub(request.ts);
    let known = paired.iter().find(|device| device.device_id == request.device_id);
    let asks = match known {
        None => "asks to be paired",
        Some(known) if !known.roles.contains(&request.role) => "asks for another role",
        Some(_) => "asks for more scopes",
    };
    let from =
        request.about.remote_ip.as_deref().map(|ip| format!(" from {ip}")).unwrap_or_default();
    let name = name_of(None, &request.about, &request.device_id);
    let scopes = listed(&request.scopes);
    [
        format!("{} · {name} {asks}{from}, {} ago", request.request_id, period(age)),
        format!(
            "    {} with {scopes} · {}",
            shown(&request.role),
            approval("devices", &request.request_id)
        ),
    ]
}

/// A device's id and name, as `devices list` shows them.
pub(super) fn summary(device: &PairedDevice) -> String {
    let name = name_of(device.operator_label.as_ref(), &device.about, &device.device_id);
    format!("{} · {name}", shown(&device.device_id))
}

/// Why a device was let in, in words.
pub(super) fn reason(device: &PairedDevice) -> String {
    match device.approved_via.as_str() {
        "silent" => "for knowing the gateway's secret".to_owned(),
        "owner" => "by its owner".to_owned(),
        "bootstrap" => "by a setup code".to_owned(),
        other => format!("by {}", shown(other)),
    }
}

/// When and why a device was let in; nothing where the gateway does not tell.
fn approval_of(device: &PairedDevice, now: i64) -> String {
    if device.approved_via.is_empty() {
        return String::new();
    }
    let how = reason(device);
    if device.approved_at_ms == 0 {
        return format!(" · let in {how}");
    }
    let age = u64::try_from(now).unwrap_or(0).saturating_sub(device.approved_at_ms);
    format!(" · let in {} ago {how}", period(age))
}

fn device_lines(device: &PairedDevice, now: i64) -> [String; 2] {
    let here = if device.connected == Some(true) { " · connected" } else { "" };
    let tokens: Vec<String> = device
        .tokens
        .iter()
        .map(|token| {
            let word = if token.revoked_at_ms.is_some() { "revoked" } else { "paired" };
            format!("{} ({word}) with {}", token.role, listed(&token.scopes))
        })
        .collect();
    let approval = approval_of(device, now);
    [format!("{}{here}{approval}", summary(device)), format!("    {}", tokens.join("; "))]
}

fn name_of(label: Option<&String>, about: &DeviceAbout, id: &str) -> String {
    let name = label.or(about.display_name.as_ref()).or(about.client_id.as_ref());
    shown(name.map_or(id, String::as_str))
}

/// The command of a group that approves a request; a gateway's text is never part of one.
pub(super) fn approval(group: &str, id: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_id = !id.is_empty() && !id.starts_with('-') && id.chars().all(is_word);
    format!("openclaw {group} approve {}", if is_id { id } else { "REQUEST" })
}

/// A device's own words, which may hold anything, on one line of a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn listed(scopes: &[String]) -> String {
    if scopes.is_empty() { "no scopes".to_owned() } else { shown_list(scopes) }
}

fn shown_list(scopes: &[String]) -> String {
    scopes.iter().map(|scope| shown(scope)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_own_words_do_not_reach_the_terminal_as_commands() {
        let about = DeviceAbout {
            display_name: Some("evil\u{1b}[2J\nname".to_owned()),
            ..DeviceAbout::default()
        };
        assert_eq!(name_of(None, &about, "id"), "evil[2Jname");
    }

    #[test]
    fn a_request_says_who_wants_what_and_how_to_give_it() {
        let request = DeviceRequest {
            request_id: "r-1".to_owned(),
            device_id: "a".to_owned(),
            role: "operator".to_owned(),
            scopes: vec!["operator.read".to_owned()],
            ts: 1_000,
            ..DeviceRequest::default()
        };
        let [first, second] = request_lines(&request, &[], 61_000);
        assert!(first.starts_with("r-1 · a asks to be paired, "), "{first}");
        assert!(second.ends_with("openclaw devices approve r-1"), "{second}");
        let known = PairedDevice {
            device_id: "a".to_owned(),
            roles: vec!["operator".to_owned()],
            ..PairedDevice::default()
        };
        let [first, _] = request_lines(&request, std::slice::from_ref(&known), 61_000);
        assert!(first.contains("asks for more scopes"), "{first}");
        assert_eq!(approval("nodes", "x; rm -rf ~"), "openclaw nodes approve REQUEST");
    }

    #[test]
    fn an_approval_says_all_that_the_device_may_do_now() {
        let device = PairedDevice {
            device_id: "abc\u{1b}[2J".to_owned(),
            roles: vec!["operator".to_owned(), "node".to_owned()],
            scopes: vec!["operator.read".to_owned(), "operator.write".to_owned()],
            ..PairedDevice::default()
        };
        let answer = json!(ApprovedDevice { request_id: "r".to_owned(), device });
        let said = approved(&answer, "r");
        assert_eq!(said, "approved abc[2J, now operator, node with operator.read, operator.write");
        let node = json!({"requestId": "r", "device": {"deviceId": "abc", "roles": ["node"]}});
        assert_eq!(approved(&node, "r"), "approved abc, now node", "no scopes, and little told");
        for strange in [json!({}), json!({"device": {"roles": "all"}}), json!(null)] {
            assert_eq!(approved(&strange, "r-1"), "approved r-1");
        }
    }

    #[test]
    fn what_joins_is_an_address_that_can_be_fetched_from_or_the_code_itself() {
        for (url, target) in [
            ("https://gw.example/j/n", "https://gw.example/j/n"),
            ("http://127.0.0.1:1/j/n", "http://127.0.0.1:1/j/n"),
            ("http://[::1]:1/j/n", "http://[::1]:1/j/n"),
            ("http://192.168.1.7:1/j/n", "code"),
            ("http://box.local:1/j/n", "code"),
        ] {
            assert_eq!(join_target(&json!({"joinUrl": url, "setupCode": "code"})), target);
        }
    }

    #[test]
    fn with_nobody_asking_a_person_learns_what_to_type() {
        let fix = nobody_asks().fix.unwrap_or_default();
        assert!(fix.contains("openclaw devices list") && fix.contains("openclaw nodes pending"));
    }
}
