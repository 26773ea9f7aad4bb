//! `openclaw.json` in the hands of our commands, of people, and of OpenClaw's own programs.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    Home, OurGateway, Peer, Ran, ReferenceCli, Scene, Wire, connect, openclaw, present,
};

/// As a person writes one.
const FILE: &str = r#"// mine
{
  gateway: {
    port: 18789, // as ever
    auth: { mode: 'token', token: "not-for-your-eyes", },
    "remote": { url: "ws://anna:pw@127.0.0.1:1", password: "${NOT_SET}" },
  },
  /* of another program */
  plugins: { entries: { "a.b": { enabled: true } } },
  skills: { entries: { c: { apiKey: 'nor-this' } } },
}
"#;
const LIMIT: Duration = Duration::from_secs(20);
const PLACE: &str = "home/.openclaw/openclaw.json";

fn home(text: &str) -> Home {
    let home = Home::new();
    home.write(PLACE, text);
    home
}

fn config(home: &Home, words: &[&str]) -> Ran {
    openclaw(home).arg("config").args(words).run()
}

fn text(home: &Home) -> String {
    fs::read_to_string(home.path(PLACE)).expect("openclaw.json")
}

#[test]
fn a_change_leaves_the_rest_of_the_file_as_it_was() {
    let home = home(FILE);
    let set = config(&home, &["set", "gateway.port", "19001"]).exits(0);
    assert!(set.stdout.contains("started again"), "{set}");
    assert_eq!(text(&home), FILE.replace("18789", "19001"));
    config(&home, &["set", "gateway.bind", "lan"]).exits(0);
    config(&home, &["unset", "gateway.bind"]).exits(0);
    config(&home, &["set", "gateway.port", "19001"]).exits(0);
    assert_eq!(text(&home), FILE.replace("18789", "19001"));
    assert_eq!(config(&home, &["get", "gateway.port"]).exits(0).stdout, "19001\n");
    assert_eq!(fs::metadata(home.path(PLACE)).expect("it").mode() & 0o777, 0o600);
}

#[test]
fn no_secret_is_printed() {
    let home = home(FILE);
    for path in ["gateway", "gateway.auth", "gateway.auth.token", "skills", "gateway.remote.url"] {
        for words in [vec!["get", path], vec!["get", path, "--json"]] {
            let got = config(&home, &words).exits(0);
            assert!(got.stdout.contains("__OPENCLAW_REDACTED__"), "{got}");
            for secret in ["not-for-your-eyes", "nor-this", "anna:pw"] {
                assert!(!got.stdout.contains(secret), "{got}");
            }
        }
    }
    let back = config(&home, &["set", "gateway.auth.token", "__OPENCLAW_REDACTED__"]).exits(2);
    assert!(!back.stderr.contains("not-for-your-eyes"), "{back}");
    assert_eq!(text(&home), FILE);
}

#[test]
fn answers_have_the_shapes_of_openclaw() {
    let home = home(FILE);
    let file = home.path(PLACE);
    assert_eq!(config(&home, &["file", "--json"]).exits(0).json(), json!({"path": file}));
    let valid = config(&home, &["validate", "--json"]).exits(0).json();
    let warning = json!({
        "path": "gateway.remote.password", "message": "the environment variable NOT_SET is not set",
    });
    assert_eq!(valid, json!({"valid": true, "path": file, "warnings": [warning]}));
    assert_eq!(config(&home, &["get", "gateway.auth.mode", "--json"]).exits(0).json(), "token");
    let missing = config(&home, &["get", "gateway.tls", "--json"]).exits(1).json();
    assert_eq!(missing["error"]["type"], "cli_error", "{missing:#}");
    let dry = ["set", "gateway.bind", "\"lan\"", "--dry-run", "--json"];
    assert_eq!(
        config(&home, &dry).exits(0).json(),
        json!({
            "ok": true, "operations": 1, "configPath": file, "inputModes": ["json"],
            "checks": {"schema": true, "resolvability": false, "resolvabilityComplete": false},
            "refsChecked": 0, "skippedExecRefs": 0,
        })
    );
    let dry = ["unset", "gateway.tls", "--dry-run", "--json"];
    let missing = config(&home, &dry).exits(1).json();
    assert_eq!(missing["errors"][0]["kind"], "missing-path", "{missing:#}");
    assert_eq!(missing["inputModes"], json!(["unset"]), "{missing:#}");
    assert_eq!(text(&home), FILE);

    home.write(PLACE, "{gateway: {bind: 'moon', port: 0}}");
    let wrong = config(&home, &["validate", "--json"]).exits(2).json();
    assert_eq!(wrong["valid"], false, "{wrong:#}");
    let paths: Vec<&Value> = [0, 1].iter().map(|i| &wrong["issues"][*i]["path"]).collect();
    assert_eq!(paths, ["gateway.port", "gateway.bind"], "{wrong:#}");
    assert_eq!(wrong["issues"][1]["allowedValues"][2], "lan", "{wrong:#}");
    config(&home, &["get", "gateway.port", "--json"]).exits(2).json();
}

#[test]
fn what_would_break_the_file_is_refused() {
    let home = home(FILE);
    for words in [
        vec!["set", "gateway.port", "nonsense"],
        vec!["set", "gateway", "{port: 0, bind: 'moon'}"],
        vec!["set", "gateway.port", "1,", "--strict-json"],
        vec!["set", "gateway..port", "1"],
        vec!["set", "plugins.entries", "{}"],
    ] {
        config(&home, &words).exits(2);
    }
    let both = config(&home, &["set", "gateway", "{port: 0, bind: 'moon'}"]).exits(2);
    assert!(
        both.stderr.contains("gateway.port: ") && both.stderr.contains("gateway.bind: "),
        "{both}"
    );
    let port = config(&home, &["set", "gateway.port", "abc"]).exits(2);
    assert!(port.stderr.contains("try: openclaw config set gateway.port 18789"), "{port}");
    let profile = openclaw(&home).args(["--profile", "a/b", "config", "file"]).run().exits(2);
    assert!(profile.stderr.contains("try: --profile=a-b"), "{profile}");
    config(&home, &["set", "gateway.port", "2", "--expect-current-json", "3"]).exits(1);
    config(&home, &["set", "gateway.port", "2", "--expect-current-absent"]).exits(1);
    config(&home, &["unset", "gateway.tls"]).exits(1);
    let managed = openclaw(&home).env("OPENCLAW_CONFIG_READONLY", "1");
    managed.args(["config", "set", "gateway.port", "2"]).run().exits(2);
    assert_eq!(text(&home), FILE);

    let broken = "{ gateway: { port: ";
    home.write(PLACE, broken);
    config(&home, &["set", "gateway.port", "2"]).exits(2);
    config(&home, &["unset", "gateway.port"]).exits(2);
    assert_eq!(text(&home), broken);
    let deep = "[".repeat(500_000);
    home.write(PLACE, &deep);
    config(&home, &["validate"]).exits(2);
}

#[test]
fn many_writers_lose_nothing() {
    let home = home(FILE);
    let writers: Vec<_> = (0..8)
        .map(|i| {
            openclaw(&home).args(["config", "set", &format!("notes.n{i}"), &i.to_string()]).start()
        })
        .collect();
    for writer in writers {
        writer.end().exits(0);
    }
    let notes = config(&home, &["get", "notes", "--json"]).exits(0).json();
    let all = (0..8).all(|i| notes[format!("n{i}")] == json!(i));
    assert!(all, "{notes:#}");
    assert!(text(&home).starts_with("// mine\n"), "{}", text(&home));
}

#[test]
fn links_variables_and_profiles_lead_to_the_right_file() {
    let home = Home::new();
    let real = home.write("dotfiles/openclaw.json", "{} // real\n");
    fs::create_dir_all(home.state()).expect("the state directory");
    symlink(&real, home.path(PLACE)).expect("a link");
    config(&home, &["set", "gateway.port", "2"]).exits(0);
    assert!(fs::symlink_metadata(home.path(PLACE)).expect("it").is_symlink());
    let written = fs::read_to_string(&real).expect("the real file");
    assert!(written.contains("2") && written.ends_with("// real\n"), "{written}");

    let elsewhere = home.path("elsewhere.json");
    let named = openclaw(&home).env("OPENCLAW_CONFIG_PATH", &elsewhere);
    named.args(["config", "set", "gateway.port", "3"]).run().exits(0);
    assert_eq!(
        fs::read_to_string(&elsewhere).expect("it"),
        "{\n  \"gateway\": {\n    \"port\": 3\n  }\n}\n"
    );
    let other = openclaw(&home).without("OPENCLAW_STATE_DIR");
    let place = other.args(["--profile", "work", "config", "file"]).run().exits(0).stdout;
    assert_eq!(Path::new(place.trim()), home.path("home/.openclaw-work/openclaw.json"));
}

#[test]
fn parts_in_files_of_their_own_are_read_and_left_alone() {
    let home = home("{gateway: {$include: './gateway.json5', mode: 'local'}, $comment: 1}\n");
    home.write("home/.openclaw/gateway.json5", "{port: 4, mode: 'remote'}");
    assert_eq!(config(&home, &["get", "gateway.port"]).exits(0).stdout, "4\n");
    assert_eq!(config(&home, &["get", "gateway.mode"]).exits(0).stdout, "local\n");
    let refused = config(&home, &["set", "gateway.port", "5"]).exits(2);
    assert!(refused.stderr.contains("gateway.json5"), "{refused}");
    config(&home, &["set", "logging.level", "info"]).exits(0);
    home.write("home/.openclaw/gateway.json5", "{port: 'x'}");
    config(&home, &["validate"]).exits(2);
}

/// The files of a folder of `fixtures/openclaw`, in order.
fn fixtures(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/openclaw").join(folder);
    let entries = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("one").path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// The samples that OpenClaw finds in order as well.
fn samples() -> Vec<PathBuf> {
    let split = fixtures("samples/split");
    fixtures("samples").into_iter().chain(split).collect()
}

#[test]
fn every_sample_is_in_order() {
    let home = Home::new();
    let older = fixtures("samples/older");
    assert!(samples().len() >= 13 && older.len() >= 2);
    for sample in samples().into_iter().chain(older) {
        let run = openclaw(&home).env("OPENCLAW_CONFIG_PATH", &sample).env("LAPTOP_TOKEN", "x");
        let valid = run.args(["config", "validate", "--json"]).run().exits(0).json();
        assert_eq!(valid["valid"], true, "{}: {valid:#}", sample.display());
    }
}

#[test]
fn the_page_says_what_every_sample_stands_for() {
    let page = include_str!("../../fixtures/openclaw/README.md");
    for folder in ["", "samples", "samples/older"] {
        for file in fixtures(folder) {
            let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
            let name = Path::new(folder).join(name).display().to_string();
            assert!(name == "README.md" || page.contains(&format!("`{name}`")), "{name}");
        }
    }
}

#[test]
fn what_an_older_file_says_still_counts() {
    let home = home(include_str!("../../fixtures/openclaw/samples/older/list-of-agents.json"));
    let got = |path: &str| config(&home, &["get", path, "--json"]).exits(0).json();
    assert_eq!(got("agents.list[1].id"), "reviewer");
    config(&home, &["set", "logging.level", "debug"]).exits(0);
    assert_eq!(got("channels.telegram.allowFrom"), json!([1_234_567_890]));
    assert!(text(&home).contains("/* many agents, one machine */"), "comments stay");
}

#[test]
fn openclaw_reads_what_we_write_and_finds_the_samples_in_order() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let home = home(FILE);
    let theirs = ReferenceCli::of(&home);
    config(&home, &["set", "gateway.controlUi.allowedOrigins[0]", "https://a.example"]).exits(0);
    let got = theirs.run(&["config", "get", "gateway.controlUi", "--json"]).stdout;
    let got: Value = serde_json::from_slice(&got).expect("JSON");
    assert_eq!(got["allowedOrigins"], json!(["https://a.example"]));
    assert_eq!(got, config(&home, &["get", "gateway.controlUi", "--json"]).json());
    for sample in samples() {
        if sample.ends_with("split/openclaw.json") {
            continue;
        }
        home.write(PLACE, &fs::read_to_string(&sample).expect("a sample"));
        theirs.run(&["config", "validate"]);
    }
}

#[test]
fn openclaws_own_programs_use_the_tunnel_that_was_written_down() {
    if !present(&[Peer::OpenSsh, Peer::OpenClaw]) {
        return;
    }
    let scene = Scene::new();
    scene.laptop.write(PLACE, "// mine\n{ gateway: { mode: 'local' } }\n");
    let connect =
        || scene.dialling().args(["--write-config", "--name", "vps"]).arg(scene.sshd.target());
    let told = connect().run().exits(0);
    assert!(told.stderr.contains("token") && told.stderr.contains("was local"), "{told}");
    let written = text(&scene.laptop);
    assert!(written.starts_with("// mine\n"), "{written}");
    assert_eq!(fs::metadata(scene.laptop.path(PLACE)).expect("it").mode() & 0o777, 0o600);
    let url = config(&scene.laptop, &["get", "gateway.remote.url"]).exits(0).stdout;
    assert_eq!(url, format!("ws://127.0.0.1:{}\n", scene.local_port));
    connect().run().exits(0);
    assert_eq!(text(&scene.laptop), written, "the same again changes nothing");

    let health = ReferenceCli::of(&scene.laptop).run(&["health", "--json"]).stdout;
    let health: Value = serde_json::from_slice(&health).expect("JSON");
    assert_eq!(health["ok"], true, "{health:#}");
    openclaw(&scene.laptop).args(["health"]).run().exits(0);
}

#[test]
fn all_that_keeps_a_gateway_from_starting_is_said_at_once_by_every_command() {
    let file = "{channels: 5, gateway: {bind: 'custom', customBindHost: 'nonsense', port: 'x', \
                tls: {enabled: true, certPath: '/x'}, tailscale: {mode: 'serve'}}}";
    let home = home(file);
    let keys = ["channels", "gateway.port", "gateway.customBindHost", "gateway.bind"];
    let more = ["gateway.tls.keyPath", "gateway.tailscale.mode"];
    let told = config(&home, &["validate", "--json"]).exits(2).json();
    let paths: Vec<_> = told["issues"].as_array().expect("issues").iter().collect();
    for key in keys.iter().chain(&more) {
        let issue = paths.iter().find(|issue| issue["path"] == *key);
        assert!(issue.is_some(), "nothing of {key}: {told:#}");
    }
    let run = openclaw(&home).args(["gateway", "run"]).run().exits(2);
    for key in keys.iter().chain(&more) {
        assert!(run.stderr.contains(key), "nothing of {key}: {run}");
    }
    // What is wrong for a gateway keeps nobody from editing the file, and is said.
    home.write(PLACE, "{}");
    let set = config(&home, &["set", "gateway.bind", "lan"]).exits(0);
    assert!(set.stderr.contains("does not start with this"), "{set}");
    assert!(config(&home, &["validate"]).exits(2).stderr.contains("gateway.bind"));
    let token = openclaw(&home).args(["gateway", "auth-token", "--show"]).run().exits(2);
    assert!(token.stderr.contains("try: openclaw config set gateway.auth.token"), "{token}");
    // Two secrets, and nothing that says which one counts.
    home.write(PLACE, "{gateway: {auth: {token: 't', password: 'p'}}}");
    let told = config(&home, &["validate", "--json"]).exits(2).json();
    assert_eq!(told["issues"][0]["path"], "gateway.auth.mode", "{told:#}");
    let run = openclaw(&home).args(["gateway", "run"]).run().exits(2);
    assert!(run.stderr.contains("config set gateway.auth.mode token"), "{run}");
    // One that is to call another gateway starts none.
    home.write(PLACE, "{gateway: {mode: 'remote', bind: 'lan', remote: {url: 'http://x'}}}");
    let told = config(&home, &["validate", "--json"]).exits(0).json();
    assert_eq!(told["warnings"][0]["path"], "gateway.remote.url", "{told:#}");
}

#[test]
fn a_misspelt_key_is_a_warning_wherever_the_file_is_looked_at() {
    let home = home("{gateway: {auth: {tokn: 'x'}, prt: 1}, another: {program: 1}}");
    let valid = config(&home, &["validate", "--json"]).exits(0).json();
    let warnings = valid["warnings"].as_array().expect("warnings");
    let mut paths: Vec<_> = warnings.iter().filter_map(|it| it["path"].as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["gateway.auth.tokn", "gateway.prt"], "{valid:#}");
    let said = config(&home, &["validate"]).exits(0);
    assert!(said.stdout.contains("gateway.prt: means nothing to this program"), "{said}");
    let doctor = openclaw(&home).args(["doctor"]).run();
    assert!(doctor.stdout.contains("gateway.auth.tokn"), "{doctor}");
    // Who only reads the file is not told each time.
    let quiet = config(&home, &["get", "gateway.prt"]).exits(0);
    assert!(quiet.stderr.is_empty(), "{quiet}");
}

#[test]
fn a_gateway_that_nobody_new_can_enter_says_so() {
    let nodes = "nodes: {pairing: {autoApproveLocal: false}}";
    for (auth, is_shut) in [("none", true), ("token", false)] {
        let home = home(&format!("{{gateway: {{auth: {{mode: '{auth}'}}, {nodes}}}}}"));
        let mut gateway = OurGateway::start(&home);
        let said = gateway.program_mut();
        assert!(said.prints("gateway ready", LIMIT), "{}", said.log());
        let warning = "nobody can let a first one in";
        if is_shut {
            assert!(said.prints(warning, LIMIT), "{}", said.log());
        } else {
            assert!(!said.log().contains(warning), "{}", said.log());
        }
    }
}

#[test]
fn clients_write_nothing_that_the_next_start_would_refuse() {
    let home = home("{}");
    let gateway = OurGateway::start(&home);
    let port = gateway.port().to_string();
    let call = |method: &str, params: &Value, code: i32| {
        let params = params.to_string();
        let words = ["gateway", "call", method, "--params", &params, "--port", &port, "--json"];
        openclaw(&home).args(words).run().exits(code).json()
    };
    let revision = || call("config.get", &json!({}), 0)["hash"].clone();
    for (method, raw, key) in [
        ("config.set", "{gateway: {bind: 'lan'}}", "gateway.bind"),
        ("config.apply", "{gateway: {mode: 'remote'}}", "gateway.mode"),
        (
            "config.patch",
            "{gateway: {tls: {enabled: true, keyPath: '/x'}}}",
            "gateway.tls.certPath",
        ),
        ("config.patch", "{gateway: {auth: {mode: 'password'}}}", "gateway.auth.password"),
        ("config.set", "{gateway: {auth: {token: 't', password: 'p'}}}", "gateway.auth.mode"),
    ] {
        let refused = call(method, &json!({"raw": raw, "baseHash": revision()}), 1);
        assert_eq!(refused["error"]["code"], "INVALID_REQUEST", "{refused:#}");
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(key) && message.contains("nothing was written"), "{message}");
        assert!(message.starts_with("invalid config: "), "{message}");
        assert_eq!(text(&home), "{}");
    }
    // What somebody wrote by hand is told as it is, and is in nobody's way.
    home.write(PLACE, "{gateway: {bind: 'lan'}}");
    let shown = call("config.get", &json!({}), 0);
    assert_eq!(
        (&shown["valid"], &shown["issues"][0]["path"]),
        (&json!(false), &json!("gateway.bind"))
    );
    let other = json!({"raw": "{logging: {level: 'debug'}}", "baseHash": shown["hash"]});
    assert_eq!(call("config.patch", &other, 0)["ok"], true);
    let mended = json!({"raw": "{gateway: {bind: 'loopback'}}", "baseHash": revision()});
    assert_eq!(call("config.patch", &mended, 0)["ok"], true);
    assert_eq!(call("config.get", &json!({}), 0)["valid"], true);
}

/// An administrator of this gateway.
async fn administrator(gateway: &OurGateway) -> Wire {
    let (mut wire, _) = Wire::open(gateway.port()).await.expect("a connection");
    let mut hello = connect(&json!({ "token": gateway.token() }));
    hello["scopes"] = json!(["operator.admin"]);
    assert_eq!(wire.call("connect", hello).await.expect("an answer")["ok"], true);
    wire
}

#[tokio::test]
async fn a_page_keeps_its_preferences_without_having_read_the_file() {
    let home = home("{gateway: {port: 18789}}");
    let gateway = OurGateway::start(&home);
    let mut wire = administrator(&gateway).await;
    for (raw, said) in [
        ("{ui: {prefs: {theme: 'dark'}}}", None),
        ("{ui: {prefs: {theme: 'light', size: 2}}}", None),
        (
            "{ui: {prefs: {theme: 'dark'}}, logging: {level: 'debug'}}",
            Some("config base hash required for logging.level; re-run"),
        ),
        ("{ui: {prefs: null}}", Some("config base hash")),
        ("{gateway: {port: 1}}", Some("config base hash required for gateway.port; re-run")),
    ] {
        let answer = wire.call("config.patch", json!({ "raw": raw })).await.expect("an answer");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(answer["ok"], said.is_none(), "{raw}: {answer}");
        assert!(said.is_none_or(|said| message.starts_with(said)), "{raw}: {answer}");
    }
    let stale = json!({"raw": "{ui: {prefs: {size: 3}}}", "baseHash": "of another"});
    let refused = wire.call("config.patch", stale).await.expect("an answer");
    assert_eq!(refused["ok"], false, "{refused}");
    let shown = wire.call("config.get", json!({})).await.expect("an answer");
    let kept = &shown["payload"]["parsed"];
    assert_eq!(kept["ui"], json!({"prefs": {"theme": "light", "size": 2}}), "{shown}");
    assert_eq!(kept["gateway"], json!({"port": 18789}), "{shown}");
}

#[tokio::test]
async fn a_page_that_sends_the_whole_file_loses_no_agent() {
    let file = "{agents: {entries: {main: {}, helper: {}}}}";
    let home = home(file);
    let gateway = OurGateway::start(&home);
    let mut wire = administrator(&gateway).await;
    let mut change = async |method: &str, raw: &str| {
        let shown = wire.call("config.get", json!({})).await.expect("an answer");
        let params = json!({"raw": raw, "baseHash": shown["payload"]["hash"]});
        wire.call(method, params).await.expect("an answer")
    };
    let refused = change("config.set", "{agents: {entries: {main: {}}}}").await;
    assert_eq!(refused["error"]["code"], "INVALID_REQUEST", "{refused}");
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("would remove existing agent entries: helper"), "{refused}");
    assert_eq!(text(&home), file);
    let kept = change("config.set", "{agents: {list: [{id: 'Main'}, {id: 'helper'}]}}").await;
    assert_eq!(kept["ok"], true, "{kept}");
    let applied = change("config.apply", "{agents: {entries: {main: {}}}}").await;
    assert_eq!(applied["ok"], true, "{applied}");
    // Wherever they stand.
    home.write("home/.openclaw/agents.json5", "{entries: {Main: {}, helper: {}}}");
    let moved = change("config.set", "{agents: {$include: 'agents.json5'}}").await;
    assert_eq!(moved["ok"], true, "{moved}");
    let refused = change("config.set", "{logging: {level: 'debug'}}").await;
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    let expected = "config.set would remove existing agent entries: Main, helper; ";
    assert!(message.starts_with(expected), "{refused}");
}

#[tokio::test]
async fn a_form_is_told_place_by_place_what_is_wrong_with_a_change() {
    let home = home("{}");
    let gateway = OurGateway::start(&home);
    let mut wire = administrator(&gateway).await;
    for (method, raw, paths) in [
        ("config.set", "{gateway: {bind: 'lan'}}", &["gateway.bind"][..]),
        ("config.apply", "{gateway: {mode: 'remote'}}", &["gateway.mode"]),
        ("config.patch", "{gateway: {port: 'x', bind: 7}}", &["gateway.bind", "gateway.port"]),
    ] {
        let shown = wire.call("config.get", json!({})).await.expect("an answer");
        let params = json!({"raw": raw, "baseHash": shown["payload"]["hash"]});
        let refused = wire.call(method, params).await.expect("an answer");
        let issues = refused["error"]["details"]["issues"].as_array().expect("issues");
        let found: Vec<_> = issues.iter().filter_map(|issue| issue["path"].as_str()).collect();
        assert!(paths.iter().all(|path| found.contains(path)), "{refused}");
        assert!(issues.iter().all(|issue| issue["message"].is_string()), "{refused}");
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("invalid config: "), "{refused}");
    }
    assert_eq!(text(&home), "{}");
}

#[tokio::test]
async fn whoever_may_write_and_is_no_administrator_changes_no_setting() {
    let home = home("{}");
    let gateway = OurGateway::start(&home);
    let (mut wire, _) = Wire::open(gateway.port()).await.expect("a connection");
    let mut hello = connect(&json!({ "token": gateway.token() }));
    hello["scopes"] = json!(["operator.read", "operator.write", "operator.approvals"]);
    assert_eq!(wire.call("connect", hello).await.expect("an answer")["ok"], true);
    let shown = wire.call("config.get", json!({})).await.expect("an answer");
    let hash = &shown["payload"]["hash"];
    for method in ["config.set", "config.patch", "config.apply"] {
        let params = json!({"raw": "{logging: {level: 'debug'}}", "baseHash": hash});
        let refused = wire.call(method, params).await.expect("an answer");
        assert_eq!(refused["ok"], false, "{method}: {refused}");
        assert_eq!(refused["error"]["details"]["missingScope"], "operator.admin", "{refused}");
        assert_eq!(text(&home), "{}", "{method}");
    }
}
