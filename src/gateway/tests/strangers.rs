//! What clients hear that are not let in, or not yet.

use super::*;

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
    let (client, answer) = lab.connected(&json!({"auth": {}})).await;
    golden("error-token-missing", answer);
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
async fn a_page_of_another_origin_gets_no_websocket() {
    let lab = Lab::new();
    for (header, value) in [("Origin", "http://evil.example"), ("Host", "evil.example")] {
        let mut request = IntoClientRequest::into_client_request("ws://127.0.0.1:18789/").unwrap();
        request.headers_mut().insert(header, value.parse().unwrap());
        let (stream, _served) = lab.serve();
        let error = client_async(request, stream).await.unwrap_err();
        assert!(error.to_string().contains("403"), "{error}");
    }
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
