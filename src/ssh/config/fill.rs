//! Fills tokens, variables and homes into the values that take them.

use super::{
    forward::{End, Forward},
    jump,
    keywords::{self, Count, Kind},
    reader::{self, Reader},
    resolve::is_forward,
    settings::{Mistake, Origin, Said, Values},
    tokens::{self, Facts},
};
use crate::ssh::target;

/// How a value is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A home, tokens and variables.
    Path,
    /// A home.
    Home,
    /// The tokens of a proxy command.
    Proxy,
    /// The same in each jump host.
    Jump,
    /// Tokens.
    Tokens,
}

/// The keywords that take something, and whether `ssh -G` shows them filled in.
const FILLED: &[(&str, Way, bool)] = &[
    ("IdentityFile", Way::Path, false),
    ("CertificateFile", Way::Path, false),
    ("IdentityAgent", Way::Path, true),
    ("UserKnownHostsFile", Way::Path, true),
    ("GlobalKnownHostsFile", Way::Home, false),
    ("ControlPath", Way::Path, true),
    ("ForwardAgent", Way::Path, true),
    ("RevokedHostKeys", Way::Path, false),
    ("RemoteCommand", Way::Tokens, true),
    ("LocalForward", Way::Tokens, true),
    ("RemoteForward", Way::Tokens, true),
    ("ProxyCommand", Way::Proxy, false),
    ("ProxyJump", Way::Jump, false),
];

/// Fills in for one host.
pub(super) struct Filler<'r, 'a> {
    reader: &'r mut Reader<'a>,
    facts: Facts,
}

impl<'r, 'a> Filler<'r, 'a> {
    /// Settles the account first: the other values may mean it.
    pub(super) fn new(reader: &'r mut Reader<'a>) -> Self {
        let facts = reader.facts_of(reader.host.clone());
        // Outside of conditions, `%k` is the host as typed where it has no alias.
        let alias = reader.word("HostKeyAlias").unwrap_or(reader.asked).to_owned();
        let mut filler = Self { reader, facts: Facts { alias, ..facts } };
        filler.user();
        filler
    }

    /// Values as `ssh -G` shows them, and with everything filled in.
    pub(super) fn fill(mut self) -> (Values, Values) {
        let mut shown = self.reader.values.clone();
        let mut filled = shown.clone();
        for (keyword, way, is_shown) in FILLED {
            let Some(values) = filled.get_mut(keyword) else { continue };
            for said in values.iter_mut() {
                self.said(keyword, *way, said);
            }
            if *is_shown {
                shown.insert(keyword, values.clone());
            }
            if keywords::find(keyword).is_some_and(|keyword| keyword.count == Count::Every) {
                values.retain(|said| !said.words.iter().any(|word| is_none(word)));
            }
        }
        if let Some(values) = filled.get_mut("IdentityAgent") {
            values.iter_mut().flat_map(|said| &mut said.words).for_each(|word| self.agent(word));
        }
        (shown, filled)
    }

    fn said(&mut self, keyword: &str, way: Way, said: &mut Said) {
        let kind = keywords::find(keyword).map(|keyword| keyword.kind);
        for word in &mut said.words {
            match self.word(kind, way, word) {
                Ok(filled) => *word = filled,
                Err(what) => self.reader.mistake(Mistake::new(&said.origin, keyword, what)),
            }
        }
    }

    fn word(&self, kind: Option<Kind>, way: Way, word: &str) -> Result<String, String> {
        let variable = |name: &str| self.reader.world.variable(name);
        let home = |path: &str| tokens::tilde(path, |user| reader::home(self.reader.world, user));
        let us = tokens::Reader::Us;
        match way {
            _ if is_none(word) || word == "SSH_AUTH_SOCK" => Ok(word.to_owned()),
            Way::Tokens if kind.is_some_and(is_forward) && !is_path(word) => Ok(word.to_owned()),
            Way::Tokens => self.facts.fill(word, tokens::USUAL, us),
            Way::Path => self.facts.fill_all(&home(word)?, tokens::USUAL, us, Some(&variable)),
            Way::Home => home(word),
            Way::Proxy => self.facts.fill(word, tokens::PROXY, tokens::Reader::Shell),
            Way::Jump => jump::filled(word, |text| self.facts.fill(text, tokens::PROXY, us)),
        }
    }

    /// `$NAME` of `IdentityAgent` is the socket that the variable names, or no agent.
    fn agent(&self, word: &mut String) {
        if let Some(name) = word.strip_prefix('$') {
            *word = self.reader.world.variable(name).unwrap_or_else(|| "none".to_owned());
        }
    }

    /// `User` of a file takes tokens and variables, and must be harmless in the end.
    fn user(&mut self) {
        let Some([said]) = self.reader.values.get("User").map(Vec::as_slice) else { return };
        let origin = said.origin.clone();
        let Some(user) = said.words.first().cloned() else { return };
        if !matches!(origin, Origin::File { .. }) {
            return;
        }
        let variable = |name: &str| self.reader.world.variable(name);
        let filled = self.facts.fill_all(&user, tokens::USER, tokens::Reader::Us, Some(&variable));
        let checked = filled.and_then(|user| {
            if is_account(&user) {
                return Ok(user);
            }
            Err(format!("`{}` has characters that no account name has", user.escape_debug()))
        });
        match checked {
            Ok(user) => {
                if let Some([said]) = self.reader.values.get_mut("User").map(Vec::as_mut_slice) {
                    said.words = vec![user.clone()];
                }
                self.facts.user = user;
            }
            Err(what) => self.reader.mistake(Mistake::new(&origin, "User", what)),
        }
    }
}

/// Whether a name may be sent as an account: as on the command line, and `DOMAIN\user` as well. The
/// latter never reaches a shell, since tokens are checked again there.
fn is_account(name: &str) -> bool {
    match name.split_once('\\') {
        Some((domain, user)) => target::is_user(domain) && target::is_user(user),
        None => target::is_user(name),
    }
}

fn is_none(word: &str) -> bool {
    word.eq_ignore_ascii_case("none")
}

/// Whether the end of a forward is a socket.
fn is_path(word: &str) -> bool {
    let forward = Forward::of_words(&[word.to_owned()]);
    forward.is_some_and(|forward| matches!(forward.listen, End::Path(_)))
}
