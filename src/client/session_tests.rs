//! Conversations with a scripted gateway over in-memory streams, on the stopped clock.

use serde_json::json;
use tokio::io::{DuplexStream, duplex};
use tokio_tungstenite::accept_async;

use super::*;
use crate::secret::Secret;

const PATIENCE: Duration = Duration::from_secs(10);

/// The gateway's end.
pub(in crate::client) struct Far<S = DuplexStream>(WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Far<S> {
    pub(in crate::client) async fn accept(stream: S) -> Self {
        let mut far = Self(accept_async(stream).await.unwrap());
        far.say(&json!({"type": "event", "event": "connect.challenge",
            "payload": {"nonce": "n", "ts": 1, "capabilities": []}}))
            .await;
        far
    }

    async fn say(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next request, `None` after the end.
    pub(in crate::client) async fn hear(&mut self) -> Option<Request> {
        while let Some(Ok(message)) = self.0.next().await {
            if let Message::Text(text) = message {
                let frame = serde_json::from_str(&text).unwrap();
                let Frame::Request(request) = frame else { panic!("unexpected {frame:?}") };
                return Some(request);
            }
        }
        None
    }

    pub(in crate::client) async fn answer(&mut self, id: &str, payload: &Value) {
        self.say(&json!({"type": "res", "id": id, "ok": true, "payload": payload})).await;
    }

    pub(in crate::client) async fn admit(&mut self) -> Request {
        self.admit_with(None).await
    }

    /// Admits the client, and gives its device a token.
    pub(in crate::client) async fn admit_with(&mut self, device_token: Option<&str>) -> Request {
        let request = self.hear().await.unwrap();
        assert_eq!(request.method, "connect");
        let mut hello = hello();
        if let Some(token) = device_token {
            hello["auth"]["deviceToken"] = json!(token);
        }
        self.answer(&request.id, &hello).await;
        request
    }

    /// Refuses the login, for the reason `code`.
    pub(in crate::client) async fn refuse(&mut self, code: &str) -> Request {
        let request = self.hear().await.unwrap();
        assert_eq!(request.method, "connect");
        self.say(&json!({"type": "res", "id": request.id, "ok": false, "error": {
            "code": "INVALID_REQUEST", "message": "no", "details": {"code": code}}}))
            .await;
        request
    }
}

fn hello() -> Value {
    json!({
        "type": "hello-ok", "protocol": 4,
        "server": {"version": "2026.9.6", "connId": "c", "more": true},
        "features": {"methods": ["health", "gateway.identity.get"], "events": []},
        "snapshot": {"presence": [], "health": {}, "uptimeMs": 5,
            "stateVersion": {"presence": 1, "health": 1}},
        "auth": {"method": "token", "role": "operator", "scopes": ["operator.read"]},
        "policy": {"maxPayload": 26214400, "maxBufferedBytes": 52428800, "tickIntervalMs": 30000},
    })
}

fn token() -> Credential {
    Credential::new(Some(Secret::new("hunter2")), None, Source::Given)
}

async fn log_in(stream: DuplexStream, credential: &Credential) -> Result<Gateway, Problem> {
    let login =
        Login { url: "ws://127.0.0.1:1", name: "here", credential, scopes: READ, device: None };
    Gateway::log_in(stream, login, Instant::now() + PATIENCE).await
}

async fn logged_in() -> (Gateway, Far) {
    let (near, far) = duplex(1 << 20);
    let gateway = async {
        let mut far = Far::accept(far).await;
        far.admit().await;
        far
    };
    let credential = token();
    let (gateway, far) = tokio::join!(log_in(near, &credential), gateway);
    (gateway.unwrap(), far)
}

#[tokio::test(start_paused = true)]
async fn logs_in_with_what_it_was_given_and_no_more() {
    let (near, far) = duplex(1 << 20);
    let gateway = async { Far::accept(far).await.admit().await.params.unwrap() };
    let credential = token();
    let (outcome, params) = tokio::join!(log_in(near, &credential), gateway);
    assert_eq!(outcome.unwrap().hello.server.version, "2026.9.6");
    assert_eq!(
        params,
        json!({
            "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": ["operator.read"],
            "client": {"id": "cli", "version": env!("CARGO_PKG_VERSION"),
                "platform": params["client"]["platform"], "mode": "cli"},
            "auth": {"token": "hunter2"},
            "userAgent": concat!("openclaw/", env!("CARGO_PKG_VERSION")),
        })
    );
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_calls_in_any_order() {
    let (gateway, mut far) = logged_in().await;
    let script = async {
        let mut requests = Vec::new();
        for _ in 0..3 {
            requests.push(far.hear().await.unwrap());
        }
        far.say(&json!({"type": "event", "event": "tick", "payload": {"ts": 1}})).await;
        far.answer("nobody asked", &json!(0)).await;
        for request in requests.iter().rev() {
            far.answer(&request.id, &json!(request.method)).await;
        }
    };
    let (one, two, three, ()) = tokio::join!(
        gateway.call("one", None, PATIENCE),
        gateway.call("two", Some(json!({"x": 1})), PATIENCE),
        gateway.call("three", None, PATIENCE),
        script
    );
    assert_eq!([one, two, three].map(Result::unwrap), ["one", "two", "three"].map(|m| json!(m)));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_harms_nobody() {
    let (gateway, mut far) = logged_in().await;
    let script = async {
        let late = far.hear().await.unwrap();
        let next = far.hear().await.unwrap();
        far.answer(&late.id, &json!("late")).await;
        far.answer(&next.id, &json!("in time")).await;
    };
    let calls = async {
        let problem = gateway.call("slow", None, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(problem.class, Class::Timeout);
        gateway.call("fast", None, PATIENCE).await
    };
    let (answer, ()) = tokio::join!(calls, script);
    assert_eq!(answer.unwrap(), json!("in time"));
}

#[tokio::test(start_paused = true)]
async fn an_error_comes_back_as_the_gateways_word() {
    let (gateway, mut far) = logged_in().await;
    let script = async {
        let request = far.hear().await.unwrap();
        far.say(&json!({"type": "res", "id": request.id, "ok": false,
            "error": {"code": "INVALID_REQUEST", "message": "unknown method: nope"}}))
            .await;
    };
    let (answer, ()) = tokio::join!(gateway.call("nope", None, PATIENCE), script);
    let problem = answer.unwrap_err();
    assert_eq!((problem.class, problem.message.as_str()), (Class::Rpc, "unknown method: nope"));
}

#[tokio::test(start_paused = true)]
async fn every_call_learns_of_the_end() {
    let (gateway, mut far) = logged_in().await;
    let script = async {
        far.hear().await.unwrap();
        drop(far);
    };
    let (answer, ()) = tokio::join!(gateway.call("health", None, PATIENCE), script);
    assert_eq!(answer.unwrap_err().class, Class::GatewayDown);
    let problem = gateway.call("health", None, PATIENCE).await.unwrap_err();
    assert_eq!(problem.class, Class::GatewayDown);
}

#[tokio::test(start_paused = true)]
async fn more_calls_than_fit_are_refused() {
    let (gateway, _far) = logged_in().await;
    let calls = (0..MOST_CALLS).map(|_| gateway.call("slow", None, PATIENCE));
    let all = futures_util::future::join_all(calls);
    let one_more = async {
        tokio::task::yield_now().await;
        gateway.call("slow", None, PATIENCE).await
    };
    let (waited, refused) = tokio::join!(all, one_more);
    assert_eq!(refused.unwrap_err().message, "too many calls wait for an answer");
    assert!(waited.iter().all(|w| w.as_ref().is_err_and(|p| p.class == Class::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_no_missing_gateway() {
    let (near, far) = duplex(1 << 20);
    let script = async {
        let mut far = Far::accept(far).await;
        let request = far.hear().await.unwrap();
        far.say(&json!({"type": "res", "id": request.id, "ok": false, "error": {
            "code": "INVALID_REQUEST", "message": "unauthorized",
            "details": {"code": "AUTH_TOKEN_MISMATCH"}}}))
            .await;
    };
    let credential = token();
    let (outcome, ()) = tokio::join!(log_in(near, &credential), script);
    let problem = outcome.unwrap_err();
    assert_eq!(problem.class, Class::GatewayRefused);
    assert_eq!(problem.code.as_deref(), Some("AUTH_TOKEN_MISMATCH"));
    assert!(!problem.message.contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn a_far_side_that_says_nothing_is_no_gateway() {
    let (near, _far) = duplex(1 << 20);
    let problem = log_in(near, &token()).await.unwrap_err();
    assert_eq!(problem.class, Class::GatewayDown);
}

#[tokio::test(start_paused = true)]
async fn says_goodbye() {
    let (gateway, mut far) = logged_in().await;
    let (end, ()) = tokio::join!(far.hear(), gateway.close());
    assert!(end.is_none());
}

#[tokio::test(start_paused = true)]
async fn asks_only_a_gateway_that_can_tell_for_its_identity() {
    let (mut gateway, mut far) = logged_in().await;
    let script = async {
        let request = far.hear().await.unwrap();
        assert_eq!(request.method, "gateway.identity.get");
        far.answer(&request.id, &json!({"deviceId": "d", "publicKey": "k"})).await;
    };
    let (identity, ()) = tokio::join!(gateway.identity(PATIENCE), script);
    assert_eq!(identity.unwrap().as_deref(), Some("d"));
    let mut stranger = gateway.hello.clone();
    stranger.auth.scopes.clear();
    let hello = std::mem::replace(&mut gateway.hello, stranger);
    assert!(gateway.may_nothing());
    assert_eq!(gateway.identity(PATIENCE).await.unwrap(), None);
    gateway.hello = hello;
    gateway.hello.features.methods.clear();
    assert_eq!(gateway.identity(PATIENCE).await.unwrap(), None);
}
