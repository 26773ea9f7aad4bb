//! Which keys a real server gets to see: certificates, full agents, two keys in a row, lists of
//! algorithms, agents that do not want to.

use tokio::net::UnixListener;

use super::{agent::OwnAgent, real::Sshd, *};
use crate::{ssh::resolve::AddToAgent, tunnel::Cause};

fn sign(ca: &Path, words: &[&str], public: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-I", "test", "-s"]).arg(ca).args(words).arg(public);
    assert!(command.status().unwrap().success());
}

fn me() -> String {
    Environment::of_process().user
}

/// A server that trusts an authority and no key, and a signed key `signed` of `kind`.
async fn with_authority(kind: &str) -> Option<(Sshd, tempfile::TempDir)> {
    installed("ssh-keygen")?;
    let keys = tempfile::tempdir().unwrap();
    keygen(&keys.path().join("ca"), "ed25519", "");
    let line = format!("TrustedUserCAKeys {}", keys.path().join("ca.pub").display());
    let sshd = Sshd::start(&[&line, "AuthorizedKeysFile none"]).await?;
    for name in ["ca", "ca.pub"] {
        fs::copy(keys.path().join(name), sshd.at(name)).unwrap();
    }
    keygen(&sshd.at("signed"), kind, "");
    sign(&sshd.at("ca"), &["-n", &me(), "-V", "+1h"], &sshd.at("signed.pub"));
    Some((sshd, keys))
}

fn with_key(sshd: &Sshd, name: &str) -> SshOptions {
    SshOptions { identities: vec![sshd.at(name)], ..sshd.options() }
}

/// A plan for `key` whose only other source is this agent.
fn with_agent(sshd: &Sshd, key: &str, agent: &Path) -> Plan {
    let mut plan = plan(&with_key(sshd, key));
    plan.target_mut().agent = Some(agent.to_owned());
    plan
}

async fn try_plan(plan: &Plan) -> Result<Session, Failure> {
    connect_plan(plan, &Script::default(), &Keyring::default()).await
}

#[tokio::test]
async fn a_certificate_beside_the_key_lets_us_in() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let Some((sshd, _keys)) = with_authority(kind).await else { return };
        connect(&with_key(&sshd, "signed"), &Script::default()).await.unwrap();
        assert_eq!(sshd.logged(1, "Accepted publickey").await, 1, "{kind}");
        fs::remove_file(sshd.at("signed-cert.pub")).unwrap();
        let refused = connect(&with_key(&sshd, "signed"), &Script::default()).await.unwrap_err();
        assert_eq!(refused.cause, Cause::Authentication, "{kind}");
    }
}

#[tokio::test]
async fn a_named_certificate_goes_with_a_key_in_a_file_or_in_the_agent() {
    for kind in ["ed25519", "rsa"] {
        let Some((sshd, _keys)) = with_authority(kind).await else { return };
        let Some(agent) = OwnAgent::start(sshd.at("").as_path()) else { return };
        fs::rename(sshd.at("signed-cert.pub"), sshd.at("elsewhere.pub")).unwrap();
        let mut plan = plan(&with_key(&sshd, "signed"));
        plan.target_mut().certificates = vec![sshd.at("elsewhere.pub")];
        try_plan(&plan).await.unwrap();
        agent.add(&sshd.at("signed"));
        fs::remove_file(sshd.at("signed")).unwrap();
        plan.target_mut().agent = Some(agent.socket().to_owned());
        plan.target_mut().identities_only = true;
        try_plan(&plan).await.unwrap();
        plan.target_mut().certificates = vec![sshd.at("nowhere")];
        let failure = try_plan(&plan).await.unwrap_err();
        assert!(failure.message.contains("nowhere is not there"), "{failure}");
    }
}

#[tokio::test]
async fn a_certificate_in_the_agent_lets_us_in_though_only_its_key_is_named() {
    let Some((sshd, _keys)) = with_authority("ed25519").await else { return };
    let Some(agent) = OwnAgent::start(sshd.at("").as_path()) else { return };
    // ssh-add takes the certificate along.
    agent.add(&sshd.at("signed"));
    assert_eq!(agent.count(), 2);
    fs::remove_file(sshd.at("signed")).unwrap();
    fs::remove_file(sshd.at("signed-cert.pub")).unwrap();
    let mut plan = with_agent(&sshd, "signed", agent.socket());
    plan.target_mut().identities_only = true;
    try_plan(&plan).await.unwrap();
}

#[tokio::test]
async fn certificates_that_let_nobody_in_are_skipped_with_a_note() {
    let Some((sshd, _keys)) = with_authority("ed25519").await else { return };
    let user = me();
    let cases: [(&[&str], &str); 3] = [
        (&["-n", &user, "-V", "20200101:20210101"], "has expired"),
        (&["-n", &user, "-V", "20700101:20710101"], "is not valid yet"),
        (&["-h", "-n", &user, "-V", "+1h"], "is for hosts, not for users"),
    ];
    for (words, why) in cases {
        sign(&sshd.at("ca"), words, &sshd.at("signed.pub"));
        let failure = connect(&with_key(&sshd, "signed"), &Script::default()).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Authentication);
        assert!(failure.message.contains(why), "{failure}");
    }
    assert_eq!(sshd.logged(3, "Certificate invalid").await, 0, "the server never saw one");
}

/// An agent with twenty keys, of which the fifteenth opens the server.
fn full_agent(sshd: &Sshd) -> Option<OwnAgent> {
    let agent = OwnAgent::start(sshd.at("").as_path())?;
    for number in 1..=20 {
        let path = sshd.at(&format!("held{number}"));
        if number == 15 {
            agent.add(&sshd.at("client_key"));
        } else {
            generate_client_key(&path).unwrap();
            agent.add(&path);
        }
    }
    fs::remove_file(sshd.at("client_key")).unwrap();
    Some(agent)
}

#[tokio::test]
async fn the_right_one_of_twenty_keys_is_offered_at_once_when_its_public_half_is_named() {
    let Some(sshd) = Sshd::start(&["MaxAuthTries 6"]).await else { return };
    let Some(agent) = full_agent(&sshd) else { return };
    for name in ["client_key", "client_key.pub"] {
        try_plan(&with_agent(&sshd, name, agent.socket())).await.unwrap();
    }
    assert_eq!(sshd.logged(2, "Failed publickey").await, 0);
    assert_eq!(sshd.logged(2, "Accepted publickey").await, 2);
}

#[tokio::test]
async fn twenty_keys_without_a_name_end_with_the_advice_to_name_one() {
    let Some(sshd) = Sshd::start(&["MaxAuthTries 6"]).await else { return };
    let Some(agent) = full_agent(&sshd) else { return };
    let plan = with_agent(&sshd, "held1", agent.socket());
    let failure = try_plan(&plan).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication, "{failure}");
    assert!(failure.message.contains("14 more were not reached"), "{failure}");
    assert_eq!(failure.fix.as_deref(), Some("name the right key: -i FILE -o IdentitiesOnly=yes"));
    assert_eq!(sshd.logged(1, "Connection from").await, 1, "one attempt");
}

#[tokio::test]
async fn a_server_with_more_patience_is_offered_every_key_and_the_right_one_first_next_time() {
    let Some(sshd) = Sshd::start(&["MaxAuthTries 30"]).await else { return };
    let Some(agent) = full_agent(&sshd) else { return };
    let plan = with_agent(&sshd, "held1", agent.socket());
    let keyring = Keyring::default();
    connect_plan(&plan, &Script::default(), &keyring).await.unwrap();
    let failed = sshd.logged(1, "Failed publickey").await;
    assert!(failed >= 14, "{failed}");
    connect_plan(&plan, &Script::default(), &keyring).await.unwrap();
    assert_eq!(sshd.logged(2, "Failed publickey").await, failed, "remembered");
}

#[tokio::test]
async fn a_server_may_want_two_keys() {
    let lines = ["AuthenticationMethods publickey,publickey"];
    let Some(sshd) = Sshd::start(&lines).await else { return };
    let failure = connect(&sshd.options(), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Authentication);
    assert!(failure.message.contains("content with publickey, and wants more"), "{failure}");
    keygen(&sshd.at("second"), "ecdsa", "");
    let both =
        ["client_key.pub", "second.pub"].map(|name| fs::read_to_string(sshd.at(name)).unwrap());
    fs::write(sshd.at("authorized_keys"), both.concat()).unwrap();
    let mut options = sshd.options();
    options.identities.push(sshd.at("second"));
    let session = connect(&options, &Script::default()).await.unwrap();
    assert_eq!(session.facts().method, "publickey,publickey");
}

#[tokio::test]
async fn a_list_of_algorithms_picks_the_signature() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    keygen(&sshd.at("rsa"), "rsa", "");
    fs::copy(sshd.at("rsa.pub"), sshd.at("authorized_keys")).unwrap();
    let mut plan = plan(&with_key(&sshd, "rsa"));
    for (name, ok) in
        [("rsa-sha2-256", true), ("rsa-sha2-512", true), ("ssh-rsa", false), ("ecdsa-*", false)]
    {
        plan.target_mut().algorithms.public_key = vec![name.to_owned()];
        let session = try_plan(&plan).await;
        assert_eq!(session.is_ok(), ok, "{name}");
    }
    let Some(sshd) = Sshd::start(&["PubkeyAcceptedAlgorithms ssh-rsa"]).await else { return };
    keygen(&sshd.at("rsa"), "rsa", "");
    fs::copy(sshd.at("rsa.pub"), sshd.at("authorized_keys")).unwrap();
    let mut plan = super::plan(&with_key(&sshd, "rsa"));
    assert!(try_plan(&plan).await.is_err(), "SHA-1 is for those who name it");
    plan.target_mut().algorithms.public_key = vec!["ssh-rsa".into()];
    try_plan(&plan).await.unwrap();
}

#[tokio::test]
async fn a_locked_agent_is_named_and_files_are_still_tried() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let Some(agent) = OwnAgent::start(sshd.at("").as_path()) else { return };
    agent.add(&sshd.at("client_key"));
    let (keyring, plan) = (Keyring::default(), with_agent(&sshd, "client_key.pub", agent.socket()));
    connect_plan(&plan, &Script::default(), &keyring).await.unwrap();
    assert!(agent.ssh_add(&["-x"]).status.success());
    for keyring in [keyring, Keyring::default()] {
        let failure = connect_plan(&plan, &Script::default(), &keyring).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Agent, "{failure}");
        assert!(failure.message.contains("locked"), "{failure}");
        assert!(failure.fix.unwrap().contains("ssh-add -X"));
    }
    try_plan(&with_agent(&sshd, "client_key", agent.socket())).await.unwrap();
    assert!(agent.ssh_add(&["-X"]).status.success());
    try_plan(&plan).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_refuses_to_sign_is_a_failure_of_its_own_and_asked_once() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let Some(agent) = OwnAgent::start(sshd.at("").as_path()) else { return };
    // Each use must be confirmed, and there is nobody who could.
    let key = sshd.at("client_key").display().to_string();
    assert!(agent.ssh_add(&["-q", "-c", &key]).status.success());
    let plan = with_agent(&sshd, "client_key", agent.socket());
    let failure = try_plan(&plan).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Agent, "{failure}");
    assert!(failure.message.contains("refused to sign"), "{failure}");
    assert!(!failure.cause.is_transient());
    assert_eq!(sshd.logged(1, "Connection from").await, 1);
}

#[tokio::test]
async fn an_agent_that_refused_for_the_certificate_is_not_asked_for_its_key() {
    let Some((sshd, _keys)) = with_authority("ed25519").await else { return };
    let Some(agent) = OwnAgent::start(sshd.at("").as_path()) else { return };
    let line = format!("TrustedUserCAKeys {}", sshd.at("ca.pub").display());
    let Some(both) = Sshd::start(&[&line]).await else { return };
    fs::copy(sshd.at("signed.pub"), both.at("authorized_keys")).unwrap();
    let key = sshd.at("signed").display().to_string();
    assert!(agent.ssh_add(&["-q", "-c", &key]).status.success());
    assert_eq!(agent.count(), 2);
    agent.refuse_into(&sshd.at("refusals"));
    let failure = try_plan(&with_agent(&both, "none", agent.socket())).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Agent, "{failure}");
    assert_eq!(fs::read_to_string(sshd.at("refusals")).unwrap(), "no\n");
}

#[tokio::test]
async fn an_agent_that_hangs_is_given_up_and_files_are_still_tried() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let socket = sshd.at("hanging");
    let _listener = UnixListener::bind(&socket).unwrap();
    let started = std::time::Instant::now();
    try_plan(&with_agent(&sshd, "client_key", &socket)).await.unwrap();
    assert!(started.elapsed().as_secs() < 10);
    fs::remove_file(sshd.at("client_key")).unwrap();
    let failure = try_plan(&with_agent(&sshd, "client_key", &socket)).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Agent);
    assert!(failure.message.contains("does not answer within 5 s"), "{failure}");
    assert!(failure.fix.unwrap().contains("IdentityAgent=none"));
}

#[tokio::test]
async fn an_agent_gets_the_keys_that_are_read_from_files() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let Some(agent) = OwnAgent::start(sshd.at("").as_path()) else { return };
    keygen(&sshd.at("locked"), "ed25519", "secret");
    fs::copy(sshd.at("locked.pub"), sshd.at("authorized_keys")).unwrap();
    let mut plan = with_agent(&sshd, "locked", agent.socket());
    plan.target_mut().remember = false;
    for (ask, answers, expected) in
        [(true, &["secret", "no"][..], 0), (true, &["secret", "yes"], 1)]
    {
        plan.target_mut().add_keys_to_agent = Some(AddToAgent { ask, ..AddToAgent::default() });
        let script = Script::of(answers);
        let session = connect_plan(&plan, &script, &Keyring::default()).await.unwrap();
        assert_eq!(agent.count(), expected);
        assert_eq!(session.facts().needed_person, expected == 0);
        assert!(
            matches!(&script.asked()[1], Question::AddToAgent { path } if *path == sshd.at("locked"))
        );
    }
    // Now the agent signs, and nobody is asked.
    let script = Script::default();
    let session = connect_plan(&plan, &script, &Keyring::default()).await.unwrap();
    assert!(script.asked().is_empty() && !session.facts().needed_person);
    assert!(agent.ssh_add(&["-q", "-D"]).status.success());
    let how = AddToAgent { lifetime: Some(600), ..AddToAgent::default() };
    plan.target_mut().add_keys_to_agent = Some(how);
    connect_plan(&plan, &Script::of(&["secret"]), &Keyring::default()).await.unwrap();
    assert_eq!(agent.count(), 1);
}

#[tokio::test]
async fn a_key_that_the_agent_keeps_for_one_server_opens_that_one_and_no_other() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let Some(other) = Sshd::start(&[]).await else { return };
    let Some(agent) = OwnAgent::start(sshd.at("").as_path()) else { return };
    fs::copy(sshd.at("authorized_keys"), other.at("authorized_keys")).unwrap();
    let place = format!("[127.0.0.1]:{}", sshd.port);
    let (known, key) = (sshd.at("known_hosts"), sshd.at("client_key"));
    let words = [known.to_str().unwrap(), "-h", &place, key.to_str().unwrap()];
    let added = agent.ssh_add(&[&["-q", "-H"][..], &words].concat());
    assert!(added.status.success(), "{added:?}");
    fs::remove_file(&key).unwrap();
    // The agent signs only after it was told, with proof, which server it is for.
    try_plan(&with_agent(&sshd, "client_key.pub", agent.socket())).await.unwrap();
    fs::copy(sshd.at("client_key.pub"), other.at("theirs.pub")).unwrap();
    let failure = try_plan(&with_agent(&other, "theirs.pub", agent.socket())).await.unwrap_err();
    assert!(!failure.cause.is_transient(), "{failure}");
    assert_eq!(other.logged(1, "Failed publickey").await, 0, "the key was not even shown");
}
