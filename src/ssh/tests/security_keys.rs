//! Keys in a device that a person touches, by way of an agent that plays one: the server's check of
//! the signature is OpenSSH's own.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{
    digest,
    signature::{Ed25519KeyPair, KeyPair},
};
use tokio::net::{UnixListener, UnixStream};

use super::{real::Sshd, *};
use crate::tunnel::Cause;

const KIND: &[u8] = b"sk-ssh-ed25519@openssh.com";
const APPLICATION: &[u8] = b"ssh:";

/// An agent with one key in a device.
struct Device {
    socket: PathBuf,
    /// The line for authorized_keys.
    line: String,
    /// How often it was asked to sign.
    asked: Arc<AtomicU32>,
    _serving: tokio_util::task::AbortOnDropHandle<()>,
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

impl Device {
    /// A device that a person touches whenever it blinks, or never.
    fn start(folder: &Path, touched: bool) -> Self {
        let socket = folder.join("device");
        let listener = UnixListener::bind(&socket).unwrap();
        let random = ring::rand::SystemRandom::new();
        let pair = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let pair = Arc::new(Ed25519KeyPair::from_pkcs8(pair.as_ref()).unwrap());
        let public = pair.public_key().as_ref();
        let blob = [string(KIND), string(public), string(APPLICATION)].concat();
        let kind = String::from_utf8(KIND.to_vec()).unwrap();
        let line = format!("{kind} {}\n", BASE64_STANDARD.encode(&blob));
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (pair, blob, count) = (Arc::clone(&pair), blob.clone(), Arc::clone(&count));
                tokio::spawn(async move { serve(stream, &pair, &blob, &count, touched).await });
            }
        });
        let serving = tokio_util::task::AbortOnDropHandle::new(serving);
        Self { socket, line, asked, _serving: serving }
    }
}

async fn serve(
    mut stream: UnixStream,
    pair: &Ed25519KeyPair,
    blob: &[u8],
    count: &AtomicU32,
    touched: bool,
) {
    while let Ok(length) = stream.read_u32().await {
        let mut request = vec![0; length as usize];
        stream.read_exact(&mut request).await.unwrap();
        let answer = match request[0] {
            11 => [&[12, 0, 0, 0, 1][..], &string(blob), &string(b"key")].concat(),
            13 => {
                count.fetch_add(1, Ordering::SeqCst);
                let rest = &request[1 + 4 + blob.len()..];
                let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                let signed = signature(pair, &rest[4..4 + length]);
                if touched { [vec![14], string(&signed)].concat() } else { vec![5] }
            }
            _ => vec![5],
        };
        stream.write_all(&string(&answer)).await.unwrap();
    }
}

/// As a device signs: over hashes, with a flag for the touch and a counter.
fn signature(pair: &Ed25519KeyPair, text: &[u8]) -> Vec<u8> {
    let hash = |bytes| digest::digest(&digest::SHA256, bytes);
    let touch = [1, 0, 0, 0, 7];
    let signed = [hash(APPLICATION).as_ref(), &touch[..], hash(text).as_ref()].concat();
    [string(KIND), string(pair.sign(&signed).as_ref()), touch.to_vec()].concat()
}

#[tokio::test]
async fn a_security_key_lets_us_in_through_the_agent_and_needs_a_touch() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let device = Device::start(&sshd.at(""), true);
    fs::write(sshd.at("authorized_keys"), &device.line).unwrap();
    let mut plan = plan(&SshOptions { identities: vec![sshd.at("none")], ..sshd.options() });
    plan.target_mut().agent = Some(device.socket.clone());
    let session = connect_plan(&plan, &Script::default(), &Keyring::default()).await.unwrap();
    assert!(session.facts().needed_person, "so nobody is asked again on a mere suspicion");
    assert_eq!(device.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_security_key_that_nobody_touches_is_asked_once_and_is_a_failure_of_its_own() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let device = Device::start(&sshd.at(""), false);
    fs::write(sshd.at("authorized_keys"), &device.line).unwrap();
    let mut plan = plan(&SshOptions { identities: vec![sshd.at("client_key")], ..sshd.options() });
    plan.target_mut().agent = Some(device.socket.clone());
    let failure = connect_plan(&plan, &Script::default(), &Keyring::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Agent, "{failure}");
    assert!(failure.message.contains("it was not touched"), "{failure}");
    assert!(!failure.cause.is_transient());
    assert_eq!(device.asked.load(Ordering::SeqCst), 1);
    assert_eq!(sshd.logged(1, "Connection from").await, 1);
}
