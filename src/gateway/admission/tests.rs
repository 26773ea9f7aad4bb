//! Who comes in with what, who asks, and what the others are told.

use serde_json::{Value, json};

use super::*;

fn connect(changes: &Value) -> Connect {
    let mut value = json!({
        "minProtocol": 4, "maxProtocol": 4, "role": "operator",
        "client": {"id": "cli", "version": "1", "platform": "linux", "mode": "cli"},
        "scopes": ["operator.read", "operator.read", "operator.zap"],
        "auth": {"token": "secret"},
    });
    for (key, change) in changes.as_object().unwrap() {
        value[key] = change.clone();
    }
    serde_json::from_value(value).unwrap()
}

/// Everything that is decided about a client whose device the store does not know.
fn decide(changes: &Value, guard: &Guard, peer: &PeerInfo) -> Result<Verdict, Refusal> {
    let connect = connect(changes);
    let claim = examine(&connect, peer, "nonce", 1)?;
    let proof = check(&connect, guard, peer)?;
    judge(&claim, proof, None, peer, None)
}

fn token() -> Guard {
    Guard::Token(Secret::new("secret"))
}

fn code_of(outcome: Result<Verdict, Refusal>) -> String {
    let details = outcome.unwrap_err().error.details.unwrap();
    details["code"].as_str().unwrap().to_owned()
}

#[test]
fn lets_an_operator_in_with_the_known_scopes_that_it_asks_for() {
    let verdict = decide(&json!({}), &token(), &PeerInfo::loopback()).unwrap();
    assert_eq!(verdict, Verdict::Enter(vec![Scope::Read]));
    let none = decide(&json!({"scopes": null}), &token(), &PeerInfo::loopback()).unwrap();
    assert_eq!(none, Verdict::Enter(Vec::new()));
}

#[test]
fn takes_the_secret_from_either_field_and_the_modes_own_first() {
    let peer = PeerInfo::loopback();
    let password = Guard::Password(Secret::new("secret"));
    for (auth, guard, is_in) in [
        (json!({"password": "secret"}), &token(), true),
        (json!({"password": "secret", "token": "no"}), &token(), false),
        (json!({"token": "secret"}), &password, true),
        (json!({"password": "no", "token": "secret"}), &password, false),
        (json!({"deviceToken": "secret"}), &token(), false),
        (json!({"token": ""}), &Guard::OwnToken, false),
        // Asks for none, and for a key of the client's own.
        (json!({"token": "secret"}), &Guard::Open, false),
        (json!({}), &Guard::Open, false),
    ] {
        assert_eq!(decide(&json!({"auth": auth}), guard, &peer).is_ok(), is_in, "{auth}");
    }
}

#[test]
fn says_what_is_wrong_with_a_secret() {
    let peer = PeerInfo::loopback();
    let wrong = decide(&json!({"auth": {"token": "no"}}), &token(), &peer).unwrap_err();
    assert_eq!(wrong.wrong, [Wrong::Token]);
    assert_eq!(
        serde_json::to_value(&wrong.error).unwrap(),
        json!({"code": "INVALID_REQUEST", "message": "unauthorized: gateway token mismatch",
            "details": {"code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch",
                "canRetryWithDeviceToken": false,
                "recommendedNextStep": "update_auth_credentials"}})
    );
    let missing = decide(&json!({"auth": null}), &token(), &peer);
    assert_eq!(missing.clone().unwrap_err().wrong, []);
    assert_eq!(code_of(missing), "DEVICE_IDENTITY_REQUIRED", "who shows nothing has no key either");
    let guard = Guard::Password(Secret::new("p"));
    assert_eq!(code_of(decide(&json!({}), &guard, &peer)), "AUTH_PASSWORD_MISMATCH");
    assert_eq!(code_of(decide(&json!({"auth": {}}), &guard, &peer)), "DEVICE_IDENTITY_REQUIRED");
}

#[test]
fn operators_must_include_our_version_and_a_probe_may_offer_the_one_before() {
    let peer = PeerInfo::loopback();
    let probe = json!({"id": "openclaw-probe", "version": "1", "platform": "l", "mode": "probe"});
    for (min, max, mode, is_in) in [
        (4, 4, "cli", true),
        (3, 5, "cli", true),
        (3, 3, "cli", false),
        (5, 6, "cli", false),
        (3, 3, "probe", true),
        (2, 2, "probe", false),
    ] {
        let mut changes = json!({"minProtocol": min, "maxProtocol": max});
        if mode == "probe" {
            changes["client"] = probe.clone();
        }
        assert_eq!(decide(&changes, &token(), &peer).is_ok(), is_in, "{min} {max} {mode}");
    }
    let older = decide(&json!({"minProtocol": 3, "maxProtocol": 3}), &token(), &peer);
    let refusal = older.unwrap_err();
    assert!(refusal.error.message.ends_with("update the client"));
    assert_eq!(refusal.close, 1002);
    let newer = decide(&json!({"minProtocol": 5, "maxProtocol": 6}), &token(), &peer);
    assert!(newer.unwrap_err().error.message.ends_with("update the gateway"));
}

#[test]
fn a_probe_gets_no_scopes() {
    let client = json!({"id": "openclaw-probe", "version": "1", "platform": "l", "mode": "probe"});
    let verdict = decide(&json!({"client": client}), &token(), &PeerInfo::loopback());
    assert_eq!(verdict.unwrap(), Verdict::Enter(Vec::new()));
}

#[test]
fn nodes_and_other_machines_need_pairing_whatever_they_know() {
    let peer = PeerInfo::loopback();
    assert_eq!(
        code_of(decide(&json!({"role": "node"}), &token(), &peer)),
        "DEVICE_IDENTITY_REQUIRED"
    );
    let elsewhere = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..peer };
    let forwarded = PeerInfo { is_forwarded: true, ..PeerInfo::loopback() };
    for peer in [elsewhere, forwarded] {
        let refusal = decide(&json!({}), &token(), &peer).unwrap_err();
        assert_eq!(refusal.error.code, "NOT_PAIRED");
    }
}

fn claim(role: Role, scopes: &[Scope]) -> Claim {
    let device = SignedDevice { id: "a".to_owned(), public_key: "key".to_owned() };
    Claim { role, is_probe: false, scopes: scopes.to_vec(), device: Some(device) }
}

/// A device approved for `approved` whose token holds `held`.
fn paired(approved: &[Scope], held: &[Scope]) -> Device {
    let grant = crate::store::Grant {
        role: Role::Operator,
        approved: approved.to_vec(),
        scopes: held.to_vec(),
        serial: String::new(),
        token_digest: Vec::new(),
        issued_at: 1,
        rotated_at: None,
        revoked_at: None,
        used_at: None,
        former: Vec::new(),
    };
    Device {
        id: "a".to_owned(),
        public_key: "key".to_owned(),
        about: crate::store::About::default(),
        label: None,
        approved_via: "owner".to_owned(),
        created_at: 1,
        approved_at: 1,
        seen_at: None,
        grants: vec![grant],
    }
}

#[test]
fn an_operator_on_this_machine_is_paired_silently_while_its_owner_lets_it() {
    let here = PeerInfo::loopback();
    let tunnelled = PeerInfo { is_forwarded: true, ..PeerInfo::loopback() };
    let far = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..PeerInfo::loopback() };
    let (operator, node) = (claim(Role::Operator, &[Scope::Admin]), claim(Role::Node, &[]));
    let ask = Verdict::Ask(Reason::NotPaired);
    for (claim, peer, pair_local, verdict) in [
        (&operator, &here, None, Verdict::Pair),
        (&operator, &here, Some(true), Verdict::Pair),
        (&operator, &here, Some(false), ask.clone()),
        (&operator, &tunnelled, None, ask.clone()),
        (&operator, &far, Some(true), ask.clone()),
        (&node, &here, None, ask.clone()),
        (&node, &here, Some(false), ask.clone()),
        (&node, &here, Some(true), Verdict::Pair),
        (&node, &tunnelled, Some(true), ask),
    ] {
        let judged = judge(claim, Proof::Secret, None, peer, pair_local);
        assert_eq!(judged.unwrap(), verdict, "{claim:?} {peer:?} {pair_local:?}");
    }
}

#[test]
fn scopes_come_from_the_record_and_an_upgrade_asks() {
    let far = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..PeerInfo::loopback() };
    let device = paired(&[Scope::Write, Scope::Pairing], &[Scope::Read]);
    let judge = |role, scopes: &[Scope], proof| {
        judge(&claim(role, scopes), proof, Some(&device), &far, None)
    };
    let read = vec![Scope::Read];
    for proof in [Proof::Secret, Proof::Token] {
        let entered = judge(Role::Operator, &read, proof).unwrap();
        assert_eq!(entered, Verdict::Enter(read.clone()));
        let node = judge(Role::Node, &[], proof).unwrap();
        assert_eq!(node, Verdict::Ask(Reason::RoleUpgrade));
    }
    let write = judge(Role::Operator, &[Scope::Write], Proof::Secret).unwrap();
    assert_eq!(write, Verdict::Enter(vec![Scope::Write]));
    let more = judge(Role::Operator, &[Scope::Admin], Proof::Secret).unwrap();
    assert_eq!(more, Verdict::Ask(Reason::ScopeUpgrade));
    for scope in [Scope::Write, Scope::Admin] {
        let narrow = judge(Role::Operator, &[scope], Proof::Token).unwrap_err();
        assert_eq!(narrow.error.details.unwrap()["code"], "AUTH_SCOPE_MISMATCH");
    }
}

#[test]
fn a_token_that_gave_way_holds_what_it_held_and_no_more() {
    let far = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..PeerInfo::loopback() };
    let mut device = paired(&[Scope::Write, Scope::Pairing], &[Scope::Write, Scope::Pairing]);
    let former = |scope| crate::store::FormerToken { scopes: vec![scope], digest: Vec::new() };
    device.grants[0].former = vec![former(Scope::Read), former(Scope::Write)];
    let judge = |scope, place| {
        let claim = claim(Role::Operator, &[scope]);
        judge(&claim, Proof::FormerToken(place), Some(&device), &far, None).is_ok()
    };
    assert!(judge(Scope::Read, 0) && !judge(Scope::Write, 0));
    assert!(judge(Scope::Write, 1) && !judge(Scope::Pairing, 1));
    assert!(!judge(Scope::Read, 2), "there is none");
}

#[test]
fn a_token_that_was_taken_back_and_its_role_with_it_must_be_asked_for() {
    let far = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..PeerInfo::loopback() };
    let mut device = paired(&[Scope::Read], &[Scope::Read]);
    device.grants[0].revoked_at = Some(2);
    let claim = claim(Role::Operator, &[Scope::Read]);
    for peer in [far, PeerInfo::loopback()] {
        let judged = judge(&claim, Proof::Secret, Some(&device), &peer, Some(true)).unwrap();
        assert_eq!(judged, Verdict::Ask(Reason::RoleUpgrade));
    }
}

#[test]
fn a_setup_code_is_used_up_by_a_device_that_is_paired_already() {
    let far = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..PeerInfo::loopback() };
    let mut device = paired(&[], &[]);
    device.grants[0].role = Role::Node;
    let node = claim(Role::Node, &[]);
    let judged = judge(&node, Proof::Code, Some(&device), &far, None).unwrap();
    assert_eq!(judged, Verdict::Pair);
}

#[test]
fn a_device_that_was_not_proved_to_be_anybody_may_try_its_own_token() {
    let device =
        json!({"id": "a", "publicKey": "k", "signature": "s", "signedAt": 1, "nonce": "n"});
    for (auth, may_retry) in
        [(json!({"token": "no"}), true), (json!({"token": "no", "deviceToken": "no"}), false)]
    {
        let connect = connect(&json!({"auth": auth, "device": device}));
        let details = check_secret(&connect, &token()).unwrap_err().error.details.unwrap();
        assert_eq!(details["canRetryWithDeviceToken"], may_retry);
    }
}

#[test]
fn a_wrong_secret_is_told_before_anything_about_pairing() {
    let changes = json!({"role": "node", "auth": {"token": "no"}});
    assert_eq!(code_of(decide(&changes, &token(), &PeerInfo::loopback())), "AUTH_TOKEN_MISMATCH");
}

#[test]
fn strangers_to_the_schema_are_refused() {
    let client = |id: &str, mode: &str| json!({"client": {"id": id, "version": "1", "platform": "l", "mode": mode}});
    for changes in [client("mine", "cli"), client("cli", "mine"), json!({"role": "king"})] {
        let refusal = decide(&changes, &token(), &PeerInfo::loopback()).unwrap_err();
        assert_eq!(refusal.error.code, "INVALID_REQUEST");
    }
}
