//! Proxies, limits and pages: whose word counts, and who is shut out.

use std::net::IpAddr;

use super::{devices::Machine, *};
use crate::{
    config::RateLimit,
    gateway::{
        ingress::{Door, ProxyRules, Ways},
        settings::Guard,
        throttle::{Culprit, With},
    },
};

/// The address of a proxy that is no interface of any machine (RFC 5737).
const PROXY: &str = "192.0.2.1";
const PROXIED: [(&str, &str); 4] = [
    ("host", "control.example.com"),
    ("x-forwarded-for", "203.0.113.9"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-user", "nick@example.com"),
];

fn from(address: &str) -> PeerInfo {
    let address: IpAddr = address.parse().unwrap();
    PeerInfo { address, ..PeerInfo::loopback() }
}

/// A gateway behind a proxy that names users.
fn behind_proxy(password: Option<&str>) -> Lab {
    let mut lab = Lab::new();
    let shared = Arc::get_mut(&mut lab.shared).unwrap();
    let rules = ProxyRules {
        user_header: "x-forwarded-user".to_owned(),
        required_headers: vec!["x-forwarded-proto".to_owned()],
        allow_users: vec!["nick@example.com".to_owned()],
        allow_loopback: false,
        password: password.map(Secret::new),
    };
    shared.set_live(Live {
        guard: Guard::Proxy(Box::new(rules.clone())),
        allowed_origins: vec!["https://control.example.com".to_owned()],
        pair_local: None,
    });
    shared.ways = Ways {
        proxies: vec!["192.0.2.0/24".parse().unwrap()],
        rules: Some(rules),
        ..Ways::default()
    };
    lab
}

fn limited(limit: RateLimit) -> Lab {
    let lab = Lab::new();
    lab.shared.limit(limit);
    lab
}

async fn details(lab: &Lab, peer: PeerInfo, headers: &[(&str, &str)], changes: &Value) -> Value {
    let mut client = lab.challenged_from(peer, headers).await;
    client.send(&connect(changes)).await;
    let answer = client.frame().await;
    let details = answer["error"]["details"].clone();
    if details.is_object() {
        client.closed().await;
    }
    details
}

#[tokio::test(start_paused = true)]
async fn a_proxys_user_needs_no_secret_and_is_paired_like_any_other() {
    let lab = behind_proxy(Some("for this machine"));
    let machine = Machine::new(1);
    let nothing = json!({"auth": null});
    let bare = details(&lab, from(PROXY), &PROXIED, &nothing).await;
    assert_eq!(bare["code"], "DEVICE_IDENTITY_REQUIRED", "{bare}");
    let (client, answer) = machine.knocks_from(&lab, from(PROXY), &PROXIED, &nothing).await;
    let asked = answer["error"]["details"].clone();
    assert_eq!(asked["code"], "PAIRING_REQUIRED", "{answer}");
    client.closed().await;
    // Somebody on this machine approves it, and then it comes in by the proxy's word alone.
    let admin = json!({"auth": {"password": "for this machine"}, "scopes": ["operator.admin"]});
    let (mut admin, answer) = lab.connected(&admin).await;
    assert_eq!(answer["payload"]["type"], "hello-ok", "{answer}");
    let request = json!({"requestId": asked["requestId"]});
    admin
        .send(
            &json!({"type": "req", "id": "1", "method": "device.pair.approve", "params": request}),
        )
        .await;
    assert_eq!(admin.frame().await["event"], "device.pair.resolved");
    let (_client, answer) = machine.knocks_from(&lab, from(PROXY), &PROXIED, &nothing).await;
    assert_eq!(answer["payload"]["auth"]["scopes"], json!(["operator.read"]), "{answer}");
    let capped = [&PROXIED[..], &[("x-openclaw-scopes", "")]].concat();
    let (_client, answer) = machine.knocks_from(&lab, from(PROXY), &capped, &nothing).await;
    assert_eq!(answer["payload"]["auth"]["scopes"], json!([]), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn nobody_elsewhere_learns_whether_he_guessed_the_password_of_this_machine() {
    let lab = behind_proxy(Some("for this machine"));
    for path in ["/readyz", "/startupz"] {
        let asked = async |secret: &str| {
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9\r\nAuthorization: Bearer {secret}"
            );
            plain_from(&lab, from("203.0.113.9"), head).await
        };
        assert_eq!(asked("for this machine").await, asked("no").await, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_way_past_the_proxy_is_refused_with_its_reason() {
    let lab = behind_proxy(None);
    let nothing = json!({"auth": null});
    let host = PROXIED[0];
    let loopback = ("host", "127.0.0.1:18789");
    let with = |gone: usize, more: &[(&'static str, &'static str)]| {
        let mut headers = PROXIED.to_vec();
        headers.remove(gone);
        headers.extend_from_slice(more);
        headers
    };
    for (source, headers, reason) in [
        ("198.51.100.7", PROXIED.to_vec(), "proxy_attribution_required"),
        ("198.51.100.7", vec![host], "trusted_proxy_untrusted_source"),
        ("127.0.0.1", vec![loopback], "trusted_proxy_untrusted_source"),
        (PROXY, with(1, &[("x-forwarded-for", "127.0.0.1")]), "proxy_attribution_required"),
        (PROXY, with(2, &[]), "trusted_proxy_missing_header_x-forwarded-proto"),
        (PROXY, with(3, &[]), "trusted_proxy_user_missing"),
        (
            PROXY,
            with(3, &[("x-forwarded-user", "eve@example.com")]),
            "trusted_proxy_user_not_allowed",
        ),
    ] {
        let found = details(&lab, from(source), &headers, &nothing).await;
        assert_eq!(found["authReason"], reason, "{source} {headers:?}");
    }
    // Nor does a paired device that comes by the proxy help a user who may not come in.
    let machine = Machine::new(1);
    let mut headers = PROXIED.to_vec();
    headers[3].1 = "eve@example.com";
    let (client, answer) = machine
        .knocks_from(&lab, from(PROXY), &headers, &json!({"auth": {"deviceToken": "t"}}))
        .await;
    let found = &answer["error"]["details"]["authReason"];
    assert_eq!(found, "trusted_proxy_user_not_allowed", "{answer}");
    client.closed().await;
    // A token is never taken in its place, on loopback neither.
    let token = json!({"auth": {"token": TOKEN}});
    let found = details(&lab, PeerInfo::loopback(), &[loopback], &token).await;
    assert_eq!(found["authReason"], "trusted_proxy_untrusted_source");
    // A proxy's word is no page's.
    let mut stream = lab.serve_from(from(PROXY)).0;
    let head =
        "GET / HTTP/1.1\r\nhost: control.example.com\r\norigin: https://evil.example\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 403"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn the_local_password_opens_on_loopback_and_not_behind_a_proxys_headers() {
    let lab = behind_proxy(Some("for this machine"));
    let password = json!({"auth": {"password": "for this machine"}});
    let loopback = ("host", "127.0.0.1:18789");
    let found = details(&lab, PeerInfo::loopback(), &[loopback], &password).await;
    assert_eq!(found, Value::Null, "let in");
    let forwarded = [loopback, ("x-real-ip", "203.0.113.9")];
    let found = details(&lab, PeerInfo::loopback(), &forwarded, &password).await;
    assert_eq!(found["authReason"], "proxy_attribution_required");
}

#[tokio::test(start_paused = true)]
async fn guessing_from_elsewhere_shuts_out_and_a_paired_device_beside_it_is_not() {
    let limit = RateLimit { attempts: 3, ..RateLimit::default() };
    let lab = limited(limit);
    let machine = Machine::new(1);
    machine.enters(&lab, &json!({})).await;
    let far = || from("198.51.100.7");
    let host = [("host", "127.0.0.1:18789")];
    for guess in 0..3 {
        let wrong = json!({"auth": {"token": format!("guess {guess}")}});
        let found = details(&lab, far(), &host, &wrong).await;
        let code = if guess < 2 { "AUTH_TOKEN_MISMATCH" } else { "AUTH_RATE_LIMITED" };
        assert_eq!(found["code"], code, "{guess}");
    }
    // Shut out, nothing is compared, and the answer says for how long.
    let mut client = lab.challenged_from(far(), &host).await;
    client.send(&connect(&json!({}))).await;
    let answer = client.frame().await;
    assert_eq!(answer["error"]["details"]["code"], "AUTH_RATE_LIMITED");
    let left = answer["error"]["retryAfterMs"].as_u64().unwrap();
    assert!(left > 290_000 && left <= 300_000, "{left}");
    client.closed().await;
    let (_client, answer) = machine.knocks_from(&lab, far(), &host, &json!({})).await;
    assert_eq!(answer["payload"]["type"], "hello-ok", "{answer}");
    lab.admitted().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_guesses_on_loopback_is_shut_out_and_programs_are_not() {
    let lab = limited(RateLimit { attempts: 2, ..RateLimit::default() });
    let page = [("host", "127.0.0.1:18789"), ("origin", "http://127.0.0.1:18789")];
    for guess in 0..2 {
        let wrong = json!({"auth": {"token": format!("guess {guess}")}});
        details(&lab, PeerInfo::loopback(), &page, &wrong).await;
    }
    let found = details(&lab, PeerInfo::loopback(), &page, &json!({})).await;
    assert_eq!(found["code"], "AUTH_RATE_LIMITED");
    lab.admitted().await;
}

#[tokio::test(start_paused = true)]
async fn another_port_in_each_guess_is_no_other_page_directly_or_through_a_proxy() {
    for forwarded in [None, Some(("x-forwarded-for", "x"))] {
        let lab = limited(RateLimit { attempts: 3, ..RateLimit::default() });
        for guess in 0..4 {
            let (host, origin) = (
                format!("127.0.0.1:{}", 4000 + guess),
                format!("http://127.0.0.1:{}", 4000 + guess),
            );
            let mut headers = vec![("host", host.as_str()), ("origin", origin.as_str())];
            headers.extend(forwarded);
            let wrong = json!({"auth": {"token": format!("guess {guess}")}});
            let found = details(&lab, PeerInfo::loopback(), &headers, &wrong).await;
            let code = if guess < 2 { "AUTH_TOKEN_MISMATCH" } else { "AUTH_RATE_LIMITED" };
            assert_eq!(found["code"], code, "{guess} {forwarded:?}");
        }
        lab.admitted().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_guesser_sends_beside_his_guess_does_not_choose_its_counter() {
    let host = [("host", "127.0.0.1:18789")];
    let far = || from("198.51.100.7");
    // Guesses at the gateway's secret, each with something else beside it.
    let lab = limited(RateLimit { attempts: 3, ..RateLimit::default() });
    for (guess, beside) in ["deviceToken", "bootstrapToken", "password", "token"].iter().enumerate()
    {
        let mut auth = json!({*beside: "beside"});
        auth["token"] = json!(format!("guess {guess}"));
        let found = details(&lab, far(), &host, &json!({"auth": auth})).await;
        let code = if guess < 2 { "AUTH_TOKEN_MISMATCH" } else { "AUTH_RATE_LIMITED" };
        assert_eq!(found["code"], code, "{guess} {beside}");
    }
    // Guesses at a device's token, with the same wrong secret beside them.
    let lab = limited(RateLimit { attempts: 3, ..RateLimit::default() });
    let machine = Machine::new(1);
    for guess in 0..4 {
        let auth = json!({"token": "no", "deviceToken": format!("guess {guess}")});
        let auth = json!({"auth": auth});
        let (client, answer) = machine.knocks_from(&lab, far(), &host, &auth).await;
        let code = if guess < 2 { "AUTH_DEVICE_TOKEN_MISMATCH" } else { "AUTH_RATE_LIMITED" };
        assert_eq!(answer["error"]["details"]["code"], code, "{guess}");
        client.closed().await;
    }
    // The gateway's secret was guessed at once, so it opens yet.
    let right = json!({"auth": {"token": TOKEN}});
    let found = details(&lab, far(), &host, &right).await;
    assert_eq!(found["code"], "DEVICE_IDENTITY_REQUIRED");
    // Nor does a counter that is full hide guesses from another.
    for guess in ["one", "two"] {
        let auth = json!({"auth": {"token": guess, "deviceToken": "any"}});
        let (client, _) = machine.knocks_from(&lab, far(), &host, &auth).await;
        client.closed().await;
    }
    let found = details(&lab, far(), &host, &right).await;
    assert_eq!(found["code"], "AUTH_RATE_LIMITED");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_guesses_beside_its_own_token_is_counted_and_one_with_an_old_secret_is_not() {
    let host = [("host", "127.0.0.1:18789")];
    let far = || from("198.51.100.7");
    let lab = limited(RateLimit { attempts: 3, ..RateLimit::default() });
    let machine = Machine::new(1);
    let (_client, token) = machine.enters(&lab, &json!({})).await;
    let knocks = async |auth: Value| {
        let auth = json!({"auth": auth});
        machine.knocks_from(&lab, far(), &host, &auth).await.1
    };
    // An old secret of the gateway's is one guess, and the device's token in its place is none.
    for auth in [json!({"token": "old", "deviceToken": token}), json!({"token": token})] {
        for _ in 0..5 {
            let answer = knocks(auth.clone()).await;
            assert_eq!(answer["payload"]["type"], "hello-ok", "{answer}");
        }
    }
    let second = knocks(json!({"token": "guess", "deviceToken": token})).await;
    assert_eq!(second["payload"]["type"], "hello-ok", "{second}");
    let third = knocks(json!({"token": "another", "deviceToken": token})).await;
    assert_eq!(third["error"]["details"]["code"], "AUTH_RATE_LIMITED", "{third}");
    let right = knocks(json!({"token": TOKEN, "deviceToken": token})).await;
    assert_eq!(right["error"]["details"]["code"], "AUTH_RATE_LIMITED", "{right}");
    // Without a guess beside it its own token is as good as ever.
    let answer = knocks(json!({"deviceToken": token})).await;
    assert_eq!(answer["payload"]["type"], "hello-ok", "{answer}");
}

/// Guesses until whoever is there is shut out.
fn shut_out(lab: &Lab, address: &str) {
    for with in [With::Shared, With::DeviceToken] {
        let culprit = Culprit::at(&PeerInfo { is_forwarded: true, ..from(address) }, with);
        for guess in 0..RateLimit::default().attempts {
            lab.shared.failed(&culprit, &guess.to_string());
        }
        assert!(lab.shared.shut_out(&culprit).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_named_by_proxy_or_tailscale_is_not_shut_out_for_secrets_sent_as_well() {
    let auths = [json!({"token": "old"}), json!({"deviceToken": "old"})];
    let lab = behind_proxy(None);
    shut_out(&lab, "203.0.113.9");
    for auth in &auths {
        let found = details(&lab, from(PROXY), &PROXIED, &json!({"auth": auth})).await;
        assert_eq!(found["code"], "DEVICE_IDENTITY_REQUIRED", "{auth}");
    }
    let mut lab = Lab::new();
    Arc::get_mut(&mut lab.shared).unwrap().ways.allow_tailscale = true;
    let served = |user: &'static str| {
        [
            ("host", "127.0.0.1:18789"),
            ("x-forwarded-for", "100.64.0.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "box.tail.ts.net"),
            ("tailscale-user-login", user),
        ]
    };
    let door = || PeerInfo { door: Door::Serve, ..PeerInfo::loopback() };
    shut_out(&lab, "100.64.0.9");
    lab.shared.whois.learn("100.64.0.9".parse().unwrap(), "me@example.com");
    for auth in &auths {
        let auth = json!({"auth": auth});
        let found = details(&lab, door(), &served("me@example.com"), &auth).await;
        assert_eq!(found["code"], "DEVICE_IDENTITY_REQUIRED", "{auth}");
    }
    // Whom Tailscale does not bear out is, even with the right secret.
    let right = json!({"auth": {"token": TOKEN}});
    let found = details(&lab, door(), &served("eve@example.com"), &right).await;
    assert_eq!(found["code"], "AUTH_RATE_LIMITED");
}

#[tokio::test(start_paused = true)]
async fn guessing_names_of_join_codes_from_elsewhere_is_answered_429() {
    let lab = limited(RateLimit { attempts: 2, ..RateLimit::default() });
    for (guess, status) in [(0, "404"), (1, "429"), (2, "429")] {
        let mut stream = lab.serve_from(from("198.51.100.7")).0;
        let head =
            format!("GET /j/{guess} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert_eq!(answer.contains("retry-after: "), status == "429", "{answer}");
    }
}

/// The answer to a join name from this machine, and how long it took.
async fn fetched(lab: &Lab, name: &str) -> (String, Duration) {
    let since = Instant::now();
    let head = format!("GET /j/{name} HTTP/1.1\r\nHost: 127.0.0.1");
    let (status, body) = plain(lab, &head).await;
    (format!("{status} {body}"), since.elapsed())
}

#[tokio::test(start_paused = true)]
async fn guessing_names_of_join_codes_from_this_machine_is_slowed_like_guessing_secrets() {
    let lab = limited(RateLimit { attempts: 2, ..RateLimit::default() });
    for (guess, status, seconds) in [(0, "404", 0), (1, "404", 0), (2, "429", 2), (3, "429", 2)] {
        let (answer, took) = fetched(&lab, &format!("{guess:022}")).await;
        assert!(answer.contains(status), "{answer}");
        assert_eq!(took.as_secs(), seconds, "{guess}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_not_told_why_a_join_code_cannot_be_looked_up() {
    let lab = Lab::new();
    lab.shared.store.lose("join_offer").await;
    let (answer, _) = fetched(&lab, &"x".repeat(22)).await;
    assert!(answer.contains("503") && answer.contains("try again in a minute"), "{answer}");
    assert!(!answer.contains("join_offer") && !answer.contains("table"), "{answer}");
}
