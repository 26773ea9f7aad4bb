//! Who we log in as, with what, and who is asked.

use super::{agent::OwnAgent, real::Sshd, *};
use crate::{ssh::server::Round, tunnel::Cause};

fn passphrase(lab: &Lab, again: bool) -> Question {
    Question::Passphrase { path: lab.at("locked"), again }
}

/// A lab whose only key is locked by the passphrase `secret`.
fn locked() -> Option<Lab> {
    installed("ssh-keygen")?;
    let lab = Lab::known();
    keygen(&lab.at("locked"), "ed25519", "secret");
    lab.server.allow(Login::Key(fs::read_to_string(lab.at("locked.pub")).unwrap()));
    Some(lab)
}

fn with_key(lab: &Lab, name: &str) -> SshOptions {
    SshOptions { identities: vec![lab.at(name)], ..lab.options() }
}

#[tokio::test]
async fn a_locked_key_is_unlocked_once_and_kept() {
    let Some(lab) = locked() else { return };
    let keyring = Keyring::default();
    let script = Script::of(&["wrong", "secret"]);
    let options = with_key(&lab, "locked");
    let session = connect_with(&options, &script, &keyring).await.unwrap();
    assert_eq!(script.asked(), [passphrase(&lab, false), passphrase(&lab, true)]);
    assert!(!session.facts().needed_person);
    let again = Script::default();
    connect_with(&options, &again, &keyring).await.unwrap();
    assert_eq!(again.asked(), []);
}

#[tokio::test]
async fn a_locked_key_needs_a_person() {
    let Some(lab) = locked() else { return };
    let options = with_key(&lab, "locked");
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::NeedsPerson);
    assert!(failure.fix.unwrap().contains("ssh-add"));
    let failure = connect(&options, &Script::of(&["a", "b", "c", "secret"])).await.unwrap_err();
    assert_eq!(failure.cause, Cause::NeedsPerson);
}

#[tokio::test]
async fn the_passphrase_of_a_key_that_the_server_refuses_is_not_asked_for() {
    let Some(lab) = locked() else { return };
    lab.server.allow(Login::Key(lab.key.clone()));
    let script = Script::of(&["secret"]);
    let failure = connect(&with_key(&lab, "locked"), &script).await.unwrap_err();
    assert_eq!((failure.cause, script.asked()), (Cause::Authentication, vec![]));
}

#[tokio::test]
async fn a_refused_key_says_what_was_tried_and_what_the_server_offers() {
    let lab = Lab::known();
    lab.server.allow(Login::Nobody);
    let failure = connect(&lab.options(), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication);
    assert!(failure.message.contains("publickey"), "{failure}");
    assert!(failure.message.contains("client_key"), "{failure}");
}

#[tokio::test]
async fn keys_of_every_common_kind_and_form_work() {
    if installed("ssh-keygen").is_none() {
        return;
    }
    let lab = Lab::known();
    for (kind, form) in [
        ("ed25519", "RFC4716"),
        ("ecdsa", "RFC4716"),
        ("ecdsa", "PKCS8"),
        ("rsa", "PEM"),
        ("rsa", "PKCS8"),
    ] {
        let name = format!("{kind}_{form}");
        let done = Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-m", form, "-N", "", "-f"])
            .arg(lab.at(&name))
            .status()
            .unwrap();
        assert!(done.success());
        lab.server.allow(Login::Key(fs::read_to_string(lab.at(&format!("{name}.pub"))).unwrap()));
        let session = connect(&with_key(&lab, &name), &Script::default()).await;
        assert!(session.is_ok(), "{name}: {}", session.unwrap_err());
    }
}

#[tokio::test]
async fn a_key_that_others_may_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::known();
    fs::set_permissions(lab.at("client_key"), fs::Permissions::from_mode(0o644)).unwrap();
    let failure = connect(&lab.options(), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Configuration);
    assert!(failure.fix.unwrap().starts_with("chmod 600"));
}

#[tokio::test]
async fn a_missing_key_is_named() {
    let lab = Lab::known();
    let failure = connect(&with_key(&lab, "nowhere"), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Configuration);
    assert!(failure.message.contains("nowhere"), "{failure}");
}

#[tokio::test]
async fn a_password_is_asked_for_only_where_somebody_is_there() {
    let lab = Lab::known();
    lab.server.allow(Login::Password("right".into()));
    let keyring = Keyring::default();
    let script = Script::of(&["wrong", "right"]);
    let session = connect_with(&lab.options(), &script, &keyring).await.unwrap();
    assert_eq!(script.asked().len(), 2);
    assert!(session.facts().needed_person);
    assert_eq!(session.facts().method, "password");
    let failure = connect(&lab.options(), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::NeedsPerson);
    let script = Script::of(&["right"]);
    let failure = connect(&lab.with("BatchMode", "yes"), &script).await.unwrap_err();
    assert_eq!((failure.cause, script.asked()), (Cause::NeedsPerson, vec![]));
    let script = Script::of(&["a", "b", "c", "right"]);
    let failure = connect(&lab.options(), &script).await.unwrap_err();
    assert_eq!((failure.cause, script.asked().len()), (Cause::Authentication, 3));
}

fn key_then_code(lab: &Lab) -> Login {
    let code = Round { instructions: "", prompts: vec![("Code: ", false, "123456")] };
    Login::Rounds { key: Some(lab.key.clone()), rounds: vec![code] }
}

#[tokio::test]
async fn a_key_and_then_a_code() {
    let lab = Lab::known();
    lab.server.allow(key_then_code(&lab));
    let script = Script::of(&["123456"]);
    let session = connect(&lab.options(), &script).await.unwrap();
    assert_eq!(session.facts().method, "publickey,keyboard-interactive");
    assert!(session.facts().needed_person);
    assert!(matches!(
        script.asked().as_slice(),
        [Question::Interactive { prompt, echo: false, .. }] if prompt == "Code: "
    ));
    let failure = connect(&lab.options(), &Script::of(&["654321"])).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication);
    let failure = connect(&lab.options(), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::NeedsPerson);
}

#[tokio::test]
async fn a_key_of_the_agent_lets_us_in() {
    let lab = Lab::known();
    let Some(agent) = OwnAgent::start(lab.folder.path()) else { return };
    let others: Vec<PathBuf> = (0..3).map(|number| lab.at(&format!("other{number}"))).collect();
    for key in &others {
        generate_client_key(key).unwrap();
        agent.add(key);
    }
    agent.add(&lab.at("client_key"));
    let mut options = agent.options(&lab);
    // Without any file, then with the public half alone.
    options.identities = vec![lab.at("nowhere")];
    let session = connect(&options, &Script::default()).await.unwrap();
    assert_eq!(session.facts().method, "publickey");
    fs::write(lab.at("nowhere.pub"), &lab.key).unwrap();
    options.options.push(("IdentitiesOnly".into(), "yes".into()));
    connect(&options, &Script::default()).await.unwrap();
    // Only keys that were named count then.
    options.identities = vec![lab.at("other0")];
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication);
    assert_eq!(failure.message.matches("(agent)").count(), 1, "{failure}");
}

#[tokio::test]
async fn an_agent_that_is_gone_is_named_when_nothing_else_works() {
    let lab = Lab::known();
    let mut options = lab.with("IdentityAgent", &lab.at("gone").display().to_string());
    options.options.push(("IdentityFile".into(), "none".into()));
    options.identities.clear();
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Agent);
    assert!(failure.message.contains("/gone: no such file"), "{failure}");
    assert!(failure.fix.unwrap().contains("ssh-add"));
}

#[tokio::test]
async fn rounds_of_questions_and_of_none_are_answered_in_turn() {
    let lab = Lab::known();
    let rounds = vec![
        Round { instructions: "Welcome\u{1b}[2J", prompts: vec![] },
        Round {
            instructions: "First",
            prompts: vec![("Name: ", true, "me"), ("Pin: ", false, "12")],
        },
        Round { instructions: "", prompts: vec![("Code: ", false, "34")] },
        Round { instructions: "Bye", prompts: vec![] },
    ];
    lab.server.allow(Login::Rounds { key: None, rounds });
    let script = Script::of(&["me", "12", "34"]);
    let session = connect(&lab.options(), &script).await.unwrap();
    assert_eq!(session.facts().method, "keyboard-interactive");
    let asked: Vec<(String, String, bool)> = script
        .asked()
        .into_iter()
        .map(|question| {
            let Question::Interactive { instructions, prompt, echo, .. } = question else {
                panic!("{question:?}")
            };
            (instructions, prompt, echo)
        })
        .collect();
    let expected =
        [("Welcome[2J\nFirst", "Name: ", true), ("", "Pin: ", false), ("", "Code: ", false)];
    let expected = expected.map(|(said, prompt, echo)| (said.into(), prompt.into(), echo));
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_server_that_asks_without_end_is_left() {
    let lab = Lab::known();
    let empty = || Round { instructions: "", prompts: vec![] };
    let asking = || Round { instructions: "", prompts: vec![("Again: ", true, "x")] };
    for rounds in [(0..100).map(|_| empty()).collect(), (0..100).map(|_| asking()).collect()] {
        lab.server.allow(Login::Rounds { key: None, rounds });
        let script = Script::of(&["x"; 100]);
        let failure = connect(&lab.options(), &script).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Protocol, "{failure}");
        assert!(script.asked().len() <= 20, "{}", script.asked().len());
    }
}

#[tokio::test]
async fn wrong_answers_may_be_mended_three_times() {
    let lab = Lab::known();
    lab.server.allow(key_then_code(&lab));
    let script = Script::of(&["1", "2", "123456"]);
    connect(&lab.options(), &script).await.unwrap();
    assert_eq!(script.asked().len(), 3);
    let script = Script::of(&["1", "2", "3", "123456"]);
    let failure = connect(&lab.options(), &script).await.unwrap_err();
    assert_eq!((failure.cause, script.asked().len()), (Cause::Authentication, 3));
    let script = Script::of(&["1", "123456"]);
    let once = lab.with("NumberOfPasswordPrompts", "1");
    let failure = connect(&once, &script).await.unwrap_err();
    assert_eq!((failure.cause, script.asked().len()), (Cause::Authentication, 1));
}

#[tokio::test]
async fn a_code_is_never_sent_twice() {
    let lab = Lab::known();
    lab.server.allow(key_then_code(&lab));
    let keyring = Keyring::default();
    let script = Script::of(&["123456"]);
    let session = connect_with(&lab.options(), &script, &keyring).await.unwrap();
    assert!(session.facts().needed_person, "so nothing is dialled beside it on suspicion");
    lab.server.drop_sessions();
    within(session.closed()).await;
    let nobody = Script::default();
    let failure = connect_with(&lab.options(), &nobody, &keyring).await.unwrap_err();
    assert_eq!((failure.cause, nobody.asked().len()), (Cause::NeedsPerson, 1));
    assert!(!failure.cause.is_transient());
    assert!(failure.message.contains("nobody is there"), "{failure}");
}

#[tokio::test]
async fn in_batch_mode_nothing_is_asked() {
    let lab = Lab::known();
    let empty = vec![Round { instructions: "Hello", prompts: vec![] }];
    for login in [key_then_code(&lab), Login::Rounds { key: None, rounds: empty }] {
        lab.server.allow(login);
        let script = Script::of(&["123456"]);
        let failure = connect(&lab.with("BatchMode", "yes"), &script).await.unwrap_err();
        assert_eq!((failure.cause, script.asked().len()), (Cause::NeedsPerson, 0));
        assert!(failure.message.contains("it offers keyboard-interactive"), "{failure}");
        assert!(failure.message.contains("nobody may be asked"), "{failure}");
    }
}

#[tokio::test]
async fn a_key_that_shall_not_be_remembered_is_asked_for_again() {
    let Some(lab) = locked() else { return };
    let mut plan = plan(&with_key(&lab, "locked"));
    plan.target_mut().remember = false;
    let keyring = Keyring::default();
    let script = Script::of(&["secret"]);
    let session = connect_plan(&plan, &script, &keyring).await.unwrap();
    assert!(session.facts().needed_person, "a reconnect would need a person");
    let nobody = Script::default();
    let failure = connect_plan(&plan, &nobody, &keyring).await.unwrap_err();
    assert_eq!(
        (failure.cause, nobody.asked()),
        (Cause::NeedsPerson, vec![passphrase(&lab, false)])
    );
}

#[tokio::test]
async fn a_passphrase_is_wrong_three_times_at_most() {
    let Some(lab) = locked() else { return };
    let script = Script::of(&["a", "b", "c", "secret"]);
    let failure = connect(&with_key(&lab, "locked"), &script).await.unwrap_err();
    assert_eq!((failure.cause, script.asked().len()), (Cause::NeedsPerson, 3));
    assert!(failure.message.contains("wrong three times"), "{failure}");
}

#[tokio::test]
async fn a_locked_key_without_its_public_half_is_unlocked_first() {
    if installed("ssh-keygen").is_none() {
        return;
    }
    let lab = Lab::known();
    let words = ["-q", "-t", "ecdsa", "-m", "PEM", "-N", "secret", "-f"];
    assert!(
        Command::new("ssh-keygen").args(words).arg(lab.at("locked")).status().unwrap().success()
    );
    lab.server.allow(Login::Key(fs::read_to_string(lab.at("locked.pub")).unwrap()));
    fs::remove_file(lab.at("locked.pub")).unwrap();
    let keyring = Keyring::default();
    let script = Script::of(&["secret"]);
    connect_with(&with_key(&lab, "locked"), &script, &keyring).await.unwrap();
    assert_eq!(script.asked(), [passphrase(&lab, false)]);
    let again = Script::default();
    connect_with(&with_key(&lab, "locked"), &again, &keyring).await.unwrap();
    assert_eq!(again.asked(), []);
}

#[tokio::test]
async fn a_full_agent_leaves_a_try_for_the_password() {
    let lab = Lab::known();
    let Some(agent) = OwnAgent::start(lab.folder.path()) else { return };
    for number in 0..12 {
        let path = lab.at(&format!("other{number}"));
        generate_client_key(&path).unwrap();
        agent.add(&path);
    }
    lab.server.allow(Login::KeyOrPassword(lab.key.clone(), "right".into()));
    let mut options = agent.options(&lab);
    options.identities = vec![lab.at("nowhere")];
    let script = Script::of(&["right"]);
    let session = connect(&options, &script).await.unwrap();
    assert_eq!((session.facts().method.as_str(), script.asked().len()), ("password", 1));
}

#[tokio::test]
async fn one_failed_login_is_one_connection() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    generate_client_key(&sshd.at("stranger")).unwrap();
    let options = SshOptions { identities: vec![sshd.at("stranger")], ..sshd.options() };
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication);
    assert!(failure.message.contains("it offers publickey; refused: "), "{failure}");
    assert_eq!(sshd.logged(1, "Connection from").await, 1);
    assert_eq!(sshd.logged(1, "Failed publickey").await, 1);
}

#[tokio::test]
async fn a_server_that_hangs_up_on_many_keys_without_a_word_is_no_broken_link() {
    let lab = Lab::known();
    lab.server.allow(Login::Key(lab.key.clone()));
    let mut options = lab.options();
    options.identities.clear();
    for number in 0..12 {
        let path = lab.at(&format!("other{number}"));
        generate_client_key(&path).unwrap();
        options.identities.push(path);
    }
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication, "{failure}");
    assert!(failure.message.contains("after too many keys"), "{failure}");
    assert!(failure.fix.unwrap().contains("IdentitiesOnly"));
}
