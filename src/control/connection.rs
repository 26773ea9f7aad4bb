//! A command's end of the control socket.

use std::{io, path::PathBuf, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt, copy, sink},
    net::UnixStream,
    time::timeout,
};

use super::{
    Call, Edition, Note, Opened, Reply, Request,
    endpoint::{Endpoint, GREETING_LIMIT, broken, gone, is_absent, unreachable_socket},
    frame::{read, write},
    launch::launch,
    message::refused,
};
use crate::{
    meeting::{Greeting, Meeting, Party, Pressure, meet},
    problem::{Class, Problem},
};

/// How long the supervisor may take to take back what it had on trial.
const TAKE_BACK_LIMIT: Duration = Duration::from_secs(5);

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

/// The remote that `port` of this machine leads to, or will in a moment, those on trial included;
/// `None` if no supervisor runs. An error if it does not say, as one of before this question.
pub(crate) async fn holder(endpoint: &Endpoint, port: u16) -> Result<Option<String>, Problem> {
    let Some(mut connection) = Connection::dial(endpoint, Start::Never).await? else {
        return Ok(None);
    };
    connection.request(Request::Holder { port }).await?;
    let reply = connection.reply().await?;
    if let Reply::Held { remote } = reply { Ok(remote) } else { Err(refused(reply)) }
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
        .map_err(|_| silent(stream.peer_cred().ok().and_then(|peer| peer.pid())))?
        .map_err(|_| Unmet::Ended)?;
    Ok((stream, greeting))
}

/// A supervisor that takes connections and says nothing: stopped, or a machine that is too busy.
fn silent(pid: Option<i32>) -> Problem {
    let problem = |who: &str| Problem::new(Class::Internal, format!("{who} does not answer"));
    match pid {
        Some(pid) => problem(&format!("the supervisor (pid {pid})"))
            .fix(format!("kill -CONT {pid}, if somebody stopped it; kill {pid} ends it")),
        None => problem("the supervisor"),
    }
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

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use std::path::Path;

    use super::{super::VERSION, *};

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
    async fn who_holds_a_port_is_an_error_where_the_supervisor_does_not_know_the_question() {
        let folder = tempfile::tempdir().unwrap();
        let (endpoint, listener) = endpoint(folder.path());
        let own = env!("CARGO_PKG_VERSION");
        let reply = Reply::Held { remote: Some("vps".to_owned()) };
        for (answer, expected) in [(Some(reply), Some("vps")), (None, None)] {
            let supervisor = async {
                let (mut stream, call) = attend(&listener, own).await;
                assert!(matches!(call.request, Request::Holder { port: 18_789 }));
                if let Some(reply) = answer {
                    write(&mut stream, &reply).await.unwrap();
                }
            };
            let (held, ()) = tokio::join!(holder(&endpoint, 18_789), supervisor);
            assert_eq!(held.is_ok(), expected.is_some());
            assert_eq!(held.ok().flatten().as_deref(), expected);
        }
        drop(listener);
        std::fs::remove_file(&endpoint.socket).unwrap();
        assert_eq!(holder(&endpoint, 18_789).await.unwrap(), None, "nobody runs");
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
}
