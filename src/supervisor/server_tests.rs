//! The set of remotes under looks, changes and trials, without anything to reach.

use std::{net::SocketAddr, path::Path};

use tokio::time::timeout;

use super::*;
use crate::{
    config::{Kind, Listen},
    control::Edition,
    problem::Class,
    supervisor::{
        answers::REQUEST_LIMIT,
        changes::{CONFIGURED, still_configured},
        connecting::Ask,
        incoming::Incoming,
        port::is_at,
        remote::Optional,
        starting::wanted,
    },
    tunnel::{Cause, Phase, Wish},
};

/// The definition of a remote that nobody answers at.
fn unanswered(more: &str) -> config::Remote {
    let text =
        format!(r#"{{"target":"127.0.0.1:9","remotePort":1,"localPort":0,"wanted":true{more}}}"#);
    serde_json::from_str(&text).unwrap()
}

fn supervisor() -> (tempfile::TempDir, Arc<Supervisor>) {
    let (home, paths) = Paths::temporary();
    let book = Arc::new(Book::unwritten());
    (home, Supervisor::new(paths, Estate::default(), Scope::Wanted, book))
}

/// Could not be reached, and shall be tried again now.
fn note_due(supervisor: &Supervisor, name: &str) {
    let now = Instant::now();
    let mut unstarted = locked(&supervisor.unstarted);
    unstarted.note(name, Problem::new(Class::Unreachable, "away"), now);
    unstarted.hasten(now);
}

#[test]
fn whoever_looks_takes_the_locks_in_their_order() {
    let looks: [fn(&Supervisor); 2] =
        [|supervisor| drop(supervisor.metrics()), |supervisor| drop(supervisor.statuses(None))];
    for look in looks {
        let (_home, supervisor) = supervisor();
        std::thread::scope(|scope| {
            let unstarted = locked(&supervisor.unstarted);
            let looking = scope.spawn(|| look(&supervisor));
            // It waits for the second lock, and has the first one: never the other way round.
            let begun = Instant::now();
            while supervisor.remotes.try_lock().is_ok() && begun.elapsed() < REQUEST_LIMIT {
                std::thread::yield_now();
            }
            let has_the_first = supervisor.remotes.try_lock().is_err();
            drop(unstarted);
            looking.join().unwrap();
            assert!(has_the_first);
        });
    }
}

#[tokio::test]
async fn of_two_forwards_at_one_port_number_each_keeps_its_own_connections() {
    let (_home, supervisor) = supervisor();
    let free = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let forwards = format!(
        r#","forwards":[{{"bind":"127.0.0.2","port":{port},"host":"a","hostPort":80}},
            {{"bind":null,"port":{port},"host":"b","hostPort":80}}]"#
    );
    let make = async || {
        let definition = unanswered(&forwards);
        let way = supervisor.find_way(&definition).await.unwrap();
        supervisor.make("vps", definition, way)
    };
    let old = make().await;
    old.bind(None, &supervisor.pool, |_| false, Optional::All).await.unwrap();
    old.wish(Wish::Up).await;
    let mut clients = Vec::new();
    for address in ["127.0.0.1", "127.0.0.2"] {
        clients.push(tokio::net::TcpStream::connect((address, port)).await.unwrap());
    }
    let bind = |at: &Listen| match at {
        Listen::Port { bind, .. } => bind.clone(),
        Listen::Socket(_) => None,
    };
    let binds =
        |held: &[(Listen, Incoming)]| held.iter().map(|(at, _)| bind(at)).collect::<Vec<_>>();
    let expected = [Some("127.0.0.2".to_owned()), None];
    old.pause().await;
    let held = old.surrender().await;
    assert_eq!(binds(&held), expected);
    for (address, incoming) in held {
        old.admit(&address, incoming).await;
    }
    let new = make().await;
    new.bind(Some(&*old), &supervisor.pool, |_| false, Optional::All).await.unwrap();
    new.wish(Wish::Up).await;
    new.succeed(&old).await;
    let held = new.surrender().await;
    assert_eq!(binds(&held), expected);
    for (at, incoming) in &held {
        let local = std::net::TcpStream::from(incoming.descriptor().unwrap().unwrap());
        let local = local.local_addr().unwrap();
        assert!(is_at(at, local), "{at:?} {local}");
    }
}

#[tokio::test]
async fn a_command_that_waits_for_what_is_at_work_keeps_our_place() {
    let (_home, supervisor) = supervisor();
    let remote = supervisor.start("vps", unanswered("")).await.unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(supervisor.reason_to_stay(false), None);
    let definition = serde_json::to_value(remote.definition()).unwrap();
    let ask = Ask {
        name: "vps".to_owned(),
        definition: Some(definition),
        batch: true,
        make_default: false,
        limit: Duration::from_secs(60),
    };
    let trial = supervisor.begin(&ask).await.unwrap();
    assert!(!trial.is_new);
    assert!(supervisor.reason_to_stay(true).is_some_and(|why| why.contains("`vps`")));
    drop((trial, ours, theirs));
    assert_eq!(supervisor.reason_to_stay(false), None);
}

#[tokio::test]
async fn a_remote_on_trial_and_a_new_one_know_that_there_is_no_network() {
    let (_home, supervisor) = supervisor();
    let mut definition = unanswered("");
    definition.target = "nobody@host.invalid".to_owned();
    let ask = Ask {
        name: "vps".to_owned(),
        definition: Some(serde_json::to_value(&definition).unwrap()),
        batch: true,
        make_default: false,
        limit: Duration::from_secs(60),
    };
    supervisor.surroundings.send_modify(|it| it.note_network(true));
    let trial = supervisor.begin(&ask).await.unwrap();
    trial.remote.try_out(Wish::Up).await;
    supervisor.surroundings.send_modify(|it| it.note_network(false));
    let mut state = trial.remote.watch();
    let has_no_route = |state: &State| {
        state.failure.as_ref().is_some_and(|failure| failure.cause == Cause::NoRoute)
    };
    timeout(REQUEST_LIMIT, state.wait_for(has_no_route)).await.expect("it hears").unwrap();

    let way = supervisor.find_way(&definition).await.unwrap();
    let new = supervisor.make("other", definition, way);
    new.wish(Wish::Up).await;
    assert!(has_no_route(&new.state()), "it is told before it is wanted");
    assert_eq!(new.state().attempts, 0);
}

#[tokio::test]
async fn a_remote_whose_trial_is_under_way_is_not_forgotten() {
    let (_home, supervisor) = supervisor();
    let definition = unanswered("");
    supervisor
        .save(|remotes| {
            remotes.remotes.insert("vps".to_owned(), definition.clone());
            Ok(())
        })
        .unwrap();
    note_due(&supervisor, "vps");
    let way = supervisor.find_way(&definition).await.unwrap();
    let trial = supervisor.make("vps", definition, way);
    locked(&supervisor.trials).insert("vps".to_owned(), (trial, 1));
    Arc::clone(&supervisor).start_again().await;
    assert!(locked(&supervisor.unstarted).may_pass("vps"), "it waits for its next turn");
    locked(&supervisor.trials).clear();
    // A file that is being edited is no reason to forget it either.
    note_due(&supervisor, "vps");
    let file = supervisor.paths.own().join("remotes.json");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, "{").unwrap();
    Arc::clone(&supervisor).start_again().await;
    assert!(locked(&supervisor.unstarted).may_pass("vps"));
    std::fs::write(&file, whole).unwrap();
    supervisor.find("vps", Edition::Kept).await.unwrap();
    assert!(!locked(&supervisor.unstarted).may_pass("vps"));
}

/// A supervisor that was handed two ports and a connection that waits at the first, and could not
/// start the remote of that one for a typo in the given file; the other one's is not wanted.
async fn handed_over(config: &Path) -> (tempfile::TempDir, Arc<Supervisor>, [SocketAddr; 2]) {
    let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, other) = (listen(), listen());
    let addresses = [&port, &other].map(|port| port.local_addr().unwrap());
    let [address, _] = addresses;
    let _client = std::net::TcpStream::connect(address).unwrap();
    let estate = Estate::default();
    estate.pool.put_held(port.accept().unwrap().0, Duration::from_secs(60));
    estate.pool.put_port("vps", port.into());
    estate.pool.put_port("gone", other.into());
    let (home, paths) = Paths::temporary();
    let book = Arc::new(Book::unwritten());
    let supervisor = Supervisor::new(paths, estate, Scope::Wanted, book);
    let mut definition = unanswered("");
    definition.local_port = address.port();
    definition.ssh.config_file = Some(config.to_owned());
    supervisor
        .save(|remotes| {
            remotes.remotes.insert("vps".to_owned(), definition.clone());
            Ok(())
        })
        .unwrap();
    std::fs::write(config, "NoSuchKeyword yes\n").unwrap();
    supervisor.resume(vec![("vps".to_owned(), definition)]).await;
    let why = locked(&supervisor.unstarted).problem("vps").map(|problem| problem.class);
    assert_eq!(why, Some(Class::Config));
    (home, supervisor, addresses)
}

#[tokio::test]
async fn a_remote_that_cannot_be_started_yet_keeps_the_ports_that_came_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let (_home, supervisor, [port, other]) = handed_over(&config).await;
    let _waits = std::net::TcpStream::connect(port).unwrap();
    assert!(supervisor.pool.holds(port) && !supervisor.pool.holds(other));
    assert!(supervisor.is_wanted(), "it stays for whoever waits");
    assert!(supervisor.next_try().is_some(), "nobody waits for ever");
    // Mended, and tried again as after a name server that was away.
    std::fs::write(&config, "").unwrap();
    note_due(&supervisor, "vps");
    Arc::clone(&supervisor).start_again().await;
    let why = locked(&supervisor.unstarted).problem("vps").cloned();
    assert_eq!(why, None, "its port is not in its own way");
    assert!(!supervisor.pool.has_ports());
    let remote = locked(&supervisor.remotes).get("vps").cloned().unwrap();
    let held = remote.surrender().await;
    assert!(held.iter().any(|(_, incoming)| incoming.is_promised()), "{}", held.len());
}

#[tokio::test]
async fn whoever_listens_on_a_port_is_known_before_it_is_kept_or_started() {
    let folder = tempfile::tempdir().unwrap();
    let (_home, supervisor, [pooled, other]) = handed_over(&folder.path().join("config")).await;
    let holder = async |port: u16| supervisor.holder(port).await.unwrap();
    assert_eq!(holder(pooled.port()).await.as_deref(), Some("vps"));
    assert_eq!(holder(other.port()).await, None);
    let ask = Ask {
        name: "new".to_owned(),
        definition: Some(serde_json::to_value(unanswered("")).unwrap()),
        batch: true,
        make_default: false,
        limit: Duration::from_secs(60),
    };
    let trial = supervisor.begin(&ask).await.unwrap();
    let port = trial.remote.definition().local_port;
    assert_eq!(holder(port).await.as_deref(), Some("new"));
    let shown = supervisor.statuses(None).unwrap();
    let names: Vec<_> = shown.iter().map(|status| status["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["vps"], "a trial is nobody's remote yet");
    supervisor.end("new", &trial).await;
    assert_eq!(holder(port).await, None);
    let forward = r#","forwards":[{"bind":null,"port":8,"host":"a","hostPort":80}]"#;
    let definition = config::Remote { local_port: 7, ..unanswered(forward) };
    supervisor
        .save(|remotes| {
            remotes.remotes.insert("slow".to_owned(), definition);
            Ok(())
        })
        .unwrap();
    assert_eq!(holder(7).await, None, "it rests");
    locked(&supervisor.unstarted).begin("slow");
    for port in [7, 8] {
        assert_eq!(holder(port).await.as_deref(), Some("slow"));
    }
}

#[tokio::test]
async fn who_has_a_port_is_asked_again_when_a_change_is_over() {
    let (_home, supervisor) = supervisor();
    let definition = config::Remote { local_port: 7, ..unanswered("") };
    let way = supervisor.find_way(&definition).await.unwrap();
    let remote = supervisor.make("vps", definition, way);
    // It has bound its port, and is not among the remotes yet.
    let changing = supervisor.changing.lock().await;
    let change = async {
        locked(&supervisor.remotes).insert("vps".to_owned(), remote);
        drop(changing);
    };
    let (holder, ()) = tokio::join!(supervisor.holder(7), change);
    assert_eq!(holder.unwrap().as_deref(), Some("vps"));
    let _changing = supervisor.changing.lock().await;
    tokio::time::pause();
    let problem = supervisor.holder(8).await.unwrap_err();
    assert_eq!(problem.class, Class::Internal, "it may be anybody's");
    assert_eq!(supervisor.holder(7).await.unwrap().as_deref(), Some("vps"), "that is known");
}

#[tokio::test]
async fn a_port_that_came_for_a_remote_outlives_its_failed_trials_and_starts() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let (_home, supervisor, [port, _]) = handed_over(&config).await;
    std::fs::write(&config, "").unwrap();
    let mut ask = Ask {
        name: "vps".to_owned(),
        definition: None,
        batch: true,
        make_default: false,
        limit: Duration::from_secs(60),
    };
    let trial = supervisor.begin(&ask).await.unwrap();
    assert!(!supervisor.pool.has_ports(), "the trial has it");
    trial.remote.try_out(Wish::Up).await;
    let _waits = std::net::TcpStream::connect(port).unwrap();
    let mut state = trial.remote.watch();
    let is_held = state.wait_for(|state| state.held > 0);
    timeout(REQUEST_LIMIT, is_held).await.expect("it waits").unwrap();
    supervisor.end("vps", &trial).await;
    assert!(supervisor.pool.holds(port));

    // A forward that cannot be: of a trial, and of a start.
    let mut definition =
        unanswered(r#","forwards":[{"bind":"nowhere","port":1024,"host":"a","hostPort":80}]"#);
    definition.local_port = port.port();
    ask.definition = Some(serde_json::to_value(&definition).unwrap());
    let Err(problem) = supervisor.begin(&ask).await else { panic!("it has no place") };
    assert_eq!(problem.class, Class::Usage);
    assert!(supervisor.pool.holds(port));
    let Err(problem) = supervisor.start("vps", definition).await else { panic!("nor that") };
    assert_eq!(problem.class, Class::Usage);
    assert!(supervisor.pool.holds(port));
    let held = supervisor.pool.take_held(|at| at == port);
    assert_eq!(held.len(), 2, "whoever waited still does");
}

#[tokio::test]
async fn a_trial_gives_no_port_back_to_a_remote_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (_home, supervisor, [port, _]) = handed_over(&folder.path().join("config")).await;
    let definition = config::Remote { local_port: port.port(), ..unanswered("") };
    let ask = Ask {
        name: "new".to_owned(),
        definition: Some(serde_json::to_value(&definition).unwrap()),
        batch: true,
        make_default: false,
        limit: Duration::from_secs(60),
    };
    let trial = supervisor.begin(&ask).await.unwrap();
    assert!(!supervisor.pool.has_ports(), "the trial has it");
    supervisor.disconnect("vps").await.unwrap();
    let changing = supervisor.changing.lock().await;
    let change = async {
        assert!(locked(&supervisor.trials).contains_key("new"), "its end waits for its turn");
        drop(changing);
    };
    tokio::join!(supervisor.end("new", &trial), change);
    assert!(locked(&supervisor.trials).is_empty());
    assert!(!supervisor.pool.has_ports(), "nobody would take it");
}

#[tokio::test]
async fn a_remote_that_is_taken_down_before_it_was_started_gives_up_its_ports() {
    let folder = tempfile::tempdir().unwrap();
    let (_home, mut supervisor, [port, _]) = handed_over(&folder.path().join("config")).await;
    let (ours, predecessor) = StdUnixStream::pair().unwrap();
    predecessor.set_read_timeout(Some(REQUEST_LIMIT)).unwrap();
    Arc::get_mut(&mut supervisor).unwrap().predecessors.push(ours);
    supervisor.rename("vps", "box").await.unwrap();
    let waits = std::net::TcpStream::connect(port).unwrap();
    supervisor.disconnect("box").await.unwrap();
    drop(waits);
    let told = handover::read::<handover::Word>(&predecessor).unwrap();
    assert_eq!(told, handover::Word::EndPort { port: port.port() }, "its streams end there too");
    assert!(!supervisor.pool.has_ports());
    assert!(!supervisor.is_wanted());
    assert_eq!(supervisor.next_try(), None);
}

#[tokio::test]
async fn a_remote_that_was_not_started_ends_no_streams_of_another_at_its_port() {
    let folder = tempfile::tempdir().unwrap();
    let (_home, mut supervisor, [port, _]) = handed_over(&folder.path().join("config")).await;
    let (ours, predecessor) = StdUnixStream::pair().unwrap();
    predecessor.set_read_timeout(Some(REQUEST_LIMIT)).unwrap();
    Arc::get_mut(&mut supervisor).unwrap().predecessors.push(ours);
    let definition = config::Remote { local_port: port.port(), ..unanswered("") };
    supervisor.start("other", definition).await.unwrap();
    supervisor.disconnect("vps").await.unwrap();
    supervisor.tell_predecessors(handover::Word::End);
    let told = handover::read::<handover::Word>(&predecessor).unwrap();
    assert_eq!(told, handover::Word::End, "nothing before that");
}

#[tokio::test]
async fn a_reload_starts_nothing_that_is_not_wanted_any_more_when_its_turn_comes() {
    let (_home, supervisor) = supervisor();
    let wish = |wanted| {
        let remote = config::Remote { wanted, ..unanswered("") };
        supervisor
            .save(|remotes| {
                remotes.remotes.insert("vps".to_owned(), remote);
                Ok(())
            })
            .unwrap();
    };
    wish(true);
    let changing = supervisor.changing.lock().await;
    // It has read the file, and waits for its turn.
    let disconnect = async {
        wish(false);
        drop(changing);
    };
    tokio::join!(supervisor.reload(), disconnect);
    assert!(locked(&supervisor.remotes).is_empty());
    wish(true);
    supervisor.reload().await;
    assert!(locked(&supervisor.remotes).contains_key("vps"));
}

#[tokio::test]
async fn the_configured_remote_is_taken_down_before_it_was_started_too() {
    let (_home, supervisor) = supervisor();
    supervisor.disconnect(CONFIGURED).await.unwrap_err();
    let problem = Problem::new(Class::Config, "line 3");
    supervisor.note_failure(CONFIGURED, &problem);
    supervisor.disconnect(CONFIGURED).await.unwrap();
    assert!(locked(&supervisor.unstarted).problem(CONFIGURED).is_none());
}

#[tokio::test]
async fn a_port_that_no_server_chose_keeps_nobody_who_was_followed() {
    let (_home, supervisor) = supervisor();
    let published =
        config::Remote { kind: Kind::Exposed, remote_port: 0, local_port: 18789, ..unanswered("") };
    supervisor.start("vps", published).await.unwrap();
    let (_successor, connection) = UnixStream::pair().unwrap();
    supervisor.moved.cancel();
    let drained = supervisor.drain(connection, JoinSet::new());
    timeout(Duration::from_secs(10), drained).await.expect("nothing is open");
}

#[tokio::test]
async fn a_port_chosen_in_the_moment_of_the_move_is_the_successors_to_save() {
    let (_home, supervisor) = supervisor();
    let remote = supervisor.start("vps", unanswered("")).await.unwrap();
    let chosen = watch::Sender::new(State { port: Some(2222), ..remote.state() });
    let (moved, ending) = (CancellationToken::new(), CancellationToken::new());
    assert_eq!(choice(chosen.subscribe(), &moved, &ending).await, Some(2222));
    moved.cancel();
    for _ in 0..64 {
        assert_eq!(choice(chosen.subscribe(), &moved, &ending).await, None);
    }
}

#[tokio::test]
async fn what_is_at_work_is_found_while_another_remote_is_changed() {
    let (_home, supervisor) = supervisor();
    let remote = supervisor.start("vps", unanswered("")).await.unwrap();
    let _changing = supervisor.changing.lock().await;
    let found = supervisor.find("vps", Edition::Kept);
    let found = timeout(Duration::from_secs(10), found).await.expect("not held up").unwrap();
    assert!(Arc::ptr_eq(&found, &remote));
}

#[tokio::test]
async fn a_newer_wish_for_the_metrics_is_not_undone() {
    let (_home, supervisor) = supervisor();
    let address = || {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let (former, newer) = (address(), address());
    supervisor
        .save(|remotes| {
            remotes.metrics = Some(former);
            Ok(())
        })
        .unwrap();
    supervisor.answer_scrapes(Some(newer), false).await.unwrap();
    supervisor.resume_scrapes().await;
    let present = locked(&supervisor.exporter).as_ref().map(|exporter| exporter.address);
    assert_eq!(present, Some(newer));
    supervisor.moved.cancel();
    supervisor.answer_scrapes(Some(former), false).await.unwrap_err();
}

#[tokio::test]
async fn a_remote_on_trial_is_neither_renamed_nor_taken_down() {
    let (_home, paths) = Paths::temporary();
    let book = Arc::new(Book::unwritten());
    let supervisor = Supervisor::new(paths.clone(), Estate::default(), Scope::Wanted, book);
    let text = r#"{"target":"127.0.0.1:9","remotePort":1,"localPort":1,"wanted":true}"#;
    let definition: config::Remote = serde_json::from_str(text).unwrap();
    Remotes::update(&paths, |remotes| {
        remotes.remotes.insert("vps".to_owned(), definition.clone());
        Ok(())
    })
    .unwrap();
    let way = supervisor.find_way(&definition).await.unwrap();
    let trial = supervisor.make("vps", definition, way);
    locked(&supervisor.trials).insert("vps".to_owned(), (trial, 1));
    for refused in [
        supervisor.disconnect("vps").await,
        supervisor.remove("vps").await,
        supervisor.rename("vps", "other").await,
    ] {
        assert_eq!(refused.unwrap_err().class, Class::Usage);
    }
    locked(&supervisor.trials).clear();
    supervisor.rename("vps", "other").await.unwrap();
    supervisor.remove("other").await.unwrap();
    assert_eq!(Remotes::load(&paths).unwrap(), Remotes::default());
}

#[tokio::test]
async fn what_cannot_be_saved_changes_nothing_of_what_is_at_work() {
    let (_home, supervisor) = supervisor();
    supervisor
        .save(|remotes| {
            remotes.remotes.insert("vps".to_owned(), unanswered(""));
            Ok(())
        })
        .unwrap();
    supervisor.take_up("vps").await.unwrap();
    let at_work = || locked(&supervisor.remotes).keys().cloned().collect::<Vec<_>>();
    let file = supervisor.paths.remotes();
    let whole = std::fs::read(&file).unwrap();
    // A file that cannot be replaced, as on a full disk.
    std::fs::write(&file, "{").unwrap();
    supervisor.disconnect("vps").await.unwrap_err();
    supervisor.remove("vps").await.unwrap_err();
    supervisor.rename("vps", "other").await.unwrap_err();
    assert_eq!(at_work(), ["vps"]);
    std::fs::write(&file, &whole).unwrap();
    // Its secrets cannot be read, so they cannot go along.
    let secrets = supervisor.paths.credentials();
    std::fs::write(&secrets, "{").unwrap();
    supervisor.rename("vps", "other").await.unwrap_err();
    assert_eq!(at_work(), ["vps"]);
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    std::fs::remove_file(&secrets).unwrap();
    supervisor.rename("vps", "other").await.unwrap();
    assert_eq!(at_work(), ["other"]);
    supervisor.disconnect("other").await.unwrap();
    assert!(at_work().is_empty());
    let saved = Remotes::load(&supervisor.paths).unwrap();
    assert!(saved.remotes.get("other").is_some_and(|remote| !remote.wanted));
    // What is removed leaves no secret behind: where that cannot be saved, the remote stays as well.
    std::fs::write(&secrets, "{").unwrap();
    supervisor.remove("other").await.unwrap_err();
    assert!(Remotes::load(&supervisor.paths).unwrap().remotes.contains_key("other"));
    std::fs::remove_file(&secrets).unwrap();
    supervisor.remove("other").await.unwrap();
    assert!(Remotes::load(&supervisor.paths).unwrap().remotes.is_empty());
}

#[tokio::test]
async fn what_is_gone_from_the_file_by_hand_is_taken_down_all_the_same() {
    let (_home, supervisor) = supervisor();
    for is_for_good in [false, true] {
        let remote = supervisor.start("vps", unanswered("")).await.unwrap();
        assert!(Remotes::load(&supervisor.paths).unwrap().remotes.is_empty());
        if is_for_good {
            supervisor.remove("vps").await.unwrap();
        } else {
            supervisor.disconnect("vps").await.unwrap();
        }
        assert!(locked(&supervisor.remotes).is_empty());
        assert_eq!(remote.state().phase, Phase::Down);
    }
    // One that is nowhere is a slip of the pen.
    assert_eq!(supervisor.disconnect("vps").await.unwrap_err().class, Class::Usage);
}

#[test]
fn what_cannot_be_read_is_no_wish_for_nothing() {
    let (_home, paths) = Paths::temporary();
    let inherited = [CONFIGURED.to_owned(), "vps".to_owned()];
    let names = |scope, inherited: &[String]| {
        let wanted = wanted(&paths, scope, inherited)?;
        Ok::<_, Problem>(wanted.into_iter().map(|(name, _)| name).collect::<Vec<_>>())
    };
    Remotes::update(&paths, |remotes| {
        let down = config::Remote { wanted: false, ..unanswered("") };
        remotes.remotes.insert("vps".to_owned(), unanswered(""));
        remotes.remotes.insert("down".to_owned(), down);
        Ok(())
    })
    .unwrap();
    assert_eq!(names(Scope::Wanted, &[]).unwrap(), ["vps"]);
    assert_eq!(names(Scope::Told, &inherited).unwrap(), ["vps"]);
    assert!(names(Scope::Told, &[]).unwrap().is_empty());
    // That of openclaw.json counts only where it was at work.
    std::fs::create_dir_all(paths.config.parent().unwrap()).unwrap();
    std::fs::write(&paths.config, "{ broken").unwrap();
    assert_eq!(names(Scope::Service, &[]).unwrap(), ["vps"]);
    names(Scope::Wanted, &inherited).unwrap_err();
    std::fs::remove_file(&paths.config).unwrap();
    std::fs::write(paths.remotes(), "{ broken").unwrap();
    for scope in [Scope::Wanted, Scope::Told, Scope::Service] {
        names(scope, &inherited).unwrap_err();
    }
    assert!(names(Scope::Told, &[]).unwrap().is_empty());
}

#[test]
fn a_broken_openclaw_json_is_no_wish_to_end_the_configured_remote() {
    let (_home, paths) = Paths::temporary();
    let file = paths.config.clone();
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "{ broken").unwrap();
    assert_ne!(still_configured(&paths).unwrap_err().class, Class::Usage);
    std::fs::write(&file, "{ gateway: { remote: { transport: 'ssh' } } }").unwrap();
    assert_eq!(still_configured(&paths).unwrap_err().class, Class::Config);
    std::fs::write(&file, "{}").unwrap();
    assert!(still_configured(&paths).unwrap().is_none());
}
