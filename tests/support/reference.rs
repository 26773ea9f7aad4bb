//! The reference programs, running: gateway, CLI, node host, and scripts by their client library.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    gateways::wait_until_ready,
    home::{Home, Ran},
    net::{free_port, listens, wait_until},
    peers,
    program::{Program, guarded, run_to_end},
};

/// What has a starter run the oldest release.
const OLDEST: (&str, &str) = ("PEER_RELEASE", "oldest");

/// How long a reference gateway may take to start: a quarter of a minute on a machine that does nothing
/// else, and several may start at once.
const START: Duration = Duration::from_secs(240);

/// The reference OpenClaw gateway.
pub(crate) struct ReferenceGateway {
    program: Program,
    port: u16,
    home: PathBuf,
    /// From its start to its first good answer on /readyz.
    pub(crate) ready_after: Duration,
}

impl ReferenceGateway {
    /// Its token.
    pub(crate) const TOKEN: &str = "a-token-for-tests-0123456789abcdef";

    /// The one that all tests of this process share; ends with the process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<ReferenceGateway> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts one in an empty home, and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_as("reference")
    }

    /// The same beside another one; each has a home of its own by its name.
    pub(crate) fn start_as(name: &str) -> Self {
        Self::start_with(name, "")
    }

    /// The same with further keys of `gateway` in its configuration.
    pub(crate) fn start_with(name: &str, keys: &str) -> Self {
        let start = Instant::now();
        let mut gateway = Self::begin(name, &[("PEER_GATEWAY", keys)]);
        wait_until_ready(&mut gateway.program, gateway.port, START);
        gateway.ready_after = start.elapsed();
        gateway
    }

    /// The same with further keys in its configuration, beside `gateway`.
    pub(crate) fn start_configured(name: &str, keys: &str) -> Self {
        let mut gateway = Self::begin(name, &[("PEER_CONFIG", keys)]);
        wait_until_ready(&mut gateway.program, gateway.port, START);
        gateway
    }

    /// The same of the oldest release.
    pub(crate) fn start_oldest() -> Self {
        let mut gateway = Self::begin("oldest", &[OLDEST]);
        wait_until_ready(&mut gateway.program, gateway.port, START);
        gateway
    }

    /// The same with TLS and a certificate that it makes for itself, as soon as it listens.
    pub(crate) fn start_with_tls() -> Self {
        let gateway = Self::begin("reference-tls", &[("PEER_TLS", "1")]);
        wait_until("the reference gateway listens", START, || listens(gateway.port).then_some(()));
        gateway
    }

    fn begin(name: &str, environment: &[(&str, &str)]) -> Self {
        // A shared one is never dropped, so its home is not in the system's temporary folder.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let home = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}-{number}", env!("CARGO_CRATE_NAME")));
        drop(fs::remove_dir_all(&home));
        fs::create_dir_all(&home).expect("making the reference gateway's home");
        let port = free_port();
        let mut command = guarded(peers::starter("gateway"));
        command.args([&port.to_string(), Self::TOKEN]);
        furnish_reference(&mut command, &home);
        command.envs(environment.iter().copied());
        let start = Instant::now();
        let program = Program::start("the reference gateway", command);
        Self { program, port, home, ready_after: start.elapsed() }
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its home, which its CLI may share.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The running program.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }
}

/// The reference CLI with a home that points it at a gateway.
pub(crate) struct ReferenceCli {
    home: PathBuf,
    /// The home, where it is this one's own.
    _kept: Option<TempDir>,
    environment: Vec<(&'static str, String)>,
}

impl ReferenceCli {
    /// Talks to the reference gateway through a local port, as its documents tell a laptop to.
    pub(crate) fn through(port: u16) -> Self {
        Self::to(port, ReferenceGateway::TOKEN)
    }

    /// Talks to the gateway at a local port that lets `token` in.
    pub(crate) fn to(port: u16, token: &str) -> Self {
        let home = tempfile::Builder::new().prefix("reference-cli-").tempdir();
        let home = home.expect("making the home of the reference CLI");
        let state = home.path().join(".openclaw");
        fs::create_dir(&state).expect("making its state directory");
        let config = format!(
            "{{ gateway: {{ mode: 'remote', remote: {{ url: 'ws://127.0.0.1:{port}', \
             token: '{token}' }} }} }}"
        );
        fs::write(state.join("openclaw.json"), config).expect("writing its configuration");
        Self { home: home.path().to_owned(), _kept: Some(home), environment: Vec::new() }
    }

    /// Knows of the gateway at a local port, and of its token, from its environment alone.
    pub(crate) fn by_environment(port: u16, token: &str) -> Self {
        let home = tempfile::Builder::new().prefix("reference-cli-").tempdir();
        let home = home.expect("making the home of the reference CLI");
        let url = format!("ws://127.0.0.1:{port}");
        let environment =
            vec![("OPENCLAW_GATEWAY_URL", url), ("OPENCLAW_GATEWAY_TOKEN", token.to_owned())];
        Self { home: home.path().to_owned(), _kept: Some(home), environment }
    }

    /// Shares a home, and the configuration in it, with our program.
    pub(crate) fn of(home: &Home) -> Self {
        Self { home: home.path("home"), _kept: None, environment: Vec::new() }
    }

    /// On a gateway's own machine, where it may do what its owner may.
    pub(crate) fn beside(gateway: &ReferenceGateway) -> Self {
        Self { home: gateway.home.clone(), _kept: None, environment: Vec::new() }
    }

    /// The same of the oldest release.
    pub(crate) fn oldest(mut self) -> Self {
        self.environment.push((OLDEST.0, OLDEST.1.to_owned()));
        self
    }

    /// Runs a command and fails unless it succeeds.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let output = self.output(arguments);
        assert!(output.status.success(), "the reference CLI: {arguments:?}: {output:?}");
        output
    }

    /// Runs a command to whatever end it comes.
    pub(crate) fn attempt(&self, arguments: &[&str]) -> Ran {
        Ran::of(format!("the reference CLI: {arguments:?}"), self.output(arguments))
    }

    /// What a command prints with `--json`; fails unless it succeeds.
    pub(crate) fn theirs(&self, words: &[&str]) -> Value {
        self.attempt(&[words, &["--json"]].concat()).exits(0).json()
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(peers::starter("openclaw"));
        command.args(arguments);
        furnish_reference(&mut command, &self.home);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        run_to_end(command, Duration::from_secs(120))
    }
}

/// Runs a script below `tests/peers` by the reference programs' own Node, towards the gateway at a local
/// port that lets `token` in.
pub(crate) fn run_script(name: &str, port: u16, token: &str) -> Output {
    run_to_end(script(Command::new(node()), name, port, token), Duration::from_secs(120))
}

/// The same with the oldest client library.
pub(crate) fn run_script_of_the_oldest(name: &str, port: u16, token: &str) -> Output {
    let mut command = script(Command::new(node()), name, port, token);
    command.env("CLIENT", "oldest-client");
    run_to_end(command, Duration::from_secs(120))
}

/// Starts a script in the same way, with one more variable in its environment.
pub(crate) fn start_script(
    name: &str,
    port: u16,
    token: &str,
    variable: (&str, String),
) -> Program {
    let mut command = script(guarded(node()), name, port, token);
    command.env(variable.0, variable.1);
    Program::start(name, command)
}

fn node() -> PathBuf {
    peers::folder().join("node/node_modules/.bin/node")
}

fn script(mut command: Command, name: &str, port: u16, token: &str) -> Command {
    command
        .env_clear()
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name));
    command.env("PEERS", peers::folder()).env("TOKEN", token);
    command.env("URL", format!("ws://127.0.0.1:{port}"));
    command
}

/// The reference node host, with a home and a key of its own.
pub(crate) struct ReferenceNode {
    name: &'static str,
    home: TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl ReferenceNode {
    /// One that has never run.
    pub(crate) fn new(name: &'static str) -> Self {
        let home = tempfile::Builder::new().prefix("reference-node-").tempdir();
        let home = home.expect("making the home of a node host");
        Self { name, home, environment: Vec::new() }
    }

    /// The same of the oldest release.
    pub(crate) fn oldest(mut self) -> Self {
        self.environment.push(OLDEST);
        self
    }

    /// Writes a file below its state directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(".openclaw").join(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("making folders");
        fs::write(&path, text).expect("writing a file of a node host");
        path
    }

    /// Starts it towards the gateway at a local port, with the gateway's token.
    pub(crate) fn run(&self, port: u16, token: &str) -> Program {
        let port = port.to_string();
        let words = ["node", "run", "--host", "127.0.0.1", "--port", &port];
        self.start(&[&words[..], &["--display-name", self.name]].concat(), Some(token))
    }

    /// Starts it with what `devices join-code` printed, and no other secret.
    pub(crate) fn join(&self, target: &str) -> Program {
        self.start(&["connect", target, "--display-name", self.name], None)
    }

    fn start(&self, words: &[&str], token: Option<&str>) -> Program {
        let mut command = guarded(peers::starter("openclaw"));
        command.args(words);
        furnish_reference(&mut command, self.home.path());
        command.envs(self.environment.iter().copied());
        if let Some(token) = token {
            command.env("OPENCLAW_GATEWAY_TOKEN", token);
        }
        Program::start(self.name, command)
    }
}

/// The version of the reference programs.
pub(crate) fn reference_version() -> String {
    let package = peers::folder().join("openclaw/node_modules/openclaw/package.json");
    let text = fs::read_to_string(package).expect("the reference package");
    let package: Value = serde_json::from_str(&text).expect("its package.json");
    package.get("version").and_then(|it| it.as_str()).unwrap_or_default().to_owned()
}

/// Makes `command` run in `home` with nothing of OpenClaw inherited.
fn furnish_reference(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OPENCLAW_") {
            command.env_remove(name);
        }
    }
    command.env("OPENCLAW_PEERS", peers::folder()).env("PEER_HOME", home);
}
