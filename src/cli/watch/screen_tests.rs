//! The view against golden screens, as a terminal would show them.

use std::collections::BTreeMap;

use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};
use serde_json::{Value, json};

use super::*;
use crate::{cli::watch::feed::News, control::Watched};

fn now() -> Timestamp {
    "2026-11-26T14:40:00Z".parse().unwrap()
}

fn zone() -> TimeZone {
    TimeZone::fixed(jiff::tz::offset(1))
}

fn vps() -> Value {
    json!({
        "name": "vps", "target": "claw@203.0.113.7:22", "via": ["jump@bastion.example:22"],
        "default": true, "phase": "live", "since": "2026-11-26T11:28:00Z", "stage": "",
        "localUrl": "ws://127.0.0.1:18789", "localPort": 18789,
        "proof": {"kind": "gateway", "at": "2026-11-26T14:39:56Z", "ageMs": 4000, "rttMs": 12.1},
        "gateway": {"version": "2026.9.6", "protocol": 4},
        "attempts": 0, "reconnects": 3, "held": 0, "streams": 4,
        "bytesIn": 3_405_000_000_u64, "bytesOut": 120_000_000_u64,
        "failure": null,
        "forwards": [
            {"bind": null, "port": 5432, "host": "db.internal", "hostPort": 5432, "phase": "live",
                "bytesIn": 52_000_000, "bytesOut": 1_200_000, "failure": null},
            {"bind": "127.0.0.2", "port": 8080, "host": "127.0.0.1", "hostPort": 80, "phase": "down", "failure": null},
        ],
    })
}

fn home() -> Value {
    json!({
        "name": "home", "target": "me@home.example:22", "via": [], "default": false,
        "phase": "waiting", "since": "2026-11-26T14:39:13Z", "stage": "",
        "localUrl": "ws://127.0.0.1:18790", "proof": null, "gateway": null,
        "attempts": 9, "reconnects": 0, "held": 2, "streams": 0, "bytesIn": 0, "bytesOut": 0,
        "failure": {"class": "unreachable", "message": "home.example port 22 does not answer within 10 s",
            "fix": "openclaw remote check home"},
        "forwards": [],
    })
}

fn work() -> Value {
    json!({
        "name": "work", "target": "me@work.example:22", "via": [], "default": false,
        "phase": "down", "since": null, "localUrl": "ws://127.0.0.1:18791", "proof": null,
        "gateway": null, "attempts": 0, "reconnects": 0, "held": 0, "streams": 0, "bytesIn": 0,
        "bytesOut": 0, "failure": null, "forwards": [],
    })
}

fn news(remotes: Vec<Value>) -> News {
    let trips =
        [11.0, 11.8, 12.4, 11.9, 12.0, 19.5, 12.1, 11.7, 11.9, 12.3, 40.1, 13.0, 12.2, 11.8];
    let text = include_str!("../../../fixtures/histories/night.jsonl");
    let mut history: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    history.push(json!({"at": "2026-11-26T14:39:10Z", "remote": "home", "event": "lost",
        "cause": "the SSH server does not answer", "silentMs": 3100}));
    let round_trips = BTreeMap::from([("vps".to_owned(), trips.to_vec())]);
    News { is_running: true, watched: Watched { remotes, round_trips, history } }
}

fn model(remotes: Vec<Value>) -> Model {
    let mut model = Model::new(zone());
    let mut earlier = remotes.clone();
    if let Some(vps) = earlier.iter_mut().find(|remote| remote["name"] == "vps") {
        vps["bytesIn"] = json!(3_400_000_000_u64);
    }
    model.learn(&news(earlier), now() - jiff::SignedDuration::from_secs(4));
    model.learn(&news(remotes), now());
    model
}

fn drawn(model: &Model, width: u16, height: u16, is_colored: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, Look { is_colored }, now())).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let line: String = (area.left()..area.right()).map(|x| buffer[(x, y)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[track_caller]
fn golden(name: &str, model: &Model, width: u16, height: u16) {
    let text = text(&drawn(model, width, height, false));
    let path = format!("{}/fixtures/screens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OPENCLAW_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
}

#[test]
fn a_usual_terminal_shows_all_of_it() {
    golden("one-80x24", &model(vec![vps()]), 80, 24);
    golden("three-80x24", &model(vec![home(), vps(), work()]), 80, 24);
}

#[test]
fn a_remote_in_trouble_says_what_to_type() {
    let mut model = model(vec![home(), vps(), work()]);
    model.choose(-1);
    golden("trouble-80x24", &model, 80, 24);
}

#[test]
fn less_room_shows_what_matters_most() {
    golden("three-60x20", &model(vec![home(), vps(), work()]), 60, 20);
    golden("three-40x16", &model(vec![home(), vps(), work()]), 40, 16);
    golden("three-20x8", &model(vec![home(), vps(), work()]), 20, 8);
}

#[test]
fn more_room_is_used() {
    golden("three-120x30", &model(vec![home(), vps(), work()]), 120, 30);
}

#[test]
fn no_size_is_too_small() {
    let model = model(vec![home(), vps(), work()]);
    for width in 1..=30 {
        for height in 1..=12 {
            drawn(&model, width, height, true);
        }
    }
}

#[test]
fn nothing_and_nobody_are_said() {
    golden("untold-60x4", &Model::new(zone()), 60, 4);
    let mut empty = Model::new(zone());
    empty.learn(&news(Vec::new()), now());
    golden("empty-60x4", &empty, 60, 4);
    let mut gone = model(vec![vps()]);
    let resting = Watched { remotes: vec![work()], ..Watched::default() };
    gone.learn(&News { is_running: false, watched: resting }, now());
    golden("gone-80x16", &gone, 80, 16);
}

#[test]
fn colours_are_used_only_where_they_are_wanted() {
    let model = model(vec![home(), vps(), work()]);
    let colors = |is_colored| {
        let buffer = drawn(&model, 80, 24, is_colored);
        buffer.content.iter().filter(|cell| cell.fg != Color::Reset).count()
    };
    assert_eq!(colors(false), 0);
    assert!(colors(true) > 0);
}

#[test]
fn text_from_elsewhere_steers_nothing() {
    let mut evil = vps();
    evil["name"] = json!("v\u{1b}[2Jps\n\u{7}");
    let text = text(&drawn(&model(vec![evil]), 80, 24, false));
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
}
