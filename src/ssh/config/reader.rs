//! Reads options and files in order and keeps what holds for one host: blocks, includes, conditions.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    keywords::{self, Kind},
    lexer, pattern,
    settings::{Mistake, Origin, Values},
    tokens::{self, Facts},
    values,
    world::{Source, World},
};

/// How deep includes may nest.
const DEEPEST: usize = 16;
/// How many files a configuration may be made of.
const MOST_FILES: usize = 4096;
/// Others may not write to a file with these bits.
const WRITABLE_BY_OTHERS: u32 = 0o022;
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
    pub(super) never: bool,
    /// How many files lead to it.
    pub(super) depth: usize,
}

impl Reading {
    /// The reading of a file that is not included.
    pub(super) fn top(users_own: bool, checked: bool) -> Self {
        Self { users_own, checked, never: false, depth: 0 }
    }
}

/// The line that is read.
pub(super) struct Place<'a> {
    pub(super) reading: Reading,
    pub(super) origin: Origin,
    /// Whether nobody else could have written it.
    pub(super) trusted: bool,
    /// The keyword as it was written.
    pub(super) keyword: &'a str,
    pub(super) rest: &'a str,
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
    /// Whether `host` is the one that is dialled, its tokens filled in.
    pub(super) is_complete: bool,
    /// Whether somebody asked for a second pass.
    pub(super) wants_final: bool,
    pub(super) values: Values,
    pub(super) mistakes: Vec<Mistake>,
    /// Where `ProxyCommand` was taken from a file that others can write.
    pub(super) suspect_proxy: bool,
    /// Whether the line that is wrong waits for a command that is late.
    pub(super) is_late: bool,
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
            is_complete: false,
            wants_final: false,
            values: Values::new(),
            mistakes: Vec::new(),
            suspect_proxy: false,
            is_late: false,
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

    /// The same, `active` being whether the lines before its first block hold.
    pub(super) fn read(&mut self, path: &Path, reading: Reading, active: &mut bool) -> bool {
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
            self.mistake(Mistake::new(&whole, "", self.distrust(path, &source)));
            return true;
        }
        self.lines(path, &source, reading, trusted, active);
        true
    }

    /// Why a file is not trusted, and what would mend it.
    fn distrust(&self, path: &Path, source: &Source) -> String {
        let Source { owner, mode, .. } = source;
        if ![ROOT, self.world.uid()].contains(owner) {
            return format!("belongs to user {owner}, and must belong to you or root");
        }
        let mode = mode & 0o7777;
        format!("others can write it (mode {mode:04o}): chmod go-w {}", path.display())
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
                        let is_passing = std::mem::take(&mut self.is_late);
                        let mistake = Mistake::new(&place.origin, place.keyword, what);
                        self.mistake(Mistake { is_passing, ..mistake });
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

    /// The first word of what was said so far.
    pub(super) fn word(&self, keyword: &str) -> Option<&str> {
        self.values.get(keyword)?.first()?.words.first().map(String::as_str)
    }

    /// The host that would be dialled by what was said so far.
    pub(super) fn dialled(&self) -> Result<String, String> {
        match self.word("HostName") {
            Some(name) if !self.is_complete => {
                let facts = Facts { host: self.asked.to_owned(), ..Facts::default() };
                facts.fill(name, "h", tokens::Reader::Us)
            }
            Some(_) | None => Ok(self.host.clone()),
        }
    }

    /// What tokens stand for by what was said so far.
    pub(super) fn facts(&self) -> Result<Facts, String> {
        self.dialled().map(|host| self.facts_of(host))
    }

    /// What they stand for once it is settled that `host` is dialled.
    pub(super) fn facts_of(&self, host: String) -> Facts {
        let jump = self.word("ProxyJump").filter(|jump| *jump != "none");
        Facts {
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
        }
    }
}

/// The home of a user as text.
pub(super) fn home(world: &dyn World, user: Option<&str>) -> Option<String> {
    world.home(user).and_then(|home| home.into_os_string().into_string().ok())
}
