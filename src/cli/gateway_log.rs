//! Where the log of `gateway run` goes: standard error for people, `rs/logs/gateway-DATE.log` for programs.

use std::path::{Path, PathBuf};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::Targets,
    fmt::writer::OptionalWriter,
    layer::SubscriberExt,
    reload::{self, Handle as Filter},
    util::SubscriberInitExt,
};

use super::Context;
use crate::{
    config::Logging,
    logfile::{self, DayFile, Handle, Level, Writer},
    problem::{Class, Problem},
};

/// The beginning of a log file's name.
const PREFIX: &str = logfile::GATEWAY;
/// What overrides both levels of `openclaw.json`, as for OpenClaw.
const LEVEL: &str = "OPENCLAW_LOG_LEVEL";
/// What says in detail what standard error gets; ours.
const CONSOLE: &str = "OPENCLAW_LOG";

/// How much is written where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Levels {
    file: Level,
    /// A filter of tracing's.
    console: String,
}

impl Levels {
    /// Decides: the file by `OPENCLAW_LOG_LEVEL`, then `logging.level`; standard error by
    /// `OPENCLAW_LOG`, `-v`, `OPENCLAW_LOG_LEVEL`, then `logging.consoleLevel`.
    pub(super) fn decide(
        verbose: u8,
        variable: impl Fn(&str) -> Option<String>,
        config: &Logging,
    ) -> Result<Self, Problem> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let level = match variable(LEVEL) {
            None => None,
            Some(word) => Some(Level::parse(&word).ok_or_else(|| {
                let words = Level::WORDS.join(", ");
                Problem::new(Class::Config, format!("{LEVEL} is no log level: {word:?}"))
                    .fix(format!("unset {LEVEL}, or set it to one of: {words}"))
            })?),
        };
        let console = match verbose {
            0 => level.or(config.console_level).unwrap_or(Level::INFO).filter().to_string(),
            1 => "debug".to_owned(),
            _ => "trace".to_owned(),
        };
        Ok(Self {
            file: level.or(config.level).unwrap_or(Level::INFO),
            console: variable(CONSOLE).unwrap_or_else(|| format!("openclaw={console}")),
        })
    }
}

/// Sets how much is written where, while it is.
pub(super) struct Dials {
    file: Filter<Targets, Registry>,
    console: Filter<EnvFilter, Registry>,
}

impl Dials {
    /// Lets other levels count from now on.
    pub(super) fn turn(&self, levels: &Levels) {
        let file = self.file.reload(own(levels.file));
        let console = self.console.reload(EnvFilter::new(&levels.console));
        if let Err(error) = file.and(console) {
            tracing::warn!(%error, "how much is logged stays as it was");
        }
    }
}

fn own(level: Level) -> Targets {
    Targets::new().with_target("openclaw", level.filter())
}

/// The newest file in the folder of the logs.
pub(super) fn newest(folder: &Path) -> Option<PathBuf> {
    logfile::newest(folder, PREFIX)
}

/// Begins the log. A folder that cannot be written is said, and is no reason not to start.
pub(super) fn begin(context: &Context, levels: &Levels) -> (Handle, Option<Writer>, Dials) {
    let folder = context.paths.logs();
    let seen = context.output.console();
    let mut file = DayFile::new(&folder, PREFIX);
    let opened = file.check().and_then(|()| logfile::open(file, seen));
    let (lines, handle, writer) = match opened {
        Ok((lines, handle, writer)) => {
            writer.outlive_panics(seen);
            (Some(lines), handle, Some(writer))
        }
        Err(error) => {
            context.output.note(format!("warning: no log file in {}: {error}", folder.display()));
            (None, Handle::beside(seen), None)
        }
    };
    let seen = seen.cloned();
    let console = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        // What cannot be written (a full disk) is lost; saying so on a closed stream would be fatal.
        .log_internal_errors(false)
        .with_writer(move || OptionalWriter::from(seen.clone()));
    let (console_filter, console_dial) = reload::Layer::new(EnvFilter::new(&levels.console));
    let (file_filter, file_dial) = reload::Layer::new(own(levels.file));
    let lines = lines.map(|it| it.with_filter(file_filter).boxed());
    let console = console.with_filter(console_filter).boxed();
    let subscriber = tracing_subscriber::registry()
        .with(vec![console].into_iter().chain(lines).collect::<Vec<_>>());
    // Only a second call fails, and the first one's sinks are as good.
    drop(subscriber.try_init());
    (handle, writer, Dials { file: file_dial, console: console_dial })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(verbose: u8, pairs: &[(&str, &str)], config: &Logging) -> Result<Levels, Problem> {
        let set = |name: &str| {
            let pair = pairs.iter().find(|(known, _)| *known == name);
            pair.map(|(_, value)| (*value).to_owned())
        };
        Levels::decide(verbose, set, config)
    }

    #[test]
    fn the_variable_goes_before_the_file_and_v_is_for_people_only() {
        let mut config = Logging::default();
        let of = |file: &str, console: &str| Levels {
            file: Level::parse(file).unwrap(),
            console: console.to_owned(),
        };
        assert_eq!(levels(0, &[], &config), Ok(of("info", "openclaw=info")));
        config.level = Level::parse("warn");
        config.console_level = Level::parse("silent");
        assert_eq!(levels(0, &[], &config), Ok(of("warn", "openclaw=off")));
        assert_eq!(levels(1, &[], &config), Ok(of("warn", "openclaw=debug")));
        let debug = [("OPENCLAW_LOG_LEVEL", "debug")];
        assert_eq!(levels(0, &debug, &config), Ok(of("debug", "openclaw=debug")));
        assert_eq!(levels(2, &debug, &config), Ok(of("debug", "openclaw=trace")));
        let own = [("OPENCLAW_LOG", "hyper=debug")];
        assert_eq!(levels(0, &own, &config), Ok(of("warn", "hyper=debug")));
        let wrong = levels(0, &[("OPENCLAW_LOG_LEVEL", "loud")], &config).unwrap_err();
        assert_eq!(wrong.class, Class::Config);
        assert!(wrong.fix.unwrap().contains("trace"));
    }
}
