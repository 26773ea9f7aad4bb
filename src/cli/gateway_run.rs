//! `openclaw gateway run`.

use std::{
    convert::Infallible,
    io::IsTerminal,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Context,
    flaw::{Flaw, flaw},
    gateway_log,
    gateway_neighbours::beside_a_tunnel,
    gateway_origin::Origin,
    output::Output,
};
use crate::{
    config::{AuthMode, OpenClaw, TailscaleMode},
    gateway::{self, FirstReading, Running, Settings},
    notice::{self, Message},
    problem::Problem,
};

/// What systemd's units take as "do not start this again".
const SERVICE_CONFIG_ERROR: u8 = 78;
/// Threads that serve clients. Of two on two processors one is preempted now and then, with what it
/// holds, by the programs that share the host.
const THREADS: usize = 1;
/// Clients that are served between two looks at who else has something to say, or has just come: with
/// many, whoever asked early waits as long as whoever asked last.
const TURNS: u32 = 4;
/// How long the runtime waits for what still blocks once the gateway has stopped.
const RUNTIME_END: Duration = Duration::from_millis(500);

/// Arguments of `gateway run`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Arguments {
    /// Listen on this port (also OPENCLAW_GATEWAY_PORT, gateway.port; 18789)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
    /// Listen here: loopback, lan, tailnet, auto, custom (gateway.customBindHost) or an IP address
    #[arg(long, value_name = "MODE|ADDRESS")]
    pub(super) bind: Option<String>,
    /// What clients must know: a token, a password, nothing (on loopback only), or whom a trusted
    /// proxy names
    #[arg(long, value_enum, value_name = "MODE")]
    pub(super) auth: Option<AuthWord>,
    /// The token that clients must know; other users can read it here, --token-file is better
    #[arg(long, conflicts_with = "token_file")]
    pub(super) token: Option<String>,
    /// Read the token from this file
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// The password that clients must know; --password-file is better
    #[arg(long, conflicts_with = "password_file")]
    pub(super) password: Option<String>,
    /// Read the password from this file
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// Have Tailscale publish it: for the tailnet, or for everybody (with a password only)
    #[arg(long, value_enum, value_name = "MODE")]
    pub(super) tailscale: Option<TailscaleWord>,
    /// Accepted for OpenClaw's sake: this gateway starts without a configuration
    #[arg(long, hide = true)]
    allow_unconfigured: bool,
}

/// `--auth`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum AuthWord {
    None,
    Token,
    Password,
    TrustedProxy,
}

/// `--tailscale`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum TailscaleWord {
    Off,
    Serve,
    Funnel,
}

impl AuthWord {
    /// The mode that it means.
    pub(super) fn mode(self) -> AuthMode {
        match self {
            Self::None => AuthMode::None,
            Self::Token => AuthMode::Token,
            Self::Password => AuthMode::Password,
            Self::TrustedProxy => AuthMode::TrustedProxy,
        }
    }
}

impl TailscaleWord {
    /// The mode that it means.
    pub(super) fn mode(self) -> TailscaleMode {
        match self {
            Self::Off => TailscaleMode::Off,
            Self::Serve => TailscaleMode::Serve,
            Self::Funnel => TailscaleMode::Funnel,
        }
    }
}

/// Runs `gateway run`.
pub(super) fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let origin = Origin::new(context, arguments);
    let outcome = origin.load().and_then(|config| {
        warn(context, origin.arguments(), &config);
        let settings = origin.settings(&config)?;
        if settings.shuts_newcomers_out() {
            context.output.note(
                "warning: with no secret only paired devices come in, and \
                 gateway.nodes.pairing.autoApproveLocal is false: nobody can let a first one in",
            );
        }
        Ok((settings, origin.levels(&config)?, origin))
    });
    let outcome = outcome.map_err(anyhow::Error::from).and_then(|(settings, levels, origin)| {
        // Ends last: what it still holds is written before the process goes.
        let (log, _writer, dials) = gateway_log::begin(context, &levels);
        let source = Arc::new(origin.logged(log.clone(), dials));
        let settings = Settings { log, ..settings };
        let port = settings.port;
        crate::descriptors::raise_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .event_interval(TURNS)
            .global_queue_interval(TURNS)
            .enable_all()
            .build()
            .context("starting the runtime")?;
        let outcome = runtime.block_on(serve(&context.output, settings, source));
        runtime.shutdown_timeout(RUNTIME_END);
        outcome.map_err(|error| beside_a_tunnel(&context.paths, port, error))
    });
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // What the system denied for now has the code of its class, and is tried again.
        Err(error) if is_service() && is_configuration(&error) => {
            Ok(context.output.failure_with(&error, SERVICE_CONFIG_ERROR))
        }
        Err(error) => Err(error),
    }
}

/// Says what is unwise or ignored.
fn warn(context: &Context, arguments: &Arguments, config: &OpenClaw) {
    for (flag, is_given) in
        [("--token", arguments.token.is_some()), ("--password", arguments.password.is_some())]
    {
        if is_given {
            context.output.note(format!(
                "warning: other users of this machine can read {flag}; {flag}-file FILE hides it"
            ));
        }
    }
    if config.gateway.has_roles {
        context.output.note(
            "warning: gateway.roles is not followed here: nobody who comes in is bound by a role",
        );
    }
    if config.gateway.auth.trusted_proxy.as_ref().is_some_and(|rules| rules.auto_approve) {
        context.output.note(
            "warning: gateway.auth.trustedProxy.deviceAutoApprove is set, and devices ask all the \
             same here: openclaw devices list",
        );
    }
}

/// Runs the gateway until a signal: the first asks politely, the second ends it now. A hangup reads
/// the configuration again, unless it is the terminal that is gone.
async fn serve(output: &Output, settings: Settings, source: Arc<Origin>) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let is_watched = std::io::stdin().is_terminal();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let (token_file, logs) = (settings.paths.gateway_token(), settings.paths.logs());
    let weakness = settings.guard.secret().and_then(|secret| flaw(secret.expose()));
    let first = FirstReading::of(source)?;
    // A start may wait for Tailscale.
    let mut running = tokio::select! {
        running = gateway::start(settings) => running?,
        () = either(&mut terminate, &mut interrupt) => return Ok(()),
    };
    running.follow(first).await;
    if running.made_token() {
        output.note(format!("made a token for this gateway: {}", token_file.display()));
    }
    warn_of_network(output, &running, weakness);
    announce(output, &running, &logs)?;
    let status =
        running.addresses().first().map(|first| format!("ready on {}", url(&running, first)));
    tell(&[Message::Ready, Message::Status(status.as_deref().unwrap_or("ready"))]);
    let until_hung_up = async {
        loop {
            hangup.recv().await;
            if is_watched && !std::io::stdin().is_terminal() {
                return;
            }
            running.reload().await;
        }
    };
    tokio::select! {
        () = either(&mut terminate, &mut interrupt) => {}
        () = until_hung_up => {}
        never = beat() => match never {},
    }
    tell(&[Message::Stopping]);
    output.note("stopping; once more to stop now");
    tokio::select! {
        () = running.stop() => {}
        () = either(&mut terminate, &mut interrupt) => {}
    }
    Ok(())
}

/// Tells the service manager, if there is one; what it does not take now is lost.
fn tell(messages: &[Message<'_>]) {
    if let Err(error) = notice::send(messages) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// Shows the service manager signs of life for as long as tasks are run.
async fn beat() -> Infallible {
    let Some(limit) = notice::watchdog() else { return std::future::pending().await };
    loop {
        tokio::time::sleep(limit / 3).await;
        tell(&[Message::Watchdog]);
    }
}

fn url(running: &Running, address: &SocketAddr) -> String {
    let scheme = if running.fingerprint().is_some() { "wss" } else { "ws" };
    format!("{scheme}://{}", dialled(*address))
}

/// Says what listening beyond this machine means, and what is unwise about it.
fn warn_of_network(output: &Output, running: &Running, weakness: Option<Flaw>) {
    let beyond = |address: &&SocketAddr| !address.ip().is_loopback();
    let Some(address) = running.addresses().iter().find(beyond) else { return };
    output.note(format!(
        "listening on {address} too: who comes from elsewhere needs the gateway's secret, and once \
         somebody who lets their device in (openclaw devices list); or stay on loopback and come by: \
         openclaw remote connect user@host"
    ));
    if running.fingerprint().is_none() && !is_tailnet(address.ip()) {
        output.note(
            "warning: without TLS everything said, the secret included, can be read on the way: \
             openclaw config set gateway.tls.enabled true",
        );
    }
    if let Some(weakness) = weakness {
        output.note(format!(
            "warning: the gateway's secret {weakness}, and whoever reaches {address} may guess it: \
             openclaw doctor"
        ));
    }
}

/// Whether it is an address of Tailscale's, which encrypts: 100.64.0.0/10 or its IPv6 range.
fn is_tailnet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            first == 100 && second & 0xc0 == 64
        }
        IpAddr::V6(ip) => ip.segments().starts_with(&[0xfd7a, 0x115c, 0xa1e0]),
    }
}

fn announce(output: &Output, running: &Running, logs: &Path) -> anyhow::Result<()> {
    let Some(first) = running.addresses().first() else { return Ok(()) };
    let url = url(running, first);
    if output.is_json() {
        let pid = std::process::id();
        return output.value(&serde_json::json!({
            "ok": true, "url": url, "port": first.port(), "pid": pid,
            "log": gateway_log::newest(logs),
            "tlsFingerprint": running.fingerprint(),
            "publishedUrl": running.published(),
        }));
    }
    output.line(format!("gateway ready on {url}"));
    if let Some(published) = running.published() {
        output.line(format!("Tailscale publishes it at {published}"));
    }
    if let Some(fingerprint) = running.fingerprint() {
        output.line(format!("TLS certificate {fingerprint}"));
    }
    Ok(())
}

/// The address that a client on this machine dials to reach a listener.
fn dialled(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Whether a service manager started us.
fn is_service() -> bool {
    std::env::var_os("INVOCATION_ID").is_some_and(|id| !id.is_empty())
}

fn is_configuration(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Problem>().is_some_and(Problem::is_lasting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tailscales_own_addresses_encrypt_by_themselves() {
        for (address, expected) in [
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("100.128.0.1", false),
            ("100.63.0.1", false),
            ("0.0.0.0", false),
            ("fd7a:115c:a1e0::1", true),
            ("fd00::1", false),
        ] {
            assert_eq!(is_tailnet(address.parse().unwrap()), expected, "{address}");
        }
    }
}
