//! The main job's scene: a laptop, and a machine with an OpenSSH server and our gateway.

use std::{ffi::OsString, path::Path, time::Duration};

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

    /// Connects a remote named `vps` and fails unless it is live.
    pub(crate) fn connect(&self) -> Ran {
        self.dialling().args(["--json", "--name", "vps"]).arg(self.sshd.target()).run().exits(0)
    }

    /// Runs a command on the laptop and fails unless it succeeds.
    pub(crate) fn laptop(&self, arguments: &[&str]) -> Ran {
        openclaw(&self.laptop).args(arguments).limit(Duration::from_secs(40)).run().exits(0)
    }
}

/// `remote connect --batch` through `sshd` to the gateway at `port`, without target and local port.
pub(crate) fn dialling(sshd: &Sshd, port: u16, token_file: &Path) -> Vec<OsString> {
    let mut known_hosts = OsString::from("UserKnownHostsFile=");
    known_hosts.push(sshd.known_hosts());
    let mut words: Vec<OsString> = ["remote", "connect", "--batch", "-p"].map(Into::into).into();
    words.extend([sshd.port().to_string().into(), "-i".into(), sshd.key().into()]);
    words.extend(["-o".into(), known_hosts, "--token-file".into(), token_file.into()]);
    words.extend(["--remote-port".into(), port.to_string().into()]);
    words
}
