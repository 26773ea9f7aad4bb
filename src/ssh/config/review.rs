//! What of a configuration is not honoured: what is only noted, and what refuses the host.

use super::{
    keywords::{KEYWORDS, Keyword, Kind, Treatment},
    reader::Reader,
    resolve::origin,
    settings::{Mistake, Note, Origin, Said, Values},
    values,
};
use crate::ssh::{algorithms, target};

/// Writes what refuses the host into the reader's mistakes; the notes are the rest.
pub(super) fn review(reader: &mut Reader<'_>, filled: &Values) -> Vec<Note> {
    let mut notes = Vec::new();
    for keyword in KEYWORDS {
        for said in filled.get(keyword.name).into_iter().flatten() {
            if said.origin == Origin::Default {
                continue;
            }
            let value = said.words.join(" ");
            match keyword.treatment {
                Treatment::Reported(harmless) if matters(&value, harmless) => {
                    notes.push(note(keyword, value, said));
                }
                Treatment::Refused(harmless)
                    if matters(&value, harmless) && weakens(keyword, said, filled) =>
                {
                    let what = refusal(keyword, &value);
                    reader.mistake(Mistake::new(&said.origin, keyword.name, what));
                }
                Treatment::Used
                | Treatment::Ignored
                | Treatment::Reported(_)
                | Treatment::Refused(_)
                | Treatment::Obsolete => {}
            }
        }
    }
    names_are_harmless(reader);
    proxy_is_possible(reader);
    attempts_are_some(reader);
    notes.extend(algorithms_are_left(reader));
    notes
}

fn matters(value: &str, harmless: &[&str]) -> bool {
    !harmless.iter().any(|word| word.eq_ignore_ascii_case(value))
}

fn note(keyword: &Keyword, value: String, said: &Said) -> Note {
    Note {
        keyword: keyword.name.to_owned(),
        value,
        origin: said.origin.clone(),
        reason: keyword.says,
    }
}

/// Whether a value that matters matters for this host.
fn weakens(keyword: &Keyword, said: &Said, filled: &Values) -> bool {
    match keyword.name {
        "ProxyUseFdpass" => {
            said.words.iter().any(|word| word == "yes") && filled.contains_key("ProxyCommand")
        }
        _ => true,
    }
}

fn refusal(keyword: &Keyword, value: &str) -> String {
    if keyword.name == "RefuseConnection" {
        return format!("the configuration refuses this host: {}", value.escape_debug());
    }
    format!("`{}` is not supported. {}", value.escape_debug(), keyword.says)
}

/// Names from files reach the network, known hosts and other programs.
fn names_are_harmless(reader: &mut Reader<'_>) {
    if !target::is_host(&reader.host) {
        let what = format!("`{}` has characters that no host name has", reader.host.escape_debug());
        let origin = origin(reader, "HostName");
        reader.mistake(Mistake::new(&origin, "HostName", what));
    }
    // Such a name would change what a line of known hosts means.
    let alters = |c: char| c.is_whitespace() || c.is_control() || "*?!,|@#".contains(c);
    if let Some(alias) = reader.word("HostKeyAlias").filter(|alias| alias.contains(alters)) {
        let what = format!("`{}` is no name for known hosts", alias.escape_debug());
        let origin = origin(reader, "HostKeyAlias");
        reader.mistake(Mistake::new(&origin, "HostKeyAlias", what));
    }
}

fn proxy_is_possible(reader: &mut Reader<'_>) {
    let origin_of = |keyword| origin(reader, keyword);
    if let Some(command) = reader.word("ProxyCommand") {
        let origin = origin_of("ProxyCommand");
        if command == "-" {
            let what = "`-` hands over our own input and output, which a tunnel does not have";
            reader.mistake(Mistake::new(&origin, "ProxyCommand", what));
        } else if reader.suspect_proxy {
            let what = "runs a command, and the file does not belong to you or root, or others can \
                        write it";
            reader.mistake(Mistake::new(&origin, "ProxyCommand", what));
        }
    }
    if let Some(jump) = reader.word("ProxyJump")
        && is_loop(reader, jump)
    {
        let what = format!("`{}` leads to the host itself", jump.escape_debug());
        let origin = origin(reader, "ProxyJump");
        reader.mistake(Mistake::new(&origin, "ProxyJump", what));
    }
}

fn is_loop(reader: &Reader<'_>, jump: &str) -> bool {
    let last = super::jump::parse(jump).ok().and_then(|mut jumps| jumps.pop());
    last.is_some_and(|last| {
        let port = last.port.map_or_else(|| "22".to_owned(), |port| port.to_string());
        last.host == reader.host
            && reader.word("Port") == Some(&port)
            && last.user.is_none_or(|user| reader.word("User") == Some(&user))
    })
}

fn attempts_are_some(reader: &mut Reader<'_>) {
    if reader.word("ConnectionAttempts") == Some("0") {
        let origin = origin(reader, "ConnectionAttempts");
        reader.mistake(Mistake::new(&origin, "ConnectionAttempts", "0 attempts reach no host"));
    }
}

/// A list that leaves nothing that we have reaches no host.
fn algorithms_are_left(reader: &mut Reader<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    for keyword in KEYWORDS.iter().filter(|keyword| keyword.treatment == Treatment::Used) {
        let Kind::Algorithms(list) = keyword.kind else { continue };
        let Some(text) = reader.word(keyword.name) else { continue };
        let origin = origin(reader, keyword.name);
        match algorithms::choose(list, text) {
            Err(why) => {
                let what = values::without_name(&why, list);
                reader.mistake(Mistake::new(&origin, keyword.name, what));
            }
            Ok(choice) if choice.dropped.is_empty() || origin == Origin::Default => {}
            Ok(choice) => notes.push(Note {
                keyword: keyword.name.to_owned(),
                value: choice.dropped.join(","),
                origin,
                reason: "These algorithms are not built in; the others of the list are used.",
            }),
        }
    }
    notes
}
