//! Our gateway, running.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::{
    home::{Home, built},
    net::{answers, free_port, listen, wait_until},
    program::{Program, guarded},
    schema::Schema,
    tap::{Behind, Tap},
};

/// How long our gateway may take to listen.
const LIMIT: Duration = Duration::from_secs(20);

/// Our gateway in the foreground of a home. In a test, all that it says is held against the published
/// schema on its way to whoever asked.
pub(crate) struct OurGateway {
    program: Program,
    /// Ends after the program.
    tap: Option<Tap>,
    /// Where callers reach it.
    port: u16,
    token_file: PathBuf,
    /// From its start to its first good answer on /readyz.
    pub(crate) ready_after: Duration,
}

impl OurGateway {
    /// Starts it in `home` with a token that it makes itself, and waits until it is ready.
    pub(crate) fn start(home: &Home) -> Self {
        Self::start_at(home, free_port())
    }

    /// The same on a port of the caller's choice.
    pub(crate) fn start_at(home: &Home, port: u16) -> Self {
        Self::overheard(port, None, |port| Self::start_by(home, port, guarded(built())))
    }

    /// Puts a tap at `port`, in front of what `start` starts at the port that it is given.
    fn overheard(port: u16, tls: Option<PathBuf>, start: impl FnOnce(u16) -> Self) -> Self {
        // A measurement goes straight to it.
        if Schema::published().is_none() {
            return start(port);
        }
        let listener = listen(port);
        let listeners = std::iter::once(listener).chain(TcpListener::bind(("::1", port)));
        let listeners = listeners.collect();
        let mut gateway = start(free_port());
        let behind = Behind { port: gateway.port, gateway: gateway.program.pid(), tls };
        gateway.tap = Tap::before(listeners, behind);
        gateway.port = port;
        gateway
    }

    /// Starts it with nobody between it and its callers: for stories about the very sockets that the
    /// gateway accepts. There a [`Wire`](super::wire::Wire) holds what it reads against the schema.
    pub(crate) fn start_bare(home: &Home) -> Self {
        Self::start_by(home, free_port(), guarded(built()))
    }

    /// The same by a command that ends in the built program, such as one that ties it to a core.
    pub(crate) fn start_by(home: &Home, port: u16, command: Command) -> Self {
        Self::begin(home, port, command, |program, port| wait_until_ready(program, port, LIMIT))
    }

    fn begin(
        home: &Home,
        port: u16,
        mut command: Command,
        wait: impl FnOnce(&mut Program, u16),
    ) -> Self {
        home.furnish(&mut command);
        command.args(["gateway", "run", "--port", &port.to_string()]);
        let start = Instant::now();
        let mut program = Program::start("our gateway", command);
        wait(&mut program, port);
        let ready_after = start.elapsed();
        let token_file = home.state().join("rs/gateway-token");
        Self { program, tap: None, port, token_file, ready_after }
    }

    /// Starts it in `home`, whose `openclaw.json` has it speak TLS, and waits until it says that it is
    /// ready: it listens before it has made its token.
    pub(crate) fn start_with_tls(home: &Home) -> Self {
        home.write("home/.openclaw/openclaw.json", "{gateway: {tls: {enabled: true}}}");
        let files = home.state().join("rs/tls");
        Self::overheard(free_port(), Some(files), |port| {
            Self::begin(home, port, guarded(built()), |program, _| {
                if !program.prints("gateway ready on wss://", LIMIT) {
                    program.fail("it does not get ready");
                }
            })
        })
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many frames of it were held against the schema; `None` where nobody listens in.
    pub(crate) fn held(&self) -> Option<usize> {
        self.tap.as_ref().map(Tap::held)
    }

    /// The file with its token.
    pub(crate) fn token_file(&self) -> &Path {
        &self.token_file
    }

    /// Its token.
    pub(crate) fn token(&self) -> String {
        let token = fs::read_to_string(&self.token_file).expect("reading the gateway's token");
        token.trim().to_owned()
    }

    /// The running program, to wait for what it prints.
    pub(crate) fn program_mut(&mut self) -> &mut Program {
        &mut self.program
    }

    /// The running program.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }
}

/// Waits until the gateway at `port` says that it is ready; fails if it ends before.
pub(super) fn wait_until_ready(program: &mut Program, port: u16, limit: Duration) {
    let start = Instant::now();
    let ready = wait_until("the gateway is ready", limit + Duration::from_secs(1), || {
        if program.has_ended() || start.elapsed() > limit {
            return Some(false);
        }
        answers(port, "/readyz").then_some(true)
    });
    if !ready {
        program.fail("did not become ready");
    }
}
