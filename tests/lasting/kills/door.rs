//! The way in to a gateway that may be dead by the next word: an error of input and output is its
//! death, and any other surprise fails the test.

use std::{cell::Cell, io, net::Ipv4Addr, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Device, OurGateway, Wire, connect, signal};

/// How often a client comes back whom another one's removal turned away.
const TRIES: usize = 50;
/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a gateway is reached, and with what.
pub(super) struct Door {
    pub(super) port: u16,
    token: String,
    pid: Pid,
    /// After how many confirmations the gateway dies, if it does not die otherwise.
    left: Cell<Option<u64>>,
}

impl Door {
    pub(super) fn of(gateway: &OurGateway) -> Self {
        let (port, token, pid) = (gateway.port(), gateway.token(), gateway.program().pid());
        Self { port, token, pid, left: Cell::new(None) }
    }

    /// Has the gateway killed in the moment when somebody hears the confirmation of this number.
    pub(super) fn dies_after(&self, confirmations: u64) {
        self.left.set(Some(confirmations));
    }

    fn confirmed(&self) {
        let left = self.left.get().map(|left| left.saturating_sub(1));
        self.left.set(left);
        if left == Some(0) {
            signal(self.pid, Signal::SIGKILL);
        }
    }

    /// Has `change` done again and again; how much was confirmed when the gateway died.
    pub(super) async fn while_it_lives(
        &self,
        mut change: impl AsyncFnMut(u64) -> io::Result<()>,
    ) -> u64 {
        let mut count = 0;
        loop {
            match change(count).await {
                Ok(()) => {
                    self.confirmed();
                    count += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    panic!("the gateway does not answer: {error}")
                }
                Err(_) => return count,
            }
        }
    }

    /// The gateway's secret.
    pub(super) fn secret(&self) -> Value {
        json!({ "token": self.token })
    }

    /// A connection that may do everything.
    pub(super) async fn admin(&self) -> io::Result<Wire> {
        let mut params = connect(&self.secret());
        params["scopes"] = json!(["operator.admin"]);
        let (mut wire, _) = Wire::open(self.port).await?;
        let answer = wire.call("connect", params).await?;
        assert_eq!(answer["ok"], true, "{answer}");
        Ok(wire)
    }

    /// A device as an operator; the connection, and what it was answered.
    pub(super) async fn operator(
        &self,
        device: &Device,
        auth: &Value,
        scopes: &[&str],
    ) -> io::Result<(Wire, Value)> {
        let mut params = connect(auth);
        params["scopes"] = json!(scopes);
        self.knock(device, params).await
    }

    /// A device as a node that offers these commands.
    pub(super) async fn node(
        &self,
        device: &Device,
        auth: &Value,
        commands: &[&str],
    ) -> io::Result<(Wire, Value)> {
        let params = json!({
            "minProtocol": 4, "maxProtocol": 4, "role": "node", "scopes": [],
            "client": { "id": "node-host", "version": "1", "platform": "linux",
                        "deviceFamily": "Linux", "mode": "node" },
            "caps": ["system"], "commands": commands, "auth": auth,
        });
        self.knock(device, params).await
    }

    /// The status and the JSON of a page.
    pub(super) async fn get(&self, path: &str) -> io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
        // A gateway that dies sends half of it.
        let half = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(half)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = serde_json::from_str(body).map_err(|_| half())?;
        Ok((status.ok_or_else(half)?, body))
    }

    async fn knock(&self, device: &Device, params: Value) -> io::Result<(Wire, Value)> {
        for _ in 0..TRIES {
            let (mut wire, asked) = Wire::open(self.port).await?;
            let mut params = params.clone();
            device.sign(&mut params, &asked);
            let answer = wire.call("connect", params).await?;
            // Somebody else's right was taken away meanwhile.
            if answer["error"]["message"] != "pairing changed; connect again" {
                return Ok((wire, answer));
            }
        }
        panic!("a device is turned away over and over");
    }
}

/// Calls, and fails unless it is answered with a reply.
pub(super) async fn ask(wire: &mut Wire, method: &str, params: Value) -> io::Result<Value> {
    let answer = wire.call(method, params).await?;
    assert_eq!(answer["ok"], true, "{method}: {answer}");
    Ok(answer["payload"].clone())
}

/// The id of the request that a refusal names, since somebody must approve it.
pub(super) fn request_in(refusal: &Value) -> String {
    let details = &refusal["error"]["details"];
    assert_eq!(details["code"], "PAIRING_REQUIRED", "{refusal}");
    text(&details["requestId"])
}

/// The token of its own that a device was given.
pub(super) fn token_in(hello: &Value) -> String {
    assert_eq!(hello["ok"], true, "{hello}");
    text(&hello["payload"]["auth"]["deviceToken"])
}

/// A text that has to be one.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// The one in `list` that `field` names so.
pub(super) fn find<'a>(list: &'a Value, field: &str, name: &str) -> Option<&'a Value> {
    list.as_array().unwrap().iter().find(|it| it[field] == name)
}
