//! Forwards beside the gateway's, both ways, between ports and sockets, with a real OpenSSH server.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Peer, Scene, answers, dial, echo, echo_at, echo_socket, echoes, echoes_at, echoes_over,
    free_port, listens, openclaw, present, signal, wait_until,
};

const LIMIT: Duration = Duration::from_secs(40);

/// The forwards of the remote `vps`, as scripts see them.
fn forwards(scene: &Scene) -> Vec<Value> {
    let status = scene.laptop(&["remote", "status", "vps", "--json"]).json();
    status[0]["forwards"].as_array().expect("forwards").clone()
}

/// Connects `vps` with further arguments, and returns its status.
fn connect(scene: &Scene, arguments: &[&str]) -> Value {
    let run = scene.dialling().args(["--json", "--name", "vps"]).args(arguments);
    run.arg(scene.sshd.target()).run().exits(0).json()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn remote_forwards_lead_back_from_ports_and_sockets_over_there() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (wanted, service) = (free_port(), echo());
    let (there, here) = (scene.far.path("there.sock"), scene.laptop.path("here.sock"));
    echo_socket(&here);
    let specs = [
        format!("{wanted}:127.0.0.1:{service}"),
        format!("0:localhost:{service}"),
        format!("{}:{}", there.display(), here.display()),
        format!("[::1]:{}:{}", free_port(), here.display()),
    ];
    let arguments: Vec<&str> = specs.iter().flat_map(|spec| ["-R", spec]).collect();
    let status = connect(&scene, &arguments);
    assert_eq!(status["phase"], "live", "{status:#}");
    let all = status["forwards"].as_array().expect("forwards").clone();
    assert_eq!(all.len(), 4, "{status:#}");
    for forward in &all {
        assert_eq!((&forward["kind"], &forward["phase"]), (&"remote".into(), &"live".into()));
        assert_eq!(forward["failure"], Value::Null, "{forward:#}");
    }
    assert_eq!((&all[0]["port"], &all[0]["allocatedPort"]), (&wanted.into(), &Value::Null));
    let chosen = all[1]["allocatedPort"].as_u64().expect("the server's choice");
    let chosen = u16::try_from(chosen).expect("a port");
    assert_eq!(all[2]["socket"], there.display().to_string(), "{:#}", all[2]);
    assert!(echoes(wanted) && echoes(chosen) && echoes_at(&there));
    let text = scene.laptop(&["remote", "status", "vps"]).stdout;
    assert!(text.contains(&format!("{chosen} (chosen by the server) over there")), "{text}");
    // A session that is killed takes the listener with it, and both come back.
    assert!(scene.sshd.kill_sessions() > 0);
    wait_until("the port is back", LIMIT, || (echoes(wanted) && echoes(chosen)).then_some(()));
    scene.laptop(&["remote", "disconnect", "vps"]);
    wait_until("nothing is left over there", LIMIT, || {
        (!listens(wanted) && !listens(chosen)).then_some(())
    });
}

#[test]
fn local_forwards_take_sockets_at_both_ends() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (service, port) = (echo(), free_port());
    let there = scene.far.path("there.sock");
    echo_socket(&there);
    let (to_socket, to_port) = (scene.laptop.path("a.sock"), scene.laptop.path("b.sock"));
    let specs = [
        format!("{}:{}", to_socket.display(), there.display()),
        format!("{}:127.0.0.1:{service}", to_port.display()),
        format!("{port}:{}", there.display()),
    ];
    let arguments: Vec<&str> = specs.iter().flat_map(|spec| ["-L", spec]).collect();
    connect(&scene, &arguments);
    assert!(echoes_at(&to_socket) && echoes_at(&to_port) && echoes(port));
    assert_eq!((mode(&to_socket), mode(&to_port)), (0o600, 0o600));
    // A supervisor that is killed leaves its sockets, and the next one takes them over.
    let pid = scene.laptop.supervisor().expect("a supervisor");
    assert!(signal(pid, Signal::SIGKILL));
    wait_until("the supervisor is gone", LIMIT, || {
        scene.laptop.supervisor().is_none().then_some(())
    });
    assert!(to_socket.exists());
    scene.laptop(&["health"]);
    assert!(echoes_at(&to_socket) && echoes_at(&to_port) && echoes(port));
    scene.laptop(&["remote", "disconnect", "vps"]);
    assert!(!to_socket.exists() && !to_port.exists());
    // What somebody else listens on is left alone, and had once it is free.
    let held = UnixListener::bind(&to_port).expect("a socket");
    let ran = openclaw(&scene.laptop).args(["--json", "remote", "connect", "--batch", "vps"]);
    let forward = &ran.run().exits(0).json()["forwards"][1];
    let message = forward["failure"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("b.sock"), "{forward:#}");
    assert!(echoes_at(&to_socket));
    drop(held);
    wait_until("the socket is ours", LIMIT, || {
        forwards(&scene)[1]["failure"].is_null().then_some(())
    });
    assert!(echoes_at(&to_port));
}

#[test]
fn a_local_port_that_is_taken_is_refused_when_new_and_later_its_forwards_own_failure() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (service, first, second) = (echo(), free_port(), free_port());
    let thieve = |port| TcpListener::bind(("127.0.0.1", port)).expect("stealing");
    let spec = |port: u16| format!("{port}:127.0.0.1:{service}");
    let (one, other) = (spec(first), spec(second));
    let typed = |words: &[&str]| {
        let run = scene.dialling().args(["--json", "--name", "vps"]).args(words);
        run.arg(scene.sshd.target()).run()
    };
    let thief = thieve(first);
    // Whoever types it chooses another, and nothing is left behind.
    let error = typed(&["-L", &one]).exits(6).json();
    assert!(error["error"]["message"].to_string().contains(&first.to_string()), "{error:#}");
    assert_eq!(scene.laptop(&["remote", "list", "--json"]).json(), serde_json::json!([]));
    drop(thief);
    connect(&scene, &["-L", &one, "-L", &other]);
    assert!(echoes(first) && echoes(second));
    scene.laptop.stop_supervisor();
    let thief = thieve(first);
    // At a restart the gateway and the other forwards have what is theirs.
    scene.laptop(&["health"]);
    assert!(answers(scene.local_port, "/healthz") && echoes(second));
    let [refused, fine] = [0, 1].map(|which| forwards(&scene)[which].clone());
    assert_eq!((&refused["phase"], &fine["failure"]), (&"waiting".into(), &Value::Null));
    let failure = &refused["failure"];
    assert_eq!(failure["class"], "port_in_use", "{failure:#}");
    let me = format!("(pid {})", std::process::id());
    assert!(failure["message"].to_string().contains(&me), "{failure:#}");
    let fix = failure["fix"].as_str().expect("what to do").to_owned();
    let shown = scene.laptop(&["remote", "status", "vps"]).stdout;
    assert!(shown.contains(&me) && shown.contains(&fix), "{shown}");
    let status = scene.laptop(&["remote", "status", "vps", "--json"]).json();
    assert_eq!((&status[0]["phase"], &status[0]["failure"]), (&"live".into(), &Value::Null));
    // It keeps nobody from changing the remote, unless all shall fail with one.
    let third = free_port();
    let further = spec(third);
    let all = ["-L", &one, "-L", &other, "-L", &further];
    typed(&[&all[..], &["-o", "ExitOnForwardFailure=yes"]].concat()).exits(6);
    typed(&all).exits(0);
    assert!(echoes(third) && forwards(&scene)[0]["failure"].is_object());
    let supervisor = scene.laptop.supervisor();
    drop(thief);
    // Nobody says that it is free, and nobody types anything.
    wait_until("the port is ours", LIMIT, || echoes(first).then_some(()));
    let forward = &forwards(&scene)[0];
    assert_eq!((&forward["phase"], &forward["failure"]), (&"live".into(), &Value::Null));
    assert_eq!(scene.laptop.supervisor(), supervisor);
}

#[test]
fn a_remote_that_is_up_without_a_local_port_is_told_to_whoever_wants_all_or_nothing() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (service, port) = (echo(), free_port());
    let spec = format!("{port}:127.0.0.1:{service}");
    connect(&scene, &["-L", &spec, "-o", "ExitOnForwardFailure=yes"]);
    scene.laptop.stop_supervisor();
    let thief = TcpListener::bind(("127.0.0.1", port)).expect("stealing");
    scene.laptop(&["health"]);
    let again = || openclaw(&scene.laptop).args(["remote", "connect", "vps", "--json"]).run();
    let error = again().exits(6).json();
    let message = error["error"]["message"].to_string();
    assert!(message.contains("ExitOnForwardFailure") && message.contains("pid"), "{error:#}");
    assert!(answers(scene.local_port, "/healthz"));
    drop(thief);
    again().exits(0);
    assert!(echoes(port));
}

/// Whether an echo answers at an address of this machine.
fn echoes_from(host: &str, port: u16) -> bool {
    echoes_over(SocketAddr::new(host.parse().expect("an address"), port))
}

#[test]
fn a_local_forward_listens_where_it_is_told_to_and_nowhere_else() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let service = echo();
    // What others see of this machine, as far as loopback can show it.
    const OWN: &str = "127.0.0.1";
    const OTHER: &str = "127.0.0.3";
    let places: [(&str, &[&str], &[&str]); 6] = [
        ("127.0.0.2:", &["127.0.0.2"], &[OWN, OTHER, "::1"]),
        ("[::1]:", &["::1"], &[OWN, OTHER]),
        ("localhost:", &[OWN, "::1"], &[OTHER]),
        ("", &[OWN, "::1"], &[OTHER]),
        ("0.0.0.0:", &[OWN, OTHER], &["::1"]),
        ("*:", &[OWN, OTHER, "::1"], &[]),
    ];
    let places = places.map(|(bind, heard, deaf)| (bind, free_port(), heard, deaf));
    let specs = places.map(|(bind, port, ..)| format!("{bind}{port}:127.0.0.1:{service}"));
    let words: Vec<&str> = specs.iter().flat_map(|spec| ["-L", spec]).collect();
    let run = scene.dialling().args(["--json", "--name", "vps", "-o", "GatewayPorts=yes"]);
    let ran = run.args(words).arg(scene.sshd.target()).run().exits(0);
    // It opens forwards of a file; one that was typed says by itself whom it is for.
    let [.., bare, _, _] = &specs;
    assert!(ran.stderr.contains(&format!("GatewayPorts: -L {bare} listens for")), "{ran}");
    for (bind, port, heard, deaf) in places {
        for host in heard {
            assert!(echoes_from(host, port), "{bind}{port} at {host}");
        }
        for host in deaf {
            assert!(!echoes_from(host, port), "{bind}{port} at {host}");
        }
    }
    let binds: Vec<_> = forwards(&scene).iter().map(|it| it["bind"].clone()).collect();
    let bind = |bind: &'static str| Value::from(bind);
    let [two, six, all] = ["127.0.0.2", "::1", "0.0.0.0"].map(bind);
    assert_eq!(binds, [two, six, Value::Null, Value::Null, all, bind("*")]);
    // The gateway itself is opened to nobody.
    assert!(TcpStream::connect((OTHER, scene.local_port)).is_err());
    let open = format!("0.0.0.0:{}:127.0.0.1:{}", free_port(), scene.gateway.port());
    let run = scene.dialling().args(["--json", "--name", "vps", "-L", &open]);
    let error = run.arg(scene.sshd.target()).run().exits(2).json();
    let message = error["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("everybody"), "{error:#}");
}

#[test]
fn a_local_forward_that_leads_nowhere_is_its_own_failure() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::with(&["PermitOpen 127.0.0.1:*"]);
    let (service, silent) = (echo(), free_port());
    let [forbidden, empty, fine] = [(); 3].map(|()| free_port());
    let specs = [
        format!("{forbidden}:localhost:{service}"),
        format!("{empty}:127.0.0.1:{silent}"),
        format!("{fine}:127.0.0.1:{service}"),
    ];
    let words: Vec<&str> = specs.iter().flat_map(|spec| ["-L", spec]).collect();
    connect(&scene, &words);
    assert!(!echoes(forbidden) && !echoes(empty) && echoes(fine));
    let told = wait_until("both are told", LIMIT, || {
        let all = forwards(&scene);
        all.iter().take(2).all(|it| it["failure"].is_object()).then_some(all)
    });
    let [refused, absent] = [0, 1].map(|which| &told[which]["failure"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert_eq!(refused["class"], "forward_refused", "{refused:#}");
    let to = format!("localhost:{service}");
    assert!(text(&refused["message"]).contains(&to), "{refused:#}");
    assert!(text(&refused["fix"]).contains(&format!("PermitOpen {to}")), "{refused:#}");
    let place = format!("127.0.0.1 port {silent}");
    assert!(text(&absent["message"]).contains(&place), "{absent:#}");
    assert_eq!((&told[2]["phase"], &told[2]["failure"]), (&"live".into(), &Value::Null));
    let status = scene.laptop(&["remote", "status", "vps", "--json"]).json();
    assert_eq!((&status[0]["phase"], &status[0]["failure"]), (&"live".into(), &Value::Null));
    assert!(answers(scene.local_port, "/healthz"));
    let shown = scene.laptop(&["remote", "status", "vps"]).stdout;
    assert!(shown.contains(&text(&refused["message"])), "{shown}");
    // What is there later is had, and nothing is wrong any more.
    echo_at(silent);
    assert!(echoes(empty));
    wait_until("it is well", LIMIT, || forwards(&scene)[1]["failure"].is_null().then_some(()));
    assert!(forwards(&scene)[0]["failure"].is_object(), "nobody has asked again");
}

/// How many forwards each way.
const DOZEN: usize = 12;
/// How many bytes go through each.
const BULK: usize = 1 << 20;

/// Opens a stream through a port with an echo behind it: one byte has been there and back.
fn open(port: u16) -> TcpStream {
    let mut stream = dial(port, LIMIT).expect("the port");
    stream.write_all(b"?").expect("a byte");
    stream.read_exact(&mut [0]).expect("the byte");
    stream
}

/// Sends bytes of its own, and wants them back.
fn carries(stream: &TcpStream, seed: u8) {
    let bytes: Vec<u8> = (0..BULK).map(|at| (at % 251) as u8 ^ seed).collect();
    let mut seen = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            (&mut &*stream).write_all(&bytes).expect("somebody who reads");
            stream.shutdown(Shutdown::Write).expect("an end");
        });
        (&mut &*stream).read_to_end(&mut seen).expect("an end");
    });
    assert!(seen == bytes, "{} bytes of {seed}, or others", seen.len());
}

#[test]
fn a_dozen_forwards_each_way_carry_at_once_what_is_theirs() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let ports: Vec<u16> = (0..2 * DOZEN).map(|_| free_port()).collect();
    let kind = |at: usize| if at < DOZEN { "-L" } else { "-R" };
    let words = ports
        .iter()
        .enumerate()
        .flat_map(|(at, port)| [kind(at).to_owned(), format!("{port}:127.0.0.1:{}", echo())]);
    let words: Vec<String> = words.collect();
    connect(&scene, &words.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("all listen", LIMIT, || ports.iter().all(|port| listens(*port)).then_some(()));
    let streams: Vec<TcpStream> = ports.iter().map(|port| open(*port)).collect();
    thread::scope(|scope| {
        for (stream, seed) in streams.iter().zip(1..) {
            scope.spawn(move || carries(stream, seed));
        }
    });
    let all = forwards(&scene);
    assert_eq!(all.len(), ports.len(), "{all:#?}");
    for forward in all {
        assert_eq!((&forward["phase"], &forward["failure"]), (&"live".into(), &Value::Null));
    }
}

#[test]
fn a_listener_that_a_frozen_session_holds_is_named_and_waited_out() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (wanted, service) = (free_port(), echo());
    connect(&scene, &["-R", &format!("{wanted}:127.0.0.1:{service}")]);
    assert!(echoes(wanted));
    // The server side of every session stops: it neither answers nor lets go of its port.
    let frozen = scene.sshd.session_pids();
    for pid in &frozen {
        assert!(signal(*pid, Signal::SIGSTOP));
    }
    let told = format!("still holds port {wanted}");
    wait_until("the held port is told", LIMIT, || {
        let forward = forwards(&scene).remove(0);
        let failure = forward["failure"]["message"].as_str().unwrap_or_default().to_owned();
        (forward["phase"] == "waiting" && failure.contains(&told)).then_some(())
    });
    assert!(answers(scene.local_port, "/healthz"), "the gateway's own path is another matter");
    for pid in frozen {
        // The machine may have ended it by now.
        signal(pid, Signal::SIGKILL);
    }
    wait_until("the port is back", LIMIT, || {
        (forwards(&scene).remove(0)["phase"] == "live" && echoes(wanted)).then_some(())
    });
}

/// How much is sent to somebody who does not read: more than the bounds of any stream.
const FLOOD: usize = 64 << 20;

/// A service whose first caller is read only once the sender has said so, to the end, and counted;
/// all others get back what they send.
fn service_that_sleeps_first() -> (u16, mpsc::Sender<()>, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (wake, woken) = mpsc::channel();
    let first = thread::spawn(move || {
        let (mut slow, _) = listener.accept().expect("a first caller");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        woken.recv().expect("the word to read");
        let mut buffer = vec![0; 1 << 20];
        let mut count = 0;
        loop {
            match slow.read(&mut buffer) {
                Ok(0) => return count,
                Ok(read) => count += read,
                Err(error) => panic!("after {count} bytes: {error}"),
            }
        }
    });
    (port, wake, first)
}

#[test]
fn a_reader_here_that_sleeps_keeps_nobody_over_there_out_and_loses_nothing() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (service, wake, slow) = service_that_sleeps_first();
    let wanted = free_port();
    connect(&scene, &["-R", &format!("{wanted}:127.0.0.1:{service}")]);
    let mut flood = TcpStream::connect(("127.0.0.1", wanted)).expect("the port over there");
    let flooding = thread::spawn(move || {
        flood.write_all(&vec![7; FLOOD]).expect("somebody who reads in the end");
        flood.shutdown(Shutdown::Write).expect("an end");
        // Until the other side is done.
        drop(flood.read(&mut [0]));
    });
    // The session that the slow one blocks makes room for a fresh one, which listens there now.
    wait_until("the listener is on a fresh session", LIMIT, || {
        let log = scene.laptop.logs();
        (log.matches("the server listens").count() > 1).then_some(())
    });
    assert!(echoes(wanted), "{:#?}", forwards(&scene));
    assert!(!flooding.is_finished(), "nobody has read that much");
    wake.send(()).expect("somebody who sleeps");
    assert_eq!(slow.join().expect("the slow reader"), FLOOD);
    flooding.join().expect("the flood");
}

#[test]
fn a_service_that_answers_early_and_goes_ends_the_upload_that_it_does_not_want() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let service = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (local, there) = (free_port(), service.local_addr().expect("an address").port());
    connect(&scene, &["-L", &format!("{local}:127.0.0.1:{there}")]);
    let mut client = dial(local, LIMIT).expect("the port");
    client.write_all(b"?").expect("a byte");
    let (mut far, _) = service.accept().expect("a caller");
    far.read_exact(&mut [0]).expect("the byte");
    far.write_all(b"too large").expect("an answer");
    far.shutdown(Shutdown::Write).expect("an end");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the answer");
    assert_eq!(answer, "too large");
    // The server tells the end of the answer first, and that nobody listens any more later.
    drop(far);
    client.set_write_timeout(Some(LIMIT)).expect("a limit");
    let block = vec![7; 64 * 1024];
    let told = (0..FLOOD / block.len()).try_for_each(|_| client.write_all(&block));
    let kind = told.expect_err("nobody takes it").kind();
    assert!(matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{kind}");
    wait_until("its place is free", LIMIT, || {
        let status = scene.laptop(&["remote", "status", "vps", "--json"]).json();
        (status[0]["streams"] == 0).then_some(())
    });
}

#[test]
fn a_remote_forward_that_is_refused_is_its_own_failure() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    for (line, phase) in [("PermitListen none", "blocked"), ("AllowTcpForwarding local", "blocked")]
    {
        let scene = Scene::with(&[line]);
        let spec = format!("{}:127.0.0.1:1", free_port());
        let status = connect(&scene, &["-R", &spec]);
        assert_eq!(status["phase"], "live", "{line}: {status:#}");
        let forward = wait_until("the refusal is told", LIMIT, || {
            forwards(&scene).into_iter().find(|forward| forward["phase"] == phase)
        });
        assert_eq!(forward["failure"]["class"], "forward_refused", "{line}: {forward:#}");
        let fix = forward["failure"]["fix"].as_str().unwrap_or_default().to_owned();
        assert!(fix.contains("PermitListen") && fix.contains("AllowTcpForwarding"), "{fix}");
        assert!(answers(scene.local_port, "/healthz"));
    }
}

#[test]
fn all_or_nothing_is_a_wish_of_the_user() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::with(&["PermitListen none"]);
    let spec = format!("{}:127.0.0.1:1", free_port());
    let run = scene.dialling().args(["--json", "--name", "vps", "-R", &spec]);
    let run = run.args(["-o", "ExitOnForwardFailure=yes"]).arg(scene.sshd.target());
    let error = run.run().exits(9).json();
    let message = error["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("ExitOnForwardFailure"), "{error:#}");
    assert_eq!(scene.laptop(&["remote", "list", "--json"]).json(), serde_json::json!([]));
    assert!(!listens(scene.local_port));
}

#[test]
fn a_port_that_is_taken_over_there_is_had_once_it_is_free() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (wanted, service) = (free_port(), echo());
    // OpenSSH is content with one of the two.
    let taken = ["127.0.0.1", "::1"].map(|address| TcpListener::bind((address, wanted)).ok());
    let status = connect(&scene, &["-R", &format!("{wanted}:127.0.0.1:{service}")]);
    let forward = &status["forwards"][0];
    assert_eq!(forward["phase"], "waiting", "{forward:#}");
    let why = forward["failure"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains(&format!("port {wanted} over there is taken")), "{why}");
    drop(taken);
    wait_until("the port is ours", LIMIT, || echoes(wanted).then_some(()));
    // The same with another service here: the listener is handed over, not fought for.
    let other = free_port();
    let status = connect(&scene, &["-R", &format!("{wanted}:127.0.0.1:{other}")]);
    assert_eq!(status["phase"], "live", "{status:#}");
    wait_until("the new destination counts", LIMIT, || {
        let forward = forwards(&scene).remove(0);
        (forward["hostPort"] == other && forward["phase"] == "live").then_some(())
    });
    assert!(!echoes(wanted), "nothing answers there yet");
    wait_until("that is said", LIMIT, || {
        let forward = forwards(&scene).remove(0);
        let why = forward["failure"]["message"].as_str().unwrap_or_default().to_owned();
        (forward["phase"] == "live" && why.contains(&other.to_string())).then_some(())
    });
    echo_at(other);
    assert!(echoes(wanted));
}

#[test]
fn forwards_of_the_file_may_be_sockets_and_may_begin_over_there() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let (service, wanted) = (echo(), free_port());
    let here = scene.laptop.path("here.sock");
    let block = scene.sshd.block("myhost")
        + &format!("  LocalForward {} localhost:{service}\n", here.display())
        + &format!("  RemoteForward {wanted} localhost:{service}\n")
        + "  StreamLocalBindMask 0111\n  LocalForward ./loose.sock localhost:1\n";
    let config = scene.laptop.write("ssh_config", &block);
    let ran = scene.dialling_by_file(&config).args(["--json", "--name", "vps", "myhost"]);
    let ran = ran.args(["--local-port", &scene.local_port.to_string()]).run().exits(0);
    assert!(ran.stderr.contains("line 13") && ran.stderr.contains("write `/`"), "{ran}");
    assert_eq!(ran.json()["forwards"].as_array().map(Vec::len), Some(2), "{ran}");
    assert!(echoes_at(&here) && echoes(wanted));
    assert_eq!(mode(&here), 0o666);
    let run = scene.dialling_by_file(&config).args(["--json", "--name", "vps", "myhost"]);
    let ran = run.args(["-o", "ClearAllForwardings=yes"]).run().exits(0);
    assert_eq!(ran.json()["forwards"], serde_json::json!([]), "{ran}");
    wait_until("the listener is gone", LIMIT, || (!listens(wanted)).then_some(()));
    assert!(!here.exists());
}

#[test]
fn the_companion_of_the_gateway_is_forwarded_on_request() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let companion = scene.gateway.port() + 1;
    // Both machines are one here, so that the port is taken by the service itself.
    let _held = TcpListener::bind(("127.0.0.1", companion)).expect("the companion's port");
    let run = scene.dialling().args(["--json", "--companions"]).arg(scene.sshd.target());
    let error = run.run().exits(6).json();
    let message = error["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains(&companion.to_string()), "{error:#}");
    let spec = format!("{}:127.0.0.1:{}", free_port(), scene.gateway.port() + 2);
    let run = scene.dialling().args(["--json", "-L", &spec]).arg(scene.sshd.target());
    let error = run.run().exits(2).json();
    let message = error["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("browser control"), "{error:#}");
}
