//! The program on a terminal of its own, with a person who answers its questions.

use std::{
    ffi::OsStr,
    io::Write,
    process::{Child, ChildStdin, Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};

use super::{
    home::Run,
    processes::signal,
    program::{Log, end_of},
};

/// How long a person waits for a question.
const PATIENCE: Duration = Duration::from_secs(30);

/// A run of the program on a terminal.
pub(crate) struct Terminal {
    script: Option<Child>,
    keyboard: ChildStdin,
    screen: Option<JoinHandle<()>>,
    log: Log,
}

impl Terminal {
    /// Starts the program on a new terminal.
    pub(crate) fn start(run: Run) -> Self {
        Self::of(&run.into_command())
    }

    /// The same for any command; of its environment it gets what was set on it, and nothing else.
    pub(crate) fn of(program: &Command) -> Self {
        let words: Vec<String> =
            std::iter::once(program.get_program()).chain(program.get_args()).map(quoted).collect();
        // `script` gives its child a terminal, and hands over what it reads and the exit code.
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-f", "-c", &words.join(" "), "/dev/null"]).env_clear();
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("SHELL", "/bin/sh").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = command.stderr(Stdio::null()).spawn().expect("starting script");
        let log = Log::default();
        let screen = log.follow(script.stdout.take().expect("piped"));
        let keyboard = script.stdin.take().expect("piped");
        Self { script: Some(script), keyboard, screen: Some(screen), log }
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    pub(crate) fn shows(&self, text: &str) {
        assert!(self.log.waits_for(text, PATIENCE), "no `{text}` on:\n{}", self.log.text());
    }

    /// All that was written on it so far, with what moves the cursor.
    pub(crate) fn written(&self) -> String {
        self.log.text()
    }

    /// Types a line.
    pub(crate) fn types(&mut self, line: &str) {
        writeln!(self.keyboard, "{line}").expect("typing on the terminal");
    }

    /// Waits for the end; returns the exit code and all that was on the screen.
    pub(crate) fn end(mut self) -> (i32, String) {
        let script = self.script.take().expect("ends once");
        let output = end_of(script, Duration::from_secs(60), "a program on a terminal");
        // Nobody but `script` holds the other end, so the reader has come to the end as well.
        drop(self.screen.take().map(JoinHandle::join));
        (output.status.code().unwrap_or(-1), self.log.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(mut script) = self.script.take() {
            let pid = i32::try_from(script.id()).expect("a process id");
            signal(Pid::from_raw(pid), Signal::SIGTERM);
            drop(script.wait());
        }
    }
}

/// A word as the shell takes it literally.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}
