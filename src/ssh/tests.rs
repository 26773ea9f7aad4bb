//! Connections to a real OpenSSH server: skipped with a message where there is none.

use std::{
    fs,
    net::TcpListener as StdListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Asker, Environment, Keyring, OpenFailure, Plan, Question, Session, Stage};
use crate::{
    config::SshOptions,
    secret::Secret,
    tunnel::{Cause, Failure},
};

/// Long enough for a loaded machine, short enough to fail a test.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers from a list and keeps the questions.
#[derive(Default)]
pub(super) struct Script {
    answers: Mutex<Vec<&'static str>>,
    asked: Mutex<Vec<Question>>,
}

impl Script {
    pub(super) fn of(answers: &[&'static str]) -> Self {
        let mut answers = answers.to_vec();
        answers.reverse();
        Self { answers: Mutex::new(answers), asked: Mutex::default() }
    }

    pub(super) fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }
}

impl Asker for Script {
    fn ask(&self, question: Question) -> Pin<Box<dyn Future<Output = Option<Secret>> + Send + '_>> {
        self.asked.lock().unwrap().push(question);
        let answer = self.answers.lock().unwrap().pop().map(Secret::new);
        Box::pin(std::future::ready(answer))
    }
}

/// A private sshd with fresh keys; ends with the test.
struct Sshd {
    folder: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether `program` is installed; fails the test instead where peers are required.
fn installed(program: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists());
    if found.is_none() {
        assert_ne!(
            std::env::var("OPENCLAW_TEST_PEERS").as_deref(),
            Ok("required"),
            "{program} is required and not installed"
        );
        println!("skipped: {program} is not installed");
    }
    found
}

fn keygen(path: &Path, kind: &str, passphrase: &str) {
    let done = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(done.success());
}

impl Sshd {
    async fn start(lines: &[&str]) -> Option<Self> {
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
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nMaxStartups 200\n",
            at("host_key").display(),
            at("authorized_keys").display()
        );
        for line in lines {
            config.push_str(line);
            config.push('\n');
        }
        config.push_str("PasswordAuthentication no\nAllowTcpForwarding yes\n");
        fs::write(at("sshd_config"), config).unwrap();
        let _ = fs::create_dir_all("/run/sshd");
        let mut process = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(at("sshd_config"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // "Server listening on" is the line to wait for.
        let stderr = process.stderr.take().unwrap();
        let ready = tokio::task::spawn_blocking(move || {
            use std::io::BufRead;
            let mut lines = std::io::BufReader::new(stderr).lines();
            let found = lines.any(|line| line.is_ok_and(|line| line.contains("listening on")));
            // Reads on, so that sshd never blocks on a full pipe.
            std::thread::spawn(move || lines.count());
            found
        });
        let ready = timeout(PATIENCE, ready).await.unwrap().unwrap();
        let sshd = Self { folder, port, process };
        assert!(ready, "sshd did not start");
        let host_key = fs::read_to_string(sshd.at("host_key.pub")).unwrap();
        let mut words = host_key.split(' ');
        let (kind, key) = (words.next().unwrap(), words.next().unwrap());
        fs::write(sshd.at("known_hosts"), format!("[127.0.0.1]:{port} {kind} {key}\n")).unwrap();
        Some(sshd)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> SshOptions {
        SshOptions {
            port: Some(self.port),
            identities: vec![self.at("client_key")],
            options: vec![
                ("UserKnownHostsFile".into(), self.at("known_hosts").display().to_string()),
                ("GlobalKnownHostsFile".into(), "none".into()),
                ("IdentityAgent".into(), "none".into()),
            ],
            ..SshOptions::default()
        }
    }
}

fn plan(options: &SshOptions) -> Plan {
    super::resolve("127.0.0.1", options, &Environment::of_process()).unwrap()
}

async fn connect(options: &SshOptions, script: &Script) -> Result<Session, Failure> {
    let keyring = Keyring::default();
    let plan = plan(options);
    let connecting = super::connect(&plan, &keyring, script, &|_: Stage| {});
    timeout(PATIENCE, Box::pin(connecting)).await.expect("connect took too long")
}

/// A server that sends back what it gets.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("took too long")
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
