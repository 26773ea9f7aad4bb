//! Fuzz targets: any first text of a client, and any text once it is in.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    path::Path,
    sync::OnceLock,
};

use tokio::runtime::Runtime;

use super::{devices::Machine, *};
use crate::{
    fuzz::{hostile_json, survives},
    gateway::{
        admission::Refusal,
        caller::Caller,
        connection::texts,
        ingress::{NoUser, ProxyRules, Word},
        pairing::{Admission, admit},
    },
    protocol::{self, Connect, ErrorShape, Frame, Response, Role, Scope, close, code, device},
    store::{About, SetupCode},
};

/// The page that says which codes there are.
const PAGE: &str = include_str!("../../../docs/protocol.md");
/// The time of every decision, milliseconds.
const NOW: u64 = 1_795_486_176_838;
const NONCE: &str = "nonce";
/// What opens the gateways; the corpus knows it.
const SECRET: &str = "the right secret";
/// What the corpus says where the device's own token, or a setup code's, is to stand.
const DEVICE_TOKEN: &str = "the device's own token";
const SETUP_TOKEN: &str = "the setup code";
/// The device of whoever asks; the corpus knows it.
const CALLER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// How many inputs one gateway gets; what it keeps of them stays small so.
const INPUTS: u32 = 256;

/// A runtime whose clock jumps to whatever is waited for.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// A gateway that is made anew now and then.
struct Fresh<T> {
    made: RefCell<Option<T>>,
    inputs: Cell<u32>,
}

impl<T> Fresh<T> {
    fn new() -> Self {
        Self { made: RefCell::new(None), inputs: Cell::new(0) }
    }

    fn with(&self, runtime: &Runtime, make: impl AsyncFnOnce() -> T, act: impl AsyncFnOnce(&T)) {
        let inputs = self.inputs.replace(self.inputs.get() + 1);
        let mut made = self.made.borrow_mut();
        if inputs.is_multiple_of(INPUTS) {
            *made = None;
        }
        runtime.block_on(async {
            let made = match &mut *made {
                Some(made) => made,
                empty @ None => empty.insert(make().await),
            };
            act(made).await;
        });
    }
}

fn callers() -> Vec<Arc<Caller>> {
    let caller = |role, scopes: &[Scope]| {
        Arc::new(Caller {
            connection: "here".to_owned(),
            member: 0,
            role,
            client: serde_json::from_value(json!({
                "id": "cli", "version": "1", "platform": "linux", "mode": "cli",
            }))
            .unwrap(),
            about: About::default(),
            device_id: Some(CALLER.to_owned()),
            by_device_token: false,
            scopes: scopes.to_vec(),
            farewell: OnceLock::new(),
            receipts: Arc::default(),
        })
    };
    vec![
        caller(Role::Operator, &[Scope::Admin]),
        caller(Role::Operator, &[Scope::Read]),
        caller(Role::Node, &[]),
    ]
}

/// Whatever is said, it is answered once, under its id, in a frame as published, and not at length.
async fn answers(lab: &Lab, caller: &Arc<Caller>, text: &str) {
    let asked = match texts::asked(text) {
        Ok(asked) => asked,
        Err(answer) => {
            let error = answer.error.as_ref().unwrap();
            assert!(!answer.ok && error.code == code::INVALID_REQUEST, "{error:?}");
            if let Ok(frame) = serde_json::from_str::<Value>(text) {
                let named = frame["id"].as_str().filter(|id| !id.is_empty());
                assert_eq!(answer.id, named.unwrap_or("invalid"), "{text}");
            }
            return;
        }
    };
    let (id, method) = (asked.id.to_string(), asked.method.to_string());
    let call = Call { shared: Arc::clone(&lab.shared), caller: Arc::clone(caller) };
    let answer = timeout(Duration::from_secs(3_600), lab.shared.dispatcher.answer(&call, asked));
    let answer = answer.await.unwrap_or_else(|_| panic!("{method} takes an hour"));
    assert!(answer.len() <= 8 * text.len() + 1024 * 1024, "{} bytes", answer.len());
    let frame: Value = serde_json::from_str(&answer).unwrap();
    if let Some(schema) = schema::Schema::published() {
        schema.hold(&frame, Some(&method));
    }
    let response: Response = match serde_json::from_str(&answer) {
        Ok(Frame::Response(response)) => response,
        other => panic!("{other:?}"),
    };
    assert_eq!(response.id, id);
    assert_eq!(response.ok, response.error.is_none(), "{answer}");
    let is_known = lab.shared.dispatcher.known(&method) == method;
    assert!(is_known || response.error.is_some_and(|error| error.code == code::INVALID_REQUEST));
}

#[test]
fn whatever_a_client_says_is_answered_once_and_as_published() {
    let requests = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz/requests");
    for method in protocol::rows().map(|row| row.name) {
        assert!(requests.join(format!("{method}.json")).exists(), "no request of {method}");
    }
    let (runtime, lab) = (runtime(), Fresh::new());
    let home = tempfile::tempdir().unwrap();
    let callers = callers();
    let check = |bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        lab.with(
            &runtime,
            async || {
                let lab = Lab::at(home.path());
                paired(&lab, CALLER.to_owned(), "key".to_owned()).await;
                lab
            },
            async |lab| {
                for caller in &callers {
                    answers(lab, caller, text).await;
                }
            },
        );
    };
    for json in hostile_json() {
        check(&json);
        for method in protocol::rows().map(|row| row.name) {
            let before = format!(r#"{{"type":"req","id":"1","method":"{method}","params":"#);
            check(&[before.as_bytes(), &json, b"}"].concat());
        }
    }
    survives(&["fuzz/requests"], check);
}

/// Pairs a device for reading, so that everything else is more; its token.
async fn paired(lab: &Lab, device_id: String, public_key: String) -> Secret {
    let asked = crate::store::Asked {
        device_id: device_id.clone(),
        public_key,
        about: About::default(),
        role: Role::Operator,
        scopes: vec![Scope::Read],
    };
    let minted = lab.shared.mint.mint(&device_id, Role::Operator);
    let serial = minted.serial.clone();
    lab.shared.store.devices().pair(asked, "test", minted, NOW).await.unwrap().unwrap();
    lab.shared.mint.token(&device_id, Role::Operator, &serial)
}

/// A gateway, who asks it, and what its own device and its setup code can show.
struct House {
    lab: Lab,
    peers: Vec<PeerInfo>,
    device_token: Secret,
    setup_token: Secret,
}

impl House {
    async fn new(guard: Guard, peers: Vec<PeerInfo>) -> Self {
        let lab = Lab::new();
        lab.shared.set_live(Live { guard, allowed_origins: Vec::new(), pair_local: None });
        let public_key = machine().signs(&anybody(), NONCE, NOW).public_key;
        let device_token = paired(&lab, machine().id(), public_key).await;
        let devices = lab.shared.store.devices();
        let setup_token = lab.shared.mint.setup_token("1");
        let code = SetupCode {
            id: "1".to_owned(),
            access: "node".to_owned(),
            expires_at: NOW + 1,
            device_id: None,
            redeemed_at: None,
            delivered_at: None,
        };
        let digest = crate::gateway::device_token::digest(setup_token.expose());
        assert!(devices.keep_code(code, digest, None, NOW).await.unwrap());
        Self { lab, peers, device_token, setup_token }
    }

    /// Decides about a client, as it came and with its device's signature made good.
    async fn decide(&self, connect: &Connect) {
        let mut connect = connect.clone();
        self.put_in_secrets(&mut connect);
        self.hold(&connect).await;
        if connect.device.is_some() {
            connect.device = Some(machine().signs(&connect, NONCE, NOW));
            self.hold(&connect).await;
        }
    }

    fn put_in_secrets(&self, connect: &mut Connect) {
        let Some(auth) = &mut connect.auth else { return };
        for field in [&mut auth.token, &mut auth.device_token, &mut auth.bootstrap_token] {
            let own = match field.as_ref().map(Secret::expose) {
                Some(DEVICE_TOKEN) => &self.device_token,
                Some(SETUP_TOKEN) => &self.setup_token,
                Some(_) | None => continue,
            };
            *field = Some(own.clone());
        }
    }

    async fn hold(&self, connect: &Connect) {
        for peer in &self.peers {
            match admit(&self.lab.shared, connect, peer, NONCE, NOW).await {
                Ok(admission) => self.is_earned(connect, peer, &admission).await,
                Err(refusal) => is_explained(connect, &refusal),
            }
        }
    }

    /// Nobody is in without something that matches, nor with more than was asked for and is held by
    /// the record of its device.
    async fn is_earned(&self, connect: &Connect, peer: &PeerInfo, admission: &Admission) {
        let auth = connect.auth.clone().unwrap_or_default();
        let is = |field: &Option<Secret>, secret: &str| {
            field.as_ref().is_some_and(|field| field.expose() == secret)
        };
        let is_signed = connect
            .device
            .as_ref()
            .is_some_and(|shown| device::verify(shown, connect, NONCE, NOW).is_ok());
        let by_secret = is(&auth.token, SECRET) || is(&auth.password, SECRET);
        let own = self.device_token.expose();
        let by_token = is_signed && (is(&auth.device_token, own) || is(&auth.token, own));
        let by_code = is_signed && is(&auth.bootstrap_token, self.setup_token.expose());
        let by_word = matches!(peer.word, Word::User(_));
        let what = format!("{connect:?} from {peer:?} as {admission:?}");
        assert!(by_secret || by_token || by_code || by_word, "{what}");
        assert!(!admission.by_device_token || by_token || by_code, "{what}");
        assert_eq!(admission.device_id.is_some(), connect.device.is_some(), "{what}");
        assert!(connect.device.is_none() || is_signed, "{what}");
        let asked = connect.scopes.clone().unwrap_or_default();
        assert!(admission.scopes.iter().all(|held| asked.contains(&held.to_string())), "{what}");
        let is_probe = connect.client.mode == "probe";
        let is_bare = admission.role == Role::Node || is_probe;
        assert!(!is_bare || admission.scopes.is_empty(), "{what}");
        assert!(admission.role == Role::Operator || is_signed, "{what}");
        let Some(id) = &admission.device_id else {
            return assert!(by_secret && peer.is_direct_loopback(), "{what}");
        };
        let record = self.lab.shared.store.devices().find(id).await.unwrap();
        let grant = record.as_ref().and_then(|record| record.grant(admission.role));
        let approved = grant.map(|grant| grant.approved.clone()).unwrap_or_default();
        assert!(admission.scopes.iter().all(|held| held.is_within(&approved)), "{what}");
        assert!(grant.is_some() || is_probe, "{what}");
    }
}

/// Every refusal has a code that the page lists, and tells nothing of a secret.
fn is_explained(connect: &Connect, refusal: &Refusal) {
    let error: &ErrorShape = &refusal.error;
    let code = error.details.as_ref().and_then(|details| details["code"].as_str());
    let code = code.unwrap_or(&error.code);
    assert!(PAGE.contains(&format!("`{code}`")), "{code} is not in the page: {error:?}");
    assert!([close::POLICY, close::PROTOCOL].contains(&refusal.close), "{refusal:?}");
    let frame = Response::failure("1", refusal.error.clone());
    let frame = serde_json::to_value(Frame::Response(frame)).unwrap();
    if let Some(schema) = schema::Schema::published() {
        schema.hold(&frame, None);
    }
    let auth = connect.auth.clone().unwrap_or_default();
    let text = frame.to_string();
    for secret in [auth.token, auth.password, auth.device_token, auth.bootstrap_token] {
        let is_told = secret.is_some_and(|secret| {
            secret.expose().starts_with("SECRET-") && text.contains(secret.expose())
        });
        assert!(!is_told, "{text}");
    }
}

fn machine() -> Machine {
    Machine::new(7)
}

fn anybody() -> Connect {
    serde_json::from_value(connect(&json!({}))["params"].clone()).unwrap()
}

async fn houses() -> Vec<House> {
    let elsewhere: IpAddr = "192.0.2.7".parse().unwrap();
    let far = || PeerInfo { address: elsewhere, ..PeerInfo::loopback() };
    let tunnelled = || PeerInfo { is_forwarded: true, ..PeerInfo::loopback() };
    let direct = || vec![PeerInfo::loopback(), tunnelled(), far()];
    let proxied = |word| PeerInfo { word, is_forwarded: true, ..far() };
    let rules = ProxyRules {
        user_header: "x-forwarded-user".to_owned(),
        required_headers: Vec::new(),
        allow_users: Vec::new(),
        allow_loopback: false,
        password: Some(Secret::new(SECRET)),
    };
    let peers = vec![
        PeerInfo { cap: Some(vec![Scope::Read]), ..proxied(Word::User("nick".to_owned())) },
        proxied(Word::NoUser(NoUser::UntrustedSource)),
        PeerInfo { word: Word::NoUser(NoUser::LoopbackSource), ..PeerInfo::loopback() },
    ];
    vec![
        House::new(Guard::Token(Secret::new(SECRET)), direct()).await,
        House::new(Guard::Password(Secret::new(SECRET)), direct()).await,
        House::new(Guard::Proxy(Box::new(rules)), peers).await,
    ]
}

#[test]
fn nobody_comes_in_without_what_opens_and_every_refusal_has_a_code_of_the_page() {
    let (runtime, houses_made) = (runtime(), Fresh::new());
    let check = |bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Some(request) = texts::first_request(text) else { return };
        match texts::parse_connect(&request) {
            Ok(connect) => houses_made.with(&runtime, houses, async |houses| {
                for house in houses {
                    house.decide(&connect).await;
                }
            }),
            Err(refusal) => is_explained(&anybody(), &refusal),
        }
    };
    for json in hostile_json() {
        check(&json);
        check(&[br#"{"type":"req","id":"1","method":"connect","params":"#, &*json, b"}"].concat());
    }
    survives(&["fuzz/connects"], check);
}
