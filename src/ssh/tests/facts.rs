//! What a connection tells about itself.

use super::*;
use crate::ssh::observe::{Answer, Fact, Observer, Standing};

/// Keeps the facts.
#[derive(Default)]
pub(super) struct Book(pub(super) Mutex<Vec<Fact>>);

impl Observer for Book {
    fn stage(&self, _: Stage) {}

    fn fact(&self, fact: Fact) {
        self.0.lock().unwrap().push(fact);
    }
}

/// The facts of one connection, made or not.
async fn facts(options: &SshOptions, script: &Script) -> Vec<Fact> {
    let (plan, keyring, book) = (plan(options), Keyring::default(), Book::default());
    let outcome = within(Box::pin(super::super::connect(&plan, &keyring, script, &book))).await;
    drop(outcome);
    book.0.into_inner().unwrap()
}

fn standing(facts: &[Fact]) -> Option<&Standing> {
    facts.iter().find_map(|fact| {
        if let Fact::HostKey { standing, .. } = fact { Some(standing) } else { None }
    })
}

#[tokio::test]
async fn a_login_tells_every_step_in_order() {
    let lab = Lab::known();
    let facts = facts(&lab.options(), &Script::default()).await;
    let words: Vec<String> = facts.iter().map(ToString::to_string).collect();
    let starts = [
        "hop 0 begins",
        "addresses: 127.0.0.1",
        "127.0.0.1",
        "host key ssh-ed25519 SHA256:",
        "banner: SSH-2.0-",
        "algorithms: mlkem768x25519-sha256, ssh-ed25519, ",
        "methods: publickey",
        "key ssh-ed25519 SHA256:",
        "logged in by publickey",
    ];
    assert_eq!(words.len(), starts.len(), "{words:#?}");
    for (word, start) in words.iter().zip(starts) {
        assert!(word.starts_with(start), "{word} for {start}");
    }
    let Some(Standing::OnFile(line)) = standing(&facts) else { panic!("{words:#?}") };
    assert_eq!((line.path.clone(), line.number), (lab.at("known_hosts"), 1));
}

#[tokio::test]
async fn what_a_person_or_the_policy_takes_is_told_with_its_file() {
    let lab = Lab::start();
    for (policy, answers, expected) in [
        ("ask", &["no"][..], Standing::Unknown),
        ("yes", &[], Standing::Unknown),
        ("ask", &["yes"], Standing::TakenByPerson),
        ("accept-new", &[], Standing::TakenAsNew),
    ] {
        fs::write(lab.at("known_hosts"), "").unwrap();
        let options = lab.with("StrictHostKeyChecking", policy);
        let facts = facts(&options, &Script::of(answers)).await;
        assert_eq!(standing(&facts), Some(&expected), "{policy}");
        let recorded = facts.contains(&Fact::HostKeyRecorded(lab.at("known_hosts")));
        assert_eq!(recorded, expected != Standing::Unknown, "{policy}");
    }
}

#[tokio::test]
async fn a_refused_key_is_told_with_the_servers_methods() {
    let lab = Lab::known();
    lab.server.allow(Login::Nobody);
    let facts = facts(&lab.options(), &Script::default()).await;
    let refused = facts.iter().any(
        |fact| matches!(fact, Fact::Key { key, answer: Answer::Refused } if key.file == Some(lab.at("client_key"))),
    );
    assert!(refused, "{facts:#?}");
    assert!(!facts.iter().any(|fact| matches!(fact, Fact::LoggedIn { .. })));
}

#[tokio::test]
async fn the_key_with_which_the_server_lost_its_patience_is_told_as_well() {
    let Some(sshd) = real::Sshd::start(&["MaxAuthTries 2"]).await else { return };
    let keys = ["one", "two", "three"].map(|name| sshd.at(name));
    for key in &keys {
        generate_client_key(key).unwrap();
    }
    let facts =
        facts(&SshOptions { identities: keys.to_vec(), ..sshd.options() }, &Script::default())
            .await;
    let refused = facts.iter().filter_map(|fact| {
        if let Fact::Key { key, answer: Answer::Refused } = fact { key.file.clone() } else { None }
    });
    assert_eq!(refused.collect::<Vec<_>>(), keys[..2], "{facts:#?}");
}
