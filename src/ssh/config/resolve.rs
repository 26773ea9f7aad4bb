//! What holds for one host: reads the options and files, completes the name, fills in what is missing.

use std::path::{Path, PathBuf};

use super::{
    address, canonical,
    fill::Filler,
    keywords::{Count, KEYWORDS, Kind},
    reader::{self, Reader, Reading},
    review,
    settings::{Mistake, Origin, Said, Settings, Values},
    world::World,
};
use crate::ssh::target;

/// The machine's file.
const MACHINE_FILE: &str = "/etc/ssh/ssh_config";
/// The user's file, below the home.
const USER_FILE: &str = ".ssh/config";
/// Keywords whose `none` is as good as nothing.
const CLEARED: &[&str] = &[
    "CanonicalizePermittedCNAMEs",
    "ChannelTimeout",
    "ControlPath",
    "KnownHostsCommand",
    "LocalCommand",
    "PKCS11Provider",
    "ProxyCommand",
    "ProxyJump",
    "RemoteCommand",
    "RevokedHostKeys",
    "SecurityKeyProvider",
];

/// Keywords that say how names are completed.
const SETTLED_FIRST: &[&str] =
    &["CanonicalizeHostname", "CanonicalizeMaxDots", "CanonicalizeFallbackLocal"];

/// What is asked of a configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Request<'a> {
    /// The host as typed, without user and port.
    pub(crate) host: &'a str,
    /// The account of the target.
    pub(crate) user: Option<&'a str>,
    /// The port of the target.
    pub(crate) port: Option<u16>,
    /// `-o` and the other flags as keywords, in order; the first counts, and before the two above.
    pub(crate) options: &'a [(String, String)],
    /// `-F`: read in place of the usual files; `none` reads nothing.
    pub(crate) file: Option<&'a Path>,
}

/// What holds for the host of `request`, or everything that is wrong.
pub(crate) fn resolve(request: &Request<'_>, world: &dyn World) -> Result<Settings, Vec<Mistake>> {
    let mut reader = Reader::new(world, request.host);
    arguments(&mut reader, request);
    files(&mut reader, request);
    if !reader.mistakes.is_empty() {
        return Err(reader.mistakes);
    }
    complete(&mut reader, request).map_err(|mistake| vec![mistake])?;
    if !reader.mistakes.is_empty() {
        return Err(reader.mistakes);
    }
    tidy(&mut reader);
    let filler = Filler::new(&mut reader);
    let (shown, filled) = filler.fill();
    let notes = review::review(&mut reader, &filled);
    if !reader.mistakes.is_empty() {
        return Err(reader.mistakes);
    }
    Ok(Settings { asked: request.host.to_owned(), shown, filled, notes })
}

/// The options, then what stands in the target.
fn arguments(reader: &mut Reader<'_>, request: &Request<'_>) {
    let refuse = |reader: &mut Reader<'_>, what: &str, name: &str| {
        let what = format!(
            "the {what} `{}` is empty, starts with `-` or has characters that no {what} has",
            name.escape_debug()
        );
        reader.mistake(Mistake::new(&Origin::CommandLine, "", what));
    };
    if !target::is_host(request.host) {
        refuse(reader, "host", request.host);
    }
    for (keyword, value) in request.options {
        reader.option(keyword, value);
    }
    if let Some(user) = reader.word("User").or(request.user).map(str::to_owned) {
        if !target::is_user(&user) {
            refuse(reader, "user", &user);
        }
        given(&mut reader.values, "User", user);
    }
    if let Some(port) = request.port {
        given(&mut reader.values, "Port", port.to_string());
    }
}

fn given(values: &mut Values, keyword: &'static str, word: String) {
    let said = Said { words: vec![word], origin: Origin::CommandLine, users_own: true };
    values.entry(keyword).or_insert_with(|| vec![said]);
}

/// The user's file and the machine's, or the one of `-F`.
fn files(reader: &mut Reader<'_>, request: &Request<'_>) {
    match request.file {
        Some(none) if none.as_os_str().eq_ignore_ascii_case("none") => {}
        Some(file) => {
            if !reader.file(file, Reading::top(true, false)) {
                reader.mistake(Mistake::new(&Origin::file(file, 0), "", "there is no such file"));
            }
        }
        None => {
            if let Some(home) = reader::home(reader.world, None) {
                reader.file(&PathBuf::from(home).join(USER_FILE), Reading::top(true, true));
            }
            reader.file(Path::new(MACHINE_FILE), Reading::top(false, false));
        }
    }
}

/// Settles which host is dialled, and reads the files once more where somebody asked for it.
fn complete(reader: &mut Reader<'_>, request: &Request<'_>) -> Result<(), Mistake> {
    // Settled before the second pass, which could not be asked for otherwise.
    for keyword in KEYWORDS.iter().filter(|keyword| SETTLED_FIRST.contains(&keyword.name)) {
        by_default(&mut reader.values, keyword.name, keyword.default);
    }
    let origin = origin(reader, "HostName");
    let named = reader.dialled().map_err(|what| Mistake::new(&origin, "HostName", what))?;
    let family = canonical::family(reader);
    let is_address = address::is_one(&named, family);
    let name = if is_address { named } else { named.to_lowercase() };
    reader.host = if is_address {
        address::normal(&name, family).unwrap_or(name)
    } else {
        canonical::complete(reader, &name)?
    };
    reader.is_complete = true;
    if reader.wants_final || reader.word("CanonicalizeHostname").is_some_and(|word| word != "no") {
        reader.is_final = true;
        files(reader, request);
    }
    let said = Said { words: vec![reader.host.clone()], origin, users_own: true };
    reader.values.insert("HostName", vec![said]);
    Ok(())
}

/// Where a keyword was said, or nowhere.
pub(super) fn origin(reader: &Reader<'_>, keyword: &str) -> Origin {
    reader
        .values
        .get(keyword)
        .and_then(|said| said.first())
        .map_or(Origin::Default, |said| said.origin.clone())
}

/// Defaults, and what values mean for each other.
fn tidy(reader: &mut Reader<'_>) {
    for name in CLEARED {
        if reader.word(name).is_some_and(|word| word.eq_ignore_ascii_case("none")) {
            reader.values.remove(name);
        }
    }
    if reader.values.contains_key("ProxyJump") {
        reader.values.remove("ProxyCommand");
    }
    if reader.word("ClearAllForwardings") == Some("yes") {
        reader.values.retain(|name, _| {
            !["LocalForward", "RemoteForward", "DynamicForward", "Tunnel"].contains(name)
        });
    }
    if let Some([alias]) = reader.values.get_mut("HostKeyAlias").map(Vec::as_mut_slice) {
        alias.words.iter_mut().for_each(|word| *word = word.to_lowercase());
    }
    update_host_keys(reader);
    let user = reader.world.user();
    by_default(&mut reader.values, "User", &[&user]);
    for keyword in KEYWORDS.iter().filter(|keyword| !keyword.default.is_empty()) {
        match keyword.count {
            Count::First => by_default(&mut reader.values, keyword.name, keyword.default),
            Count::Every if reader.values.contains_key(keyword.name) => {}
            Count::Every => {
                let each = keyword.default.iter().map(|word| default_of(&[word])).collect();
                reader.values.insert(keyword.name, each);
            }
        }
    }
    if let Some([rekey]) = reader.values.get_mut("RekeyLimit").map(Vec::as_mut_slice)
        && rekey.words.len() == 1
    {
        rekey.words.push("0".to_owned());
    }
}

fn by_default(values: &mut Values, keyword: &'static str, words: &[&str]) {
    values.entry(keyword).or_insert_with(|| vec![default_of(words)]);
}

fn default_of(words: &[&str]) -> Said {
    Said {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        origin: Origin::Default,
        users_own: false,
    }
}

/// `UpdateHostKeys` is on by default where the user's known hosts are in their usual place and
/// nobody asks the domain name system; it cannot ask where nobody is there to answer.
fn update_host_keys(reader: &mut Reader<'_>) {
    let usual =
        reader.values.get("UserKnownHostsFile").and_then(|said| said.first()).is_none_or(|said| {
            said.words.len() == 1 && said.words.iter().all(|word| word == "~/.ssh/known_hosts")
        });
    let asks_names = reader.word("VerifyHostKeyDNS").is_some_and(|word| word != "no");
    let word = if usual && !asks_names { "yes" } else { "no" };
    by_default(&mut reader.values, "UpdateHostKeys", &[word]);
    let is = |keyword: &str, is: &[&str]| reader.word(keyword).is_some_and(|w| is.contains(&w));
    let persists = reader.values.contains_key("ControlPath")
        && reader.word("ControlPersist").is_some_and(|word| word != "no");
    let is_mute = reader.values.contains_key("RemoteCommand")
        || is("RequestTTY", &["no"])
        || is("LogLevel", &["quiet", "fatal", "error"]);
    if is("UpdateHostKeys", &["ask"])
        && (persists || is_mute)
        && let Some([update]) = reader.values.get_mut("UpdateHostKeys").map(Vec::as_mut_slice)
    {
        update.words = vec!["no".to_owned()];
    }
}

/// Whether a keyword is a forward.
pub(super) fn is_forward(kind: Kind) -> bool {
    matches!(kind, Kind::Forward(_))
}
