//! `Host`, `Match` and `Include`: which lines hold, and which files are read.

use super::{
    criteria::{self, Criterion},
    keywords::Keyword,
    lexer, pattern,
    reader::{Place, Reader, Reading, home},
    settings::Origin,
    tokens,
    world::EXEC_TIMEOUT,
};

/// Where relative includes of the machine's file are.
const MACHINE_FOLDER: &str = "/etc/ssh";

impl Reader<'_> {
    /// A line that opens a block or reads other files.
    pub(super) fn structure(
        &mut self,
        keyword: &Keyword,
        place: &Place<'_>,
        active: &mut bool,
    ) -> Result<(), String> {
        if place.origin == Origin::CommandLine {
            return Err("has no meaning on the command line".to_owned());
        }
        let words = lexer::words(place.rest).map_err(|bad| bad.to_string())?;
        match keyword.name {
            "Host" => self.host_block(&words, place, active),
            "Match" => self.match_block(&words, place, active),
            _ => self.include(&words, place, *active),
        }
    }

    fn host_block(
        &self,
        words: &[String],
        place: &Place<'_>,
        active: &mut bool,
    ) -> Result<(), String> {
        *active = false;
        for word in words {
            if word.is_empty() {
                return Err("holds an empty pattern".to_owned());
            }
            if place.reading.never {
                return Ok(());
            }
            let (negated, wanted) = match word.strip_prefix('!') {
                Some(wanted) => (true, wanted),
                None => (false, word.as_str()),
            };
            if pattern::matches(wanted, &self.host) {
                *active = !negated;
                if negated {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn match_block(
        &mut self,
        words: &[String],
        place: &Place<'_>,
        active: &mut bool,
    ) -> Result<(), String> {
        let tests = criteria::parse(words)?;
        self.wants_final |= tests.iter().any(|test| test.criterion == Criterion::Final);
        let mut holds = !place.reading.never;
        for test in &tests {
            if holds {
                holds = self.holds(&test.criterion, place)? != test.negated;
            }
        }
        *active = holds;
        Ok(())
    }

    fn holds(&mut self, criterion: &Criterion, place: &Place<'_>) -> Result<bool, String> {
        let user = || self.word("User").map_or_else(|| self.world.user(), str::to_owned);
        let host = || Ok::<_, String>(self.dialled()?.to_lowercase());
        Ok(match criterion {
            Criterion::All => true,
            Criterion::Final | Criterion::Canonical => self.is_final,
            Criterion::Host(patterns) => pattern::includes(&patterns.to_lowercase(), &host()?),
            Criterion::OriginalHost(patterns) => {
                pattern::includes(&patterns.to_lowercase(), &self.asked.to_lowercase())
            }
            Criterion::User(patterns) => pattern::includes(patterns, &user()),
            Criterion::LocalUser(patterns) => pattern::includes(patterns, &self.world.user()),
            Criterion::LocalNetwork(networks) => pattern::any_in(networks, &self.world.addresses()),
            Criterion::Word { patterns, is } => {
                let is = is.unwrap_or_else(|| self.word("Tag").unwrap_or_default());
                if is.is_empty() { patterns.is_empty() } else { pattern::includes(patterns, is) }
            }
            Criterion::Exec(command) => self.succeeds(command, place)?,
        })
    }

    fn succeeds(&mut self, command: &str, place: &Place<'_>) -> Result<bool, String> {
        if !place.trusted {
            return Err(
                "runs a command, and the file does not belong to you or root, or others can \
                        write it"
                    .to_owned(),
            );
        }
        let command = self.facts()?.fill(command, tokens::USUAL, tokens::Reader::Shell)?;
        let shown = command.escape_debug();
        match self.world.succeeds(&command) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                self.is_late = true;
                let limit = EXEC_TIMEOUT.as_secs();
                Err(format!("the command `{shown}` took longer than {limit} seconds"))
            }
            Err(why) => Err(format!("the command `{shown}` failed to run: {why}")),
        }
    }

    fn include(&mut self, words: &[String], place: &Place<'_>, active: bool) -> Result<(), String> {
        let mut found = Vec::new();
        for word in words {
            if word.is_empty() {
                return Err("holds an empty path".to_owned());
            }
            found.extend(self.world.glob(&self.anchored(word, place)?)?);
        }
        let reading = Reading {
            checked: true,
            never: place.reading.never || !active,
            depth: place.reading.depth + 1,
            ..place.reading
        };
        for path in found {
            let mut inside = active;
            self.read(&path, reading, &mut inside);
        }
        Ok(())
    }

    /// The absolute pattern of an include.
    fn anchored(&self, word: &str, place: &Place<'_>) -> Result<String, String> {
        let variable = |name: &str| self.world.variable(name);
        let word =
            self.facts()?.fill_all(word, tokens::USUAL, tokens::Reader::Us, Some(&variable))?;
        if word.starts_with('~') && !place.reading.users_own {
            return Err("the machine's file has no home for `~`".to_owned());
        }
        let path = match (word.starts_with(['/', '~']), place.reading.users_own) {
            (true, _) => word,
            (false, true) => format!("~/.ssh/{word}"),
            (false, false) => format!("{MACHINE_FOLDER}/{word}"),
        };
        tokens::tilde(&path, |user| home(self.world, user))
    }
}
