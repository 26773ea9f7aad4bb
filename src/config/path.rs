//! Where in `openclaw.json` a value stands: `gateway.auth.token`, `list[0]`, `models["a.b"]`.
//!
//! The notation is that of `openclaw config`: dots and brackets, a backslash before a dot that is
//! part of a name, a quoted name in brackets.

use std::fmt;

use serde_json::Value;

/// The furthest place in a list that a path may name.
const FURTHEST: usize = 100_000;
/// Names that mean something else to the programs that share the file.
const RESERVED: [&str; 3] = ["__proto__", "prototype", "constructor"];

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The name of a key, or the digits of a place in a list.
    pub(super) name: String,
    /// Written in quotes: never a place in a list that is yet to be made.
    is_quoted: bool,
}

impl Step {
    /// The place in a list, if the step can be one.
    pub(super) fn place(&self) -> Option<usize> {
        let is_canonical = self.name == "0" || !self.name.starts_with('0');
        let is_number = !self.name.is_empty() && self.name.bytes().all(|b| b.is_ascii_digit());
        let place = self.name.parse().ok().filter(|place| *place <= FURTHEST);
        place.filter(|_| is_canonical && is_number)
    }

    /// Whether what is missing before this step is a list.
    pub(super) fn wants_a_list(&self) -> bool {
        !self.is_quoted && self.place().is_some()
    }
}

/// The way from the root to a value; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPath(Vec<Step>);

impl KeyPath {
    /// Reads a path as a person types it; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text.trim(), steps: Vec::new() };
        reader.read()?;
        if let Some(step) = reader.steps.iter().find(|step| RESERVED.contains(&&*step.name)) {
            return Err(format!("`{}` is no name for a key", step.name));
        }
        Ok(Self(reader.steps))
    }

    /// The path of these names.
    pub(crate) fn of(names: &[&str]) -> Self {
        let step = |name: &&str| Step { name: (*name).to_owned(), is_quoted: false };
        Self(names.iter().map(step).collect())
    }

    /// The path of a key below this one.
    pub(super) fn below(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step { name: name.to_owned(), is_quoted: true });
        Self(steps)
    }

    /// The path of a place in the list at this one.
    pub(super) fn at(&self, place: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step { name: place.to_string(), is_quoted: false });
        Self(steps)
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The names of the steps.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|step| &*step.name).collect()
    }

    /// The value there.
    pub(crate) fn find<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(root, |value, step| match value {
            Value::Object(keys) => keys.get(&step.name),
            Value::Array(items) => items.get(step.place()?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        })
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            let is_plain = step.name.chars().all(|c| c.is_alphanumeric() || "_$:-".contains(c));
            if step.wants_a_list() && i > 0 {
                write!(f, "[{}]", step.name)?;
            } else if step.name.is_empty() || !is_plain {
                write!(f, "[{}]", Value::from(&*step.name))?;
            } else {
                write!(f, "{}{}", if i == 0 { "" } else { "." }, step.name)?;
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    rest: &'a str,
    steps: Vec<Step>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        loop {
            if self.rest.starts_with('[') {
                self.bracket()?;
            } else {
                self.name()?;
            }
            while self.rest.starts_with('[') {
                self.bracket()?;
            }
            match self.rest.strip_prefix('.') {
                Some(rest) => self.rest = rest,
                None if self.rest.is_empty() => return Ok(()),
                None => return Err("a dot is missing behind `]`".to_owned()),
            }
        }
    }

    /// A name up to the next dot or bracket.
    fn name(&mut self) -> Result<(), String> {
        let mut name = String::new();
        let mut characters = self.rest.chars();
        while let Some(character) = characters.clone().next().filter(|c| !".[".contains(*c)) {
            characters.next();
            match character {
                '\\' => name.push(characters.next().ok_or("it ends with a backslash")?),
                other => name.push(other),
            }
        }
        self.rest = characters.as_str();
        let name = name.trim();
        if name.is_empty() {
            return Err("a name is missing".to_owned());
        }
        self.steps.push(Step { name: name.to_owned(), is_quoted: false });
        Ok(())
    }

    /// `[0]`, `[name]`, `["any name"]` or `['any name']`.
    fn bracket(&mut self) -> Result<(), String> {
        let inside = self.rest.strip_prefix('[').unwrap_or(self.rest).trim_start();
        let quote = inside.chars().next().filter(|c| "\"'".contains(*c));
        let (name, behind) = match quote {
            Some(quote) => quoted(inside, quote)?,
            None => {
                let (name, behind) = inside.split_once(']').ok_or("`]` is missing")?;
                (name.trim().to_owned(), behind)
            }
        };
        if name.trim().is_empty() {
            return Err("there is nothing between `[` and `]`".to_owned());
        }
        self.rest = behind;
        self.steps.push(Step { name, is_quoted: quote.is_some() });
        Ok(())
    }
}

/// The text that opens `inside`, and what follows its bracket.
fn quoted(inside: &str, quote: char) -> Result<(String, &str), String> {
    let mut end = None;
    let mut is_escaped = false;
    for (at, character) in inside.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            other if other == quote => {
                end = Some(at + 1);
                break;
            }
            _ => {}
        }
    }
    let (text, behind) =
        end.and_then(|end| inside.split_at_checked(end)).ok_or("the closing quote is missing")?;
    let name: String = json5::from_str(text).map_err(|_| format!("{text} is no text"))?;
    let behind = behind.trim_start().strip_prefix(']').ok_or("`]` is missing")?;
    Ok((name, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_notation() {
        for (text, names) in [
            ("gateway.port", vec!["gateway", "port"]),
            (" gateway . port ", vec!["gateway", "port"]),
            ("list[0].name", vec!["list", "0", "name"]),
            ("list.0", vec!["list", "0"]),
            ("a[b]['c.d'][\"e\\\"]f\"]", vec!["a", "b", "c.d", "e\"]f"]),
            ("a\\.b.c", vec!["a.b", "c"]),
            ("[0]", vec!["0"]),
            ("m[ \"x/y.z\" ].q", vec!["m", "x/y.z", "q"]),
        ] {
            assert_eq!(KeyPath::parse(text).unwrap().names(), names, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_path() {
        for text in [
            "",
            " ",
            ".",
            "a.",
            ".a",
            "a..b",
            "a[",
            "a[]",
            "a[ ]",
            "a['']",
            "a['b]",
            "a[\"b\"",
            "a[0]b",
            "a.[0]b",
            "a\\",
            "a.__proto__",
            "constructor",
            "a['prototype']",
        ] {
            assert!(KeyPath::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_can_be_typed() {
        for text in ["a.b", "a[0]", "a[\"0\"].b", "m[\"x/y.z\"].q", "a[\"\\\"\"]", "ключ.b"] {
            let path = KeyPath::parse(text).unwrap();
            assert_eq!(KeyPath::parse(&path.to_string()).unwrap().names(), path.names(), "{path}");
        }
        assert_eq!(KeyPath::parse("a['b.c'][2]").unwrap().to_string(), "a[\"b.c\"][2]");
    }

    #[test]
    fn finds_places_and_names() {
        let root = serde_json::json!({"a": [{"0": 1}], "b": {"0": null}});
        let find = |text| KeyPath::parse(text).unwrap().find(&root).cloned();
        assert_eq!(find("a[0].0"), Some(1.into()));
        assert_eq!(find("b.0"), Some(Value::Null));
        for text in ["a[1]", "a[00]", "a.x", "b.0.c", "c"] {
            assert_eq!(find(text), None, "{text}");
        }
    }
}
