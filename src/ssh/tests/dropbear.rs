//! The same against dropbear, the server of small machines: skipped with a message where there is
//! none.

use std::{
    io::BufRead,
    os::unix::fs::PermissionsExt,
    process::{Child, Stdio},
};

use super::*;
use crate::{ssh::OpenFailure, tunnel::Cause};

/// A private dropbear with a fresh key, in which the user's home is the test's folder; ends with
/// the test.
pub(super) struct Dropbear {
    folder: tempfile::TempDir,
    pub(super) port: u16,
    process: Child,
}

impl Drop for Dropbear {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Dropbear {
    pub(super) async fn start() -> Option<Self> {
        let program = installed("dropbear")?;
        installed("dropbearkey")?;
        installed("unshare")?;
        installed("ssh-keygen")?;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("home/.ssh")).unwrap();
        for name in ["home", "home/.ssh"] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let made =
            Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(at("host")).output();
        let made = String::from_utf8(made.unwrap().stdout).unwrap();
        let line = made.lines().find(|line| line.starts_with("ssh-ed25519")).unwrap();
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {line}\n")).unwrap();
        // It looks for authorized_keys in the home of the password database and nowhere else: the
        // test's folder takes that place, for this process alone.
        let mut command = Command::new("unshare");
        let root = nix::unistd::Uid::effective().is_root();
        command.args(if root { &["-m"][..] } else { &["-r", "-m"] });
        command.args(["sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
        let home = Environment::of_process().home;
        command.arg(at("home")).arg(if root { home } else { "/root".into() }).arg(program);
        command.args(["-F", "-E", "-m", "-s", "-P", "", "-p"]).arg(format!("127.0.0.1:{port}"));
        command.arg("-r").arg(at("host"));
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = process.stderr.take().unwrap();
        let ready = tokio::task::spawn_blocking(move || {
            let mut lines = std::io::BufReader::new(stderr).lines().map_while(Result::ok);
            let said: Vec<String> = lines.by_ref().take(1).collect();
            // Reads on, so that it never blocks on a full pipe.
            std::thread::spawn(move || lines.count());
            said.concat()
        });
        let ready = timeout(PATIENCE, ready).await.unwrap().unwrap();
        let dropbear = Self { folder, port, process };
        assert!(ready.contains("Not backgrounding"), "dropbear did not start: {ready}");
        Some(dropbear)
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Lets the owner of the key `name` in, and nobody else.
    pub(super) fn allow(&self, name: &str) {
        let path = self.at("home/.ssh/authorized_keys");
        fs::copy(self.at(&format!("{name}.pub")), &path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(super) fn options(&self, key: &str) -> SshOptions {
        let mut options = options(self.port, &self.at(key), &self.at("known_hosts"));
        if !nix::unistd::Uid::effective().is_root() {
            options.user = Some("root".into());
        }
        options
    }
}

#[tokio::test]
async fn every_kind_of_key_opens_dropbear_and_a_forward_leads_through() {
    let Some(dropbear) = Dropbear::start().await else { return };
    let port = echo().await;
    for kind in ["ed25519", "ecdsa", "rsa"] {
        keygen(&dropbear.at(kind), kind, "");
        dropbear.allow(kind);
        let session = connect(&dropbear.options(kind), &Script::default()).await.unwrap();
        let facts = session.facts();
        assert!(facts.banner.starts_with("SSH-2.0-dropbear"), "{facts:?}");
        assert_eq!(facts.method, "publickey");
        shout(&mut open(&session, port).await).await;
        let refused = within(session.open("127.0.0.1", closed_port())).await.unwrap_err();
        assert!(matches!(refused, OpenFailure::Refused(_)), "{refused:?}");
        assert!(within(session.ping()).await.unwrap() < PATIENCE);
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_by_dropbear_with_its_methods() {
    let Some(dropbear) = Dropbear::start().await else { return };
    keygen(&dropbear.at("right"), "ed25519", "");
    keygen(&dropbear.at("wrong"), "ed25519", "");
    dropbear.allow("right");
    let failure = connect(&dropbear.options("wrong"), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication);
    assert!(failure.message.contains("it offers publickey; refused: "), "{failure}");
}
