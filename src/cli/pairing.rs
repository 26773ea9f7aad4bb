//! `openclaw pairing`: who wrote to a channel of the gateway, and waits to be let in.

mod choice;

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};

use self::choice::{channel_of, named, request_of};
use super::{
    Context,
    devices::shown,
    output::period,
    talk::{Talk, typed, with_gateway},
    which::Which,
};
use crate::{
    problem::{Class, Problem},
    protocol::{ChannelPairing, ChannelPairingAsk, SenderApproved, SenderDecision, SenderRequest},
};

/// The method that lists everybody.
const LIST: &str = "channels.pairing.list";
/// The method that lets a person in.
const APPROVE: &str = "channels.pairing.approve";
/// The method that forgets a request.
const DISMISS: &str = "channels.pairing.dismiss";

/// Arguments of `pairing`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show who waits to be let in
    List {
        /// The channel; not needed where only one asks before it lets people in
        #[arg(value_name = "CHANNEL")]
        positional: Option<String>,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
    },
    /// Let a person in
    Approve {
        #[command(flatten)]
        meant: Meant,
        /// Tell them on the same channel
        #[arg(long)]
        notify: bool,
        /// Make them the command owner, where there is none
        #[arg(long)]
        owner: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Forget a request; the person may ask again
    Dismiss {
        #[command(flatten)]
        meant: Meant,
        #[command(flatten)]
        which: Which,
    },
}

/// Where people write to.
#[derive(Debug, clap::Args)]
struct Place {
    /// The channel, said by name
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Only this account of the channel
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    account: Option<String>,
}

/// Whose request.
#[derive(Debug, clap::Args)]
#[command(allow_missing_positional = true)]
struct Meant {
    /// The channel; not needed where only one asks before it lets people in
    #[arg(value_name = "CHANNEL", conflicts_with = "channel")]
    positional: Option<String>,
    /// The request or its sender, as `pairing list` shows them
    #[arg(value_name = "REQUEST", required = true)]
    request: String,
    #[command(flatten)]
    place: Place,
}

fn account(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("an account must not be blank"),
        account => Ok(account.to_owned()),
    }
}

/// Runs one of the `pairing` commands.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::List { positional, place, which } => {
            list(context, which, positional.as_deref(), place)
        }
        Command::Approve { meant, notify, owner, which } => {
            approve(context, which, meant, *notify, *owner)
        }
        Command::Dismiss { meant, which } => dismiss(context, which, meant),
    }
}

fn list(
    context: &Context,
    which: &Which,
    positional: Option<&str>,
    place: &Place,
) -> anyhow::Result<ExitCode> {
    let ask = asked(positional, place)?;
    with_gateway(context, which, Duration::ZERO, async |talk| {
        let (answer, pairing) = waiting(talk, &ask).await?;
        let channel = channel_of(&ask, &pairing)?;
        let is_here = |request: &SenderRequest| request.channel == channel;
        if context.output.is_json() {
            return context.output.value(&listed(&channel, &answer));
        }
        let here: Vec<_> = pairing.requests.iter().filter(|request| is_here(request)).collect();
        let now = jiff::Timestamp::now();
        for line in here.iter().flat_map(|request| lines(request, now)) {
            context.output.line(line);
        }
        if here.is_empty() {
            context.output.line(format!("nobody waits to be let in by {channel}"));
        } else if !pairing.command_owner_configured {
            context.output.note(
                "this gateway has no command owner yet: approve with --owner makes the person one",
            );
        }
        Ok(())
    })
}

fn approve(
    context: &Context,
    which: &Which,
    meant: &Meant,
    notify: bool,
    owner: bool,
) -> anyhow::Result<ExitCode> {
    let ask = asked(meant.positional.as_deref(), &meant.place)?;
    with_gateway(context, which, Duration::ZERO, async |talk| {
        let mut decision = decision(talk, &ask, &meant.request).await?;
        decision.notify = Some(notify);
        decision.bootstrap_command_owner = owner.then_some(true);
        let answer = talk.call(APPROVE, json!(decision)).await?;
        if context.output.is_json() {
            return context.output.value(&answer);
        }
        let (said, notes) = outcome(&decision.channel, &typed(APPROVE, &answer)?);
        context.output.line(said);
        notes.iter().for_each(|note| context.output.note(note));
        Ok(())
    })
}

fn dismiss(context: &Context, which: &Which, meant: &Meant) -> anyhow::Result<ExitCode> {
    let ask = asked(meant.positional.as_deref(), &meant.place)?;
    with_gateway(context, which, Duration::ZERO, async |talk| {
        let decision = decision(talk, &ask, &meant.request).await?;
        let answer = talk.call(DISMISS, json!(decision)).await?;
        if context.output.is_json() {
            return context.output.value(&answer);
        }
        let sender = answer.get("senderId").and_then(Value::as_str);
        let sender = shown(sender.unwrap_or(&meant.request));
        let channel = decision.channel;
        context.output.line(format!("dismissed {sender} of {channel}, who may ask again"));
        Ok(())
    })
}

/// What the gateway is asked for, checked.
fn asked(positional: Option<&str>, place: &Place) -> Result<ChannelPairingAsk, Problem> {
    let channel = named(positional, place.channel.as_deref())?;
    Ok(ChannelPairingAsk { channel, account_id: place.account.clone() })
}

/// Who waits, as the gateway tells it and as far as we know of it.
async fn waiting(talk: &Talk, ask: &ChannelPairingAsk) -> Result<(Value, ChannelPairing), Problem> {
    if !talk.offers(LIST) {
        return Err(no_channels());
    }
    let answer = talk.call(LIST, json!(ask)).await.map_err(|problem| match problem.fix {
        // Most likely a channel that it does not know.
        None => problem.fix("openclaw pairing list"),
        Some(_) => problem,
    })?;
    let pairing = typed(LIST, &answer)?;
    Ok((answer, pairing))
}

/// The request that is meant, ready to be decided.
async fn decision(
    talk: &Talk,
    ask: &ChannelPairingAsk,
    words: &str,
) -> Result<SenderDecision, Problem> {
    let (_, pairing) = waiting(talk, ask).await?;
    let channel = channel_of(ask, &pairing)?;
    let request = request_of(&pairing.requests, &channel, words)?;
    Ok(SenderDecision {
        channel: request.channel.clone(),
        account_id: request.account_id.clone(),
        request_id: request.request_id.clone(),
        notify: None,
        bootstrap_command_owner: None,
    })
}

fn no_channels() -> Problem {
    let message = "this gateway tells of nobody who writes to a channel: it has no channels, or is \
                   older than OpenClaw 2026.7";
    Problem::new(Class::Rpc, message)
        .fix("openclaw devices list (devices and nodes ask to be paired there)")
}

/// The list in OpenClaw's form. A gateway tells nobody the codes, so there are none in it.
fn listed(channel: &str, answer: &Value) -> Value {
    let all = answer.get("requests").and_then(Value::as_array).into_iter().flatten();
    let here = all.filter(|request| request.get("channel").is_some_and(|it| it == channel));
    let requests: Vec<Value> = here
        .map(|request| {
            let mut request = request.clone();
            let of = |name: &str| request.get(name).cloned().unwrap_or(Value::Null);
            let mut meta = request.get("metadata").cloned().unwrap_or_else(|| json!({}));
            let (sender, account) = (of("senderId"), of("accountId"));
            if let Some(meta) = meta.as_object_mut() {
                meta.insert("accountId".to_owned(), account);
            }
            if let Some(fields) = request.as_object_mut() {
                fields.insert("id".to_owned(), sender);
                fields.insert("meta".to_owned(), meta);
            }
            request
        })
        .collect();
    json!({"channel": channel, "requests": requests})
}

/// Who wants in, since when, and how to let them.
fn lines(request: &SenderRequest, now: jiff::Timestamp) -> [String; 2] {
    let about: Vec<_> = request.metadata.values().map(|text| shown(text)).collect();
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    let asked = request.created_at.parse::<jiff::Timestamp>().ok();
    let age =
        asked.and_then(|asked| u64::try_from(now.as_millisecond() - asked.as_millisecond()).ok());
    let age = age.map(|age| format!(", {} ago", period(age))).unwrap_or_default();
    let (channel, account) = (shown(&request.channel), shown(&request.account_id));
    let sender = [&request.sender_label, &request.sender_id].map(|text| shown(text)).join(" ");
    let sender = sender.trim();
    [
        format!("{sender}{about} asks to be let in by {channel} ({account}){age}"),
        format!("    {}", approval(request)),
    ]
}

/// The command that lets somebody in; a gateway's text is part of it only where it is a plain word.
fn approval(request: &SenderRequest) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let word = |text: &str, instead: &str| {
        let is_plain = !text.is_empty() && text.chars().all(is_word);
        if is_plain { text.to_owned() } else { instead.to_owned() }
    };
    let channel = word(request.channel.trim_start_matches('-'), "CHANNEL");
    let id = word(&request.request_id, "REQUEST");
    // An id may begin like an option.
    let apart = if id.starts_with('-') { "-- " } else { "" };
    format!("openclaw pairing approve {apart}{channel} {id}")
}

/// What an approval came to: what is said, and what is noted beside it.
fn outcome(channel: &str, approved: &SenderApproved) -> (String, Vec<&'static str>) {
    let sender = shown(&approved.sender_id);
    let mut said = format!("approved {sender} of {channel}");
    let mut notes = Vec::new();
    match approved.notification.as_str() {
        "sent" => said += ", who was told",
        "unsupported" => notes.push("the channel cannot tell them"),
        "failed" => notes.push("they could not be told; the gateway's log says why"),
        _ => {}
    }
    match approved.command_owner_bootstrap.as_str() {
        "configured" => said += " and is the command owner now",
        "already-configured" => notes.push("somebody else is the command owner already"),
        "unavailable" => notes.push(
            "they could not be made the command owner; over there: openclaw config set \
             commands.ownerAllowFrom",
        ),
        _ => {}
    }
    (said, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> SenderRequest {
        SenderRequest {
            request_id: id.to_owned(),
            channel: "telegram".to_owned(),
            account_id: "default".to_owned(),
            sender_id: "4242".to_owned(),
            sender_label: "telegramUserId".to_owned(),
            metadata: [("username".to_owned(), "al\u{1b}[2Jice".to_owned())].into(),
            created_at: "2026-11-27T18:06:17.937Z".to_owned(),
        }
    }

    #[test]
    fn a_request_says_who_wants_in_since_when_and_what_to_type() {
        let now = "2026-11-27T18:08:17.937Z".parse().unwrap();
        let [who, how] = lines(&request("abc_-1"), now);
        let expected =
            "telegramUserId 4242 (al[2Jice) asks to be let in by telegram (default), 2 min ago";
        assert_eq!(who, expected);
        assert_eq!(how, "    openclaw pairing approve telegram abc_-1");
        let [_, how] = lines(&request("-abc"), now);
        assert_eq!(how, "    openclaw pairing approve -- telegram -abc");
        let [_, how] = lines(&request("$(reboot)"), now);
        assert_eq!(how, "    openclaw pairing approve telegram REQUEST");
    }

    #[test]
    fn the_list_has_openclaws_form_and_all_that_the_gateway_told() {
        let told = json!({"requests": [
            {"requestId": "r", "channel": "telegram", "accountId": "work", "senderId": "9",
                "metadata": {"username": "alice"}, "createdAt": "t", "more": 1},
            {"requestId": "s", "channel": "reef", "accountId": "a", "senderId": "8"},
        ]});
        let request = json!({"requestId": "r", "channel": "telegram", "accountId": "work",
            "senderId": "9", "metadata": {"username": "alice"}, "createdAt": "t", "more": 1,
            "id": "9", "meta": {"username": "alice", "accountId": "work"}});
        let expected = json!({"channel": "telegram", "requests": [request]});
        assert_eq!(listed("telegram", &told), expected);
    }

    #[test]
    fn an_approval_says_whether_they_were_told_and_own_commands_now() {
        for (notification, owner, expected, notes) in [
            ("not-requested", "not-requested", "approved 9 of telegram", 0),
            (
                "sent",
                "configured",
                "approved 9 of telegram, who was told and is the command owner now",
                0,
            ),
            ("unsupported", "already-configured", "approved 9 of telegram", 2),
            ("failed", "unavailable", "approved 9 of telegram", 2),
        ] {
            let approved = SenderApproved {
                sender_id: "9".to_owned(),
                notification: notification.to_owned(),
                command_owner_bootstrap: owner.to_owned(),
            };
            let (said, noted) = outcome("telegram", &approved);
            assert_eq!((said.as_str(), noted.len()), (expected, notes));
        }
    }
}
