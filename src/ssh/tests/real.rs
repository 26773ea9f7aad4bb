//! The same against a real OpenSSH server: skipped with a message where there is none.

use std::process::{Child, Stdio};

use tokio::sync::watch;

use super::*;
use crate::{ssh::OpenFailure, tunnel::Cause};

/// A private sshd with fresh keys; ends with the test.
pub(super) struct Sshd {
    folder: tempfile::TempDir,
    pub(super) port: u16,
    process: Child,
    log: watch::Receiver<Vec<String>>,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Sshd {
    pub(super) async fn start(lines: &[&str]) -> Option<Self> {
        let program = installed("sshd")?;
        installed("ssh-keygen")?;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        keygen(&at("host_key"), "ed25519", "");
        keygen(&at("client_key"), "ed25519", "");
        fs::copy(at("client_key.pub"), at("authorized_keys")).unwrap();
        // sshd binds the port itself, so it is free for a moment in between.
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nMaxStartups 200\n\
             LogLevel VERBOSE\n",
            at("host_key").display(),
            at("authorized_keys").display()
        );
        for line in lines {
            config.push_str(line);
            config.push('\n');
        }
        config.push_str("PasswordAuthentication no\nKbdInteractiveAuthentication no\n");
        config.push_str("AllowTcpForwarding yes\n");
        fs::write(at("sshd_config"), config).unwrap();
        // Debian's sshd wants this folder when it runs as root; others need not have it.
        fs::create_dir_all("/run/sshd").ok();
        let mut process = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(at("sshd_config"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // "Server listening on" is the line to wait for.
        let stderr = process.stderr.take().unwrap();
        let (sink, log) = watch::channel(Vec::new());
        let ready = tokio::task::spawn_blocking(move || {
            use std::io::BufRead;
            let mut lines = std::io::BufReader::new(stderr).lines().map_while(Result::ok);
            let found = lines.any(|line| line.contains("listening on"));
            // Reads on, so that sshd never blocks on a full pipe.
            std::thread::spawn(move || {
                lines.for_each(|line| sink.send_modify(|log| log.push(line)));
            });
            found
        });
        let ready = timeout(PATIENCE, ready).await.unwrap().unwrap();
        let sshd = Self { folder, port, process, log };
        assert!(ready, "sshd did not start");
        let host_key = fs::read_to_string(sshd.at("host_key.pub")).unwrap();
        let mut words = host_key.split(' ');
        let (kind, key) = (words.next().unwrap(), words.next().unwrap());
        fs::write(sshd.at("known_hosts"), format!("[127.0.0.1]:{port} {kind} {key}\n")).unwrap();
        Some(sshd)
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// How many lines of its log hold `words`, once so many logins went well or badly.
    pub(super) async fn logged(&self, logins: usize, words: &str) -> usize {
        let count = |log: &Vec<String>, words: &[&str]| {
            log.iter().filter(|line| words.iter().any(|words| line.contains(words))).count()
        };
        let ends = ["Accepted publickey", "authenticating user"];
        let mut log = self.log.clone();
        let waiting = timeout(PATIENCE, log.wait_for(|log| count(log, &ends) >= logins));
        let over = waiting.await.is_ok_and(|log| log.is_ok());
        assert!(over, "not {logins} logins: {:#?}", *self.log.borrow());
        count(&self.log.borrow(), &[words])
    }

    pub(super) fn options(&self) -> SshOptions {
        options(self.port, &self.at("client_key"), &self.at("known_hosts"))
    }
}

#[tokio::test]
async fn forwards_through_a_real_server_with_half_close() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let session = connect(&sshd.options(), &Script::default()).await.unwrap();
    let port = echo().await;
    let mut stream = within(session.open("127.0.0.1", port)).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let mut received = Vec::new();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let writing = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (_, read) =
        within(async { tokio::join!(writing, reader.read_to_end(&mut received)) }).await;
    read.unwrap();
    assert!(sent == received);
    let facts = session.facts();
    assert!(facts.banner.starts_with("SSH-2.0-OpenSSH"), "{facts:?}");
    assert_eq!(facts.method, "publickey");
    assert!(!facts.needed_person);
    assert!(within(session.ping()).await.unwrap() < PATIENCE);
    let ran = within(session.run("echo out; echo err >&2; exit 3", 100)).await.unwrap();
    assert_eq!(
        (ran.status, ran.stdout.as_slice(), ran.stderr.as_str()),
        (3, &b"out\n"[..], "err\n")
    );
    assert!(within(session.run("head -c 1000 /dev/zero", 100)).await.is_err());
}

#[tokio::test]
async fn the_policy_of_a_real_server_is_told_from_a_closed_port() {
    let port = echo().await;
    let allowed = format!("PermitOpen 127.0.0.1:{port}");
    let Some(sshd) = Sshd::start(&[&allowed]).await else { return };
    let session = connect(&sshd.options(), &Script::default()).await.unwrap();
    shout(&mut open(&session, port).await).await;
    let closed = closed_port();
    assert_eq!(
        within(session.open("127.0.0.1", closed)).await.unwrap_err(),
        OpenFailure::Prohibited
    );
    let Some(sshd) = Sshd::start(&["AllowTcpForwarding no"]).await else { return };
    let session = connect(&sshd.options(), &Script::default()).await.unwrap();
    assert_eq!(within(session.open("127.0.0.1", port)).await.unwrap_err(), OpenFailure::Prohibited);
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let session = connect(&sshd.options(), &Script::default()).await.unwrap();
    let refused = within(session.open("127.0.0.1", closed)).await.unwrap_err();
    assert!(matches!(refused, OpenFailure::Refused(_)), "{refused:?}");
}

#[tokio::test]
async fn a_wrong_key_and_too_many_keys() {
    let Some(sshd) = Sshd::start(&["MaxAuthTries 2"]).await else { return };
    let mut options = sshd.options();
    options.identities = vec![sshd.at("wrong1")];
    generate_client_key(&sshd.at("wrong1")).unwrap();
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication, "{failure}");
    assert!(failure.message.contains("wrong1"), "{failure}");
    for number in 2..5 {
        let path = sshd.at(&format!("wrong{number}"));
        generate_client_key(&path).unwrap();
        options.identities.push(path);
    }
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication, "{failure}");
    assert!(failure.message.contains("too many keys"), "{failure}");
    assert!(failure.fix.unwrap().contains("IdentitiesOnly"));
}

#[tokio::test]
async fn jumps_through_a_real_server_to_itself() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let (key, known_hosts) = (sshd.at("client_key"), sshd.at("known_hosts"));
    let blocks = ["one", "two"].map(|name| block(name, sshd.port, &key, &known_hosts));
    let options = SshOptions {
        jumps: vec!["one".to_owned(), "two".to_owned()],
        config_file: Some(config_file(sshd.folder.path(), &blocks)),
        ..sshd.options()
    };
    let session = connect(&options, &Script::default()).await.unwrap();
    shout(&mut open(&session, echo().await).await).await;
}

#[tokio::test]
async fn host_keys_of_other_kinds_are_asked_for_when_they_are_on_file() {
    if installed("ssh-keygen").is_none() {
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    for kind in ["ecdsa", "rsa"] {
        keygen(&keys.path().join(kind), kind, "");
        lines.push(format!("HostKey {}", keys.path().join(kind).display()));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let Some(sshd) = Sshd::start(&lines).await else { return };
    for kind in ["ecdsa", "rsa"] {
        let public = fs::read_to_string(keys.path().join(format!("{kind}.pub"))).unwrap();
        fs::write(sshd.at("known_hosts"), format!("[127.0.0.1]:{} {public}", sshd.port)).unwrap();
        connect(&sshd.options(), &Script::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_line_that_ssh_keygen_hashed_is_found_and_a_revoked_key_is_refused() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let known_hosts = sshd.at("known_hosts");
    let plain = fs::read_to_string(&known_hosts).unwrap();
    let hashing = Command::new("ssh-keygen").arg("-Hf").arg(&known_hosts).output().unwrap();
    assert!(hashing.status.success(), "{hashing:?}");
    let hashed = fs::read_to_string(&known_hosts).unwrap();
    assert!(hashed.starts_with("|1|") && !hashed.contains("127.0.0.1"), "{hashed}");
    connect(&sshd.options(), &Script::default()).await.unwrap();

    for name in [plain.trim_end(), hashed.trim_end()] {
        fs::write(&known_hosts, format!("{plain}@revoked {name}\n")).unwrap();
        let failure = connect(&sshd.options(), &Script::default()).await.unwrap_err();
        assert_eq!(failure.cause, Cause::HostKeyRevoked, "{name}");
    }
}

#[tokio::test]
async fn new_keys_in_the_middle_of_bytes_both_ways_lose_nothing() {
    let Some(sshd) = Sshd::start(&["RekeyLimit 1M"]).await else { return };
    let session = connect(&sshd.options(), &Script::default()).await.unwrap();
    let port = echo().await;
    let one = async {
        let stream = open(&session, port).await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let sent: Vec<u8> = (0..12_000_000_u32).map(|number| (number / 3) as u8).collect();
        let mut received = Vec::new();
        let writing = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(writing, reader.read_to_end(&mut received));
        read.unwrap();
        assert!(sent == received);
    };
    let two = async {
        let mut stream = open(&session, port).await;
        for _ in 0..200 {
            shout(&mut stream).await;
        }
    };
    within(Box::pin(async { tokio::join!(one, two) })).await;
    assert!(!session.is_closed());
}

#[tokio::test]
async fn rsa_keys_shorter_than_the_user_asks_for_are_neither_taken_nor_offered() {
    if installed("ssh-keygen").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let host_key = folder.path().join("host_rsa");
    keygen(&host_key, "rsa", "");
    let line = format!("HostKey {}", host_key.display());
    let Some(sshd) = Sshd::start(&[&line]).await else { return };
    let with = |options: &SshOptions, more: &[(&str, &str)]| {
        let mut options = options.clone();
        let more = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        options.options.extend(more);
        options
    };
    let asks_for_more = ("RequiredRSASize", "4096");

    // ssh-keygen makes RSA keys of 3072 bits.
    let other_host = sshd.at("known_hosts_of_nobody").display().to_string();
    let by_rsa = [("HostKeyAlgorithms", "rsa-sha2-512"), asks_for_more];
    let mut strangers = sshd.options();
    strangers.options.retain(|(key, _)| !key.eq_ignore_ascii_case("UserKnownHostsFile"));
    let strangers = with(&strangers, &[("UserKnownHostsFile", &other_host)]);
    let failure = connect(&with(&strangers, &by_rsa), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::HostKeyUnknown, "{failure}");
    assert!(
        failure.message.contains("has 3072 bits, and RequiredRSASize asks for 4096"),
        "{failure}"
    );

    let key = sshd.at("client_rsa");
    keygen(&key, "rsa", "");
    fs::copy(sshd.at("client_rsa.pub"), sshd.at("authorized_keys")).unwrap();
    let options = SshOptions { identities: vec![key], ..sshd.options() };
    connect(&options, &Script::default()).await.unwrap();
    let failure = connect(&with(&options, &[asks_for_more]), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication, "{failure}");
    assert!(failure.message.contains("3072 bits"), "{failure}");
}

#[tokio::test]
async fn a_server_that_offers_nothing_we_have_is_told_by_what_it_offers() {
    for (line, offer) in [
        ("HostbasedAuthentication yes", "it offers hostbased"),
        ("HostbasedAuthentication no", "it offers nothing"),
    ] {
        let Some(sshd) = Sshd::start(&["PubkeyAuthentication no", line]).await else { return };
        let failure = connect(&sshd.options(), &Script::default()).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Authentication, "{failure}");
        assert!(failure.message.contains(offer), "{failure}");
    }
}

#[tokio::test]
async fn leaves_this_machine_by_the_address_or_interface_that_was_named() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let with = |key: &str, value: &str| {
        let mut options = sshd.options();
        options.options.push((key.into(), value.into()));
        options
    };
    let session = connect(&with("BindAddress", "127.0.0.2"), &Script::default()).await.unwrap();
    let ran = within(session.run("echo $SSH_CLIENT", 100)).await.unwrap();
    assert!(ran.stdout.starts_with(b"127.0.0.2 "), "{:?}", String::from_utf8_lossy(&ran.stdout));
    #[cfg(target_os = "linux")]
    connect(&with("BindInterface", "lo"), &Script::default()).await.unwrap();
    let failure =
        connect(&with("BindInterface", "no-such0"), &Script::default()).await.unwrap_err();
    assert!(failure.message.contains("no-such0"), "{failure}");
}
