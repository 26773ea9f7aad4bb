//! Events as lines of JSON, in the form that OpenClaw's log readers parse: `time`, `level`,
//! `subsystem`, `message`, then the fields, then the spans around by their names.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::{queue::Lines, redact};

/// Names that a field must not take.
const OWN: [&str; 4] = ["time", "level", "subsystem", "message"];

/// The layer that makes lines of what happens and hands them in.
pub(crate) struct JsonLines {
    pub(super) lines: Lines,
}

/// The fields of a span, kept with it.
struct Kept(Map<String, Value>);

impl JsonLines {
    /// Hands in to `lines`.
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines }
    }
}

impl<S> Layer<S> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, at: Context<'_, S>) {
        let Some(span) = at.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().replace(Kept(fields.0));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, at: Context<'_, S>) {
        let Some(span) = at.span(id) else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(Kept(kept)) = span.extensions_mut().get_mut() {
            kept.extend(fields.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, at: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let about = event.metadata();
        let mut line = Map::new();
        line.insert("time".to_owned(), stamp(Timestamp::now()).into());
        line.insert("level".to_owned(), about.level().to_string().to_lowercase().into());
        line.insert("subsystem".to_owned(), subsystem(about.target()).into());
        line.insert("message".to_owned(), fields.0.remove("message").unwrap_or_default());
        for (name, value) in fields.0 {
            let name = if OWN.contains(&name.as_str()) { format!("{name}_") } else { name };
            line.insert(name, value);
        }
        for span in at.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(Kept(kept)) = span.extensions().get() {
                line.insert(span.name().to_owned(), Value::Object(kept.clone()));
            }
        }
        let handle = &self.lines.handle;
        mask(&mut line, &|text| handle.masked(text));
        self.lines.push(Value::Object(line).to_string());
    }
}

/// A moment as the log writes it: RFC 3339, UTC, milliseconds.
pub(super) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// The part of the program that a module belongs to.
fn subsystem(target: &str) -> &str {
    target.split("::").nth(1).unwrap_or(target)
}

/// Masks secrets by the names of their fields and in every text.
fn mask(fields: &mut Map<String, Value>, masked: &impl Fn(&str) -> String) {
    for (name, value) in fields {
        match value {
            Value::Object(inner) => mask(inner, masked),
            Value::Null | Value::Bool(_) => {}
            _ if redact::is_name_of_a_secret(name) => *value = redact::MASK.into(),
            Value::String(text) => *text = masked(text),
            Value::Number(_) | Value::Array(_) => {}
        }
    }
}

/// Takes the fields of an event or a span.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::{
        super::{DayFile, newest, open},
        *,
    };
    use crate::secret::Secret;

    fn logged(folder: &Path, story: impl FnOnce()) -> Vec<Value> {
        let (layer, handle, writer) = open(DayFile::new(folder, "gateway-"), None).unwrap();
        handle.conceal(&Secret::new("correct horse"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, story);
        drop(writer);
        let text = std::fs::read_to_string(newest(folder, "gateway-").unwrap()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_what_the_readers_of_openclaw_look_for() {
        let home = tempfile::tempdir().unwrap();
        let lines = logged(home.path(), || {
            let span = tracing::info_span!("client", id = 7, user = tracing::field::Empty);
            span.record("user", "ann");
            let _in = span.enter();
            tracing::warn!(count = 3, time = "mine", "clients did not end in time");
        });
        let line = &lines[0];
        assert_eq!(line["level"], "warn");
        assert_eq!(line["subsystem"], "logfile");
        assert_eq!(line["message"], "clients did not end in time");
        assert_eq!((&line["count"], &line["time_"]), (&3.into(), &"mine".into()));
        assert_eq!(line["client"], serde_json::json!({"id": 7, "user": "ann"}));
        let time = line["time"].as_str().unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.len() == 24, "{time}");
    }

    #[test]
    fn no_secret_reaches_the_file_by_field_text_or_span() {
        let home = tempfile::tempdir().unwrap();
        let lines = logged(home.path(), || {
            let span = tracing::info_span!("request", device_token = "in a span");
            let _in = span.enter();
            let secret = Secret::new("typed");
            tracing::info!(password = 1234, ?secret, what = "correct horse", "said correct horse");
            tracing::info!("{}", "Authorization: Bearer in-a-message");
        });
        let text = format!("{lines:?}");
        for secret in ["in a span", "1234", "typed", "correct horse", "in-a-message"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert_eq!(lines[0]["request"]["device_token"], "***");
    }
}
