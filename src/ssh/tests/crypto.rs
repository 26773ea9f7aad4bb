//! What is agreed on with servers that nobody here wrote, and with old ones.

use super::{dropbear::Dropbear, real::Sshd, *};
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
    let book = Book::default();
    within(Box::pin(crate::ssh::connect(&plan, &keyring, &script, &book))).await?;
    Ok(book.0.into_inner().unwrap().unwrap())
}

/// Keeps what was agreed on.
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

#[test]
fn taking_something_away_brings_nothing_weak_back() {
    for (key, list) in [
        ("MACs", "-umac*"),
        ("HostKeyAlgorithms", "-ecdsa*"),
        ("HostKeyAlgorithms", "*"),
        ("PubkeyAcceptedAlgorithms", "ssh-*"),
        ("KexAlgorithms", "-sntrup*"),
        ("Ciphers", "^aes128-ctr"),
    ] {
        let options =
            SshOptions { options: vec![(key.into(), list.into())], ..SshOptions::default() };
        let plan = plan(&options);
        let Algorithms { kex, ciphers, macs, host_key, public_key, ca_signature } =
            &plan.target().algorithms;
        for name in [kex, ciphers, macs, host_key, public_key, ca_signature].into_iter().flatten() {
            assert!(!name.contains("sha1") && !name.contains("cbc"), "{key} {list}: {name}");
            assert!(!name.starts_with("ssh-rsa"), "{key} {list}: {name}");
        }
        let all = [kex, ciphers, macs, host_key, public_key].into_iter().flatten().count();
        assert!(all > 0, "{key} {list}");
    }
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
            Keyword::Macs | Keyword::PublicKey | Keyword::CaSignature => {
                agreed.mac.as_ref().unwrap()
            }
        };
        assert_eq!(of, name);
    }
}

#[tokio::test]
async fn dropbear_agrees_on_something_good_and_its_key_is_checked() {
    let Some(server) = Dropbear::start().await else { return };
    keygen(&server.at("client"), "ed25519", "");
    server.allow("client");
    let options = server.options("client");
    let agreed = agree(&options, &[]).await.unwrap();
    assert!(own(Keyword::Kex).contains(&agreed.kex), "{agreed}");
    assert!(own(Keyword::Ciphers).contains(&agreed.cipher), "{agreed}");
    assert_eq!(agreed.host_key, "ssh-ed25519");
    let lab = Lab::start();
    let line = lab.server.known_hosts_line(server.port);
    fs::write(server.at("known_hosts"), line + "\n").unwrap();
    let failure = agree(&options, &[]).await.unwrap_err();
    assert_eq!(failure.cause, Cause::HostKeyChanged, "{failure}");
}

#[tokio::test]
async fn compression_is_used_where_it_is_asked_for_and_loses_nothing() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    assert!(!agree(&sshd.options(), &[]).await.unwrap().compressed);
    let mut options = sshd.options();
    options.options.push(("Compression".into(), "yes".into()));
    assert!(agree(&options, &[]).await.unwrap().compressed);
    let session = connect(&options, &Script::default()).await.unwrap();
    let (before, _) = session.traffic();
    let mut stream = open(&session, echo().await).await;
    // Half of it can be made smaller, half cannot.
    let noise = (0..1_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8);
    let sent: Vec<u8> = std::iter::repeat_n(b'a', 1_000_000).chain(noise).collect();
    let mut received = vec![0; sent.len()];
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let (wrote, read) =
        within(async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received)) })
            .await;
    wrote.unwrap();
    read.unwrap();
    assert!(sent == received);
    let (after, _) = session.traffic();
    assert!(after - before < 1_500_000, "{} bytes on the wire", after - before);
    let Some(sshd) = Sshd::start(&["Compression no"]).await else { return };
    let mut options = sshd.options();
    options.options.push(("Compression".into(), "yes".into()));
    assert!(!agree(&options, &[]).await.unwrap().compressed, "the server does not");
}
