//! What the world around the supervisor does to it: thieves, strangers, floods, lost folders.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Home, Peer, Scene, Sshd, answers, dial, dialling, listens, openclaw, present, run_to_end,
    signal, skipped, status_of, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);

fn status(scene: &Scene) -> Value {
    let ran = openclaw(&scene.laptop).args(["remote", "status", "--json"]).run().exits(0);
    ran.json()[0].clone()
}

/// The control socket in the runtime folder.
fn socket(home: &Home) -> PathBuf {
    let folder = fs::read_dir(home.path("run/openclaw")).expect("the runtime folder");
    folder.map(|entry| entry.expect("an entry").path()).next().expect("a socket")
}

#[test]
fn a_thief_of_the_saved_port_is_named_and_outlasted() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    scene.laptop.stop_supervisor();
    let thief = TcpListener::bind((Ipv4Addr::LOCALHOST, scene.local_port)).expect("stealing");
    let me = format!("(pid {})", std::process::id());
    let waiting = wait_until("it says who has the port", LIMIT, || {
        let shown = status(&scene);
        (shown["failure"]["class"] == "port_in_use").then_some(shown)
    });
    assert_eq!(waiting["phase"], "waiting", "{waiting:#}");
    assert!(waiting["failure"]["message"].to_string().contains(&me), "{waiting:#}");
    for words in [&["health"][..], &["remote", "connect", "vps", "--batch"]] {
        let ran = openclaw(&scene.laptop).args(words).arg("--json").run().exits(6);
        let error = &ran.json()["error"];
        assert_eq!(error["class"], "port_in_use", "{ran}");
        assert!(error["message"].to_string().contains(&me), "{ran}");
    }
    let supervisor = scene.laptop.supervisor();
    drop(thief);
    // Nobody says that it is free, and nobody types anything.
    wait_until("the port is ours", LIMIT, || answers(scene.local_port, "/healthz").then_some(()));
    assert_eq!(status(&scene)["phase"], "live");
    assert_eq!(scene.laptop.supervisor(), supervisor);
    scene.laptop(&["health"]);
}

#[test]
fn a_command_does_not_wait_for_the_next_look_at_a_port_that_is_free() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    scene.laptop.stop_supervisor();
    let thief = TcpListener::bind((Ipv4Addr::LOCALHOST, scene.local_port)).expect("stealing");
    openclaw(&scene.laptop).arg("health").run().exits(6);
    drop(thief);
    scene.laptop(&["health"]);
}

/// Opens everything on the way to a socket, and the socket itself, to everybody.
fn open_to_all(home: &Home, path: &Path) {
    let top = home.path("");
    for part in path.ancestors().take_while(|part| part.starts_with(&top)) {
        fs::set_permissions(part, fs::Permissions::from_mode(0o777)).expect("opening the way");
    }
}

/// Connects and prints how many bytes came.
const KNOCK: &str = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0) or die $!; \
                     connect(S, sockaddr_un($ARGV[0])) or die \"connect: $!\"; \
                     my $n = sysread(S, my $b, 4096); print \"got \", $n // \"an error\", \"\\n\"";

#[test]
fn another_user_hears_nothing_and_is_told_nothing() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    if !nix::unistd::Uid::effective().is_root() {
        skipped("only root can be another user");
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let socket = socket(&scene.laptop);
    open_to_all(&scene.laptop, &socket);
    let knock = |user: Option<&str>| {
        let mut command = match user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", user, "--clear-groups", "perl"]);
                command
            }
            None => Command::new("perl"),
        };
        command.args(["-e", KNOCK]).arg(&socket);
        let output = run_to_end(command, LIMIT);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_ne!(knock(None), "got 0\n", "its owner is greeted");
    assert_eq!(knock(Some("65534")), "got 0\n");
    wait_until("it is noted", LIMIT, || {
        scene.laptop.logs().contains("another user's command was turned away").then_some(())
    });
    // The other way round: a command does not talk to somebody else's supervisor.
    let mut command = Command::new("setpriv");
    scene.laptop.furnish(&mut command);
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let program = scene.laptop.path("openclaw");
    fs::copy(crate::support::built(), &program).expect("copying the program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let state = scene.laptop.path("theirs");
    command.arg(&program).args(["remote", "status", "--json"]).env("OPENCLAW_STATE_DIR", &state);
    // Their own folder has a link to our socket.
    fs::create_dir_all(state.join("rs")).expect("their state");
    std::os::unix::fs::symlink(&socket, state.join("rs/supervisor.sock")).expect("a link");
    for part in [&state, &state.join("rs")] {
        std::os::unix::fs::chown(part, Some(65534), Some(65534)).expect("giving it away");
    }
    command.env_remove("XDG_RUNTIME_DIR");
    let output = run_to_end(command, LIMIT);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("belongs to another user"), "{output:?}");
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let count = self.next() % most;
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// A message as it should be, then spoiled.
fn spoiled(dice: &mut Dice) -> Vec<u8> {
    let texts = [
        r#"{"agent":null,"request":{"op":"status","name":null}}"#,
        r#"{"agent":null,"request":{"op":"open","name":"vps","edition":"kept","timeoutMs":9}}"#,
        r#"{"request":{"op":"connect","name":"x","batch":true,"makeDefault":false,"timeoutMs":1}}"#,
        r#"{"handover":"one"}"#,
        r#"[[[[[[[[]]]]]]]]"#,
    ];
    let pick = usize::try_from(dice.next() % 5).expect("small");
    let mut text = texts[pick].as_bytes().to_vec();
    let length = match dice.next() % 4 {
        0 => u32::MAX,
        1 => u32::try_from(dice.next() % (1 << 20)).expect("small"),
        _ => u32::try_from(text.len()).expect("small"),
    };
    for _ in 0..dice.next() % 4 {
        let at = usize::try_from(dice.next()).unwrap_or(0) % text.len();
        text[at] = dice.next().to_le_bytes()[0];
    }
    let mut message = length.to_be_bytes().to_vec();
    message.extend(text);
    message
}

#[test]
fn garbage_and_silence_at_the_control_socket_harm_nobody() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let socket = socket(&scene.laptop);
    let supervisor = scene.laptop.supervisor();
    let mut dice = Dice(0x5eed_0004);
    for round in 0..400 {
        let mut stream = UnixStream::connect(&socket).expect("connecting");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let bytes = if round % 2 == 0 { dice.bytes(600) } else { spoiled(&mut dice) };
        // Whoever is hung up on cannot finish its sentence.
        let _cut = stream.write_all(&bytes);
        if round % 8 == 0 {
            let _cut = stream.read(&mut [0; 4096]);
        }
    }
    // More who say nothing, or half of something, than are attended to at once.
    let mut silent = Vec::new();
    for round in 0..300 {
        let mut stream = UnixStream::connect(&socket).expect("connecting");
        if round % 2 == 0 {
            let _cut = stream.write_all(&[0, 0, 1]);
        }
        silent.push(stream);
    }
    scene.laptop(&["health"]);
    drop(silent);
    assert_eq!(scene.laptop.supervisor(), supervisor);
    assert!(answers(scene.local_port, "/healthz"));
}

#[test]
fn ten_thousand_questions_at_the_control_socket_are_answered() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let socket = socket(&scene.laptop);
    let askers: Vec<_> = (0..100)
        .map(|_| {
            let socket = socket.clone();
            thread::spawn(move || (0..100).filter(|_| asks(&socket).is_ok()).count())
        })
        .collect();
    let answered: usize = askers.into_iter().map(|asker| asker.join().expect("an asker")).sum();
    assert_eq!(answered, 10_000);
    scene.laptop(&["health"]);
}

/// Asks for the status over a connection of its own.
fn asks(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let text = br#"{"agent":null,"request":{"op":"status","name":null}}"#;
    stream.write_all(&u32::try_from(text.len()).expect("short").to_be_bytes())?;
    stream.write_all(text)?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let all = String::from_utf8_lossy(&all);
    if all.contains(r#""reply":"statuses""#) { Ok(()) } else { Err(ErrorKind::Other.into()) }
}

/// What became of a connection.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Fate {
    Served,
    ToldWhy,
    Closed,
    Broken(ErrorKind),
}

fn fate(mut stream: TcpStream) -> Fate {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while answer.len() < 12 {
        match stream.read(&mut buffer) {
            Ok(0) if answer.is_empty() => return Fate::Closed,
            Ok(0) => return Fate::Broken(ErrorKind::UnexpectedEof),
            Err(error) => return Fate::Broken(error.kind()),
            Ok(count) => answer.extend(buffer.iter().take(count)),
        }
    }
    match answer.get(9..12) {
        Some(b"200") => Fate::Served,
        Some(b"503") => Fate::ToldWhy,
        _ => Fate::Broken(ErrorKind::InvalidData),
    }
}

/// Lets this process have so many files open; how many it may have.
fn allow_files(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    if limit.current.is_some_and(|now| now < most) {
        setrlimit(Resource::Nofile, raised).expect("raising the limit of open files");
    }
    most
}

#[test]
fn ten_thousand_connections_at_once_during_an_outage_are_held_or_told() {
    // It fills the machine, and its neighbours with it: a story for the long tier.
    if std::env::var_os("OPENCLAW_LAB").is_none_or(|tier| tier != "long") {
        return;
    }
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    scene.connect();
    let files = usize::try_from(allow_files(12_000)).expect("a count");
    let count = 10_000.min(files - 1000);
    scene.sshd.stop();
    scene.sshd.kill_sessions();
    wait_until("the path is gone", LIMIT, || (status(&scene)["phase"] != "live").then_some(()));
    let request = format!("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", scene.local_port);
    let callers = (0..20).map(|_| {
        let (request, port) = (request.clone(), scene.local_port);
        thread::spawn(move || {
            let connect = |_| {
                let mut stream = dial(port, LIMIT).expect("connecting is never refused");
                stream.write_all(request.as_bytes()).expect("asking");
                stream
            };
            (0..count / 20).map(connect).collect::<Vec<TcpStream>>()
        })
    });
    let callers: Vec<_> = callers.collect();
    let streams: Vec<TcpStream> =
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect();
    scene.sshd.restart();
    let fates: Vec<Fate> = streams.into_iter().map(fate).collect();
    let of = |which: Fate| fates.iter().filter(|fate| **fate == which).count();
    let broken: Vec<_> = fates.iter().filter(|fate| matches!(fate, Fate::Broken(_))).collect();
    assert!(
        broken.is_empty(),
        "{} told, {} broken: {:?}",
        of(Fate::ToldWhy),
        broken.len(),
        broken[0]
    );
    // Of those that were held the gateway itself takes as many as it takes from one address.
    assert!(of(Fate::Served) > 0, "{} told, {} closed", of(Fate::ToldWhy), of(Fate::Closed));
    wait_until("it goes on", LIMIT, || {
        matches!(status_of(scene.local_port, "/healthz", LIMIT), Ok(200)).then_some(())
    });
}

#[test]
fn a_remote_may_be_renamed_edited_and_removed_while_it_is_away() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    scene.connect();
    scene.sshd.stop();
    scene.sshd.kill_sessions();
    wait_until("the path is gone", LIMIT, || (status(&scene)["phase"] != "live").then_some(()));
    scene.laptop(&["remote", "rename", "vps", "box"]);
    assert_eq!(status(&scene)["name"], "box");
    // Somebody waits for it, and is served by what it is edited to.
    let port = scene.local_port;
    let waiting = thread::spawn(move || status_of(port, "/healthz", LIMIT));
    wait_until("somebody waits", LIMIT, || (status(&scene)["held"] == 1).then_some(()));
    let other = Sshd::start(&[]);
    let edit = dialling(&other, scene.gateway.port(), scene.gateway.token_file());
    openclaw(&scene.laptop)
        .args(edit)
        .args(["--name", "box", "--local-port", &port.to_string()])
        .arg(other.target())
        .run()
        .exits(0);
    assert_eq!(waiting.join().expect("a caller").expect("an answer"), 200);
    drop(other);
    wait_until("the path is gone", LIMIT, || (status(&scene)["phase"] != "live").then_some(()));
    scene.laptop(&["remote", "remove", "box"]);
    assert!(!listens(port));
    assert!(scene.laptop.remotes()["remotes"].as_object().is_some_and(|it| it.is_empty()));
}

#[test]
fn outlives_the_loss_of_all_its_folders() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let pid = scene.laptop.supervisor().expect("a supervisor");
    fs::remove_dir_all(scene.laptop.path("run/openclaw")).expect("emptying the runtime folder");
    fs::remove_dir_all(scene.laptop.state()).expect("removing the state");
    // It looks every ten seconds, and whenever it is told to go on.
    assert!(signal(pid, Signal::SIGCONT));
    wait_until("its place is marked again", LIMIT, || {
        (scene.laptop.supervisor() == Some(pid)).then_some(())
    });
    // Being told to go on, it asks once more whether its path lives.
    wait_until("commands find it, and its path live", LIMIT, || {
        let ran = openclaw(&scene.laptop).args(["remote", "status", "--json"]).run().exits(0);
        let shown = &ran.json()[0];
        (shown["name"] == "vps" && shown["phase"] == "live").then_some(())
    });
    assert!(answers(scene.local_port, "/healthz"));
    scene.connect();
    assert_eq!(scene.laptop.supervisor(), Some(pid));
    assert!(scene.laptop.logs().contains("connected"), "{}", scene.laptop.logs());
    assert_eq!(scene.laptop.processes().len(), 1);
}

#[test]
fn files_that_others_can_write_are_not_believed() {
    let home = Home::new();
    let file = home.write("home/.openclaw/rs/remotes.json", "{}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("its mode");
    let ran = openclaw(&home).args(["remote", "status", "--json"]).run().exits(2);
    let error = &ran.json()["error"];
    assert_eq!(error["class"], "config", "{ran}");
    assert!(error["fix"].to_string().contains("chmod go-w"), "{ran}");
}
