//! Checks the value of a keyword and brings it into one form. Pure.

use super::{
    forward::Forward,
    jump,
    keywords::{Choices, Direction, Kind},
    lexer, names,
    numbers::{mask, number, port, scaled, seconds},
};

/// The fewest bytes of `RekeyLimit`.
const FEWEST_BYTES: u64 = 16;
/// Traffic classes of `IPQoS` by name.
const TRAFFIC: &[&str] = &[
    "none",
    "af11",
    "af12",
    "af13",
    "af21",
    "af22",
    "af23",
    "af31",
    "af32",
    "af33",
    "af41",
    "af42",
    "af43",
    "cs0",
    "cs1",
    "cs2",
    "cs3",
    "cs4",
    "cs5",
    "cs6",
    "cs7",
    "ef",
    "le",
    "va",
    "lowdelay",
    "throughput",
    "reliability",
];

/// The words of a value in one form; none where the value is as good as not said.
pub(super) fn parse(kind: Kind, rest: &str) -> Result<Vec<String>, String> {
    if let Kind::Rest = kind {
        return Ok(vec![lexer::command(rest).to_owned()]);
    }
    if let Kind::Jump = kind {
        return jump::normal(lexer::command(rest)).map(|jumps| vec![jumps]);
    }
    let words = lexer::words(rest).map_err(|bad| bad.to_string())?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let Some(many) = several(kind, &words) {
        return many;
    }
    match words.as_slice() {
        [] | [""] => Err("has no value".to_owned()),
        [word] => one(kind, word),
        [_, extra, ..] => Err(format!("`{}` is one value too many", extra.escape_debug())),
    }
}

/// The kinds that take several words; `None` for the others.
fn several(kind: Kind, words: &[&str]) -> Option<Result<Vec<String>, String>> {
    let each = |check: fn(&str) -> Option<String>, what: &str| {
        words
            .iter()
            .map(|word| check(word).ok_or_else(|| wrong(word, what)))
            .collect::<Result<Vec<_>, _>>()
    };
    Some(match kind {
        Kind::Anything => Ok(vec![words.join(" ")]),
        Kind::Words(most) => list(words, most),
        Kind::Rekey => rekey(words),
        Kind::Forward(direction) => forward(words, direction),
        Kind::Environment => each(environment, "a name of a variable"),
        Kind::Assignments => each(assignment, "NAME=value"),
        Kind::AddKeys => add_keys(words),
        Kind::Traffic => traffic(words),
        Kind::Domains => alone(words, &["none"]).and_then(|()| each(domain, "a domain name")),
        Kind::Aliases => alone(words, &["none"]).and_then(|()| each(alias, "patterns:patterns")),
        Kind::Places => match words {
            [] => Err("has no value".to_owned()),
            _ => alone(words, &["none", "any"]).and_then(|()| each(place, "host:port")),
        },
        Kind::Timeouts => alone(words, &["none"]).and_then(|()| each(timeout, "type=time")),
        Kind::Structure
        | Kind::Flag
        | Kind::Choice(_)
        | Kind::Word
        | Kind::Rest
        | Kind::Jump
        | Kind::Port
        | Kind::Number
        | Kind::Time
        | Kind::Algorithms(_)
        | Kind::Socket
        | Kind::FlagOrSocket
        | Kind::Persist
        | Kind::Escape
        | Kind::Device
        | Kind::Mask
        | Kind::Keystrokes => return None,
    })
}

/// The kinds that take one word.
fn one(kind: Kind, word: &str) -> Result<Vec<String>, String> {
    let value = match kind {
        Kind::Flag => flag(word).map(str::to_owned).ok_or_else(|| wrong(word, "yes or no")),
        Kind::Choice(choices) => choice(word, choices),
        Kind::Port => port(word).ok_or_else(|| wrong(word, "a port from 1 to 65535")),
        Kind::Number => number(word).map(|n| n.to_string()).ok_or_else(|| wrong(word, "a number")),
        Kind::Time if word == "none" => return Ok(Vec::new()),
        Kind::Time => seconds_text(word),
        Kind::Algorithms(family) => names::check(word, family).map(|()| word.to_owned()),
        Kind::Socket => socket(word),
        Kind::FlagOrSocket => flag(word).map_or_else(|| socket(word), |flag| Ok(flag.to_owned())),
        Kind::Persist => persist(word),
        Kind::Escape => escape(word).ok_or_else(|| wrong(word, "a character, ^ and one, or none")),
        Kind::Device => device(word).ok_or_else(|| wrong(word, "a device number or any")),
        Kind::Mask => mask(word).ok_or_else(|| wrong(word, "an octal number up to 0777")),
        Kind::Keystrokes => {
            keystrokes(word).ok_or_else(|| wrong(word, "yes, no or interval:milliseconds"))
        }
        Kind::Word
        | Kind::Structure
        | Kind::Words(_)
        | Kind::Rest
        | Kind::Jump
        | Kind::Rekey
        | Kind::Forward(_)
        | Kind::Environment
        | Kind::Assignments
        | Kind::AddKeys
        | Kind::Traffic
        | Kind::Domains
        | Kind::Aliases
        | Kind::Places
        | Kind::Timeouts
        | Kind::Anything => Ok(word.to_owned()),
    };
    value.map(|value| vec![value])
}

fn wrong(word: &str, what: &str) -> String {
    format!("`{}` is not {what}", word.escape_debug())
}

fn flag(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some("yes"),
        "no" | "false" => Some("no"),
        _ => None,
    }
}

fn choice(word: &str, choices: Choices) -> Result<String, String> {
    let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    found.map(|(_, meaning)| (*meaning).to_owned()).ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        wrong(word, &format!("one of {}", names.join(", ")))
    })
}

fn seconds_text(word: &str) -> Result<String, String> {
    seconds(word).map(|s| s.to_string()).ok_or_else(|| wrong(word, "a time such as 10 or 1m30s"))
}

fn list(words: &[&str], most: usize) -> Result<Vec<String>, String> {
    if words.contains(&"") {
        return Err("holds an empty value".to_owned());
    }
    alone(words, &["none"])?;
    if words.len() > most {
        return Err(format!("holds more than {most} values"));
    }
    Ok(words.iter().map(|word| (*word).to_owned()).collect())
}

/// Whether each of `loners` stands by itself if it stands there at all.
fn alone(words: &[&str], loners: &[&str]) -> Result<(), String> {
    let is_loner = |word: &&&str| loners.iter().any(|loner| word.eq_ignore_ascii_case(loner));
    match words.iter().find(is_loner) {
        Some(loner) if words.len() > 1 => Err(format!("`{loner}` must stand alone")),
        Some(_) | None => Ok(()),
    }
}

fn rekey(words: &[&str]) -> Result<Vec<String>, String> {
    let (bytes, time) = match words {
        [] | ["", ..] => return Err("has no value".to_owned()),
        [bytes] => (bytes, None),
        [bytes, "none"] => (bytes, None),
        [bytes, time] => (bytes, Some(time)),
        [_, _, extra, ..] => return Err(format!("`{extra}` is one value too many")),
    };
    let limit = match *bytes {
        "default" => 0,
        _ => scaled(bytes).ok_or_else(|| wrong(bytes, "a number of bytes such as 1G"))?,
    };
    if limit != 0 && limit < FEWEST_BYTES {
        return Err(format!("{limit} bytes are too few"));
    }
    let time = time.map(|time| seconds_text(time)).transpose()?;
    Ok(std::iter::once(limit.to_string()).chain(time).collect())
}

fn forward(words: &[&str], direction: Direction) -> Result<Vec<String>, String> {
    let (text, direction) = match (words, direction) {
        ([] | ["", ..], _) => return Err("has no value".to_owned()),
        ([listen], Direction::Remote) | ([listen, ""], Direction::Remote) => {
            ((*listen).to_owned(), None)
        }
        ([listen], Direction::Dynamic) => ((*listen).to_owned(), Some(Direction::Dynamic)),
        ([_] | [_, ""], Direction::Local) => return Err("says not where it leads".to_owned()),
        ([listen, connect], Direction::Local | Direction::Remote) => {
            (format!("{listen}:{connect}"), Some(direction))
        }
        ([_, extra, ..], _) => return Err(format!("`{extra}` is one value too many")),
    };
    let forward = match direction {
        Some(direction) => Forward::parse(&text, direction),
        // A remote forward without an end of its own is a SOCKS proxy over there.
        None => Forward::socks_over_there(&text),
    };
    let forward = forward.ok_or_else(|| wrong(&words.join(" "), "a forward"))?;
    Ok(forward.words())
}

fn environment(word: &str) -> Option<String> {
    (!word.is_empty() && !word.contains('=')).then(|| word.to_owned())
}

fn assignment(word: &str) -> Option<String> {
    word.contains('=').then(|| word.to_owned())
}

fn add_keys(words: &[&str]) -> Result<Vec<String>, String> {
    let words = match words {
        [] | [""] => return Err("has no value".to_owned()),
        [word] => match (flag(word), seconds(word)) {
            (Some(flag), _) => vec![flag.to_owned()],
            (None, Some(time)) => vec![time.to_string()],
            (None, None) if ["ask", "confirm"].iter().any(|w| w.eq_ignore_ascii_case(word)) => {
                vec![word.to_ascii_lowercase()]
            }
            (None, None) => return Err(wrong(word, "yes, no, ask, confirm or a time")),
        },
        [confirm, time] if confirm.eq_ignore_ascii_case("confirm") => {
            vec!["confirm".to_owned(), seconds_text(time)?]
        }
        [_, extra, ..] => return Err(format!("`{extra}` is one value too many")),
    };
    Ok(words)
}

fn traffic(words: &[&str]) -> Result<Vec<String>, String> {
    let class = |word: &&str| {
        let lower = word.to_ascii_lowercase();
        let number = match lower.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16).ok(),
            None if lower.len() > 1 && lower.starts_with('0') => u8::from_str_radix(&lower, 8).ok(),
            None => lower.parse().ok(),
        };
        match number {
            Some(number) => Ok(format!("0x{number:02x}")),
            None if TRAFFIC.contains(&lower.as_str()) => Ok(lower),
            None => Err(wrong(word, "a traffic class")),
        }
    };
    match words {
        [] => Err("has no value".to_owned()),
        [both] => class(both).map(|class| vec![class.clone(), class]),
        [interactive, bulk] => Ok(vec![class(interactive)?, class(bulk)?]),
        [_, _, extra, ..] => Err(format!("`{extra}` is one value too many")),
    }
}

fn domain(word: &str) -> Option<String> {
    let good = word.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !word.contains("..")
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    good.then(|| word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase())
}

fn alias(word: &str) -> Option<String> {
    match word {
        "*" => Some("*:*".to_owned()),
        _ if word.eq_ignore_ascii_case("none") => Some("none".to_owned()),
        _ => {
            let (_, targets) = word.split_once(':')?;
            (!targets.is_empty()).then(|| word.to_ascii_lowercase())
        }
    }
}

fn place(word: &str) -> Option<String> {
    if ["none", "any"].iter().any(|loner| word.eq_ignore_ascii_case(loner)) {
        return Some(word.to_ascii_lowercase());
    }
    let number = match word.strip_prefix('[') {
        Some(inside) => inside.split_once("]:")?.1,
        None => word.split_once(':')?.1,
    };
    (number == "*" || port(number).is_some()).then(|| word.to_owned())
}

fn timeout(word: &str) -> Option<String> {
    if word.eq_ignore_ascii_case("none") {
        return Some("none".to_owned());
    }
    let (kind, time) = word.split_once('=')?;
    (!kind.is_empty() && seconds(time).is_some()).then(|| word.to_owned())
}

/// A path, or `$NAME` or `${NAME}` of the environment.
fn socket(word: &str) -> Result<String, String> {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match word.strip_prefix('$') {
        Some(name) if !name.starts_with('{') && !is_name(name) => {
            Err(wrong(word, "a path or a variable"))
        }
        Some(_) | None => Ok(word.to_owned()),
    }
}

fn persist(word: &str) -> Result<String, String> {
    match word {
        "yes" | "true" => Ok("yes".to_owned()),
        "no" | "false" => Ok("no".to_owned()),
        _ => match seconds_text(word)? {
            zero if zero == "0" => Ok("yes".to_owned()),
            time => Ok(time),
        },
    }
}

fn escape(word: &str) -> Option<String> {
    let control = |c: char| ('@'..='\x7f').contains(&c);
    let mut chars = word.chars();
    match (chars.next(), chars.next(), chars.next()) {
        _ if word == "none" => Some("none".to_owned()),
        (Some(c), None, _) if c.is_ascii() => Some(word.to_owned()),
        (Some('^'), Some(c), None) if control(c) => {
            Some(format!("^{}", char::from(c as u8 & 31 | 64)))
        }
        _ => None,
    }
}

fn device(word: &str) -> Option<String> {
    let one = |word: &str| {
        if word.eq_ignore_ascii_case("any") {
            return Some("any".to_owned());
        }
        number(word).map(|number| number.to_string())
    };
    let (local, remote) = word.split_once(':').unwrap_or((word, "any"));
    Some(format!("{}:{}", one(local)?, one(remote)?))
}

fn keystrokes(word: &str) -> Option<String> {
    match word {
        "yes" | "true" => Some("yes".to_owned()),
        "no" | "false" => Some("no".to_owned()),
        _ => {
            let time = number(word.strip_prefix("interval:")?)?;
            (1..=1000).contains(&time).then(|| time.to_string())
        }
    }
}
