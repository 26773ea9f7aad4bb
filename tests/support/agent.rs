//! A real ssh-agent that holds one key.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    net::wait_until,
    program::{Program, guarded, run_to_end},
};

/// A running agent.
pub(crate) struct Agent {
    _program: Program,
    folder: TempDir,
}

impl Agent {
    /// Starts an agent and gives it `key`.
    pub(crate) fn with(key: &Path) -> Self {
        Self::holding(key, None)
    }

    /// The same, and `askpass` is asked before each use of the key.
    pub(crate) fn that_asks(key: &Path, askpass: &Path) -> Self {
        Self::holding(key, Some(askpass))
    }

    fn holding(key: &Path, askpass: Option<&Path>) -> Self {
        let folder = tempfile::Builder::new().prefix("agent-").tempdir().expect("making a folder");
        let socket = folder.path().join("socket");
        let mut command = guarded("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket);
        if let Some(askpass) = askpass {
            command.env("SSH_ASKPASS", askpass).env("SSH_ASKPASS_REQUIRE", "force");
        }
        let program = Program::start("ssh-agent", command);
        wait_until("ssh-agent listens", Duration::from_secs(10), || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        let mut add = Command::new("ssh-add");
        add.args(askpass.map(|_| "-c")).arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket);
        let output = run_to_end(add, Duration::from_secs(10));
        assert!(output.status.success(), "ssh-add: {output:?}");
        Self { _program: program, folder }
    }

    /// What belongs into `SSH_AUTH_SOCK`.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }
}
