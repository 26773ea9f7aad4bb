//! What is agreed on with servers that nobody here wrote, and with old ones.

use std::process::{Child, Stdio};

use super::{real::Sshd, *};
use crate::{
    ssh::{
        algorithms::{Keyword, choose, own},
        observe::{Fact, Observer},
        preferred::Negotiated,
        resolve::Algorithms,
    },
    tunnel::Cause,
};

/// Connects with the algorithms of `lists`, given as ssh_config(5) has them.
async fn agree(options: &SshOptions, lists: &[(Keyword, &str)]) -> Result<Negotiated, Failure> {
    let mut plan = plan(options);
    let mut wanted = Algorithms::default();
    for (keyword, list) in lists {
        let names = choose(*keyword, list).unwrap().names;
        match keyword {
            Keyword::Kex => wanted.kex = names,
            Keyword::Ciphers => wanted.ciphers = names,
            Keyword::Macs => wanted.macs = names,
            Keyword::HostKey => wanted.host_key = names,
            Keyword::PublicKey => wanted.public_key = names,
            Keyword::CaSignature => wanted.ca_signature = names,
        }
    }
    plan.target_mut().algorithms = wanted;
    let (keyring, script) = (Keyring::default(), Script::default());
    let connecting = crate::ssh::connect(&plan, &keyring, &script, &|_: Stage| {});
    let session = within(Box::pin(connecting)).await?;
    Ok(session.facts().negotiated.clone())
}

#[tokio::test]
async fn the_best_of_both_is_agreed_on_with_strict_key_exchange() {
    let lab = Lab::known();
    let agreed = agree(&lab.options(), &[]).await.unwrap();
    assert_eq!(agreed.kex, "mlkem768x25519-sha256");
    assert!(agreed.strict);
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let agreed = agree(&sshd.options(), &[]).await.unwrap();
    // Since 9.9 it has the post-quantum one of ours.
    let expected = ["mlkem768x25519-sha256", "curve25519-sha256"];
    assert!(expected.contains(&agreed.kex.as_str()), "{agreed}");
    assert_eq!(agreed.host_key, "ssh-ed25519");
    assert_eq!(&agreed.cipher, own(Keyword::Ciphers).first().unwrap(), "the faster one");
    assert_eq!(agreed.mac, None);
    assert!(agreed.strict, "{agreed}");
}

#[tokio::test]
async fn a_users_list_binds_us() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let lists = [
        (Keyword::Ciphers, "aes128-ctr"),
        (Keyword::Macs, "hmac-sha2-256"),
        (Keyword::Kex, "-curve*,mlkem*,ecdh*"),
    ];
    let agreed = agree(&sshd.options(), &lists).await.unwrap();
    assert_eq!(agreed.cipher, "aes128-ctr");
    assert_eq!(agreed.mac.as_deref(), Some("hmac-sha2-256"));
    assert!(agreed.kex.starts_with("diffie-hellman-"), "{agreed}");
    assert!(agreed.strict, "{agreed}");
}

#[tokio::test]
async fn what_is_weak_works_only_where_it_is_asked_for_by_name() {
    if installed("ssh-keygen").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    keygen(&folder.path().join("rsa"), "rsa", "");
    let rsa = format!("HostKey {}", folder.path().join("rsa").display());
    let cases = [
        (Keyword::HostKey, "HostKeyAlgorithms ssh-rsa", "+ssh-rsa", "ssh-rsa"),
        (
            Keyword::Kex,
            "KexAlgorithms diffie-hellman-group14-sha1",
            "+diffie-hellman-group14-sha1",
            "diffie-hellman-group14-sha1",
        ),
        (Keyword::Ciphers, "Ciphers aes256-cbc", "+aes256-cbc", "aes256-cbc"),
        (Keyword::Macs, "Ciphers aes256-ctr\nMACs hmac-sha1", "+hmac-sha1", "hmac-sha1"),
    ];
    for (keyword, line, list, name) in cases {
        let Some(sshd) = Sshd::start(&[&rsa, line]).await else { return };
        let public = fs::read_to_string(folder.path().join("rsa.pub")).unwrap();
        let known = fs::read_to_string(sshd.at("known_hosts")).unwrap();
        let more = format!("{known}[127.0.0.1]:{} {public}", sshd.port);
        fs::write(sshd.at("known_hosts"), more).unwrap();
        let failure = agree(&sshd.options(), &[]).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Protocol, "{failure}");
        assert!(failure.message.contains(&format!("it offers {name}")), "{failure}");
        let fix = failure.fix.unwrap();
        assert!(fix.contains(&format!("-o {}={list}", keyword.name())), "{fix}");
        let agreed = agree(&sshd.options(), &[(keyword, list)]).await.unwrap();
        let of = match keyword {
            Keyword::HostKey => &agreed.host_key,
            Keyword::Kex => &agreed.kex,
            Keyword::Ciphers => &agreed.cipher,
            _ => agreed.mac.as_ref().unwrap(),
        };
        assert_eq!(of, name);
    }
}

/// Debian's dropbear with fresh keys; ends with the test.
struct Dropbear {
    folder: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Drop for Dropbear {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Dropbear {
    /// A server whose host key is on file.
    async fn start() -> Option<Self> {
        let (program, maker) = (installed("dropbear")?, installed("dropbearkey")?);
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("host_key");
        let made = Command::new(maker).args(["-t", "ed25519", "-f"]).arg(&key).output().unwrap();
        let text = String::from_utf8(made.stdout).unwrap();
        let public = text.lines().find(|line| line.starts_with("ssh-ed25519 ")).unwrap();
        let port = closed_port();
        let line = format!("[127.0.0.1]:{port} {public}\n");
        fs::write(folder.path().join("known_hosts"), line).unwrap();
        let mut process = Command::new(program)
            .args(["-F", "-E", "-s", "-p", &format!("127.0.0.1:{port}"), "-P"])
            .arg(folder.path().join("pid"))
            .arg("-r")
            .arg(&key)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = process.stderr.take().unwrap();
        let this = Self { folder, port, process };
        // It says this once it listens.
        let ready = tokio::task::spawn_blocking(move || {
            use std::io::BufRead;
            let mut lines = std::io::BufReader::new(stderr).lines();
            let found = lines.any(|line| line.is_ok_and(|line| line.contains("Not backgrounding")));
            std::thread::spawn(move || lines.count());
            found
        });
        assert!(within(ready).await.unwrap(), "dropbear did not start");
        Some(this)
    }
}

/// Keeps what was agreed on, also of a connection that fails later.
#[derive(Default)]
struct Book(Mutex<Option<Negotiated>>);

impl Observer for Book {
    fn stage(&self, _: Stage) {}

    fn fact(&self, fact: Fact) {
        if let Fact::Algorithms(agreed) = fact {
            *self.0.lock().unwrap() = Some(agreed);
        }
    }
}

#[tokio::test]
async fn dropbear_agrees_on_something_good_and_its_key_is_checked() {
    let Some(server) = Dropbear::start().await else { return };
    let at = |name: &str| server.folder.path().join(name);
    // No key of ours is allowed there: getting as far as the login is what this is about.
    generate_client_key(&at("client_key")).unwrap();
    let options = options(server.port, &at("client_key"), &at("known_hosts"));
    let (plan, keyring, script) = (plan(&options), Keyring::default(), Script::default());
    let book = Book::default();
    let connecting = crate::ssh::connect(&plan, &keyring, &script, &book);
    let failure = within(Box::pin(connecting)).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication, "{failure}");
    let agreed = book.0.into_inner().unwrap().unwrap();
    assert!(own(Keyword::Kex).contains(&agreed.kex), "{agreed}");
    assert!(own(Keyword::Ciphers).contains(&agreed.cipher), "{agreed}");
    assert_eq!(agreed.host_key, "ssh-ed25519");
    let lab = Lab::start();
    let line = lab.server.known_hosts_line(server.port);
    fs::write(at("known_hosts"), line + "\n").unwrap();
    let failure = agree(&options, &[]).await.unwrap_err();
    assert_eq!(failure.cause, Cause::HostKeyChanged, "{failure}");
}
