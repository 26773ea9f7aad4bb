//! The ways to addresses, as the kernel itself says them.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::supervisor::wake::running_interfaces;

fn ip(arguments: &str) {
    let ran = Command::new("ip").args(arguments.split(' ')).status().expect("ip runs");
    assert!(ran.success(), "ip {arguments}");
}

fn to(address: &str) -> Option<Course> {
    let address = address.parse().expect("an address");
    courses(&[address], 22, &running_interfaces().expect("the interfaces"))
        .remove(&address)
        .expect("an answer")
}

/// The way there once its interface is seen to run or not: the kernel says that a moment later.
fn once_it(runs: bool, address: &str) -> Course {
    let begun = Instant::now();
    loop {
        let course = to(address).expect("a way");
        if course.runs == runs {
            return course;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{course:?}");
        thread::yield_now();
    }
}

/// In a network of its own, so that nothing of the machine's is touched.
#[test]
fn the_kernel_says_which_way_it_would_send() {
    let story = thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network of our own ({error})");
            return;
        }
        assert_eq!((to("10.2.0.2"), to("fd02::2")), (None, None), "nothing is there");
        ip("link set lo up");
        assert!(to("127.0.0.1").is_some_and(|it| it.runs) && to("::1").is_some());
        ip("link add up0 type veth peer name up1");
        ip("link set up1 up");
        ip("link set up0 up");
        ip("address add 10.1.0.2/24 dev up0");
        ip("-6 address add fd01::2/64 dev up0 nodad");
        assert_eq!((to("10.2.0.2"), to("fd02::2")), (None, None), "an address is no route");
        let direct = to("10.1.0.9").expect("on link");
        assert_eq!((direct.gateway, direct.source), (None, "10.1.0.2".parse().ok()));
        ip("route add 10.2.0.0/24 via 10.1.0.1");
        ip("-6 route add fd02::/64 via fd01::1");
        let specific = once_it(true, "10.2.0.2");
        assert_eq!(specific.gateway, "10.1.0.1".parse().ok());
        assert_eq!(to("fd02::2").and_then(|it| it.gateway), "fd01::1".parse().ok());
        assert_eq!(to("10.3.0.2"), None);
        ip("route add 10.2.0.0/24 via 10.1.0.7 metric 50");
        assert_eq!(to("10.2.0.2"), Some(specific.clone()), "a worse metric");
        ip("route add 10.2.0.2 via 10.1.0.8 table 77");
        assert_eq!(to("10.2.0.2"), Some(specific.clone()), "a table that no rule names");
        ip("rule add to 10.2.0.2 lookup 77");
        let gateway = to("10.2.0.2").and_then(|it| it.gateway);
        assert_eq!(gateway, "10.1.0.8".parse().ok(), "a table of a rule's");
        ip("rule delete to 10.2.0.2 lookup 77");
        ip("rule add to 10.2.0.2 ipproto tcp dport 2222 lookup 77");
        assert_eq!(to("10.2.0.2"), Some(specific.clone()), "a rule for another port");
        ip("rule add to 10.2.0.2 ipproto tcp dport 22 lookup 77");
        let gateway = to("10.2.0.2").and_then(|it| it.gateway);
        assert_eq!(gateway, "10.1.0.8".parse().ok(), "a rule for the port");
        ip("rule delete to 10.2.0.2 ipproto tcp dport 22 lookup 77");
        ip("link set up1 down");
        assert_eq!(once_it(false, "10.2.0.2"), Course { runs: false, ..specific });
        for kind in ["unreachable", "prohibit", "blackhole"] {
            ip(&format!("route add {kind} 10.9.0.0/24"));
            ip(&format!("-6 route add {kind} fd09::/64"));
            assert_eq!((to("10.9.0.1"), to("fd09::1")), (None, None), "{kind}");
            ip("route delete 10.9.0.0/24");
            ip("-6 route delete fd09::/64");
        }
    });
    story.join().unwrap();
}
