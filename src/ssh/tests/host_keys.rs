//! Which host keys are taken, asked about, refused and written down.

use super::*;
use crate::tunnel::Cause;

fn question(lab: &Lab) -> Question {
    Question::HostKey {
        host: format!("[127.0.0.1]:{}", lab.port()),
        algorithm: "ssh-ed25519".into(),
        fingerprint: lab.server.host_key_fingerprint(),
    }
}

fn on_file(lab: &Lab) -> String {
    fs::read_to_string(lab.at("known_hosts")).unwrap_or_default()
}

#[tokio::test]
async fn a_new_key_is_asked_about_once_and_written_down() {
    let lab = Lab::start();
    fs::write(lab.at("known_hosts"), "# mine\nother ssh-ed25519 AAAA").unwrap();
    let script = Script::of(&["yes"]);
    let session = connect(&lab.options(), &script).await.unwrap();
    assert_eq!(session.facts().host_key, lab.server.host_key_fingerprint());
    assert_eq!(script.asked(), [question(&lab)]);
    let line = lab.server.known_hosts_line(lab.port());
    assert_eq!(on_file(&lab), format!("# mine\nother ssh-ed25519 AAAA\n{line}\n"));
    let again = Script::default();
    connect(&lab.options(), &again).await.unwrap();
    assert_eq!(again.asked(), []);
}

#[tokio::test]
async fn a_new_key_that_nobody_accepts_is_refused_and_not_written_down() {
    let lab = Lab::start();
    let strict = lab.with("StrictHostKeyChecking", "yes");
    let batch = lab.with("BatchMode", "yes");
    let cases = [
        (lab.options(), Script::of(&["no"]), 1),
        (lab.options(), Script::default(), 1),
        (batch, Script::of(&["yes"]), 0),
        (strict, Script::of(&["yes"]), 0),
    ];
    for (options, script, questions) in cases {
        let failure = connect(&options, &script).await.unwrap_err();
        assert_eq!(failure.cause, Cause::HostKeyUnknown);
        let fingerprint = lab.server.host_key_fingerprint();
        assert!(failure.message.contains(&fingerprint), "{failure}");
        assert!(failure.fix.unwrap().contains(&format!("--accept-host-key {fingerprint}")));
        assert_eq!(script.asked().len(), questions);
    }
    assert_eq!(on_file(&lab), "");
}

#[tokio::test]
async fn accept_new_and_no_take_a_new_key_without_asking() {
    for policy in ["accept-new", "no"] {
        let lab = Lab::start();
        let mut options = lab.with("StrictHostKeyChecking", policy);
        options.options.push(("HashKnownHosts".into(), "yes".into()));
        let script = Script::default();
        connect(&options, &script).await.unwrap();
        assert_eq!(script.asked(), []);
        assert!(on_file(&lab).starts_with("|1|"), "{}", on_file(&lab));
        connect(&lab.with("StrictHostKeyChecking", "yes"), &script).await.unwrap();
    }
}

#[tokio::test]
async fn a_changed_key_is_refused_under_every_policy() {
    for policy in ["ask", "yes", "no", "accept-new"] {
        let lab = Lab::known();
        let before = on_file(&lab);
        let old = lab.server.host_key_fingerprint();
        lab.server.change_host_key().unwrap();
        let new = lab.server.host_key_fingerprint();
        let mut options = lab.with("StrictHostKeyChecking", policy);
        options.host_key_pin = Some(new.clone());
        let script = Script::of(&["yes"]);
        let failure = connect(&options, &script).await.unwrap_err();
        assert_eq!(failure.cause, Cause::HostKeyChanged);
        assert!(failure.message.contains(&old) && failure.message.contains(&new), "{failure}");
        assert!(failure.message.contains("known_hosts line 1"), "{failure}");
        let command = format!(
            "ssh-keygen -R '[127.0.0.1]:{}' -f {}",
            lab.port(),
            lab.at("known_hosts").display()
        );
        assert!(failure.fix.unwrap().contains(&command));
        assert_eq!((script.asked(), on_file(&lab)), (vec![], before));
    }
}

#[tokio::test]
async fn a_pinned_key_is_taken_and_any_other_refused() {
    let lab = Lab::start();
    let mut options = lab.with("StrictHostKeyChecking", "yes");
    options.host_key_pin = Some(lab.server.host_key_fingerprint());
    connect(&options, &Script::default()).await.unwrap();
    assert_eq!(on_file(&lab), lab.server.known_hosts_line(lab.port()) + "\n");
    let pin = format!("SHA256:{}", "A".repeat(43));
    options.host_key_pin = Some(pin.clone());
    let failure = connect(&options, &Script::of(&["yes"])).await.unwrap_err();
    assert_eq!(failure.cause, Cause::HostKeyChanged);
    assert!(failure.message.contains(&pin), "{failure}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_though_it_is_on_file() {
    let lab = Lab::known();
    let line = lab.server.known_hosts_line(lab.port());
    fs::write(lab.at("known_hosts"), format!("{line}\n@revoked {line}\n")).unwrap();
    let failure = connect(&lab.options(), &Script::of(&["yes"])).await.unwrap_err();
    assert_eq!(failure.cause, Cause::HostKeyRevoked);
    assert!(failure.message.contains("line 2"), "{failure}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_an_empty_file() {
    let lab = Lab::start();
    let known_hosts = lab.at("known_hosts");
    let options = lab.with("StrictHostKeyChecking", "no");
    for circle in [true, false] {
        // One that cannot even be found, and one that is no file.
        if circle {
            std::os::unix::fs::symlink(&known_hosts, &known_hosts).unwrap();
        } else {
            fs::remove_file(&known_hosts).unwrap();
            fs::create_dir(&known_hosts).unwrap();
        }
        let failure = connect(&options, &Script::of(&["yes"])).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Configuration);
        assert!(failure.message.contains("known_hosts"), "{failure}");
    }
}

#[tokio::test]
async fn the_alias_is_the_name_on_file() {
    let lab = Lab::start();
    let line = lab.server.known_hosts_line(22).replacen("127.0.0.1", "alias.example", 1);
    fs::write(lab.at("known_hosts"), line).unwrap();
    let mut options = lab.with("HostKeyAlias", "alias.example");
    options.options.push(("StrictHostKeyChecking".into(), "yes".into()));
    connect(&options, &Script::default()).await.unwrap();
}

#[tokio::test]
async fn another_key_on_file_for_the_address_counts_where_the_configuration_says_so() {
    use crate::ssh::{
        host_key::{Files, Shown},
        resolve::Hop,
    };
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known_hosts");
    let (lab, other) = (Lab::start(), Lab::start());
    let line = |lab: &Lab, name: &str| lab.server.known_hosts_line(22).replace("127.0.0.1", name);
    let text = format!("{}\n{}\n", line(&lab, "box.example"), line(&other, "192.0.2.7"));
    fs::write(&known, text).unwrap();
    let blob = line(&lab, "x").split(' ').nth(2).unwrap().to_owned();
    let key = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, blob).unwrap();
    let shown = Shown { key, certificate: None, at: std::time::SystemTime::now() };
    for (wanted, address, refused) in
        [(true, "192.0.2.7", true), (true, "192.0.2.8", false), (false, "192.0.2.7", false)]
    {
        let hop = Hop {
            check_host_ip: wanted,
            user_known_hosts: vec![known.clone()],
            global_known_hosts: Vec::new(),
            ..Hop::example("box.example")
        };
        let files = Files::read(&hop, Some(address.parse().unwrap())).await.unwrap();
        let outcome = files.check(&hop, &shown, &Script::default(), &|_: Stage| {}).await;
        let cause = outcome.err().map(|failure| failure.cause);
        assert_eq!(cause, refused.then_some(Cause::HostKeyChanged), "{wanted} {address}");
    }
}
