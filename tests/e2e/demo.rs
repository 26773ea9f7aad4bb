//! `openclaw demo`: the whole story on a machine where nothing is set up. The laboratory listens in on
//! its gateway.

use std::{fs, thread, time::Duration};

use crate::support::{Home, openclaw, wait_until, with_variable};

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

#[test]
fn leaves_nothing_either_where_somebody_ends_it() {
    let home = Home::new();
    for moment in [700, 2_000] {
        let temporary = home.path(&format!("tmp{moment}"));
        fs::create_dir(&temporary).expect("making a temporary folder");
        let demo = openclaw(&home).arg("demo").env("TMPDIR", &temporary).start();
        // Wherever it is by then; the later one most likely with a supervisor.
        thread::sleep(Duration::from_millis(moment));
        demo.terminate();
        wait_until("everything is gone", Duration::from_secs(20), || {
            let left = fs::read_dir(&temporary).expect("reading it").count();
            (left == 0 && with_variable("TMPDIR", &temporary).is_empty()).then_some(())
        });
    }
}
