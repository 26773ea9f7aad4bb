//! The main job's scene: a laptop, and a machine with an OpenSSH server and our gateway.

use std::{ffi::OsString, path::Path, time::Duration};

use serde_json::Value;

use super::{
    gateways::OurGateway,
    home::{Home, Ran, Run, openclaw},
    net::free_port,
    sshd::Sshd,
};

/// Laptop and far machine; the fields end in this order.
pub(crate) struct Scene {
    /// Where the person types.
    pub(crate) laptop: Home,
    /// The way in.
    pub(crate) sshd: Sshd,
    /// What the person wants to reach.
    pub(crate) gateway: OurGateway,
    /// Where the gateway keeps its state.
    pub(crate) far: Home,
    /// The local port of the remote.
    pub(crate) local_port: u16,
}

impl Scene {
    /// Everything runs, nothing is connected.
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// The same with lines of sshd_config.
    pub(crate) fn with(lines: &[&str]) -> Self {
        let far = Home::new();
        let state = format!("SetEnv OPENCLAW_STATE_DIR={}", far.state().display());
        let mut all = lines.to_vec();
        all.push(&state);
        let gateway = OurGateway::start(&far);
        let sshd = Sshd::start(&all);
        Self { laptop: Home::new(), sshd, gateway, far, local_port: free_port() }
    }

    /// `remote connect` to the far machine, complete but for the target.
    pub(crate) fn dialling(&self) -> Run {
        let words = dialling(&self.sshd, self.gateway.port(), self.gateway.token_file());
        let words =
            words.into_iter().chain(["--local-port".into(), self.local_port.to_string().into()]);
        openclaw(&self.laptop).args(words)
    }

    /// `remote connect --name vps` with the ssh options given, and no secret.
    pub(crate) fn dialling_by(&self, way: [OsString; 6]) -> Run {
        openclaw(&self.laptop)
            .args(["remote", "connect", "--name", "vps"])
            .args(way)
            .args(["--remote-port", &self.gateway.port().to_string()])
            .args(["--local-port", &self.local_port.to_string()])
    }

    /// The ssh options that lead straight in.
    pub(crate) fn way_in(&self) -> [OsString; 6] {
        way_in(self.sshd.port(), &self.sshd.key(), &self.sshd.known_hosts())
    }

    /// `remote connect --batch` by an ssh configuration file, complete but for the target.
    pub(crate) fn dialling_by_file(&self, config: &Path) -> Run {
        openclaw(&self.laptop)
            .args(["remote", "connect", "--batch", "-F"])
            .arg(config)
            .arg("--token-file")
            .arg(self.gateway.token_file())
            .args(["--remote-port", &self.gateway.port().to_string()])
            .limit(Duration::from_secs(90))
    }

    /// Connects a remote named `vps` and fails unless it is live.
    pub(crate) fn connect(&self) -> Ran {
        self.dialling().args(["--json", "--name", "vps"]).arg(self.sshd.target()).run().exits(0)
    }

    /// Runs a command of the gateway's owner, on its own machine, with `--json`; fails unless it
    /// succeeds.
    pub(crate) fn ours(&self, words: &[&str]) -> Ran {
        let port = self.gateway.port().to_string();
        let words = [words, &["--port", &port, "--json"]].concat();
        openclaw(&self.far).args(words).run().exits(0)
    }

    /// Runs a command on the laptop and fails unless it succeeds.
    pub(crate) fn laptop(&self, arguments: &[&str]) -> Ran {
        openclaw(&self.laptop).args(arguments).limit(Duration::from_secs(40)).run().exits(0)
    }
}

/// The request of the device or node that calls itself `name`, in a list of those that wait.
pub(crate) fn request_of<'a>(list: &'a Value, name: &str) -> &'a str {
    let requests = list.as_array().expect("a list of requests");
    let word = |request: &'a Value, key| request.get(key).and_then(Value::as_str);
    let of_name = requests.iter().find(|request| word(request, "displayName") == Some(name));
    let id = of_name.and_then(|request| word(request, "requestId"));
    id.unwrap_or_else(|| panic!("{name} does not ask: {list}"))
}

/// `remote connect --batch` through `sshd` to the gateway at `port`, without target and local port.
pub(crate) fn dialling(sshd: &Sshd, port: u16, token_file: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["remote", "connect", "--batch"].map(Into::into).into();
    words.extend(way_in(sshd.port(), &sshd.key(), &sshd.known_hosts()));
    words.extend(["--token-file".into(), token_file.into()]);
    words.extend(["--remote-port".into(), port.to_string().into()]);
    words
}

/// The ssh options that lead to a port with a key and a known_hosts file, and no configuration of
/// the person who runs the tests.
pub(crate) fn way_in(port: u16, key: &Path, known_hosts: &Path) -> [OsString; 6] {
    let mut known = OsString::from("UserKnownHostsFile=");
    known.push(known_hosts);
    let port = format!("-p{port}").into();
    ["-Fnone".into(), port, "-i".into(), key.into(), "-o".into(), known]
}
