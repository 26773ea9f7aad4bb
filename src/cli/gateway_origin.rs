//! Where the settings of `gateway run` come from: its arguments, the environment, files; read at the
//! start, and again whenever one of them may be another.

use std::{io, path::Path};

use super::{
    Context,
    gateway_log::{Dials, Levels},
    gateway_run::Arguments,
    installed::{Place, Whose},
};
use crate::{
    config::{self, Handed, Issue, OpenClaw, Paths, Review},
    gateway::{Flags, Fresh, Machine, Refusal, Settings, Source, as_problem},
    logfile,
    problem::{Class, Problem},
    secret::Secret,
    service::Part,
};

/// Everything that settings are made of, but what may change.
pub(super) struct Origin {
    paths: Paths,
    arguments: Arguments,
    verbose: u8,
    /// What the unit of our own service hands it, where it is asked how that would start.
    unit: Vec<Handed>,
    log: Option<(logfile::Handle, Dials)>,
}

impl Origin {
    /// What was typed, and the files of this profile.
    pub(super) fn new(context: &Context, arguments: Arguments) -> Self {
        let (paths, verbose) = (context.paths.clone(), context.globals.verbose);
        Self { paths, arguments, verbose, unit: Vec::new(), log: None }
    }

    /// The same with a log that follows the file.
    pub(super) fn logged(self, handle: logfile::Handle, dials: Dials) -> Self {
        Self { log: Some((handle, dials)), ..self }
    }

    /// A gateway that would be started without any flag: from here, or as the service that is
    /// installed for this user, with the secrets that its unit hands over.
    pub(super) fn plain(context: &Context) -> Self {
        let whose = Whose { system: false, user: None };
        let unit = Place::looked_at(context, &whose, Part::Gateway).ok();
        let unit = unit.and_then(|place| std::fs::read_to_string(place.file).ok());
        let is_handed =
            |kind: &Handed| unit.as_ref().is_some_and(|unit| unit.contains(kind.name()));
        let kinds = [Handed::GatewayToken, Handed::GatewayPassword];
        let unit = kinds.into_iter().filter(is_handed).collect();
        Self { unit, ..Self::new(context, Arguments::default()) }
    }

    /// What was typed.
    pub(super) fn arguments(&self) -> &Arguments {
        &self.arguments
    }

    /// The configuration; where the file has issues, with everything else that keeps a gateway from
    /// starting. Class `config`.
    pub(super) fn load(&self) -> Result<OpenClaw, Problem> {
        let Some(mut review) = Review::load(&self.paths)? else {
            return OpenClaw::load(&self.paths);
        };
        if !review.issues.is_empty() {
            let more = self.refusals(&review);
            review.issues.extend(more.iter().map(Refusal::issue));
        }
        OpenClaw::of(review, &self.paths)
    }

    /// How much is logged.
    pub(super) fn levels(&self, config: &OpenClaw) -> Result<Levels, Problem> {
        Levels::decide(self.verbose, |name| std::env::var(name).ok(), &config.logging)
    }

    /// The settings, with what the files of secrets hold now.
    pub(super) fn settings(&self, config: &OpenClaw) -> Result<Settings, Problem> {
        let settings = self.judge(config).map_err(as_problem)?;
        let log = self.log.as_ref().map(|(handle, _)| handle.clone()).unwrap_or_default();
        Ok(Settings { log, ..settings })
    }

    fn judge(&self, config: &OpenClaw) -> Result<Settings, Vec<Refusal>> {
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
            token: secret(token.as_deref(), token_file.as_deref()).map_err(typed)?,
            password: secret(password.as_deref(), password_file.as_deref()).map_err(typed)?,
        };
        let handed = |name: &str| {
            let kind = match name {
                "OPENCLAW_GATEWAY_TOKEN" => Handed::GatewayToken,
                "OPENCLAW_GATEWAY_PASSWORD" => Handed::GatewayPassword,
                _ => return None,
            };
            // What the unit's file holds is not looked at: that there is something decides.
            let is_there = self.unit.contains(&kind).then(|| Secret::new("handed over"));
            kind.secret().or(is_there)
        };
        let variable = |name: &str| {
            let secret = || handed(name).map(|secret| secret.expose().to_owned());
            std::env::var(name).ok().or_else(secret)
        };
        Settings::judge(&flags, variable, config, self.paths.clone(), &Machine::look())
    }
}

/// A problem of the command line.
fn typed(problem: Problem) -> Vec<Refusal> {
    vec![Refusal { path: "", problem }]
}

/// Whether an issue of the file explains the refusal: what could not be read counts as absent.
fn is_explained(refusal: &Refusal, issues: &[Issue]) -> bool {
    let is_at = |path: &str| issues.iter().any(|issue| issue.path.starts_with(path));
    match refusal.path {
        "" => false,
        "gateway.bind" | "gateway.tailscale.mode" => is_at("gateway.auth") || is_at(refusal.path),
        path => is_at(path),
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

    fn refusals(&self, review: &Review) -> Vec<Refusal> {
        // Of a text that cannot be read nothing is known.
        if !review.whole.is_object() && !review.issues.is_empty() {
            return Vec::new();
        }
        let mut refusals = match self.judge(&review.config) {
            Ok(settings) => settings.missing().into_iter().collect(),
            Err(refusals) => refusals,
        };
        let levels = self.levels(&review.config);
        refusals.extend(levels.err().map(|problem| Refusal { path: "", problem }));
        refusals.retain(|refusal| !is_explained(refusal, &review.issues));
        refusals
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
        let problem =
            Problem::new(Class::Usage, format!("cannot read {}: {error}", file.display()))
                .fix(format!("ls -l {}", file.display()));
        // A name that leads nowhere is a wrong one.
        if error.kind() == io::ErrorKind::NotFound { problem } else { problem.denied(&error) }
    })?;
    Ok(Some(Secret::new(text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_system_denied_may_be_readable_later_and_a_wrong_name_stays_wrong() {
        let home = tempfile::tempdir().unwrap();
        assert!(!secret(None, Some(home.path())).unwrap_err().is_lasting(), "a folder");
        assert!(secret(None, Some(&home.path().join("none"))).unwrap_err().is_lasting());
        let text = home.path().join("text");
        std::fs::write(&text, [0xff]).unwrap();
        assert!(secret(None, Some(&text)).unwrap_err().is_lasting());
    }
}
