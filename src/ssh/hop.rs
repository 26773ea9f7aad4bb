//! What a configuration says of one host, as a hop. Pure.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    algorithms::{self, Keyword},
    config::{Origin, Settings},
    proxy::ProxyCommand,
    resolve::{
        AddToAgent, Algorithms, Bind, Environment, Hop, HostKeyPolicy, Method, Rekey,
        UpdateHostKeys,
    },
    target,
};
use crate::config::Family;

/// How long a hop may take to answer when nobody says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time that a stage may take, whatever somebody says.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(86_400);
/// The most dials of one attempt, whatever somebody says.
const MOST_ATTEMPTS: u64 = 100;
/// `Port` of ssh_config(5) when nobody says otherwise.
const SSH_PORT: u16 = 22;
/// Default keys of kinds that do not exist any more.
const GONE: [&str; 2] = ["id_dsa", "id_xmss"];

/// The hop that `settings` describe for the host that was `named`; the error says what of it cannot
/// be used.
pub(super) fn of(
    named: &str,
    settings: Settings,
    environment: &Environment,
) -> Result<Hop, Vec<String>> {
    let reader = Reader { settings: &settings, environment };
    let host = settings.word("HostName").unwrap_or(named).to_owned();
    let user = settings.word("User").unwrap_or(&environment.user).to_owned();
    let mut wrong = Vec::new();
    if !target::is_host(&host) {
        wrong.push(reader.wrong("HostName", &host, "is not a host name or address"));
    }
    if user.is_empty() || user.starts_with('-') || user.chars().any(char::is_control) {
        wrong.push(reader.wrong("User", &user, "is not an account name"));
    }
    wrong.extend(["UserKnownHostsFile", "GlobalKnownHostsFile"].into_iter().filter_map(
        |keyword| {
            // Read from another folder it would be another file, or none: every key would be new.
            let loose = settings.words(keyword).into_iter().find(|path| !path.starts_with('/'))?;
            Some(reader.wrong(
                keyword,
                &loose,
                "means another file in every folder; write `~/` or `/`",
            ))
        },
    ));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let (identities, identities_named) = reader.identities();
    Ok(Hop {
        user,
        host,
        named: named.to_owned(),
        port: reader.number("Port").and_then(|port| u16::try_from(port).ok()).unwrap_or(SSH_PORT),
        host_key_alias: settings.word("HostKeyAlias").map(str::to_owned),
        identities,
        passphrase: environment.passphrase.clone(),
        identities_named,
        identities_only: settings.is_yes("IdentitiesOnly"),
        certificates: reader.paths("CertificateFile"),
        agent: reader.agent(),
        remember: true,
        add_keys_to_agent: reader.add_keys_to_agent(),
        user_known_hosts: reader.files("UserKnownHostsFile"),
        global_known_hosts: reader.files("GlobalKnownHostsFile"),
        hash_known_hosts: settings.is_yes("HashKnownHosts"),
        check_host_ip: settings.is_yes("CheckHostIP"),
        policy: reader.policy(),
        pin: None,
        update_host_keys: reader.update_host_keys(),
        algorithms: reader.algorithms().map_err(|why| vec![why])?,
        proxy_command: reader.proxy_command(),
        bind: reader.bind(),
        compression: settings.is_yes("Compression"),
        tcp_keep_alive: settings.is_yes("TCPKeepAlive"),
        connect_timeout: reader.connect_timeout(),
        connection_attempts: reader.attempts(),
        family: reader.family(),
        rekey: reader.rekey(),
        methods: reader.methods(),
        password_prompts: reader.number("NumberOfPasswordPrompts").map_or(3, saturated),
        batch: reader.is_batch(),
        said: Arc::new(settings),
    })
}

/// Reads one keyword after the other.
struct Reader<'a> {
    settings: &'a Settings,
    environment: &'a Environment,
}

impl Reader<'_> {
    fn wrong(&self, keyword: &str, value: &str, why: &str) -> String {
        let place = self.settings.origin(keyword).map(|origin| format!("{origin}: "));
        format!("{}{keyword}: `{}` {why}", place.unwrap_or_default(), value.escape_debug())
    }

    fn number(&self, keyword: &str) -> Option<u64> {
        self.settings.number(keyword)
    }

    fn is_default(&self, keyword: &str) -> bool {
        self.settings.origin(keyword).is_none_or(|origin| *origin == Origin::Default)
    }

    /// The key files, and whether somebody named them.
    fn identities(&self) -> (Vec<PathBuf>, bool) {
        let named = !self.is_default("IdentityFile");
        let is_gone = |path: &PathBuf| GONE.iter().any(|name| path.ends_with(name));
        let mut paths = self.paths("IdentityFile");
        paths.retain(|path| named || !is_gone(path));
        // What was handed over was meant for this.
        let handed = self.environment.handed_key.iter().cloned();
        (handed.chain(paths).collect(), named)
    }

    /// The paths of a keyword of which every value counts; `none` is no path.
    fn paths(&self, keyword: &str) -> Vec<PathBuf> {
        let values = self.settings.all(keyword).iter();
        let words = values.filter_map(|said| said.words.first());
        words.filter(|word| !word.eq_ignore_ascii_case("none")).map(PathBuf::from).collect()
    }

    /// The files of a keyword that takes several at once.
    fn files(&self, keyword: &str) -> Vec<PathBuf> {
        self.settings.words(keyword).into_iter().map(PathBuf::from).collect()
    }

    fn agent(&self) -> Option<PathBuf> {
        match self.settings.word("IdentityAgent") {
            None if self.is_default("IdentityAgent") => self.environment.agent.clone(),
            None | Some("none") => None,
            Some("SSH_AUTH_SOCK" | "$SSH_AUTH_SOCK") => self.environment.agent.clone(),
            Some(path) => Some(PathBuf::from(path)),
        }
    }

    fn add_keys_to_agent(&self) -> Option<AddToAgent> {
        let words = self.settings.words("AddKeysToAgent");
        let mut how = AddToAgent::default();
        for word in &words {
            match word.as_str() {
                "no" => return None,
                "yes" => {}
                "ask" => how.ask = true,
                "confirm" => how.confirm = true,
                time => how.lifetime = Some(time.parse().ok()?),
            }
        }
        (!words.is_empty()).then_some(how)
    }

    /// What happens to a new key; a changed one is refused whatever is said here, since what `ssh`
    /// would still do under `no`, a session without forwards, is of no use to a tunnel.
    fn policy(&self) -> HostKeyPolicy {
        match self.settings.word("StrictHostKeyChecking") {
            Some("yes") => HostKeyPolicy::Strict,
            Some("no" | "accept-new") => HostKeyPolicy::AcceptNew,
            Some(_) | None => HostKeyPolicy::Ask,
        }
    }

    /// Without a word of the user: only where the keys stand in the usual files.
    fn update_host_keys(&self) -> UpdateHostKeys {
        let asks_dns = self.settings.word("VerifyHostKeyDNS").is_some_and(|word| word != "no");
        match self.settings.word("UpdateHostKeys") {
            Some("yes") => UpdateHostKeys::Yes,
            Some("ask") => UpdateHostKeys::Ask,
            Some(_) => UpdateHostKeys::No,
            None if self.is_default("UserKnownHostsFile") && !asks_dns => UpdateHostKeys::Yes,
            None => UpdateHostKeys::No,
        }
    }

    fn proxy_command(&self) -> Option<ProxyCommand> {
        let line = self.settings.word("ProxyCommand").filter(|line| *line != "none")?;
        let origin = self.settings.origin("ProxyCommand").map(ToString::to_string);
        Some(ProxyCommand {
            line: line.to_owned(),
            shell: self.environment.shell.clone(),
            agent: self.environment.agent.clone(),
            origin: origin.unwrap_or_default(),
        })
    }

    fn bind(&self) -> Option<Bind> {
        let address = self.settings.word("BindAddress").map(|word| Bind::Address(word.to_owned()));
        let interface = || self.settings.word("BindInterface").map(str::to_owned);
        address.or_else(|| interface().map(Bind::Interface))
    }

    fn connect_timeout(&self) -> Duration {
        let said = self.number("ConnectTimeout").filter(|seconds| *seconds > 0);
        said.map_or(CONNECT_TIMEOUT, Duration::from_secs).min(LONGEST_TIMEOUT)
    }

    fn attempts(&self) -> u32 {
        let said = self.number("ConnectionAttempts").unwrap_or(1);
        saturated(said.clamp(1, MOST_ATTEMPTS))
    }

    fn family(&self) -> Family {
        match self.settings.word("AddressFamily") {
            Some("inet") => Family::V4,
            Some("inet6") => Family::V6,
            Some(_) | None => Family::Any,
        }
    }

    /// The user's lists; empty where nothing was said, for our own.
    fn algorithms(&self) -> Result<Algorithms, String> {
        let list = |keyword: Keyword| match self.settings.word(keyword.name()) {
            Some(list) if !self.is_default(keyword.name()) => {
                let place = self.settings.origin(keyword.name());
                let place = place.map(|origin| format!("{origin}: ")).unwrap_or_default();
                algorithms::choose(keyword, list)
                    .map(|choice| choice.names)
                    .map_err(|why| format!("{place}{why}"))
            }
            Some(_) | None => Ok(Vec::new()),
        };
        Ok(Algorithms {
            kex: list(Keyword::Kex)?,
            ciphers: list(Keyword::Ciphers)?,
            macs: list(Keyword::Macs)?,
            host_key: list(Keyword::HostKey)?,
            public_key: list(Keyword::PublicKey)?,
            ca_signature: list(Keyword::CaSignature)?,
        })
    }

    fn rekey(&self) -> Rekey {
        let words = self.settings.words("RekeyLimit");
        let number = |word: Option<&String>| {
            word.and_then(|word| word.parse().ok()).filter(|number: &u64| *number > 0)
        };
        Rekey { bytes: number(words.first()), time: number(words.get(1)).map(Duration::from_secs) }
    }

    fn is_batch(&self) -> bool {
        self.environment.batch || self.settings.is_yes("BatchMode")
    }

    /// The ways to log in that somebody could go: a person has to be there for two of them.
    fn methods(&self) -> Vec<Method> {
        let is_wanted = |method: &Method| match method {
            // `unbound` and `host-bound` are ways of saying yes.
            Method::PublicKey => self.settings.word("PubkeyAuthentication") != Some("no"),
            Method::KeyboardInteractive => {
                self.settings.is_yes("KbdInteractiveAuthentication") && !self.is_batch()
            }
            Method::Password => self.settings.is_yes("PasswordAuthentication") && !self.is_batch(),
        };
        let all = [Method::PublicKey, Method::KeyboardInteractive, Method::Password];
        let preferred: Vec<Method> = match self.settings.word("PreferredAuthentications") {
            None => all.to_vec(),
            Some(list) => {
                let named = |name: &str| all.into_iter().find(|method| method.name() == name);
                list.split(',').filter_map(|name| named(name.trim())).collect()
            }
        };
        preferred.into_iter().filter(is_wanted).collect()
    }
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
