//! A gateway that is slow to let anybody in: still starting, silent after its challenge, or waiting for
//! somebody's approval.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept};

use crate::support::{
    Home, Peer, Run, Sshd, Terminal, dialling, free_port, openclaw, present, wait_until, way_in,
};

/// What the gateway does with a login.
#[derive(Clone, Copy)]
enum Mood {
    /// Says nothing.
    Silent,
    /// Says that it is still starting, so many times.
    Starting(usize),
    /// Says that somebody has to approve the device.
    Approving,
}

/// A gateway in that mood, for as long as the test process lives; its port, and the logins so far.
fn gateway(mood: Mood) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binding");
    let port = listener.local_addr().expect("its address").port();
    let logins = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&logins);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            thread::spawn(move || {
                // What does not speak WebSocket is hung up on.
                if let Ok(socket) = accept(stream) {
                    serve(socket, mood, &count);
                }
            });
        }
    });
    (port, logins)
}

fn serve(mut socket: WebSocket<TcpStream>, mood: Mood, logins: &AtomicUsize) {
    let challenge = json!({"type": "event", "event": "connect.challenge",
        "payload": {"nonce": "n", "ts": 1}});
    let mut sent = socket.send(Message::text(challenge.to_string()));
    while let (Ok(()), Ok(message)) = (sent, socket.read()) {
        sent = Ok(());
        let Message::Text(text) = message else { continue };
        let Ok(request) = serde_json::from_str::<Value>(&text) else { return };
        let is_login = request["method"] == "connect";
        let before = if is_login { logins.fetch_add(1, Ordering::SeqCst) } else { 0 };
        let answer = match mood {
            Mood::Silent => continue,
            Mood::Starting(times) if is_login && before < times => {
                json!({"ok": false, "error": {"code": "UNAVAILABLE", "retryable": true,
                    "message": "gateway starting; retry shortly",
                    "details": {"reason": "startup-sidecars"}}})
            }
            Mood::Approving => json!({"ok": false, "error": {"code": "NOT_PAIRED",
                "message": "pairing required",
                "details": {"code": "PAIRING_REQUIRED", "requestId": "r-1"}}}),
            Mood::Starting(_) if is_login => json!({"ok": true, "payload": hello()}),
            Mood::Starting(_) => json!({"ok": false, "error": {"code": "INVALID_REQUEST",
                "message": "unknown method"}}),
        };
        let mut frame = json!({"type": "res", "id": request["id"]});
        if let (Some(frame), Some(answer)) = (frame.as_object_mut(), answer.as_object()) {
            frame.extend(answer.clone());
        }
        sent = socket.send(Message::text(frame.to_string()));
    }
}

fn hello() -> Value {
    json!({
        "type": "hello-ok", "protocol": 4,
        "server": {"version": "2026.9.6", "connId": "c"},
        "features": {"methods": [], "events": []},
        "snapshot": {"presence": [], "health": {}, "uptimeMs": 5,
            "stateVersion": {"presence": 1, "health": 1}},
        "auth": {"role": "operator", "scopes": ["operator.read"]},
        "policy": {"maxPayload": 1_000_000, "maxBufferedBytes": 1_000_000,
            "tickIntervalMs": 30_000},
    })
}

fn connect(home: &Home, sshd: &Sshd, port: u16, timeout: &str) -> Run {
    let token = home.write("token", "a-token");
    openclaw(home)
        .args(dialling(sshd, port, &token))
        .args(["--name", "vps", "--local-port", &free_port().to_string()])
        .args(["--json", "--timeout", timeout])
        .arg(sshd.target())
}

#[test]
fn connect_waits_for_a_gateway_that_is_starting() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let (home, sshd) = (Home::new(), Sshd::start(&[]));
    let (port, logins) = gateway(Mood::Starting(2));
    let status = connect(&home, &sshd, port, "30").run().exits(0).json();
    assert_eq!(status["gateway"]["version"], "2026.9.6", "{status:#}");
    assert_eq!(logins.load(Ordering::SeqCst), 3);
}

/// No secret would help, so none is asked for.
#[test]
fn connect_without_a_secret_says_what_to_approve_and_asks_for_no_token() {
    if !present(&[Peer::OpenSsh, Peer::Script]) {
        return;
    }
    let (home, sshd) = (Home::new(), Sshd::start(&[]));
    let (port, _) = gateway(Mood::Approving);
    let approve = "openclaw devices approve r-1";
    let run = || {
        openclaw(&home)
            .args(["remote", "connect", "--name", "vps", "--remote-port", &port.to_string()])
            .args(way_in(sshd.port(), &sshd.key(), &sshd.known_hosts()))
    };
    let refused = run().args(["--batch", "--json"]).arg(sshd.target()).run().exits(8).json();
    assert_eq!(refused["error"]["code"], "PAIRING_REQUIRED", "{refused:#}");
    assert!(
        refused["error"]["fix"].as_str().is_some_and(|fix| fix.ends_with(approve)),
        "{refused:#}"
    );
    let (code, screen) = Terminal::start(run().arg(sshd.target())).end();
    assert!(code == 8 && screen.contains(approve) && !screen.contains("[Y/n]"), "{code}: {screen}");
    let check = openclaw(&home)
        .args(["remote", "check", "--batch", "--json", "--remote-port", &port.to_string()])
        .args(way_in(sshd.port(), &sshd.key(), &sshd.known_hosts()))
        .arg(sshd.target());
    let report = check.run().exits(8);
    assert!(report.stdout.contains(approve), "{report}");
}

#[test]
fn connect_keeps_its_timeout_whatever_the_gateway_does() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let sshd = Sshd::start(&[]);
    for (mood, code) in [(Mood::Silent, [1, 3, 7]), (Mood::Starting(usize::MAX), [7, 7, 7])] {
        let (patient, home) = (Home::new(), Home::new());
        let (port, logins) = gateway(mood);
        let mut waiting = connect(&patient, &sshd, port, "20").start();
        wait_until("a login", Duration::from_secs(20), || {
            (logins.load(Ordering::SeqCst) > 0).then_some(())
        });
        let ran = connect(&home, &sshd, port, "2").run();
        // The same with a longer timeout began before, and would end first if it were not for that.
        assert!(waiting.is_running(), "{ran}");
        waiting.interrupt();
        assert!(code.contains(&ran.code), "{ran}");
        assert!(ran.json()["error"]["fix"].is_string(), "{ran}");
        assert!(home.remotes()["remotes"]["vps"].is_null(), "{ran}");
    }
}
