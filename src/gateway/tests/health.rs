//! How the gateway says it is: when asked, once a minute, and to machines.

use super::{super::methods::tell_of_health, *};

/// What of the answer to `health` or of its event tells one gateway from another.
fn told(health: &Value) -> Value {
    let agents = health["agents"].as_array().unwrap().iter();
    let agents: Vec<_> =
        agents.map(|it| json!([it["agentId"], it["name"], it["isDefault"]])).collect();
    json!([health["ok"], health["defaultAgentId"], agents])
}

#[tokio::test(start_paused = true)]
async fn every_client_hears_of_health_once_a_minute() {
    let lab = Lab::new();
    let told = tokio::spawn(tell_of_health(Arc::clone(&lab.shared)));
    let _told = AbortOnDropHandle::new(told);
    let mut client = lab.admitted().await;
    let since = Instant::now();
    for minute in 1..=2 {
        let event = loop {
            let frame = client.frame().await;
            if frame["event"] == "health" {
                break frame;
            }
            assert_eq!(frame["event"], "tick");
        };
        assert_eq!(since.elapsed().as_secs() / 60, minute);
        assert_eq!(event["payload"]["ok"], true);
        assert_eq!(event["stateVersion"]["health"], 1 + minute, "{event}");
    }
}

#[tokio::test(start_paused = true)]
async fn health_names_the_agents_of_the_configuration() {
    let home = tempfile::tempdir().unwrap();
    let lab = Lab::at(home.path());
    let mut client = lab.admitted().await;
    let health = client.call("health", json!({})).await;
    assert_eq!(told(&health["payload"]), json!([true, "main", [["main", null, true]]]));
    let text = "{agents: {list: [{id: 'home'}, {id: 'work', default: true, name: 'Worker'}]}}";
    std::fs::write(home.path().join("openclaw.json"), text).unwrap();
    let agents = json!([["home", null, false], ["work", "Worker", true]]);
    let expected = json!([true, "work", agents]);
    let event = client.call("health", json!({"probe": true})).await;
    assert_eq!(event["event"], "health", "{event}");
    assert_eq!(told(&event["payload"]), expected);
    assert_eq!(told(&client.frame().await["payload"]), expected);
    assert_eq!(told(&client.call("health", json!({})).await["payload"]), expected);
    let status = client.call("status", json!({})).await;
    let heartbeat = &status["payload"]["heartbeat"];
    assert_eq!(heartbeat["defaultAgentId"], "work");
    let beat = json!({"agentId": "home", "enabled": false, "every": "disabled", "everyMs": null,
        "waitingForRoute": false});
    assert_eq!(heartbeat["agents"][0], beat);
    assert_eq!(status["payload"]["sessions"]["byAgent"][1]["agentId"], "work");
    let (_, hello) = lab.connected(&json!({})).await;
    assert_eq!(told(&hello["payload"]["snapshot"]["health"]), expected);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_store_is_not_well_and_not_ready() {
    let lab = Lab::new();
    let ready = "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:9";
    let started = "GET /startupz HTTP/1.1\r\nHost: 127.0.0.1:9";
    let (status, body) = plain(&lab, ready).await;
    assert!(status.contains("200") && body.starts_with(r#"{"ready":true,"failing":[]"#), "{body}");
    lab.shared.store.refuse_writes(true).await;
    assert!(!lab.shared.store.is_writable().await);
    let (status, body) = plain(&lab, ready).await;
    assert!(status.contains("503"), "{status}");
    assert!(body.starts_with(r#"{"ready":false,"failing":["state"]"#), "{body}");
    let (status, body) = plain(&lab, started).await;
    assert!(status.contains("200") && body.contains(r#""status":"started""#), "{body}");
    let (mut client, hello) = lab.connected(&json!({})).await;
    let snapshot = &hello["payload"]["snapshot"]["health"];
    assert!(snapshot["ok"].is_null() && snapshot["ts"].is_u64(), "{hello}");
    let health = client.call("health", json!({})).await;
    assert!(health["payload"]["ok"].is_null(), "{health}");
    lab.shared.store.refuse_writes(false).await;
    assert!(lab.shared.store.is_writable().await);
    assert!(plain(&lab, ready).await.0.contains("200"));
}

#[tokio::test(start_paused = true)]
async fn how_long_it_runs_and_what_fails_is_for_this_machine_and_who_knows_the_secret() {
    let lab = Lab::new();
    let elsewhere =
        || PeerInfo::at([192, 0, 2, 9].into(), None, super::super::ingress::Door::Ordinary);
    for (path, short) in
        [("/readyz", r#"{"ready":true}"#), ("/startupz", r#"{"ok":true,"status":"started"}"#)]
    {
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9");
        assert!(plain(&lab, &head).await.1.contains("uptimeMs"), "{path}");
        let asked = |more: String| plain_from(&lab, elsewhere(), format!("{head}{more}"));
        assert_eq!(asked(String::new()).await.1, short);
        assert_eq!(asked("\r\nAuthorization: Bearer no".to_owned()).await.1, short);
        let known = asked(format!("\r\nAuthorization: Bearer {TOKEN}")).await.1;
        assert!(known.contains("uptimeMs"), "{known}");
        // Somebody speaks for somebody else, who is not on this machine.
        let forwarded = format!("{head}\r\nX-Forwarded-For: 192.0.2.9");
        assert_eq!(plain(&lab, &forwarded).await.1, short);
    }
}
