//! `openclaw demo`: the whole story on a machine where nothing is set up. The laboratory listens in on
//! its gateway.

use std::{fs, time::Duration};

use crate::support::{Home, openclaw, with_variable};

#[test]
fn tells_the_story_and_leaves_nothing() {
    let home = Home::new();
    let temporary = home.path("tmp");
    fs::create_dir(&temporary).expect("making a temporary folder");
    let ran = openclaw(&home)
        .arg("demo")
        .env("TMPDIR", &temporary)
        .limit(Duration::from_secs(30))
        .run()
        .exits(0);
    assert!(ran.stdout.contains("ms"), "a story with times: {ran}");
    let left: Vec<_> = fs::read_dir(&temporary).expect("reading it").collect();
    assert!(left.is_empty(), "{left:?}");
    let running = with_variable("TMPDIR", &temporary);
    assert!(running.is_empty(), "{running:?}");
    assert!(!home.state().exists(), "the demo has a home of its own");
}
