//! Further host keys of a real sshd, one that holds them and one that does not.

use std::process::Stdio;

use super::{real::Sshd, *};
use crate::ssh::resolve::UpdateHostKeys;

/// A server with a second host key; only the first is on file.
async fn with_two_keys() -> Option<(tempfile::TempDir, Sshd)> {
    installed("ssh-keygen")?;
    let folder = tempfile::tempdir().unwrap();
    keygen(&folder.path().join("ecdsa"), "ecdsa", "");
    let line = format!("HostKey {}", folder.path().join("ecdsa").display());
    let sshd = Sshd::start(&[&line]).await?;
    Some((folder, sshd))
}

/// The line of a public key for the server.
fn line_of(sshd: &Sshd, public: &Path) -> String {
    let text = fs::read_to_string(public).unwrap();
    let words: Vec<&str> = text.split(' ').take(2).collect();
    format!("[127.0.0.1]:{} {}\n", sshd.port, words.join(" "))
}

fn on_file(sshd: &Sshd) -> String {
    fs::read_to_string(sshd.at("known_hosts")).unwrap()
}

async fn login(sshd: &Sshd, update: UpdateHostKeys, script: &Script) -> Session {
    let mut plan = plan(&sshd.options());
    plan.target_mut().update_host_keys = update;
    let keyring = Keyring::default();
    let connecting = crate::ssh::connect(&plan, &keyring, script, &|_: Stage| {});
    let session = within(Box::pin(connecting)).await.unwrap();
    within(session.settled()).await;
    session
}

#[tokio::test]
async fn a_further_key_that_is_proved_is_written_down_and_used_next() {
    let Some((folder, sshd)) = with_two_keys().await else { return };
    let before = format!("# mine\n{}", on_file(&sshd));
    fs::write(sshd.at("known_hosts"), &before).unwrap();
    let session = login(&sshd, UpdateHostKeys::Yes, &Script::default()).await;
    let ecdsa = line_of(&sshd, &folder.path().join("ecdsa.pub"));
    assert_eq!(on_file(&sshd), format!("{before}{ecdsa}"));
    shout(&mut open(&session, echo().await).await).await;
    // With the old key gone the host is known by the new one.
    fs::write(sshd.at("known_hosts"), ecdsa).unwrap();
    login(&sshd, UpdateHostKeys::No, &Script::default()).await;
}

#[tokio::test]
async fn a_key_that_the_server_has_no_longer_goes() {
    let Some((folder, sshd)) = with_two_keys().await else { return };
    keygen(&folder.path().join("retired"), "rsa", "");
    let retired = line_of(&sshd, &folder.path().join("retired.pub"));
    let (host, other) = (on_file(&sshd), retired.replace("[127.0.0.1]", "[127.0.0.2]"));
    fs::write(sshd.at("known_hosts"), format!("{retired}{host}{other}")).unwrap();
    login(&sshd, UpdateHostKeys::Yes, &Script::default()).await;
    let ecdsa = line_of(&sshd, &folder.path().join("ecdsa.pub"));
    assert_eq!(on_file(&sshd), format!("{host}{other}{ecdsa}"));
}

#[tokio::test]
async fn a_person_decides_where_the_configuration_says_so() {
    let Some((folder, sshd)) = with_two_keys().await else { return };
    let before = on_file(&sshd);
    let script = Script::of(&["no"]);
    login(&sshd, UpdateHostKeys::Ask, &script).await;
    let [Question::MoreHostKeys { host, more, gone }] = &script.asked()[..] else {
        panic!("{:?}", script.asked());
    };
    assert_eq!(*host, format!("[127.0.0.1]:{}", sshd.port));
    assert!(more[0].starts_with("ecdsa-sha2-nistp256 SHA256:") && gone.is_empty(), "{more:?}");
    assert_eq!(on_file(&sshd), before);
    login(&sshd, UpdateHostKeys::Ask, &Script::of(&["yes"])).await;
    let ecdsa = line_of(&sshd, &folder.path().join("ecdsa.pub"));
    assert_eq!(on_file(&sshd), format!("{before}{ecdsa}"));
    // Nothing is new by now, so nobody is asked.
    let script = Script::default();
    login(&sshd, UpdateHostKeys::Ask, &script).await;
    assert_eq!(script.asked(), []);
}

#[tokio::test]
async fn nothing_is_written_where_it_is_not_wanted_or_the_host_is_not_known_by_itself() {
    let Some((_folder, sshd)) = with_two_keys().await else { return };
    let before = on_file(&sshd);
    login(&sshd, UpdateHostKeys::No, &Script::default()).await;
    assert_eq!(on_file(&sshd), before);
    let pattern = before.replace("[127.0.0.1]", "*,[127.0.0.1]");
    fs::write(sshd.at("known_hosts"), &pattern).unwrap();
    login(&sshd, UpdateHostKeys::Yes, &Script::default()).await;
    assert_eq!(on_file(&sshd), pattern);
}

/// An agent that holds host keys for a server.
struct Agent(std::process::Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_key_that_the_server_announces_and_cannot_prove_is_not_believed() {
    let (Some(agent), Some(_)) = (installed("ssh-agent"), installed("ssh-keygen")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut process = Command::new(agent)
        .args(["-D", "-a"])
        .arg(at("agent"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The agent prints where it listens once it does.
    let stdout = process.stdout.take().unwrap();
    let _agent = Agent(process);
    let ready = tokio::task::spawn_blocking(move || {
        use std::io::BufRead;
        std::io::BufReader::new(stdout).lines().next().is_some_and(|line| line.is_ok())
    });
    assert!(within(ready).await.unwrap(), "ssh-agent did not start");
    keygen(&at("stolen"), "ecdsa", "");
    let tell = |words: &[&str]| {
        let mut command = Command::new("ssh-add");
        command.arg("-q").args(words).arg(at("stolen")).env("SSH_AUTH_SOCK", at("agent"));
        assert!(command.status().unwrap().success());
    };
    tell(&[]);
    fs::rename(at("stolen"), at("elsewhere")).unwrap();
    let lines = [
        format!("HostKeyAgent {}", at("agent").display()),
        format!("HostKey {}", at("stolen.pub").display()),
    ];
    let Some(sshd) = Sshd::start(&[&lines[0], &lines[1]]).await else { return };
    let before = on_file(&sshd);
    tell(&["-d"]);
    // This server ends the session when it cannot sign, so only the file tells.
    login(&sshd, UpdateHostKeys::Yes, &Script::default()).await;
    assert_eq!(on_file(&sshd), before);
    // Nobody is asked about it either, though the question comes before the end of the session.
    let script = Script::of(&["yes"]);
    login(&sshd, UpdateHostKeys::Ask, &script).await;
    assert_eq!(script.asked(), []);
    assert_eq!(on_file(&sshd), before);
}
