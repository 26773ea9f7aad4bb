//! Plans of targets, options and configuration files that exist in these tests alone.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::*;
use crate::ssh::config::{Found, Source};

/// A machine on which only these files are.
#[derive(Default)]
struct Scripted {
    files: BTreeMap<PathBuf, String>,
}

impl World for Scripted {
    fn read(&self, path: &Path) -> Result<Option<Source>, String> {
        let text = self.files.get(path);
        Ok(text.map(|text| Source { bytes: text.clone().into_bytes(), owner: 1000, mode: 0o600 }))
    }

    fn glob(&self, _: &str) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "SSH_AUTH_SOCK").then(|| "/run/agent".to_owned())
    }

    fn succeeds(&self, _: &str) -> Result<Option<bool>, String> {
        Ok(None)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    fn look_up(&self, _: &str, _: Family) -> Option<Found> {
        None
    }

    fn local_host(&self) -> String {
        "laptop".to_owned()
    }

    fn home(&self, user: Option<&str>) -> Option<PathBuf> {
        user.is_none().then(|| "/home/me".into())
    }

    fn user(&self) -> String {
        "me".to_owned()
    }

    fn uid(&self) -> u32 {
        1000
    }
}

fn environment() -> Environment {
    Environment {
        home: "/home/me".into(),
        user: "me".into(),
        agent: Some("/run/agent".into()),
        handed_key: None,
        passphrase: None,
        shell: "/bin/zsh".into(),
        batch: false,
    }
}

fn with(options: &[(&str, &str)]) -> SshOptions {
    SshOptions {
        options: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ..SshOptions::default()
    }
}

fn jumps(list: &[&str]) -> SshOptions {
    SshOptions {
        jumps: list.iter().map(|jump| (*jump).to_owned()).collect(),
        ..SshOptions::default()
    }
}

/// The outcome where `config` is the user's file.
fn outcome(config: &str, target: &str, options: &SshOptions) -> Result<Plan, Problem> {
    let files = BTreeMap::from([("/home/me/.ssh/config".into(), config.to_owned())]);
    resolve_in(target, options, &environment(), &Scripted { files })
}

fn plan_of(config: &str, target: &str, options: &SshOptions) -> Plan {
    outcome(config, target, options).unwrap_or_else(|problem| panic!("{problem}"))
}

fn plan(target: &str, options: &SshOptions) -> Plan {
    plan_of("", target, options)
}

fn labels(plan: &Plan) -> Vec<String> {
    plan.hops().iter().map(Hop::label).collect()
}

#[test]
fn a_bare_host_gets_what_ssh_would_use() {
    let plan = plan("box", &SshOptions::default());
    let hop = plan.target();
    assert_eq!(labels(&plan), ["me@box:22"]);
    let names = ["id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"];
    let keys: Vec<PathBuf> =
        names.iter().map(|name| Path::new("/home/me/.ssh").join(name)).collect();
    assert_eq!(hop.identities, keys);
    assert!(!hop.identities_named && !hop.identities_only && !hop.batch && hop.remember);
    assert_eq!(hop.agent.as_deref(), Some(Path::new("/run/agent")));
    assert_eq!(hop.user_known_hosts[0], Path::new("/home/me/.ssh/known_hosts"));
    assert_eq!(hop.global_known_hosts[0], Path::new("/etc/ssh/ssh_known_hosts"));
    assert_eq!((hop.policy, hop.update_host_keys), (HostKeyPolicy::Ask, UpdateHostKeys::Yes));
    assert_eq!(hop.connect_timeout, Duration::from_secs(10));
    assert_eq!(hop.methods, [Method::PublicKey, Method::KeyboardInteractive, Method::Password]);
    assert_eq!((plan.alive_interval, plan.alive_count), (None, None));
    assert_eq!(hop.algorithms, Algorithms::default());
    assert!(hop.tcp_keep_alive && hop.bind.is_none() && hop.proxy_command.is_none());
}

#[test]
fn an_alias_is_what_the_file_says_of_it() {
    let config = "Host vps\n HostName 10.0.0.1\n Port 2222\n User you\n IdentityFile ~/k\n \
                  CertificateFile ~/k-cert.pub\n IdentitiesOnly yes\n \
                  UserKnownHostsFile ~/a \"/b c/d\"\n GlobalKnownHostsFile none\n HostKeyAlias n\n \
                  StrictHostKeyChecking accept-new\n ConnectTimeout 3\n ConnectionAttempts 2\n \
                  AddressFamily inet\n BindAddress 10.0.0.9\n TCPKeepAlive no\n \
                  ServerAliveInterval 15\n ServerAliveCountMax 2\n RekeyLimit 1G 1h\n \
                  PreferredAuthentications password,gssapi-with-mic,publickey\n CheckHostIP yes\n \
                  IdentityAgent none\n HashKnownHosts yes\n Ciphers aes128-ctr\n";
    let plan = plan_of(config, "vps", &SshOptions::default());
    let hop = plan.target();
    assert_eq!(labels(&plan), ["you@10.0.0.1:2222"]);
    assert_eq!((hop.named.as_str(), hop.host_key_alias.as_deref()), ("vps", Some("n")));
    assert_eq!(hop.identities, [Path::new("/home/me/k")]);
    assert_eq!(hop.certificates, [Path::new("/home/me/k-cert.pub")]);
    assert!(hop.identities_named && hop.identities_only && hop.hash_known_hosts);
    assert_eq!(hop.user_known_hosts, [Path::new("/home/me/a"), Path::new("/b c/d")]);
    assert!(hop.global_known_hosts.is_empty() && hop.agent.is_none() && hop.check_host_ip);
    assert_eq!((hop.policy, hop.update_host_keys), (HostKeyPolicy::AcceptNew, UpdateHostKeys::No));
    assert_eq!((hop.connect_timeout, hop.connection_attempts), (Duration::from_secs(3), 2));
    assert_eq!(hop.family, Family::V4);
    assert_eq!(hop.bind, Some(Bind::Address("10.0.0.9".to_owned())));
    assert!(!hop.tcp_keep_alive);
    let hour = Duration::from_secs(3600);
    assert_eq!(hop.rekey, Rekey { bytes: Some(1 << 30), time: Some(hour) });
    assert_eq!(hop.methods, [Method::Password, Method::PublicKey]);
    assert_eq!(hop.algorithms.ciphers, ["aes128-ctr"]);
    assert_eq!((plan.alive_interval, plan.alive_count), (Some(Duration::from_secs(15)), Some(2)));
    let origin = hop.said.origin("Port").unwrap().to_string();
    assert_eq!(origin, "/home/me/.ssh/config line 3");
}

#[test]
fn the_command_wins_over_the_target_and_both_over_the_file() {
    let config = "Host box\n User file\n Port 1\n IdentityFile ~/file\n AddressFamily inet\n";
    let mut options = with(&[("PORT", "2200"), ("port", "2201"), ("User", "you")]);
    assert_eq!(labels(&plan_of(config, "other@box:22", &options)), ["you@box:2200"]);
    options.port = Some(2222);
    options.user = Some("flag".into());
    assert_eq!(labels(&plan_of(config, "other@box:22", &options)), ["flag@box:2222"]);
    let options = SshOptions::default();
    assert_eq!(labels(&plan_of(config, "other@box:22", &options)), ["other@box:22"]);
    let options = SshOptions {
        identities: vec!["/k 1".into()],
        family: Family::V6,
        ..with(&[("HostName", "::1")])
    };
    let plan = plan_of(config, "box", &options);
    assert_eq!(labels(&plan), ["file@[::1]:1"]);
    assert_eq!(plan.target().identities, [Path::new("/k 1"), Path::new("/home/me/file")]);
    assert_eq!(plan.target().family, Family::V6);
}

#[test]
fn a_jump_host_goes_by_the_files_and_not_by_the_options_of_the_command() {
    let config = "Host one\n HostName 10.0.0.1\n User a\n IdentityFile ~/one\n \
                  UserKnownHostsFile ~/known1\n LocalForward 1 localhost:1\n\
                  Host two\n Port 2\nHost *\n User everybody\n";
    let options = SshOptions {
        port: Some(2222),
        user: Some("you".into()),
        identities: vec!["/k".into()],
        family: Family::V6,
        host_key_pin: Some(format!("SHA256:{}", "a".repeat(43))),
        no_remember: true,
        ..jumps(&["one:2200", "b@two,[::1]:23"])
    };
    let options = SshOptions { options: with(&[("HostKeyAlias", "alias")]).options, ..options };
    let plan = plan_of(config, "box", &options);
    assert_eq!(labels(&plan), ["a@10.0.0.1:2200", "b@two:2", "everybody@[::1]:23", "you@box:2222"]);
    assert_eq!(plan.via().len(), 3);
    let one = &plan.hops()[0];
    assert_eq!(one.identities, [Path::new("/home/me/one")]);
    assert_eq!(one.user_known_hosts, [Path::new("/home/me/known1")]);
    for hop in &plan.hops()[..3] {
        assert_eq!((hop.host_key_alias.as_deref(), hop.pin.as_deref()), (None, None));
        assert_eq!((hop.family, hop.remember), (Family::Any, false));
        assert!(!hop.identities.contains(&"/k".into()));
    }
    let target = plan.target();
    assert!(target.pin.is_some() && target.family == Family::V6 && !target.remember);
    assert!(plan.forwards.local.is_empty());
}

#[test]
fn jump_hosts_have_jump_hosts_of_their_own() {
    let config = "Host inner\n ProxyJump middle\nHost middle\n ProxyJump you@outer:23\n\
                  Host outer\n ProxyCommand nc -X 5 %h %p\n";
    let plan = plan_of(config, "inner", &SshOptions::default());
    assert_eq!(labels(&plan), ["you@outer:23", "me@middle:22", "me@inner:22"]);
    let command = plan.hops()[0].proxy_command.clone().unwrap();
    assert_eq!(
        (command.line.as_str(), command.shell.as_path()),
        ("nc -X 5 outer 23", Path::new("/bin/zsh"))
    );
    assert_eq!(command.origin, "/home/me/.ssh/config line 6");
    assert!(plan.hops()[1..].iter().all(|hop| hop.proxy_command.is_none()));
    // The list of the command is the way to its last host, whatever the files say of that one.
    let direct = plan_of(config, "box", &jumps(&["first", "middle"]));
    assert_eq!(labels(&direct), ["me@first:22", "me@middle:22", "me@box:22"]);
    let first = plan_of(config, "box", &jumps(&["middle", "last"]));
    assert_eq!(labels(&first), ["you@outer:23", "me@middle:22", "me@last:22", "me@box:22"]);
}

#[test]
fn none_ends_the_jumps_and_the_first_word_wins() {
    let config = "Host a\n ProxyJump none\nHost b\n ProxyCommand nc %h %p\nHost *\n ProxyJump jump\n\
                  Host jump\n";
    // As with ssh, a jump host that the pattern covers as well would lead to itself.
    let config = config.replace("Host *\n", "Host a b c\n");
    let default = SshOptions::default();
    assert_eq!(plan_of(&config, "a", &default).hops().len(), 1);
    let commanded = plan_of(&config, "b", &default);
    assert_eq!((commanded.hops().len(), commanded.target().proxy_command.is_some()), (1, true));
    assert_eq!(plan_of(&config, "c", &default).hops().len(), 2);
    assert_eq!(plan_of(&config, "c", &jumps(&["none"])).hops().len(), 1);
    let jumped = plan_of(&config, "b", &with(&[("ProxyJump", "x")]));
    assert_eq!((labels(&jumped).len(), jumped.target().proxy_command.is_some()), (2, false));
    let commanded = plan_of(&config, "c", &with(&[("ProxyCommand", "nc %h %p")]));
    let line = commanded.target().proxy_command.as_ref().map(ToString::to_string);
    assert_eq!((commanded.hops().len(), line.as_deref()), (1, Some("nc c 22")));
    assert_eq!(plan_of(&config, "b", &with(&[("ProxyCommand", "none")])).hops().len(), 1);
}

#[test]
fn circles_and_endless_ways_are_refused_with_the_chain() {
    let circle = "Host a\n ProxyJump b\nHost b\n ProxyJump c\nHost c\n ProxyJump a\n";
    let problem = outcome(circle, "a", &SshOptions::default()).unwrap_err();
    assert_eq!(problem.class, Class::Config);
    assert!(problem.message.contains("a, through b, through c, through a"), "{problem}");
    let everybody = "Host *\n ProxyJump jump\n";
    let problem = outcome(everybody, "box", &SshOptions::default()).unwrap_err();
    assert!(problem.message.contains("line 2: ProxyJump: `jump`"), "{problem}");
    let names: Vec<String> = (0..8).map(|number| format!("h{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let problem = outcome("", "box", &jumps(&names)).unwrap_err();
    assert!(problem.message.contains("more than 8 hops: box, through h7"), "{problem}");
    assert_eq!(plan("box", &jumps(&names[..7])).hops().len(), 8);
}

#[test]
fn batch_mode_leaves_only_keys() {
    let hop = plan("box", &with(&[("BatchMode", "yes")])).target().clone();
    assert!(hop.batch);
    assert_eq!(hop.methods, [Method::PublicKey]);
    // Where nobody can be asked this holds for every hop, whatever the files say.
    let batch = environment().with_batch(true);
    let plan = resolve_in(
        "box",
        &jumps(&["one"]),
        &batch,
        &Scripted {
            files: BTreeMap::from([("/home/me/.ssh/config".into(), "BatchMode no\n".into())]),
        },
    )
    .unwrap();
    assert!(plan.hops().iter().all(|hop| hop.batch && hop.methods == [Method::PublicKey]));
    let options = with(&[("PasswordAuthentication", "no"), ("PubkeyAuthentication", "no")]);
    let hop = self::plan("box", &options).target().clone();
    assert_eq!(hop.methods, [Method::KeyboardInteractive]);
}

#[test]
fn the_policies_of_openssh() {
    let cases = [
        ("yes", HostKeyPolicy::Strict),
        ("ASK", HostKeyPolicy::Ask),
        ("accept-new", HostKeyPolicy::AcceptNew),
        ("no", HostKeyPolicy::AcceptNew),
        ("off", HostKeyPolicy::AcceptNew),
    ];
    for (value, policy) in cases {
        let options = with(&[("StrictHostKeyChecking", value)]);
        assert_eq!(plan("box", &options).target().policy, policy, "{value}");
    }
}

#[test]
fn further_keys_are_taken_up_where_ssh_would() {
    let update = |options: &[(&str, &str)]| plan("box", &with(options)).target().update_host_keys;
    assert_eq!(update(&[("UserKnownHostsFile", "/k")]), UpdateHostKeys::No);
    assert_eq!(update(&[("VerifyHostKeyDNS", "yes")]), UpdateHostKeys::No);
    assert_eq!(update(&[("UpdateHostKeys", "ask")]), UpdateHostKeys::Ask);
    assert_eq!(
        update(&[("UserKnownHostsFile", "/k"), ("UpdateHostKeys", "yes")]),
        UpdateHostKeys::Yes
    );
}

#[test]
fn everything_wrong_on_the_command_line_is_a_matter_of_usage() {
    let problem =
        outcome("", "box", &with(&[("NoSuchKeyword", "x"), ("Port", "0"), ("BatchMode", "maybe")]))
            .unwrap_err();
    assert_eq!(problem.class, Class::Usage);
    for part in ["NoSuchKeyword", "Port", "maybe"] {
        assert!(problem.message.contains(part), "{part} is missing in: {problem}");
    }
    let mut options = jumps(&["-oX"]);
    assert_eq!(outcome("", "box", &options).unwrap_err().class, Class::Usage);
    options.host_key_pin = Some("MD5:00".into());
    let problem = outcome("", "-box", &options).unwrap_err();
    assert!(problem.message.contains("`-box`") && problem.message.contains("MD5:00"), "{problem}");
    assert!(problem.fix.unwrap().contains("ssh-keygen -l"));
}

#[test]
fn everything_wrong_in_a_file_is_listed_with_its_place() {
    let config = "Host box\n Port many\n NoSuchKeyword x\n";
    let problem = outcome(config, "box", &SshOptions::default()).unwrap_err();
    assert_eq!(problem.class, Class::Config);
    for part in ["/home/me/.ssh/config line 2: Port", "line 3: NoSuchKeyword"] {
        assert!(problem.message.contains(part), "{part} is missing in: {problem}");
    }
    let weaker = outcome("RevokedHostKeys /etc/revoked\n", "box", &SshOptions::default());
    let problem = weaker.unwrap_err();
    assert_eq!(problem.class, Class::Config);
    assert!(problem.message.contains("line 1: RevokedHostKeys"), "{problem}");
    let jump = outcome("Host j\n Port many\n", "box", &jumps(&["j"])).unwrap_err();
    assert!(jump.message.contains("line 2: Port"), "{jump}");
}

#[test]
fn names_that_could_do_harm_never_become_a_plan() {
    let commanded = "Host *\n ProxyCommand connect %h %r\n";
    for target in ["-oProxyCommand=x", "$(id)", "`id`", "a\nb", "a;b", "me;x@box", "a b"] {
        let problem = outcome(commanded, target, &SshOptions::default()).unwrap_err();
        assert_eq!(problem.class, Class::Usage, "{target}");
    }
    for options in [
        with(&[("User", "$(id)")]),
        with(&[("HostName", "-oProxyCommand=x")]),
        with(&[("HostName", "a;b")]),
        jumps(&["$(id)"]),
        jumps(&["a", "-oX"]),
    ] {
        assert!(outcome(commanded, "box", &options).is_err(), "{options:?}");
    }
    for config in ["HostName $(id)\n", "HostName -x\n"] {
        assert!(outcome(config, "box", &SshOptions::default()).is_err(), "{config}");
    }
}

#[test]
fn forwards_of_the_target_are_in_the_plan() {
    let config = "Host box\n LocalForward 18789 localhost:18789\n LocalForward *:8080 db:80\n \
                  RemoteForward 9 localhost:9\n DynamicForward 1080\n";
    let plan = plan_of(config, "box", &SshOptions::default());
    let ports: Vec<u16> =
        plan.forwards.local.iter().filter_map(|forward| forward.listen.port()).collect();
    assert_eq!(ports, [18789, 8080]);
    assert_eq!(plan.forwards.remote[0].to_string(), "9:localhost:9");
    assert_eq!(plan.forwards.left_out.len(), 1);
    assert!(plan.forwards.left_out[0].contains("config line 5"), "{:?}", plan.forwards.left_out);
    let cleared = plan_of(config, "box", &with(&[("ClearAllForwardings", "yes")]));
    assert_eq!(cleared.forwards, Forwards::default());
    let strict = outcome(config, "box", &with(&[("ExitOnForwardFailure", "yes")])).unwrap_err();
    assert_eq!(strict.class, Class::Config);
    assert!(strict.message.contains("DynamicForward"), "{strict}");
}

#[test]
fn no_file_and_another_file() {
    let options =
        |file: &str| SshOptions { config_file: Some(file.into()), ..SshOptions::default() };
    let files = BTreeMap::from([
        ("/home/me/.ssh/config".into(), "User config\n".to_owned()),
        ("/other".into(), "User other\n".to_owned()),
    ]);
    let world = Scripted { files };
    let user = |file: &str| {
        resolve_in("box", &options(file), &environment(), &world)
            .map(|plan| plan.target().user.clone())
    };
    assert_eq!(user("none").unwrap(), "me");
    assert_eq!(user("/other").unwrap(), "other");
    let problem = user("/missing").unwrap_err();
    assert!(problem.message.contains("/missing"), "{problem}");
}

#[test]
fn this_process_has_a_home_and_a_user() {
    let environment = Environment::of_process().with_agent(None);
    assert!(environment.home.is_absolute() && !environment.user.is_empty());
    assert!(environment.agent.is_none() && environment.shell.is_absolute());
}

#[test]
fn known_hosts_that_are_others_in_every_folder_are_refused() {
    for keyword in ["UserKnownHostsFile", "GlobalKnownHostsFile"] {
        for value in ["known", "~/known ./known", "\"\\~/known\""] {
            let config = format!("Host box\n {keyword} {value}\n");
            let problem = outcome(&config, "box", &SshOptions::default()).unwrap_err();
            assert_eq!(problem.class, Class::Config, "{value}");
            let expected = format!("config line 2: {keyword}");
            assert!(problem.message.contains(&expected), "{problem}");
        }
        plan_of(&format!("{keyword} none\n"), "box", &SshOptions::default());
    }
}

#[test]
fn an_address_may_have_a_zone_wherever_it_is_said() {
    assert_eq!(labels(&plan("me@fe80::1%lo", &SshOptions::default())), ["me@[fe80::1%lo]:22"]);
    let config =
        "Host box\n HostName fe80::1%%lo\n ProxyCommand nc %h\nHost by\n ProxyJump [fe80::2%lo]\n";
    let plan = plan_of(config, "box", &SshOptions::default());
    assert_eq!(labels(&plan), ["me@[fe80::1%lo]:22"]);
    assert_eq!(plan.target().proxy_command.clone().unwrap().line, "nc fe80::1%lo");
    let plan = plan_of(config, "by", &SshOptions::default());
    assert_eq!(labels(&plan), ["me@[fe80::2%lo]:22", "me@by:22"]);
}

#[test]
fn a_jump_host_may_be_named_by_tokens_of_the_target() {
    let config = "Host web*\n HostName %h.inner\n Port 2200\n User anna\n \
                  ProxyJump %r@one.%n,%r@two:23\nHost box\n HostName a\n ProxyJump gate.%p.%h\n";
    let plan = plan_of(config, "web1", &SshOptions::default());
    let expected = ["anna@one.web1:22", "anna@two:23", "anna@web1.inner:2200"];
    assert_eq!(labels(&plan), expected);
    let plan = plan_of(config, "box", &SshOptions::default());
    assert_eq!(labels(&plan), ["me@gate.22.a:22", "me@a:22"]);
    let foreign = "Host box\n User CORP\\\\anna\n ProxyJump %r@gate\n";
    let problem = outcome(foreign, "box", &SshOptions::default()).unwrap_err();
    assert!(problem.message.contains("line 3: ProxyJump"), "{problem}");
}

#[test]
fn what_may_pass_by_itself_is_no_mistake_of_the_file() {
    let late = "Match exec \"slow\"\n User x\n";
    let unknown =
        "CanonicalizeHostname yes\nCanonicalDomains a.example\nCanonicalizeFallbackLocal no\n";
    for config in [late, unknown] {
        let problem = outcome(config, "box", &SshOptions::default()).unwrap_err();
        assert_eq!(problem.class, Class::Unreachable, "{problem}");
        let wrong = format!("Nonsense yes\n{config}");
        let problem = outcome(&wrong, "box", &SshOptions::default()).unwrap_err();
        assert_eq!(problem.class, Class::Config, "{problem}");
    }
}
