//! All printing: values and lines to standard output, everything else to standard error.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the one place that prints")]

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::problem::{Class, Problem};

/// Where and how to print.
#[derive(Debug, Clone)]
pub(super) struct Output {
    json: bool,
    color: bool,
}

/// A colour that means something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tone {
    /// Works.
    Good,
    /// Worth a look.
    Odd,
    /// Does not work.
    Bad,
    /// Beside the point.
    Quiet,
}

impl Output {
    /// Prints for scripts if `json`; colours only on a terminal, without `--no-color`/`NO_COLOR`.
    pub(super) fn new(json: bool, no_color: bool) -> Self {
        let wanted = !no_color && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { json, color: wanted && std::io::stdout().is_terminal() }
    }

    /// Whether a script is reading.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the one JSON value of this run.
    pub(super) fn value(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.page(&format!("{}\n", serde_json::to_string_pretty(value)?));
        Ok(())
    }

    /// Prints one line for a person; nothing under `--json`.
    pub(super) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            self.page(&format!("{}\n", text.as_ref()));
        }
    }

    /// Prints text as it is. A reader that went away is no error (`openclaw … | head`).
    pub(super) fn page(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        drop(written);
    }

    /// Prints a line for a person to standard error.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        eprintln!("{}", text.as_ref());
    }

    /// `text` in the colour of `tone`, where colours are wanted.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Odd => 33,
            Tone::Bad => 31,
            Tone::Quiet => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Prints why the command failed and returns its exit code.
    pub(super) fn failure(&self, error: &anyhow::Error) -> ExitCode {
        self.failure_with(error, problem_of(error).class.exit_code())
    }

    /// Prints why the command failed and returns this exit code instead of the class's own.
    pub(super) fn failure_with(&self, error: &anyhow::Error, exit: u8) -> ExitCode {
        let problem = problem_of(error);
        if self.json {
            let value = json!({"ok": false, "error": {
                "type": kind(problem.class), "class": problem.class, "code": problem.code,
                "exitCode": exit, "message": problem.message, "fix": problem.fix,
            }});
            self.page(&format!("{value:#}\n"));
        } else {
            self.note(format!("openclaw: {}", problem.message));
            if let Some(fix) = &problem.fix {
                self.note(format!("  try: {fix}"));
            }
        }
        ExitCode::from(exit)
    }

    /// A spinner on a terminal, nothing elsewhere.
    pub(super) fn spinner(&self) -> Spinner {
        let bar = ProgressBar::new_spinner();
        if self.json || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:>}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }
}

/// The stage of a long wait; clears itself.
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    /// Shows the stage.
    pub(super) fn stage(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    /// Runs `question` with the line free for it.
    pub(super) fn suspend<T>(&self, question: impl FnOnce() -> T) -> T {
        self.0.suspend(question)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The problem at the bottom of `error`, with the contexts above it in its message.
fn problem_of(error: &anyhow::Error) -> Problem {
    let message = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    match error.chain().find_map(|cause| cause.downcast_ref::<Problem>()) {
        Some(problem) => Problem { message, ..problem.clone() },
        None => Problem::new(Class::Internal, message),
    }
}

/// OpenClaw's `type` of an error.
fn kind(class: Class) -> &'static str {
    match class {
        Class::Usage | Class::Config => "invalid_request",
        Class::Timeout => "timeout",
        Class::Rpc | Class::GatewayRefused => "gateway_error",
        Class::Unreachable
        | Class::SshAuth
        | Class::HostKey
        | Class::GatewayDown
        | Class::ForwardRefused => "connection_error",
        Class::Internal | Class::PortInUse => "error",
    }
}
