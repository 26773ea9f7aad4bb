//! The same configurations given to the real `ssh -G`: keyword by keyword, nothing laxer.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{super::keywords, generator};
use crate::ssh::{
    algorithms,
    config::{
        Machine, Mistake, Request, Settings,
        keywords::{KEYWORDS, Keyword, Kind, Treatment},
        resolve,
    },
};

/// How many configurations the corpus has at least.
const FEWEST: usize = 200;
/// How many of them are made by the generator.
const GENERATED: u64 = 200;
/// Seeds that once told a difference.
const FOUND: [u64; 1] = [51_789];
/// How many differing values of a thousand are too many.
const MOST_DIFFERENT_PER_MILLE: usize = 10;
/// How many programs run at a time.
const WORKERS: usize = 4;
/// Keywords in which no difference at all is fine.
const SECURITY: &[&str] = &[
    "addkeystoagent",
    "batchmode",
    "bindaddress",
    "bindinterface",
    "casignaturealgorithms",
    "certificatefile",
    "checkhostip",
    "ciphers",
    "clearallforwardings",
    "dynamicforward",
    "exitonforwardfailure",
    "forwardagent",
    "forwardx11",
    "gatewayports",
    "globalknownhostsfile",
    "hashknownhosts",
    "host",
    "hostbasedauthentication",
    "hostkeyalgorithms",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "kbdinteractiveauthentication",
    "kexalgorithms",
    "knownhostscommand",
    "localforward",
    "macs",
    "nohostauthenticationforlocalhost",
    "numberofpasswordprompts",
    "passwordauthentication",
    "pkcs11provider",
    "port",
    "preferredauthentications",
    "proxycommand",
    "proxyjump",
    "proxyusefdpass",
    "pubkeyacceptedalgorithms",
    "pubkeyauthentication",
    "remoteforward",
    "requiredrsasize",
    "revokedhostkeys",
    "securitykeyprovider",
    "stricthostkeychecking",
    "tunnel",
    "updatehostkeys",
    "user",
    "userknownhostsfile",
    "verifyhostkeydns",
];

/// What the corpus expects beside agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// Both take it, or both refuse it.
    Agreement,
    /// Only we refuse it.
    OursRefuses,
    /// We may refuse it where `ssh` does not.
    OursMayRefuse,
    /// Only `ssh` refuses it.
    OursTakes,
}

/// One question: a file and what stands on the command line.
struct Case {
    name: String,
    file: PathBuf,
    arguments: Vec<String>,
    expected: Expected,
}

/// What came of one question.
#[derive(Default)]
struct Outcome {
    /// Values that both gave.
    compared: usize,
    /// Those in which they differ.
    different: Vec<String>,
    /// Who takes the configuration: `ssh`, and we.
    takes: (bool, bool),
    /// What must not be.
    wrong: Vec<String>,
}

#[test]
fn agrees_with_the_real_ssh_over_the_corpus() {
    let Some(ssh) = installed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cases = corpus(folder.path());
    let configurations: std::collections::BTreeSet<&PathBuf> =
        cases.iter().map(|case| &case.file).collect();
    assert!(configurations.len() >= FEWEST, "only {} configurations", configurations.len());

    let nothing = Case {
        name: String::new(),
        file: "none".into(),
        arguments: vec!["box".to_owned()],
        expected: Expected::Agreement,
    };
    let defaults = by_keyword(&ask_ssh(&ssh, &nothing).unwrap());
    let outcomes = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = ask_both(&ssh, case, &defaults);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let compared: usize = outcomes.iter().map(|outcome| outcome.compared).sum();
    let list = |pick: fn(&Outcome) -> &Vec<String>| -> Vec<String> {
        let mut all: Vec<String> = outcomes.iter().flat_map(|o| pick(o).clone()).collect();
        all.sort();
        all
    };
    let (different, wrong) = (list(|o| &o.different), list(|o| &o.wrong));
    let agreement = 100.0 * (compared - different.len()) as f64 / compared as f64;
    let taken = |by: (bool, bool)| outcomes.iter().filter(|outcome| outcome.takes == by).count();
    println!(
        "{} configurations, {} questions, {compared} values compared: {agreement:.2} % agree; {} \
         taken by both, {} refused by both, {} by us alone, {} by ssh alone",
        configurations.len(),
        cases.len(),
        taken((true, true)),
        taken((false, false)),
        taken((true, false)),
        taken((false, true))
    );
    println!("{}", different.join("\n"));
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(different.len() * 1000 <= compared * MOST_DIFFERENT_PER_MILLE, "too much differs");
}

#[test]
fn every_keyword_that_matters_for_security_is_in_the_table() {
    for name in SECURITY {
        assert!(keywords::find(name).is_some(), "{name}");
    }
}

/// `ssh`, or a word about its absence.
fn installed() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("ssh")).find(|file| file.exists());
    if found.is_none() {
        let required = env::var_os("OPENCLAW_TEST_PEERS").is_some_and(|value| value == "required");
        assert!(!required, "ssh is not installed, and OPENCLAW_TEST_PEERS=required");
        eprintln!("skipped: ssh is not installed");
    }
    found
}

/// The files of `fixtures/ssh_config` and the generated ones, written to `folder`.
fn corpus(folder: &Path) -> Vec<Case> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ssh_config");
    let mut cases = Vec::new();
    fs::create_dir(folder.join("parts")).unwrap();
    for below in ["", "parts"] {
        for entry in fs::read_dir(fixtures.join(below)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap();
                let file = folder.join(below).join(name);
                write(&file, &fs::read(&path).unwrap(), folder);
                if below.is_empty() {
                    cases.extend(cases_of(name.to_str().unwrap(), &file));
                }
            }
        }
    }
    fs::set_permissions(folder.join("parts/writable"), fs::Permissions::from_mode(0o666)).unwrap();
    for seed in (0..GENERATED).chain(FOUND) {
        let file = folder.join(format!("generated-{seed}"));
        write(&file, generator::configuration(seed).as_bytes(), folder);
        cases.extend(cases_of(&format!("generated-{seed}"), &file));
    }
    cases
}

/// Writes a configuration, `@DIR@` being the folder of them all.
fn write(file: &Path, bytes: &[u8], folder: &Path) {
    let mut text = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(5).position(|window| window == b"@DIR@") {
        let (before, after) = rest.split_at(at);
        text.extend_from_slice(before);
        text.extend_from_slice(folder.to_str().unwrap().as_bytes());
        rest = after.split_at(5).1;
    }
    text.extend_from_slice(rest);
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// `#?` lines hold arguments; `#!` says that only we refuse, `#~` that we may, `#+` that only `ssh`
/// does.
fn cases_of(name: &str, file: &Path) -> Vec<Case> {
    let text = fs::read(file).unwrap();
    let text = String::from_utf8_lossy(&text);
    let expected = if text.lines().any(|line| line.starts_with("#!")) {
        Expected::OursRefuses
    } else if text.lines().any(|line| line.starts_with("#+")) {
        Expected::OursTakes
    } else if text.lines().any(|line| line.starts_with("#~")) {
        Expected::OursMayRefuse
    } else {
        Expected::Agreement
    };
    let mut questions: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("#? ")).collect();
    if questions.is_empty() {
        questions.push("box");
    }
    let case = |question: &str| Case {
        name: format!("{name} ({})", question.trim()),
        file: file.to_owned(),
        arguments: question.split_whitespace().map(str::to_owned).collect(),
        expected,
    };
    questions.into_iter().map(case).collect()
}

fn ask_both(ssh: &Path, case: &Case, defaults: &Values) -> Outcome {
    let theirs = ask_ssh(ssh, case);
    let ours = ask_us(case);
    let takes = (theirs.is_ok(), ours.is_ok());
    let mut outcome = Outcome { takes, ..Outcome::default() };
    let mut wrong = |what: String| outcome.wrong.push(format!("{}: {what}", case.name));
    match (&theirs, &ours) {
        (Ok(theirs), Ok(ours)) => {
            let expected = Expectation { dump: by_keyword(&ours.dump()), settings: ours, defaults };
            compare(case, &by_keyword(theirs), &expected, &mut outcome);
        }
        (Ok(_), Err(mistakes)) => {
            if !matches!(case.expected, Expected::OursRefuses | Expected::OursMayRefuse) {
                wrong(format!("only we refuse: {}", super::sentences(mistakes)));
            }
            for mistake in mistakes {
                let place = mistake.to_string();
                if mistake.line == 0 && mistake.file.is_none() {
                    wrong(format!("no place: {place}"));
                }
            }
        }
        (Err(why), Ok(_)) => {
            if case.expected != Expected::OursTakes {
                wrong(format!("only ssh refuses: {why}"));
            }
        }
        (Err(_), Err(mistakes)) => {
            if !matches!(case.expected, Expected::Agreement | Expected::OursMayRefuse) {
                wrong(format!("both refuse: {}", super::sentences(mistakes)));
            }
        }
    }
    outcome
}

fn ask_ssh(ssh: &Path, case: &Case) -> Result<String, String> {
    let output = Command::new(ssh)
        .arg("-G")
        .arg("-F")
        .arg(&case.file)
        .args(&case.arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn ask_us(case: &Case) -> Result<Settings, Vec<Mistake>> {
    let (mut options, mut target) = (Vec::new(), "");
    let mut arguments = case.arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut with = |keyword: &str| {
            options.push((keyword.to_owned(), arguments.next().unwrap().clone()));
        };
        match argument.as_str() {
            "-p" => with("Port"),
            "-l" => with("User"),
            "-J" => with("ProxyJump"),
            "-4" => options.push(("AddressFamily".to_owned(), "inet".to_owned())),
            "-o" => {
                let (keyword, value) = arguments.next().unwrap().split_once('=').unwrap();
                options.push((keyword.to_owned(), value.to_owned()));
            }
            other => target = other,
        }
    }
    let (user, host) = match target.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, target),
    };
    let request =
        Request { host, user, port: None, options: &options, file: Some(case.file.as_path()) };
    resolve(&request, &Machine::default())
}

/// Values by keyword in lower case, in their order.
type Values = BTreeMap<String, Vec<String>>;

/// What we make of a configuration.
struct Expectation<'a> {
    dump: Values,
    settings: &'a Settings,
    /// What `ssh` does without any configuration.
    defaults: &'a Values,
}

impl Expectation<'_> {
    /// What `ssh` should say. Our lists of algorithms start from our own, so what was understood of
    /// a list is applied to those of `ssh`.
    fn of(&self, keyword: &Keyword, name: &str) -> Vec<String> {
        let Kind::Algorithms(list) = keyword.kind else {
            return self.dump.get(name).cloned().unwrap_or_default();
        };
        let default = self.defaults.get(name).cloned().unwrap_or_default();
        match self.settings.word(name) {
            None => default,
            Some(text) => {
                let default: Vec<&str> = default.iter().flat_map(|list| list.split(',')).collect();
                vec![sorted(&algorithms::expand(list, text, &default).join(","), text)]
            }
        }
    }
}

/// A list that patterns were filled into, in one order: that of their tables is not that of ours.
fn sorted(list: &str, text: &str) -> String {
    if text.starts_with('-') || !text.contains(['*', '?']) {
        return list.to_owned();
    }
    let mut names: Vec<&str> = list.split(',').collect();
    names.sort_unstable();
    names.join(",")
}

fn compare(case: &Case, theirs: &Values, ours: &Expectation<'_>, outcome: &mut Outcome) {
    for keyword in KEYWORDS {
        let name = keyword.name.to_ascii_lowercase();
        let mut their = theirs.get(&name).cloned().unwrap_or_default();
        if let (Kind::Algorithms(_), Some(text)) = (keyword.kind, ours.settings.word(&name)) {
            their.iter_mut().for_each(|list| *list = sorted(list, text));
        }
        let our = ours.of(keyword, &name);
        let is_security = SECURITY.contains(&name.as_str());
        let is_ours = keyword.treatment == Treatment::Used || is_security;
        if !is_ours || is_known(&name, &their, &our, theirs) {
            continue;
        }
        outcome.compared += their.len().max(our.len()).max(1);
        if their != our {
            let what = format!(
                "{}: {name}: ssh says {}, we say {}",
                case.name,
                their.join(" | "),
                our.join(" | ")
            );
            if is_security {
                outcome.wrong.push(what.clone());
            }
            outcome.different.push(what);
        }
    }
}

/// Differences between OpenSSH as released and Debian's, and what `ssh -G` prints by mistake.
fn is_known(name: &str, their: &[String], our: &[String], theirs: &Values) -> bool {
    let said = |keyword: &str| theirs.get(keyword).map_or(&[][..], Vec::as_slice);
    let is_debians_batch = name == "serveraliveinterval"
        && their == ["300"]
        && our == ["0"]
        && said("batchmode") == ["yes"];
    // It prints a local forward to a socket as a dynamic one as well.
    let is_socket = |listen: &&String| {
        said("localforward").iter().any(|both| {
            both.strip_prefix(listen.as_str()).is_some_and(|rest| rest.starts_with(" /"))
        })
    };
    let is_twice =
        name == "dynamicforward" && their.iter().filter(|listen| !is_socket(listen)).eq(our.iter());
    let is_structure = keywords::find(name).is_some_and(|found| found.kind == Kind::Structure);
    is_debians_batch || is_twice || (is_structure && name != "host")
}

fn by_keyword(dump: &str) -> Values {
    let mut values = Values::new();
    for line in dump.lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        values.entry(keyword.to_ascii_lowercase()).or_default().push(value.to_owned());
    }
    values
}
