//! Who else is a gateway here: in the foreground, as OpenClaw's own service, or on the port.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
};

use super::{
    gateway_service::Verb,
    installed::{Place, unit_in},
};
use crate::{
    config::{Paths, Remotes},
    gateway::{self, Runner},
    problem::{Class, Problem},
    service::Manager,
};

/// Refuses where the gateway would find its state directory or its port taken; `own` is the process
/// of our unit.
pub(super) fn refuse_beside_another(place: &Place, port: u16, own: u32) -> Result<(), Problem> {
    if let Some(runner) = gateway::running(&place.paths).filter(|runner| runner.pid != own) {
        let what = if runner.is_ours { "a gateway" } else { "an OpenClaw gateway" };
        return Err(Problem::new(
            Class::Config,
            format!("{what} of this profile runs already: {}", named(runner.pid)),
        )
        .fix(format!("end it first: {}; or use another --profile", ending(runner.pid))));
    }
    let command = place.paths.command();
    match listeners::get_process_by_port(port, listeners::Protocol::TCP) {
        Ok(process) if process.pid == own => Ok(()),
        Ok(process) => {
            if let Some(remote) = tunnel_at(&place.paths, port, &process) {
                return Err(leads_away(port, &remote, &format!("{command} gateway install")));
            }
            let named = named(process.pid);
            let what = format!("port {port} is taken by {} ({named})", process.name);
            Err(Problem::new(Class::PortInUse, what)
                .fix(format!("{command} gateway install --port PORT, or: {}", ending(process.pid))))
        }
        Err(_) if own == 0 && TcpListener::bind(("127.0.0.1", port)).is_err() => Err(Problem::new(
            Class::PortInUse,
            format!("port {port} is taken by another user's program"),
        )
        .fix(format!("{command} gateway install --port PORT"))),
        Err(_) => Ok(()),
    }
}

/// The remote whose local port this is, if the program that has it is one of ours.
pub(super) fn tunnel_at(paths: &Paths, port: u16, holder: &listeners::Process) -> Option<String> {
    let own = std::env::current_exe().ok()?;
    if own.file_name()?.to_str()? != holder.name {
        return None;
    }
    let remotes = Remotes::load(paths).ok()?.remotes;
    remotes.into_iter().find(|(_, remote)| remote.listens_on(port)).map(|(name, _)| name)
}

/// The port is that of a tunnel, which is left alone: clients reach that gateway there.
fn leads_away(port: u16, remote: &str, command: &str) -> Problem {
    let what = format!(
        "port {port} leads to the remote `{remote}`; a gateway on this machine needs another one"
    );
    Problem::new(Class::PortInUse, what).fix(format!("{command} --port PORT"))
}

/// Why `gateway run` did not start on `port`, with the remote if that is its tunnel's.
pub(super) fn beside_a_tunnel(paths: &Paths, port: u16, error: anyhow::Error) -> anyhow::Error {
    let problem = error.downcast_ref::<Problem>();
    if problem.is_none_or(|problem| problem.class != Class::PortInUse) {
        return error;
    }
    let holder = listeners::get_process_by_port(port, listeners::Protocol::TCP).ok();
    match holder.and_then(|holder| tunnel_at(paths, port, &holder)) {
        Some(remote) => {
            leads_away(port, &remote, &format!("{} gateway run", paths.command())).into()
        }
        None => error,
    }
}

/// A process by its unit, if it belongs to one.
fn named(pid: u32) -> String {
    match unit_of(pid) {
        Some((unit, _)) => format!("{unit}, pid {pid}"),
        None => format!("pid {pid}"),
    }
}

/// What ends a process, by its unit if it belongs to one.
fn ending(pid: u32) -> String {
    match unit_of(pid) {
        Some((unit, Manager::User)) => format!("systemctl --user disable --now {unit}"),
        Some((unit, Manager::System)) => format!("sudo systemctl disable --now {unit}"),
        None => format!("kill {pid}"),
    }
}

fn unit_of(pid: u32) -> Option<(String, Manager)> {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    unit_in(&cgroup).map(|(unit, manager)| (unit.to_owned(), manager))
}

pub(super) fn in_the_foreground(runner: &Runner, verb: Verb) -> Problem {
    let Runner { pid, port, is_ours } = *runner;
    let port = port.map(|port| format!(", port {port}")).unwrap_or_default();
    if !is_ours {
        let message = format!(
            "an OpenClaw gateway has this profile ({}{port}); it is not ours to {}",
            named(pid),
            verb.word()
        );
        return Problem::new(Class::Config, message)
            .fix("its own `openclaw gateway stop`, or another --profile");
    }
    let message = format!(
        "the gateway of this profile runs in the foreground ({}{port}), and not as our service",
        named(pid)
    );
    let end = ending(pid);
    Problem::new(Class::Config, message).fix(match verb {
        Verb::Stop => end,
        Verb::Start => format!("leave it at that, or end it first: {end}"),
        Verb::Restart => format!("end it and start it again where it runs: {end}"),
    })
}

/// Other gateways' units in the folders of a user's and of the machine's units: OpenClaw's own.
pub(super) fn foreign_units(own: &Path) -> Vec<PathBuf> {
    let folders = [own.parent().map(Path::to_owned), Some("/etc/systemd/system".into())];
    let files = folders.into_iter().flatten().filter_map(|folder| std::fs::read_dir(folder).ok());
    let mut found: Vec<PathBuf> = files
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| is_foreign(&name.to_string_lossy())))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Whether OpenClaw calls its own gateways' units so.
fn is_foreign(name: &str) -> bool {
    let stem = name.strip_suffix(".service").unwrap_or_default();
    stem == "openclaw" || stem == "openclaw-gateway" || stem.starts_with("openclaw-gateway-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_openclaws_own_units_count_as_foreign_gateways() {
        for name in
            ["openclaw.service", "openclaw-gateway.service", "openclaw-gateway-work.service"]
        {
            assert!(is_foreign(name), "{name}");
        }
        for name in
            ["openclaw-rs-gateway.service", "openclaw-remote.service", "openclaw-node.service"]
        {
            assert!(!is_foreign(name), "{name}");
        }
    }

    #[test]
    fn a_gateway_in_the_foreground_is_named_with_what_ends_it() {
        let runner = Runner { pid: 4_000_000, port: Some(7), is_ours: true };
        let problem = in_the_foreground(&runner, Verb::Stop);
        assert!(problem.message.contains("in the foreground (pid 4000000, port 7)"), "{problem}");
        assert_eq!(problem.fix.as_deref(), Some("kill 4000000"));
        let foreign = in_the_foreground(&Runner { is_ours: false, ..runner }, Verb::Restart);
        assert!(foreign.message.contains("not ours to restart"), "{foreign}");
        assert!(!foreign.fix.unwrap().contains("kill"));
    }
}
