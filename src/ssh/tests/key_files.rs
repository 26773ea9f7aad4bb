//! Key files as `ssh-keygen` and `openssl` write them.

use base64::{Engine, prelude::BASE64_STANDARD};
use russh::keys::{HashAlg, PrivateKey};

use super::*;
use crate::ssh::{
    identity,
    keys::{self, Content, KeyFileError},
};

const PASSPHRASE: &str = "correct horse";

/// Runs `program`, which must succeed.
fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The key in the file, by way of the passphrase if it is locked.
fn read(path: &Path) -> Result<PrivateKey, String> {
    match keys::load(path).content {
        Content::Ready(key) => Ok((*key).clone()),
        Content::Locked(text) => {
            for wrong in ["", "wrong", "correct horse "] {
                let opened = keys::unlock(&text, wrong).map_err(|error| error.to_string())?;
                assert!(opened.is_none(), "{} by `{wrong}`", path.display());
            }
            let key = keys::unlock(&text, PASSPHRASE).unwrap().ok_or("does not open")?;
            Ok((*key).clone())
        }
        Content::PublicOnly => Err("public only".into()),
        Content::Unusable(error) => Err(error.to_string()),
    }
}

/// Whether the file holds the private half of what `ssh-keygen` says it does.
fn check(path: &Path) {
    let shown = path.display();
    let key = read(path).unwrap_or_else(|why| panic!("{shown} {why}"));
    let path = path.display().to_string();
    let public = run("ssh-keygen", &["-y", "-P", PASSPHRASE, "-f", &path]);
    let public = identity::of_text(&public).unwrap();
    assert!(identity::same_key(&public, &key.public_key().clone().into()), "{shown}");
}

/// Whether the private half signs for the public one.
fn check_number(path: &Path) {
    let key = read(path).unwrap();
    let signed = key.sign("test", HashAlg::Sha256, b"words").unwrap();
    key.public_key().verify("test", b"words", &signed).unwrap();
}

fn is_locked(path: &Path) -> bool {
    matches!(keys::load(path).content, Content::Locked(_))
}

#[test]
fn reads_every_kind_in_every_form_that_ssh_keygen_writes() {
    if installed("ssh-keygen").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kinds: [(&str, &str, &[&str]); 5] = [
        ("ed25519", "256", &["RFC4716"]),
        ("ecdsa", "256", &["RFC4716", "PEM", "PKCS8"]),
        ("ecdsa", "384", &["RFC4716", "PEM", "PKCS8"]),
        ("ecdsa", "521", &["RFC4716", "PEM", "PKCS8"]),
        ("rsa", "2048", &["RFC4716", "PEM", "PKCS8"]),
    ];
    for (kind, bits, forms) in kinds {
        for form in forms {
            for passphrase in ["", PASSPHRASE] {
                let locked = !passphrase.is_empty();
                let path = folder.path().join(format!("{kind}-{bits}-{form}-{locked}"));
                let name = path.display().to_string();
                let words =
                    ["-q", "-t", kind, "-b", bits, "-m", form, "-N", passphrase, "-f", &name];
                run("ssh-keygen", &words);
                assert_eq!(is_locked(&path), locked, "{name}");
                check(&path);
            }
        }
    }
}

#[test]
fn reads_every_cipher_of_the_openssh_form() {
    if installed("ssh-keygen").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for cipher in [
        "aes128-cbc",
        "aes192-cbc",
        "aes256-cbc",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
    ] {
        let path = folder.path().join(cipher);
        let name = path.display().to_string();
        // Few rounds: the test is about the cipher.
        let words = ["-q", "-t", "ed25519", "-a", "1", "-Z", cipher, "-N", PASSPHRASE, "-f", &name];
        run("ssh-keygen", &words);
        check(&path);
    }
    let path = folder.path().join("3des").display().to_string();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-Z", "3des-cbc", "-N", PASSPHRASE, "-f", &path]);
    assert_eq!(read(Path::new(&path)).unwrap_err(), KeyFileError::OddCipher.to_string());
}

/// A P-256 key in OpenSSH's form whose private number ends with `number` and is zero before.
fn with_number(path: &Path, number: &[u8], words: &[&str]) {
    use std::os::unix::fs::PermissionsExt;
    // An ECPrivateKey of RFC 5915 without its public half: version, number, the curve's name.
    let mut der = vec![0x30, 0x31, 2, 1, 1, 4, 32];
    der.resize(7 + 32 - number.len(), 0);
    der.extend_from_slice(number);
    der.extend_from_slice(&[0xa0, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let text = BASE64_STANDARD.encode(der);
    let text = format!("-----BEGIN EC PRIVATE KEY-----\n{text}\n-----END EC PRIVATE KEY-----\n");
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let name = path.display().to_string();
    run("ssh-keygen", &[&["-q", "-p", "-a", "1", "-P", "", "-f", &name], words].concat());
}

#[test]
fn reads_keys_whose_private_number_is_short() {
    if installed("ssh-keygen").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let number: Vec<u8> = (0x77..0x77 + 32).collect();
    let high: Vec<u8> = (0xd0..0xd0 + 32).collect();
    for length in [17, 30, 31, 32] {
        for number in [&number[..length], &high[..length]] {
            with_number(&path, number, &["-N", ""]);
            check(&path);
            check_number(&path);
            for cipher in ["aes256-ctr", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"]
            {
                with_number(&path, number, &["-N", PASSPHRASE, "-Z", cipher]);
                assert!(is_locked(&path));
                check(&path);
                check_number(&path);
            }
        }
    }
}

#[test]
fn a_wrong_passphrase_is_wrong_whatever_it_makes_of_the_key() {
    if installed("openssl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (plain, locked) = (at("plain"), at("locked"));
    run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &plain]);
    let pass = format!("pass:{PASSPHRASE}");
    let words = ["pkcs8", "-topk8", "-in", &plain, "-iter", "1", "-passout", &pass, "-out"];
    run("openssl", &[&words[..], &[&locked]].concat());
    let text = fs::read_to_string(&locked).unwrap();
    // One in 256 happens to look like a key that was opened.
    for wrong in 0..4096 {
        let opened = keys::unlock(&text, &format!("wrong {wrong}"));
        assert!(matches!(opened, Ok(None)), "wrong {wrong}: {:?}", opened.err());
    }
    assert!(keys::unlock(&text, PASSPHRASE).unwrap().is_some());
}

#[test]
fn reads_what_openssl_writes() {
    if installed("ssh-keygen").is_none() || installed("openssl").is_none() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (rsa, ec, ed) = (at("rsa"), at("ec"), at("ed"));
    run(
        "openssl",
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &rsa],
    );
    run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &ec]);
    run("openssl", &["genpkey", "-algorithm", "ed25519", "-out", &ed]);
    let pass = format!("pass:{PASSPHRASE}");
    let mut names = vec![rsa.clone(), ec.clone()];
    for cipher in ["-aes128", "-aes192", "-aes256", "-des3"] {
        let out = at(&format!("rsa{cipher}"));
        let words = ["rsa", "-in", &rsa, "-traditional", cipher, "-passout", &pass, "-out", &out];
        run("openssl", &words);
        let text = fs::read_to_string(&out).unwrap();
        assert!(text.contains("DEK-Info"), "{text}");
        names.push(out);
        let out = at(&format!("ec{cipher}"));
        run("openssl", &["ec", "-in", &ec, cipher, "-passout", &pass, "-out", &out]);
        names.push(out);
    }
    for cipher in ["aes-128-cbc", "aes-256-cbc"] {
        let out = at(&format!("pkcs8-{cipher}"));
        let words =
            ["pkcs8", "-topk8", "-in", &rsa, "-v2", cipher, "-passout", &pass, "-out", &out];
        run("openssl", &words);
        names.push(out);
    }
    let out = at("pkcs8-scrypt");
    run("openssl", &["pkcs8", "-topk8", "-in", &ec, "-scrypt", "-passout", &pass, "-out", &out]);
    names.push(out);
    let odd = at("pkcs8-des3");
    run(
        "openssl",
        &["pkcs8", "-topk8", "-in", &rsa, "-v2", "des3", "-passout", &pass, "-out", &odd],
    );
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(read(Path::new(&odd)).unwrap_err(), KeyFileError::OddCipher.to_string());
    for name in names {
        fs::set_permissions(&name, fs::Permissions::from_mode(0o600)).unwrap();
        check(Path::new(&name));
    }
    fs::set_permissions(&ed, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(read(Path::new(&ed)).is_ok(), "ssh-keygen reads these from OpenSSH 9.6 on, we always");
}

#[test]
fn what_cannot_be_used_says_what_to_type() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let camellia = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                    DEK-Info: CAMELLIA-128-CBC,00\n\nAA==\n-----END RSA PRIVATE KEY-----\n";
    let dsa = "-----BEGIN DSA PRIVATE KEY-----\nAA==\n-----END DSA PRIVATE KEY-----\n";
    for (text, mode, word) in [
        (camellia, 0o600, "ssh-keygen -p -f"),
        (dsa, 0o600, "ssh-keygen -t ed25519"),
        ("not a key", 0o600, "ssh-keygen -l -f"),
        ("", 0o600, "ssh-keygen -l -f"),
        ("not a key", 0o640, "chmod 600"),
        ("not a key", 0o604, "chmod 600"),
    ] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let Content::Unusable(error) = keys::load(&path).content else { panic!("{text}") };
        assert!(error.fix(&path).contains(word), "{error}");
    }
    let missing = keys::load(&folder.path().join("nowhere")).content;
    assert!(matches!(missing, Content::Unusable(KeyFileError::Missing)));
}

#[test]
fn a_pipe_in_place_of_a_key_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("key");
    for name in ["key", "key.pub", "key-cert.pub"] {
        let path = folder.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    }
    let file = keys::load(&pipe);
    assert!(matches!(file.content, Content::Unusable(KeyFileError::Unreadable(_))));
    assert!(keys::load_certificate(&pipe).is_err());
}
