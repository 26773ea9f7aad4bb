//! Starts the supervisor.

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::UnixStream,
    process::Command,
    time::timeout,
};

use super::endpoint::{Endpoint, broken, unreachable_socket};
use crate::problem::{Class, Problem};

/// How long a supervisor may take from its start to its first answer.
const START_LIMIT: Duration = Duration::from_secs(10);
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

/// What glibc's allocator is told (the tunables of its manual): to keep no store of freed pieces for
/// each thread. That is of use to programs that allocate all the time; in one that reconnects for
/// months it only holds on to more and more of what sessions leave behind. Elsewhere the variable
/// means nothing.
pub(crate) const ALLOCATOR: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");

/// Starts the supervisor and connects once it says that it listens.
///
/// Of two that start at once one gives way; its starter finds the other's socket.
pub(super) async fn launch(endpoint: &Endpoint) -> Result<UnixStream, Problem> {
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
    let (variable, value) = ALLOCATOR;
    if std::env::var_os(variable).is_none() {
        command.env(variable, value);
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
                return Err(Problem::new(
                    Class::Internal,
                    format!("the supervisor did not start within {} s", START_LIMIT.as_secs()),
                )
                .fix(
                    "the same again, which finds it if it is only slow; or openclaw remote logs --raw",
                ));
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
