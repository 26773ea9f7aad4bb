//! Arguments and printing: one file a command, `output.rs` alone prints.

mod ask;
mod check;
mod config;
mod connect;
mod demo;
mod devices;
mod doctor;
mod expose;
mod flaw;
mod foreground;
mod gateway;
mod gateway_auth_token;
mod gateway_call;
mod gateway_log;
mod gateway_logs;
mod gateway_neighbours;
mod gateway_origin;
mod gateway_probe;
mod gateway_run;
mod gateway_service;
mod gateway_status;
mod gateway_unit;
mod health;
mod installed;
mod lacking;
mod launchd;
mod logs;
mod metrics;
mod nodes;
mod order;
mod output;
mod pairing;
mod phrases;
mod remote;
mod remote_install;
mod ssh_options;
mod status;
mod systemd;
mod talk;
mod watch;
mod which;
mod written;

use std::{ffi::OsString, process::ExitCode};

use clap::{
    CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

use self::output::Output;
use crate::{
    config::Paths,
    logfile,
    problem::{Class, Problem},
};

/// Reach your own agent from anywhere.
#[derive(Debug, Parser)]
#[command(name = "openclaw", version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, clap::Args)]
struct Globals {
    /// Print one JSON value to standard output
    #[arg(long, global = true)]
    json: bool,
    /// No colours (also NO_COLOR)
    #[arg(long, global = true)]
    no_color: bool,
    /// Use the files of this profile
    #[arg(long, global = true, value_name = "NAME", env = "OPENCLAW_PROFILE")]
    profile: Option<String>,
    /// Talk to the gateway of this remote
    #[arg(long, global = true, value_name = "NAME")]
    remote: Option<String>,
    /// Talk to the gateway on this machine
    #[arg(long, global = true, conflicts_with = "remote")]
    local_gateway: bool,
    /// Say more on standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See the whole product on this machine, with nothing set up
    Demo(demo::Arguments),
    /// Keep gateways on other machines within reach
    Remote(remote::Arguments),
    /// Run a gateway, or ask one
    Gateway(gateway::Arguments),
    /// Look at openclaw.json, change it, check it
    Config(config::Arguments),
    /// See who is paired with the gateway, and let devices in
    Devices(devices::Arguments),
    /// Ask the gateway whether it is well
    Health(health::Arguments),
    /// Show the end of the gateway's log, and what it writes from then on
    Logs(gateway_logs::Arguments),
    /// Show the nodes of a gateway, approve what they offer, run commands on them
    Nodes(nodes::Arguments),
    /// See who wrote to a channel of the gateway, and let people in
    Pairing(pairing::Arguments),
    /// Show which gateway is meant, and how it is
    Status(status::Arguments),
    /// Say what is unsafe or broken here, and what to type
    Doctor(doctor::Arguments),
    /// Run the supervisor of this profile (started by `remote connect`)
    #[command(hide = true)]
    Supervisor {
        /// Do not detach; log to standard error as well, as a service
        #[arg(long)]
        foreground: bool,
    },
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// What every command gets.
struct Context {
    globals: Globals,
    paths: Paths,
    output: Output,
}

/// Runs the program with `arguments` (the program's name first) and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = match Arguments::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return usage(&arguments, &error),
    };
    let Arguments { globals, command } = parsed;
    // What follows a command that we lack is not parsed.
    let is_json = globals.json
        || matches!(&command, Command::Other(words) if words.iter().any(|word| word == "--json"));
    let mut output = Output::new(is_json, globals.no_color);
    let role = command.role();
    // Ends last: a server's last words are written before the process goes.
    let _console = match role {
        Role::Server => match logfile::open_console() {
            Ok((lines, writer)) => {
                output = output.noting_in(lines);
                Some(writer)
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                return output
                    .failure(&error.context("starting the thread that writes what is said"));
            }
        },
        Role::Background | Role::Client => None,
    };
    // Servers write logs of their own.
    if globals.verbose > 0 && role == Role::Client {
        log_to(std::io::stderr, globals.verbose);
    }
    let outcome = Paths::find(globals.profile.as_deref())
        .map_err(anyhow::Error::from)
        .and_then(|paths| dispatch(&Context { globals, paths, output: output.clone() }, command));
    match outcome {
        Ok(code) => output.finish(code),
        Err(error) => output.failure(&error),
    }
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It ends soon, or with its reader.
    Client,
    /// It serves until a signal, and somebody may watch it.
    Server,
    /// A server that another command started, and nobody watches.
    Background,
}

impl Command {
    fn role(&self) -> Role {
        let is_server = matches!(self, Self::Supervisor { foreground: true })
            || matches!(self, Self::Gateway(arguments) if arguments.is_run())
            || matches!(self, Self::Remote(arguments) if arguments.is_foreground());
        if is_server {
            Role::Server
        } else if matches!(self, Self::Supervisor { .. }) {
            Role::Background
        } else {
            Role::Client
        }
    }
}

fn dispatch(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(arguments) => demo::run(context, arguments),
        Command::Remote(arguments) => remote::run(context, arguments),
        Command::Gateway(arguments) => gateway::run(context, arguments),
        Command::Config(arguments) => config::run(context, arguments),
        Command::Devices(arguments) => devices::run(context, &arguments),
        Command::Health(arguments) => health::run(context, &arguments),
        Command::Logs(arguments) => gateway_logs::run(context, &arguments),
        Command::Nodes(arguments) => nodes::run(context, &arguments),
        Command::Pairing(arguments) => pairing::run(context, &arguments),
        Command::Status(arguments) => status::run(context, &arguments),
        Command::Doctor(arguments) => doctor::run(context, &arguments),
        Command::Supervisor { foreground: true } => foreground::all(context),
        Command::Supervisor { foreground: false } => remote::supervise(context),
        Command::Other(words) => {
            Err(lacking::command(&words, context.globals.profile.as_deref()).into())
        }
    }
}

/// Writes what happens to `sink`: `info` and worse, more with `-v`, or what `OPENCLAW_LOG` says.
fn log_to<W>(sink: W, verbose: u8)
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let level = match verbose {
        0 => "openclaw=info",
        1 => "openclaw=debug",
        _ => "openclaw=trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("OPENCLAW_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        // What cannot be written (a full disk) is lost; saying so on a closed stream would be fatal.
        .log_internal_errors(false)
        .with_writer(sink)
        .try_init();
    // Only a second call fails, and the first one's sink is as good.
    drop(subscriber);
}

/// Prints what clap has to say: help to standard output, errors as a problem of class `usage`.
fn usage(arguments: &[OsString], error: &clap::Error) -> ExitCode {
    let is_given =
        |flag| arguments.iter().take_while(|word| *word != "--").any(|word| word == flag);
    let output = Output::new(is_given("--json"), is_given("--no-color"));
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        output.page(&text);
        return ExitCode::SUCCESS;
    }
    let is_bare = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_bare && !output.is_json() {
        output.note(text.trim_end());
        return ExitCode::from(Class::Usage.exit_code());
    }
    output.failure(&wrong_usage(arguments, error).into())
}

/// What clap says, as a problem: the reason without clap's own advice, and the help to read.
fn wrong_usage(arguments: &[OsString], error: &clap::Error) -> Problem {
    let (kind, text) = (error.kind(), error.render().to_string());
    let unknown = named(error, ContextKind::InvalidSubcommand);
    let mut command = &Arguments::command();
    let mut words = vec![command.get_name()];
    let is_read = |word: &OsString| word != "--" && unknown.is_none_or(|unknown| word != unknown);
    for word in arguments.iter().skip(1).take_while(|word| is_read(word)) {
        if let Some(next) = command.find_subcommand(word) {
            words.push(next.get_name());
            command = next;
        }
    }
    let typed = arguments.get(1..).unwrap_or_default();
    let lacking = unknown.and_then(|word| lacking::below(command.get_name(), word, typed));
    // The commands that take ssh's options.
    let is_dialling = matches!(command.get_name(), "connect" | "check" | "expose");
    let flag = named(error, ContextKind::InvalidArg).filter(|_| kind == ErrorKind::UnknownArgument);
    let of_ssh = flag.filter(|_| is_dialling).and_then(ssh_options::not_taken);
    if let Some(problem) = lacking.or(of_ssh) {
        return problem;
    }
    let command_line = words.join(" ");
    let lacks_command = matches!(
        kind,
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    let message = if lacks_command {
        let shown = command.get_subcommands().filter(|next| !next.is_hide_set());
        let names: Vec<_> = shown.map(clap::Command::get_name).collect();
        format!("`{command_line}` wants a command: {}", names.join(", "))
    } else {
        let reason = text.strip_prefix("error: ").unwrap_or(&text);
        let end = ["\n\nUsage:", "\n\nFor more"].iter().filter_map(|end| reason.find(end)).min();
        let reason = reason.get(..end.unwrap_or(reason.len())).unwrap_or(reason);
        // No flag is meant as a value.
        let lines = reason.lines().filter(|line| !line.starts_with("  tip: to pass "));
        lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    };
    Problem::new(Class::Usage, message).fix(format!("{command_line} --help"))
}

/// The word of the command line that clap calls `kind`.
fn named(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(line: &str) -> Problem {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let error = Arguments::try_parse_from(&words).unwrap_err();
        wrong_usage(&words, &error)
    }

    #[test]
    fn a_flag_of_sshs_is_answered_with_what_stands_in_for_it() {
        for (line, fix) in [
            ("openclaw remote connect -C user@host", "-o Compression=yes"),
            ("openclaw remote connect -Ng user@host", "-o GatewayPorts=yes"),
            ("openclaw remote check -X user@host", "use ssh -X"),
            ("openclaw health -C", "openclaw health --help"),
        ] {
            let problem = wrong(line);
            assert_eq!(problem.fix.as_deref(), Some(fix), "{line}");
            assert!(!problem.message.contains("tip"), "{problem}");
        }
        let misspelt = wrong("openclaw remote connect --tokn x");
        assert!(misspelt.message.contains("'--token'"), "{misspelt}");
    }

    #[test]
    fn what_we_lack_is_nothing_that_we_have() {
        let ours = Arguments::command();
        for word in lacking::COMMANDS {
            assert!(ours.find_subcommand(word).is_none(), "{word} is there now");
        }
        for (group, words) in lacking::BELOW {
            let group = ours.find_subcommand(group).unwrap();
            for word in *words {
                assert!(group.find_subcommand(word).is_none(), "{word} is there now");
            }
        }
    }

    #[test]
    fn a_command_of_openclaws_below_one_of_ours_is_told_from_a_misspelt_one() {
        for (line, command) in [
            ("openclaw gateway usage-cost --days 3", "gateway usage-cost"),
            ("openclaw --json config patch --file status", "config patch"),
            ("openclaw nodes camera list", "nodes camera"),
        ] {
            let problem = wrong(line);
            let expected = format!("`{command}` is a command of OpenClaw that");
            assert!(problem.message.starts_with(&expected), "{problem}");
        }
        let problem = wrong("openclaw gateway statos status");
        assert!(problem.message.starts_with("unrecognized subcommand 'statos'"), "{problem}");
        assert_eq!(problem.fix.as_deref(), Some("openclaw gateway --help"));
    }

    #[test]
    fn wrong_arguments_say_why_and_where_the_help_is() {
        let problem = wrong("openclaw remote status --nonsense");
        assert_eq!(problem.class, Class::Usage);
        assert!(problem.message.starts_with("unexpected argument '--nonsense' found"));
        assert!(!problem.message.contains("Usage"), "{problem}");
        assert_eq!(problem.fix.as_deref(), Some("openclaw remote status --help"));
        let problem = wrong("openclaw health --port 0");
        assert_eq!(problem.message, "invalid value '0' for '--port <PORT>': 0 is not in 1..=65535");
        assert_eq!(problem.fix.as_deref(), Some("openclaw health --help"));
    }

    #[test]
    fn a_missing_command_names_those_that_a_person_may_type() {
        for line in ["openclaw", "openclaw --json"] {
            let problem = wrong(line);
            assert!(problem.message.starts_with("`openclaw` wants a command: demo, "), "{problem}");
            assert!(!problem.message.contains("supervisor"), "{problem}");
        }
        let problem = wrong("openclaw --json remote");
        assert!(problem.message.contains("connect, expose, check, status"), "{problem}");
        assert_eq!(problem.fix.as_deref(), Some("openclaw remote --help"));
    }
}
