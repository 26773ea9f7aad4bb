//! Without a secret: behind a proxy that names users, and with `gateway.auth.mode` `none`. The same
//! story is told to OpenClaw's gateway and to ours, and both answer alike.

use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::support::{Device, Home, OurGateway, Peer, ReferenceGateway, Wire, connect, present};

/// A proxy on this machine, as both gateways know it.
const PROXY: &str = "bind: 'loopback', trustedProxies: ['127.0.0.1'], auth: {mode: 'trusted-proxy', \
    trustedProxy: {userHeader: 'x-forwarded-user', requiredHeaders: ['x-forwarded-proto'], \
    allowUsers: ['nick@example.com'], allowLoopback: true}}";

/// What a proxy says of a client.
const USER: (&str, &str) = ("x-forwarded-user", "nick@example.com");
const STRANGER: (&str, &str) = ("x-forwarded-user", "mallory@example.com");
const FOR: (&str, &str) = ("x-forwarded-for", "203.0.113.9");
const PROTO: (&str, &str) = ("x-forwarded-proto", "https");

/// What somebody is told who comes so: whether he is in with which scopes, or the code and reason of
/// the refusal.
async fn told(port: u16, headers: &[(&str, &str)], device: Option<u8>, auth: &Value) -> Value {
    let (wire, asked) = match Wire::open_with(port, headers).await {
        Ok(opened) => opened,
        Err(error) => return Value::String(error.to_string()),
    };
    let mut wire = wire.unheld();
    let mut params = connect(auth);
    if auth.is_null() {
        params.as_object_mut().expect("parameters").remove("auth");
    }
    if let Some(seed) = device {
        Device::new(seed).sign(&mut params, &asked);
    }
    let answer = wire.call("connect", params).await.expect("an answer");
    if answer["ok"] == true {
        return json!({ "scopes": answer["payload"]["auth"]["scopes"] });
    }
    let error = &answer["error"];
    json!({ "code": error["details"]["code"], "reason": error["details"]["authReason"] })
}

/// Everybody who comes to a gateway behind a proxy.
async fn by_proxy(port: u16) -> Vec<(&'static str, Value)> {
    let none = Value::Null;
    let theirs = json!({ "token": "a token for the proxy's gateway" });
    vec![
        ("past the proxy", told(port, &[], Some(1), &none).await),
        ("past it with some token", told(port, &[], Some(1), &theirs).await),
        ("a user without its header", told(port, &[FOR, PROTO], Some(1), &none).await),
        ("without a required header", told(port, &[FOR, USER], Some(1), &none).await),
        ("who is not allowed", told(port, &[FOR, PROTO, STRANGER], Some(1), &none).await),
        ("allowed, with a device", told(port, &[FOR, PROTO, USER], Some(1), &none).await),
        ("allowed, without a device", told(port, &[FOR, PROTO, USER], None, &none).await),
    ]
}

/// Everybody who comes to a gateway that asks for no secret.
async fn by_none(port: u16) -> Vec<(&'static str, Value)> {
    let token = json!({ "token": "some token" });
    vec![
        ("nothing", told(port, &[], None, &Value::Null).await),
        ("a device", told(port, &[], Some(1), &Value::Null).await),
        ("a token that nobody asked for", told(port, &[], None, &token).await),
        ("a device from elsewhere", told(port, &[FOR], Some(2), &Value::Null).await),
        ("somebody from elsewhere", told(port, &[FOR], None, &Value::Null).await),
    ]
}

type Told = Vec<(&'static str, Value)>;

/// What ours says to everybody of a story with these keys of `gateway`, and what theirs does.
fn both(name: &str, keys: &str, story: impl AsyncFn(u16) -> Told) -> (Told, Told) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let home = Home::new();
    home.write("home/.openclaw/openclaw.json", &format!("{{gateway: {{{keys}}}}}"));
    let ours = OurGateway::start(&home);
    let ours = runtime.block_on(story(ours.port()));
    let theirs = ReferenceGateway::start_with(name, keys);
    (ours, runtime.block_on(story(theirs.port())))
}

/// Both say the same, but for whom ours refuses with a code of its own.
fn hold(ours: Told, theirs: Told, known: &[(&str, &str)]) {
    let differing = ours.into_iter().zip(theirs).filter(|(ours, theirs)| ours != theirs);
    let found: Vec<_> = differing.map(|((who, ours), (_, theirs))| (who, ours, theirs)).collect();
    let codes: Vec<_> =
        found.iter().map(|(who, ours, _)| (*who, ours["code"].as_str().unwrap_or("in"))).collect();
    assert_eq!(codes, known, "who, ours, theirs: {found:#?}");
}

#[test]
fn a_proxy_that_names_users_is_believed_as_the_reference_gateway_believes_it() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let (ours, theirs) = both("behind-a-proxy", PROXY, by_proxy);
    // A user without a device may do nothing there, and does not come in here.
    let differs = [("allowed, without a device", "DEVICE_IDENTITY_REQUIRED")];
    hold(ours, theirs, &differs);
}

#[test]
fn without_a_secret_the_same_clients_come_in_as_at_the_reference_gateway() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let (ours, theirs) = both("no-secret", "auth: {mode: 'none'}", by_none);
    // A proxy that nobody trusts is no way in there; here what came through it is not of this machine.
    let differs = [
        ("a device from elsewhere", "PAIRING_REQUIRED"),
        ("somebody from elsewhere", "DEVICE_IDENTITY_REQUIRED"),
    ];
    hold(ours, theirs, &differs);
}
