//! The remote that stands in `openclaw.json`, and the token in somebody else's.

use super::{
    CONFIG_REMOTE, DEFAULT_PORT, Family, HostKeyPolicy, OpenClaw, Paths, Remote, RemoteGateway,
    Remotes, SshOptions, Transport,
};
use crate::{
    fingerprint::Fingerprint,
    problem::{Class, Problem},
    secret::Secret,
};

impl OpenClaw {
    /// `gateway.remote` with `transport: "ssh"` as a remote like any other; class `config` if it is
    /// not one.
    pub(crate) fn remote_definition(&self) -> Result<Remote, Problem> {
        let remote = &self.gateway.remote;
        let target = match (&remote.transport, &remote.ssh_target) {
            (Some(Transport::Ssh), Some(target)) => target.clone(),
            (Some(Transport::Ssh), None) => {
                return Err(Problem::new(
                    Class::Config,
                    "gateway.remote.transport is ssh, and gateway.remote.sshTarget is missing",
                )
                .fix("set gateway.remote.sshTarget in openclaw.json to user@host"));
            }
            (Some(Transport::Direct) | None, _) => {
                return Err(Problem::new(
                    Class::Usage,
                    "openclaw.json configures no remote over SSH",
                )
                .fix("openclaw remote connect user@host"));
            }
        };
        let strict = ("StrictHostKeyChecking".to_owned(), "yes".to_owned());
        let options = match remote.ssh_host_key_policy {
            Some(HostKeyPolicy::Strict) => vec![strict],
            Some(HostKeyPolicy::OpenSsh) | None => Vec::new(),
        };
        let ssh = SshOptions {
            identities: remote.ssh_identity.iter().map(|path| expand(path)).collect(),
            options,
            family: Family::Any,
            ..SshOptions::default()
        };
        Ok(Remote {
            ssh,
            remote_port: remote.remote_port.unwrap_or(DEFAULT_PORT),
            tls_fingerprint: remote.pin()?,
            local_port: remote.url.as_deref().and_then(local_port).unwrap_or(0),
            ..Remote::new(target)
        })
    }
}

impl RemoteGateway {
    /// The certificate of `gateway.remote.tlsFingerprint`; class `config` for one that cannot be
    /// read, which is never left out.
    pub(crate) fn pin(&self) -> Result<Option<Fingerprint>, Problem> {
        let Some(text) = self.tls_fingerprint.as_deref().filter(|text| !text.trim().is_empty())
        else {
            return Ok(None);
        };
        match Fingerprint::parse(text) {
            Some(fingerprint) => Ok(Some(fingerprint)),
            None => Err(Problem::new(
                Class::Config,
                format!("gateway.remote.tlsFingerprint is no SHA-256 of a certificate: {text:?}"),
            )
            .fix("openclaw gateway status prints it over there: sha256: and 64 hex digits")),
        }
    }
}

impl Remotes {
    /// The remote called `name`: a saved one, or the one in `openclaw.json`.
    pub(crate) fn named_or_configured(&self, paths: &Paths, name: &str) -> Result<Remote, Problem> {
        if name == CONFIG_REMOTE && !self.remotes.contains_key(name) {
            return OpenClaw::load(paths)?.remote_definition();
        }
        self.named(name).cloned()
    }
}

/// The port of a URL that names this machine: where OpenClaw's own programs expect the tunnel.
fn local_port(url: &str) -> Option<u16> {
    let url = url::Url::parse(url).ok()?;
    let is_loopback = match url.host()? {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    };
    url.port().filter(|_| is_loopback)
}

/// `~/` as the home folder.
pub(super) fn expand(path: &str) -> std::path::PathBuf {
    match (path.strip_prefix("~/"), directories::BaseDirs::new()) {
        (Some(rest), Some(folders)) => folders.home_dir().join(rest),
        _ => path.into(),
    }
}

/// The plain string at `gateway.auth.token` of an `openclaw.json` that is not ours; references to
/// secrets elsewhere count as none.
pub(crate) fn plain_token(text: &str) -> Option<Secret> {
    let file = super::syntax::parse(text).ok()?;
    let token = file.pointer("/gateway/auth/token")?.as_str()?;
    let is_plain = !token.is_empty() && !token.contains("${");
    is_plain.then(|| Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_plain_token_and_nothing_else() {
        let token = |text| plain_token(text).map(|token| token.expose().to_owned());
        assert_eq!(token("{gateway: {auth: {token: 'abc'}}}").as_deref(), Some("abc"));
        assert_eq!(token("{gateway: {auth: {token: '${TOKEN}'}}}"), None);
        assert_eq!(token("{gateway: {auth: {token: {source: 'env'}}}}"), None);
        assert_eq!(token("{gateway: {remote: {token: 'abc'}}}"), None);
        assert_eq!(token("{ broken"), None);
    }

    #[test]
    fn takes_the_local_port_from_a_loopback_url_only() {
        assert_eq!(local_port("ws://127.0.0.1:18790"), Some(18790));
        assert_eq!(local_port("ws://localhost:18790/"), Some(18790));
        assert_eq!(local_port("ws://127.evil.com:18790"), None);
        assert_eq!(local_port("ws://10.0.0.2:18790"), None);
    }
}
