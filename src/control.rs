//! The control socket: the supervisor's messages, and the end that commands hold.
//!
//! A message is a 32-bit length and that much JSON, so that after `Opened` the very same
//! connection can carry the raw bytes of a stream.

#[cfg(test)]
mod fuzz;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{
        AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy, sink,
    },
    net::UnixStream,
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{
    fingerprint::Fingerprint,
    meeting::{Greeting, Meeting, Party, Pressure, meet},
    problem::{Class, Problem},
    secret::Secret,
};

/// The version of these messages, the greeting apart; the two ends must agree.
pub(crate) const VERSION: u32 = 1;
/// The largest message either end accepts, bytes.
const MESSAGE_LIMIT: u32 = 1 << 20;
/// The code of a supervisor that went away in the middle of a command.
pub(crate) const SUPERVISOR_GONE: &str = "SUPERVISOR_GONE";
/// How long a supervisor may take from its start to its first answer.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long a running supervisor may take to greet; it hangs up on those who say nothing sooner.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries to get into a queue that is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);
/// How long the supervisor may take to take back what it had on trial.
const TAKE_BACK_LIMIT: Duration = Duration::from_secs(5);
/// What the supervisor prints on its standard output when it listens.
pub(crate) const READY: &str = "ready";
/// Variables that hold secrets or belong to one command; the supervisor does not inherit them.
const NOT_INHERITED: [&str; 5] = [
    "OPENCLAW_GATEWAY_TOKEN",
    "OPENCLAW_GATEWAY_PASSWORD",
    "OPENCLAW_GATEWAY_URL",
    "OPENCLAW_REMOTE",
    "SSH_AUTH_SOCK",
];

/// Variables that name files.
const FOLDERS: [&str; 3] = ["HOME", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH"];

/// Where the supervisor of one profile is, and how it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// Where it listens as well, if anywhere.
    pub(crate) other: Option<PathBuf>,
    /// The profile that it serves.
    pub(crate) profile: Option<String>,
}

impl Endpoint {
    /// All its sockets, the usual one first.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.socket.as_path()).chain(self.other.as_deref())
    }

    /// Connects to the first that somebody listens on; the error is that of the usual one.
    async fn connect(&self) -> io::Result<UnixStream> {
        let usual = queue_up(&self.socket).await;
        match (&usual, &self.other) {
            (Err(error), Some(other)) if is_absent(error) => queue_up(other).await.or(usual),
            _ => usual,
        }
    }
}

/// Connects; a queue of commands that is full at the moment is waited for.
async fn queue_up(socket: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + GREETING_LIMIT;
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                sleep(QUEUE_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// What a command asks, with what it lends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The command's current `SSH_AUTH_SOCK`.
    pub(crate) agent: Option<PathBuf>,
    /// What it asks.
    pub(crate) request: Request,
}

/// What a command can ask of the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Request {
    /// Bring a remote up on trial. Answers: stages and questions, then `Live` or `Failed`. After
    /// `Live` the command says [`Note::Keep`]; a command that goes away first takes all of it back.
    Connect {
        /// The remote's name.
        name: String,
        /// Its definition, as in `rs/remotes.json`; `None` brings the saved one up.
        definition: Option<Value>,
        /// Never ask a person.
        batch: bool,
        /// Make it the default once it is kept.
        make_default: bool,
        /// How long the command waits, milliseconds.
        timeout_ms: u64,
    },
    /// Turn this connection into a byte stream to the remote's gateway. Answers `Opened`, then
    /// bytes; or `Failed`.
    Open {
        /// The remote's name.
        name: String,
        /// Which of the two, while it is being edited.
        edition: Edition,
        /// How long to wait for a live path, milliseconds.
        timeout_ms: u64,
    },
    /// Answers `Statuses`.
    Status {
        /// One remote, or all.
        name: Option<String>,
    },
    /// Answers `Watched` at once, and again whenever something of it has changed, until the command
    /// goes away; or `Failed`.
    Watch {
        /// One remote, or all.
        name: Option<String>,
    },
    /// Answer scrapes of the metrics at an address from now on, or no more. Answers `Done`.
    Metrics {
        /// `ADDRESS:PORT`; `None` for nowhere.
        address: Option<SocketAddr>,
        /// Whether the next supervisor shall do so as well.
        keep: bool,
    },
    /// Take up a saved remote without waiting for it. Answers `Done`.
    Resume {
        /// The remote's name.
        name: String,
    },
    /// Take a remote down and keep its definition. Answers `Done`.
    Disconnect {
        /// The remote's name.
        name: String,
    },
    /// Take a remote down and forget it. Answers `Done`.
    Remove {
        /// The remote's name.
        name: String,
    },
    /// Rename a remote. Answers `Done`.
    Rename {
        /// Its name so far.
        name: String,
        /// Its name from now on.
        to: String,
    },
    /// Read the far gateway's token over the login. Answers `Token` or `Failed`.
    FetchToken {
        /// The remote's name.
        name: String,
    },
    /// End the supervisor. Answers `Done`.
    Stop,
}

/// Which of two remotes of one name is meant, while a `remote connect` edits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Edition {
    /// The one that is saved.
    Kept,
    /// The one on trial; the saved one if nothing is.
    Trial,
}

/// What a command adds while the supervisor is at work on its request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "camelCase")]
pub(crate) enum Note {
    /// The answer to a question; `None` declines.
    Answer {
        /// What the person typed.
        text: Option<Secret>,
    },
    /// The remote that is up on trial is good: save it.
    Keep {
        /// What the gateway said of itself, for `remote status`.
        gateway: Option<Value>,
    },
}

/// What the supervisor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "camelCase")]
pub(crate) enum Reply {
    /// What it is at.
    Stage {
        /// A short phrase.
        text: String,
    },
    /// A question for the person at the command; wants [`Note::Answer`].
    Question(Question),
    /// The remote's gateway has answered; the status as `remote status --json` has it.
    Live {
        /// The status object.
        status: Value,
        /// What the transport proved.
        opened: Opened,
    },
    /// From here on the connection is the stream.
    Opened(Opened),
    /// The status objects.
    Statuses {
        /// One a remote, by name.
        remotes: Vec<Value>,
    },
    /// How the remotes that are watched are now.
    Watched(Watched),
    /// The far gateway's token.
    Token {
        /// The token.
        token: Secret,
        /// The file over there that it stood in.
        source: String,
    },
    /// Done as asked.
    Done,
    /// Nothing was done: another supervisor serves by now.
    Moved,
    /// Not done.
    Failed(Problem),
}

/// What one who watches is told: all of it each time, so that what came in between may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Watched {
    /// The status objects, one a remote, by name.
    pub(crate) remotes: Vec<Value>,
    /// The last round trips of each remote by its name, milliseconds, the oldest first.
    pub(crate) round_trips: BTreeMap<String, Vec<f64>>,
    /// The last entries of the history, as its files have them.
    pub(crate) history: Vec<Value>,
}

/// A question for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// How it is answered.
    pub(crate) kind: Answer,
    /// What is asked, complete with punctuation.
    pub(crate) text: String,
}

/// How a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// With `yes` or `no`.
    YesNo,
    /// With text that is shown while it is typed.
    Shown,
    /// With text that is not shown.
    Hidden,
}

/// What the transport of an opened stream proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Opened {
    /// The last hop's host key, `SHA256:…`.
    pub(crate) host_key: Option<String>,
    /// The gateway's port on the far side.
    pub(crate) remote_port: u16,
    /// The gateway's certificate, where it speaks TLS: whoever has the stream shakes hands first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls_fingerprint: Option<Fingerprint>,
}

/// Whether a command may start the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// If none is running.
    IfNeeded,
    /// Only one that runs will do.
    Never,
}

/// Why no supervisor was met.
enum Unmet {
    /// It ended before it said anything.
    Ended,
    /// It cannot be met.
    Failed(Problem),
}

impl From<Problem> for Unmet {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

/// The supervisor that carries a stream of ours.
#[derive(Debug)]
pub(crate) struct Bearer {
    endpoint: Endpoint,
    pid: u32,
}

impl Bearer {
    /// What to say of a conversation that ended in `problem`: that the supervisor went away, if
    /// there was no answer and another or none is in its place.
    pub(crate) async fn explain(&self, problem: Problem) -> Problem {
        if problem.class == Class::GatewayDown && self.is_gone().await { gone() } else { problem }
    }

    async fn is_gone(&self) -> bool {
        match self.endpoint.connect().await {
            Err(error) => is_absent(&error),
            Ok(stream) => match greeted(stream).await {
                Ok((_, greeting)) => greeting.pid != self.pid,
                Err(Unmet::Ended) => true,
                Err(Unmet::Failed(_)) => false,
            },
        }
    }
}

/// A command's connection to the supervisor.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    endpoint: Endpoint,
    pid: u32,
    /// What was asked, until something was answered.
    asked: Option<Call>,
}

impl Connection {
    /// Connects; starts the supervisor if `start` allows. `None`: none runs and none was started.
    pub(crate) async fn dial(endpoint: &Endpoint, start: Start) -> Result<Option<Self>, Problem> {
        match Self::try_dial(endpoint, start).await {
            // One that was about to end accepted us and said nothing: it is gone by now.
            Err(Unmet::Ended) => match Self::try_dial(endpoint, start).await {
                Err(Unmet::Ended) => Err(broken(&io::ErrorKind::UnexpectedEof.into())),
                Err(Unmet::Failed(problem)) => Err(problem),
                Ok(connection) => Ok(connection),
            },
            Err(Unmet::Failed(problem)) => Err(problem),
            Ok(connection) => Ok(connection),
        }
    }

    async fn try_dial(endpoint: &Endpoint, start: Start) -> Result<Option<Self>, Unmet> {
        let own = Party::own(false);
        let (mut stream, greeting) = match (endpoint.connect().await, start) {
            (Ok(stream), _) => {
                let (stream, greeting) = greeted(stream).await?;
                match meet(&own, &greeting) {
                    Meeting::Join | Meeting::Refuse => (stream, greeting),
                    Meeting::TakeOver(pressure) => {
                        drop(stream);
                        succeed(endpoint, pressure).await?
                    }
                }
            }
            (Err(error), Start::Never) if is_absent(&error) => return Ok(None),
            (Err(error), Start::IfNeeded) if is_absent(&error) => {
                greeted(launch(endpoint).await?).await?
            }
            (Err(error), _) => return Err(unreachable_socket(&endpoint.socket, &error).into()),
        };
        if greeting.version != own.version {
            // Nothing more is wanted of it.
            let _closed = stream.shutdown().await;
            return Err(Problem::new(
                Class::Internal,
                format!(
                    "the supervisor (pid {}) is of another version of openclaw, {}, and stays",
                    greeting.pid, greeting.program
                ),
            )
            .fix(format!(
                "use that program, or kill {}; the next command starts a supervisor of its own",
                greeting.pid
            ))
            .into());
        }
        Ok(Some(Self { stream, endpoint: endpoint.clone(), pid: greeting.pid, asked: None }))
    }

    /// Sends a request, with this process's agent.
    pub(crate) async fn request(&mut self, request: Request) -> Result<(), Problem> {
        let agent = std::env::var_os("SSH_AUTH_SOCK").filter(|v| !v.is_empty()).map(PathBuf::from);
        let call = Call { agent, request };
        let written = write(&mut self.stream, &call).await.map_err(|error| broken(&error));
        self.asked = Some(call);
        written
    }

    /// Adds a note to the request under way.
    pub(crate) async fn note(&mut self, note: &Note) -> Result<(), Problem> {
        write(&mut self.stream, note).await.map_err(|error| broken(&error))
    }

    /// Waits for the next reply; a supervisor that dies is an error. One that has a successor by
    /// now is left for it.
    pub(crate) async fn reply(&mut self) -> Result<Reply, Problem> {
        let reply = read(&mut self.stream).await.map_err(|error| broken(&error))?;
        let asked = self.asked.take();
        let (Reply::Moved, Some(call)) = (&reply, asked) else { return Ok(reply) };
        let next = Self::dial(&self.endpoint, Start::IfNeeded).await?;
        let Some(next) = next else { return Ok(reply) };
        (self.stream, self.pid) = (next.stream, next.pid);
        write(&mut self.stream, &call).await.map_err(|error| broken(&error))?;
        // Whoever moves twice within one answer is not waited for.
        read(&mut self.stream).await.map_err(|error| broken(&error))
    }

    /// Waits for [`Reply::Done`].
    pub(crate) async fn done(&mut self) -> Result<(), Problem> {
        let reply = self.reply().await?;
        if let Reply::Done = reply { Ok(()) } else { Err(refused(reply)) }
    }

    /// Waits for [`Reply::Statuses`].
    pub(crate) async fn statuses(&mut self) -> Result<Vec<Value>, Problem> {
        let reply = self.reply().await?;
        if let Reply::Statuses { remotes } = reply { Ok(remotes) } else { Err(refused(reply)) }
    }

    /// Gives up the request under way, and waits until what it had on trial has been taken back.
    pub(crate) async fn give_up(&mut self) {
        let taken_back = async {
            self.stream.shutdown().await?;
            copy(&mut self.stream, &mut sink()).await
        };
        if !matches!(timeout(TAKE_BACK_LIMIT, taken_back).await, Ok(Ok(_))) {
            tracing::debug!("the supervisor did not say that all was taken back");
        }
    }

    /// The stream itself, after [`Reply::Opened`], and who carries it.
    pub(crate) fn into_stream(self) -> (UnixStream, Bearer) {
        (self.stream, Bearer { endpoint: self.endpoint, pid: self.pid })
    }
}

/// Opens a byte stream to the gateway of remote `name`, waiting up to `limit` for a live path.
/// Starts the supervisor if none runs.
pub(crate) async fn open(
    endpoint: &Endpoint,
    name: &str,
    edition: Edition,
    limit: Duration,
) -> Result<(UnixStream, Bearer, Opened), Problem> {
    let attempt = async {
        let mut connection = started(endpoint).await?;
        let timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        connection.request(Request::Open { name: name.to_owned(), edition, timeout_ms }).await?;
        let reply = connection.reply().await?;
        let Reply::Opened(opened) = reply else { return Err(refused(reply)) };
        let (stream, bearer) = connection.into_stream();
        Ok((stream, bearer, opened))
    };
    // The supervisor keeps the limit; the second is for one that does not answer at all.
    timeout(limit + Duration::from_secs(2), attempt).await.unwrap_or_else(|_| {
        Err(Problem::new(Class::Unreachable, format!("no live path to `{name}` in time"))
            .fix(format!("openclaw remote status {name}")))
    })
}

/// The status objects of remote `name`, or of all; empty if no supervisor runs.
pub(crate) async fn statuses(
    endpoint: &Endpoint,
    name: Option<&str>,
) -> Result<Vec<Value>, Problem> {
    let Some(mut connection) = Connection::dial(endpoint, Start::Never).await? else {
        return Ok(Vec::new());
    };
    connection.request(Request::Status { name: name.map(str::to_owned) }).await?;
    connection.statuses().await
}

/// Who supervises the profile of user `owner`, if anybody does and answers.
pub(crate) async fn met(endpoint: &Endpoint, owner: nix::unistd::Uid) -> Option<Greeting> {
    let stream = endpoint.connect().await.ok()?;
    greeted_by(stream, owner).await.ok().map(|(_, greeting)| greeting)
}

/// A connection to the supervisor, which is started if none runs.
pub(crate) async fn started(endpoint: &Endpoint) -> Result<Connection, Problem> {
    Connection::dial(endpoint, Start::IfNeeded)
        .await?
        .ok_or_else(|| Problem::new(Class::Internal, "no supervisor runs"))
}

/// The problem in a reply that was not the one awaited.
pub(crate) fn refused(reply: Reply) -> Problem {
    match reply {
        Reply::Failed(problem) => problem,
        Reply::Stage { .. }
        | Reply::Question(_)
        | Reply::Live { .. }
        | Reply::Opened(_)
        | Reply::Statuses { .. }
        | Reply::Watched(_)
        | Reply::Token { .. }
        | Reply::Done => Problem::new(Class::Internal, "the supervisor gave an unexpected answer"),
        Reply::Moved => Problem::new(Class::Internal, "the supervisor was replaced just now")
            .fix("the same command again"),
    }
}

/// Reads one message.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > MESSAGE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too large"));
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).await?;
    Ok(serde_json::from_slice(&text)?)
}

/// Writes one message.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    let text = zeroize::Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= MESSAGE_LIMIT);
    let Some(length) = length else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too large"));
    };
    let mut frame = zeroize::Zeroizing::new(length.to_be_bytes().to_vec());
    frame.extend_from_slice(&text);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// What the supervisor says first, once it is known to be this user's.
async fn greeted(stream: UnixStream) -> Result<(UnixStream, Greeting), Unmet> {
    greeted_by(stream, nix::unistd::getuid()).await
}

async fn greeted_by(
    mut stream: UnixStream,
    expected: nix::unistd::Uid,
) -> Result<(UnixStream, Greeting), Unmet> {
    let owner = stream.peer_cred().map_err(|error| broken(&error))?.uid();
    if owner != expected.as_raw() {
        return Err(Problem::new(
            Class::Internal,
            format!("the supervisor socket belongs to another user (uid {owner})"),
        )
        .fix("set XDG_RUNTIME_DIR and OPENCLAW_STATE_DIR to folders of your own")
        .into());
    }
    let greeting = timeout(GREETING_LIMIT, read(&mut stream))
        .await
        .map_err(|_| Problem::new(Class::Internal, "the supervisor does not answer"))?
        .map_err(|_| Unmet::Ended)?;
    Ok((stream, greeting))
}

/// Has a supervisor of this program take the place of the one that runs, which may stay if there
/// is no pressure.
async fn succeed(endpoint: &Endpoint, pressure: Pressure) -> Result<(UnixStream, Greeting), Unmet> {
    let stream = match (launch(endpoint).await, pressure) {
        (Ok(stream), _) => stream,
        (Err(problem), Pressure::Must) => return Err(problem.into()),
        (Err(problem), Pressure::May) => {
            tracing::debug!(%problem, "the older supervisor stays");
            endpoint
                .connect()
                .await
                .map_err(|error| unreachable_socket(&endpoint.socket, &error))?
        }
    };
    greeted(stream).await
}

/// The file of this program, or of what was installed over it since it started.
fn program() -> io::Result<PathBuf> {
    let file = std::env::current_exe()?;
    if file.exists() {
        return Ok(file);
    }
    let text = file.to_string_lossy().into_owned();
    let installed = text.strip_suffix(" (deleted)").map(PathBuf::from).filter(|it| it.exists());
    // Without a file there is still the program that runs.
    Ok(installed.unwrap_or_else(|| PathBuf::from("/proc/self/exe")))
}

/// Starts the supervisor and connects once it says that it listens.
///
/// Of two that start at once one gives way; its starter finds the other's socket.
async fn launch(endpoint: &Endpoint) -> Result<UnixStream, Problem> {
    let program = program().map_err(|error| {
        Problem::new(Class::Internal, format!("finding our own program: {error}"))
    })?;
    let mut command = Command::new(program);
    if let Some(profile) = &endpoint.profile {
        command.args(["--profile", profile]);
    }
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    // Relative to our folder, which is not the supervisor's.
    for variable in FOLDERS {
        let folder = std::env::var_os(variable).filter(|folder| !folder.is_empty());
        if let Some(folder) = folder.and_then(|folder| std::path::absolute(folder).ok()) {
            command.env(variable, folder);
        }
    }
    let mut child = command
        .arg("supervisor")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            Problem::new(Class::Internal, format!("starting the supervisor: {error}"))
        })?;
    let mut first = String::new();
    if let Some(output) = child.stdout.take() {
        let read = async { BufReader::new(output).take(1 << 16).read_line(&mut first).await };
        match timeout(START_LIMIT, read).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(broken(&error)),
            Err(_) => {
                return Err(Problem::new(Class::Internal, "the supervisor does not start"));
            }
        }
    }
    if first.trim() == READY {
        return endpoint
            .connect()
            .await
            .map_err(|error| unreachable_socket(&endpoint.socket, &error));
    }
    Err(serde_json::from_str(&first).unwrap_or_else(|_| {
        Problem::new(Class::Internal, "the supervisor ended at once")
            .fix("openclaw remote logs, or openclaw supervisor in another terminal")
    }))
}

/// Whether a failed connect means that nobody listens.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn unreachable_socket(socket: &Path, error: &io::Error) -> Problem {
    if error.kind() == io::ErrorKind::InvalidInput {
        let shown = socket.display();
        return Problem::new(Class::Config, format!("no socket can be made at {shown}: {error}"))
            .fix("set OPENCLAW_STATE_DIR or XDG_RUNTIME_DIR to a folder with a shorter path");
    }
    let class = if error.kind() == io::ErrorKind::NotADirectory
        || error.kind() == io::ErrorKind::PermissionDenied
    {
        Class::Config
    } else {
        Class::Internal
    };
    Problem::new(class, format!("connecting to the supervisor at {}: {error}", socket.display()))
}

fn broken(error: &io::Error) -> Problem {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) {
        return gone();
    }
    Problem::new(Class::Internal, format!("the connection to the supervisor broke: {error}"))
        .fix("openclaw remote logs")
}

/// The supervisor ended before the answer. Nothing is known of the network or the gateway.
fn gone() -> Problem {
    Problem::new(Class::Internal, "the supervisor went away before there was an answer")
        .code(SUPERVISOR_GONE)
        .fix(
            "the same command again, which starts it anew (what was asked for may have been done); \
             why it went: openclaw remote logs",
        )
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Greets the next command as one of `program` and reads what it asks.
    async fn attend(listener: &UnixListener, program: &str) -> (UnixStream, Call) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let greeting = Greeting {
            version: VERSION,
            pid: 1,
            program: program.to_owned(),
            replaced: false,
            foreground: false,
        };
        write(&mut stream, &greeting).await.unwrap();
        let call = read(&mut stream).await.unwrap();
        (stream, call)
    }

    fn endpoint(folder: &Path) -> (Endpoint, UnixListener) {
        let socket = folder.join("supervisor.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        (Endpoint { socket, other: None, profile: None }, listener)
    }

    #[tokio::test]
    async fn a_question_follows_the_supervisor_to_its_successor() {
        let folder = tempfile::tempdir().unwrap();
        let (endpoint, listener) = endpoint(folder.path());
        let command = async {
            let dialled = Connection::dial(&endpoint, Start::Never).await;
            let mut connection = dialled.unwrap().unwrap();
            connection.request(Request::Resume { name: "vps".to_owned() }).await.unwrap();
            connection.done().await
        };
        let supervisors = async {
            for reply in [Reply::Moved, Reply::Done] {
                let (mut stream, call) = attend(&listener, env!("CARGO_PKG_VERSION")).await;
                assert!(matches!(call.request, Request::Resume { name } if name == "vps"));
                write(&mut stream, &reply).await.unwrap();
            }
        };
        let (outcome, ()) = tokio::join!(command, supervisors);
        outcome.unwrap();
    }

    #[tokio::test]
    async fn an_older_program_does_with_a_newer_supervisor() {
        let folder = tempfile::tempdir().unwrap();
        let (endpoint, listener) = endpoint(folder.path());
        let command = async {
            let dialled = Connection::dial(&endpoint, Start::Never).await;
            dialled.unwrap().unwrap().request(Request::Stop).await
        };
        let (outcome, (_stream, call)) = tokio::join!(command, attend(&listener, "999.0.0"));
        outcome.unwrap();
        assert!(matches!(call.request, Request::Stop));
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_or_ends_in_the_middle_is_an_error() {
        for bytes in [&[0xff; 8][..], &[0, 0, 0, 9, b'{'], &[0, 0], &[0, 0, 0, 2, b'{', b'x']] {
            let mut bytes = bytes;
            read::<Call>(&mut bytes).await.unwrap_err();
        }
    }
}
