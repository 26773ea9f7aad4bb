//! The way to a gateway behind a scripted supervisor: what is offered there, and what is kept.

use serde_json::json;
use tokio::net::UnixListener;

use super::{
    super::{READ, session::tests::Far},
    *,
};
use crate::config::{Bound, Remote};

const PATIENCE: Duration = Duration::from_secs(10);

fn write(paths: &Paths, text: &str) {
    file::write(&paths.config, text.as_bytes()).unwrap();
}

fn plan(paths: &Paths, asked: &Asked) -> Result<Plan, Problem> {
    Plan::make_in(paths, asked, Credential::default(), &Surroundings::default())
}

#[test]
fn a_url_from_the_command_line_needs_no_files() {
    let (_home, paths) = Paths::temporary();
    write(&paths, "{ broken");
    let asked = Asked {
        url: Some("ws://127.0.0.1:1".to_owned()),
        with_credential: true,
        ..Asked::default()
    };
    plan(&paths, &asked).unwrap();
    assert_eq!(plan(&paths, &Asked::default()).unwrap_err().class, Class::Config);
}

#[tokio::test]
async fn a_port_without_a_listener_says_how_to_start_a_gateway() {
    let (_home, paths) = Paths::temporary();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let plan = plan(&paths, &Asked { port: Some(port), ..Asked::default() }).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let problem = plan.reach(READ, deadline).await.unwrap_err();
    assert_eq!(problem.class, Class::GatewayDown);
    assert_eq!(problem.fix.unwrap(), format!("openclaw gateway run --port {port}"));
}

/// A home with the remote `vps`, its saved token bound to host key `SHA256:a`, and a scripted
/// supervisor.
fn home_with_remote() -> (tempfile::TempDir, Paths, UnixListener) {
    let (home, paths) = Paths::temporary();
    Remotes::update(&paths, |remotes| {
        let remote = Remote { local_port: 18789, ..Remote::new("me@vps") };
        remotes.remotes.insert("vps".to_owned(), remote);
        remotes.default = Some("vps".to_owned());
        Ok(())
    })
    .unwrap();
    Credentials::update(&paths, |credentials| {
        let credential = config::Credential {
            token: Some(Secret::new("hunter2")),
            password: None,
            bound: Some(Bound { host_key: "SHA256:a".to_owned(), remote_port: 18789 }),
            gateway: Some("gateway-1".to_owned()),
        };
        credentials.remotes.insert("vps".to_owned(), credential);
        Ok(())
    })
    .unwrap();
    let supervisor = UnixListener::bind(&paths.socket).unwrap();
    (home, paths, supervisor)
}

/// Answers one `open` with what the transport proved; the stream follows.
async fn open_once(supervisor: &UnixListener, host_key: &str) -> UnixStream {
    let mut stream = greet(supervisor).await;
    let call: control::Call = control::read(&mut stream).await.unwrap();
    assert!(matches!(call.request, control::Request::Open { name, .. } if name == "vps"));
    let opened = control::Opened {
        host_key: Some(host_key.to_owned()),
        remote_port: 18789,
        tls_fingerprint: None,
    };
    control::write(&mut stream, &control::Reply::Opened(opened)).await.unwrap();
    stream
}

/// The next command's connection, greeted.
async fn greet(supervisor: &UnixListener) -> UnixStream {
    let (mut stream, _) = supervisor.accept().await.unwrap();
    let greeting = crate::meeting::Greeting {
        version: control::VERSION,
        pid: 1,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        replaced: false,
        foreground: false,
    };
    control::write(&mut stream, &greeting).await.unwrap();
    stream
}

#[tokio::test]
async fn a_remote_gets_its_saved_secret_and_nothing_else_does() {
    let (_home, paths, supervisor) = home_with_remote();
    let plan = plan(&paths, &Asked::default()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let far = async {
        let mut far = Far::accept(open_once(&supervisor, "SHA256:a").await).await;
        let token = far.admit().await.params.unwrap()["auth"]["token"].clone();
        let request = far.hear().await.unwrap();
        far.answer(&request.id, &json!({"deviceId": "gateway-1"})).await;
        token
    };
    let near = async {
        let reached = plan.reach(READ, deadline).await.unwrap();
        reached.verify(PATIENCE).await.unwrap();
        reached.source
    };
    let (source, token) = tokio::join!(near, far);
    assert_eq!((source, token), (Source::Saved, json!("hunter2")));
}

#[tokio::test]
async fn a_supervisor_that_goes_away_is_no_missing_gateway() {
    for is_gone in [true, false] {
        let (_home, paths, supervisor) = home_with_remote();
        let plan = plan(&paths, &Asked::default()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let (reached, mut far) = tokio::join!(plan.reach(READ, deadline), async {
            let mut far = Far::accept(open_once(&supervisor, "SHA256:a").await).await;
            far.admit().await;
            far
        });
        let reached = reached.unwrap();
        let end = async {
            far.hear().await.unwrap();
            drop(far);
            if is_gone {
                drop(supervisor);
            } else {
                greet(&supervisor).await;
            }
        };
        let (outcome, ()) = tokio::join!(reached.call("health", None, PATIENCE), end);
        let problem = outcome.unwrap_err();
        let told = problem.code.as_deref() == Some(control::SUPERVISOR_GONE);
        assert_eq!(told, is_gone, "{problem}");
        let class = if is_gone { Class::Internal } else { Class::GatewayDown };
        assert_eq!(problem.class, class);
    }
}

#[tokio::test]
async fn a_secret_that_was_changed_meanwhile_is_read_again() {
    let (_home, paths, supervisor) = home_with_remote();
    let plan = plan(&paths, &Asked::default()).unwrap();
    let mut sent = Vec::new();
    for secret in ["hunter2", "hunter3"] {
        Credentials::update(&paths, |credentials| {
            let saved = credentials.remotes.get_mut("vps").unwrap();
            saved.token = Some(Secret::new(secret));
            Ok(())
        })
        .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let far = async {
            let mut far = Far::accept(open_once(&supervisor, "SHA256:a").await).await;
            far.admit().await.params.unwrap()["auth"]["token"].clone()
        };
        let (reached, token) = tokio::join!(plan.reach(READ, deadline), far);
        reached.unwrap();
        sent.push(token);
    }
    assert_eq!(sent, [json!("hunter2"), json!("hunter3")]);
}

#[tokio::test]
async fn sends_nothing_to_another_host() {
    let (_home, paths, supervisor) = home_with_remote();
    let plan = plan(&paths, &Asked::default()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let far = async {
        let mut stream = open_once(&supervisor, "SHA256:b").await;
        let mut heard = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut heard).await.unwrap();
        heard
    };
    let (outcome, heard) = tokio::join!(plan.reach(READ, deadline), far);
    assert_eq!(outcome.unwrap_err().class, Class::HostKey);
    assert!(heard.is_empty());
}

#[tokio::test]
async fn another_gateway_at_the_same_remote_is_refused() {
    let (_home, paths, supervisor) = home_with_remote();
    let plan = plan(&paths, &Asked::default()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let far = async {
        let mut far = Far::accept(open_once(&supervisor, "SHA256:a").await).await;
        far.admit().await;
        let request = far.hear().await.unwrap();
        far.answer(&request.id, &json!({"deviceId": "gateway-2"})).await;
    };
    let near = async {
        let reached = plan.reach(READ, deadline).await.unwrap();
        reached.verify(PATIENCE).await.unwrap_err()
    };
    let (problem, ()) = tokio::join!(near, far);
    assert_eq!(problem.class, Class::GatewayRefused);
    assert_eq!(problem.code.as_deref(), Some("GATEWAY_IDENTITY_CHANGED"));
}
/// The way that [`open_once`] proves with the host key `SHA256:a`.
fn known_way() -> Way {
    let host_key = Some("SHA256:a".to_owned());
    let opened = control::Opened { host_key, remote_port: 18789, tls_fingerprint: None };
    Way::through("vps", &opened).unwrap()
}

fn kept(paths: &Paths) -> Option<String> {
    known_way().token(paths).unwrap().map(|token| token.expose().to_owned())
}

fn auth(request: &crate::protocol::Request) -> Value {
    request.params.as_ref().unwrap()["auth"].clone()
}

/// Logs in at the gateway `id`, which refuses the first login where `refusal` says why, and gives
/// the device a token where `gift` does; what was offered, and what came of comparing it.
async fn logged_in(
    plan: &Plan,
    supervisor: &UnixListener,
    id: &str,
    refusal: Option<&str>,
    gift: Option<&str>,
) -> (Vec<Value>, Reached, Result<(), Problem>) {
    logged_in_while(plan, supervisor, id, refusal, gift, || ()).await
}

/// The same where `meanwhile` happens before what was taught is kept.
async fn logged_in_while(
    plan: &Plan,
    supervisor: &UnixListener,
    id: &str,
    refusal: Option<&str>,
    gift: Option<&str>,
    meanwhile: impl FnOnce(),
) -> (Vec<Value>, Reached, Result<(), Problem>) {
    let deadline = Instant::now() + PATIENCE;
    let far = async {
        let mut offered = Vec::new();
        if let Some(code) = refusal {
            let mut far = Far::accept(open_once(supervisor, "SHA256:a").await).await;
            offered.push(auth(&far.refuse(code).await));
        }
        let mut far = Far::accept(open_once(supervisor, "SHA256:a").await).await;
        offered.push(auth(&far.admit_with(gift).await));
        let request = far.hear().await.unwrap();
        far.answer(&request.id, &json!({"deviceId": id})).await;
        offered
    };
    let near = async {
        let reached = plan.reach(READ, deadline).await.unwrap();
        meanwhile();
        let verified = reached.verify(PATIENCE).await;
        (reached, verified)
    };
    let ((reached, verified), offered) = tokio::join!(near, far);
    (offered, reached, verified)
}

#[tokio::test]
async fn the_token_of_our_device_goes_first_and_alone() {
    let (_home, paths, supervisor) = home_with_remote();
    known_way().keep(&paths, &Secret::new("device-1")).unwrap();
    let plan = plan(&paths, &Asked::default()).unwrap();
    let (offered, reached, verified) =
        logged_in(&plan, &supervisor, "gateway-1", None, Some("device-2")).await;
    verified.unwrap();
    assert_eq!(offered, [json!({"deviceToken": "device-1"})]);
    assert_eq!(reached.source, Source::Device);
    assert_eq!(kept(&paths).as_deref(), Some("device-2"), "it was given another");
}

#[tokio::test]
async fn a_secret_of_the_command_line_goes_before_the_token() {
    let (_home, paths, supervisor) = home_with_remote();
    known_way().keep(&paths, &Secret::new("device-1")).unwrap();
    let given = Credential::new(Some(Secret::new("given")), None, Source::Given);
    let plan = Plan::make_in(&paths, &Asked::default(), given, &Surroundings::default()).unwrap();
    let (offered, ..) = logged_in(&plan, &supervisor, "gateway-1", None, None).await;
    assert_eq!(offered, [json!({"token": "given"})]);
}

#[tokio::test]
async fn on_trial_the_secret_itself_is_tried_and_the_token_only_where_there_is_none() {
    let (_home, paths, supervisor) = home_with_remote();
    known_way().keep(&paths, &Secret::new("device-1")).unwrap();
    let trial = || Plan::on_trial(&paths, "vps", Credential::default()).unwrap();
    let plan = trial();
    let host_key = Some("SHA256:a".to_owned());
    let opened = control::Opened { host_key, remote_port: 18789, tls_fingerprint: None };
    let saved = plan.credential(Some(&opened)).unwrap();
    assert_eq!(saved.source, Source::Saved);
    let (offered, ..) = logged_in(&plan.with(saved), &supervisor, "gateway-1", None, None).await;
    assert_eq!(offered, [json!({"token": "hunter2"})]);
    Credentials::update(&paths, |credentials| {
        credentials.remotes.get_mut("vps").unwrap().token = None;
        Ok(())
    })
    .unwrap();
    let (offered, ..) = logged_in(&trial(), &supervisor, "gateway-1", None, None).await;
    assert_eq!(offered, [json!({"deviceToken": "device-1"})]);
}

#[tokio::test]
async fn a_refused_token_gives_way_to_the_secret_and_is_forgotten_only_if_it_is_wrong() {
    for (code, left) in [
        ("AUTH_DEVICE_TOKEN_MISMATCH", None),
        ("AUTH_SCOPE_MISMATCH", Some("device-1")),
        ("AUTH_RATE_LIMITED", Some("device-1")),
    ] {
        let (_home, paths, supervisor) = home_with_remote();
        known_way().keep(&paths, &Secret::new("device-1")).unwrap();
        let plan = plan(&paths, &Asked::default()).unwrap();
        let (offered, reached, verified) =
            logged_in(&plan, &supervisor, "gateway-1", Some(code), None).await;
        verified.unwrap();
        assert_eq!(offered, [json!({"deviceToken": "device-1"}), json!({"token": "hunter2"})]);
        assert_eq!(reached.source, Source::Saved, "{code}");
        assert_eq!(kept(&paths).as_deref(), left, "{code}");
    }
}

#[tokio::test]
async fn a_token_that_another_command_was_given_meanwhile_is_not_forgotten() {
    let (_home, paths, supervisor) = home_with_remote();
    known_way().keep(&paths, &Secret::new("device-1")).unwrap();
    let plan = plan(&paths, &Asked::default()).unwrap();
    let mismatch = Some("AUTH_DEVICE_TOKEN_MISMATCH");
    let other = || known_way().keep(&paths, &Secret::new("device-2")).unwrap();
    let (_, _, verified) =
        logged_in_while(&plan, &supervisor, "gateway-1", mismatch, None, other).await;
    verified.unwrap();
    assert_eq!(kept(&paths).as_deref(), Some("device-2"));
}

#[tokio::test]
async fn another_gateway_behind_the_same_port_neither_replaces_the_token_nor_removes_it() {
    for (refusal, gift) in [(None, Some("evil")), (Some("AUTH_DEVICE_TOKEN_MISMATCH"), None)] {
        let (_home, paths, supervisor) = home_with_remote();
        known_way().keep(&paths, &Secret::new("device-1")).unwrap();
        let plan = plan(&paths, &Asked::default()).unwrap();
        let (_, _, verified) = logged_in(&plan, &supervisor, "gateway-2", refusal, gift).await;
        assert_eq!(verified.unwrap_err().code.as_deref(), Some("GATEWAY_IDENTITY_CHANGED"));
        assert_eq!(kept(&paths).as_deref(), Some("device-1"));
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_written_does_not_fail_the_login() {
    let (_home, paths, supervisor) = home_with_remote();
    known_way().keep(&paths, &Secret::new("device-1")).unwrap();
    let plan = plan(&paths, &Asked::default()).unwrap();
    let (_, reached, verified) =
        logged_in(&plan, &supervisor, "gateway-1", None, Some("device-2")).await;
    verified.unwrap();
    let lock = paths.own().join("device.lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    known_way().forget(&paths, &Secret::new("device-1")).unwrap_err();
    let reached = Reached { known: None, ..reached };
    reached.verify(PATIENCE).await.unwrap();
}

#[test]
fn a_private_name_that_leads_elsewhere_is_not_spoken_to_in_plain_text() {
    let found: Vec<IpAddr> = ["192.168.1.7", "8.8.8.8"].map(|it| it.parse().unwrap()).into();
    let (near, far) = found.split_at(1);
    let plain = Address::parse("ws://box.local:18789").unwrap();
    assert_eq!(usable(&plain, "box.local", &found).unwrap(), near);
    let error = usable(&plain, "box.local", far).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("8.8.8.8"), "{error}");
    let tls = Address::parse("wss://box.local:18789").unwrap();
    assert_eq!(usable(&tls, "box.local", &found).unwrap(), found);
}
