//! What is left undone: nobody is asked for a mere suspicion, and a server that may punish this
//! machine is left alone.

use std::{
    collections::VecDeque,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Agent, Meter, Peer, Run, Scene, openclaw, present, signal, status_of, wait_until, way_in,
};

const LIMIT: Duration = Duration::from_secs(40);
/// How long a server is left alone that may be punishing this address.
const PENALTY: Duration = Duration::from_secs(15);

/// A person who is asked whether a key may be used: takes a moment, agrees, and keeps count.
struct Asked {
    script: PathBuf,
    book: PathBuf,
}

impl Asked {
    fn new(scene: &Scene) -> Self {
        let book = scene.laptop.write("asked", "");
        let text = format!("#!/bin/sh\necho asked >> '{}'\nsleep 2\n", book.display());
        let script = scene.laptop.write("askpass", &text);
        fs::set_permissions(&script, PermissionsExt::from_mode(0o700)).expect("an executable");
        Self { script, book }
    }

    fn count(&self) -> usize {
        fs::read_to_string(&self.book).expect("the count").lines().count()
    }
}

/// `remote connect --name vps` through a proxy, complete but for the target.
fn dialling(scene: &Scene, port: u16) -> Run {
    scene.sshd.know(&scene.sshd.known_hosts_line(port));
    scene
        .dialling_by(way_in(port, &scene.sshd.key(), &scene.sshd.known_hosts()))
        .arg("--token-file")
        .arg(scene.gateway.token_file())
}

fn status_when(scene: &Scene, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, LIMIT, || {
        let status = scene.laptop(&["remote", "status", "vps", "--json"]).json();
        status.get(0).filter(|it| is(it)).cloned()
    })
}

#[test]
fn nobody_is_asked_to_confirm_a_key_for_a_silence_or_a_wake() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let asked = Asked::new(&scene);
    let agent = Agent::that_asks(&scene.sshd.key(), &asked.script);
    let meter = Meter::before(scene.sshd.port());
    scene.sshd.know(&scene.sshd.known_hosts_line(meter.port()));
    // The key is in the agent alone.
    let public = scene.sshd.key().with_extension("pub");
    let connect = |words: &[&str]| {
        let run = scene.dialling_by(way_in(meter.port(), &public, &scene.sshd.known_hosts()));
        let run = run.arg("--token-file").arg(scene.gateway.token_file()).args(words);
        run.env("SSH_AUTH_SOCK", agent.socket()).arg(scene.sshd.target()).run().exits(0)
    };
    connect(&[]);
    assert_eq!((asked.count(), meter.callers()), (1, 1), "a person agreed");

    // A new login would get through at once.
    meter.strand();
    let mut asking = openclaw(&scene.laptop).args(["health", "--timeout", "120000"]).start();
    let status = status_when(&scene, "the silence is noticed", |it| it["phase"] == "suspect");
    let fix = status["failure"]["fix"].as_str().unwrap_or_default();
    assert!(fix.contains("openclaw remote connect"), "{status:#}");
    let supervisor = scene.laptop.supervisor().expect("a supervisor");
    signal(supervisor, Signal::SIGSTOP);
    // Longer than any machine merely hesitates.
    thread::sleep(Duration::from_secs(4));
    signal(supervisor, Signal::SIGCONT);
    wait_until("the wake is noticed", LIMIT, || scene.laptop.logs().contains("woke").then_some(()));
    // Whoever asks while it is doubted asks for nothing that needs a person either.
    status_when(&scene, "the call is held", |it| it["phase"] == "suspect" && it["held"] == 1);
    assert!(asking.is_running(), "answered through a path that carries nothing");
    assert_eq!((asked.count(), meter.callers()), (1, 1), "asked for a mere suspicion");

    // A person who is there is worth asking.
    connect(&[]);
    assert_eq!((asked.count(), meter.callers()), (2, 2));
    asking.end().exits(0);
    let status = status_when(&scene, "live again", |it| it["phase"] == "live");
    assert_eq!(status["reconnects"], 1, "{status:#}");
}

/// What becomes of a connection to the doorman.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It hears that OpenSSH 9.8 is there, and is closed.
    Banner,
    /// It is closed before it hears anything.
    Nothing,
}

/// Stands before a server, and turns some away as one does that punishes.
struct Doorman {
    port: u16,
    state: Arc<Mutex<(VecDeque<Fate>, Vec<Instant>)>>,
}

impl Doorman {
    fn before(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let state: Arc<Mutex<(VecDeque<Fate>, Vec<Instant>)>> = Arc::default();
        let at_the_door = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let fate = {
                    let mut state = at_the_door.lock().expect("the lock");
                    state.1.push(Instant::now());
                    state.0.pop_front()
                };
                thread::spawn(move || meet(near, fate, to));
            }
        });
        Self { port, state }
    }

    /// What happens to the next connections.
    fn expects(&self, fates: &[Fate]) {
        self.state.lock().expect("the lock").0.extend(fates);
    }

    /// When each connection came.
    fn seen(&self) -> Vec<Instant> {
        self.state.lock().expect("the lock").1.clone()
    }
}

fn meet(mut near: TcpStream, fate: Option<Fate>, to: u16) {
    let Some(fate) = fate else {
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { return };
        let both =
            [(&near, &far), (&far, &near)].map(|(from, to)| (from.try_clone(), to.try_clone()));
        for (from, to) in both {
            let (Ok(mut from), Ok(mut to)) = (from, to) else { return };
            thread::spawn(move || {
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Both));
            });
        }
        return;
    };
    // To the end of what the client says first: closed with something unread it would be reset.
    let mut said = [0; 8];
    drop(near.read_exact(&mut said));
    if fate == Fate::Banner {
        drop(near.write_all(b"SSH-2.0-OpenSSH_9.8\r\n"));
    }
    drop(near.shutdown(Shutdown::Write));
    drop(near.read_to_end(&mut Vec::new()));
}

#[test]
fn a_server_that_may_punish_is_left_alone_and_a_person_is_not_held_up_by_it() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let door = Doorman::before(scene.sshd.port());
    let connect = || dialling(&scene, door.port).arg("--batch").arg(scene.sshd.target()).run();
    connect().exits(0);
    assert_eq!(door.seen().len(), 1);

    // Its host was updated, and it turns this address away.
    door.expects(&[Fate::Banner, Fate::Nothing, Fate::Nothing]);
    scene.sshd.kill_sessions();
    // Somebody waits, for whom it would be dialled again within seconds.
    let served = {
        let port = scene.local_port;
        thread::spawn(move || status_of(port, "/healthz", LIMIT))
    };
    let penalised = |it: &Value| {
        let said = it["failure"]["message"].as_str().unwrap_or_default();
        said.contains("the next attempt waits 15 s")
    };
    let status = status_when(&scene, "the penalty is waited out", penalised);
    assert_eq!(status["held"], 1, "{status:#}");
    let gaps = wait_until("the next dial", LIMIT, || {
        let seen = door.seen();
        (seen.len() >= 4).then(|| seen.windows(2).map(|it| it[1] - it[0]).collect::<Vec<_>>())
    });
    assert!(gaps[2] >= PENALTY, "{gaps:?}");

    // Another one, and a person who does not wait for it.
    status_when(&scene, "the second penalty", |it| penalised(it) && it["attempts"] == 3);
    assert_eq!(door.seen().len(), 4, "{:?}", door.seen());
    connect().exits(0);
    let seen = door.seen();
    assert_eq!(seen.len(), 5, "one connection was enough");
    assert!(seen[4] - seen[3] < PENALTY, "a person waited for a penalty: {seen:?}");
    let answered = served.join().expect("a caller").expect("an answer");
    assert_eq!(answered, 200, "whoever waited was served");
}

#[test]
fn a_connect_that_gives_up_promises_no_further_attempt() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let door = Doorman::before(scene.sshd.port());
    door.expects(&[Fate::Nothing, Fate::Nothing]);
    let connect = dialling(&scene, door.port).args(["--batch", "--timeout", "4"]);
    let ran = connect.arg(scene.sshd.target()).run().exits(3);
    assert!(!door.seen().is_empty(), "{ran}");
    assert!(!ran.stderr.contains("next attempt"), "{ran}");
}
