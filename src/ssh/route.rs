//! Which hops lead to a target: its own part of the configuration and, one after the other, those
//! of the jump hosts on the way. Pure, given its world.
//!
//! As ssh(1) has it: the options of the command mean the target alone. A jump host goes by the
//! configuration files, and by the account and the port that the jump names; the jumps before the
//! last of a list are that last one's `ProxyJump`.

use super::{
    config::{self, Mistake, Request, Settings, World},
    hop, options,
    resolve::{Environment, Hop},
    target::Target,
};
use crate::{
    config::SshOptions,
    problem::{Class, Problem},
};

/// More hops than anybody uses; each costs a session.
const MOST_HOPS: usize = 8;

/// The hops to `target` in the order in which they are made, the target last.
pub(super) fn hops(
    target: &Target,
    options: &SshOptions,
    environment: &Environment,
    world: &dyn World,
) -> Result<Vec<Hop>, Problem> {
    let router = Router { options, environment, world };
    let mut hops = router.lead(&Asked::target(target, options), &mut Vec::new())?;
    if let Some(last) = hops.last_mut() {
        last.pin.clone_from(&options.host_key_pin);
    }
    Ok(hops)
}

/// What the configuration says of `target` alone, however one gets there.
pub(super) fn settings(
    target: &Target,
    options: &SshOptions,
    environment: &Environment,
    world: &dyn World,
) -> Result<Settings, Problem> {
    let router = Router { options, environment, world };
    router.settings(&Asked::target(target, options)).map_err(|mistakes| listed(&mistakes))
}

/// A host to resolve.
struct Asked {
    host: String,
    user: Option<String>,
    port: Option<u16>,
    keywords: Vec<(String, String)>,
}

impl Asked {
    /// The target, with the options of the command.
    fn target(target: &Target, options: &SshOptions) -> Self {
        Self {
            host: target.host.clone(),
            user: options::user(options, target),
            port: options::port(options, target),
            keywords: options::keywords(options),
        }
    }

    /// The jump host at the end of `list`; those before it lead to it.
    fn jump(list: &str) -> Result<Self, String> {
        let (before, last) = match list.rsplit_once(',') {
            Some((before, last)) => (Some(before), last),
            None => (None, list),
        };
        let target = Target::parse(last.trim())?;
        let keywords = before.map(|before| ("ProxyJump".to_owned(), before.to_owned()));
        Ok(Self {
            host: target.host,
            user: target.user,
            port: target.port,
            keywords: keywords.into_iter().collect(),
        })
    }

    fn label(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let host = if self.host.contains(':') && !port.is_empty() {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        format!("{user}{host}{port}")
    }
}

struct Router<'a> {
    options: &'a SshOptions,
    environment: &'a Environment,
    world: &'a dyn World,
}

impl Router<'_> {
    /// The hops to the host that is `asked` for; `trail` holds those that it leads on to.
    fn lead(&self, asked: &Asked, trail: &mut Vec<String>) -> Result<Vec<Hop>, Problem> {
        let label = asked.label();
        let is_circle = trail.contains(&label);
        trail.push(label);
        if is_circle {
            return Err(too_far("the jump hosts lead in a circle", trail));
        }
        if trail.len() > MOST_HOPS {
            return Err(too_far(&format!("there are more than {MOST_HOPS} hops"), trail));
        }
        let settings = self.settings(asked).map_err(|mistakes| listed(&mistakes))?;
        let jump = jump_of(&settings);
        let origin = settings.origin("ProxyJump").map(ToString::to_string).unwrap_or_default();
        let mut hop = hop::of(&asked.host, settings, self.environment)
            .map_err(|wrong| Problem::new(Class::Config, wrong.join("; ")))?;
        hop.remember = !self.options.no_remember;
        let Some(jump) = jump else { return Ok(vec![hop]) };
        let next = Asked::jump(&jump)
            .map_err(|why| Problem::new(Class::Config, format!("{origin}: ProxyJump: {why}")))?;
        let mut hops = self.lead(&next, trail)?;
        hops.push(hop);
        Ok(hops)
    }

    fn settings(&self, asked: &Asked) -> Result<Settings, Vec<Mistake>> {
        let request = Request {
            host: &asked.host,
            user: asked.user.as_deref(),
            port: asked.port,
            options: &asked.keywords,
            file: self.options.config_file.as_deref(),
        };
        config::resolve(&request, self.world)
    }
}

/// The jump hosts that lead to a host, if no command stands in for the connection.
fn jump_of(settings: &Settings) -> Option<String> {
    let is_none = |word: &&str| word.eq_ignore_ascii_case("none");
    if settings.word("ProxyCommand").is_some_and(|word| !is_none(&word)) {
        return None;
    }
    settings.word("ProxyJump").filter(|word| !is_none(word)).map(str::to_owned)
}

fn too_far(what: &str, trail: &[String]) -> Problem {
    let ways: Vec<&str> = trail.iter().map(String::as_str).collect();
    Problem::new(Class::Config, format!("{what}: {}", ways.join(", through ")))
        .fix("look at the ProxyJump lines of these hosts, or give the way with -J")
}

/// All mistakes in one problem; class `usage` if they all stand on the command line, `unreachable`
/// if they all may pass.
fn listed(mistakes: &[Mistake]) -> Problem {
    let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    if mistakes.iter().all(|mistake| mistake.is_passing) {
        return Problem::new(Class::Unreachable, texts.join("; "))
            .fix("check that this machine has a network and its name servers answer");
    }
    let is_typed = mistakes.iter().all(|mistake| mistake.file.is_none());
    let class = if is_typed { Class::Usage } else { Class::Config };
    let fix = if is_typed {
        "leave it out, or write it as in ssh_config(5)"
    } else {
        "correct the file, or take another one with -F FILE (-F none for no file)"
    };
    Problem::new(class, texts.join("; ")).fix(fix)
}
