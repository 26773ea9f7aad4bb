//! One line of a gateway's log, ours or OpenClaw's: JSON with its time, level, subsystem and message. Pure.

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Map, Value, json};

/// In which zone times are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// This machine's.
    Here,
    /// UTC.
    Utc,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    time: Option<String>,
    /// `info`, `warn`, …
    pub(super) level: Option<String>,
    /// The first that is known of subsystem, module and plugin.
    pub(super) label: Option<String>,
    context: [Option<String>; 3],
    pub(super) message: String,
    /// Why and where from, behind the message for a person; empty where the line does not say.
    pub(super) details: String,
}

/// The keys of what wrote a line.
const CONTEXT: [&str; 3] = ["subsystem", "module", "plugin"];

impl Line {
    /// Reads a line; `None` for one that is no JSON object.
    pub(super) fn of(text: &str) -> Option<Self> {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return None };
        let meta = fields.get("_meta").and_then(Value::as_object);
        let of = |object: Option<&Map<String, Value>>, key: &str| {
            object?.get(key)?.as_str().map(str::to_owned)
        };
        let level = of(meta, "logLevelName").or_else(|| of(Some(&fields), "level"));
        let named = of(meta, "name").or_else(|| of(Some(&fields), "0"));
        let named = named.and_then(|name| serde_json::from_str::<Map<_, _>>(&name).ok());
        let first = of(Some(&fields), "0");
        let first = first.and_then(|name| serde_json::from_str::<Map<_, _>>(&name).ok());
        let mut context =
            CONTEXT.map(|key| of(named.as_ref(), key).or_else(|| of(first.as_ref(), key)));
        if let [subsystem, ..] = &mut context
            && subsystem.is_none()
        {
            *subsystem = of(Some(&fields), "subsystem");
        }
        Some(Self {
            time: of(Some(&fields), "time").or_else(|| of(meta, "date")),
            level: level.map(|level| level.to_lowercase()).filter(|level| !level.is_empty()),
            label: context.iter().flatten().next().cloned(),
            context,
            message: of(Some(&fields), "message").unwrap_or_else(|| numbered(&fields)),
            details: details(&fields),
        })
    }

    /// OpenClaw's form of `text`.
    pub(super) fn json(&self, text: &str) -> Value {
        let mut value = json!({"type": "log"});
        let [subsystem, module, plugin] = &self.context;
        let fields = [
            ("time", &self.time),
            ("level", &self.level),
            ("subsystem", subsystem),
            ("module", module),
            ("plugin", plugin),
        ];
        if let Some(object) = value.as_object_mut() {
            for (key, word) in fields {
                if let Some(word) = word {
                    object.insert(key.to_owned(), word.clone().into());
                }
            }
            object.insert("message".to_owned(), self.message.clone().into());
            object.insert("raw".to_owned(), text.into());
        }
        value
    }

    /// When it was written: the time of day for a person at a terminal, else in full. What cannot be
    /// read stays as it is.
    pub(super) fn time(&self, zone: Zone, is_short: bool) -> Option<String> {
        let text = self.time.as_ref()?;
        let Ok(instant) = text.parse::<Timestamp>() else { return Some(text.clone()) };
        let shown = match zone {
            Zone::Here => instant.to_zoned_datetime(TimeZone::system()),
            Zone::Utc => instant.to_zoned_datetime(TimeZone::UTC),
        };
        let form = match (is_short, zone) {
            (true, _) => "%H:%M:%S",
            (false, Zone::Here) => "%Y-%m-%dT%H:%M:%S%.3f%:z",
            (false, Zone::Utc) => "%Y-%m-%dT%H:%M:%S%.3fZ",
        };
        Some(shown.strftime(form).to_string())
    }
}

/// The reason of a line, and then its code and the address that it is about.
fn details(fields: &Map<String, Value>) -> String {
    let word = |key: &str| fields.get(key)?.as_str().filter(|text| !text.is_empty());
    let why = ["reason", "why", "error"].into_iter().find_map(word);
    let about: Vec<&str> = ["code", "address"].into_iter().filter_map(word).collect();
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    if about.is_empty() { why } else { format!("{why} ({})", about.join(", ")) }
}

/// The values under `0`, `1`, …, as OpenClaw's logger keeps what it was given.
fn numbered(fields: &Map<String, Value>) -> String {
    let is_number = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts: Vec<(u64, String)> = fields
        .iter()
        .filter(|(key, value)| is_number(key) && !value.is_null())
        .filter_map(|(key, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some((key.parse().ok()?, text))
        })
        .collect();
    parts.sort_by_key(|(number, _)| *number);
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_our_lines_and_openclaws_and_leaves_others_alone() {
        let ours = r#"{"time":"2026-11-27T10:00:00.123Z","level":"WARN","subsystem":"gateway","message":"hot"}"#;
        let line = Line::of(ours).unwrap();
        assert_eq!(line.level.as_deref(), Some("warn"));
        assert_eq!(line.label.as_deref(), Some("gateway"));
        assert_eq!(line.time(Zone::Utc, false).as_deref(), Some("2026-11-27T10:00:00.123Z"));
        assert_eq!(line.time(Zone::Utc, true).as_deref(), Some("10:00:00"));
        assert_eq!(line.details, "");
        let json = line.json(ours);
        assert_eq!((&json["type"], &json["message"]), (&json!("log"), &json!("hot")));
        assert_eq!(json["raw"], ours);
        let theirs = r#"{"0":"{\"subsystem\":\"ws\"}","1":"closed","2":{"code":1},
            "_meta":{"name":"{\"module\":\"net\"}","logLevelName":"INFO","date":"no time"}}"#;
        let line = Line::of(theirs).unwrap();
        assert_eq!(line.label.as_deref(), Some("ws"));
        assert_eq!(line.json(theirs)["module"], "net");
        assert_eq!(line.message, r#"{"subsystem":"ws"} closed {"code":1}"#);
        assert_eq!(line.time(Zone::Here, true).as_deref(), Some("no time"));
        let refused = r#"{"message":"refused a client","reason":"no","code":"X","address":"::1"}"#;
        let line = Line::of(refused).unwrap();
        assert_eq!(
            (line.message.as_str(), line.details.as_str()),
            ("refused a client", ": no (X, ::1)")
        );
        assert_eq!(line.json(refused)["message"], "refused a client");
        for strange in ["plain text", "[1]", "", "7"] {
            assert_eq!(Line::of(strange), None, "{strange}");
        }
    }
}
