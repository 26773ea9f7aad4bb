//! Reads options and files in order and keeps what holds for one host: blocks, includes, conditions.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    criteria::{self, Criterion},
    keywords::{self, Count, Keyword, Kind},
    lexer, pattern,
    settings::{Mistake, Origin, Said, Values},
    tokens::{self, Facts},
    values,
    world::{Source, World},
};

/// How deep includes may nest.
const DEEPEST: usize = 16;
/// How many files a configuration may be made of.
const MOST_FILES: usize = 4096;
/// How many values a cumulative keyword may have.
const MOST_VALUES: usize = 100;
/// Others may not write to a file with these bits.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Where relative includes of the machine's file are.
const MACHINE_FOLDER: &str = "/etc/ssh";
/// The account that may own a file beside the user.
const ROOT: u32 = 0;

/// How a file came to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Whether it is the user's, so that `~` and `~/.ssh` mean the user's home.
    pub(super) users_own: bool,
    /// Whether owner and permissions are checked.
    pub(super) checked: bool,
    /// Whether the block that includes it does not hold: it is read for its mistakes alone.
    never: bool,
    depth: usize,
}

impl Reading {
    /// The reading of a file that is not included.
    pub(super) fn top(users_own: bool, checked: bool) -> Self {
        Self { users_own, checked, never: false, depth: 0 }
    }
}

/// The line that is read.
struct Place<'a> {
    reading: Reading,
    origin: Origin,
    /// Whether nobody else could have written it.
    trusted: bool,
    /// The keyword as it was written.
    keyword: &'a str,
    rest: &'a str,
}

/// Reads for one host.
pub(super) struct Reader<'a> {
    pub(super) world: &'a dyn World,
    /// The host as it was asked for.
    pub(super) asked: &'a str,
    /// The host as this pass sees it.
    pub(super) host: String,
    /// Whether this is the second pass.
    pub(super) is_final: bool,
    /// Whether somebody asked for a second pass.
    pub(super) wants_final: bool,
    pub(super) values: Values,
    pub(super) mistakes: Vec<Mistake>,
    /// Where `ProxyCommand` was taken from a file that others can write.
    pub(super) suspect_proxy: bool,
    seen: BTreeSet<(Option<PathBuf>, usize, String, String)>,
    files: usize,
    halted: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(world: &'a dyn World, asked: &'a str) -> Self {
        Self {
            world,
            asked,
            host: asked.to_owned(),
            is_final: false,
            wants_final: false,
            values: Values::new(),
            mistakes: Vec::new(),
            suspect_proxy: false,
            seen: BTreeSet::new(),
            files: 0,
            halted: false,
        }
    }

    /// Writes a mistake down, once however many passes find it.
    pub(super) fn mistake(&mut self, mistake: Mistake) {
        let key =
            (mistake.file.clone(), mistake.line, mistake.keyword.clone(), mistake.what.clone());
        if self.seen.insert(key) {
            self.mistakes.push(mistake);
        }
    }

    /// One option of the command.
    pub(super) fn option(&mut self, keyword: &str, value: &str) {
        let place = Place {
            reading: Reading::top(true, false),
            origin: Origin::CommandLine,
            trusted: true,
            keyword,
            rest: value.trim(),
        };
        let mut active = true;
        if let Err(what) = self.line(&place, &mut active) {
            self.mistake(Mistake::new(&place.origin, keyword, what));
        }
    }

    /// The file at `path`; whether there is one.
    pub(super) fn file(&mut self, path: &Path, reading: Reading) -> bool {
        let mut active = true;
        self.read(path, reading, &mut active)
    }

    fn read(&mut self, path: &Path, reading: Reading, active: &mut bool) -> bool {
        if self.halted {
            return true;
        }
        let whole = Origin::file(path, 0);
        self.files += 1;
        if reading.depth > DEEPEST || self.files > MOST_FILES {
            let what = if reading.depth > DEEPEST {
                format!("files include each other more than {DEEPEST} deep")
            } else {
                format!("the configuration is made of more than {MOST_FILES} files")
            };
            self.halted = true;
            self.mistake(Mistake::new(&whole, "", what));
            return true;
        }
        let source = match self.world.read(path) {
            Ok(Some(source)) => source,
            Ok(None) => return false,
            Err(why) => {
                self.mistake(Mistake::new(&whole, "", format!("cannot be read: {why}")));
                return true;
            }
        };
        let trusted = self.is_trusted(&source);
        if reading.checked && !trusted {
            let what = format!(
                "must belong to you or root and be writable by nobody else; it belongs to user {} \
                 with mode {:04o}",
                source.owner,
                source.mode & 0o7777
            );
            self.mistake(Mistake::new(&whole, "", what));
            return true;
        }
        self.lines(path, &source, reading, trusted, active);
        true
    }

    fn is_trusted(&self, source: &Source) -> bool {
        (source.owner == ROOT || source.owner == self.world.uid())
            && source.mode & WRITABLE_BY_OTHERS == 0
    }

    fn lines(
        &mut self,
        path: &Path,
        source: &Source,
        reading: Reading,
        trusted: bool,
        active: &mut bool,
    ) {
        for (number, line) in lexer::lines(&source.bytes) {
            if self.halted {
                return;
            }
            let origin = Origin::file(path, number);
            match line {
                Ok(line) => {
                    let place =
                        Place { reading, origin, trusted, keyword: &line.keyword, rest: line.rest };
                    if let Err(what) = self.line(&place, active) {
                        self.mistake(Mistake::new(&place.origin, place.keyword, what));
                    }
                }
                Err(bad) => self.mistake(Mistake::new(&origin, "", bad.to_string())),
            }
        }
    }

    fn line(&mut self, place: &Place<'_>, active: &mut bool) -> Result<(), String> {
        if place.rest.is_empty() {
            return Err("has no value".to_owned());
        }
        let Some(keyword) = keywords::find(place.keyword) else {
            return self.unknown(place);
        };
        if keyword.kind == Kind::Structure {
            return self.structure(keyword, place, active);
        }
        lexer::words(place.rest).map_err(|bad| bad.to_string())?;
        let rest = self.with_variables(keyword.kind, place.rest)?;
        let words = values::parse(keyword.kind, &rest)?;
        if *active && !words.is_empty() {
            self.take(keyword, words, place)?;
        }
        Ok(())
    }

    /// Forwards take variables before they are taken apart, sockets must name variables that exist.
    fn with_variables(&self, kind: Kind, rest: &str) -> Result<String, String> {
        let variable = |name: &str| self.world.variable(name);
        if matches!(kind, Kind::Forward(_)) {
            return tokens::variables(rest, &variable);
        }
        if matches!(kind, Kind::Socket | Kind::FlagOrSocket) {
            tokens::variables(rest, &variable)?;
        }
        Ok(rest.to_owned())
    }

    fn unknown(&self, place: &Place<'_>) -> Result<(), String> {
        lexer::words(place.rest).map_err(|bad| bad.to_string())?;
        let ignored = self.word("IgnoreUnknown").is_some_and(|patterns| {
            pattern::includes(&patterns.to_lowercase(), &place.keyword.to_lowercase())
        });
        if ignored {
            return Ok(());
        }
        Err("is no keyword of ssh_config; `IgnoreUnknown` above it would pass over it".to_owned())
    }

    fn structure(
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
            if pattern::matches(&self.host, wanted) {
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

    fn holds(&self, criterion: &Criterion, place: &Place<'_>) -> Result<bool, String> {
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

    fn succeeds(&self, command: &str, place: &Place<'_>) -> Result<bool, String> {
        if !place.trusted {
            return Err(
                "runs a command, and the file does not belong to you or root, or others can \
                        write it"
                    .to_owned(),
            );
        }
        let command = self.facts()?.fill(command, tokens::USUAL, tokens::Reader::Shell)?;
        self.world
            .succeeds(&command)
            .map_err(|why| format!("the command `{}` failed to run: {why}", command.escape_debug()))
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

    /// Keeps a value by the rules of its keyword.
    fn take(
        &mut self,
        keyword: &Keyword,
        words: Vec<String>,
        place: &Place<'_>,
    ) -> Result<(), String> {
        let said = Said { words, origin: place.origin.clone(), users_own: place.reading.users_own };
        match (keyword.count, keyword.name) {
            (Count::Every, "SendEnv") => self.send(&said),
            (Count::Every, _) => return self.add(keyword, said),
            (Count::First, "ProxyJump") => self.jump(said),
            (Count::First, "RekeyLimit") => self.rekey(said),
            (Count::First, "ForwardAgent") => self.forward_agent(said),
            (Count::First, name) => {
                if name == "ProxyCommand" && !self.values.contains_key(name) {
                    self.suspect_proxy = !place.trusted;
                }
                self.values.entry(name).or_insert_with(|| vec![said]);
            }
        }
        Ok(())
    }

    fn add(&mut self, keyword: &Keyword, said: Said) -> Result<(), String> {
        let is_forward = matches!(keyword.kind, Kind::Forward(_));
        let values = self.values.entry(keyword.name).or_default();
        let is_same = |other: &Said| {
            other.words == said.words && (is_forward || other.users_own == said.users_own)
        };
        if values.iter().any(is_same) {
            return Ok(());
        }
        if values.len() >= MOST_VALUES && !is_forward {
            return Err(format!("stands there more than {MOST_VALUES} times"));
        }
        values.push(said);
        Ok(())
    }

    /// `SendEnv` takes back what a word with `-` in front matches.
    fn send(&mut self, said: &Said) {
        let values = self.values.entry("SendEnv").or_default();
        for word in &said.words {
            match word.strip_prefix('-') {
                Some(gone) => values
                    .retain(|value| !value.words.iter().any(|name| pattern::matches(name, gone))),
                None => values.push(Said { words: vec![word.clone()], ..said.clone() }),
            }
        }
    }

    /// Whichever of `ProxyJump` and `ProxyCommand` comes first counts, but `ProxyJump none` leaves
    /// room for a command.
    fn jump(&mut self, said: Said) {
        if self.values.contains_key("ProxyJump") {
            return;
        }
        if said.words.first().is_some_and(|word| word == "none") {
            self.values.insert("ProxyJump", vec![said]);
        } else if !self.values.contains_key("ProxyCommand") {
            let none = Said { words: vec!["none".to_owned()], ..said.clone() };
            self.values.insert("ProxyCommand", vec![none]);
            self.values.insert("ProxyJump", vec![said]);
        }
    }

    /// The bytes and the time of `RekeyLimit` are set apart from each other.
    fn rekey(&mut self, said: Said) {
        let values = self.values.entry("RekeyLimit").or_default();
        match values.first_mut() {
            None => values.push(said),
            Some(first) => {
                if first.words.len() == 1 {
                    first.words.extend(said.words.into_iter().skip(1));
                }
            }
        }
    }

    /// Whether an agent is forwarded, and which, are set apart from each other.
    fn forward_agent(&mut self, said: Said) {
        let is_flag = |said: &Said| said.words.iter().all(|word| word == "yes" || word == "no");
        let values = self.values.entry("ForwardAgent").or_default();
        if values.first().is_none_or(|first| is_flag(first) && !is_flag(&said)) {
            *values = vec![said];
        }
    }

    /// The first word of what was said so far.
    pub(super) fn word(&self, keyword: &str) -> Option<&str> {
        self.values.get(keyword)?.first()?.words.first().map(String::as_str)
    }

    /// The host that would be dialled by what was said so far.
    pub(super) fn dialled(&self) -> Result<String, String> {
        match self.word("HostName") {
            Some(name) if !self.is_final => {
                let facts = Facts { host: self.asked.to_owned(), ..Facts::default() };
                facts.fill(name, "h", tokens::Reader::Us)
            }
            Some(_) | None => Ok(self.host.clone()),
        }
    }

    /// What tokens stand for by what was said so far.
    pub(super) fn facts(&self) -> Result<Facts, String> {
        let host = self.dialled()?;
        let jump = self.word("ProxyJump").filter(|jump| *jump != "none");
        Ok(Facts {
            asked: self.asked.to_owned(),
            port: self.word("Port").unwrap_or("22").to_owned(),
            user: self.word("User").map_or_else(|| self.world.user(), str::to_owned),
            alias: self.word("HostKeyAlias").unwrap_or(&host).to_owned(),
            jump: super::jump::last_host(jump.unwrap_or("none")),
            local_host: self.world.local_host(),
            local_user: self.world.user(),
            home: home(self.world, None).unwrap_or_default(),
            uid: self.world.uid().to_string(),
            host,
        })
    }
}

/// The home of a user as text.
pub(super) fn home(world: &dyn World, user: Option<&str>) -> Option<String> {
    world.home(user).and_then(|home| home.into_os_string().into_string().ok())
}
