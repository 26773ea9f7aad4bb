//! What is wrong with a text that is no request frame, and under which id that is answered.
//!
//! Asked only once a text was refused. Nothing of it is taken apart but the few fields that a
//! request has, so that a large one costs no more than its own bytes.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::frame::{LONGEST_PROFILE, LONGEST_TRACE};

/// The id of an answer to what has none that is text.
const NO_ID: &str = "invalid";
/// The most that is said of a field's name, characters.
const LONGEST_NAME: usize = 64;

/// A text that is no request frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flawed {
    /// The frame's own id where it has one that an answer may carry, else `invalid`.
    pub(crate) id: String,
    /// Every kind of flaw in the words of the reference gateway, with the place: `/id` is the field.
    pub(crate) why: String,
}

/// The fields of a request, whatever is in them.
#[derive(Default)]
struct Loose<'a> {
    kind: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    trace: Option<&'a RawValue>,
    profile: Option<&'a RawValue>,
    /// The first field that no request has.
    unexpected: Option<String>,
    /// The first field that is there more than once.
    twice: Option<&'static str>,
}

impl Flawed {
    /// Looks at a text that was refused as a request.
    pub(crate) fn read(text: &str) -> Self {
        match serde_json::from_str::<Loose<'_>>(text) {
            Ok(loose) => Self { id: loose.answered(), why: loose.why() },
            Err(error) if error.is_data() => Self::nameless("must be object"),
            Err(_) => Self::nameless("not JSON"),
        }
    }

    fn nameless(why: &str) -> Self {
        Self { id: NO_ID.to_owned(), why: why.to_owned() }
    }
}

impl Loose<'_> {
    /// The published frame of an answer wants an id that is text, and not none.
    fn answered(&self) -> String {
        let id = self.id.and_then(text).filter(|id| !id.is_empty());
        id.unwrap_or_else(|| NO_ID.to_owned())
    }

    fn why(&self) -> String {
        let wanted = [("type", self.kind), ("id", self.id), ("method", self.method)];
        let missing = wanted.iter().find(|(_, value)| value.is_none());
        let missing = missing.map(|(name, _)| format!("must have required property '{name}'"));
        let unexpected = self.unexpected.as_ref();
        let unexpected = unexpected.map(|name| format!("at root: unexpected property '{name}'"));
        let twice = self.twice.map(|name| format!("at root: property '{name}' is there twice"));
        let is_request = |kind| text(kind).as_deref() == Some("req");
        let kind = self.kind.filter(|kind| !is_request(kind));
        let kind = kind.map(|_| "at /type: must be equal to constant".to_owned());
        let fields = [
            flaw("id", self.id, 1, usize::MAX),
            flaw("method", self.method, 1, usize::MAX),
            flaw("traceparent", self.trace, 0, LONGEST_TRACE),
            flaw("expectedProfileId", self.profile, 1, LONGEST_PROFILE),
        ];
        let parts = [missing, unexpected, twice, kind].into_iter().chain(fields).flatten();
        let parts: Vec<String> = parts.collect();
        if parts.is_empty() { "it cannot be read".to_owned() } else { parts.join("; ") }
    }
}

impl<'de> Deserialize<'de> for Loose<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Loose<'de>;

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut loose = Loose::default();
        let mut had_params = false;
        while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
            let (name, place) = match &*name {
                "type" => ("type", &mut loose.kind),
                "id" => ("id", &mut loose.id),
                "method" => ("method", &mut loose.method),
                "traceparent" => ("traceparent", &mut loose.trace),
                "expectedProfileId" => ("expectedProfileId", &mut loose.profile),
                other => {
                    fields.next_value::<IgnoredAny>()?;
                    if other != "params" {
                        let short = || other.chars().take(LONGEST_NAME).collect();
                        loose.unexpected.get_or_insert_with(short);
                    } else if std::mem::replace(&mut had_params, true) {
                        loose.twice.get_or_insert("params");
                    }
                    continue;
                }
            };
            if place.replace(fields.next_value()?).is_some() {
                loose.twice.get_or_insert(name);
            }
        }
        Ok(loose)
    }
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// What is wrong with a field of text that may have so many characters.
fn flaw(name: &str, value: Option<&RawValue>, least: usize, most: usize) -> Option<String> {
    let value = value?;
    let why = match text(value).map(|text| text.chars().count()) {
        None => "must be string".to_owned(),
        Some(length) if length < least => format!("must not have fewer than {least} characters"),
        Some(length) if length > most => format!("must not have more than {most} characters"),
        Some(_) => return None,
    };
    Some(format!("at /{name}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts, and what the reference gateway answers to them: the id and the message.
    #[test]
    fn a_wrong_frame_is_answered_under_its_own_id_and_its_fields_are_named() {
        let long = format!(r#"{{"type":"req","id":"b","method":"m","traceparent":"{:0129}"}}"#, 0);
        for (wrong, id, why) in [
            (
                r#"{"type":"req","id":"a","method":"m","zz":1}"#,
                "a",
                "at root: unexpected property 'zz'",
            ),
            (&*long, "b", "at /traceparent: must not have more than 128 characters"),
            (
                r#"{"type":"req","id":"c","method":"m","traceparent":null}"#,
                "c",
                "at /traceparent: must be string",
            ),
            (
                r#"{"type":"req","id":"d","method":"m","expectedProfileId":""}"#,
                "d",
                "at /expectedProfileId: must not have fewer than 1 characters",
            ),
            (r#"{"type":"req","id":"e"}"#, "e", "must have required property 'method'"),
            (r#"{"type":"req","id":"f","method":5}"#, "f", "at /method: must be string"),
            (
                r#"{"type":"req","id":"g","method":""}"#,
                "g",
                "at /method: must not have fewer than 1 characters",
            ),
            (
                r#"{"type":"res","id":"h","ok":true}"#,
                "h",
                "must have required property 'method'; at root: unexpected property 'ok'; at /type: must be equal to constant",
            ),
            (
                r#"{"type":"req","id":"i","method":"m","zz":1,"yy":2,"traceparent":4}"#,
                "i",
                "at root: unexpected property 'zz'; at /traceparent: must be string",
            ),
            (r#"{"type":"req"}"#, NO_ID, "must have required property 'id'"),
            ("{}", NO_ID, "must have required property 'type'"),
            ("[]", NO_ID, "must be object"),
            ("null", NO_ID, "must be object"),
        ] {
            let expected = Flawed { id: id.to_owned(), why: why.to_owned() };
            assert_eq!(Flawed::read(wrong), expected, "{wrong}");
        }
    }

    #[test]
    fn an_id_that_no_answer_may_carry_is_answered_without() {
        for (id, why) in
            [("1", "must be string"), (r#""""#, "must not have fewer than 1 characters")]
        {
            let flawed = Flawed::read(&format!(r#"{{"type":"req","id":{id},"method":"m"}}"#));
            assert_eq!(flawed, Flawed { id: NO_ID.to_owned(), why: format!("at /id: {why}") });
        }
    }

    #[test]
    fn what_is_there_twice_is_said_and_what_is_no_json_as_well() {
        let twice = Flawed::read(r#"{"type":"req","id":"a","method":"m","params":1,"params":2}"#);
        assert_eq!((&*twice.id, &*twice.why), ("a", "at root: property 'params' is there twice"));
        for wrong in ["{", "", "{\"type\":\"req\",\"id\":\"a\",\"method\":\"m\"}]"] {
            assert_eq!(Flawed::read(wrong), Flawed::nameless("not JSON"), "{wrong}");
        }
        let named = format!(r#"{{"type":"req","id":"a","method":"m","{}":1}}"#, "é".repeat(500));
        assert!(Flawed::read(&named).why.len() < 200);
        let deep = format!(r#"{{"type":"req","id":"a","method":[],"x":{}"#, "[".repeat(100_000));
        assert_eq!(Flawed::read(&deep), Flawed::nameless("not JSON"));
    }
}
