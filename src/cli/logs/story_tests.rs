//! Recorded histories against the text that they make, and what is said of single moments.

use jiff::ZonedDateTime;

use super::*;
use crate::cli::logs::when;

fn recorded() -> Vec<Entry> {
    let text = include_str!("../../../fixtures/histories/night.jsonl");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn now() -> ZonedDateTime {
    "2026-11-26T16:30:00+01:00[Europe/Berlin]".parse().unwrap()
}

fn golden(name: &str, text: &str) {
    let path = format!("{}/fixtures/histories/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OPENCLAW_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn a_recorded_history_reads_as_the_golden_story() {
    let now = now();
    let mut text = String::new();
    let mut day = None;
    for entry in recorded() {
        let line = line(&entry, now.time_zone());
        if day.replace(line.at.date()) != Some(line.at.date()) {
            text.push_str(&super::day(line.at.date(), now.date()));
            text.push('\n');
        }
        text.push_str(&format!(
            "{}  {:<9}  {}\n",
            line.at.strftime("%H:%M:%S"),
            line.who,
            line.text
        ));
    }
    golden("night.txt", &text);
}

#[test]
fn every_entry_of_a_recorded_history_is_written_as_it_was_read() {
    let text = include_str!("../../../fixtures/histories/night.jsonl");
    for (entry, line) in recorded().iter().zip(text.lines()) {
        assert_eq!(serde_json::to_string(entry).unwrap(), line);
    }
}

fn at(time: &str, name: Option<&str>) -> String {
    let moment = when::moment(time, &now()).unwrap();
    verdict(&recorded(), name, &moment, now().time_zone()).join("\n")
}

#[test]
fn says_why_one_was_offline_at_a_moment() {
    let moments = [
        ("08:03", Some("vps")),
        ("05:00", None),
        ("10:20", Some("vps")),
        ("09:30", Some("vps")),
        ("12:02", None),
        ("13:45", Some("home")),
        ("14:00", None),
        ("14:59:30", Some("vps")),
        ("2026-11-25 12:00", Some("vps")),
        ("yesterday", Some("vps")),
    ];
    let text: Vec<String> = moments.iter().map(|(time, name)| at(time, *name)).collect();
    golden("night-moments.txt", &(text.join("\n") + "\n"));
}

#[test]
fn an_absence_that_lasts_is_said_to_last() {
    let until_noon: Vec<Entry> = recorded().into_iter().take(9).collect();
    let moment = when::moment("10:20", &now()).unwrap();
    let said = verdict(&until_noon, None, &moment, now().time_zone());
    assert_eq!(
        said,
        ["10:20: vps was out of reach from 10:15:36 and still is: the SSH server does not answer"]
    );
    assert_eq!(verdict(&[], None, &moment, now().time_zone()), ["10:20: nothing was noted so far"]);
}
