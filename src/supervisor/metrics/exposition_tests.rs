//! The text of the metrics against its golden file.

use super::*;

fn vps() -> Reading {
    Reading {
        proof_age: Some(Duration::from_millis(4200)),
        round_trip: Some(Duration::from_micros(11_800)),
        reconnects: 2,
        away: Duration::from_millis(1500),
        received: 3_400_000,
        sent: 120_000,
        streams: 4,
        held: 1,
        forwards: vec![Carried {
            forward: "-L 5432:db.internal:5432".to_owned(),
            received: 400_000,
            sent: 20_000,
            streams: 1,
        }],
        ..Reading::resting("vps", Phase::Live)
    }
}

#[test]
fn the_text_is_that_of_the_golden_file() {
    let text = exposition(&[vps(), Reading::resting("home", Phase::Down)], 1_795_000_000.5);
    let mut lines: Vec<String> = text.unwrap().lines().map(str::to_owned).collect();
    // The library keeps the series of a family in no order.
    let mut families: Vec<Vec<String>> = Vec::new();
    for line in lines.drain(..) {
        if line.starts_with("# HELP") || line == "# EOF" || families.is_empty() {
            families.push(Vec::new());
        }
        families.last_mut().unwrap().push(line);
    }
    for family in &mut families {
        let head = family.iter().take_while(|line| line.starts_with('#')).count();
        family[head..].sort();
    }
    let sorted = families.concat().join("\n").replace(env!("CARGO_PKG_VERSION"), "VERSION") + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/metrics.txt");
    if std::env::var_os("OPENCLAW_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &sorted).unwrap();
    }
    assert_eq!(sorted, std::fs::read_to_string(path).unwrap());
}

#[test]
fn a_name_with_quotes_stays_one_label() {
    let text = exposition(&[Reading::resting("a\"b\\c", Phase::Down)], 0.0).unwrap();
    assert!(text.contains(r#"openclaw_remote_up{remote="a\"b\\c"} 0"#), "{text}");
    assert!(text.ends_with("# EOF\n"));
}
