//! What a keyword of ssh_config(5) is: its kind of value, its default, and what we do about it.

pub(super) use super::table::KEYWORDS;
use crate::ssh::algorithms;

/// One keyword: a row of the table that the reader, `-G` and the documentation are made from.
#[derive(Debug)]
pub(crate) struct Keyword {
    /// As ssh_config(5) spells it.
    pub(crate) name: &'static str,
    /// Older names for the same.
    pub(super) also: &'static [&'static str],
    /// Which values it takes.
    pub(super) kind: Kind,
    /// Whether every value counts or only the first.
    pub(super) count: Count,
    /// What we do about it.
    pub(super) treatment: Treatment,
    /// The words that hold when nobody says anything.
    pub(super) default: &'static [&'static str],
    /// What happens, or why nothing does: a sentence for people.
    pub(super) says: &'static str,
}

/// Whether every value of a keyword counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// The first that is read.
    First,
    /// All, in the order in which they are read.
    Every,
}

/// What we do about a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It has its effect.
    Used,
    /// It means nothing for a tunnel, or asks for what is so anyway.
    Ignored,
    /// It is not honoured, and `check` says so once it is set to something else than these.
    Reported(&'static [&'static str]),
    /// Ignoring it would be weaker than `ssh`: the host is refused once it is set to something else
    /// than these.
    Refused(&'static [&'static str]),
    /// `ssh` itself ignores it.
    Obsolete,
}

/// The values of a choice: as written, and what each means. `-G` prints the first spelling.
pub(super) type Choices = &'static [(&'static str, &'static str)];

/// Which values a keyword takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `Host`, `Match` or `Include`: no value but structure.
    Structure,
    /// `yes` or `no`.
    Flag,
    /// One of several words.
    Choice(Choices),
    /// One word.
    Word,
    /// Several words on one line, at most so many; `none` stands alone.
    Words(usize),
    /// The rest of the line as it is.
    Rest,
    /// `[user@]host[:port]`, several with commas between.
    Jump,
    /// A port.
    Port,
    /// A number that is not negative.
    Number,
    /// Seconds, or a time such as `1h30m`.
    Time,
    /// Bytes, and perhaps a time.
    Rekey,
    /// Names of algorithms.
    Algorithms(algorithms::Keyword),
    /// A forward.
    Forward(Direction),
    /// A socket: a path, or a name from the environment.
    Socket,
    /// A flag or a socket.
    FlagOrSocket,
    /// Patterns of environment variables, `-` before what is taken back.
    Environment,
    /// `NAME=value`, several.
    Assignments,
    /// A flag, `ask`, `confirm`, or a time.
    AddKeys,
    /// A flag or a time.
    Persist,
    /// A character, `^` and a letter, or `none`.
    Escape,
    /// One or two traffic classes.
    Traffic,
    /// One or two numbers of tunnel devices.
    Device,
    /// Permission bits in octal.
    Mask,
    /// Domain names, several.
    Domains,
    /// `patterns:patterns`, several.
    Aliases,
    /// `host:port`, several.
    Places,
    /// A flag or `interval:milliseconds`.
    Keystrokes,
    /// `type=time`, several.
    Timeouts,
    /// Whatever stands there.
    Anything,
}

/// Which way a forward goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// `LocalForward`.
    Local,
    /// `RemoteForward`.
    Remote,
    /// `DynamicForward`.
    Dynamic,
}

/// The keyword of that name or older name, however its letters are cased.
pub(super) fn find(name: &str) -> Option<&'static Keyword> {
    let is = |other: &&str| name.eq_ignore_ascii_case(other);
    KEYWORDS.iter().find(|keyword| is(&keyword.name) || keyword.also.iter().any(is))
}
