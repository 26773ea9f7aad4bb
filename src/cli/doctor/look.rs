//! What `doctor` looks at: files, units, ports, the configuration, the default remote.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{
    super::{
        Context,
        flaw::flaw,
        gateway_neighbours::{foreign_units, tunnel_at},
        gateway_origin::Origin,
        installed::{Place, Whose},
    },
    finding::{Finding, Mend, Severity},
    judge::{self, Entry, Kind, Strength, UnitFile},
};
use crate::{
    config::{Bind, Mode, OpenClaw, Remotes, Review, SecretInput, TailscaleMode, port_variable},
    control,
    gateway::{self, Runner, Source},
    problem::Problem,
    secret::Secret,
    service::{self, Owner, Part},
    store::Store,
};

/// Entries of a folder that are looked at; a state directory has a few dozen.
const ENTRIES: usize = 10_000;

/// Modes and owners of everything that we keep, and of what says which machines are trusted.
pub(super) fn files(context: &Context) -> Vec<Finding> {
    let paths = &context.paths;
    let mut entries = Vec::new();
    for path in [&paths.state, &paths.config] {
        entries.extend(look_at(path, Kind::Private));
    }
    below(&paths.own(), &mut entries);
    if let Some(home) = std::env::var_os("HOME").map(PathBuf::from) {
        for path in [home.join(".ssh"), home.join(".ssh/known_hosts"), home.join(".ssh/config")] {
            entries.extend(look_at(&path, Kind::Trusted));
        }
    }
    entries.iter().filter_map(judge::entry).collect()
}

fn look_at(path: &Path, kind: Kind) -> Option<Entry> {
    let known = fs::symlink_metadata(path).ok().filter(|known| !known.is_symlink())?;
    Some(Entry {
        path: path.to_owned(),
        is_folder: known.is_dir(),
        mode: known.permissions().mode() & 0o777,
        is_own: known.uid() == nix::unistd::geteuid().as_raw(),
        kind,
    })
}

/// A folder of ours and everything in it.
fn below(folder: &Path, entries: &mut Vec<Entry>) {
    let Some(entry) = look_at(folder, Kind::Private) else { return };
    let is_folder = entry.is_folder;
    entries.push(entry);
    if !is_folder {
        return;
    }
    for inner in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entries.len() >= ENTRIES {
            return;
        }
        below(&inner.path(), entries);
    }
}

/// `openclaw.json`, and whether a gateway would start with it; then what opens that.
pub(super) fn configuration(context: &Context) -> (Vec<Finding>, Option<OpenClaw>) {
    let paths = &context.paths;
    let broken = |problem: Problem, why: &str| {
        Finding::new("config", Severity::Error, problem.message)
            .why(why)
            .fix(problem.fix.unwrap_or_else(|| "openclaw config validate".to_owned()))
    };
    let unread = "the gateway does not start, and commands that read the file fail";
    let review = match Review::load(paths) {
        Ok(review) => review.unwrap_or_default(),
        Err(problem) => return (vec![broken(problem, unread)], None),
    };
    let mut findings = Vec::new();
    if review.config.gateway.mode != Some(Mode::Remote) {
        let refusals = Origin::plain(context).refusals(&review).into_iter();
        findings.extend(refusals.map(|it| broken(it.problem, "the gateway does not start")));
    }
    let doubts = review.warnings.iter().filter(|it| is_doubt(&it.path));
    findings.extend(doubts.map(|doubt| {
        Finding::new("config", Severity::Warning, doubt.to_string())
            .why("what stands there is of no use to anybody")
            .fix(format!("openclaw config set {} VALUE", doubt.path))
    }));
    findings.extend(judge::strangers(&review.strangers()));
    let config = match OpenClaw::of(review, paths) {
        Ok(config) => config,
        Err(problem) => {
            findings.push(broken(problem, unread));
            return (findings, None);
        }
    };
    let is_bound = matches!(config.gateway.bind, Some(Bind::Lan | Bind::Tailnet | Bind::Custom));
    let is_exposed = is_bound || config.gateway.tailscale.mode != TailscaleMode::Off;
    findings.extend(judge::ways_in(&config.gateway));
    if is_bound && !config.gateway.tls.enabled && config.gateway.bind != Some(Bind::Tailnet) {
        findings.push(
            Finding::new("bind", Severity::Warning, "gateway.bind is open to the network, without TLS")
                .why("tokens and everything said travel as they are over whatever is in between")
                .fix("openclaw config set gateway.bind loopback, and come in by: openclaw remote connect user@host"),
        );
    }
    let secrets = secrets(context, &config);
    findings.extend(secrets.iter().filter_map(|secret| judge::strength(secret, is_exposed)));
    (findings, Some(config))
}

/// Whether a warning at `path` is about a value that nobody can use, wherever the file is read.
fn is_doubt(path: &str) -> bool {
    ["gateway.controlUi.allowedOrigins", "gateway.remote.url", "gateway.remote.tlsFingerprint"]
        .iter()
        .any(|key| path.starts_with(key))
}

/// The database, unless a gateway has it open, which looked at it when it started.
pub(super) fn store(context: &Context) -> Option<Finding> {
    if gateway::running(&context.paths).is_some() {
        return None;
    }
    Some(match Store::look_at(&context.paths.own()) {
        Ok(flaw) => Finding::new("store", Severity::Warning, flaw?)
            .why("the next start of the gateway makes it anew, and nothing is lost")
            .fix("openclaw gateway start"),
        Err(problem) => Finding::new("store", Severity::Error, problem.message)
            .why("the gateway does not start: who is paired is in there")
            .fix(problem.fix.unwrap_or_default()),
    })
}

/// The secrets that may open this machine's gateway.
fn secrets(context: &Context, config: &OpenClaw) -> Vec<Strength> {
    let auth = &config.gateway.auth;
    let said = |place: &str, secret: &Option<SecretInput>| match secret {
        Some(SecretInput::Known(secret)) => Some((place.to_owned(), secret.clone(), None)),
        Some(SecretInput::Unresolved { .. }) | None => None,
    };
    let variable = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty())?;
        Some((name.to_owned(), Secret::new(value), None))
    };
    let file = context.paths.gateway_token();
    let own = fs::read_to_string(&file).ok();
    let own = own.map(|text| ("rs/gateway-token".to_owned(), Secret::new(text), Some(file)));
    [
        said("gateway.auth.token", &auth.token),
        said("gateway.auth.password", &auth.password),
        variable("OPENCLAW_GATEWAY_TOKEN"),
        variable("OPENCLAW_GATEWAY_PASSWORD"),
        own,
    ]
    .into_iter()
    .flatten()
    .map(|(place, secret, own_file)| Strength { place, own_file, flaw: flaw(secret.expose()) })
    .collect()
}

/// Who has the gateway's port and its state directory.
pub(super) fn gateway(context: &Context, config: &OpenClaw) -> Vec<Finding> {
    let mut findings = Vec::new();
    let runner = gateway::running(&context.paths);
    let lock = context.paths.own().join("gateway.lock");
    if runner.is_none() && fs::metadata(&lock).is_ok_and(|known| known.len() > 0) {
        findings.push(
            Finding::new(
                "lock",
                Severity::Note,
                format!("{} names a gateway that is gone", lock.display()),
            )
            .why("it was killed, or the machine went down; the next start takes over by itself")
            .fix("openclaw gateway status")
            .mend(Mend::Unlock(lock)),
        );
    }
    let said = std::env::var("OPENCLAW_GATEWAY_PORT").ok().and_then(|text| port_variable(&text));
    let port = runner.as_ref().and_then(|runner| runner.port);
    let port = port.or(said).unwrap_or_else(|| config.gateway.own_port());
    let holder = listeners::get_process_by_port(port, listeners::Protocol::TCP).ok();
    match (runner, holder) {
        (Some(Runner { is_ours: false, pid, .. }), _) => findings.push(
            Finding::new(
                "port",
                Severity::Note,
                format!("OpenClaw's own gateway runs in this profile (pid {pid})"),
            )
            .why("ours does not start beside it; commands talk to it")
            .fix("nothing, or its own: openclaw gateway stop"),
        ),
        (runner, Some(process))
            if runner.as_ref().is_none_or(|runner| runner.pid != process.pid) =>
        {
            let tunnel = tunnel_at(&context.paths, port, &process);
            findings.push(taken(port, &process, tunnel.as_deref()));
        }
        (Some(_) | None, Some(_) | None) => {}
    }
    findings
}

/// Somebody else has the gateway's port; `tunnel` names the remote that is reached through it.
fn taken(port: u16, holder: &listeners::Process, tunnel: Option<&str>) -> Finding {
    let set = format!("openclaw config set gateway.port PORT (not {port})");
    if let Some(remote) = tunnel {
        let what = format!("port {port} leads to the remote `{remote}`");
        return Finding::new("port", Severity::Note, what)
            .why("clients reach that gateway there; one on this machine needs a port of its own")
            .fix(format!("nothing, or for a gateway here: {set}"));
    }
    let what =
        format!("port {port} of the gateway is taken by {} (pid {})", holder.name, holder.pid);
    Finding::new("port", Severity::Error, what)
        .why("a gateway of this profile cannot start, and clients give that program their token")
        .fix(format!("stop that program, or: {set}"))
}

/// The units of this user: ours and those of OpenClaw's gateways.
pub(super) fn units(context: &Context) -> Vec<Finding> {
    let whose = Whose { system: false, user: None };
    let profile = context.paths.profile.iter().map(|name| format!(" --profile {name}"));
    let profile = profile.collect::<String>();
    let mut units = Vec::new();
    for part in [Part::Gateway, Part::Remotes] {
        let Ok(place) = Place::looked_at(context, &whose, part) else { continue };
        let Ok(text) = fs::read_to_string(&place.file) else { continue };
        let is_ours = service::judge(&text) != Owner::Foreign;
        let words = service::command_of(&text).filter(|_| is_ours);
        let program = words.and_then(|words| words.first().map(PathBuf::from));
        units.push(UnitFile {
            is_program_there: program.as_ref().is_some_and(|program| program.is_file()),
            program,
            path: place.file.clone(),
            install: Some(format!("openclaw{profile} {} install", part.group())),
            text,
        });
        let drop_ins = PathBuf::from(format!("{}.d", place.file.display()));
        units.extend(drop_in_files(&drop_ins));
        if part == Part::Gateway {
            units.extend(foreign_units(&place.file).into_iter().filter_map(other));
        }
    }
    units.iter().flat_map(judge::unit).collect()
}

fn drop_in_files(folder: &Path) -> Vec<UnitFile> {
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    files.filter_map(|entry| other(entry.path())).collect()
}

/// A unit of which only the text counts.
fn other(path: PathBuf) -> Option<UnitFile> {
    let text = fs::read_to_string(&path).ok()?;
    Some(UnitFile { path, text, program: None, is_program_there: false, install: None })
}

/// Whether the default remote is within reach, as its supervisor says.
pub(super) async fn remote(context: &Context) -> Vec<Finding> {
    let remotes = match Remotes::load(&context.paths) {
        Ok(remotes) => remotes,
        Err(problem) => {
            let fix = problem.fix.clone().unwrap_or_default();
            return vec![
                Finding::new("remote", Severity::Error, problem.message)
                    .why("no remote can be reached or changed")
                    .fix(fix),
            ];
        }
    };
    let Some(name) = remotes.default.filter(|name| name != "local") else { return Vec::new() };
    let statuses = control::statuses(&context.paths.endpoint(), Some(name.as_str())).await;
    let status = statuses.ok().and_then(|statuses| statuses.into_iter().next());
    let text = |pointer: &str| {
        let value = status.as_ref()?.pointer(pointer)?;
        value.as_str().map(str::to_owned)
    };
    let phase = text("/phase").unwrap_or_else(|| "down".to_owned());
    if matches!(phase.as_str(), "live" | "gateway_slow" | "connecting" | "suspect") {
        return Vec::new();
    }
    let why = text("/failure/message");
    vec![
        Finding::new(
            "remote",
            Severity::Error,
            format!("the default remote `{name}` is {}", phase.replace('_', " ")),
        )
        .why(why.unwrap_or_else(|| "commands that name no other gateway fail".to_owned()))
        .fix(text("/failure/fix").unwrap_or_else(|| "openclaw remote connect".to_owned())),
    ]
}
