//! The gateway's service as `gateway status` shows it.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    Context,
    gateway_neighbours::foreign_units,
    gateway_service::{installed_command, installed_port},
    installed::{Place, Whose},
    systemd::{Systemd, Unit},
};
use crate::{
    gateway::{self, Runner},
    service::{Manager, Part},
};

/// What is known of the service, and of a gateway that runs without it.
pub(super) struct Standing {
    /// The service that is installed: the user's, else the machine's for this user.
    installed: Option<Place>,
    /// How its unit is; `None` if the service manager does not say.
    unit: Option<Unit>,
    /// Whoever has the state directory.
    runner: Option<Runner>,
    /// Units of OpenClaw's own gateways.
    foreign: Vec<PathBuf>,
}

impl Standing {
    /// Looks at the files and asks the service manager, if anything is installed.
    pub(super) async fn find(context: &Context) -> Self {
        let place = |system: bool| {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
            let whose = Whose { system, user: system.then(|| user.map(|it| it.name)).flatten() };
            Place::looked_at(context, &whose, Part::Gateway).ok()
        };
        let own = place(false);
        let foreign = own.as_ref().map(|own| foreign_units(&own.file)).unwrap_or_default();
        let installed = own
            .filter(|place| place.file.exists())
            .or_else(|| place(true).filter(|place| place.file.exists()));
        let unit = match &installed {
            Some(place) if cfg!(not(target_os = "macos")) => {
                Systemd(place.manager).unit(&place.unit).await.ok()
            }
            Some(_) | None => None,
        };
        Self { installed, unit, runner: gateway::running(&context.paths), foreign }
    }

    /// The port in the unit.
    pub(super) fn port(&self) -> Option<u16> {
        self.installed.as_ref().and_then(installed_port)
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let pid = |pid: u32| if pid == 0 { String::new() } else { format!(", pid {pid}") };
        let service = self.installed.as_ref().map(|place| {
            let unit = self.unit.as_ref();
            let active = unit.map_or("not known", |unit| unit.active.as_str());
            format!("{}: {active}{}", place.unit, pid(unit.map_or(0, |unit| unit.pid)))
        });
        let of_unit = self.unit.as_ref().map_or(0, |unit| unit.pid);
        let other = self.runner.as_ref().filter(|runner| runner.pid != of_unit).map(|runner| {
            let what = if runner.is_ours { "runs in the foreground" } else { "OpenClaw's runs" };
            format!("{what}{}", pid(runner.pid))
        });
        match (service, other) {
            (Some(service), Some(other)) => format!("{service}; {other}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "none (openclaw gateway install)".to_owned(),
        }
    }

    /// OpenClaw's `service`, and what of ours it lacks.
    pub(super) fn json(&self) -> Value {
        let unit = self.unit.as_ref();
        let status = match unit.map(|unit| unit.active.as_str()) {
            Some("active" | "reloading") => "running",
            Some(_) => "stopped",
            None if self.installed.is_none() && self.runner.is_none() => "stopped",
            None => "unknown",
        };
        let pid = unit.map(|unit| unit.pid).filter(|pid| *pid != 0);
        let command = self.installed.as_ref().map(
            |place| json!({"programArguments": installed_command(place), "sourcePath": place.file}),
        );
        json!({
            "label": if cfg!(target_os = "macos") { "LaunchAgent" } else { "systemd" },
            "loaded": self.installed.is_some(),
            "loadedText": "enabled", "notLoadedText": "disabled",
            "command": command,
            "runtime": {
                "status": status, "state": unit.map(|unit| &unit.active), "pid": pid,
                "lastExitStatus": unit.map(|unit| unit.code),
            },
            "unit": self.installed.as_ref().map(|place| &place.unit),
            "scope": self.installed.as_ref().map(|place| match place.manager {
                Manager::User => "user",
                Manager::System => "system",
            }),
            "port": self.port(),
            "foreground": self.runner.as_ref().filter(|runner| Some(runner.pid) != pid).map(
                |runner| json!({"pid": runner.pid, "port": runner.port, "ours": runner.is_ours}),
            ),
        })
    }

    /// OpenClaw's `extraServices`: gateways that are not ours, which nobody here touches.
    pub(super) fn extra(&self) -> Value {
        let described = |path: &PathBuf| {
            let label = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let scope = if path.starts_with("/etc") { "system" } else { "user" };
            json!({
                "platform": "linux", "label": label, "scope": scope,
                "detail": format!("unit: {}", path.display()),
            })
        };
        self.foreign.iter().map(described).collect()
    }
}
