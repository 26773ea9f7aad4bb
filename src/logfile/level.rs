//! How much goes into the log, in OpenClaw's words.

use tracing_subscriber::filter::LevelFilter;

/// `logging.level` and `OPENCLAW_LOG_LEVEL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level(LevelFilter);

impl Level {
    /// The words, in the order of how much they let through.
    pub(crate) const WORDS: [&str; 7] =
        ["silent", "fatal", "error", "warn", "info", "debug", "trace"];
    /// What a gateway that was told nothing writes.
    pub(crate) const INFO: Self = Self(LevelFilter::INFO);

    /// Reads one of the words; `fatal` lets errors through, since we have nothing above them.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let filter = match word.trim().to_ascii_lowercase().as_str() {
            "silent" => LevelFilter::OFF,
            "fatal" | "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return None,
        };
        Some(Self(filter))
    }

    /// The level as tracing has it.
    pub(crate) fn filter(self) -> LevelFilter {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_words_of_openclaw_and_no_others() {
        for word in Level::WORDS {
            assert!(Level::parse(word).is_some(), "{word}");
        }
        assert_eq!(Level::parse(" WARN "), Level::parse("warn"));
        assert_eq!(Level::parse("silent").unwrap().filter(), LevelFilter::OFF);
        assert!(Level::parse("loud").is_none() && Level::parse("").is_none());
    }
}
