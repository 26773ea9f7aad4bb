//! Whole configurations over a world that is made up.

mod against_ssh;
mod documentation;
mod fuzz;
mod generator;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{
    Mistake, Origin, Request, Settings, World, pattern, resolve,
    world::{Found, Source},
};
use crate::config::Family;

const HOME: &str = "/home/anna";
const USER_FILE: &str = "/home/anna/.ssh/config";
const UID: u32 = 1000;

/// A machine of which everything is known.
#[derive(Default)]
pub(super) struct Fake {
    files: BTreeMap<PathBuf, Source>,
    variables: BTreeMap<String, String>,
    /// What `Match exec` was asked to run.
    ran: Mutex<Vec<String>>,
    names: BTreeMap<String, Found>,
}

impl Fake {
    /// A machine whose user has this file.
    pub(super) fn with(text: impl AsRef<[u8]>) -> Self {
        Self::default().file(USER_FILE, text)
    }

    fn file(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.file_of(path, text, UID, 0o100_600)
    }

    fn file_of(mut self, path: &str, text: impl AsRef<[u8]>, owner: u32, mode: u32) -> Self {
        let source = Source { bytes: text.as_ref().to_vec(), owner, mode };
        self.files.insert(path.into(), source);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn name(mut self, name: &str, canonical: Option<&str>) -> Self {
        let canonical = canonical.map(str::to_owned);
        self.names.insert(name.to_owned(), Found { canonical });
        self
    }

    fn resolve(&self, host: &str) -> Result<Settings, Vec<Mistake>> {
        resolve(&Request { host, ..Request::default() }, self)
    }

    fn settings(&self, host: &str) -> Settings {
        self.resolve(host).unwrap_or_else(|mistakes| panic!("{}", sentences(&mistakes)))
    }

    fn mistakes(&self, host: &str) -> Vec<String> {
        match self.resolve(host) {
            Ok(settings) => panic!("taken:\n{}", settings.dump()),
            Err(mistakes) => mistakes.iter().map(Mistake::to_string).collect(),
        }
    }

    fn ran(&self) -> Vec<String> {
        self.ran.lock().expect("nobody panicked").clone()
    }
}

fn sentences(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

impl World for Fake {
    fn read(&self, path: &Path) -> Result<Option<Source>, String> {
        match path.to_str() {
            Some(path) if path.contains("unreadable") => Err("permission denied".to_owned()),
            _ => Ok(self.files.get(path).cloned()),
        }
    }

    fn glob(&self, wanted: &str) -> Result<Vec<PathBuf>, String> {
        let is_wanted = |path: &&PathBuf| pattern::matches(wanted, path.to_str().unwrap_or(""));
        Ok(self.files.keys().filter(is_wanted).cloned().collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn succeeds(&self, command: &str) -> Result<Option<bool>, String> {
        self.ran.lock().expect("nobody panicked").push(command.to_owned());
        match command {
            "hang" => Ok(None),
            _ => Ok(Some(command.starts_with("true"))),
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec!["127.0.0.1".parse().expect("an address"), "10.1.2.3".parse().expect("an address")]
    }

    fn look_up(&self, name: &str, _family: Family) -> Option<Found> {
        self.names.get(name).cloned()
    }

    fn local_host(&self) -> String {
        "laptop.example".to_owned()
    }

    fn home(&self, user: Option<&str>) -> Option<PathBuf> {
        match user {
            None | Some("anna") => Some(HOME.into()),
            Some("root") => Some("/root".into()),
            Some(_) => None,
        }
    }

    fn user(&self) -> String {
        "anna".to_owned()
    }

    fn uid(&self) -> u32 {
        UID
    }
}

#[test]
fn the_first_value_wins_and_says_where_it_stands() {
    let world = Fake::with("Host box\n  Port 2222\n  User me\nHost *\n  Port 22\n")
        .file("/etc/ssh/ssh_config", "User other\nHashKnownHosts yes\n");
    let settings = world.settings("box");
    assert_eq!(settings.word("port"), Some("2222"));
    assert_eq!(settings.word("User"), Some("me"));
    assert!(settings.is_yes("hashknownhosts"));
    assert_eq!(settings.origin("Port"), Some(&Origin::file(Path::new(USER_FILE), 2)));
    assert_eq!(settings.origin("ConnectTimeout"), Some(&Origin::Default));
    assert_eq!(world.settings("other").word("Port"), Some("22"));
}

#[test]
fn options_come_before_the_target_and_the_target_before_files() {
    let world = Fake::with("User file\nPort 1\nConnectTimeout 9\n");
    let options = [("User".to_owned(), "option".to_owned())];
    let request = Request {
        host: "box",
        user: Some("target"),
        port: Some(2),
        options: &options,
        ..Request::default()
    };
    let settings = resolve(&request, &world).unwrap();
    assert_eq!(settings.word("User"), Some("option"));
    assert_eq!(settings.word("Port"), Some("2"));
    assert_eq!(settings.number("ConnectTimeout"), Some(9));
    assert_eq!(settings.origin("User"), Some(&Origin::CommandLine));
    let settings = resolve(&Request { options: &[], ..request }, &world).unwrap();
    assert_eq!(settings.word("User"), Some("target"));
}

#[test]
fn a_file_of_the_command_line_replaces_the_usual_ones() {
    let world = Fake::with("User usual\n").file("/etc/ssh/ssh_config", "Port 2022\n").file_of(
        "/other",
        "ConnectTimeout 5\n",
        1,
        0o100_666,
    );
    let ask =
        |file| resolve(&Request { host: "box", file: Some(file), ..Request::default() }, &world);
    let settings = ask(Path::new("/other")).unwrap();
    assert_eq!(settings.number("ConnectTimeout"), Some(5));
    assert_eq!((settings.word("User"), settings.word("Port")), (Some("anna"), Some("22")));
    let settings = ask(Path::new("none")).unwrap();
    assert_eq!(settings.number("ConnectTimeout"), None);
    let mistakes = ask(Path::new("/missing")).unwrap_err();
    assert_eq!(sentences(&mistakes), "/missing: there is no such file");
}

#[test]
fn all_mistakes_of_all_files_are_told_with_their_places() {
    let world = Fake::with("Host other\n  Prot 1\n  User\nInclude more\nUser \"x\n")
        .file("/home/anna/.ssh/more", "\nIdentitiesOnly perhaps\n")
        .file("/etc/ssh/ssh_config", "Host *\n  ConnectTimeout x\n\0\n");
    assert_eq!(
        world.mistakes("box"),
        [
            "/home/anna/.ssh/config line 2: Prot: is no keyword of ssh_config; `IgnoreUnknown` \
             above it would pass over it",
            "/home/anna/.ssh/config line 3: User: has no value",
            "/home/anna/.ssh/more line 2: IdentitiesOnly: `perhaps` is not yes or no",
            "/home/anna/.ssh/config line 5: User: a quote is never closed",
            "/etc/ssh/ssh_config line 2: ConnectTimeout: `x` is not a time such as 10 or 1m30s",
            "/etc/ssh/ssh_config line 3: the line holds a NUL byte",
        ]
    );
    let options = [("Port".to_owned(), "x".to_owned()), ("Host".to_owned(), "x".to_owned())];
    let request = Request { host: "box", options: &options, ..Request::default() };
    assert_eq!(
        sentences(&resolve(&request, &Fake::default()).unwrap_err()),
        "command line: Port: `x` is not a port from 1 to 65535\n\
         command line: Host: has no meaning on the command line"
    );
}

#[test]
fn files_that_others_could_have_written_are_refused() {
    for (owner, mode, good) in [
        (UID, 0o100_600, true),
        (UID, 0o100_644, true),
        (0, 0o100_644, true),
        (UID, 0o100_620, false),
        (UID, 0o100_602, false),
        (UID + 1, 0o100_600, false),
    ] {
        let config = Fake::default().file_of(USER_FILE, "Port 1\n", owner, mode);
        let included = Fake::with("Include /inc\n").file_of("/inc", "Port 1\n", owner, mode);
        for world in [config, included] {
            match world.resolve("box") {
                Ok(settings) => assert_eq!((settings.word("Port"), good), (Some("1"), true)),
                Err(mistakes) => {
                    let said = sentences(&mistakes);
                    let mend = if owner == UID { ": chmod go-w /" } else { "must belong to you" };
                    assert!(!good && said.contains(mend), "{said}");
                }
            }
        }
    }
    let world = Fake::with("Include /unreadable\n").file("/unreadable", "");
    assert_eq!(world.mistakes("box"), ["/unreadable: cannot be read: permission denied"]);
}

#[test]
fn an_address_may_name_its_interface() {
    let typed = Fake::default().settings("fe80::1%eth0");
    assert_eq!(typed.word("HostName"), Some("fe80::1%eth0"));
    let written = Fake::with("HostName fe80::1%%eth0\nIdentityFile /k-%h\n").settings("box");
    assert_eq!(written.word("HostName"), Some("fe80::1%eth0"));
    assert_eq!(written.word("IdentityFile"), Some("/k-fe80::1%eth0"));
}

#[test]
fn includes_belong_to_the_folder_and_the_block_of_their_file() {
    let world =
        Fake::with("Host box\n  Include inc-*\n  Include ~/two %n-${A}\nHost *\n  Port 9\n")
            .variable("A", "x")
            .file("/home/anna/.ssh/inc-1", "User one\nHost other\n  Port 1\n")
            .file("/home/anna/two", "User two\nHostName two.example\n")
            .file("/home/anna/.ssh/box-x", "ConnectTimeout 4\n")
            .file("/etc/ssh/ssh_config", "Include three\nInclude ~/two\n")
            .file("/etc/ssh/three", "ConnectionAttempts 3\n");
    let machine = "/etc/ssh/ssh_config line 2: Include: the machine's file has no home for `~`";
    assert_eq!(world.mistakes("box"), [machine]);
    let world = world.file("/etc/ssh/ssh_config", "Include three\n");
    let settings = world.settings("box");
    let word = |keyword| settings.word(keyword).map(str::to_owned);
    assert_eq!(word("User").as_deref(), Some("one"));
    assert_eq!(word("HostName").as_deref(), Some("two.example"));
    assert_eq!(word("Port").as_deref(), Some("9"));
    assert_eq!(word("ConnectTimeout").as_deref(), Some("4"));
    assert_eq!(word("ConnectionAttempts").as_deref(), Some("3"));
    // In a block that does not hold nothing of it counts, whatever blocks it opens.
    let other = world.settings("other");
    assert_eq!((other.word("User"), other.word("Port")), (Some("anna"), Some("9")));
}

#[test]
fn files_that_include_each_other_end() {
    let world = Fake::with("Include a a a\n")
        .file("/home/anna/.ssh/a", "Include b b\n")
        .file("/home/anna/.ssh/b", "Include a a\nPort 1\n");
    let mistakes = world.mistakes("box");
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert!(mistakes.concat().contains("more than 16 deep"), "{mistakes:?}");

    let mut wide = Fake::with(format!("Include {}\n", "f1 ".repeat(8)));
    for depth in 1..10 {
        let text = format!("Include {}\n", format!("f{} ", depth + 1).repeat(8));
        wide = wide.file(&format!("/home/anna/.ssh/f{depth}"), text);
    }
    let mistakes = wide.mistakes("box");
    assert!(mistakes.concat().contains("more than 4096 files"), "{mistakes:?}");
}

#[test]
fn commands_of_conditions_run_only_from_files_that_nobody_else_can_write() {
    let text = "Match host nowhere exec \"true never\"\n  Port 1\n\
                Match exec \"true %h %n %p %r %u %i\"\n  Port 2\n";
    let world = Fake::with(text);
    assert_eq!(world.settings("box").word("Port"), Some("2"));
    assert_eq!(world.ran(), ["true box box 22 anna anna 1000"]);

    for (owner, mode) in [(UID, 0o100_666), (UID + 1, 0o100_600)] {
        let world = Fake::default().file_of("/other", text, owner, mode);
        let request =
            Request { host: "box", file: Some(Path::new("/other")), ..Request::default() };
        let mistakes = sentences(&resolve(&request, &world).unwrap_err());
        assert!(mistakes.starts_with("/other line 3: Match: runs a command"), "{mistakes}");
        assert!(world.ran().is_empty());
    }

    let world = Fake::with("Host other\n  Include part\n")
        .file("/home/anna/.ssh/part", "Match exec \"true\"\n  Port 3\n");
    assert_eq!(world.settings("box").word("Port"), Some("22"));
    assert!(world.ran().is_empty());

    let mistakes = Fake::with("Match exec hang\n").mistakes("box");
    assert!(mistakes.concat().contains("longer than 10 seconds"), "{mistakes:?}");
}

#[test]
fn hostile_names_reach_neither_commands_nor_proxies() {
    for name in ["$(id)", "`id`", "a;b", "a\\b", "a'b", "a|b", "a&b", "a b", "-oX=y"] {
        for text in ["Match exec \"true %r\"\n  Port 1\n", "ProxyCommand nc %r\n"] {
            let world = Fake::with(format!("User \"{}\"\n{text}", name.replace('\\', "\\\\")));
            assert!(world.resolve("box").is_err(), "{name} in {text}");
            assert!(world.ran().is_empty(), "{:?}", world.ran());
        }
        let alias = Fake::with(format!("HostKeyAlias \"{name}\"\nProxyCommand nc %k\n"));
        assert!(alias.resolve("box").is_err(), "{name}");
        let named = Fake::with(format!("HostName \"{name}\"\nMatch exec \"true %h\"\n"));
        assert!(named.resolve("box").is_err() && named.ran().is_empty(), "{name}");
        let world = Fake::with("Match exec \"true %n\"\n  Port 1\n");
        assert!(world.resolve(name).is_err() && world.ran().is_empty(), "{name}");
        let request = Request { host: "box", user: Some(name), ..Request::default() };
        assert!(resolve(&request, &world).is_err(), "{name}");
    }
    // A name of Windows is fine as long as no shell sees it.
    assert_eq!(Fake::with("User CORP\\anna\n").settings("box").word("User"), Some("CORP\\anna"));
}

#[test]
fn newer_criteria_hold_as_in_newer_versions() {
    let text = "Match tagged work\n  Port 1\nMatch localnetwork 10.0.0.0/8\n  ConnectTimeout 1\n\
                Match version OpenSSH_1?.*\n  ConnectionAttempts 2\n\
                Match sessiontype none command \"\"\n  ServerAliveInterval 3\n\
                Match sessiontype shell\n  ServerAliveCountMax 4\n\
                Match host=box\n  NumberOfPasswordPrompts 5\n\
                Match final tagged \"\"\n  User untagged\n";
    let settings = Fake::with(format!("Tag work\n{text}")).settings("box");
    assert_eq!(settings.word("Port"), Some("1"));
    assert_eq!(settings.word("ConnectTimeout"), Some("1"));
    assert_eq!(settings.word("ConnectionAttempts"), Some("2"));
    assert_eq!(settings.word("ServerAliveInterval"), Some("3"));
    assert_eq!(settings.word("ServerAliveCountMax"), Some("3"));
    assert_eq!(settings.word("NumberOfPasswordPrompts"), Some("5"));
    assert_eq!(settings.word("User"), Some("anna"));
    let settings = Fake::with(text).settings("box");
    assert_eq!((settings.word("Port"), settings.word("User")), (Some("22"), Some("untagged")));
    let mistakes = Fake::with("Match localnetwork 10.0.0.1/8\n").mistakes("box");
    assert!(mistakes.concat().contains("line 1: Match: `10.0.0.1/8` is no network"));
}

#[test]
fn short_names_are_completed_and_the_files_read_again() {
    let text = "CanonicalizeHostname yes\nCanonicalDomains a.example b.example\n\
                CanonicalizePermittedCNAMEs *.b.example:*.cdn.example\n\
                Match canonical host *.b.example\n  User completed\n\
                Host box.b.example\n  Port 2022\n";
    let world = || {
        Fake::with(text).name("box.b.example.", None).name("www.b.example.", Some("x.cdn.example"))
    };
    let settings = world().settings("box");
    assert_eq!(settings.word("HostName"), Some("box.b.example"));
    assert_eq!((settings.word("User"), settings.word("Port")), (Some("completed"), Some("2022")));
    assert_eq!(world().settings("www").word("HostName"), Some("x.cdn.example"));
    assert_eq!(world().settings("unknown").word("HostName"), Some("unknown"));
    assert_eq!(world().settings("box.b.example.").word("HostName"), Some("box.b.example"));
    assert_eq!(world().settings("127.1").word("HostName"), Some("127.0.0.1"));

    let proxied = Fake::with(format!("ProxyJump gate\n{text}")).name("box.b.example.", None);
    assert_eq!(proxied.settings("box").word("HostName"), Some("box"));
    let strict = Fake::with(format!("CanonicalizeFallbackLocal no\n{text}"));
    let mistakes = strict.mistakes("unknown");
    assert!(mistakes.concat().contains("line 1: CanonicalizeFallbackLocal: no domain"));
}

#[test]
fn what_would_be_weaker_refuses_the_host_with_its_place() {
    for line in [
        "KnownHostsCommand /bin/keys",
        "RevokedHostKeys /revoked",
        "PKCS11Provider /lib/p.so",
        "SmartcardDevice /lib/p.so",
        "SecurityKeyProvider /lib/sk.so",
        "RefuseConnection \"not today\"",
        "ProxyCommand -",
    ] {
        let world = Fake::with(format!("Host box\n  {line}\n"));
        let mistakes = world.mistakes("box");
        let keyword = line.split(' ').next().unwrap_or_default();
        let keyword = if keyword == "SmartcardDevice" { "PKCS11Provider" } else { keyword };
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(
            mistakes.concat().starts_with(&format!("{USER_FILE} line 2: {keyword}: ")),
            "{mistakes:?}"
        );
        assert!(world.resolve("other").is_ok(), "{line} in another block");
    }
    let fdpass = "ProxyUseFdpass yes\n";
    assert!(Fake::with(fdpass).resolve("box").is_ok());
    assert!(Fake::with(format!("{fdpass}ProxyCommand nc\n")).resolve("box").is_err());
    for line in [
        "KnownHostsCommand none",
        "RevokedHostKeys none",
        "PKCS11Provider none",
        "SecurityKeyProvider internal",
        "CASignatureAlgorithms ssh-ed25519",
        "AddKeysToAgent yes",
        "VerifyHostKeyDNS no",
        "RequiredRSASize 3072",
    ] {
        let settings = Fake::with(line).settings("box");
        assert!(settings.notes().is_empty(), "{line}: {:?}", settings.notes());
    }
}

#[test]
fn proxy_commands_come_only_from_files_that_nobody_else_can_write() {
    let world = Fake::default().file_of("/other", "ProxyCommand nc %h %p\n", UID, 0o100_664);
    let options = [("ProxyCommand".to_owned(), "nc %n".to_owned())];
    let request = Request { host: "box", file: Some(Path::new("/other")), ..Request::default() };
    let mistakes = sentences(&resolve(&request, &world).unwrap_err());
    assert!(mistakes.starts_with("/other line 1: ProxyCommand: runs a command"), "{mistakes}");
    let settings = resolve(&Request { options: &options, ..request }, &world).unwrap();
    assert_eq!(settings.word("ProxyCommand"), Some("nc box"));
}

#[test]
fn what_is_not_honoured_is_noted_once_with_its_place() {
    let world = Fake::with(
        "Host box\n  ForwardAgent yes\n  ControlMaster auto\nMatch final host box\n  User x\n\
         Host *\n  DynamicForward 1080\n  CheckHostIP no\n  GSSAPIAuthentication yes\n  \
         KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256\n",
    );
    let settings = world.settings("box");
    let notes: Vec<String> = settings
        .notes()
        .iter()
        .map(|note| format!("{} {} ({})", note.keyword, note.value, note.origin))
        .collect();
    assert_eq!(
        notes,
        [
            "GSSAPIAuthentication yes (/home/anna/.ssh/config line 9)",
            "DynamicForward 1080 (/home/anna/.ssh/config line 7)",
            "ForwardAgent yes (/home/anna/.ssh/config line 2)",
            "ControlMaster auto (/home/anna/.ssh/config line 3)",
            "KexAlgorithms sntrup761x25519-sha512@openssh.com (/home/anna/.ssh/config line 10)",
        ]
    );
    assert!(settings.notes().iter().any(|note| note.reason.starts_with("Refused: an agent")));
}

#[test]
fn values_come_with_their_tokens_homes_and_variables() {
    let world = Fake::with(
        "IdentityFile ~/.ssh/%h_%r\nIdentityFile ~root/key\nCertificateFile ${D}/cert\n\
         UserKnownHostsFile ~/a \"~/b c\"\nIdentityAgent $SOCK\nUser %u-${D}\n\
         LocalForward 18789 localhost:18789\nRemoteForward /s/%n 127.0.0.1:22\n\
         ProxyCommand nc -x '%r' %h %p\n",
    )
    .variable("D", "d")
    .variable("SOCK", "/run/agent");
    let settings = world.settings("box");
    let all = |keyword: &str| -> Vec<String> {
        settings.all(keyword).iter().map(|said| said.words.join(" ")).collect()
    };
    assert_eq!(all("IdentityFile"), ["/home/anna/.ssh/box_anna-d", "/root/key"]);
    assert_eq!(all("CertificateFile"), ["d/cert"]);
    assert_eq!(settings.words("UserKnownHostsFile"), ["/home/anna/a", "/home/anna/b c"]);
    assert_eq!(settings.word("IdentityAgent"), Some("/run/agent"));
    assert_eq!(settings.word("ProxyCommand"), Some("nc -x 'anna-d' box 22"));
    assert_eq!(all("RemoteForward"), ["/s/box [127.0.0.1]:22"]);
    let (forward, origin) = settings.forwards("LocalForward").remove(0);
    assert_eq!(forward.connect.map(|end| end.to_string()).as_deref(), Some("[localhost]:18789"));
    assert_eq!(origin, Origin::file(Path::new(USER_FILE), 7));
    assert!(settings.dump().contains("\nidentityfile ~/.ssh/%h_%r\n"));
    let unset = Fake::with("IdentityAgent $SOCK\n").settings("box");
    assert_eq!(unset.word("IdentityAgent"), Some("none"));
}

#[test]
fn nothing_said_means_what_ssh_means_by_it() {
    let settings = Fake::default().settings("box");
    assert_eq!(settings.all("IdentityFile").len(), 7);
    assert_eq!(settings.origin("IdentityFile"), Some(&Origin::Default));
    assert_eq!(settings.word("UpdateHostKeys"), Some("yes"));
    assert_eq!(settings.word("Ciphers"), None);
    assert_eq!(settings.word("ConnectTimeout"), Some("none"));
    let known = settings.words("UserKnownHostsFile");
    assert_eq!(known, ["/home/anna/.ssh/known_hosts", "/home/anna/.ssh/known_hosts2"]);
    let none = Fake::with("UserKnownHostsFile none\nIdentityFile none\n").settings("box");
    assert!(none.words("UserKnownHostsFile").is_empty() && none.all("IdentityFile").is_empty());
    assert_ne!(none.origin("UserKnownHostsFile"), Some(&Origin::Default));
}
