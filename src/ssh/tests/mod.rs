//! Connections made in tests: a scripted person, the embedded server, an echo behind it.

mod agent;
mod crypto;
mod dropbear;
mod facts;
mod failures;
mod host_certificates;
mod host_keys;
mod key_files;
mod keys_offered;
mod listeners;
mod logins;
mod real;
mod rotation;
mod security_keys;
mod streams;

use std::{
    fs,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    sync::Mutex,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use super::{
    Asker, Environment, Keyring, Plan, Question, Session, Stage,
    server::{Embedded, Login, Options, generate_client_key},
    stream::Stream,
};
use crate::{config::SshOptions, secret::Secret, tunnel::Failure};

/// Long enough for a loaded machine, short enough to fail a test.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers from a list and keeps the questions.
#[derive(Default)]
struct Script {
    answers: Mutex<Vec<&'static str>>,
    asked: Mutex<Vec<Question>>,
}

impl Script {
    fn of(answers: &[&'static str]) -> Self {
        let mut answers = answers.to_vec();
        answers.reverse();
        Self { answers: Mutex::new(answers), asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<Question> {
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

fn plan(options: &SshOptions) -> Plan {
    super::resolve("127.0.0.1", options, &Environment::of_process()).unwrap()
}

async fn connect(options: &SshOptions, script: &Script) -> Result<Session, Failure> {
    connect_with(options, script, &Keyring::default()).await
}

async fn connect_with(
    options: &SshOptions,
    script: &Script,
    keyring: &Keyring,
) -> Result<Session, Failure> {
    connect_plan(&plan(options), script, keyring).await
}

async fn connect_plan(plan: &Plan, script: &Script, keyring: &Keyring) -> Result<Session, Failure> {
    let connecting = super::connect(plan, keyring, script, &|_: Stage| {});
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
                tokio::io::copy(&mut reader, &mut writer).await.ok();
            });
        }
    });
    port
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("took too long")
}

/// The embedded server with one client, whose files live in a folder of their own.
struct Lab {
    folder: tempfile::TempDir,
    server: Embedded,
    key: String,
}

impl Lab {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = generate_client_key(&folder.path().join("client_key")).unwrap();
        let options = Options { login: Login::Key(key.clone()), refuse_forwards: false };
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        Self { server: Embedded::start(listener, options).unwrap(), folder, key }
    }

    /// A lab whose server is on file.
    fn known() -> Self {
        let lab = Self::start();
        let line = lab.server.known_hosts_line(lab.port());
        fs::write(lab.at("known_hosts"), line + "\n").unwrap();
        lab
    }

    fn port(&self) -> u16 {
        self.server.address().port()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> SshOptions {
        options(self.port(), &self.at("client_key"), &self.at("known_hosts"))
    }

    /// The options for the same server behind `jump`, which lets our key in.
    fn behind(&self, jump: &Self) -> SshOptions {
        jump.server.allow(Login::Key(self.key.clone()));
        let block = block("jump", jump.port(), &self.at("client_key"), &self.at("known_hosts"));
        SshOptions {
            jumps: vec!["jump".to_owned()],
            config_file: Some(config_file(self.folder.path(), &[block])),
            ..self.options()
        }
    }

    /// The options with one more, which comes first and so wins.
    fn with(&self, key: &str, value: &str) -> SshOptions {
        let mut options = self.options();
        options.options.insert(0, (key.into(), value.into()));
        options
    }
}

/// Options for a server on 127.0.0.1 that touch nothing of the person who runs the test.
fn options(port: u16, key: &Path, known_hosts: &Path) -> SshOptions {
    SshOptions {
        port: Some(port),
        identities: vec![key.to_owned()],
        options: vec![
            ("UserKnownHostsFile".into(), known_hosts.display().to_string()),
            ("GlobalKnownHostsFile".into(), "none".into()),
            ("IdentityAgent".into(), "none".into()),
        ],
        config_file: Some("none".into()),
        ..SshOptions::default()
    }
}

/// The block of a configuration file for a server on 127.0.0.1; like [`options`].
fn block(name: &str, port: u16, key: &Path, known_hosts: &Path) -> String {
    format!(
        "Host {name}\n HostName 127.0.0.1\n Port {port}\n IdentityFile {}\n IdentityAgent none\n \
         UserKnownHostsFile {}\n GlobalKnownHostsFile none\n",
        key.display(),
        known_hosts.display()
    )
}

/// A configuration file of these blocks in `folder`.
fn config_file(folder: &Path, blocks: &[String]) -> PathBuf {
    let path = folder.join("ssh_config");
    fs::write(&path, blocks.concat()).unwrap();
    path
}

/// A forward to `port` on the far side's loopback.
async fn open(session: &Session, port: u16) -> Stream {
    within(session.open("127.0.0.1", port)).await.unwrap()
}

/// Sends a word through an echo and takes it back.
async fn shout(stream: &mut Stream) {
    within(stream.write_all(b"hello")).await.unwrap();
    let mut word = [0; 5];
    within(stream.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"hello");
}

/// A listener that hands its connections to the test.
async fn far_side() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port on which nothing listens.
fn closed_port() -> u16 {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().map(|address: SocketAddr| address.port()).unwrap()
}

/// Whether `program` is installed; fails the test instead where peers are required.
pub(super) fn installed(program: &str) -> Option<PathBuf> {
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

pub(super) fn keygen(path: &Path, kind: &str, passphrase: &str) {
    let done = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(done.success());
}

/// Returns once a session that has carried something stands still: no event says that nothing more
/// will happen, so this looks for it.
async fn standstill(session: &Session) {
    let looking = async {
        let mut before = session.traffic();
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = session.traffic();
            if now == before && now.0.max(now.1) > 1 << 16 {
                return;
            }
            before = now;
        }
    };
    within(looking).await;
}
