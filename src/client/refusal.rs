//! What a gateway's error means for a person: its class, and what to type.

use serde_json::Value;

use super::Source;
use crate::{
    problem::{Class, Problem},
    protocol::{ErrorShape, detail},
};

/// Why a gateway did not let us in.
pub(super) fn of_login(error: &ErrorShape, source: Source) -> Problem {
    let offered = source != Source::None;
    let code = said(error, "code").unwrap_or(&error.code);
    let message = match code {
        // A proxy's word is asked for there, and no secret.
        _ if is_by_proxy(error) => format!("the gateway refused the login: {}", error.message),
        "AUTH_TOKEN_MISMATCH" | "AUTH_PASSWORD_MISMATCH" | "AUTH_UNAUTHORIZED" => {
            format!("the gateway refused the secret ({source}): it is not this gateway's")
        }
        "AUTH_TOKEN_MISSING" | "AUTH_PASSWORD_MISSING" | "AUTH_REQUIRED" => {
            "the gateway wants a secret, and there is none for it".to_owned()
        }
        "AUTH_RATE_LIMITED" => "the gateway has seen too many failed logins".to_owned(),
        "DEVICE_IDENTITY_REQUIRED" if !offered => {
            "the gateway wants a secret, and there is none for it".to_owned()
        }
        "DEVICE_IDENTITY_REQUIRED" => "the gateway wants a paired device".to_owned(),
        "PAIRING_REQUIRED" => pairing(error),
        "PROTOCOL_MISMATCH" => format!(
            "this program speaks protocol {}, the gateway does not: {}",
            crate::protocol::VERSION,
            error.message
        ),
        _ if is_starting(error) => {
            return Problem::new(Class::GatewayDown, "the gateway is still starting")
                .code(code)
                .fix("try again in a few seconds");
        }
        _ => format!("the gateway refused the login: {}", error.message),
    };
    let problem = Problem::new(Class::GatewayRefused, message).code(code);
    match advice(code, error, offered) {
        Some(fix) if !is_by_proxy(error) => problem.fix(fix),
        Some(_) if is_by_proxy(error) => {
            problem.fix("come in by the proxy, with --url wss://PROXY")
        }
        Some(_) | None => problem,
    }
}

/// Whether a gateway that takes its users from a proxy was reached without the proxy's word.
fn is_by_proxy(error: &ErrorShape) -> bool {
    said(error, "authReason").is_some_and(|reason| reason.starts_with("trusted_proxy_"))
}

/// Whether a shared secret may help who was refused without one; approval, time or another version is
/// asked for by other codes.
pub(crate) fn wants_secret(problem: &Problem) -> bool {
    let secret = [
        detail::TOKEN_MISSING,
        detail::PASSWORD_MISSING,
        detail::TOKEN_MISMATCH,
        detail::PASSWORD_MISMATCH,
        detail::UNAUTHORIZED,
        detail::DEVICE_REQUIRED,
        "AUTH_REQUIRED",
    ];
    let code = problem.code.as_deref();
    problem.class == Class::GatewayRefused && code.is_some_and(|code| secret.contains(&code))
}

/// Why a call failed.
pub(super) fn of_call(method: &str, error: &ErrorShape) -> Problem {
    let code = said(error, "code").unwrap_or(&error.code);
    if code == "MISSING_SCOPE" || error.code == "FORBIDDEN" {
        let scope = said(error, "missingScope").map_or_else(
            || error.message.clone(),
            |scope| format!("the login does not include {scope}"),
        );
        return Problem::new(Class::GatewayRefused, format!("{method} is not allowed: {scope}"))
            .code(&error.code);
    }
    if error.code == "NOT_PAIRED" || code.starts_with("AUTH_") {
        return of_login(error, Source::Given);
    }
    let problem = Problem::new(Class::Rpc, error.message.clone()).code(&error.code);
    match error.retryable {
        Some(true) => problem.fix("try again"),
        Some(false) | None => problem,
    }
}

fn advice(code: &str, error: &ErrorShape, offered: bool) -> Option<String> {
    let show = "openclaw gateway auth-token --show";
    Some(match code {
        // A device's token asks for no more than it holds; the gateway's secret does.
        "AUTH_TOKEN_MISMATCH"
        | "AUTH_TOKEN_MISSING"
        | "AUTH_REQUIRED"
        | "AUTH_UNAUTHORIZED"
        | "AUTH_SCOPE_MISMATCH" => {
            format!("on the gateway's machine `{show}`; here --token-file FILE with its output")
        }
        "DEVICE_IDENTITY_REQUIRED" if !offered => {
            format!("on the gateway's machine `{show}`; here --token-file FILE with its output")
        }
        "DEVICE_IDENTITY_REQUIRED" => "openclaw remote connect user@host".to_owned(),
        "AUTH_PASSWORD_MISMATCH" | "AUTH_PASSWORD_MISSING" => "--password-file FILE".to_owned(),
        "AUTH_RATE_LIMITED" => match error.retry_after_ms {
            Some(wait) => format!("try again in {} s", wait.div_ceil(1000)),
            None => "try again in a few minutes".to_owned(),
        },
        "PAIRING_REQUIRED" => match said(error, "requestId").filter(|id| is_word(id)) {
            Some(id) => format!("on the gateway's machine: openclaw devices approve {id}"),
            None => "on the gateway's machine: openclaw devices list".to_owned(),
        },
        "PROTOCOL_MISMATCH" => "update the older of the two".to_owned(),
        _ => return None,
    })
}

fn pairing(error: &ErrorShape) -> String {
    match said(error, "requestId").filter(|id| is_word(id)) {
        Some(id) => format!("the gateway wants this device approved, request {id}"),
        None => "the gateway wants this device approved".to_owned(),
    }
}

/// A gateway that has a port but no agents yet says so in several ways.
fn is_starting(error: &ErrorShape) -> bool {
    error.code == "UNAVAILABLE"
        && (error.retryable == Some(true)
            || said(error, "reason").is_some_and(|reason| reason.starts_with("startup")))
}

fn said<'a>(error: &'a ErrorShape, key: &str) -> Option<&'a str> {
    error.details.as_ref().and_then(|details| details.get(key)).and_then(Value::as_str)
}

/// Whether a gateway's text may stand in a command that a person will copy.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(code: &str, details: Value) -> ErrorShape {
        ErrorShape {
            code: code.to_owned(),
            message: "no".to_owned(),
            details: Some(details),
            retryable: None,
            retry_after_ms: None,
        }
    }

    #[test]
    fn a_refused_login_says_what_to_type() {
        let cases = [
            (error("INVALID_REQUEST", json!({"code": "AUTH_TOKEN_MISMATCH"})), "auth-token"),
            (error("INVALID_REQUEST", json!({"code": "AUTH_TOKEN_MISSING"})), "auth-token"),
            (error("INVALID_REQUEST", json!({"code": "AUTH_PASSWORD_MISMATCH"})), "--password"),
            (error("NOT_PAIRED", json!({"code": "DEVICE_IDENTITY_REQUIRED"})), "remote connect"),
            (error("INVALID_REQUEST", json!({"code": "PROTOCOL_MISMATCH"})), "update"),
            (
                error("NOT_PAIRED", json!({"code": "PAIRING_REQUIRED", "requestId": "r-1"})),
                "openclaw devices approve r-1",
            ),
        ];
        for (error, fix) in cases {
            let problem = of_login(&error, Source::Saved);
            assert_eq!(problem.class, Class::GatewayRefused);
            assert!(problem.fix.as_deref().unwrap().contains(fix), "{problem:?}");
        }
        let without = error("NOT_PAIRED", json!({"code": "DEVICE_IDENTITY_REQUIRED"}));
        assert!(of_login(&without, Source::None).message.contains("wants a secret"));
    }

    #[test]
    fn a_secret_is_asked_for_only_where_one_may_help() {
        let refused = |code: &str| Problem::new(Class::GatewayRefused, "no").code(code);
        for code in ["AUTH_TOKEN_MISSING", "AUTH_PASSWORD_MISSING", "DEVICE_IDENTITY_REQUIRED"] {
            assert!(wants_secret(&refused(code)), "{code}");
        }
        for code in ["PAIRING_REQUIRED", "AUTH_RATE_LIMITED", "PROTOCOL_MISMATCH", "ELSE"] {
            assert!(!wants_secret(&refused(code)), "{code}");
        }
        let down = Problem::new(Class::GatewayDown, "gone").code("AUTH_TOKEN_MISSING");
        assert!(!wants_secret(&down));
    }

    #[test]
    fn a_gateways_text_is_never_a_command() {
        let id = "x; rm -rf ~";
        let hostile = error("NOT_PAIRED", json!({"code": "PAIRING_REQUIRED", "requestId": id}));
        let problem = of_login(&hostile, Source::Saved);
        assert!(!problem.message.contains("rm") && !problem.fix.unwrap().contains("rm"));
    }

    #[test]
    fn a_starting_gateway_is_no_refusal() {
        let starting = error("UNAVAILABLE", json!({"reason": "startup-sidecars"}));
        assert_eq!(of_login(&starting, Source::Saved).class, Class::GatewayDown);
    }

    #[test]
    fn a_failed_call_keeps_the_gateways_words() {
        let problem = of_call("nope", &error("INVALID_REQUEST", Value::Null));
        assert_eq!((problem.class, problem.message.as_str()), (Class::Rpc, "no"));
        assert_eq!(problem.code.as_deref(), Some("INVALID_REQUEST"));
        let details = json!({"code": "MISSING_SCOPE", "missingScope": "operator.read"});
        let problem = of_call("status", &error("FORBIDDEN", details));
        assert_eq!(problem.class, Class::GatewayRefused);
        assert!(problem.message.contains("operator.read"));
    }
}
