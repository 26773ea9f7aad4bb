//! Programs that are not connected and say that they are there (`system-event`): lines of presence
//! that fade.

use std::collections::BTreeMap;

use crate::protocol::{PresenceEntry, SystemEventParams};

/// How long a line stands after its program was last heard of, milliseconds.
const LIFE_MS: u64 = 300_000;
/// How many there may be; the one that was quiet for longest goes first.
const MOST: usize = 200;
/// The longest line that is shown or kept, UTF-16 code units.
pub(super) const LONGEST: usize = 4_096;
/// The longest text that tells one from another, where it said nothing better.
const KEY_UNITS: usize = 64;
/// The longest key of all, UTF-16 code units.
const LONGEST_KEY: usize = 512;
/// The longest list of roles or scopes that a line may gather.
const LIST: usize = 32;
/// What forgets when somebody last typed.
const CLEAR_INPUT: &str = "system-presence-clear-last-input";

/// The lines, by what tells their programs apart.
#[derive(Debug, Default)]
pub(super) struct Beacons(BTreeMap<String, PresenceEntry>);

/// What of a program became another by what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// What tells it apart.
    pub(super) key: String,
    /// Its line now.
    pub(super) line: PresenceEntry,
    /// `host`, `ip`, `version`, `mode`, `reason`: those that are others.
    pub(super) changed: Vec<&'static str>,
}

impl Beacons {
    /// Hears of a program, and says what is new of it. What it does not say stays as it was.
    pub(super) fn hear(&mut self, said: &SystemEventParams, now_ms: u64) -> Told {
        self.fade(now_ms);
        let text = cut(said.text.trim(), LONGEST);
        let parsed = Parsed::of(&text);
        let key = cut(&key_of(said, &parsed), LONGEST_KEY);
        let before = self.0.get(&key).cloned().unwrap_or_default();
        let first = |said: &Option<String>, parsed: &Option<String>, old: &Option<String>| {
            [said, parsed, old].into_iter().find_map(filled)
        };
        let clears = said.tags.iter().any(|tag| tag == CLEAR_INPUT);
        let input = said.last_input_seconds.filter(|seconds| *seconds >= 0.0);
        let input =
            input.map(|seconds| seconds as u64).or(parsed.input).or(before.last_input_seconds);
        let line = PresenceEntry {
            host: first(&said.host, &parsed.host, &before.host),
            ip: first(&said.ip, &parsed.ip, &before.ip),
            version: first(&said.version, &parsed.version, &before.version),
            platform: first(&said.platform, &None, &before.platform),
            device_family: first(&said.device_family, &None, &before.device_family),
            model_identifier: first(&said.model_identifier, &None, &before.model_identifier),
            time_zone: None,
            mode: first(&said.mode, &parsed.mode, &before.mode),
            last_input_seconds: if clears { None } else { input },
            reason: first(&said.reason, &parsed.reason, &before.reason),
            text: Some(text),
            ts: now_ms,
            device_id: first(&said.device_id, &None, &before.device_id),
            roles: gathered(&before.roles, &said.roles),
            scopes: gathered(&before.scopes, &said.scopes),
            instance_id: first(&said.instance_id, &None, &before.instance_id),
        };
        let changed = [
            ("host", before.host != line.host),
            ("ip", before.ip != line.ip),
            ("version", before.version != line.version),
            ("mode", before.mode != line.mode),
            ("reason", before.reason != line.reason),
        ];
        let changed = changed.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
        self.0.insert(key.clone(), line.clone());
        while self.0.len() > MOST {
            let oldest = self.0.iter().min_by_key(|(_, line)| line.ts);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            self.0.remove(&oldest);
        }
        Told { key, line, changed }
    }

    /// Every line that stands, the youngest first.
    pub(super) fn lines(&self, now_ms: u64) -> Vec<&PresenceEntry> {
        let mut lines: Vec<_> = self.0.values().filter(|line| stands(line, now_ms)).collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.ts));
        lines
    }

    fn fade(&mut self, now_ms: u64) {
        self.0.retain(|_, line| stands(line, now_ms));
    }
}

/// A line from further ahead is of a clock that ran ahead.
fn stands(line: &PresenceEntry, now_ms: u64) -> bool {
    now_ms.abs_diff(line.ts) <= LIFE_MS
}

/// What tells a program from another: its device, its instance, its machine, or its very words.
fn key_of(said: &SystemEventParams, parsed: &Parsed) -> String {
    let low = |text: &Option<String>| filled(text).map(|text| text.to_lowercase());
    low(&said.device_id)
        .or_else(|| low(&said.instance_id))
        .or_else(|| low(&parsed.host))
        .unwrap_or_else(|| cut(said.text.trim(), KEY_UNITS))
}

/// The text, unless it is blank.
fn filled(text: &Option<String>) -> Option<String> {
    let text = text.as_deref().map(str::trim).filter(|text| !text.is_empty());
    text.map(str::to_owned)
}

/// Both lists in one, each entry once and none blank.
fn gathered(old: &[String], new: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for text in old.iter().chain(new).map(|text| text.trim()).filter(|text| !text.is_empty()) {
        if all.len() < LIST && !all.iter().any(|known| known == text) {
            all.push(text.to_owned());
        }
    }
    all
}

/// The beginning of `text`, at most so many UTF-16 code units, whole characters only.
pub(super) fn cut(text: &str, units: usize) -> String {
    let mut left = units;
    let fits = |letter: &char| match left.checked_sub(letter.len_utf16()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).collect()
}

/// What a line of the form `Node: HOST (IP) · app VERSION · last input Ns ago · mode MODE · reason
/// REASON` says; nothing of any other.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    host: Option<String>,
    ip: Option<String>,
    version: Option<String>,
    input: Option<u64>,
    mode: Option<String>,
    reason: Option<String>,
}

impl Parsed {
    fn of(text: &str) -> Self {
        Self::read(text.trim()).unwrap_or_default()
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '·').map(str::trim);
        let host = after(parts.next()?, "node:")?;
        let (host, ip) = host.strip_suffix(')')?.split_once('(')?;
        let version = after(parts.next()?, "app")?;
        let input = after(parts.next()?, "last input")?.strip_suffix("s ago")?.parse().ok()?;
        let mode = after(parts.next()?, "mode")?;
        let reason = after(parts.next()?, "reason")?;
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        Some(Self {
            host: text(host),
            ip: text(ip),
            version: text(version),
            input: Some(input),
            mode: text(mode),
            reason: text(reason),
        })
    }
}

/// What follows a word, whatever the case of its letters.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "Node: box (1.2.3.4) · app 1.0 · last input 5s ago · mode ui · reason launch";

    fn said(text: &str) -> SystemEventParams {
        SystemEventParams { text: text.to_owned(), ..SystemEventParams::default() }
    }

    #[test]
    fn a_line_of_the_known_form_is_read_as_what_it_says() {
        let mut beacons = Beacons::default();
        let told = beacons.hear(&said(LINE), 7);
        assert_eq!(told.key, "box");
        assert_eq!(told.changed, ["host", "ip", "version", "mode", "reason"]);
        let line = told.line;
        assert_eq!((line.host.as_deref(), line.ip.as_deref()), (Some("box"), Some("1.2.3.4")));
        assert_eq!((line.last_input_seconds, line.mode.as_deref()), (Some(5), Some("ui")));
        for other in ["hello", "Node: box", "Node: box (1) · app 1", "Node·é"] {
            assert_eq!(Parsed::of(other), Parsed::default(), "{other}");
        }
    }

    #[test]
    fn what_a_program_does_not_say_again_stays_and_lists_grow() {
        let mut beacons = Beacons::default();
        let device = |text: &str| SystemEventParams {
            device_id: Some("DEV".to_owned()),
            roles: vec!["a".to_owned(), " a".to_owned(), text.to_owned()],
            ..said(text)
        };
        let first = SystemEventParams { version: Some("1".to_owned()), ..device("one") };
        let first = SystemEventParams { last_input_seconds: Some(3.7), ..first };
        beacons.hear(&first, 1);
        let told = beacons.hear(&device("two"), 2);
        assert_eq!((told.key.as_str(), told.changed.len()), ("dev", 0));
        assert_eq!(told.line.version.as_deref(), Some("1"));
        assert_eq!(told.line.last_input_seconds, Some(3));
        assert_eq!(told.line.roles, ["a", "one", "two"]);
        let clear = SystemEventParams { tags: vec![CLEAR_INPUT.to_owned()], ..device("two") };
        assert_eq!(beacons.hear(&clear, 3).line.last_input_seconds, None);
    }

    #[test]
    fn lines_fade_and_are_bounded() {
        let mut beacons = Beacons::default();
        for n in 0..=MOST as u64 {
            beacons.hear(&said(&format!("program {n}")), n);
        }
        let texts = |beacons: &Beacons, now| {
            beacons.lines(now).iter().filter_map(|line| line.text.clone()).collect::<Vec<_>>()
        };
        let all = texts(&beacons, 0);
        assert_eq!((all.len(), all[0].as_str()), (MOST, "program 200"));
        assert!(!all.contains(&"program 0".to_owned()));
        assert_eq!(texts(&beacons, LIFE_MS + 200), ["program 200"]);
        assert!(texts(&beacons, LIFE_MS + 201).is_empty());
        beacons.hear(&said("ahead"), 2 * LIFE_MS);
        assert_eq!(texts(&beacons, LIFE_MS), ["ahead"], "the clock was set back");
        assert!(texts(&beacons, LIFE_MS - 1).is_empty(), "further than a line stands");
    }

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("ab", 2), "ab");
        assert_eq!(cut("a🐝b", 2), "a");
        assert_eq!(cut("a🐝b", 3), "a🐝");
    }
}
