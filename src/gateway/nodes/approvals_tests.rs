//! From a request to its one use, on a clock that is an argument.

use super::*;

const NOW: u64 = 1_000_000;
const ADMIN: Viewer<'static> = Viewer { scopes: &[Scope::Admin], device: None, connection: "c0" };

fn plan() -> RunPlan {
    serde_json::from_value(json!({
        "argv": ["/usr/bin/echo", "hi there"], "cwd": "/home/node",
        "commandText": "/usr/bin/echo \"hi there\"", "commandPreview": null,
        "agentId": "main", "sessionKey": "agent:main:main",
    }))
    .unwrap()
}

fn asker() -> Asker {
    Asker { device: Some("laptop".to_owned()), connection: "c1".to_owned() }
}

fn ask(id: &str) -> Ask {
    Ask {
        id: id.to_owned(),
        request: json!({"command": "echo", "systemRunPlan": plan()}),
        node: Some("box".to_owned()),
        env: BTreeMap::new(),
        asker: asker(),
        wait_ms: Some(60_000),
    }
}

/// Takes up a request that is stored at once.
fn take<W>(approvals: &mut Approvals<W>, ask: Ask) -> Result<Standing, NotAsked> {
    let it = approvals.draft(ask, NOW)?;
    Ok(approvals.keep(it, NOW))
}

fn run(changes: &Value) -> Value {
    let mut params = json!({
        "command": ["/usr/bin/echo", "hi there"], "cwd": "/home/node", "agentId": "main",
        "sessionKey": "agent:main:main", "runId": "a", "approved": true,
        "approvalDecision": "allow-once",
    });
    for (name, value) in changes.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

fn allowed() -> Approvals<char> {
    let mut approvals = Approvals::default();
    take(&mut approvals, ask("a")).unwrap();
    approvals.decide("a", Decision::AllowOnce, NOW).unwrap();
    approvals
}

fn code(outcome: Result<Admitted, Box<ErrorShape>>) -> String {
    outcome.unwrap_err().details.unwrap()["code"].as_str().unwrap().to_owned()
}

#[test]
fn what_was_approved_runs_once_and_exactly_so() {
    let mut approvals = allowed();
    let admitted = approvals.admit("box", &run(&json!({})), &asker(), NOW).unwrap();
    assert_eq!(admitted.used.as_deref(), Some("a"));
    let forwarded = admitted.params;
    assert_eq!(forwarded["command"], json!(["/usr/bin/echo", "hi there"]));
    assert_eq!(forwarded["systemRunPlan"], json!(plan()));
    assert_eq!(forwarded["approved"], true);
    assert_eq!(forwarded["approvalDecision"], "allow-once");
    let again = approvals.admit("box", &run(&json!({})), &asker(), NOW);
    assert_eq!(code(again), "APPROVAL_REQUIRED");
    approvals.give_back("a");
    assert!(approvals.admit("box", &run(&json!({})), &asker(), NOW).is_ok());
}

// CVE-2026-28466: a client says that its own command is approved.
#[test]
fn a_clients_word_about_approval_is_not_believed() {
    let mut approvals = Approvals::<char>::default();
    let said = json!({"command": ["id"], "approved": true, "approvalDecision": "allow-always"});
    assert_eq!(code(approvals.admit("box", &said, &asker(), NOW)), "MISSING_RUN_ID");
    let unknown = run(&json!({"runId": "made-up"}));
    assert_eq!(code(approvals.admit("box", &unknown, &asker(), NOW)), "UNKNOWN_APPROVAL_ID");
    let source = json!({"command": ["id"], "approvalSource": "auto-review"});
    assert_eq!(code(approvals.admit("box", &source, &asker(), NOW)), "INVALID_APPROVAL_SOURCE");
    let sneaky = json!({"command": ["id"], "approved": false, "askFallback": "full", "x": 1});
    let forwarded = approvals.admit("box", &sneaky, &asker(), NOW).unwrap();
    assert_eq!(forwarded, Admitted { params: json!({"command": ["id"]}), used: None });
}

#[test]
fn nothing_runs_before_it_is_decided_or_once_it_is_denied() {
    let mut approvals = Approvals::<char>::default();
    take(&mut approvals, ask("a")).unwrap();
    let early = approvals.admit("box", &run(&json!({})), &asker(), NOW);
    assert_eq!(code(early), "APPROVAL_REQUIRED");
    approvals.decide("a", Decision::Deny, NOW).unwrap();
    let denied = approvals.admit("box", &run(&json!({})), &asker(), NOW);
    assert_eq!(code(denied), "APPROVAL_REQUIRED");
}

// CVE-2026-26325: one command is shown, another one runs.
#[test]
fn the_text_and_the_words_of_a_command_say_the_same() {
    let mut approvals = Approvals::<char>::default();
    for (command, raw, is_in) in [
        (json!(["/bin/echo", "hi there"]), json!("/bin/echo \"hi there\""), true),
        (json!(["/bin/sh", "-lc", "ls | wc"]), json!("ls | wc"), true),
        (json!(["/bin/sh", "-lc", "rm -rf ~", "x"]), json!("rm -rf ~"), false),
        (json!(["rm", "-rf", "/"]), json!("ls"), false),
        (json!(["/bin/echo", "a b"]), json!("/bin/echo a b"), false),
        (json!(null), json!("ls"), false),
        (json!("ls"), json!(null), false),
        (json!([1]), json!(null), false),
    ] {
        let params = json!({"command": command, "rawCommand": raw});
        let outcome = approvals.admit("box", &params, &asker(), NOW);
        assert_eq!(outcome.is_ok(), is_in, "{params}");
    }
    let plan = json!({"command": ["ls"], "systemRunPlan": {"argv": ["rm"]}});
    assert_eq!(code(approvals.admit("box", &plan, &asker(), NOW)), "SYSTEM_RUN_PLAN_MISMATCH");
}

// CVE-2026-32065: an approval for one command is used for another.
#[test]
fn an_approval_fits_nothing_but_its_own_plan() {
    for changes in [
        json!({"command": ["/usr/bin/echo", "other"]}),
        json!({"command": ["/usr/bin/echo", "hi", "there"]}),
        json!({"cwd": "/tmp"}),
        json!({"sessionKey": "agent:main:other"}),
        json!({"agentId": "other"}),
    ] {
        let outcome = allowed().admit("box", &run(&changes), &asker(), NOW);
        assert_eq!(code(outcome), "APPROVAL_REQUEST_MISMATCH", "{changes}");
    }
    let env = run(&json!({"env": {"LD_PRELOAD": "/tmp/x.so"}}));
    let outcome = allowed().admit("box", &env, &asker(), NOW);
    assert_eq!(code(outcome), "APPROVAL_ENV_MISMATCH");
}

// CVE-2026-28463: an approval for one place is used in another.
#[test]
fn an_approval_is_bound_to_its_node_its_asker_and_its_time() {
    let params = run(&json!({}));
    let elsewhere = allowed().admit("other", &params, &asker(), NOW);
    assert_eq!(code(elsewhere), "APPROVAL_NODE_MISMATCH");
    let stranger = Asker { device: Some("phone".to_owned()), connection: "c1".to_owned() };
    assert_eq!(code(allowed().admit("box", &params, &stranger, NOW)), "APPROVAL_DEVICE_MISMATCH");
    let reconnected = Asker { connection: "c2".to_owned(), ..asker() };
    assert!(allowed().admit("box", &params, &reconnected, NOW).is_ok());
    let late = allowed().admit("box", &params, &asker(), NOW + 60_000);
    assert_eq!(code(late), "APPROVAL_EXPIRED");
}

#[test]
fn without_a_device_an_approval_is_bound_to_the_connection() {
    let mut approvals = Approvals::<char>::default();
    let nobody = Asker { device: None, connection: "c1".to_owned() };
    take(&mut approvals, Ask { asker: nobody.clone(), ..ask("a") }).unwrap();
    approvals.decide("a", Decision::AllowOnce, NOW).unwrap();
    let other = Asker { connection: "c2".to_owned(), ..nobody.clone() };
    let params = run(&json!({}));
    assert_eq!(code(approvals.admit("box", &params, &other, NOW)), "APPROVAL_CLIENT_MISMATCH");
    assert!(approvals.admit("box", &params, &nobody, NOW).is_ok());
}

#[test]
fn the_first_decision_counts_and_wakes_those_who_wait() {
    let mut approvals = Approvals::default();
    take(&mut approvals, ask("a")).unwrap();
    assert_eq!(take(&mut approvals, ask("a")), Err(NotAsked::Taken));
    assert_eq!(approvals.wait("a", 'x', NOW), Waited::Kept);
    assert_eq!(approvals.waiting(ADMIN, NOW).len(), 1);
    let (standing, waiters) = approvals.decide("a", Decision::Deny, NOW).unwrap();
    assert_eq!((standing.decision, waiters), (Some(Decision::Deny), vec!['x']));
    assert_eq!(approvals.decide("a", Decision::Deny, NOW), Err(NotDecided::Repeated));
    assert_eq!(approvals.decide("a", Decision::AllowOnce, NOW), Err(NotDecided::Decided));
    assert_eq!(approvals.decide("b", Decision::Deny, NOW), Err(NotDecided::Unknown));
    assert!(approvals.waiting(ADMIN, NOW).is_empty());
    assert!(matches!(approvals.wait("a", 'y', NOW), Waited::Over('y', _)));
    assert_eq!(approvals.wait("b", 'y', NOW), Waited::Unknown('y'));
}

#[test]
fn the_beginning_of_an_id_is_enough_where_one_request_is_meant() {
    let mut approvals = Approvals::<char>::default();
    for id in ["Alpha-1", "alpha-2", "beta"] {
        take(&mut approvals, ask(id)).unwrap();
    }
    approvals.decide("alpha-2", Decision::Deny, NOW).unwrap();
    let found = |id: &str, viewer: Viewer<'_>, meant: Meant| match approvals
        .look_up(id, viewer, meant, NOW)
    {
        Found::One(standing) => standing.id,
        Found::Many => "many".to_owned(),
        Found::Nothing => "nothing".to_owned(),
    };
    for (id, meant, expected) in [
        ("beta", Meant::Waiting, "beta"),
        (" B", Meant::Waiting, "beta"),
        ("ALPHA", Meant::Waiting, "Alpha-1"),
        ("alpha", Meant::WaitingOrDecided, "many"),
        ("alpha-2", Meant::WaitingOrDecided, "alpha-2"),
        // What is named in full is meant, and nothing else.
        ("alpha-2", Meant::Waiting, "nothing"),
        ("gamma", Meant::WaitingOrDecided, "nothing"),
        (" ", Meant::WaitingOrDecided, "nothing"),
    ] {
        assert_eq!(found(id, ADMIN, meant), expected, "{id}");
        let other = Viewer { scopes: &[Scope::Approvals], device: Some("phone"), ..ADMIN };
        assert_eq!(found(id, other, meant), "nothing", "{id} is not shown to others");
    }
}

#[test]
fn a_request_that_nobody_decides_ends_and_is_forgotten() {
    let mut approvals = Approvals::default();
    take(&mut approvals, ask("a")).unwrap();
    assert_eq!(approvals.wait("a", 'x', NOW), Waited::Kept);
    assert!(approvals.expire(NOW + 59_999).is_empty());
    let ended = approvals.expire(NOW + 60_000);
    assert!(matches!(ended.as_slice(), [(standing, _)] if standing.has_expired));
    assert_eq!((approvals.is_news("a"), approvals.is_news("a")), (true, false));
    let late = approvals.decide("a", Decision::AllowOnce, NOW + 60_000);
    assert_eq!(late, Err(NotDecided::Unknown));
    approvals.expire(NOW + 60_000 + KEPT_MS);
    assert_eq!(approvals.find("a", NOW), None);
}

#[test]
fn what_was_kept_is_taken_up_within_the_same_bounds() {
    let draft = Approvals::<char>::default().draft(ask("a"), NOW).unwrap();
    let kept =
        (0..=MAX_RECORDS).map(|number| KeptApproval { id: number.to_string(), ..draft.clone() });
    let approvals = Approvals::<char>::open(kept.collect(), NOW);
    assert_eq!(approvals.waiting(ADMIN, NOW).len(), MAX_RECORDS);
    assert_eq!(approvals.gone(), [MAX_RECORDS.to_string()]);
}

#[test]
fn requests_are_bounded() {
    let mut approvals = Approvals::<char>::default();
    for number in 0..MAX_RECORDS {
        take(&mut approvals, ask(&number.to_string())).unwrap();
    }
    assert_eq!(take(&mut approvals, ask("more")), Err(NotAsked::Full));
    for _ in 0..MAX_WAITERS {
        assert_eq!(approvals.wait("1", 'x', NOW), Waited::Kept);
    }
    assert_eq!(approvals.wait("1", 'x', NOW), Waited::Full('x'));
    approvals.forget_waiters("1", |waiter| *waiter == 'x');
    assert_eq!(approvals.wait("1", 'y', NOW), Waited::Kept, "those who left make room");
    let mut approvals = Approvals::<char>::default();
    let large = |id: &str| Ask { request: "x".repeat(MAX_BYTES / 2 - 10).into(), ..ask(id) };
    take(&mut approvals, large("1")).unwrap();
    take(&mut approvals, large("2")).unwrap();
    assert_eq!(take(&mut approvals, ask("small")), Err(NotAsked::Full), "their bytes");
}

/// What a process leaves that ends now.
fn left<W>(approvals: &Approvals<W>) -> Vec<KeptApproval> {
    approvals.records.values().map(|record| record.kept.clone()).collect()
}

#[test]
fn the_next_process_knows_what_was_asked_decided_and_used() {
    let mut before = allowed();
    for id in ["used", "denied", "waits"] {
        take(&mut before, ask(id)).unwrap();
    }
    before.decide("used", Decision::AllowAlways, NOW).unwrap();
    before.admit("box", &run(&json!({"runId": "used"})), &asker(), NOW).unwrap();
    before.decide("denied", Decision::Deny, NOW).unwrap();
    let kept = left(&before);
    // However long the start took, whoever waited has a while to ask again.
    let later = NOW + 59_000;
    let mut after = Approvals::open(kept, later);
    let waits = after.waiting(ADMIN, later);
    assert_eq!(waits.len(), 1);
    assert_eq!((waits[0].id.as_str(), waits[0].expires_at_ms), ("waits", NOW + 60_000));
    assert_eq!(after.wait("waits", 'x', later), Waited::Kept);
    let Waited::Over('y', denied) = after.wait("denied", 'y', later) else { panic!() };
    assert_eq!(denied.decision, Some(Decision::Deny));
    assert_eq!(after.decide("denied", Decision::AllowOnce, later), Err(NotDecided::Decided));
    let mut runs = |id: &str, changes: Value, at| {
        let mut params = run(&changes);
        params["runId"] = json!(id);
        after.admit("box", &params, &asker(), at).map(|admitted| admitted.used)
    };
    for (id, changes, at, is_code) in [
        ("used", json!({}), later, "APPROVAL_REQUIRED"),
        ("denied", json!({}), later, "APPROVAL_REQUIRED"),
        ("waits", json!({}), later, "APPROVAL_REQUIRED"),
        ("a", json!({"cwd": "/tmp"}), later, "APPROVAL_REQUEST_MISMATCH"),
        ("a", json!({"env": {"A": "b"}}), later, "APPROVAL_ENV_MISMATCH"),
        ("a", json!({}), NOW + 60_000, "APPROVAL_EXPIRED"),
    ] {
        let details = runs(id, changes, at).unwrap_err().details.unwrap();
        assert_eq!(details["code"], is_code, "{id}");
    }
    assert_eq!(runs("a", json!({}), later).unwrap().as_deref(), Some("a"));
    assert!(runs("a", json!({}), later).is_err(), "once");
}

#[test]
fn what_is_forgotten_here_is_known_until_the_store_has_forgotten_it() {
    let mut approvals = allowed();
    take(&mut approvals, ask("b")).unwrap();
    approvals.decide("b", Decision::Deny, NOW).unwrap();
    approvals.expire(NOW + KEPT_MS - 1);
    assert!(approvals.gone().is_empty());
    approvals.expire(NOW + KEPT_MS);
    assert_eq!(approvals.gone(), ["b"]);
    assert_eq!(approvals.gone(), ["b"], "until then");
    approvals.cleared(&["b".to_owned()]);
    assert!(approvals.gone().is_empty());
    let old: Approvals<char> = Approvals::open(left(&approvals), NOW + 60_000 + KEPT_MS);
    assert_eq!((old.find("a", NOW), old.gone()), (None, vec!["a".to_owned()]));
}

#[test]
fn nothing_is_left_of_a_device_or_a_node_that_is_no_more() {
    let mut approvals = allowed();
    approvals.forget(|it| it.node.as_deref() == Some("other"));
    assert!(approvals.find("a", NOW).is_some());
    approvals.forget(|it| it.node.as_deref() == Some("box"));
    assert_eq!(approvals.gone(), ["a"], "the store is told as well");
    let gone = approvals.admit("box", &run(&json!({})), &asker(), NOW);
    assert_eq!(code(gone), "UNKNOWN_APPROVAL_ID");
}
