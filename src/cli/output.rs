//! All printing: values and lines to standard output, everything else to standard error.

use std::{
    io::{IsTerminal, Write},
    os::fd::AsFd,
    process::ExitCode,
    sync::OnceLock,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{io::Interest, net::unix::pipe};

use crate::{
    logfile::PlainLines,
    problem::{Class, Problem},
};

/// Where and how to print.
#[derive(Debug, Clone)]
pub(super) struct Output {
    json: bool,
    color: bool,
    /// Where notes go in the place of standard error itself.
    console: Option<PlainLines>,
}

/// A colour that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Why some of the output of this run could not be written.
static UNPRINTED: OnceLock<String> = OnceLock::new();

impl Output {
    /// Prints for scripts if `json`; colours only on a terminal, without `--no-color`/`NO_COLOR`.
    pub(super) fn new(json: bool, no_color: bool) -> Self {
        let wanted = !no_color && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self { json, color: wanted && std::io::stdout().is_terminal(), console: None }
    }

    /// The same with notes among the lines of a server's log, where nobody waits for them.
    pub(super) fn noting_in(self, console: PlainLines) -> Self {
        Self { console: Some(console), ..self }
    }

    /// Those lines.
    pub(super) fn console(&self) -> Option<&PlainLines> {
        self.console.as_ref()
    }

    /// Whether colours are wanted and shown.
    pub(super) fn is_colored(&self) -> bool {
        self.color
    }

    /// Waits until nobody reads standard output any more. A file, which always takes what is
    /// written, is waited for for ever.
    pub(super) async fn abandoned(&self) {
        let pipe = std::io::stdout().as_fd().try_clone_to_owned();
        // Whatever it is: only its end is waited for, and nothing is written through this handle.
        let pipe = pipe.and_then(pipe::Sender::from_owned_fd_unchecked);
        if let Ok(pipe) = pipe
            && pipe.ready(Interest::ERROR).await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
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
            self.page(&format!("{}\n", plain(text.as_ref(), self.color)));
        }
    }

    /// Prints labelled rows for a person, the texts aligned; nothing under `--json`.
    pub(super) fn rows(&self, rows: &[(&str, String)]) {
        let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, text) in rows {
            let padding = " ".repeat(width - label.chars().count());
            let label = self.paint(Tone::Quiet, label);
            self.line(plain(&format!("{label}{padding}  {text}"), self.color));
        }
    }

    /// Prints text as it is. A reader that went away is no error (`openclaw … | head`).
    pub(super) fn page(&self, text: &str) {
        if let Err(error) = write(std::io::stdout().lock(), text)
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            // The first one tells most.
            let _known = UNPRINTED.set(error.to_string());
        }
    }

    /// The exit code after everything is printed: what could not be written, on a full disk for
    /// instance, is a failure of a command that succeeded otherwise.
    pub(super) fn finish(&self, code: ExitCode) -> ExitCode {
        match UNPRINTED.get() {
            Some(error) if code == ExitCode::SUCCESS => {
                self.note(format!("openclaw: writing the output failed: {error}"));
                ExitCode::from(Class::Internal.exit_code())
            }
            Some(_) | None => code,
        }
    }

    /// Prints one line of a report without an end; false once nobody reads any more.
    pub(super) fn endless_line(&self, text: &str) -> bool {
        write(std::io::stdout().lock(), &format!("{text}\n")).is_ok()
    }

    /// Gives standard output up: whoever reads it sees its end.
    pub(super) fn close(&self) {
        if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
            // A descriptor that cannot be replaced stays open, and the reader waits for our end.
            let _kept = nix::unistd::dup2_stdout(null);
        }
    }

    /// Prints a line for a person to standard error, whether or not somebody reads it.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        let text = plain(text.as_ref(), self.color);
        match &self.console {
            Some(console) => console.push(text),
            None => {
                let _gone = write(std::io::stderr().lock(), &format!("{text}\n"));
            }
        }
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
            let value = json!({"ok": false, "error": error_with(&problem, exit)});
            self.page(&format!("{value:#}\n"));
        } else {
            self.note(plain(&format!("openclaw: {}", problem.message), false));
            self.advice(&problem);
        }
        ExitCode::from(exit)
    }

    /// Prints what to type next, below a report; nothing under `--json`.
    pub(super) fn advice(&self, problem: &Problem) {
        if let Some(fix) = problem.fix.as_ref().filter(|_| !self.json) {
            self.note(plain(&format!("  try: {fix}"), false));
        }
    }

    /// A spinner on a terminal, nothing elsewhere.
    pub(super) fn spinner(&self) -> Spinner {
        let bar = ProgressBar::new_spinner();
        if self.json || self.console.is_some() || !std::io::stderr().is_terminal() {
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
        self.0.set_message(plain(text, false));
    }

    /// Leaves the line free for a question.
    pub(super) fn pause(&self) {
        self.0.disable_steady_tick();
        self.0.finish_and_clear();
    }

    /// Shows itself again.
    pub(super) fn resume(&self) {
        self.0.reset();
        self.0.enable_steady_tick(Duration::from_millis(100));
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn write(mut stream: impl Write, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes()).and_then(|()| stream.flush())
}

/// The problem at the bottom of `error`, with the contexts above it in its message.
fn problem_of(error: &anyhow::Error) -> Problem {
    let message = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    match error.chain().find_map(|cause| cause.downcast_ref::<Problem>()) {
        Some(problem) => Problem { message, ..problem.clone() },
        None => Problem::new(Class::Internal, message),
    }
}

/// A problem as `--json` shows it, at `error` beside `"ok": false`.
pub(super) fn error_value(problem: &Problem) -> Value {
    error_with(problem, problem.class.exit_code())
}

fn error_with(problem: &Problem, exit: u8) -> Value {
    json!({
        "type": kind(problem), "class": problem.class, "code": problem.code,
        "exitCode": exit, "message": problem.message, "fix": problem.fix,
    })
}

/// OpenClaw's `type` of an error.
fn kind(problem: &Problem) -> &'static str {
    match problem.class {
        Class::Usage if problem.code.as_deref() == Some("GATEWAY_CREDENTIALS_REQUIRED") => {
            "gateway_credentials_required"
        }
        Class::Usage | Class::Config | Class::Internal | Class::PortInUse => "cli_error",
        Class::Rpc | Class::GatewayRefused => "gateway_request_error",
        Class::Timeout
        | Class::Unreachable
        | Class::SshAuth
        | Class::HostKey
        | Class::GatewayDown
        | Class::ForwardRefused => "gateway_transport_error",
    }
}

/// Text from elsewhere without what would steer a terminal; colours stay if `colored`.
pub(super) fn plain(text: &str, colored: bool) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' if colored && is_color(rest.as_str()) => result.push(character),
            '\n' | '\t' => result.push(character),
            other if other.is_control() => result.push('\u{fffd}'),
            other => result.push(other),
        }
    }
    result
}

/// Whether what follows an escape only chooses a colour.
fn is_color(text: &str) -> bool {
    let rest = text.strip_prefix('[');
    rest.is_some_and(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('m'))
}

/// A duration as people read a round trip.
pub(super) fn milliseconds(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// Milliseconds as people read a period: its two largest units.
pub(super) fn period(ms: u64) -> String {
    let seconds = ms / 1000;
    let units = [("d", seconds / 86_400), ("h", seconds / 3600 % 24), ("min", seconds / 60 % 60)];
    let seconds = ("s", seconds % 60);
    let shown: Vec<_> = units
        .into_iter()
        .chain([seconds])
        .skip_while(|(_, count)| *count == 0)
        .take(2)
        .filter(|(_, count)| *count > 0)
        .map(|(unit, count)| format!("{count} {unit}"))
        .collect();
    if shown.is_empty() { format!("{ms} ms") } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_steers_no_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc", false), "a\u{fffd}[2Jb\u{fffd}\nc");
        assert_eq!(plain("\u{1b}[31mred\u{1b}[2J", true), "\u{1b}[31mred\u{fffd}[2J");
    }

    #[test]
    fn periods_read_well() {
        for (ms, text) in [
            (0, "0 ms"),
            (250, "250 ms"),
            (1000, "1 s"),
            (90_000, "1 min 30 s"),
            (1_800_000, "30 min"),
            (3_600_000, "1 h"),
            (90_061_000, "1 d 1 h"),
        ] {
            assert_eq!(period(ms), text);
        }
        assert_eq!(milliseconds(Duration::from_micros(1234)), "1.2 ms");
        assert_eq!(milliseconds(Duration::from_millis(123)), "123 ms");
    }
}
