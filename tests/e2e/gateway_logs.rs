//! `openclaw logs`: the end of a gateway's log, what it writes from then on, and a gateway that goes.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Home, OurGateway, Peer, Program, ReferenceCli, built, free_port, guarded};
use crate::support::{openclaw, present};

const LIMIT: Duration = Duration::from_secs(30);

/// Each line that a run printed, as JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn shows_the_end_of_the_log_to_people_and_to_scripts_in_openclaws_form() {
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let port = gateway.port().to_string();
    let told = openclaw(&home).args(["logs", "--port", &port, "--utc"]).run().exits(0);
    assert!(told.stdout.starts_with("Log file: "), "{told}");
    assert!(told.stdout.contains("info") && told.stdout.contains("gateway started"), "{told}");
    let json = openclaw(&home).args(["logs", "--port", &port, "--json"]).run().exits(0);
    let json = lines(&json.stdout);
    assert_eq!((&json[0]["type"], &json[0]["sourceKind"]), (&"meta".into(), &"file".into()));
    let started = json.iter().find(|line| line["message"] == "gateway started");
    let started = started.unwrap_or_else(|| panic!("{json:#?}"));
    assert_eq!((&started["type"], &started["level"]), (&"log".into(), &"info".into()));
    assert!(started["time"].is_string() && started["raw"].is_string(), "{started:#}");
    let few = openclaw(&home).args(["logs", "--port", &port, "--json", "--limit", "1"]).run();
    let few = lines(&few.exits(0).stdout);
    assert_eq!(few.iter().filter(|line| line["type"] == "log").count(), 1, "{few:#?}");
    assert!(few.iter().any(|line| line["type"] == "notice"), "{few:#?}");
    openclaw(&home).args(["logs", "--port", &port, "--limit", "0"]).run().exits(2);
}

#[test]
fn follows_the_log_and_a_gateway_that_comes_back() {
    let home = Home::new();
    let port = free_port();
    let gateway = OurGateway::start_at(&home, port);
    let mut follow = guarded(built());
    home.furnish(&mut follow);
    let words = ["logs", "--follow", "--json", "--interval", "100", "--port"];
    follow.args(words).arg(port.to_string());
    let mut follow = Program::start("logs --follow", follow);
    assert!(follow.prints("gateway started", LIMIT), "the end of the log");
    let wrong = ["health", "--port", &port.to_string(), "--token", "wrong", "--json"];
    openclaw(&home).args(wrong).run().exits(8);
    assert!(follow.prints("refused a client", LIMIT), "what is written from then on");
    let said = openclaw(&home).args(["logs", "--port", &port.to_string()]).run().exits(0);
    let refused = said.stdout.lines().find(|line| line.contains("refused a client"));
    let refused = refused.unwrap_or_else(|| panic!("{said}"));
    assert!(refused.contains("AUTH_TOKEN_MISMATCH, 127.0.0.1"), "why, and who: {refused}");
    drop(gateway);
    assert!(follow.prints("[logs] gateway disconnected", LIMIT), "that it went");
    let _again = OurGateway::start_at(&home, port);
    assert!(follow.prints("[logs] gateway reconnected", LIMIT), "that it is back");
}

#[test]
fn says_what_openclaws_own_command_says() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let port = gateway.port().to_string();
    let ours = openclaw(&home).args(["logs", "--port", &port, "--json", "--limit", "3"]).run();
    let ours = lines(&ours.exits(0).stdout);
    let theirs = ReferenceCli::by_environment(gateway.port(), &gateway.token());
    let theirs = theirs.run(&["logs", "--json", "--limit", "500"]).stdout;
    let theirs = String::from_utf8(theirs).expect("UTF-8");
    let theirs = lines(&theirs);
    for line in ours.iter().filter(|line| line["type"] == "log") {
        assert!(theirs.contains(line), "{line:#} is not among {theirs:#?}");
    }
}
