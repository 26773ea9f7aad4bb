//! Aliases as people have them: hosts, jumps, commands and forwards from an ssh configuration file.

use std::{fs, net::TcpListener, time::Duration};

use serde_json::Value;

use crate::support::{
    Home, OurGateway, Peer, Ran, Scene, Sshd, answers, free_port, openclaw, present, wait_until,
};

/// The error of a command that must fail with `code`.
#[track_caller]
fn error_of(ran: Ran, code: i32) -> Value {
    let ran = ran.exits(code);
    ran.json()["error"].clone()
}

/// What `error` says.
fn message(error: &Value) -> String {
    error["message"].as_str().expect("a message").to_owned()
}

#[test]
fn an_alias_is_all_that_has_to_be_typed() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let config = scene.laptop.write("ssh_config", &scene.sshd.block("myhost"));
    let status = scene.dialling_by_file(&config).args(["--json", "myhost"]).run().exits(0).json();
    assert_eq!(status["name"], "myhost", "{status:#}");
    let place = format!("@127.0.0.1:{}", scene.sshd.port());
    assert!(status["target"].as_str().is_some_and(|it| it.ends_with(&place)), "{status:#}");
    scene.laptop(&["health"]);
    scene.sshd.kill_sessions();
    scene.laptop(&["health"]);
    // What was typed is what is saved.
    let saved = scene.laptop.remotes();
    let saved = &saved["remotes"]["myhost"];
    assert_eq!(saved["target"], "myhost", "{saved:#}");
    assert_eq!(saved["ssh"]["configFile"], config.display().to_string(), "{saved:#}");
    assert_eq!(saved["ssh"]["options"], serde_json::json!([]), "{saved:#}");
    scene.laptop(&["remote", "disconnect"]);
    scene.laptop(&["remote", "connect", "--batch"]);
}

#[test]
fn hops_have_users_ports_keys_and_known_hosts_of_their_own() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (outer, inner) = (Sshd::start(&[]), Sshd::start(&[]));
    let blocks = [
        scene.sshd.block("myhost") + "  ProxyJump inner\n",
        inner.block("inner") + "  ProxyJump outer\n",
        outer.block("outer"),
    ];
    let config = scene.laptop.write("ssh_config", &blocks.concat());
    let status = scene.dialling_by_file(&config).args(["--json", "myhost"]).run().exits(0).json();
    let via: Vec<&str> =
        status["via"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(via.len(), 2, "{status:#}");
    assert!(via[0].ends_with(&format!(":{}", outer.port())), "{status:#}");
    assert!(via[1].ends_with(&format!(":{}", inner.port())), "{status:#}");
    for sshd in [&outer, &inner, &scene.sshd] {
        assert!(sshd.log().contains("Accepted publickey"), "{}", sshd.log());
    }
    scene.laptop(&["health"]);
    inner.kill_sessions();
    scene.laptop(&["health"]);
}

#[test]
fn a_jump_host_without_its_key_in_the_files_is_not_let_in_by_the_one_of_the_command() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let jump = Sshd::start(&[]);
    let lines = jump.block("jump");
    let keyless: Vec<&str> = lines.lines().filter(|line| !line.contains("IdentityFile")).collect();
    let block = keyless.join("\n") + "\n  IdentityFile none\n";
    let config = scene.laptop.write("ssh_config", &(block + &scene.sshd.block("myhost")));
    let run = scene.dialling_by_file(&config).args(["--json", "-J", "jump", "-i"]);
    let error = error_of(run.arg(jump.key()).arg("myhost").run(), 4);
    assert!(message(&error).contains(&jump.port().to_string()), "{error:#}");
    assert!(error["fix"].as_str().is_some_and(|fix| fix.contains("Host jump")), "{error:#}");
}

#[test]
fn a_proxy_command_leads_to_the_host() {
    if !present(&[Peer::OpenSsh, Peer::Netcat]) {
        return;
    }
    let scene = Scene::new();
    let block = scene.sshd.block("myhost") + "  ProxyCommand nc %h %p\n";
    let config = scene.laptop.write("ssh_config", &block);
    scene.dialling_by_file(&config).arg("myhost").run().exits(0);
    scene.laptop(&["health"]);
    let commands = || {
        let of_home = scene.laptop.processes().into_iter();
        of_home.filter(|(_, words)| words.starts_with("nc ")).count()
    };
    assert_eq!(commands(), 1);
    scene.sshd.kill_sessions();
    scene.laptop(&["health"]);
    scene.laptop(&["remote", "disconnect"]);
    wait_until("the proxy command ends", Duration::from_secs(5), || {
        (commands() == 0).then_some(())
    });
}

#[test]
fn a_proxy_command_may_be_ssh_itself() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let jump = Sshd::start(&[]);
    let path = scene.laptop.path("ssh_config");
    let block = scene.sshd.block("myhost")
        + &format!("  ProxyCommand ssh -F {} -W %h:%p jump\n", path.display());
    scene.laptop.write("ssh_config", &(block + &jump.block("jump")));
    scene.dialling_by_file(&path).arg("myhost").run().exits(0);
    scene.laptop(&["health"]);
    jump.kill_sessions();
    // Nothing of the command is left when the home ends: that is looked at there.
    scene.laptop(&["health"]);
}

#[test]
fn a_proxy_command_that_fails_is_quoted() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let tries = [
        ("sh -c 'echo no way >&2; exit 7'", 3, "status 7: no way"),
        ("/nonexistent/program", 2, "status 127"),
        ("sh -c 'echo thinking >&2; sleep 600'", 3, "within 1 s: thinking"),
        ("yes garbage", 3, "does not speak SSH"),
        ("true", 3, "ended without an error before"),
    ];
    for (command, code, expected) in tries {
        let block =
            scene.sshd.block("myhost") + &format!("  ConnectTimeout 1\n  ProxyCommand {command}\n");
        let config = scene.laptop.write("ssh_config", &block);
        let run = scene.dialling_by_file(&config).args(["--timeout", "3", "--json", "myhost"]);
        let error = error_of(run.run(), code);
        assert!(message(&error).contains(expected), "{command}: {error:#}");
    }
}

#[test]
fn ipv6_literals_are_targets_and_hops() {
    if !present(&[Peer::OpenSsh]) || TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let scene = Scene::with(&["ListenAddress ::1"]);
    let jump = Sshd::start(&["ListenAddress ::1"]);
    let of_v6 = |sshd: &Sshd| sshd.known_hosts_line(sshd.port()).replace("127.0.0.1", "::1");
    let known = of_v6(&scene.sshd) + &of_v6(&jump);
    let known = scene.laptop.write("known_hosts", &known);
    jump.allow_key_of(&scene.sshd);
    let config = format!(
        "Host ::1\n  IdentityFile {}\n  IdentityAgent none\n  UserKnownHostsFile {}\n",
        scene.sshd.key().display(),
        known.display()
    );
    let config = scene.laptop.write("ssh_config", &config);
    let user = crate::support::user();
    let target = format!("{user}@[::1]:{}", scene.sshd.port());
    let hop = format!("{user}@[::1]:{}", jump.port());
    let run = scene.dialling_by_file(&config).args(["--json", "-J", &hop, &target]);
    let status = run.run().exits(0).json();
    assert_eq!(status["via"][0], hop, "{status:#}");
    assert_eq!(status["target"], target, "{status:#}");
    scene.laptop(&["health"]);
    let url = format!("ssh://{user}@[::1]:{}/", scene.sshd.port());
    scene.dialling_by_file(&config).args(["--name", "url", &url]).run().exits(0);
}

#[test]
fn hostile_names_never_reach_a_shell() {
    let home = Home::new();
    let canary = home.path("canary");
    let shown = canary.display();
    let config = "Host *\n  ProxyCommand sh -c 'echo %h %n %r >/dev/null; true'\n  \
                  ConnectTimeout 1\nMatch exec \"test %n = x\"\n  User y\n";
    let config = home.write("ssh_config", config);
    let names = [
        format!("-oProxyCommand=touch {shown}"),
        format!("$(touch {shown})"),
        format!("`touch {shown}`"),
        format!("x;touch {shown}"),
        format!("x\ntouch {shown}"),
        format!("$(touch {shown})@x"),
        format!("x|touch {shown}"),
        format!("'$(touch {shown})'"),
    ];
    for name in &names {
        let connect = |words: &[&str]| {
            openclaw(&home)
                .args(["remote", "connect", "--batch", "--json", "--token", "t", "-F"])
                .arg(&config)
                .args(words)
                .run()
        };
        for ran in [
            connect(&[name]),
            connect(&["--", name]),
            connect(&["-J", name, "--", "box"]),
            connect(&["-l", name, "--", "box"]),
            connect(&["-o", &format!("HostName={name}"), "--", "box"]),
            connect(&["-o", &format!("User={name}"), "--", "box"]),
        ] {
            assert_eq!(ran.json()["error"]["class"], "usage", "{ran}");
            assert_eq!(ran.code, 2, "{ran}");
        }
    }
    assert!(!canary.exists(), "a name was run");
}

#[test]
fn mistakes_in_the_file_are_listed_with_their_lines() {
    let home = Home::new();
    let text = "Host box\n  Port many\n  NoSuchKeyword x\n  StrictHostKeyChecking perhaps\n";
    let config = home.write("ssh_config", text);
    let connect = |file: &std::path::Path| {
        let run = openclaw(&home).args(["remote", "connect", "--batch", "--json", "-F"]).arg(file);
        error_of(run.arg("box").run(), 2)
    };
    let error = connect(&config);
    assert_eq!(error["class"], "config", "{error:#}");
    for part in ["line 2: Port", "line 3: NoSuchKeyword", "line 4: StrictHostKeyChecking"] {
        let part = format!("{} {part}", config.display());
        assert!(message(&error).contains(&part), "{part} is missing in {error:#}");
    }
    let error = connect(&home.path("missing"));
    assert!(message(&error).contains("missing"), "{error:#}");
    fs::write(&config, "RevokedHostKeys /etc/revoked\n").expect("a file");
    let error = connect(&config);
    assert!(message(&error).contains("line 1: RevokedHostKeys"), "{error:#}");
    let circle = home
        .write("circle", "Host box\n ProxyJump a\nHost a\n ProxyJump b\nHost b\n ProxyJump a\n");
    let error = connect(&circle);
    assert!(message(&error).contains("circle: box, through a, through b, through a"), "{error:#}");
    assert!(home.remotes().is_null() || home.remotes()["remotes"] == serde_json::json!({}));
}

#[test]
fn forwards_of_the_file_are_made_and_the_gateways_own_is_ours() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let other_home = Home::new();
    let other = OurGateway::start(&other_home);
    let (own, extra, taken) = (free_port(), free_port(), free_port());
    let holder = TcpListener::bind(("127.0.0.1", taken)).expect("a port");
    let block = scene.sshd.block("myhost")
        + &format!("  LocalForward {own} localhost:{}\n", scene.gateway.port())
        + &format!("  LocalForward {extra} 127.0.0.1:{}\n", other.port())
        + &format!("  LocalForward {taken} 127.0.0.1:{}\n", other.port())
        + "  DynamicForward 1080\n";
    let config = scene.laptop.write("ssh_config", &block);
    let ran = scene.dialling_by_file(&config).args(["--json", "myhost"]).run().exits(0);
    let status = ran.json();
    assert_eq!(status["localPort"], own, "{status:#}");
    assert!(answers(own, "/healthz") && answers(extra, "/healthz"));
    let forwards = status["forwards"].as_array().expect("forwards");
    assert_eq!(forwards.len(), 2, "{status:#}");
    assert_eq!(forwards[1]["failure"]["class"], "port_in_use", "{status:#}");
    assert!(ran.stderr.contains("DynamicForward"), "{ran}");
    drop(holder);
    // Another connect finds the same way and changes nothing; without the line the port is free.
    scene.dialling_by_file(&config).arg("myhost").run().exits(0);
    let block = block.replace(&format!("LocalForward {extra}"), "LocalForward 1");
    let run = scene.dialling_by_file(&config).args(["-o", "ClearAllForwardings=yes", "myhost"]);
    run.run().exits(0);
    assert!(!answers(extra, "/healthz"));
    let strict = scene.sshd.block("strict") + "  ExitOnForwardFailure yes\n  DynamicForward 1080\n";
    scene.laptop.write("ssh_config", &(block + &strict));
    let error = error_of(scene.dialling_by_file(&config).args(["--json", "strict"]).run(), 2);
    assert!(message(&error).contains("ExitOnForwardFailure"), "{error:#}");
}

#[test]
fn a_file_that_breaks_later_stops_the_remote_and_a_mended_one_lets_it_connect_again() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let block = scene.sshd.block("myhost");
    let config = scene.laptop.write("ssh_config", &block);
    scene.dialling_by_file(&config).arg("myhost").run().exits(0);
    scene.laptop.write("ssh_config", &format!("Nonsense yes\n{block}"));
    scene.sshd.kill_sessions();
    let status = || {
        let ran = scene.laptop(&["remote", "status", "--json", "myhost"]);
        ran.json()[0].clone()
    };
    let blocked = wait_until("the remote is blocked", Duration::from_secs(20), || {
        Some(status()).filter(|status| status["phase"] == "blocked")
    });
    let failure = &blocked["failure"];
    assert_eq!(failure["class"], "config", "{blocked:#}");
    assert!(
        failure["message"].as_str().is_some_and(|it| it.contains("line 1: Nonsense")),
        "{blocked:#}"
    );
    scene.laptop.write("ssh_config", &block);
    scene.laptop(&["remote", "connect", "--batch", "myhost"]);
    scene.laptop(&["health"]);
}

#[test]
fn an_edit_of_the_file_counts_at_the_next_dial() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let config = scene.laptop.write("ssh_config", &scene.sshd.block("myhost"));
    scene.dialling_by_file(&config).arg("myhost").run().exits(0);
    let jump = Sshd::start(&[]);
    let edited = scene.sshd.block("myhost") + "  ProxyJump jump\n" + &jump.block("jump");
    scene.laptop.write("ssh_config", &edited);
    scene.sshd.kill_sessions();
    scene.laptop(&["health"]);
    assert!(jump.log().contains("Accepted publickey"), "{}", jump.log());
}

#[test]
fn a_changed_key_is_refused_even_where_the_file_says_no_checking() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    scene.sshd.change_host_key();
    let block = scene.sshd.block("myhost") + "  StrictHostKeyChecking no\n";
    let config = scene.laptop.write("ssh_config", &block);
    let run = scene.dialling_by_file(&config).args(["--json", "myhost"]);
    let error = error_of(run.run(), 5);
    assert!(message(&error).contains("changed"), "{error:#}");
}

#[test]
fn what_asks_questions_is_not_tried_in_batch_mode() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::with(&[
        "KbdInteractiveAuthentication yes",
        "PasswordAuthentication yes",
        "PubkeyAuthentication no",
    ]);
    let config = scene.laptop.write("ssh_config", &scene.sshd.block("myhost"));
    let error = error_of(scene.dialling_by_file(&config).args(["--json", "myhost"]).run(), 4);
    assert!(!message(&error).is_empty());
    let log = scene.sshd.log();
    assert!(!log.contains("Failed password") && !log.contains("Failed keyboard"), "{log}");
}

#[test]
fn a_slow_configuration_holds_up_neither_the_status_nor_the_end() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let block = scene.sshd.block("myhost");
    let config = scene.laptop.write("ssh_config", &block);
    scene.dialling_by_file(&config).arg("myhost").run().exits(0);
    scene.laptop.stop_supervisor().expect("it ends");
    // Held up for as long as this file is there.
    let gate = scene.laptop.write("gate", "");
    let wait = format!("Match exec \"while test -e {}; do sleep 0.1; done\"\n", gate.display());
    scene.laptop.write("ssh_config", &(block + &wait));
    let status = || openclaw(&scene.laptop).args(["remote", "status", "--json"]).run();
    assert_eq!(status().exits(0).json()[0]["phase"], "connecting");
    scene.laptop.stop_supervisor().expect("it ends though the configuration is not read");
    assert_eq!(status().exits(0).json()[0]["phase"], "connecting");
    fs::remove_file(gate).expect("opening the gate");
    scene.laptop(&["health"]);
}
