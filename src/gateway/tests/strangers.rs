//! What clients hear that are not let in, or not yet.

use super::{devices::Machine, host_rules::Log, *};

#[tokio::test(start_paused = true)]
async fn who_does_not_connect_in_time_is_closed() {
    let lab = Lab::new();
    let since = Instant::now();
    let client = lab.challenged().await;
    assert_eq!(client.closed().await, (1000, "handshake timeout".to_owned()));
    assert_eq!(since.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_is_told_why_and_closed() {
    let lab = Lab::new();
    let (client, answer) = lab.connected(&json!({"auth": {"token": "no"}})).await;
    golden("error-token-mismatch", answer);
    assert_eq!(client.closed().await, (1008, "unauthorized: gateway token mismatch".to_owned()));
    let (client, answer) = Machine::new(1).knocks(&lab, &json!({"auth": {}})).await;
    golden("error-token-missing", answer);
    client.closed().await;
    // Who has no key either is asked for one first, as by the reference gateway.
    let (client, answer) = lab.connected(&json!({"auth": {}})).await;
    assert_eq!(answer["error"]["code"], "NOT_PAIRED", "{answer}");
    assert_eq!(answer["error"]["details"]["code"], "DEVICE_IDENTITY_REQUIRED");
    client.closed().await;
    let (client, answer) = lab.connected(&json!({"minProtocol": 3, "maxProtocol": 3})).await;
    golden("error-protocol-mismatch", answer);
    assert_eq!(client.closed().await.0, 1002);
}

#[tokio::test(start_paused = true)]
async fn guessing_is_slowed_and_a_good_token_is_not() {
    let lab = Lab::new();
    let mut last = Value::Null;
    for guess in 0..11 {
        let guess = format!("guess {guess}");
        let (client, answer) = lab.connected(&json!({"auth": {"token": guess}})).await;
        last = answer;
        client.closed().await;
    }
    assert_eq!(last["error"]["details"]["code"], "AUTH_RATE_LIMITED", "{last}");
    let since = Instant::now();
    lab.admitted().await;
    assert!(since.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_connect() {
    let lab = Lab::new();
    for frame in [
        json!({"type": "req", "id": "1", "method": "health"}),
        json!({"type": "req", "id": "1", "method": "connect", "params": {"minProtocol": 4}}),
        json!({"type": "req", "id": "1", "method": "connect"}),
    ] {
        let mut client = lab.challenged().await;
        client.send(&frame).await;
        let answer = client.frame().await;
        assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
        assert_eq!(client.closed().await.0, 1008);
    }
    for frame in [json!({"type": "event", "event": "x"}), json!("text"), json!({"type": "req"})] {
        let mut client = lab.challenged().await;
        client.send(&frame).await;
        assert_eq!(client.closed().await, (1008, "invalid request frame".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_before_authentication_is_cut() {
    let lab = Lab::new();
    let mut client = lab.challenged().await;
    client.send(&connect(&json!({"userAgent": "x".repeat(70_000)}))).await;
    assert_eq!(client.closed().await.0, 1009);
    let mut client = lab.admitted().await;
    let large = client.call("health", json!({"pad": "x".repeat(70_000)})).await;
    assert_eq!(large["ok"], true);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_keeps_his_place_and_his_limit_until_he_has_been_heard_out() {
    let lab = Lab::new();
    let (mut client, answer) = lab.connected(&json!({"auth": {"token": "no"}})).await;
    assert_eq!(answer["ok"], false);
    client.message().await;
    assert_eq!(lab.shared.slots.counts(), (1, 1));
    // It does not answer the close, and sends on: no frame, and more than anybody may.
    let mut stream = client.socket.into_inner();
    let flood = vec![0xff; 4 << 20];
    assert!(stream.write_all(&flood).await.is_err(), "all of it was read");
    client.served.await.unwrap();
    assert_eq!(lab.shared.slots.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_page_from_elsewhere_has_a_second_for_what_is_refused_anyway() {
    let lab = Lab::new();
    let headers = [("host", "127.0.0.1:18789"), ("origin", "http://evil.example")];
    let since = Instant::now();
    let client = lab.challenged_from(PeerInfo::loopback(), &headers).await;
    assert_eq!(client.closed().await.0, 1000);
    assert_eq!(since.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_names_another_host_gets_no_websocket() {
    let lab = Lab::new();
    let mut request = IntoClientRequest::into_client_request("ws://127.0.0.1:18789/").unwrap();
    request.headers_mut().insert("Host", "evil.example".parse().unwrap());
    let (stream, _served) = lab.serve();
    let error = client_async(request, stream).await.unwrap_err();
    assert!(error.to_string().contains("403"), "{error}");
}

/// A client of this id and mode.
fn as_client(id: &str, mode: &str) -> Value {
    let client = json!({"id": id, "version": "1", "platform": "web", "mode": mode});
    json!({"client": client, "scopes": ["operator.admin"]})
}

#[tokio::test(start_paused = true)]
async fn a_page_is_let_in_only_from_where_it_may_come_and_hears_why_not() {
    let lab = Lab::new();
    let (host, here) = (("host", "127.0.0.1:18789"), ("origin", "http://127.0.0.1:18789"));
    let evil = ("origin", "http://evil.example");
    let (page, webchat) = (as_client("openclaw-control-ui", "ui"), as_client("webchat", "webchat"));
    let (cli, plain) = (as_client("cli", "cli"), vec![host]);
    let origin = "CONTROL_UI_ORIGIN_NOT_ALLOWED";
    for (headers, changes, code, reason) in [
        (vec![host, evil], &cli, origin, "origin not allowed"),
        (vec![host, evil], &page, origin, "origin not allowed"),
        (plain.clone(), &page, origin, "origin missing or invalid"),
        (plain.clone(), &webchat, origin, "origin missing or invalid"),
        (plain.clone(), &as_client("cli", "webchat"), origin, "origin missing or invalid"),
        (vec![host, here], &page, "CONTROL_UI_DEVICE_IDENTITY_REQUIRED", ""),
        (plain, &as_client("openclaw-tui", "ui"), "CONTROL_UI_DEVICE_IDENTITY_REQUIRED", ""),
    ] {
        let mut client = lab.challenged_from(PeerInfo::loopback(), &headers).await;
        client.send(&connect(changes)).await;
        let answer = client.frame().await;
        let details = &answer["error"]["details"];
        assert_eq!(details["code"], code, "{headers:?} {changes}: {answer}");
        assert_eq!(details["reason"].as_str().unwrap_or_default(), reason);
        assert_eq!(client.closed().await.0, 1008);
    }
    // Its own page is let in with what its key holds, and one without a key may do nothing.
    let mut client = lab.challenged_from(PeerInfo::loopback(), &[host, here]).await;
    client.send(&connect(&webchat)).await;
    assert_eq!(client.frame().await["payload"]["auth"]["scopes"], json!([]));
    let machine = Machine::new(1);
    let (_client, hello) =
        machine.knocks_from(&lab, PeerInfo::loopback(), &[host, here], &page).await;
    assert_eq!(hello["payload"]["auth"]["scopes"], json!(["operator.admin"]), "{hello}");
}

#[tokio::test(start_paused = true)]
async fn the_log_names_who_was_refused_and_nothing_that_he_says_breaks_its_line() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _heard = tracing::subscriber::set_default(lines.finish());
    let lab = Lab::new();
    let far = PeerInfo { address: [192, 0, 2, 9].into(), ..PeerInfo::loopback() };
    let machine = Machine::new(3);
    let wrong = json!({"auth": {"token": "a guess"}});
    let (client, _) = machine.knocks_from(&lab, far.clone(), &[], &wrong).await;
    client.closed().await;
    let mut client = lab.challenged_from(far, &[("origin", "http://evil.example")]).await;
    let evil = json!({"client": {"id": "x\n\u{1b}[2J".repeat(100), "version": "1",
        "platform": "p", "mode": "cli"}});
    client.send(&connect(&evil)).await;
    assert_eq!(client.frame().await["ok"], false);
    client.closed().await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("refused a client")).collect();
    let [first, second] = lines[..] else { panic!("{log}") };
    for part in ["192.0.2.9", &machine.id(), "client=\"cli\"", "AUTH_TOKEN_MISMATCH", "connection="]
    {
        assert!(first.contains(part), "{part}: {first}");
    }
    assert!(!log.contains("a guess") && second.len() < 600, "{second}");
    assert!(!log.contains('\u{1b}') && second.contains("x??[2J"), "{second}");
    let turned = log.lines().find(|line| line.contains("turned a request away")).unwrap();
    assert!(turned.contains("192.0.2.9") && turned.contains("http://evil.example"), "{turned}");
}

#[tokio::test(start_paused = true)]
async fn a_proxys_word_cancels_what_loopback_gives() {
    let lab = Lab::new();
    let mut request = IntoClientRequest::into_client_request("ws://127.0.0.1:18789/").unwrap();
    request.headers_mut().insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
    let (stream, served) = lab.serve();
    let (socket, _) = client_async(request, stream).await.unwrap();
    let mut client = Client { socket, served, asked: HashMap::new() };
    client.frame().await;
    client.send(&connect(&json!({}))).await;
    assert_eq!(client.frame().await["error"]["code"], "NOT_PAIRED");
    client.closed().await;
}
