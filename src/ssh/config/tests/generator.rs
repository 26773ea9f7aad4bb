//! Configurations made from a seed: the same ones every time.

/// A small generator of numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((number ^ (number >> 31)) % sides as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.get(self.roll(of.len())).expect("the dice has as many sides")
    }

    fn happens(&mut self, of_a_hundred: usize) -> bool {
        self.roll(100) < of_a_hundred
    }
}

const HOSTS: &[&str] = &[
    "box",
    "web1",
    "web2.example.org",
    "db.example.org",
    "10.0.0.7",
    "me@box",
    "-l root web1",
    "-p 2200 db.example.org",
    "-o User=option box",
    "-o Port=2201 -o IdentitiesOnly=yes web1",
];

const PATTERNS: &[&str] = &[
    "*",
    "box",
    "web?",
    "web*",
    "*.example.org",
    "!box",
    "!web1",
    "10.0.0.*",
    "db.*",
    "other",
    "*o*",
    "!*.org",
];

const CRITERIA: &[&str] = &[
    "all",
    "host box",
    "host *.example.org,!db.*",
    "host \"web?,box\"",
    "!host box",
    "originalhost box,web*",
    "user root",
    "user me,option",
    "!user me",
    "localuser *",
    "!localuser nobody",
    "final all",
    "final host *.example.org",
    "canonical",
    "!final host box",
    "exec true",
    "exec \"test %n = box\"",
    "exec false",
    "!exec \"test %p = 22\"",
    "host inner.* user *",
];

/// Keywords, each with values that `ssh` takes; the last of a row may be odd.
const VALUES: &[(&str, &[&str])] = &[
    ("HostName", &["inner.example.org", "%h.example.net", "192.0.2.1", "BIG.example.org", "127.1"]),
    ("Port", &["22", "2022", "65535", "\"2023\""]),
    ("User", &["anna", "root", "\"bob\"", "me"]),
    ("IdentityFile", &["~/.ssh/a", "/keys/%h-%r", "%d/.ssh/b", "\"/keys/c d\"", "none"]),
    ("CertificateFile", &["~/.ssh/a-cert.pub", "/keys/%n-cert.pub"]),
    ("IdentitiesOnly", &["yes", "no", "true", "FALSE"]),
    ("IdentityAgent", &["none", "SSH_AUTH_SOCK", "~/agent", "/run/%u/agent", "$AGENT_SOCKET"]),
    ("AddressFamily", &["any", "inet", "inet6", "INET"]),
    ("BindAddress", &["127.0.0.1", "::1"]),
    ("BindInterface", &["lo", "eth0"]),
    ("ConnectTimeout", &["5", "1m", "none", "1h30m5s", "0"]),
    ("ConnectionAttempts", &["1", "3", "5"]),
    ("ProxyJump", &["none", "gate", "a@gate:2022", "one,two", "one,b@[::1]:2022", "ssh://c@gate"]),
    ("ProxyCommand", &["none", "nc %h %p", "ssh -W '[%h]:%p' gate", "= nc %n \"a b\" # c"]),
    ("UserKnownHostsFile", &["~/.ssh/known_hosts", "/a /b", "none", "~/k_%h", "\"/a b\" ~root/c"]),
    ("GlobalKnownHostsFile", &["/etc/known", "none", "/a /b /c", "~/global"]),
    ("StrictHostKeyChecking", &["yes", "no", "ask", "accept-new", "off", "TRUE"]),
    ("HostKeyAlias", &["alias", "Alias.Example.org", "\"quoted\""]),
    (
        "HostKeyAlgorithms",
        &["ssh-ed25519", "+ssh-rsa", "-ecdsa*", "^rsa-sha2-512", "ecdsa-sha2-*", "-*cert*"],
    ),
    (
        "KexAlgorithms",
        &["curve25519-sha256", "-diffie-*", "^ecdh-sha2-nistp256", "+diffie-hellman-group14-sha1"],
    ),
    ("Ciphers", &["aes256-ctr", "+aes128-cbc", "-*gcm*", "^aes256-gcm@openssh.com"]),
    ("MACs", &["hmac-sha2-512", "-*sha1*", "^hmac-sha2-256", "+hmac-md5"]),
    ("PubkeyAcceptedAlgorithms", &["ssh-ed25519", "+ssh-rsa", "-rsa*", "sk-*,ssh-*"]),
    ("PubkeyAuthentication", &["yes", "no", "host-bound", "unbound"]),
    ("PasswordAuthentication", &["yes", "no"]),
    ("KbdInteractiveAuthentication", &["yes", "no"]),
    ("ChallengeResponseAuthentication", &["yes", "no"]),
    ("PreferredAuthentications", &["publickey", "publickey,password", "keyboard-interactive"]),
    ("NumberOfPasswordPrompts", &["0", "1", "7"]),
    ("BatchMode", &["yes", "no"]),
    ("LocalForward", &["8080 localhost:80", "[::1]:8081 box:81", "8082 /run/%n.sock"]),
    ("RemoteForward", &["9000 localhost:9", "0 [::1]:22", "*:9001 a:1", "1080"]),
    ("DynamicForward", &["1080", "localhost:1081"]),
    ("GatewayPorts", &["yes", "no"]),
    ("ExitOnForwardFailure", &["yes", "no"]),
    ("ClearAllForwardings", &["no", "yes"]),
    ("ServerAliveInterval", &["15", "1m", "none"]),
    ("ServerAliveCountMax", &["1", "5"]),
    ("TCPKeepAlive", &["yes", "no"]),
    ("HashKnownHosts", &["yes", "no"]),
    ("UpdateHostKeys", &["yes", "no", "ask"]),
    ("CheckHostIP", &["yes", "no"]),
    ("VerifyHostKeyDNS", &["yes", "no", "ask"]),
    ("Compression", &["yes", "no"]),
    ("RekeyLimit", &["1G", "default 1h", "512K none", "2.5M 90s", "0"]),
    ("ForwardAgent", &["yes", "no", "/dev/null"]),
    ("LogLevel", &["QUIET", "info", "DEBUG", "verbose"]),
    ("RequiredRSASize", &["1024", "3072"]),
    ("AddKeysToAgent", &["yes", "ask", "confirm 1h", "5m", "no"]),
    ("ControlMaster", &["auto", "no", "autoask"]),
    ("ControlPath", &["~/.ssh/%C", "none", "/tmp/%r@%h:%p"]),
    ("CanonicalizeMaxDots", &["0", "2"]),
    ("CanonicalizeFallbackLocal", &["yes", "no"]),
    ("SendEnv", &["LANG LC_*", "A B", "-LANG"]),
    ("SetEnv", &["A=b", "\"A=b c\" D=e"]),
    ("RequestTTY", &["no", "auto"]),
    ("IgnoreUnknown", &["Strange*", "UseKeychain,Strange*"]),
    ("Protocol", &["2"]),
];

/// What `ssh` does not take.
const BAD: &[&str] = &[
    "StrangeKeyword yes",
    "Port no",
    "Port 1 2",
    "BatchMode",
    "User \"open",
    "Match host",
    "Match all user x",
    "IdentitiesOnly perhaps",
    "ConnectTimeout 1y",
    "LocalForward x y",
    "ProxyJump a:b:c",
    "Ciphers none-such",
    "CanonicalDomains -x",
    "SetEnv A",
    "EscapeChar",
];

/// Characters that mean something in a configuration; not `=`, which parts the words of `Match` in
/// OpenSSH 9 wherever it stands, and since 10 only behind a criterion.
const MEANINGFUL: &[&str] =
    &["\"", "'", "\\", "#", " ", "\t", ",", "!", "*", "?", "%", "$", "~", ":", "@", "[", "]", "-"];

/// The configuration of `seed`, with the questions to ask it; of every third a character or two are
/// not where they should be.
pub(super) fn configuration(seed: u64) -> String {
    let mut dice = Dice(seed);
    let text = intact(&mut dice);
    if !seed.is_multiple_of(3) {
        return text;
    }
    let (mut questions, mut rest) = (String::from("#~ we may be stricter\n"), String::new());
    for line in text.lines() {
        let to = if line.starts_with("#?") { &mut questions } else { &mut rest };
        to.push_str(line);
        to.push('\n');
    }
    let mut characters: Vec<String> = rest.chars().map(String::from).collect();
    for _ in 0..=dice.roll(2) {
        let at = dice.roll(characters.len());
        match dice.roll(3) {
            0 => drop(characters.remove(at)),
            1 => characters.insert(at, dice.one(MEANINGFUL).to_owned()),
            _ => characters.splice(at..=at, [dice.one(MEANINGFUL).to_owned()]).for_each(drop),
        }
    }
    questions + &characters.concat()
}

fn intact(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..=dice.roll(3) {
        text.push_str(&format!("#? {}\n", dice.one(HOSTS)));
    }
    for _ in 0..dice.roll(3) {
        line(dice, &mut text, "");
    }
    for _ in 0..=dice.roll(5) {
        block(dice, &mut text);
    }
    if dice.happens(15) {
        text.push_str(dice.one(BAD));
        text.push('\n');
    }
    text
}

fn block(dice: &mut Dice, text: &mut String) {
    if dice.happens(60) {
        text.push_str(if dice.happens(90) { "Host" } else { "host =" });
        for _ in 0..=dice.roll(3) {
            text.push(' ');
            text.push_str(dice.one(PATTERNS));
        }
    } else {
        text.push_str(if dice.happens(90) { "Match " } else { "MATCH\t" });
        text.push_str(dice.one(CRITERIA));
    }
    text.push_str(if dice.happens(10) { " # why not\n" } else { "\n" });
    if dice.happens(8) {
        text.push_str("    Include @DIR@/parts/first @DIR@/parts/b*cks\n");
    }
    for _ in 0..=dice.roll(6) {
        let indent = dice.one(&["    ", "\t", "", "  "]);
        line(dice, text, indent);
    }
    if dice.happens(20) {
        text.push_str("\n  # in between\n");
    }
}

fn line(dice: &mut Dice, text: &mut String, indent: &str) {
    let (keyword, values) = VALUES.get(dice.roll(VALUES.len())).expect("as many sides");
    let keyword = match dice.roll(6) {
        0 => keyword.to_ascii_lowercase(),
        1 => keyword.to_ascii_uppercase(),
        _ => (*keyword).to_owned(),
    };
    let between = dice.one(&[" ", " ", " ", "=", " = ", "\t", "   "]);
    let end = dice.one(&["", "", "", " ", "\t", "\r"]);
    text.push_str(&format!("{indent}{keyword}{between}{}{end}\n", dice.one(values)));
}
