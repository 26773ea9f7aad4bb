//! Where the settings of `gateway run` come from: its arguments, the environment, files; read at the
//! start, and again whenever one of them may be another.

use std::path::Path;

use super::{
    Context,
    gateway_log::{Dials, Levels},
    gateway_run::Arguments,
};
use crate::{
    config::{self, Handed, OpenClaw, Paths},
    gateway::{Flags, Fresh, Machine, Settings, Source},
    logfile,
    problem::{Class, Problem},
    secret::Secret,
};

/// Everything that settings are made of, but what may change.
pub(super) struct Origin {
    paths: Paths,
    arguments: Arguments,
    verbose: u8,
    log: Option<(logfile::Handle, Dials)>,
}

impl Origin {
    /// What was typed, and the files of this profile.
    pub(super) fn new(context: &Context, arguments: Arguments) -> Self {
        let (paths, verbose) = (context.paths.clone(), context.globals.verbose);
        Self { paths, arguments, verbose, log: None }
    }

    /// The same with a log that follows the file.
    pub(super) fn logged(self, handle: logfile::Handle, dials: Dials) -> Self {
        Self { log: Some((handle, dials)), ..self }
    }

    /// How much is logged.
    pub(super) fn levels(&self, config: &OpenClaw) -> Result<Levels, Problem> {
        Levels::decide(self.verbose, |name| std::env::var(name).ok(), &config.logging)
    }

    /// The settings, with what the files of secrets hold now.
    pub(super) fn settings(&self, config: &OpenClaw) -> Result<Settings, Problem> {
        let Arguments {
            port,
            bind,
            auth,
            tailscale,
            token,
            token_file,
            password,
            password_file,
            ..
        } = &self.arguments;
        let flags = Flags {
            port: *port,
            bind: bind.clone(),
            auth: auth.map(|word| word.mode()),
            tailscale: tailscale.map(|word| word.mode()),
            token: secret(token.as_deref(), token_file.as_deref())?,
            password: secret(password.as_deref(), password_file.as_deref())?,
        };
        let handed = |name: &str| match name {
            "OPENCLAW_GATEWAY_TOKEN" => Handed::GatewayToken.secret(),
            "OPENCLAW_GATEWAY_PASSWORD" => Handed::GatewayPassword.secret(),
            _ => None,
        };
        let variable = |name: &str| {
            let secret = || handed(name).map(|secret| secret.expose().to_owned());
            std::env::var(name).ok().or_else(secret)
        };
        let settings =
            Settings::decide(&flags, variable, config, self.paths.clone(), &Machine::look())?;
        let log = self.log.as_ref().map(|(handle, _)| handle.clone()).unwrap_or_default();
        Ok(Settings { log, ..settings })
    }
}

impl Source for Origin {
    fn read(&self) -> Result<Fresh, Problem> {
        let reading = config::reading(&self.paths)?;
        let (whole, own) = (reading.review.whole.clone(), reading.own);
        let paths = &self.paths;
        let mut files = vec![paths.config.clone(), paths.gateway_token(), paths.metrics_token()];
        files.extend(reading.review.parts.iter().cloned());
        files.extend(self.arguments.token_file.iter().cloned());
        files.extend(self.arguments.password_file.iter().cloned());
        files.extend(
            [Handed::GatewayToken, Handed::GatewayPassword].into_iter().filter_map(Handed::file),
        );
        let config = OpenClaw::of(reading.review, &self.paths)?;
        // Said with the rest of the file, before anything of it counts.
        self.levels(&config)?;
        let mode = config.gateway.reload;
        Ok(Fresh { settings: self.settings(&config)?, whole, own, mode, files })
    }

    fn adopted(&self) {
        let Some((_, dials)) = &self.log else { return };
        match OpenClaw::load(&self.paths).and_then(|config| self.levels(&config)) {
            Ok(levels) => dials.turn(&levels),
            Err(problem) => tracing::debug!(%problem, "how much is logged stays as it was"),
        }
    }
}

fn secret(text: Option<&str>, file: Option<&Path>) -> Result<Option<Secret>, Problem> {
    let Some(file) = file else { return Ok(text.map(Secret::new)) };
    let text = std::fs::read_to_string(file).map_err(|error| {
        Problem::new(Class::Usage, format!("cannot read {}: {error}", file.display()))
            .fix(format!("ls -l {}", file.display()))
    })?;
    Ok(Some(Secret::new(text.trim())))
}
