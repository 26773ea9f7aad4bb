//! What a client hears without asking, and its end.

use super::*;

#[tokio::test(start_paused = true)]
async fn ticks_and_counts_its_events() {
    let lab = Lab::new();
    let since = Instant::now();
    let mut client = lab.admitted().await;
    for seq in 1..=5 {
        let tick = client.frame().await;
        assert_eq!((&tick["event"], &tick["seq"]), (&json!("tick"), &json!(seq)), "{tick}");
    }
    assert_eq!(since.elapsed().as_secs(), 150);
    let answer = client.call("health", json!({"probe": true})).await;
    assert_eq!((&answer["event"], &answer["seq"]), (&json!("health"), &json!(6)), "{answer}");
    assert_eq!(answer["stateVersion"], json!({"presence": 1, "health": 2}));
    assert_eq!(client.frame().await["id"], "health");
}

#[tokio::test(start_paused = true)]
async fn tells_clients_that_it_goes() {
    let lab = Lab::new();
    let mut client = lab.admitted().await;
    let waiting = lab.challenged().await;
    lab.stop.cancel();
    let event = client.frame().await;
    assert_eq!((&event["event"], &event["seq"]), (&json!("shutdown"), &json!(1)));
    assert_eq!(client.closed().await, (1012, "service restart".to_owned()));
    assert_eq!(waiting.closed().await.0, 1012);
    let (mut stream, served) = lab.serve();
    served.await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_answers_no_ping_is_let_go() {
    let lab = Lab::new();
    let since = Instant::now();
    let client = lab.admitted().await;
    // The client's library answers pings when it reads, and it does not read.
    client.served.await.unwrap();
    let took = since.elapsed().as_secs();
    assert!((55..=58).contains(&took), "{took}");
    assert_eq!(lab.shared.hub.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn presence_tells_of_those_who_stay() {
    let lab = Lab::new();
    let mut watcher = lab.admitted().await;
    let ui = json!({"id": "openclaw-macos", "version": "1", "platform": "linux", "mode": "ui"});
    let (client, hello) = lab.connected(&json!({"client": ui})).await;
    assert_eq!(hello["payload"]["snapshot"]["presence"].as_array().unwrap().len(), 2);
    let news = watcher.frame().await;
    assert_eq!(news["event"], "presence");
    assert_eq!(news["payload"]["presence"][1]["mode"], "ui");
    assert_eq!(news["stateVersion"]["presence"], 2);
    drop(client);
    let news = watcher.frame().await;
    assert_eq!(news["payload"]["presence"].as_array().unwrap().len(), 1);
}
