//! Who we log in as, with what, and who is asked.

use super::*;
use crate::tunnel::Cause;

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
    assert_eq!((failure.cause, script.asked()), (Cause::Authentication, vec![]));
    let script = Script::of(&["a", "b", "c", "right"]);
    let failure = connect(&lab.options(), &script).await.unwrap_err();
    assert_eq!((failure.cause, script.asked().len()), (Cause::Authentication, 3));
}

#[tokio::test]
async fn a_key_and_then_a_code() {
    let lab = Lab::known();
    lab.server.allow(Login::KeyThenCode(lab.key.clone(), "123456".into()));
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

/// A private ssh-agent; ends with the test.
struct OwnAgent(std::process::Child, PathBuf);

impl Drop for OwnAgent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl OwnAgent {
    fn start(folder: &Path) -> Option<Self> {
        use std::io::BufRead;
        let program = installed("ssh-agent")?;
        installed("ssh-add")?;
        let socket = folder.join("agent");
        let mut process = Command::new(program)
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It prints its variables once the socket is there.
        let mut line = String::new();
        std::io::BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("SSH_AUTH_SOCK"), "{line}");
        Some(Self(process, socket))
    }

    fn add(&self, key: &Path) {
        let mut command = Command::new("ssh-add");
        let done = command.arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.1).status().unwrap();
        assert!(done.success());
    }

    fn options(&self, lab: &Lab) -> SshOptions {
        lab.with("IdentityAgent", &self.1.display().to_string())
    }
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
    assert!(failure.fix.unwrap().contains("ssh-add"));
}
