//! What a person hears when the other side is missing, silent or strange.

use tokio::net::TcpStream;

use super::*;
use crate::tunnel::Cause;

/// A listener that does one thing with every connection, and options that lead there.
async fn strange<F, D>(mut act: F) -> SshOptions
where
    F: FnMut(TcpStream) -> D + Send + 'static,
    D: Future<Output = ()> + Send + 'static,
{
    let (listener, port) = far_side().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(act(stream));
        }
    });
    options(port, Path::new("/nonexistent/key"), Path::new("/nonexistent/known_hosts"))
}

fn quick(mut options: SshOptions) -> SshOptions {
    options.options.insert(0, ("ConnectTimeout".into(), "1".into()));
    options
}

#[tokio::test]
async fn nothing_listens() {
    let options = options(closed_port(), Path::new("/x"), Path::new("/x"));
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Refused);
    assert!(failure.fix.is_some());
}

#[tokio::test]
async fn the_name_does_not_exist() {
    let mut options = options(22, Path::new("/x"), Path::new("/x"));
    options.options.push(("HostName".into(), "no-such-host.invalid".into()));
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::NameNotFound);
    assert!(failure.message.contains("no-such-host.invalid"), "{failure}");
}

#[tokio::test]
async fn silence_ends_after_the_timeout() {
    let options = strange(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    });
    let failure = connect(&quick(options.await), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::HandshakeTimedOut);
}

#[tokio::test]
async fn silence_after_the_banner_ends_after_the_timeout() {
    let options = strange(|mut stream| async move {
        stream.write_all(b"SSH-2.0-Silent\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let failure = connect(&quick(options.await), &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::HandshakeTimedOut);
    assert!(failure.message.contains("key exchange"), "{failure}");
}

#[tokio::test]
async fn a_close_before_the_banner_may_be_a_punishment_of_a_server_that_punishes() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let options = strange(move |mut stream| {
        let first = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        async move {
            if first {
                stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
                let mut some = [0; 8];
                stream.read_exact(&mut some).await.unwrap();
            }
        }
    })
    .await;
    let keyring = Keyring::default();
    let failure = connect_with(&options, &Script::default(), &keyring).await.unwrap_err();
    assert_eq!(failure.cause, Cause::LinkLost);
    let failure = connect_with(&options, &Script::default(), &keyring).await.unwrap_err();
    assert_eq!(failure.cause, Cause::ClosedBeforeBanner { penalty: true });
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::ClosedBeforeBanner { penalty: false });
}

#[tokio::test]
async fn something_else_than_ssh_listens() {
    let options = strange(|mut stream| async move {
        let line = b"HTTP/1.1 400 Bad Request\r\n";
        while stream.write_all(line).await.is_ok() {}
    });
    let failure = connect(&options.await, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Protocol);
}

#[tokio::test]
async fn a_link_cut_during_the_login_is_not_a_wrong_key() {
    let lab = Lab::known();
    let (plan, keyring, script) = (plan(&lab.options()), Keyring::default(), Script::default());
    let cut = |stage: Stage| {
        if matches!(stage, Stage::Authenticating { .. }) {
            lab.server.drop_sessions();
        }
    };
    let connecting = super::super::connect(&plan, &keyring, &script, &cut);
    let failure = within(Box::pin(connecting)).await.unwrap_err();
    assert_eq!(failure.cause, Cause::LinkLost);
}

#[tokio::test]
async fn giving_up_leaves_no_connection_behind() {
    let lab = Lab::start();
    let (plan, keyring) = (plan(&lab.options()), Keyring::default());
    struct Nobody;
    impl Asker for Nobody {
        fn ask(&self, _: Question) -> Pin<Box<dyn Future<Output = Option<Secret>> + Send + '_>> {
            Box::pin(std::future::pending())
        }
    }
    let (sender, asked) = tokio::sync::oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let stages = |stage: Stage| {
        if matches!(stage, Stage::CheckingHostKey { .. })
            && let Some(sender) = sender.lock().unwrap().take()
        {
            sender.send(()).unwrap();
        }
    };
    {
        let connecting = Box::pin(super::super::connect(&plan, &keyring, &Nobody, &stages));
        tokio::select! {
            _ = connecting => panic!("nobody answered the question"),
            asked = within(asked) => asked.unwrap(),
        }
    }
    within(lab.server.until_sessions(0)).await;
}
