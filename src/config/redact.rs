//! What `config get` shows in place of secrets.
//!
//! The placeholder and the rules are OpenClaw's: names that sound like a secret, and the places
//! that its schema marks. Beyond them, addresses with a password or a token in them.

use serde_json::Value;

use super::{
    edit::{self, Edit},
    path::KeyPath,
};

/// What stands for a secret. Nobody's value: `config set` refuses it.
pub(crate) const PLACEHOLDER: &str = "__OPENCLAW_REDACTED__";

/// Ends of names that only sound like a secret.
const HARMLESS: [&str; 10] = [
    "maxtokens",
    "maxoutputtokens",
    "maxinputtokens",
    "maxcompletiontokens",
    "contexttokens",
    "totaltokens",
    "tokencount",
    "tokenlimit",
    "tokenbudget",
    "passwordfile",
];
/// Names that hold a secret wherever they stand in a path, blanks and such between their words.
const WORDS: [&str; 2] = ["password", "secret"];
const PAIRS: [(&str, &str); 3] = [("api", "key"), ("encrypt", "key"), ("private", "key")];
/// The ends of other paths that hold secrets; `*` is any name.
const PLACES: [&[&str]; 19] = [
    &["headers", "*"],
    &["servers", "*", "env", "*"],
    &["exec", "env", "*"],
    &["edgeauth", "*"],
    &["localservice", "env", "*"],
    &["auth", "value"],
    &["tls", "ca"],
    &["tls", "cert"],
    &["tls", "key"],
    &["tls", "passphrase"],
    &["ssh", "identitydata"],
    &["ssh", "certificatedata"],
    &["ssh", "knownhostsdata"],
    &["proxyurl"],
    &["mappings", "*", "sessionkey"],
    &["synology-chat", "incomingurl"],
    &["synology-chat", "webhookurl"],
    &["synology-chat", "accounts", "*", "incomingurl"],
    &["synology-chat", "accounts", "*", "webhookurl"],
];
/// Parameters of an address that are secrets.
const PARAMETERS: [&str; 14] = [
    "token",
    "key",
    "secret",
    "password",
    "pass",
    "passwd",
    "auth",
    "jwt",
    "code",
    "session",
    "sig",
    "signature",
    "credential",
    "authorization",
];

/// `text`, the file whose value is `own`, with its comments and without its secrets; `None` where
/// it is written in a way that cannot be edited, or where a secret is left in it.
pub(crate) fn redacted_text(text: &str, own: &Value) -> Option<String> {
    let mut hidden = Vec::new();
    find_hidden(own, &redacted(own), &KeyPath::of(&[]), &mut hidden);
    let edits: Vec<_> =
        hidden.iter().map(|(path, _)| Edit::Set(path.clone(), PLACEHOLDER.into())).collect();
    let shown = edit::apply(text, &edits).ok()?;
    let is_left = |secret: &String| secret.len() >= 4 && shown.contains(secret.as_str());
    (!hidden.iter().any(|(_, secret)| is_left(secret))).then_some(shown)
}

/// The places where `shown` hides what stands in `own`, with what stands there.
fn find_hidden(own: &Value, shown: &Value, path: &KeyPath, hidden: &mut Vec<(KeyPath, String)>) {
    match (own, shown) {
        (Value::Object(keys), Value::Object(others)) => {
            for (key, value) in keys {
                if let Some(other) = others.get(key) {
                    find_hidden(value, other, &path.below(key), hidden);
                }
            }
        }
        (Value::Array(items), Value::Array(others)) => {
            for (at, (item, other)) in items.iter().zip(others).enumerate() {
                find_hidden(item, other, &path.below(&at.to_string()), hidden);
            }
        }
        (Value::String(secret), _) if own != shown => hidden.push((path.clone(), secret.clone())),
        _ if own != shown => hidden.push((path.clone(), own.to_string())),
        _ => {}
    }
}

/// `value`, the content of the whole file, without the secrets in it.
pub(crate) fn redacted(value: &Value) -> Value {
    inside(value, &mut Vec::new(), false)
}

fn inside(value: &Value, path: &mut Vec<String>, is_secret: bool) -> Value {
    let is_secret = is_secret || is_place_of_a_secret(path);
    match value {
        Value::Object(keys) => {
            let is_reference =
                keys.get("source").is_some_and(Value::is_string) && keys.contains_key("id");
            let shown = keys.iter().map(|(key, value)| {
                // The rest of a reference says where the secret is, not what it is.
                let is_secret = is_secret && (!is_reference || key == "id");
                path.push(key.to_lowercase());
                let value = match (is_reference && !is_secret, value) {
                    (true, Value::String(text)) => Value::String(text.clone()),
                    _ => inside(value, path, is_secret),
                };
                path.pop();
                (key.clone(), value)
            });
            Value::Object(shown.collect())
        }
        Value::Array(items) => items
            .iter()
            .map(|item| {
                path.push("*".to_owned());
                let item = inside(item, path, is_secret);
                path.pop();
                item
            })
            .collect(),
        Value::String(text) if is_empty_or_variable(text) => value.clone(),
        Value::String(text) if is_secret || is_secret_address(text) => PLACEHOLDER.into(),
        // A password of digits; a count of tokens is no secret.
        Value::Number(_)
            if is_secret && !path.last().is_some_and(|name| sounds_like_a_count(name)) =>
        {
            PLACEHOLDER.into()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn is_place_of_a_secret(path: &[String]) -> bool {
    PLACES.iter().any(|place| {
        let end = path.len().checked_sub(place.len()).and_then(|from| path.get(from..));
        end.is_some_and(|end| {
            end.iter().zip(place.iter()).all(|(name, known)| *known == "*" || name == known)
        })
    }) || path.iter().rev().find(|name| *name != "*").is_some_and(|name| is_name_of_a_secret(name))
}

fn is_name_of_a_secret(name: &str) -> bool {
    let is_pair = |(first, second): &(&str, &str)| {
        name.match_indices(first).any(|(at, _)| {
            let rest = name.get(at + first.len()..).unwrap_or_default();
            let mut next = rest.chars();
            rest.starts_with(second) || (next.next().is_some() && next.as_str().starts_with(second))
        })
    };
    !HARMLESS.iter().any(|end| name.ends_with(end))
        && (name.ends_with("token")
            || name.ends_with("serviceaccount")
            || name.ends_with("serviceaccountref")
            || WORDS.iter().any(|word| name.contains(word))
            || PAIRS.iter().any(is_pair))
}

fn sounds_like_a_count(name: &str) -> bool {
    !["token", "password", "secret", "key"].iter().any(|end| name.ends_with(end))
}

fn is_empty_or_variable(text: &str) -> bool {
    let text = text.trim();
    let inside = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    text.is_empty() || inside.is_some_and(|name| !name.contains('}'))
}

/// Whether `text` is an address with a password, or with a parameter that is a secret.
fn is_secret_address(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text.trim()) else { return false };
    let is_secret = |name: &str| {
        let name = name.to_lowercase().replace('-', "_");
        PARAMETERS.iter().any(|known| name == *known || name.ends_with(&format!("_{known}")))
            || name.ends_with("apikey")
    };
    let fragment = url.fragment().unwrap_or_default();
    let fragment = url::form_urlencoded::parse(fragment.as_bytes());
    let is_web = ["http", "https", "ws", "wss", "ftp"].contains(&url.scheme());
    url.password().is_some()
        || is_web
            && url
                .query_pairs()
                .chain(fragment)
                .any(|(name, value)| !value.is_empty() && is_secret(&name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether the value at the keys `path` is hidden.
    fn hides(path: &str, value: Value) -> bool {
        let nested = path.rsplit('.').fold(value, |inner, key| json!({ key: inner }));
        redacted(&nested).to_string().contains(PLACEHOLDER)
    }

    #[test]
    fn hides_what_openclaw_hides() {
        for path in [
            "gateway.auth.token",
            "gateway.remote.password",
            "channels.telegram.botToken",
            "channels.slack.appToken",
            "skills.entries.x.apiKey",
            "env.vars.OPENAI_API_KEY",
            "a.private_key",
            "a.encryptKey",
            "hooks.token",
            "gateway.remote.edgeAuth.anything",
            "mcp.servers.x.env.ANY",
            "mcp.servers.x.headers.Authorization",
            "channels.x.clientSecret",
            "models.providers.x.headers.y",
            "models.providers.x.request.tls.key",
            "proxy.proxyUrl",
            "models.providers.x.localService.env.Y",
            "channels.googlechat.serviceAccount",
        ] {
            assert!(hides(path, json!("value")), "{path}");
            assert!(!hides(path, json!("")) && !hides(path, json!("${NAME}")), "{path}");
        }
        assert!(hides("gateway.auth.password", json!(123_456)));
        assert!(hides("channels.googlechat.serviceAccount", json!({"client_email": "a@b"})));
        assert!(hides("a.tokens.b", json!(["x"])) == hides("a.tokens.b", json!("x")));
        assert!(hides("a.secrets", json!(["x"])));
        assert!(hides("hooks.mappings", json!([{"sessionKey": "x"}])));
    }

    #[test]
    fn a_text_keeps_its_comments_and_loses_its_secrets() {
        let text = "// mine\n{ a: { token: 'longer' /* old */ }, keys: [{ apiKey: 'other' }] }\n";
        let own = crate::config::parse_json5(text).unwrap();
        let shown = redacted_text(text, &own).unwrap();
        assert_eq!(crate::config::parse_json5(&shown).unwrap(), redacted(&own));
        assert!(shown.starts_with("// mine\n") && shown.contains("/* old */"), "{shown}");
        let twice = "{ a: { token: 'longer' } } // longer\n";
        let own = crate::config::parse_json5(twice).unwrap();
        assert_eq!(redacted_text(twice, &own), None);
    }

    #[test]
    fn shows_the_rest() {
        for (path, value) in [
            ("gateway.port", json!(1)),
            ("gateway.auth.mode", json!("token")),
            ("models.maxTokens", json!(4096)),
            ("agents.defaults.contextTokens", json!(4096)),
            ("env.vars.OTHER", json!("visible")),
            ("gateway.tls.keyPath", json!("/etc/key.pem")),
            ("a.passwordFile", json!("/run/x")),
            ("gateway.remote.url", json!("ws://127.0.0.1:18789")),
            ("a.passwordMinLength", json!(8)),
        ] {
            assert!(!hides(path, value), "{path}");
        }
    }

    #[test]
    fn a_reference_says_where_and_not_which() {
        let shown = redacted(&json!({
            "gateway": {"auth": {"token": {"source": "env", "provider": "default", "id": "NAME"}}}
        }));
        assert_eq!(
            shown.pointer("/gateway/auth/token"),
            Some(&json!({"source": "env", "provider": "default", "id": PLACEHOLDER}))
        );
    }

    #[test]
    fn hides_addresses_with_a_password() {
        for text in [
            "ws://user:pw@127.0.0.1:1",
            "https://a.example/?token=x",
            "https://a.example/#access_token=x",
            "https://a.example/?X-Api-Key=x",
            "redis://:pw@h/0",
        ] {
            assert!(hides("gateway.remote.url", json!(text)), "{text}");
        }
        for text in ["https://a.example/?q=x", "https://user@a.example", "openai:code?key", "text"]
        {
            assert!(!hides("x.y", json!(text)), "{text}");
        }
    }
}
