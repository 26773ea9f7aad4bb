//! Plain HTTP: health, metrics, and half a request.

use super::*;

#[tokio::test(start_paused = true)]
async fn who_sends_half_a_head_or_idles_between_requests_is_closed() {
    let lab = Lab::new();
    for bytes in ["GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let (since, (mut stream, served)) = (Instant::now(), lab.serve());
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        served.await.unwrap();
        assert!(since.elapsed().as_secs() <= 15, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn machines_may_ask_whether_it_lives() {
    let lab = Lab::new();
    let live = ("HTTP/1.1 200 OK".to_owned(), r#"{"ok":true,"status":"live"}"#.to_owned());
    assert_eq!(plain(&lab, "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:9").await, live);
    for (head, code) in [
        ("GET / HTTP/1.1\r\nHost: localhost", "200"),
        ("GET /nothing HTTP/1.1\r\nHost: localhost", "404"),
        ("GET /ready HTTP/1.1\r\nHost: [::1]", "200"),
        ("HEAD /startup HTTP/1.1\r\nHost: localhost", "200"),
        ("POST /startupz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", "405"),
        ("POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", "405"),
        ("GET /healthz HTTP/1.1\r\nHost: evil.example", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example", "403"),
        ("GET /healthz HTTP/1.0", "403"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade", "426"),
    ] {
        let (status, _) = plain(&lab, head).await;
        assert!(status.contains(code), "{head}: {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_counted_and_told_to_whoever_has_the_token_of_the_metrics() {
    let lab = Lab::new();
    let mut client = lab.admitted().await;
    client.call("health", json!({})).await;
    client.call("no.such", json!({})).await;
    client.socket.send(Message::text("{")).await.unwrap();
    client.frame().await;
    let (_, answer) = lab.connected(&json!({"auth": {"token": "no"}})).await;
    assert_eq!(answer["ok"], false);
    let head = "GET /metrics HTTP/1.1\r\nHost: localhost";
    for wrong in ["", "\r\nAuthorization: Bearer no", &format!("\r\nAuthorization: Bearer {TOKEN}")]
    {
        let (status, _) = plain(&lab, &format!("{head}{wrong}")).await;
        assert!(status.contains("401"), "{wrong}: {status}");
    }
    let page = format!("{head}\r\nAuthorization: Bearer {SCRAPES}\r\nOrigin: http://evil.example");
    assert!(plain(&lab, &page).await.0.contains("403"));
    let (status, text) = plain(&lab, &format!("{head}\r\nAuthorization: Bearer {SCRAPES}")).await;
    assert!(status.contains("200"), "{status}");
    for line in [
        r#"requests_total{method="health",outcome="ok"} 1"#,
        r#"requests_total{method="unknown",outcome="INVALID_REQUEST"} 1"#,
        r#"malformed_total{kind="frame"} 1"#,
        r#"refused_total{reason="AUTH_TOKEN_MISMATCH"} 1"#,
        r#"turned_away_total{reason="scrape_without_token"} 3"#,
        r#"turned_away_total{reason="origin"} 1"#,
        "admitted_total 1",
        "clients 1",
    ] {
        let line = format!("openclaw_gateway_{line}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}
