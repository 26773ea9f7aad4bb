//! What is granted, kept, replaced and taken back.

use super::*;

const NOW: u64 = 1_795_486_176_838;

fn asked(device: &str, scopes: &[Scope]) -> Asked {
    Asked {
        device_id: device.to_owned(),
        public_key: format!("key of {device}"),
        about: About { client_id: Some("cli".to_owned()), ..About::default() },
        role: Role::Operator,
        scopes: scopes.to_vec(),
    }
}

fn minted(serial: &str) -> Minted {
    Minted { serial: serial.to_owned(), digest: serial.as_bytes().to_vec() }
}

fn code(id: &str) -> SetupCode {
    SetupCode {
        id: id.to_owned(),
        access: "node".to_owned(),
        expires_at: NOW + 10,
        device_id: None,
        redeemed_at: None,
        delivered_at: None,
    }
}

async fn ask(store: &Store, id: &str, asked: Asked, now: u64) -> Filed {
    store.devices().ask(id.to_owned(), asked, now).await.unwrap()
}

#[tokio::test]
async fn a_request_is_filed_once_and_replaced_when_it_asks_for_something_else() {
    let store = Store::in_memory();
    let first = ask(&store, "1", asked("a", &[Scope::Read]), NOW).await;
    assert!(matches!(&first, Filed::New(request, gone) if request.id == "1" && gone.is_empty()));
    let again = ask(&store, "2", asked("a", &[Scope::Read]), NOW + 1).await;
    assert!(matches!(again, Filed::Known(request) if request.id == "1"));
    let more = ask(&store, "3", asked("a", &[Scope::Admin]), NOW + 2).await;
    let Filed::New(request, gone) = more else { panic!("{more:?}") };
    assert_eq!((request.id.as_str(), gone.len()), ("3", 1));
    let pending = store.devices().list(NOW + 2).await.unwrap().pending;
    assert_eq!(pending, [request]);
}

#[tokio::test]
async fn the_same_scopes_in_another_order_and_fewer_are_the_same_request() {
    let store = Store::in_memory();
    ask(&store, "1", asked("a", &[Scope::Read, Scope::Write]), NOW).await;
    let called = |name: &str, scopes| {
        let about = About { display_name: Some(name.to_owned()), ..About::default() };
        Asked { about, ..asked("a", scopes) }
    };
    for (scopes, name) in [
        // Write contains read, so all of these but the last are the same wish.
        (&[Scope::Write, Scope::Read][..], "other order"),
        (&[Scope::Write], "without what it contains"),
        (&[Scope::Talk, Scope::Write, Scope::Read], "with what it contains"),
        (&[Scope::Talk], "less"),
    ] {
        let at = if name == "less" { NOW + 2 } else { NOW + 1 };
        let filed = ask(&store, "2", called(name, scopes), at).await;
        let Filed::Known(request) = filed else { panic!("{name}: {filed:?}") };
        assert_eq!((request.id.as_str(), request.expires_at), ("1", NOW + 1 + REQUEST_LIFE_MS));
        assert_eq!(request.asked.scopes, [Scope::Read, Scope::Write]);
        let shown = if name == "less" { "with what it contains" } else { name };
        assert_eq!(request.asked.about.display_name.as_deref(), Some(shown));
        assert_eq!(store.devices().list(NOW + 1).await.unwrap().pending, [request]);
    }
    let other_key = Asked { public_key: "another".to_owned(), ..asked("a", &[Scope::Read]) };
    assert!(matches!(ask(&store, "2", other_key, NOW + 1).await, Filed::New(..)));
}

#[tokio::test]
async fn what_a_device_asks_as_a_node_and_as_an_operator_stands_side_by_side() {
    let store = Store::in_memory();
    let devices = store.devices();
    let node = || Asked { role: Role::Node, ..asked("a", &[]) };
    ask(&store, "n", node(), NOW).await;
    let operator = ask(&store, "o", asked("a", &[Scope::Read]), NOW + 1).await;
    assert!(matches!(operator, Filed::New(_, gone) if gone.is_empty()));
    let more = ask(&store, "p", asked("a", &[Scope::Write]), NOW + 2).await;
    assert!(matches!(more, Filed::New(_, gone) if gone.len() == 1 && gone[0].id == "o"));
    let device = devices.approve("p", "owner", minted("t"), NOW + 3).await.unwrap().unwrap();
    assert!(device.grant(Role::Operator).is_some() && device.grant(Role::Node).is_none());
    let again = ask(&store, "m", node(), NOW + 4).await;
    assert!(matches!(again, Filed::Known(request) if request.id == "n" && request.is_repair));
    let device = devices.approve("n", "owner", minted("t"), NOW + 5).await.unwrap().unwrap();
    assert!(device.grant(Role::Node).is_some());
    assert!(devices.list(NOW + 5).await.unwrap().pending.is_empty());
}

#[tokio::test]
async fn requests_expire_and_their_number_is_bounded() {
    let store = Store::in_memory();
    for number in 0..MAX_REQUESTS {
        let number = number.to_string();
        ask(&store, &number, asked(&number, &[]), NOW).await;
    }
    assert_eq!(ask(&store, "x", asked("x", &[]), NOW).await, Filed::Full);
    let later = NOW + REQUEST_LIFE_MS;
    assert_eq!(store.devices().request("0", later).await.unwrap(), None);
    let late = store.devices().approve("0", "owner", minted("t"), later).await.unwrap();
    assert_eq!(late, None);
    assert!(matches!(ask(&store, "x", asked("x", &[]), later).await, Filed::New(..)));
}

#[tokio::test]
async fn approval_grants_what_was_asked_and_what_is_more_goes_into_another_token() {
    let store = Store::in_memory();
    let devices = store.devices();
    ask(&store, "1", asked("a", &[Scope::Read]), NOW).await;
    let device = devices.approve("1", "owner", minted("t1"), NOW).await.unwrap().unwrap();
    let grant = device.grant(Role::Operator).unwrap();
    assert_eq!((grant.scopes.as_slice(), grant.serial.as_str()), (&[Scope::Read][..], "t1"));
    assert!(devices.list(NOW).await.unwrap().pending.is_empty());
    let Filed::New(request, _) = ask(&store, "2", asked("a", &[Scope::Write]), NOW).await else {
        panic!("not new")
    };
    assert!(request.is_repair);
    let device = devices.approve("2", "owner", minted("t2"), NOW + 1).await.unwrap().unwrap();
    let grant = device.grant(Role::Operator).unwrap();
    assert_eq!(grant.approved, [Scope::Write, Scope::Read]);
    assert_eq!((grant.serial.as_str(), grant.rotated_at), ("t2", Some(NOW + 1)));
    ask(&store, "3", asked("a", &[Scope::Write]), NOW + 2).await;
    let device = devices.approve("3", "owner", minted("t3"), NOW + 2).await.unwrap().unwrap();
    assert_eq!(device.grant(Role::Operator).unwrap().serial, "t2", "nothing is more");
}

#[tokio::test]
async fn rotation_and_revocation_end_the_old_token() {
    let store = Store::in_memory();
    let devices = store.devices();
    devices
        .pair(asked("a", &[Scope::Read, Scope::Write]), "silent", minted("t1"), NOW)
        .await
        .unwrap();
    let seen = async || {
        let device = devices.find("a").await.unwrap().unwrap();
        device.grant(Role::Operator).unwrap().clone()
    };
    let first = seen().await;
    // A code that it has redeemed would tell whoever has it besides the new token.
    assert!(devices.keep_code(code("1"), vec![1], None, NOW).await.unwrap());
    let redeemed = devices.redeem("1", "a", Vec::new(), NOW + 1).await.unwrap();
    assert!(redeemed.is_some() && devices.code(vec![1], "a", NOW + 1).await.unwrap().is_some());
    let narrowed = vec![Scope::Read];
    let grant = devices.rotate("a", first.clone(), narrowed, minted("t2"), NOW + 1).await;
    let grant = grant.unwrap().unwrap();
    assert_eq!(devices.code(vec![1], "a", NOW + 1).await.unwrap(), None);
    assert_eq!((grant.serial.as_str(), grant.rotated_at), ("t2", Some(NOW + 1)));
    assert_eq!((grant.approved.len(), grant.scopes.as_slice()), (2, &[Scope::Read][..]));
    let grant = devices.revoke("a", Role::Operator, NOW + 2).await.unwrap().unwrap();
    assert_eq!(grant.revoked_at, Some(NOW + 2));
    for seen in [grant.clone(), Grant { role: Role::Node, ..grant }] {
        let rotated = devices.rotate("a", seen, Vec::new(), minted("t3"), NOW).await;
        assert_eq!(rotated.unwrap(), None);
    }
    // Approved again, it gets a new token, and of what it held before only what it asks for.
    let device = devices.pair(asked("a", &[Scope::Read]), "owner", minted("t4"), NOW + 3).await;
    let grant = device.unwrap().unwrap().grants[0].clone();
    assert_eq!((grant.serial.as_str(), grant.revoked_at), ("t4", None));
    assert_eq!((&*grant.approved, &*grant.scopes), (&[Scope::Read][..], &[Scope::Read][..]));
    // Whoever looked before that may not give what was approved then.
    let late = devices.rotate("a", first, vec![Scope::Write], minted("t5"), NOW + 4).await;
    assert_eq!(late.unwrap(), None);
    assert_eq!(seen().await, grant);
}

/// A device that was given `t1` to read, `t2` to write, and `t3` for approvals.
async fn upgraded_twice() -> Store {
    let store = Store::in_memory();
    for (scope, serial) in [(Scope::Read, "t1"), (Scope::Write, "t2"), (Scope::Approvals, "t3")] {
        store.devices().pair(asked("a", &[scope]), "owner", minted(serial), NOW).await.unwrap();
    }
    store
}

/// Its token, and those that gave way to it.
async fn tokens(store: &Store) -> (String, Vec<FormerToken>) {
    let device = store.devices().find("a").await.unwrap().unwrap();
    let grant = device.grant(Role::Operator).unwrap();
    (grant.serial.clone(), grant.former.clone())
}

fn former(serial: &str, scopes: &[Scope]) -> FormerToken {
    FormerToken { scopes: scopes.to_vec(), digest: serial.as_bytes().to_vec() }
}

#[tokio::test]
async fn tokens_that_gave_way_stay_as_they_were_until_a_later_one_is_shown() {
    let shown = async |store: &Store, serial: &str| {
        store.devices().shown("a", Role::Operator, serial.into()).await.unwrap();
    };
    let store = upgraded_twice().await;
    let (first, second) =
        (former("t1", &[Scope::Read]), former("t2", &[Scope::Write, Scope::Read]));
    let all = ("t3".to_owned(), vec![first, second.clone()]);
    assert_eq!(tokens(&store).await, all);
    // The same again is no more, and gives way to nothing.
    store.devices().pair(asked("a", &[Scope::Read]), "owner", minted("t4"), NOW).await.unwrap();
    shown(&store, "t1").await;
    shown(&store, "strange").await;
    store.devices().shown("a", Role::Node, "t3".into()).await.unwrap();
    store.devices().shown("b", Role::Operator, "t3".into()).await.unwrap();
    assert_eq!(tokens(&store).await, all);
    shown(&store, "t2").await;
    assert_eq!(tokens(&store).await, ("t3".to_owned(), vec![second]));
    shown(&store, "t3").await;
    assert_eq!(tokens(&store).await, ("t3".to_owned(), Vec::new()));
    // Whoever read the record before that ends nothing that came after.
    let admin = asked("a", &[Scope::Admin]);
    store.devices().pair(admin, "owner", minted("t5"), NOW).await.unwrap();
    shown(&store, "t2").await;
    shown(&store, "t3").await;
    let held = [Scope::Approvals, Scope::Write, Scope::Read];
    assert_eq!(tokens(&store).await, ("t5".to_owned(), vec![former("t3", &held)]));
}

#[tokio::test]
async fn what_ends_a_token_ends_those_that_gave_way_to_it() {
    for how in ["rotate", "revoke", "remove", "another key"] {
        let store = upgraded_twice().await;
        let devices = store.devices();
        match how {
            "rotate" => {
                let device = devices.find("a").await.unwrap().unwrap();
                let seen = device.grant(Role::Operator).unwrap().clone();
                let scopes = seen.scopes.clone();
                devices.rotate("a", seen, scopes, minted("t4"), NOW).await.unwrap().unwrap();
            }
            "revoke" => {
                devices.revoke("a", Role::Operator, NOW).await.unwrap().unwrap();
            }
            "remove" => {
                assert!(devices.remove("a").await.unwrap());
                devices.pair(asked("a", &[]), "owner", minted("t4"), NOW).await.unwrap();
            }
            _ => {
                let other = Asked { public_key: "another".to_owned(), ..asked("a", &[]) };
                devices.pair(other, "owner", minted("t4"), NOW).await.unwrap();
            }
        }
        assert_eq!(tokens(&store).await.1, [], "{how}");
        // Approved again it starts from nothing, too.
        devices.pair(asked("a", &[Scope::Read]), "owner", minted("t5"), NOW).await.unwrap();
        let left = tokens(&store).await.1;
        let gave_way = |serial: &str| left.iter().any(|left| left.digest == serial.as_bytes());
        assert!(!["t1", "t2", "t3"].into_iter().any(gave_way), "{how}: {left:?}");
    }
}

#[tokio::test]
async fn another_key_under_the_same_id_inherits_nothing() {
    let store = Store::in_memory();
    let devices = store.devices();
    devices.pair(asked("a", &[Scope::Admin]), "owner", minted("t1"), NOW).await.unwrap();
    let other = Asked { public_key: "another".to_owned(), ..asked("a", &[Scope::Read]) };
    let device = devices.pair(other, "owner", minted("t2"), NOW).await.unwrap().unwrap();
    let grant = device.grant(Role::Operator).unwrap();
    assert_eq!((grant.approved.as_slice(), grant.serial.as_str()), (&[Scope::Read][..], "t2"));
}

#[tokio::test]
async fn removal_takes_everything_and_names_stay_with_the_device() {
    let store = Store::in_memory();
    let devices = store.devices();
    devices.pair(asked("a", &[]), "owner", minted("t"), NOW).await.unwrap();
    assert!(devices.rename("a", "Kitchen").await.unwrap());
    devices.pair(asked("a", &[Scope::Read]), "owner", minted("t"), NOW).await.unwrap();
    assert_eq!(devices.find("a").await.unwrap().unwrap().label.as_deref(), Some("Kitchen"));
    assert!(devices.remove("a").await.unwrap() && !devices.remove("a").await.unwrap());
    assert_eq!(devices.list(NOW).await.unwrap(), Pairing::default());
    assert!(!devices.rename("a", "Kitchen").await.unwrap());
}

#[tokio::test]
async fn the_last_device_takes_the_unused_setup_codes_along() {
    let store = Store::in_memory();
    let devices = store.devices();
    for id in ["a", "b"] {
        devices.pair(asked(id, &[]), "owner", minted("t"), NOW).await.unwrap();
    }
    assert!(devices.keep_code(code("1"), vec![1], None, NOW).await.unwrap());
    assert!(devices.remove("a").await.unwrap());
    assert!(devices.code(vec![1], "c", NOW).await.unwrap().is_some(), "somebody is left");
    assert!(devices.remove("b").await.unwrap());
    assert_eq!(devices.code(vec![1], "c", NOW).await.unwrap(), None);
    // Before the first device there is nobody to be rid of.
    assert!(devices.keep_code(code("2"), vec![2], None, NOW).await.unwrap());
    assert!(!devices.remove("b").await.unwrap());
    assert!(devices.code(vec![2], "c", NOW).await.unwrap().is_some());
}

#[tokio::test]
async fn a_setup_code_is_good_once_and_not_for_long() {
    let store = Store::in_memory();
    let devices = store.devices();
    assert!(devices.keep_code(code("1"), vec![1], None, NOW).await.unwrap());
    assert_eq!(devices.code(vec![1], "a", NOW).await.unwrap(), Some(code("1")));
    assert_eq!(devices.code(vec![2], "a", NOW).await.unwrap(), None);
    assert_eq!(devices.code(vec![1], "a", NOW + 10).await.unwrap(), None);
    let redeem = async |device: &str| {
        let node = Asked { role: Role::Node, ..asked(device, &[]) };
        let asked = vec![(node, minted("t")), (asked(device, &[Scope::Read]), minted("u"))];
        devices.redeem("1", device, asked, NOW + 1).await.unwrap()
    };
    let first = redeem("a").await.unwrap();
    assert_eq!(first.approved_via, "bootstrap");
    assert_eq!(first.grant(Role::Operator).unwrap().approved, [Scope::Read]);
    assert!(first.grant(Role::Node).unwrap().approved.is_empty());
    assert_eq!(redeem("b").await, None);
    assert_eq!(devices.find("b").await.unwrap(), None);
    assert_eq!(devices.code(vec![1], "b", NOW + 1).await.unwrap(), None);
    let redeemed = devices.code_of("1").await.unwrap().unwrap();
    assert_eq!((redeemed.device_id.as_deref(), redeemed.delivered_at), (Some("a"), None));
    assert_eq!(devices.delivered("1", "b", NOW + 2).await.unwrap(), None);
    let delivered = devices.delivered("1", "a", NOW + 2).await.unwrap().unwrap();
    assert_eq!(delivered.delivered_at, Some(NOW + 2));
    assert_eq!(devices.delivered("1", "a", NOW + 3).await.unwrap(), None, "no news");
    assert_eq!(redeem("a").await.unwrap().grants, first.grants, "its answer may be lost");
    assert_eq!(devices.code_of("1").await.unwrap(), Some(delivered));
}

#[tokio::test]
async fn when_a_device_was_seen_is_noted_once_a_minute_also_after_the_clock_ran_ahead() {
    let store = Store::in_memory();
    let devices = store.devices();
    devices.pair(asked("a", &[]), "owner", minted("t"), NOW).await.unwrap().unwrap();
    let ahead = NOW + 1_000 * SEEN_EVERY_MS;
    for (now, noted) in [
        (ahead, ahead),
        (ahead + SEEN_EVERY_MS - 1, ahead),
        (NOW, NOW),
        (NOW + SEEN_EVERY_MS - 1, NOW),
        (NOW + SEEN_EVERY_MS, NOW + SEEN_EVERY_MS),
    ] {
        let device = devices.find("a").await.unwrap().unwrap();
        devices.saw(&device, Role::Operator, device.about.clone(), now);
        let seen = devices.find("a").await.unwrap().unwrap().seen_at;
        assert_eq!(seen, Some(noted));
    }
}

#[tokio::test]
async fn what_was_made_before_the_clock_was_set_back_is_over() {
    let store = Store::in_memory();
    let devices = store.devices();
    let offer = JoinOffer { name_digest: vec![1, 0], url: "ws://1".to_owned() };
    assert!(devices.keep_code(code("1"), vec![1], Some(offer), NOW).await.unwrap());
    ask(&store, "r", asked("a", &[]), NOW).await;
    let little = NOW - SET_BACK_MS;
    assert!(devices.code(vec![1], "a", little).await.unwrap().is_some());
    assert!(devices.request("r", little).await.unwrap().is_some());
    let back = little - 1;
    assert_eq!(devices.code(vec![1], "a", back).await, Ok(None));
    assert_eq!(devices.take_offer(vec![1, 0], back).await, Ok(None));
    let node = vec![(Asked { role: Role::Node, ..asked("a", &[]) }, minted("t"))];
    assert_eq!(devices.redeem("1", "a", node, back).await, Ok(None));
    assert_eq!(devices.list(back).await, Ok(Pairing::default()));
    assert_eq!(devices.approve("r", "owner", minted("t"), back).await, Ok(None));
    let again = ask(&store, "s", asked("a", &[]), back).await;
    assert!(matches!(again, Filed::New(_, gone) if gone.is_empty()));
    assert!(devices.keep_code(code("2"), vec![2], None, back).await.unwrap());
    assert_eq!(devices.take_offer(vec![1, 0], NOW).await, Ok(None), "it made room");
}

#[tokio::test]
async fn codes_that_are_withdrawn_pair_nobody_and_are_not_fetched() {
    let store = Store::in_memory();
    let devices = store.devices();
    let offer = JoinOffer { name_digest: vec![1, 0], url: "ws://1".to_owned() };
    for (id, offer) in [("1", Some(offer)), ("2", None), ("3", None)] {
        let digest = id.as_bytes().to_vec();
        assert!(devices.keep_code(code(id), digest, offer, NOW).await.unwrap());
    }
    let node = || vec![(Asked { role: Role::Node, ..asked("a", &[]) }, minted("t"))];
    devices.redeem("3", "a", node(), NOW).await.unwrap().unwrap();
    assert_eq!(devices.withdraw_codes().await, Ok(2));
    assert_eq!(devices.take_offer(vec![1, 0], NOW).await, Ok(None));
    assert_eq!(devices.code(b"2".to_vec(), "b", NOW).await, Ok(None));
    assert_eq!(devices.redeem("2", "b", node(), NOW).await, Ok(None), "it was looked up before");
    assert!(
        devices.code(b"3".to_vec(), "a", NOW).await.unwrap().is_some(),
        "its answer may be lost"
    );
}

#[tokio::test]
async fn an_offered_code_is_fetched_once_and_not_after_its_time_or_its_use() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let code = |id: u8| code(&id.to_string());
    let offer = |id: u8| {
        let offer = JoinOffer { name_digest: vec![id, 0], url: format!("ws://{id}") };
        (code(id), vec![id], Some(offer))
    };
    for id in 0..64 {
        let (code, digest, offer) = offer(id);
        assert_eq!(store.devices().keep_code(code, digest, offer, NOW).await, Ok(true));
    }
    let (extra, digest, offered) = offer(64);
    let devices = store.devices();
    assert_eq!(devices.keep_code(extra.clone(), digest.clone(), offered, NOW).await, Ok(false));
    assert_eq!(store.devices().code_of("64").await, Ok(None), "half of it was kept");
    assert_eq!(store.devices().keep_code(extra, digest, None, NOW).await, Ok(true));
    let used = vec![(asked("a", &[]), minted("t"))];
    store.devices().redeem("2", "a", used, NOW).await.unwrap().unwrap();
    drop(store);
    let store = Store::open(home.path()).unwrap();
    let take = async |id: u8, now| store.devices().take_offer(vec![id, 0], now).await.unwrap();
    assert_eq!(take(1, NOW).await, Some((code(1), "ws://1".to_owned())));
    assert_eq!(take(1, NOW).await, None, "twice");
    assert_eq!(take(2, NOW).await, None, "used");
    assert_eq!(take(3, NOW + 10).await, None, "old");
    assert_eq!(take(64, NOW).await, None, "never offered");
    let later = SetupCode { expires_at: NOW + 20, ..code(65) };
    let (_, digest, offered) = offer(65);
    let kept = store.devices().keep_code(later, digest, offered, NOW + 10).await;
    assert_eq!(kept, Ok(true), "the old ones made room");
}
