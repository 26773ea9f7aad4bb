//! `openclaw logs`: the end of a gateway's log, and what it writes from then on.

mod line;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use self::line::{Line, Zone};
use super::{
    Context,
    output::{Output, Tone, plain},
    talk::typed,
    which::{Which, block_on, left, reach},
};
use crate::{
    client::{Plan, READ, Reached},
    control,
    problem::{Class, Problem},
    protocol::{LogsTailParams, LogsTailResult},
};

/// The method.
const TAIL: &str = "logs.tail";
/// How often in a row a gateway that went away is looked for.
const RETRIES: u32 = 8;
/// The longest wait before one of them.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// At most so many lines at a time
    #[arg(long, value_name = "N", default_value_t = 200,
        value_parser = clap::value_parser!(u64).range(1..=5_000))]
    limit: u64,
    /// At most so many bytes at a time
    #[arg(long, value_name = "N", default_value_t = 250_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_bytes: u64,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// How often to ask for it, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(50..=3_600_000))]
    interval: u64,
    /// No colours, and times in full
    #[arg(long)]
    plain: bool,
    /// Times of this machine's zone, as without it
    #[arg(long, conflicts_with = "utc")]
    local_time: bool,
    /// Times in UTC
    #[arg(long)]
    utc: bool,
    /// Accepted for OpenClaw's sake: no agent is behind this
    #[arg(long, hide = true)]
    expect_final: bool,
    #[command(flatten)]
    which: Which,
}

/// How far the log was read.
#[derive(Debug, Default)]
struct Tail {
    cursor: Option<u64>,
    /// The file that was named last.
    file: Option<String>,
}

/// Runs `logs`; with `--follow` until nobody reads any more, or the gateway stays away.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let plan = arguments.which.plan(context)?;
    block_on(async {
        let (mut tail, mut reached, mut failures) = (Tail::default(), None, 0);
        loop {
            let asked = ask(context, &plan, arguments, &mut reached, tail.cursor).await;
            let answer = match asked {
                Ok(answer) => answer,
                Err(problem) if arguments.follow && failures < RETRIES && is_passing(&problem) => {
                    reached = None;
                    let wait = wait(failures);
                    failures += 1;
                    let seconds = wait.as_secs();
                    say(
                        &context.output,
                        &format!("[logs] gateway disconnected, reconnecting in {seconds}s..."),
                    );
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Err(problem) => return Err(problem.into()),
            };
            if failures > 0 {
                failures = 0;
                say(&context.output, "[logs] gateway reconnected");
            }
            let is_read = tail.tell(&context.output, arguments, &answer)?;
            if !arguments.follow || !is_read {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(arguments.interval)) => {}
                () = context.output.abandoned() => break,
            }
        }
        if let Some(reached) = reached {
            reached.gateway.close().await;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Asks for what comes after `cursor`, on the conversation that is there or on a new one.
async fn ask(
    context: &Context,
    plan: &Plan,
    arguments: &Arguments,
    reached: &mut Option<Reached>,
    cursor: Option<u64>,
) -> Result<LogsTailResult, Problem> {
    let deadline = Instant::now() + arguments.which.patience();
    let reached = match reached {
        Some(reached) => reached,
        None => {
            let fresh = reach(context, plan, READ, deadline).await?;
            fresh.verify(left(deadline)).await?;
            reached.insert(fresh)
        }
    };
    let (limit, max_bytes) = (Some(arguments.limit), Some(arguments.max_bytes));
    let mut params = json!(LogsTailParams { cursor, limit, max_bytes });
    if let (None, Some(params)) = (cursor, params.as_object_mut()) {
        params.remove("cursor");
    }
    typed(TAIL, &reached.call(TAIL, Some(params), left(deadline)).await?)
}

/// Whether it may be otherwise in a moment.
fn is_passing(problem: &Problem) -> bool {
    matches!(problem.class, Class::Timeout | Class::GatewayDown | Class::Unreachable)
        || problem.code.as_deref() == Some(control::SUPERVISOR_GONE)
}

/// How long after so many failures in a row.
fn wait(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(5)).min(LONGEST_WAIT)
}

/// News about the tail itself, which are no part of the log.
fn say(output: &Output, message: &str) {
    if output.is_json() {
        output.note(json!({"type": "notice", "message": message}).to_string());
    } else {
        output.note(message);
    }
}

impl Tail {
    /// Prints an answer; false once nobody reads any more.
    fn tell(
        &mut self,
        output: &Output,
        arguments: &Arguments,
        answer: &LogsTailResult,
    ) -> anyhow::Result<bool> {
        let is_other = self.file.as_ref() != Some(&answer.file);
        (self.cursor, self.file) = (Some(answer.cursor), Some(answer.file.clone()));
        let mut said: Vec<String> = Vec::new();
        if output.is_json() {
            if is_other {
                said.push(
                    json!({
                        "type": "meta", "file": answer.file, "sourceKind": "file",
                        "cursor": answer.cursor, "size": answer.size,
                    })
                    .to_string(),
                );
            }
            said.extend(answer.lines.iter().map(|line| record(line).to_string()));
            let notices = notices(answer).into_iter();
            said.extend(
                notices.map(|message| json!({"type": "notice", "message": message}).to_string()),
            );
        } else {
            if is_other {
                said.push(format!("Log file: {}", one_line(&answer.file)));
            }
            let zone = if arguments.utc { Zone::Utc } else { Zone::Here };
            let is_pretty = std::io::stdout().is_terminal() && !arguments.plain;
            said.extend(answer.lines.iter().map(|line| shown(output, line, zone, is_pretty)));
        }
        let is_read = said.iter().all(|text| output.endless_line(text));
        if !output.is_json() {
            notices(answer).iter().for_each(|notice| output.note(notice));
        }
        Ok(is_read)
    }
}

/// A line for scripts, in OpenClaw's form.
fn record(text: &str) -> Value {
    match Line::of(text) {
        Some(line) => line.json(text),
        None => json!({"type": "raw", "raw": text}),
    }
}

/// A line for people; what is no line of a log as it is.
fn shown(output: &Output, text: &str, zone: Zone, is_pretty: bool) -> String {
    let Some(line) = Line::of(text) else { return one_line(text) };
    let tone = match line.level.as_deref() {
        Some("error" | "fatal") => Tone::Bad,
        Some("warn") => Tone::Odd,
        Some("debug" | "trace") => Tone::Quiet,
        Some(_) | None => Tone::Good,
    };
    let message = if line.message.is_empty() {
        text.to_owned()
    } else {
        format!("{}{}", line.message, line.details)
    };
    let words =
        [(Tone::Quiet, line.time(zone, is_pretty)), (tone, line.level), (Tone::Quiet, line.label)];
    let paint = |tone, word: &str| {
        let word = one_line(word);
        if is_pretty { output.paint(tone, &word) } else { word }
    };
    let mut said: Vec<String> =
        words.into_iter().filter_map(|(tone, word)| Some(paint(tone, &word?))).collect();
    said.push(one_line(&message));
    said.join(" ")
}

/// Text of others as one line that a terminal only shows: what a message breaks off could pass for
/// another line of the log.
fn one_line(text: &str) -> String {
    plain(text, false).replace('\n', "\\n")
}

/// What an answer leaves out, in OpenClaw's words.
fn notices(answer: &LogsTailResult) -> Vec<String> {
    let truncated = "Log tail truncated (increase --limit or --max-bytes).".to_owned();
    let reset = match answer.skipped_bytes {
        Some(bytes) if bytes > 0 => format!("Log cursor re-anchored (skipped {bytes} bytes)."),
        Some(_) | None => "Log cursor reset (file rotated).".to_owned(),
    };
    [answer.truncated.then_some(truncated), answer.reset.then_some(reset)]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_waited_for_and_not_for_ever() {
        for (class, expected) in [
            (Class::Timeout, true),
            (Class::GatewayDown, true),
            (Class::GatewayRefused, false),
            (Class::Config, false),
        ] {
            assert_eq!(is_passing(&Problem::new(class, "x")), expected, "{class:?}");
        }
        let waits: Vec<u64> = (0..RETRIES).map(|n| wait(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn a_message_cannot_pass_for_another_line_nor_speak_to_the_terminal() {
        let text = json!({
            "level": "info", "message": "one\n2026 error two\u{1b}[2J", "reason": "a\nb",
        })
        .to_string();
        let output = Output::new(false, true);
        let line = shown(&output, &text, Zone::Utc, false);
        assert_eq!(line, "info one\\n2026 error two\u{fffd}[2J: a\\nb");
        assert_eq!(one_line("/tmp/a\n\u{1b}"), "/tmp/a\\n\u{fffd}");
    }

    #[test]
    fn what_was_left_out_is_said_in_openclaws_words() {
        let of = |truncated, reset, skipped_bytes| {
            notices(&LogsTailResult {
                truncated,
                reset,
                skipped_bytes,
                ..LogsTailResult::default()
            })
        };
        assert_eq!(of(false, false, None), Vec::<String>::new());
        assert!(of(true, false, None)[0].contains("--max-bytes"));
        assert!(of(false, true, Some(7))[0].contains("skipped 7 bytes"));
        assert!(of(false, true, None)[0].contains("rotated"));
    }
}
