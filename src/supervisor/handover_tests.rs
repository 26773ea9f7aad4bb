//! Both ends of a handover in one process, and one of them dying in the middle.

use std::{
    os::fd::AsRawFd,
    thread::{self, JoinHandle},
};

use super::*;

/// What a supervisor has: one port, one connection that waits at it, and a file.
struct Old {
    port: TcpListener,
    client: TcpStream,
    held: TcpStream,
    lock: std::fs::File,
}

impl Old {
    fn new() -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(port.local_addr().unwrap()).unwrap();
        let (held, _) = port.accept().unwrap();
        Self { port, client, held, lock: tempfile::tempfile().unwrap() }
    }

    fn parts(&self) -> Vec<Part> {
        let copy = |it: &dyn AsFd| Some(it.as_fd().try_clone_to_owned().unwrap());
        vec![
            (Item::Agent { path: "/run/agent".into() }, None),
            (Item::Port { remote: "vps".to_owned() }, copy(&self.port)),
            (Item::Held { left_ms: 20_000 }, copy(&self.held)),
            (Item::Lock, copy(&self.lock)),
        ]
    }

    fn address(&self) -> SocketAddr {
        self.port.local_addr().unwrap()
    }
}

const CALL: Call = Call { handover: 1, must: false };

/// A newcomer that asks, and then does as it is told with the estate.
fn newcomer<T: Send + 'static>(
    stream: UnixStream,
    then: impl FnOnce(Result<(), NotGiven>, Estate) -> T + Send + 'static,
) -> JoinHandle<T> {
    thread::spawn(move || {
        let mut estate = Estate::default();
        let outcome = ask(stream, CALL, &mut estate);
        then(outcome, estate)
    })
}

#[test]
fn ports_and_waiting_connections_live_on_with_the_newcomer() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let newcomer = newcomer(theirs, |outcome, estate| {
        outcome.unwrap();
        estate.serving().unwrap();
        estate
    });
    let mut old = Old::new();
    assert_eq!(read::<Call>(&ours).unwrap(), CALL);
    let _lifeline = give(ours, &old.parts()).unwrap();
    let estate = newcomer.join().unwrap();
    assert_eq!(estate.remotes, ["vps"]);
    assert_eq!(estate.agent.as_deref(), Some(Path::new("/run/agent")));
    assert!(estate.lock.is_some());
    let address = old.address();
    // The first one's copies are gone now, and nothing is closed by that.
    drop((old.port, old.held));
    let (_, port) = estate.pool.take_port(address).unwrap();
    let _next = TcpStream::connect(address).unwrap();
    port.accept().unwrap();
    let mut held = estate.pool.take_held(|at| at == address);
    assert!(estate.pool.take_held(|at| at == address).is_empty());
    let (mut held, until) = held.pop().unwrap();
    assert!(until > Instant::now() + Duration::from_secs(10));
    held.write_all(b"served").unwrap();
    let mut answer = [0; 6];
    old.client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"served");
    assert_eq!(estate.pool.clear(), (0, 0));
}

#[test]
fn descriptors_that_come_are_not_for_children() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let old = Old::new();
    send(&ours, &Item::Door, Some(&old.port.as_fd().try_clone_to_owned().unwrap())).unwrap();
    let (_, port) = receive::<Item>(&theirs).unwrap();
    let port = port.unwrap();
    let flags = rustix::io::fcntl_getfd(&port).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "descriptor {}", port.as_raw_fd());
}

#[test]
fn a_newcomer_that_dies_before_it_serves_changes_nothing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let newcomer = newcomer(theirs, |outcome, estate| {
        outcome.unwrap();
        drop(estate);
    });
    let old = Old::new();
    read::<Call>(&ours).unwrap();
    give(ours, &old.parts()).unwrap_err();
    newcomer.join().unwrap();
    let _next = TcpStream::connect(old.address()).unwrap();
    old.port.accept().unwrap();
}

#[test]
fn a_newcomer_that_is_too_late_learns_that_it_does_not_serve() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let newcomer = newcomer(theirs, |outcome, estate| {
        outcome.unwrap();
        estate
    });
    let old = Old::new();
    read::<Call>(&ours).unwrap();
    for (item, descriptor) in &old.parts() {
        send(&ours, item, descriptor.as_ref()).unwrap();
    }
    let estate = newcomer.join().unwrap();
    shutdown(&ours, Shutdown::Both).unwrap();
    estate.serving().unwrap_err();
}

#[test]
fn a_word_that_came_just_before_the_end_of_patience_counts() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    send(&theirs, &Word::Serving, None).unwrap();
    shutdown(&ours, Shutdown::Both).unwrap();
    assert_eq!(read::<Word>(&ours).unwrap(), Word::Serving);
}

#[test]
fn what_came_from_one_that_died_in_the_middle_is_kept() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let newcomer = newcomer(theirs, |outcome, estate| (outcome, estate));
    let old = Old::new();
    read::<Call>(&ours).unwrap();
    let parts = old.parts();
    for (item, descriptor) in parts.iter().take(2) {
        send(&ours, item, descriptor.as_ref()).unwrap();
    }
    let address = old.address();
    drop((ours, old, parts));
    let (outcome, estate) = newcomer.join().unwrap();
    assert!(matches!(outcome, Err(NotGiven::Broken)), "{outcome:?}");
    assert!(estate.lock.is_none() && estate.predecessor.is_none());
    let (_, port) = estate.pool.take_port(address).unwrap();
    let _next = TcpStream::connect(address).unwrap();
    port.accept().unwrap();
}

#[test]
fn an_item_without_its_descriptor_ends_it_at_once() {
    for item in [
        Item::Door,
        Item::Former,
        Item::Port { remote: "vps".to_owned() },
        Item::Held { left_ms: 20_000 },
        Item::Lock,
    ] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let newcomer = newcomer(theirs, |outcome, _| outcome);
        read::<Call>(&ours).unwrap();
        send(&ours, &item, None).unwrap();
        let outcome = newcomer.join().unwrap();
        assert!(matches!(outcome, Err(NotGiven::Short)), "{item:?}: {outcome:?}");
    }
}

#[test]
fn one_that_drains_is_there_until_it_has_ended() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert!(is_there(&ours));
    tell(&ours, Word::End);
    assert!(is_there(&ours));
    drop(theirs);
    assert!(!is_there(&ours));
}

#[test]
fn of_two_addresses_with_one_port_number_each_gets_its_own() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", number)).unwrap();
    let pool = Pool::default();
    let mut clients = Vec::new();
    for port in [&second, &first] {
        clients.push(TcpStream::connect(port.local_addr().unwrap()).unwrap());
        pool.put_held(port.accept().unwrap().0, Duration::from_secs(20));
    }
    for port in [&first, &second] {
        let held = pool.take_held(|at| at == port.local_addr().unwrap());
        let [(stream, _)] = &held[..] else { panic!("{held:?}") };
        assert_eq!(stream.local_addr().unwrap(), port.local_addr().unwrap());
    }
}

#[test]
fn of_one_port_number_only_loopbacks_is_a_remotes_to_local_commands() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.2", number)).unwrap();
    let pool = Pool::default();
    pool.put_port("elsewhere", second.into());
    assert_eq!(pool.owner(number), None);
    pool.put_port("vps", first.into());
    assert_eq!(pool.owner(number).as_deref(), Some("vps"));
}

#[test]
fn what_no_remote_has_taken_yet_goes_on_to_the_next_one() {
    let old = Old::new();
    let pool = Pool::default();
    pool.put_port("vps", old.port.as_fd().try_clone_to_owned().unwrap());
    pool.put_held(old.held.try_clone().unwrap(), Duration::from_secs(20));
    pool.rename("vps", "box");
    let parts = pool.parts().unwrap();
    assert!(parts.iter().all(|(_, descriptor)| descriptor.is_some()));
    let items: Vec<Item> = parts.into_iter().map(|(item, _)| item).collect();
    let [Item::Port { remote }, Item::Held { left_ms }] = &items[..] else { panic!("{items:?}") };
    assert_eq!(remote, "box");
    assert!((1..=20_000).contains(left_ms), "{left_ms}");
    assert_eq!(pool.close(|remote| remote == "vps"), (0, 0));
    assert!(pool.holds(old.address()));
    assert_eq!(pool.close(|remote| remote == "box"), (1, 1));
    assert!(!pool.has_ports() && pool.next_end().is_none());
}

#[test]
fn one_that_has_waited_long_enough_for_its_remote_is_closed() {
    let old = Old::new();
    let pool = Pool::default();
    pool.put_held(old.held.try_clone().unwrap(), Duration::from_secs(20));
    let end = pool.next_end().unwrap();
    pool.close_late(end.checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(pool.next_end(), Some(end));
    pool.close_late(end);
    assert_eq!(pool.next_end(), None);
    // So is a port, at which connections wait with the kernel.
    pool.put_port("vps", old.port.into());
    let end = pool.next_end().unwrap();
    assert_eq!(pool.close_late(end.checked_sub(Duration::from_millis(1)).unwrap()), 0);
    assert!(pool.has_ports());
    assert_eq!(pool.close_late(end), 1);
    assert!(!pool.has_ports() && pool.next_end().is_none());
}

#[test]
fn what_is_given_back_is_kept_no_longer_than_it_would_have_been() {
    let old = Old::new();
    let address = old.address();
    let pool = Pool::default();
    pool.put_port("vps", old.port.into());
    let end = pool.next_end();
    let (heir, port) = pool.take_port(address).unwrap();
    assert_eq!(pool.next_end(), None);
    pool.put_back(&heir, port.into());
    assert_eq!(pool.next_end(), end);
    assert_eq!(pool.owner(address.port()).as_deref(), Some("vps"));
}

#[test]
fn a_refusal_says_why() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let newcomer = newcomer(theirs, |outcome, _| outcome);
    read::<Call>(&ours).unwrap();
    refuse(&ours, "it is busy").unwrap();
    let outcome = newcomer.join().unwrap();
    assert!(matches!(outcome, Err(NotGiven::Refused(why)) if why == "it is busy"));
}

#[test]
fn what_a_later_version_adds_is_passed_over() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let newcomer = newcomer(theirs, |outcome, estate| (outcome, estate));
    let old = Old::new();
    read::<Call>(&ours).unwrap();
    let descriptor = old.held.as_fd().try_clone_to_owned().unwrap();
    let later = serde_json::json!({"item": "moon", "phase": "full"});
    send(&ours, &later, Some(&descriptor)).unwrap();
    let port = serde_json::json!({"item": "port", "remote": "vps", "colour": "red"});
    send(&ours, &port, Some(&old.port.as_fd().try_clone_to_owned().unwrap())).unwrap();
    send(&ours, &Item::Lock, Some(&old.lock.as_fd().try_clone_to_owned().unwrap())).unwrap();
    let (outcome, estate) = newcomer.join().unwrap();
    outcome.unwrap();
    assert!(estate.pool.take_port(old.address()).is_some());
}

#[test]
fn frames_that_are_too_long_or_no_frames_are_refused() {
    for bytes in [&[0xff; 64][..], &[0, 0, 0, 3, b'{', b'x', b'}'], &[0, 0]] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(bytes).unwrap();
        drop(ours);
        receive::<Item>(&theirs).map(drop).unwrap_err();
    }
}

/// The bytes that every version writes and reads; this file is never changed, only added to.
#[test]
fn the_form_is_what_it_has_always_been() {
    let golden = include_str!("../../fixtures/handover.txt");
    let mut lines = golden.lines();
    let mut same = |text: String| assert_eq!(Some(text.as_str()), lines.next());
    same(serde_json::to_string(&CALL).unwrap());
    same(serde_json::to_string(&Call { handover: 1, must: true }).unwrap());
    for item in [
        Item::Refused { why: "it is busy".to_owned() },
        Item::Agent { path: "/run/agent".into() },
        Item::Door,
        Item::Port { remote: "vps".to_owned() },
        Item::Held { left_ms: 20_000 },
        Item::Former,
        Item::Lock,
    ] {
        let text = serde_json::to_string(&item).unwrap();
        assert_eq!(serde_json::from_str::<Item>(&text).unwrap(), item);
        same(text);
    }
    for word in [Word::Serving, Word::EndPort { port: 18789 }, Word::End] {
        let text = serde_json::to_string(&word).unwrap();
        assert_eq!(serde_json::from_str::<Word>(&text).unwrap(), word);
        same(text);
    }
    assert_eq!(lines.next(), None);
    let (ours, theirs) = UnixStream::pair().unwrap();
    send(&ours, &Item::Door, None).unwrap();
    let mut frame = [0; 19];
    (&theirs).read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\0\0\0\x0f{\"item\":\"door\"}");
}
