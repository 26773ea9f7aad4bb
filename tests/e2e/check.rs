//! `remote check`: every step with its verdict, the exit code of the one that failed, nothing kept.

use std::{ffi::OsString, fs, path::Path, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Home, Peer, Ran, ReferenceGateway, Run, Scene, Sshd, Terminal, free_port, listens, openclaw,
    present, run_to_end, way_in,
};

/// `remote check` by a way in, complete but for gateway, secret and target.
fn checking(home: &Home, way: [OsString; 6]) -> Run {
    openclaw(home).args(["remote", "check", "--batch"]).args(way)
}

/// `remote check` of a scene's gateway, with its secret.
fn check(scene: &Scene) -> Run {
    check_at(scene, scene.gateway.port())
}

/// The same with the gateway at another port of the far side.
fn check_at(scene: &Scene, port: u16) -> Run {
    checking(&scene.laptop, scene.way_in())
        .args(["--remote-port", &port.to_string()])
        .arg("--token-file")
        .arg(scene.gateway.token_file())
        .arg(scene.sshd.target())
}

/// The steps with their marks, in one text; hops by their number.
fn marks(report: &Value) -> String {
    let mark = |step: &Value| {
        let mark = match step["verdict"].as_str() {
            Some("ok") => '+',
            Some("failed") => '!',
            _ => '-',
        };
        let hop = step["hop"].as_u64().map(|number| number.to_string()).unwrap_or_default();
        format!("{mark}{}{hop}", step["step"].as_str().unwrap_or("?"))
    };
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().map(mark).collect::<Vec<_>>().join(" ")
}

/// The detail of a step.
fn detail<'a>(report: &'a Value, name: &str) -> &'a Value {
    let steps = report["steps"].as_array().expect("steps");
    let step = steps.iter().rev().find(|step| step["step"] == name);
    &step.unwrap_or_else(|| panic!("no step {name} in {report:#}"))["detail"]
}

/// Runs a check that must fail, as a script and as a person, and gives its report.
#[track_caller]
fn fails(run: impl Fn() -> Run, code: i32, class: &str) -> Value {
    let report = run().arg("--json").run().exits(code).json();
    assert_eq!(report["ok"], false, "{report:#}");
    assert_eq!(report["error"]["class"], class, "{report:#}");
    assert_eq!(report["error"]["exitCode"], code, "{report:#}");
    let ran = run().run().exits(code);
    let last = ran.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("try: "), "{ran}");
    assert!(ran.stdout.contains("failed"), "{ran}");
    assert!(ran.stderr.is_empty(), "{ran}");
    report
}

/// Fails if a check has started or kept something.
#[track_caller]
fn left_nothing(home: &Home) {
    assert!(home.supervisor().is_none(), "a supervisor was started");
    let rs = home.state().join("rs");
    let kept = fs::read_dir(rs).map(|entries| entries.count()).unwrap_or(0);
    assert_eq!(kept, 0, "files were kept");
}

/// How many connections a server has seen.
fn connections(sshd: &Sshd) -> usize {
    sshd.log().matches("Connection from ").count()
}

#[test]
fn the_good_path_is_told_step_by_step_and_keeps_nothing() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let ran = check(&scene).run().exits(0);
    for word in ["✓ resolve", "✓ name", "✓ host key", "known_hosts:1", "accepted", "✓ secret"]
    {
        assert!(ran.stdout.contains(word), "{word} in {ran}");
    }
    assert!(ran.stdout.contains("everything works"), "{ran}");
    assert!(!ran.stdout.contains(&scene.gateway.token()), "{ran}");
    assert!(!ran.stdout.contains('\u{1b}'), "colours into a pipe: {ran}");
    assert!(ran.stderr.is_empty(), "{ran}");
    assert_eq!(connections(&scene.sshd), 1, "{}", scene.sshd.log());
    let report = check(&scene).arg("--json").run().exits(0).json();
    assert_eq!(
        marks(&report),
        "+resolve +name1 +connect1 +server1 +host_key1 +login1 +forward +gateway +secret"
    );
    assert_eq!(connections(&scene.sshd), 2, "{}", scene.sshd.log());
    left_nothing(&scene.laptop);
}

/// What differs from run to run, replaced by a word of its kind.
fn settled(value: &Value, scene: &Scene) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| {
                let value = match (key.as_str(), value) {
                    (key, Value::Number(_)) if key.ends_with("Ms") => json!("MS"),
                    ("banner", Value::String(_)) => json!("BANNER"),
                    ("kex", Value::String(_)) => json!("KEX"),
                    ("cipher", Value::String(_)) => json!("CIPHER"),
                    ("version", Value::String(_)) => json!("VERSION"),
                    ("mac", _) => json!("MAC"),
                    _ => settled(value, scene),
                };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(values) => values.iter().map(|value| settled(value, scene)).collect(),
        Value::Number(number) if *number == scene.sshd.port().into() => json!("SSH_PORT"),
        Value::Number(number) if *number == scene.gateway.port().into() => json!("GATEWAY_PORT"),
        Value::String(text) => json!(named(text, scene)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A text without the names of this run.
fn named(text: &str, scene: &Scene) -> String {
    let sshd = &scene.sshd;
    let (folder, user) = (sshd.key(), sshd.target());
    let folder = folder.parent().expect("a folder").display().to_string();
    let state = scene.far.state().display().to_string();
    let mut text = text
        .replace(&sshd.fingerprint(), "HOST_KEY")
        .replace(&sshd.client_fingerprint(), "CLIENT_KEY")
        .replace(&folder, "SSHD")
        .replace(&state, "STATE")
        .replace(user.split('@').next().expect("a user"), "USER")
        .replace(&sshd.port().to_string(), "SSH_PORT")
        .replace(&scene.gateway.port().to_string(), "GATEWAY_PORT");
    if text.starts_with("openclaw ") || text.starts_with("SSH-2.0") {
        text = text.split(' ').next().unwrap_or_default().to_owned();
    }
    if text.starts_with("SSH-2.0") { "BANNER".to_owned() } else { text }
}

#[test]
fn the_json_keeps_its_shape() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let report = check(&scene).arg("--json").run().exits(0).json();
    let shown = format!("{:#}\n", settled(&report, &scene));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/check.json");
    if std::env::var_os("OPENCLAW_WRITE_FIXTURES").is_some() {
        fs::write(&path, &shown).expect("writing the fixture");
    }
    let golden = fs::read_to_string(&path).expect("reading the fixture");
    assert_eq!(shown, golden, "the shape has changed; see {}", path.display());
}

#[test]
fn each_hop_has_its_steps_and_one_connection() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let jump = Sshd::start(&[]);
    jump.allow_key_of(&scene.sshd);
    scene.sshd.know(&jump.known_hosts_line(jump.port()));
    let hop = format!("{}:{}", jump.target(), jump.port());
    let text = format!(
        "Host inner\n  HostName 127.0.0.1\n  Port {}\n  ProxyJump outer\n  DynamicForward 1080\n\
         Host outer\n  HostName 127.0.0.1\n  Port {}\n  ControlMaster auto\n  SetEnv A=hunter2\n\
         Host *\n  User {}\n  IdentityFile {}\n  UserKnownHostsFile {}\n",
        scene.sshd.port(),
        jump.port(),
        scene.sshd.target().split('@').next().expect("a user"),
        scene.sshd.key().display(),
        scene.sshd.known_hosts().display(),
    );
    let file = scene.laptop.write("ssh_config", &text);
    let run = || {
        openclaw(&scene.laptop)
            .args(["remote", "check", "--batch", "inner", "-F"])
            .arg(&file)
            .args(["--remote-port", &scene.gateway.port().to_string(), "--token-file"])
            .arg(scene.gateway.token_file())
    };
    let report = run().arg("--json").run().exits(0).json();
    assert_eq!(
        marks(&report),
        "+resolve +name1 +connect1 +server1 +host_key1 +login1 \
         +connect2 +server2 +host_key2 +login2 +forward +gateway +secret"
    );
    assert_eq!(report["hops"][0]["target"], hop, "{report:#}");
    assert_eq!(detail(&report, "connect")["throughHop"], 1, "{report:#}");
    assert_eq!((connections(&jump), connections(&scene.sshd)), (1, 1));
    let port = &report["steps"][2]["settings"][0];
    assert_eq!((&port["keyword"], &port["origin"]["line"]), (&json!("Port"), &json!(8)));
    assert_eq!(port["origin"]["path"], json!(file), "{port:#}");
    let left_out = &detail(&report, "resolve")["forwardsLeftOut"];
    assert!(left_out.to_string().contains("DynamicForward"), "{left_out:#}");
    assert_eq!(report["notHonoured"][0]["keyword"], "ControlMaster", "{report:#}");
    let ran = run().run().exits(0);
    assert!(ran.stdout.contains("hop 2 of 2: inner"), "{ran}");
    assert!(ran.stdout.contains(&format!("Port {}", jump.port())), "{ran}");
    assert!(!ran.stdout.contains("hunter2"), "{ran}");
}

#[test]
fn an_unknown_host_key_in_batch_mode_is_the_end() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    fs::write(scene.sshd.known_hosts(), "").expect("known_hosts");
    let report = fails(|| check(&scene), 5, "host_key");
    assert_eq!(
        marks(&report),
        "+resolve +name1 +connect1 +server1 !host_key1 -login1 -forward -gateway -secret"
    );
    assert_eq!(detail(&report, "host_key")["standing"], "unknown");
    assert_eq!(detail(&report, "host_key")["fingerprint"], scene.sshd.fingerprint());
    assert_eq!(fs::read_to_string(scene.sshd.known_hosts()).expect("known_hosts"), "");
    left_nothing(&scene.laptop);
}

#[test]
fn a_host_key_that_a_person_takes_is_written_down_as_by_connect() {
    if !present(&[Peer::OpenSsh, Peer::Script]) {
        return;
    }
    let scene = Scene::new();
    let known_hosts = scene.laptop.write("known_hosts", "");
    let run = openclaw(&scene.laptop)
        .args(["remote", "check", "-F", "none"])
        .args(way_in(scene.sshd.port(), &scene.sshd.key(), &known_hosts))
        .args(["--remote-port", &scene.gateway.port().to_string()])
        .arg(scene.sshd.target())
        .limit(Duration::from_secs(60));
    let mut terminal = Terminal::start(run);
    terminal.shows(&scene.sshd.fingerprint());
    terminal.types("yes");
    terminal.shows("Read it over this login?");
    terminal.types("y");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("taken by a person"), "{screen}");
    let words: Vec<&str> = screen.split_whitespace().collect();
    assert!(words.join(" ").contains("read over this login: accepted"), "{screen}");
    assert!(!screen.contains(&scene.gateway.token()), "{screen}");
    let known = fs::read_to_string(&known_hosts).expect("known_hosts");
    assert!(known.contains(&format!("[127.0.0.1]:{}", scene.sshd.port())), "{known}");
    left_nothing(&scene.laptop);
}

#[test]
fn a_changed_host_key_names_the_line_that_has_another() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    scene.sshd.change_host_key();
    let report = fails(|| check(&scene), 5, "host_key");
    assert_eq!(
        marks(&report),
        "+resolve +name1 +connect1 +server1 !host_key1 -login1 -forward -gateway -secret"
    );
    let detail = detail(&report, "host_key");
    assert_eq!(detail["standing"], "changed");
    let line = json!({"path": scene.sshd.known_hosts(), "line": 1});
    assert_eq!(detail["lines"], json!([line]));
    assert!(report["error"]["fix"].as_str().is_some_and(|fix| fix.contains("ssh-keygen -R")));
}

#[test]
fn a_wrong_key_is_told_with_the_servers_methods_after_one_connection() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::with(&["PasswordAuthentication yes"]);
    let stranger = scene.sshd.stranger_key();
    let way = || way_in(scene.sshd.port(), &stranger, &scene.sshd.known_hosts());
    let run = || {
        checking(&scene.laptop, way())
            .args(["-o", "PasswordAuthentication=no", "-o", "IdentityAgent=none"])
            .arg(scene.sshd.target())
    };
    let ran = run().arg("--json").run().exits(4);
    assert_eq!(connections(&scene.sshd), 1, "{}", scene.sshd.log());
    let report = ran.json();
    assert_eq!(
        marks(&report),
        "+resolve +name1 +connect1 +server1 +host_key1 !login1 -forward -gateway -secret"
    );
    let detail = detail(&report, "login");
    assert_eq!(detail["offered"], json!(["publickey", "password"]), "{detail:#}");
    assert_eq!(detail["keys"][0]["answer"], "refused", "{detail:#}");
    assert_eq!(detail["keys"][0]["file"], json!(stranger), "{detail:#}");
    assert_eq!(detail["methods"][0]["method"], "password", "{detail:#}");
    assert_eq!(detail["methods"][0]["answer"], "not_tried", "{detail:#}");
    let ran = run().run().exits(4);
    let reason = "not tried  password: PasswordAuthentication is no, the command line";
    assert!(ran.stdout.contains(reason), "{ran}");
}

#[test]
fn nothing_behind_the_forward_is_no_gateway() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let port = free_port();
    let report = fails(|| check_at(&scene, port), 7, "gateway_down");
    assert!(marks(&report).ends_with("+login1 +forward !gateway -secret"), "{report:#}");
}

#[test]
fn something_else_behind_the_forward_is_no_gateway() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let report = fails(|| check_at(&scene, scene.sshd.port()), 7, "gateway_down");
    assert!(marks(&report).ends_with("+login1 +forward !gateway -secret"), "{report:#}");
}

#[test]
fn a_forward_that_the_server_forbids() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::with(&["AllowTcpForwarding no"]);
    let report = fails(|| check(&scene), 9, "forward_refused");
    assert!(marks(&report).ends_with("+login1 !forward -gateway -secret"), "{report:#}");
}

#[test]
fn a_secret_of_another_gateway_and_none_at_all() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let wrong = scene.laptop.write("wrong-token", "hunter2");
    let run = || {
        checking(&scene.laptop, scene.way_in())
            .args(["--remote-port", &scene.gateway.port().to_string()])
            .arg(scene.sshd.target())
    };
    let given = || run().arg("--token-file").arg(&wrong);
    let report = fails(given, 8, "gateway_refused");
    assert!(marks(&report).ends_with("+forward +gateway !secret"), "{report:#}");
    assert_eq!(detail(&report, "secret")["source"], json!(wrong));
    assert!(!report.to_string().contains("hunter2"), "{report:#}");
    let report = fails(run, 8, "gateway_refused");
    assert!(marks(&report).ends_with("+forward +gateway !secret"), "{report:#}");
    assert_eq!(detail(&report, "secret")["source"], "none");
    let report = run().args(["--fetch-token", "--json"]).run().exits(0).json();
    let source = &detail(&report, "secret")["source"];
    assert!(source.as_str().is_some_and(|it| it.contains("over this login")), "{report:#}");
}

#[test]
fn a_host_that_does_not_answer_and_one_that_does_not_exist() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let (home, sshd) = (Home::new(), Sshd::start(&[]));
    let way = || way_in(free_port(), &sshd.key(), &sshd.known_hosts());
    let run = || checking(&home, way()).arg(sshd.target());
    let report = fails(run, 3, "unreachable");
    assert!(marks(&report).starts_with("+resolve +name1 !connect1 -server1"), "{report:#}");
    let nowhere = "HostName=does-not-exist.invalid";
    let report = fails(|| run().args(["-o", nowhere]), 3, "unreachable");
    assert!(marks(&report).starts_with("+resolve !name1 -connect1"), "{report:#}");
}

#[test]
fn a_wrong_option_fails_at_the_first_step() {
    let home = Home::new();
    let run = || openclaw(&home).args(["remote", "check", "-o", "Port=0", "vps"]);
    let report = fails(run, 2, "usage");
    assert!(marks(&report).starts_with("!resolve -name -connect"), "{report:#}");
    left_nothing(&home);
}

#[test]
fn a_saved_remote_is_checked_beside_its_running_tunnel() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let before = scene.laptop.supervisor();
    let report = scene.laptop(&["remote", "check", "vps", "--json"]).json();
    assert_eq!(report["remote"], "vps", "{report:#}");
    assert_eq!(detail(&report, "secret")["source"], "saved for this remote", "{report:#}");
    scene.laptop(&["remote", "check"]);
    assert_eq!(scene.laptop.supervisor(), before);
    assert!(listens(scene.local_port));
    let status = scene.laptop(&["remote", "status", "vps", "--json"]).json();
    assert_eq!((&status[0]["phase"], &status[0]["reconnects"]), (&json!("live"), &json!(0)));
}

#[test]
fn further_forwards_are_tried_and_given_back() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (there, nobody) = (free_port(), free_port());
    let local = format!("{}:127.0.0.1:{}", free_port(), scene.gateway.port());
    let missing = format!("{}:127.0.0.1:{nobody}", free_port());
    let remote = format!("{there}:127.0.0.1:{nobody}");
    let taken = format!("{}:127.0.0.1:{nobody}", scene.gateway.port());
    let tried = |more: &[&str]| {
        let ran = check(&scene).args(["-L", &local, "-L", &missing, "-R", &remote]).args(more);
        let report = ran.arg("--json").run().exits(0).json();
        let tried = detail(&report, "forwards")["forwards"].clone();
        let texts = tried.as_array().expect("a list").iter();
        let said = texts.map(|it| it["text"].as_str().unwrap_or_default().to_owned());
        (marks(&report), said.collect::<Vec<_>>())
    };
    let (marked, said) = tried(&[]);
    assert!(marked.ends_with("+secret +forwards"), "{marked}");
    for words in ["answers", "nothing answers there now", "given back"] {
        assert_eq!(said.iter().filter(|text| text.contains(words)).count(), 1, "{said:?}");
    }
    assert!(!listens(there));
    let (marked, said) = tried(&["-R", &taken]);
    assert!(marked.ends_with("!forwards"), "{marked}");
    assert!(said.iter().any(|text| text.contains("taken over there")), "{said:?}");
}

#[test]
fn a_secret_that_is_bound_elsewhere_is_not_sent() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    scene.connect();
    scene.sshd.change_host_key();
    fs::write(scene.sshd.known_hosts(), scene.sshd.known_hosts_line(scene.sshd.port()))
        .expect("known_hosts");
    let ran: Ran = openclaw(&scene.laptop).args(["remote", "check", "vps", "--json"]).run();
    let report = ran.exits(5).json();
    assert!(marks(&report).ends_with("+login1 +forward +gateway !secret"), "{report:#}");
}

#[test]
fn the_reference_gateway_is_behind_it() {
    if !present(&[Peer::OpenSsh, Peer::OpenClaw]) {
        return;
    }
    let gateway = ReferenceGateway::shared();
    let (home, sshd) = (Home::new(), Sshd::start(&[]));
    let token = home.write("token", ReferenceGateway::TOKEN);
    let report = checking(&home, way_in(sshd.port(), &sshd.key(), &sshd.known_hosts()))
        .args(["--remote-port", &gateway.port().to_string(), "--json", "--token-file"])
        .arg(token)
        .arg(sshd.target())
        .limit(Duration::from_secs(60))
        .run()
        .exits(0)
        .json();
    assert!(marks(&report).ends_with("+forward +gateway +secret"), "{report:#}");
    assert_eq!(detail(&report, "gateway")["protocol"], 4, "{report:#}");
}

#[test]
fn a_wrong_configuration_is_told_with_its_line() {
    let home = Home::new();
    let file = home.write("ssh_config", "Host *\n  Prot 22\n");
    let run = || openclaw(&home).args(["remote", "check", "vps", "-F"]).arg(&file);
    let report = fails(run, 2, "config");
    assert!(marks(&report).starts_with("!resolve -name -connect"), "{report:#}");
    let message = report["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("ssh_config line 2") && message.contains("Prot"), "{message}");
}

/// What both programs print about `host`, with a configuration and options; some lines only
/// Debian's `ssh` has, and one it spells in its own way.
fn both_resolve(home: &Home, text: &str, words: &[&str]) -> (Vec<String>, Vec<String>) {
    let file = home.write("ssh_config", text);
    let mut command = Command::new("ssh");
    command.arg("-G").arg("-F").arg(&file).args(words);
    let theirs = run_to_end(command, Duration::from_secs(20));
    assert!(theirs.status.success(), "{theirs:?}");
    let theirs = String::from_utf8_lossy(&theirs.stdout).into_owned();
    let ours = openclaw(home).args(["remote", "check", "-G", "-F"]).arg(&file).args(words);
    let ours = ours.run().exits(0).stdout;
    let lines = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("gssapi"));
        let mut lines: Vec<String> = lines.map(lower_keyword).collect();
        lines.sort();
        lines
    };
    (lines(&ours), lines(&theirs))
}

fn lower_keyword(line: &str) -> String {
    let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
    format!("{} {value}", keyword.to_ascii_lowercase())
}

#[test]
fn the_resolved_configuration_is_that_of_ssh() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let home = Home::new();
    let cases: [(&str, &[&str]); 19] = [
        ("", &["box"]),
        ("Host box\n HostName 10.0.0.1\n Port 2222\n User me\n", &["box"]),
        ("Host box\n HostName %h.example\nHost *.example\n Port 1\n", &["box"]),
        ("Host * !box\n Port 1\nHost b?x\n Port 2\n", &["me@box"]),
        ("Match host box user me\n Port 7\nMatch all\n Port 8\n", &["me@box"]),
        ("IdentityFile ~/.ssh/a\nIdentityFile \"~/.ssh/b c\"\nIdentitiesOnly yes\n", &["box"]),
        ("ProxyJump a@one:1,[::1]:2\nServerAliveInterval 5m\n", &["box"]),
        ("ProxyCommand nc -x %r@%h %p\nUserKnownHostsFile ~/k1 /k2\n", &["-p", "99", "box"]),
        (
            "Ciphers ^aes128-ctr\nMACs -hmac-sha1*\nKexAlgorithms +diffie-hellman-group14-sha1\n",
            &["box"],
        ),
        ("StrictHostKeyChecking accept-new\nHashKnownHosts yes\nUpdateHostKeys ask\n", &["box"]),
        (
            "LocalForward 18789 127.0.0.1:18789\nRemoteForward 1 [::1]:2\nDynamicForward 9\n",
            &["box"],
        ),
        (
            "PreferredAuthentications password\nNumberOfPasswordPrompts 1\nConnectTimeout 3\n",
            &["-l", "you", "box"],
        ),
        ("Nonsense x\n", &["-o", "IgnoreUnknown=Nonsense", "-o", "AddressFamily=inet6", "box"]),
        ("Port 5\n", &["-o", "Port=3", "-p", "4", "box"]),
        ("Port 5\n", &["-p", "4", "-o", "Port=3", "box"]),
        ("User a\n", &["-l", "b", "-o", "user c", "box"]),
        ("User a\n", &["-o", "user c", "-l", "b", "box"]),
        (
            "LocalForward 1 a:2\n",
            &["-L", "18789:127.0.0.1:18789", "-L", "[::1]:7:c:8", "-R", "*:9:b:8", "box"],
        ),
        ("CanonicalizeHostname no\nRekeyLimit 1G 1h\nControlMaster auto\n", &["-4", "box"]),
    ];
    for (text, words) in cases {
        let (ours, theirs) = both_resolve(&home, text, words);
        let only = |these: &[String], those: &[String]| {
            these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>()
        };
        let differences = (only(&ours, &theirs), only(&theirs, &ours));
        assert_eq!(differences, (vec![], vec![]), "ours, theirs: {text}\n{words:?}");
        assert_eq!(ours.len(), theirs.len(), "{text}\n{words:?}");
    }
}

#[test]
fn the_resolved_configuration_in_json_has_places() {
    let home = Home::new();
    let file = home.write("ssh_config", "Host box\n  Port 2222\n");
    let run = openclaw(&home).args(["remote", "check", "--json", "-G", "-l", "me", "box", "-F"]);
    let value = run.arg(&file).run().exits(0).json();
    let origin = json!({"kind": "file", "path": file, "line": 2});
    assert_eq!(value["port"], json!([{"value": "2222", "origin": origin}]));
    let typed = json!({"kind": "command_line"});
    assert_eq!(value["user"], json!([{"value": "me", "origin": typed}]));
    assert_eq!(value["compression"][0]["origin"]["kind"], "default");
    left_nothing(&home);
}
