//! Certificates of a real sshd, made by the real `ssh-keygen`, and what the real `ssh` says.

use std::process::Stdio;

use super::{facts::Book, real::Sshd, *};
use crate::{
    ssh::observe::{Fact, Standing},
    tunnel::Cause,
};

/// Keys of two authorities and of a host.
struct Office(tempfile::TempDir);

impl Office {
    fn open() -> Option<Self> {
        installed("ssh-keygen")?;
        installed("ssh")?;
        let office = Self(tempfile::tempdir().unwrap());
        for name in ["ca", "other", "host"] {
            keygen(&office.at(name), "ed25519", "");
        }
        Some(office)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn public(&self, name: &str) -> String {
        fs::read_to_string(self.at(&format!("{name}.pub"))).unwrap().trim().to_owned()
    }

    /// A server that shows a certificate of its key.
    async fn sshd(&self, authority: &str, words: &[&str]) -> Option<Sshd> {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-s"]).arg(self.at(authority)).args(["-I", "box"]).args(words);
        assert!(command.arg(self.at("host.pub")).status().unwrap().success());
        let key = format!("HostKey {}", self.at("host").display());
        let certificate = format!("HostCertificate {}", self.at("host-cert.pub").display());
        Sshd::start(&[&key, &certificate]).await
    }
}

/// Whether the real `ssh` gets past the host key, under strict checking.
fn real_ssh(sshd: &Sshd) -> bool {
    let known = sshd.at("known_hosts");
    let output = Command::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
        .args(["-o", "GlobalKnownHostsFile=none", "-o", "UpdateHostKeys=no"])
        .args(["-o", &format!("UserKnownHostsFile={}", known.display())])
        .args(["-o", "IdentitiesOnly=yes", "-p", &sshd.port.to_string(), "-i"])
        .arg(sshd.at("client_key"))
        .args(["127.0.0.1", "true"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    output.status.success()
}

/// Where a case ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    In,
    Refused(Cause),
}

/// Connects under strict checking.
async fn ours(sshd: &Sshd) -> (End, String) {
    let mut options = sshd.options();
    options.options.insert(0, ("StrictHostKeyChecking".into(), "yes".into()));
    match connect(&options, &Script::default()).await {
        Ok(_) => (End::In, String::new()),
        Err(failure) => (End::Refused(failure.cause), failure.to_string()),
    }
}

#[tokio::test]
async fn certificates_hold_where_those_of_ssh_do() {
    let Some(office) = Office::open() else { return };
    let unknown = || End::Refused(Cause::HostKeyUnknown);
    let past = "20200101000000Z:20200102000000Z";
    let future = "20990101000000Z:20990102000000Z";
    let cases: [(&str, &[&str], End, &str); 10] = [
        ("good", &["-h", "-n", "127.0.0.1"], End::In, ""),
        ("among others", &["-h", "-n", "box,127.0.0.1", "-V", "-1d:+1d"], End::In, ""),
        ("other name", &["-h", "-n", "127.0.0.2"], unknown(), "not for this name"),
        ("with the port", &["-h", "-n", "[127.0.0.1]:22"], unknown(), "not for this name"),
        ("expired", &["-h", "-n", "127.0.0.1", "-V", past], unknown(), "expired"),
        ("early", &["-h", "-n", "127.0.0.1", "-V", future], unknown(), "not valid yet"),
        ("of a user", &["-n", "127.0.0.1"], unknown(), "a user's certificate"),
        (
            "critical option",
            &["-h", "-n", "127.0.0.1", "-O", "critical:a@b.c=d"],
            unknown(),
            "critical option",
        ),
        ("names nobody", &["-h"], unknown(), "nobody"),
        ("wildcard", &["-h", "-n", "127.*"], End::In, ""),
    ];
    for (what, words, expected, message) in cases {
        let Some(sshd) = office.sshd("ca", words).await else { return };
        fs::write(
            sshd.at("known_hosts"),
            format!("@cert-authority 127.0.0.* {}\n", office.public("ca")),
        )
        .unwrap();
        let (end, told) = ours(&sshd).await;
        assert_eq!(end, expected, "{what}: {told}");
        assert!(told.contains(message), "{what}: {told}");
        // Before OpenSSH 10.3 one without names held everywhere, and a wildcard meant itself.
        if !["names nobody", "wildcard"].contains(&what) {
            assert_eq!(real_ssh(&sshd), expected == End::In, "{what}");
        }
    }
}

#[tokio::test]
async fn what_is_on_file_decides_who_may_vouch() {
    let Some(office) = Office::open() else { return };
    let Some(sshd) = office.sshd("ca", &["-h", "-n", "127.0.0.1"]).await else { return };
    let (port, ca) = (sshd.port, office.public("ca"));
    let (host, other) = (office.public("host"), office.public("other"));
    let here = format!("[127.0.0.1]:{port}");
    let (unknown, revoked) =
        (End::Refused(Cause::HostKeyUnknown), End::Refused(Cause::HostKeyRevoked));
    let changed = End::Refused(Cause::HostKeyChanged);
    let cases = [
        (format!("@cert-authority {here} {ca}"), &End::In),
        (format!("@cert-authority * {ca}"), &End::In),
        (format!("@cert-authority 127.0.0.1 {ca}"), &End::In),
        (format!("@cert-authority [127.0.0.1]:1 {ca}"), &unknown),
        (format!("@cert-authority *,!{here} {ca}"), &End::In),
        (format!("@cert-authority *,!*127.0.0.1* {ca}"), &unknown),
        (format!("@cert-authority * {other}"), &unknown),
        (format!("@cert-authority * {other}\n@cert-authority * {ca}"), &End::In),
        (format!("@cert-authority * {other}\n{here} {host}"), &End::In),
        (format!("@cert-authority * {ca}\n{here} {other}"), &End::In),
        (format!("@cert-authority * {other}\n{here} {other}"), &changed),
        (format!("@cert-authority * {ca}\n@revoked * {ca}"), &revoked),
        (format!("@revoked * {host}\n@cert-authority * {ca}"), &revoked),
        (format!("@cert-authority * {ca}\n@revoked * {other}"), &End::In),
        (format!("@cert-authority * {ca}\n@revoked elsewhere {ca}"), &End::In),
    ];
    for (text, expected) in cases {
        fs::write(sshd.at("known_hosts"), text.clone() + "\n").unwrap();
        let (end, told) = ours(&sshd).await;
        assert_eq!(end, *expected, "{text}\n{told}");
        assert_eq!(real_ssh(&sshd), *expected == End::In, "{text}");
    }
}

#[tokio::test]
async fn a_flawed_certificate_falls_back_to_the_key_only_where_that_is_on_file() {
    let Some(office) = Office::open() else { return };
    let words = ["-h", "-n", "127.0.0.1", "-V", "20200101000000Z:20200102000000Z"];
    let Some(sshd) = office.sshd("ca", &words).await else { return };
    let authority = format!("@cert-authority * {}\n", office.public("ca"));
    let line = format!("[127.0.0.1]:{} {}\n", sshd.port, office.public("host"));
    fs::write(sshd.at("known_hosts"), authority.clone() + &line).unwrap();
    assert_eq!(ours(&sshd).await.0, End::In);
    assert!(real_ssh(&sshd));
    fs::write(sshd.at("known_hosts"), authority).unwrap();
    for policy in ["accept-new", "no", "ask"] {
        let mut options = sshd.options();
        options.options.insert(0, ("StrictHostKeyChecking".into(), policy.into()));
        let script = Script::of(&["yes"]);
        let failure = connect(&options, &script).await.unwrap_err();
        assert_eq!(failure.cause, Cause::HostKeyUnknown, "{policy}");
        assert!(failure.message.contains("expired"), "{failure}");
        assert_eq!(script.asked(), [], "{policy}");
    }
}

#[tokio::test]
async fn a_plain_key_is_unknown_where_only_an_authority_is_on_file() {
    let Some(office) = Office::open() else { return };
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let authority = format!("@cert-authority * {}\n", office.public("ca"));
    fs::write(sshd.at("known_hosts"), &authority).unwrap();
    let (end, told) = ours(&sshd).await;
    assert_eq!(end, End::Refused(Cause::HostKeyUnknown), "{told}");
    assert!(told.contains("shows none"), "{told}");
    // A person may still take the key, as with ssh.
    let script = Script::of(&["yes"]);
    connect(&sshd.options(), &script).await.unwrap();
    assert_eq!(script.asked().len(), 1);
    assert!(fs::read_to_string(sshd.at("known_hosts")).unwrap().starts_with(&authority));
}

#[tokio::test]
async fn the_certificate_and_its_authority_are_told() {
    let Some(office) = Office::open() else { return };
    let Some(sshd) = office.sshd("ca", &["-h", "-n", "127.0.0.1"]).await else { return };
    let text = format!("# one\n@cert-authority * {}\n", office.public("ca"));
    fs::write(sshd.at("known_hosts"), &text).unwrap();
    let (keyring, book) = (Keyring::default(), Book::default());
    let (plan, script) = (plan(&sshd.options()), Script::default());
    within(Box::pin(crate::ssh::connect(&plan, &keyring, &script, &book))).await.unwrap();
    let facts = book.0.into_inner().unwrap();
    let told = facts.iter().any(|fact| {
        matches!(fact, Fact::HostKey { standing: Standing::Certified { authority, identity }, .. }
            if authority.number == 2 && identity == "box")
    });
    assert!(told, "{facts:#?}");
    assert_eq!(fs::read_to_string(sshd.at("known_hosts")).unwrap(), text, "nothing is added");
}
