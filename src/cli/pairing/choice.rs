//! Which channel and which request a person means; pure.

use std::collections::BTreeSet;

use crate::{
    problem::{Class, Problem},
    protocol::{ChannelPairing, ChannelPairingAsk, SenderRequest},
};

/// The longest name of a channel.
const LONGEST: usize = 64;
/// The length of a code that a channel sends to a person.
const CODE: usize = 8;

/// The channel that is named, at its place or with its option; `None` where none is.
pub(super) fn named(
    positional: Option<&str>,
    option: Option<&str>,
) -> Result<Option<String>, Problem> {
    let (positional, option) = (positional.map(name).transpose()?, option.map(name).transpose()?);
    match (positional, option) {
        (Some(one), Some(other)) if one != other => {
            let message = format!("two channels are named, {one} and {other}");
            Err(Problem::new(Class::Usage, message).fix(format!("openclaw pairing list {one}")))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// A channel's name: lower-case letters, digits, `_` and `-`, with a letter first.
fn name(text: &str) -> Result<String, Problem> {
    let name = text.trim().to_lowercase();
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(is_word)
        && name.len() <= LONGEST;
    if is_name {
        return Ok(name);
    }
    let message = format!("{text:?} is no channel: letters, digits, _ and -, as in telegram");
    Err(Problem::new(Class::Usage, message).fix("openclaw pairing list"))
}

/// The channel that is meant: the named one, or the only one that asks before it lets people in.
pub(super) fn channel_of(
    ask: &ChannelPairingAsk,
    pairing: &ChannelPairing,
) -> Result<String, Problem> {
    if let Some(channel) = &ask.channel {
        return Ok(channel.clone());
    }
    let channels: BTreeSet<_> = pairing.accounts.iter().map(|it| it.channel.as_str()).collect();
    let channels: Vec<_> = channels.into_iter().collect();
    match (channels.as_slice(), &ask.account_id) {
        ([one], _) => name(one),
        ([], Some(account)) => {
            let message =
                format!("no channel of this gateway pairs people at an account {account:?}");
            Err(Problem::new(Class::Rpc, message).fix("openclaw pairing list"))
        }
        ([], None) => {
            let message = "no channel of this gateway asks before it lets people in";
            Err(Problem::new(Class::Rpc, message)
                .fix("openclaw devices list (devices and nodes ask to be paired there)"))
        }
        (several, _) => {
            let names = several.iter().filter_map(|it| name(it).ok()).collect::<Vec<_>>();
            let first = names.first().map_or("CHANNEL", String::as_str);
            let message =
                format!("several channels ask before they let people in: {}", names.join(", "));
            Err(Problem::new(Class::Usage, message).fix(format!("openclaw pairing list {first}")))
        }
    }
}

/// The request of a channel that is meant: its own id, else its sender's.
pub(super) fn request_of<'a>(
    requests: &'a [SenderRequest],
    channel: &str,
    words: &str,
) -> Result<&'a SenderRequest, Problem> {
    let here = || requests.iter().filter(|request| request.channel == channel);
    if let Some(request) = here().find(|request| request.request_id == words) {
        return Ok(request);
    }
    let of_sender: Vec<_> = here().filter(|request| request.sender_id == words).collect();
    let fix = format!("openclaw pairing list {channel}");
    match of_sender.as_slice() {
        [one] => Ok(one),
        [] if is_code(words) => {
            let message = format!(
                "nobody with the id {words:?} waits to be let in by {channel}; if it is the code that \
                 a person was sent: a gateway tells nobody which code is whose"
            );
            Err(Problem::new(Class::Rpc, message)
                .fix(format!("{fix}; the code itself takes OpenClaw's own program on its host")))
        }
        [] => {
            let message = format!("nobody with the id {words:?} waits to be let in by {channel}");
            Err(Problem::new(Class::Rpc, message).fix(fix))
        }
        _ => {
            let message = format!("{words:?} waits at several accounts of {channel}");
            Err(Problem::new(Class::Usage, message).fix(format!("{fix}, and name the request")))
        }
    }
}

/// Whether it looks like a code that OpenClaw sends: capitals and digits that are not mistaken.
fn is_code(words: &str) -> bool {
    let is_one = |c: char| c.is_ascii_alphanumeric() && !"01IO".contains(c.to_ascii_uppercase());
    words.len() == CODE && words.chars().all(is_one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PairingAccount;

    fn pairing(channels: &[&str]) -> ChannelPairing {
        let account = |channel: &&str| PairingAccount {
            channel: (*channel).to_owned(),
            account_id: "default".to_owned(),
        };
        ChannelPairing { accounts: channels.iter().map(account).collect(), ..Default::default() }
    }

    fn ask(channel: Option<&str>, account: Option<&str>) -> ChannelPairingAsk {
        let own = |text: Option<&str>| text.map(str::to_owned);
        ChannelPairingAsk { channel: own(channel), account_id: own(account) }
    }

    fn request(id: &str, sender: &str, account: &str) -> SenderRequest {
        SenderRequest {
            request_id: id.to_owned(),
            channel: "telegram".to_owned(),
            account_id: account.to_owned(),
            sender_id: sender.to_owned(),
            ..SenderRequest::default()
        }
    }

    #[test]
    fn a_channel_is_named_once_or_twice_alike() {
        assert_eq!(named(None, None), Ok(None));
        assert_eq!(named(Some(" Telegram "), None), Ok(Some("telegram".to_owned())));
        assert_eq!(named(Some("reef"), Some("REEF")), Ok(Some("reef".to_owned())));
        for (one, other) in [
            (Some("reef"), Some("imap")),
            (Some(""), None),
            (None, Some("a b")),
            (Some("1a"), None),
        ] {
            assert_eq!(named(one, other).unwrap_err().class, Class::Usage, "{one:?} {other:?}");
        }
    }

    #[test]
    fn without_a_name_the_only_channel_is_meant() {
        let twice = pairing(&["telegram", "telegram"]);
        assert_eq!(channel_of(&ask(None, None), &twice), Ok("telegram".to_owned()));
        let named = ask(Some("reef"), None);
        assert_eq!(channel_of(&named, &pairing(&[])), Ok("reef".to_owned()), "as it was said");
        let several = channel_of(&ask(None, None), &pairing(&["telegram", "reef"])).unwrap_err();
        assert_eq!(
            (several.class, several.message.contains("reef, telegram")),
            (Class::Usage, true)
        );
        let none = channel_of(&ask(None, None), &pairing(&[])).unwrap_err();
        assert!(none.fix.unwrap().contains("openclaw devices list"));
        let nowhere = channel_of(&ask(None, Some("work")), &pairing(&[])).unwrap_err();
        assert!(nowhere.message.contains("\"work\""), "{nowhere}");
    }

    #[test]
    fn a_request_is_named_by_its_id_or_by_its_only_sender() {
        // Somebody whose channel let them choose the id of another's request.
        let requests = [
            request("r1", "r2", "default"),
            request("r2", "7", "default"),
            request("r3", "7", "work"),
        ];
        let found = |words: &str| request_of(&requests, "telegram", words);
        assert_eq!(found("r2").unwrap().sender_id, "7", "an id of a request goes first");
        assert_eq!(found("r1").unwrap().request_id, "r1");
        assert_eq!(found("7").unwrap_err().class, Class::Usage, "at two accounts");
        assert_eq!(request_of(&requests[..2], "telegram", "7").unwrap().request_id, "r2");
        assert!(request_of(&requests, "reef", "r1").is_err(), "of another channel");
        let code = found("zcbwxdr2").unwrap_err();
        assert!(code.message.contains("code"), "{code}");
        let unknown = found("nobody-here").unwrap_err();
        assert!(!unknown.message.contains("code"), "{unknown}");
    }
}
