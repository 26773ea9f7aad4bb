//! Values that have the right kind and mean nothing: said as warnings, for OpenClaw takes them too. Pure.

use serde_json::Value;
use url::Url;

use super::{AuthMode, Gateway};
use crate::{config::issue::Issue, fingerprint::Fingerprint};

/// Sections that must be objects, of those that we only pass on or read parts of.
const OBJECTS: [&str; 7] = ["agents", "channels", "env", "models", "plugins", "session", "tools"];

/// Sections that are something else than an object, which no program can read.
pub(super) fn sections(whole: &Value) -> Vec<Issue> {
    let is_wrong = |name: &&str| {
        whole.get(name).is_some_and(|section| !section.is_object() && !section.is_null())
    };
    let issue = |name: &str| Issue::new(name, "must be an object");
    OBJECTS.into_iter().filter(is_wrong).map(issue).collect()
}

/// What a gateway starts with all the same, and nobody can use.
pub(super) fn doubts(gateway: &Gateway) -> Vec<Issue> {
    let mut doubts = Vec::new();
    for (i, text) in gateway.control_ui.allowed_origins.iter().enumerate() {
        if !is_origin(text) {
            let message = format!(
                "{text:?} is no origin (https://host or https://host:port), and lets nobody in"
            );
            doubts.push(Issue::new(format!("gateway.controlUi.allowedOrigins[{i}]"), message));
        }
    }
    if gateway.has_roles {
        let message = "is not followed here: nobody who comes in is bound by a role";
        doubts.push(Issue::new("gateway.roles", message));
    }
    if gateway.auth.mode == Some(AuthMode::None) && gateway.nodes.pair_local == Some(false) {
        let message = "is false while gateway.auth.mode is `none`: a device that is not paired yet \
                       finds nobody who may approve it";
        doubts.push(Issue::new("gateway.nodes.pairing.autoApproveLocal", message));
    }
    let remote = &gateway.remote;
    if let Some(text) = remote.url.as_deref().filter(|text| !text.is_empty()) {
        let is_right = Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host());
        if !is_right {
            // A password may stand in it.
            let message = "is no ws:// or wss:// address, and is not called";
            doubts.push(Issue::new("gateway.remote.url", message));
        }
    }
    let pin = remote.tls_fingerprint.as_deref().map(str::trim).filter(|text| !text.is_empty());
    if pin.is_some_and(|text| Fingerprint::parse(text).is_none()) {
        let message = "is no SHA-256 of a certificate (64 hex digits), and nothing is sent there";
        doubts.push(Issue::new("gateway.remote.tlsFingerprint", message));
    }
    doubts
}

fn is_origin(text: &str) -> bool {
    Url::parse(text)
        .is_ok_and(|url| url.has_host() && matches!(url.path(), "" | "/") && url.query().is_none())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Review, World};

    fn review(text: &str) -> Review {
        let find = |_: &Path, name: &str| Err(format!("cannot read {name}"));
        let world = World { variable: &|_| None, find: &find };
        Review::of(text, Path::new("openclaw.json"), &world)
    }

    #[test]
    fn a_section_that_is_no_object_is_an_issue_and_what_nobody_can_use_a_warning() {
        assert_eq!(review("{channels: 5, tools: null}").issues[0].path, "channels");
        let doubtful = "{gateway: {remote: {url: 'http://x', tlsFingerprint: 'zz'}, \
                        controlUi: {allowedOrigins: ['not an origin', 'https://a.example']}}}";
        let found = review(doubtful);
        assert_eq!(found.issues, []);
        let paths: Vec<_> = found.warnings.iter().map(|warning| warning.path.as_str()).collect();
        let expected = [
            "gateway.controlUi.allowedOrigins[0]",
            "gateway.remote.url",
            "gateway.remote.tlsFingerprint",
        ];
        assert_eq!(paths, expected);
        let bounded = review("{gateway: {roles: {default: 'guest', definitions: {guest: {}}}}}");
        assert_eq!((bounded.issues.len(), bounded.unknown.len()), (0, 0));
        assert_eq!(bounded.warnings[0].path, "gateway.roles");
        assert_eq!(review("{gateway: {roles: 'guest'}}").issues[0].path, "gateway.roles");
        let shut = "{gateway: {auth: {mode: 'none'}, nodes: {pairing: {autoApproveLocal: false}}}}";
        assert_eq!(review(shut).warnings[0].path, "gateway.nodes.pairing.autoApproveLocal");
        let fine = "{gateway: {roles: null, remote: {url: 'wss://a.example:1/x'}, controlUi: \
                    {allowedOrigins: ['http://localhost:5173', 'tauri://localhost']}}}";
        assert_eq!(review(fine).warnings, []);
    }
}
