//! What Tailscale's program says, read. Pure.

use serde_json::Value;

/// How its daemon is, as `tailscale status --json` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Backend {
    /// Connected; the machine's name on the tailnet, if it has one.
    Running(Option<String>),
    /// On its way up.
    Starting(String),
    /// Something a person must see to.
    Stuck(String),
}

/// How the daemon is, from the answer's standard output and error.
pub(super) fn backend(out: &str, err: &str) -> Backend {
    let Ok(status) = serde_json::from_str::<Value>(out) else {
        let is_deaf = ["failed to connect", "not running", "connection refused", "doesn't appear"];
        let lower = err.to_lowercase();
        return if is_deaf.iter().any(|words| lower.contains(words)) {
            Backend::Starting("its daemon does not take connections yet".to_owned())
        } else {
            Backend::Stuck(first_line(err))
        };
    };
    let text = |pointer| status.pointer(pointer).and_then(Value::as_str);
    match text("/BackendState") {
        Some("Running") => {
            let name = text("/Self/DNSName").map(|name| name.trim_end_matches('.').to_owned());
            Backend::Running(name.filter(|name| !name.is_empty()))
        }
        Some(state @ ("NoState" | "Starting")) => {
            Backend::Starting(format!("its state is {state}"))
        }
        Some(state) => Backend::Stuck(format!("its state is {state}")),
        None => Backend::Stuck("it tells no state".to_owned()),
    }
}

/// The login name in the answer of `tailscale whois --json`.
pub(super) fn login(out: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(out).ok()?;
    let login = answer.pointer("/UserProfile/LoginName")?.as_str()?.trim();
    (!login.is_empty()).then(|| login.to_owned())
}

/// Whether a line of `tailscale serve` or `funnel` in the foreground says that the way is open.
pub(super) fn is_ready(line: &str) -> bool {
    line.trim_start().starts_with("Press Ctrl+C to exit")
}

/// What is wrong and what to type, from what the program said before it ended.
pub(super) fn advice(said: &str) -> (String, Option<&'static str>) {
    let lower = said.to_lowercase();
    let fix = if lower.contains("already exists for port") || lower.contains("already in use") {
        Some("tailscale serve status --json, and end what holds the port")
    } else if ["access denied", "permission denied", "not permitted", "must be run as root"]
        .iter()
        .any(|words| lower.contains(words))
    {
        Some("sudo tailscale set --operator=\"$USER\" (once)")
    } else if lower.contains("https://login.tailscale.com") || lower.contains("not enabled") {
        Some("open the address that it names, once")
    } else {
        None
    };
    let line =
        said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
    (line.chars().take(300).collect(), fix)
}

fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("it said nothing").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_up_on_its_way_or_waits_for_a_person() {
        let up = r#"{"BackendState":"Running","Self":{"DNSName":"box.tail1.ts.net."}}"#;
        assert_eq!(backend(up, ""), Backend::Running(Some("box.tail1.ts.net".to_owned())));
        assert_eq!(backend(r#"{"BackendState":"Running"}"#, ""), Backend::Running(None));
        for state in ["NoState", "Starting"] {
            let out = format!(r#"{{"BackendState":"{state}"}}"#);
            assert!(matches!(backend(&out, ""), Backend::Starting(_)), "{state}");
        }
        for state in ["NeedsLogin", "Stopped", "NeedsMachineAuth"] {
            let out = format!(r#"{{"BackendState":"{state}"}}"#);
            assert!(matches!(backend(&out, ""), Backend::Stuck(_)), "{state}");
        }
        let deaf = "failed to connect to local tailscaled; it doesn't appear to be running";
        assert!(matches!(backend("", deaf), Backend::Starting(_)));
        assert!(matches!(backend("", "flag provided but not defined"), Backend::Stuck(_)));
        assert!(matches!(backend("{}", ""), Backend::Stuck(_)));
    }

    #[test]
    fn a_login_is_a_name_and_nothing_else() {
        let me = r#"{"Node":{},"UserProfile":{"ID":1,"LoginName":"me@example.com"}}"#;
        assert_eq!(login(me).as_deref(), Some("me@example.com"));
        for wrong in ["", "{}", r#"{"UserProfile":{"LoginName":" "}}"#, "peer not found"] {
            assert_eq!(login(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_went_wrong_is_told_with_what_helps() {
        let advised = |said: &str| advice(said).1;
        assert!(advised("error: listener already exists for port 443").is_some());
        assert!(advised("Access denied: serve config denied").unwrap().contains("--operator"));
        let consent = "Serve is not enabled on your tailnet.\nTo enable, visit:\n\n\thttps://login.tailscale.com/f/serve?node=n";
        assert!(advised(consent).unwrap().contains("address"));
        assert_eq!(advice("\n\nboom\nmore"), ("boom".to_owned(), None));
        assert_eq!(advice("").0, "it said nothing");
    }
}
