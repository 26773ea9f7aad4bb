//! Turns the options of a command into keywords of ssh_config(5). Pure.

use std::path::Path;

use super::{
    config,
    target::{self, Target},
};
use crate::config::{Family, SshOptions};

/// The file that stands for none after `-F` (ssh(1)).
const NO_FILE: &str = "none";

/// The options as keywords with their values, as a configuration file would have them; the first
/// of a keyword wins.
pub(super) fn keywords(options: &SshOptions) -> Vec<(String, String)> {
    let mut keywords = Vec::new();
    let mut add = |keyword: &str, value: String| keywords.push((keyword.to_owned(), value));
    match options.family {
        Family::Any => {}
        Family::V4 => add("AddressFamily", "inet".to_owned()),
        Family::V6 => add("AddressFamily", "inet6".to_owned()),
    }
    if let Some(user) = &options.user {
        add("User", user.clone());
    }
    if let Some(port) = options.port {
        add("Port", port.to_string());
    }
    for path in &options.identities {
        add("IdentityFile", quoted(&path.to_string_lossy()));
    }
    if !options.jumps.is_empty() {
        add("ProxyJump", options.jumps.join(","));
    }
    keywords.extend(options.options.iter().cloned());
    keywords
}

/// The account that the options and the target name, the options first.
pub(super) fn user(options: &SshOptions, target: &Target) -> Option<String> {
    options.user.clone().or_else(|| said(options, "User")).or_else(|| target.user.clone())
}

/// The port that the options and the target name, the options first.
pub(super) fn port(options: &SshOptions, target: &Target) -> Option<u16> {
    let named = || said(options, "Port").and_then(|text| target::port(&text));
    options.port.or_else(named).or(target.port)
}

fn said(options: &SshOptions, keyword: &str) -> Option<String> {
    let is_it = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(keyword);
    options.options.iter().find(is_it).map(|(_, value)| value.clone())
}

/// What is wrong with the options beside the keywords, each as a sentence's part.
pub(super) fn mistakes(options: &SshOptions) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(user) = &options.user
        && !target::is_user(user)
    {
        wrong.push(format!("-l `{}`: is not an account name", user.escape_debug()));
    }
    for (keyword, name) in [("User", "an account name"), ("HostName", "a host name or address")] {
        let is_good = |value: &str| match keyword {
            "User" => target::is_user(value),
            // Tokens are filled in later, and what they make is looked at again.
            _ => target::is_host(&value.replace("%h", "h").replace("%%", "")),
        };
        if let Some(value) = said(options, keyword)
            && !is_good(value.trim().trim_matches('"'))
        {
            wrong.push(format!("-o {keyword}={}: is not {name}", value.escape_debug()));
        }
    }
    if options.port == Some(0) {
        wrong.push("-p 0: is not a port".to_owned());
    }
    if let Some(pin) = &options.host_key_pin
        && !is_fingerprint(pin)
    {
        wrong.push(format!(
            "--accept-host-key `{}`: is not a fingerprint of the form SHA256:…",
            pin.escape_debug()
        ));
    }
    wrong
}

fn is_fingerprint(text: &str) -> bool {
    text.strip_prefix("SHA256:").is_some_and(|hash| {
        hash.len() == 43 && hash.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
    })
}

/// Makes the relative paths in `options` absolute, so that they mean the same in another process.
///
/// For the command that reads its arguments: `folder` is where the person stands.
pub(crate) fn anchor(options: &mut SshOptions, folder: &Path) {
    let is_free = |path: &Path| !path.starts_with("~") && path != Path::new(NO_FILE);
    let paths = options.identities.iter_mut().chain(&mut options.config_file);
    for path in paths.filter(|path| is_free(path)) {
        *path = folder.join(&*path);
    }
    for (key, value) in &mut options.options {
        let holds_paths = [
            "IdentityFile",
            "CertificateFile",
            "IdentityAgent",
            "UserKnownHostsFile",
            "GlobalKnownHostsFile",
            "RevokedHostKeys",
        ]
        .iter()
        .any(|name| key.eq_ignore_ascii_case(name));
        // What cannot be taken apart is refused when it is read.
        if holds_paths && let Ok(words) = config::words(value) {
            let words: Vec<String> = words.into_iter().map(|word| anchored(word, folder)).collect();
            *value = words.join(" ");
        }
    }
}

fn anchored(word: String, folder: &Path) -> String {
    let named = [NO_FILE, "SSH_AUTH_SOCK"].contains(&word.as_str());
    let absolute = if named || word.starts_with(['/', '~', '%', '$']) {
        word
    } else {
        folder.join(word).to_string_lossy().into_owned()
    };
    quoted(&absolute)
}

/// `text` as one word of a configuration line.
fn quoted(text: &str) -> String {
    if !text.is_empty() && !text.contains([' ', '\t', '"', '\'', '\\', '#']) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(options: &[(&str, &str)]) -> SshOptions {
        SshOptions {
            options: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            ..SshOptions::default()
        }
    }

    #[test]
    fn flags_come_before_options_and_words_stay_words() {
        let options = SshOptions {
            identities: vec!["/a b/k".into(), "/c".into()],
            jumps: vec!["one".into(), "two:23".into()],
            family: Family::V6,
            ..with(&[("ProxyJump", "other"), ("IdentityFile", "~/d")])
        };
        let shown: Vec<String> =
            keywords(&options).iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(
            shown,
            [
                "AddressFamily inet6",
                "IdentityFile \"/a b/k\"",
                "IdentityFile /c",
                "ProxyJump one,two:23",
                "ProxyJump other",
                "IdentityFile ~/d"
            ]
        );
    }

    #[test]
    fn options_win_over_the_target_and_the_first_over_the_rest() {
        let target = Target::parse("other@box:22").unwrap();
        let mut options = with(&[("PORT", "2200"), ("port", "2201"), ("User", "you")]);
        assert_eq!(user(&options, &target).as_deref(), Some("you"));
        assert_eq!(port(&options, &target), Some(2200));
        options.port = Some(2222);
        options.user = Some("flag".into());
        assert_eq!(user(&options, &target).as_deref(), Some("flag"));
        assert_eq!(port(&options, &target), Some(2222));
        assert_eq!(user(&with(&[]), &target).as_deref(), Some("other"));
    }

    #[test]
    fn names_that_could_do_harm_are_refused_wherever_they_stand() {
        for options in [
            SshOptions { user: Some("-x".into()), ..SshOptions::default() },
            SshOptions { user: Some("a b".into()), ..SshOptions::default() },
            SshOptions { port: Some(0), ..SshOptions::default() },
            SshOptions { host_key_pin: Some("MD5:00".into()), ..SshOptions::default() },
            with(&[("User", "$(id)")]),
            with(&[("HostName", "-oProxyCommand=x")]),
            with(&[("HostName", "a;b")]),
            with(&[("hostname", "a\nb")]),
        ] {
            assert_eq!(mistakes(&options).len(), 1, "{options:?}");
        }
        assert!(mistakes(&with(&[("HostName", "%h.example"), ("User", "me")])).is_empty());
    }

    #[test]
    fn anchoring_reads_quotes_as_ssh_does() {
        for (value, expected) in [
            ("'/a b' c", "\"/a b\" /w/c"),
            ("/a\\ b", "\"/a b\""),
            ("\"it's\"", "\"/w/it's\""),
            ("'/a b", "'/a b"),
        ] {
            let mut options = with(&[("UserKnownHostsFile", value)]);
            anchor(&mut options, Path::new("/w"));
            assert_eq!(options.options[0].1, expected);
        }
    }

    #[test]
    fn anchoring_makes_paths_mean_the_same_elsewhere() {
        let mut options = with(&[
            ("IdentityFile", "key"),
            ("userknownhostsfile", "~/a b /c \"d e\""),
            ("IdentityAgent", "SSH_AUTH_SOCK"),
            ("GlobalKnownHostsFile", "none"),
            ("Port", "22"),
        ]);
        options.identities = vec!["k".into(), "/abs".into(), "~/home".into()];
        options.config_file = Some("conf".into());
        anchor(&mut options, Path::new("/w"));
        let values: Vec<&str> = options.options.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["/w/key", "~/a /w/b /c \"/w/d e\"", "SSH_AUTH_SOCK", "none", "22"]);
        assert_eq!(options.identities, [Path::new("/w/k"), Path::new("/abs"), Path::new("~/home")]);
        assert_eq!(options.config_file.as_deref(), Some(Path::new("/w/conf")));
        options.config_file = Some("none".into());
        anchor(&mut options, Path::new("/w"));
        assert_eq!(options.config_file.as_deref(), Some(Path::new("none")));
    }
}
