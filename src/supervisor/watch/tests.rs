//! The watch against the kernel itself.

use std::{process::Command, thread};

use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn ip(arguments: &str) {
    let ran = Command::new("ip").args(arguments.split(' ')).status().expect("ip runs");
    assert!(ran.success(), "ip {arguments}");
}

async fn next_change(watch: &mut Watch) -> bool {
    let changed = async {
        loop {
            if let Some(up) = watch.next().await.network {
                return up;
            }
        }
    };
    timeout(PATIENCE, changed).await.expect("news of the network")
}

/// In a network of its own, so that nothing of the machine's is touched.
#[test]
fn hears_at_once_of_addresses_and_routes() {
    let story = thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network of our own ({error})");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let mut watch = Watch::start();
            // Only the kernel's word can end the waits below in time.
            watch.look = Instant::now() + PATIENCE * 10;
            assert!(watch.kernel.is_some() && !watch.network.is_up());
            ip("link add d0 type veth peer name d1");
            ip("link set d1 up");
            ip("link set d0 up");
            ip("address add 10.9.8.7/24 dev d0");
            assert!(next_change(&mut watch).await);
            ip("route add default via 10.9.8.1");
            assert!(next_change(&mut watch).await);
            ip("route change default via 10.9.8.2");
            assert!(next_change(&mut watch).await);
            ip("link set d0 down");
            while next_change(&mut watch).await {}
            ip("link set d0 up");
            assert!(next_change(&mut watch).await);
            ip("link set d1 down");
            while next_change(&mut watch).await {}
            ip("link set d1 up");
            assert!(next_change(&mut watch).await);
            ip("link delete d0");
            while next_change(&mut watch).await {}
        });
    });
    story.join().unwrap();
}

#[tokio::test]
async fn a_stopped_process_that_goes_on_looks_at_once() {
    let mut watch = Watch::start();
    let pid = nix::unistd::getpid();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    let notice = timeout(PATIENCE, watch.next()).await.unwrap();
    assert_eq!(notice.woke, Some(Wake::Continued));
}

#[test]
fn two_sources_that_tell_of_the_same_wake_tell_of_one() {
    let start = Instant::now();
    let long = Wake::Slept(Duration::from_secs(31_260));
    let night = Some(long);
    let at = |seconds| start + Duration::from_secs(seconds);
    let (sleeps, wakes) = (Some(Word::Sleeps), Some(Word::Wakes));
    let told = |looks: &[(u64, Option<Wake>, Option<Word>)]| -> Vec<Wake> {
        let mut state = Wakes::default();
        looks.iter().filter_map(|(when, seen, word)| state.news(*seen, *word, at(*when))).collect()
    };
    let slept = [long];
    assert_eq!(told(&[(0, None, sleeps), (1, night, None), (3, None, wakes)]), slept);
    assert_eq!(told(&[(0, None, sleeps), (1, night, wakes), (1, None, None)]), slept);
    assert_eq!(told(&[(1, night, None), (20, None, wakes), (21, None, wakes)]), slept);
    assert_eq!(told(&[(0, None, sleeps), (1, None, wakes), (2, None, wakes)]), [Wake::Told]);
    let again = told(&[(0, night, None), (5, None, sleeps), (6, None, wakes)]);
    assert_eq!(again, [long, Wake::Told], "slept again, too short for the clocks");
    assert_eq!(told(&[(0, Some(Wake::Continued), None), (60, None, wakes)]).len(), 2);
}
