//! Completes short host names by `CanonicalizeHostname` and its relatives.

use super::{
    pattern,
    reader::Reader,
    resolve::origin,
    settings::{Mistake, Said},
};
use crate::config::Family;

/// `AddressFamily` by what was said so far.
pub(super) fn family(reader: &Reader<'_>) -> Family {
    match reader.word("AddressFamily") {
        Some("inet") => Family::V4,
        Some("inet6") => Family::V6,
        Some(_) | None => Family::Any,
    }
}

/// The host that `name` stands for.
pub(super) fn complete(reader: &Reader<'_>, name: &str) -> Result<String, Mistake> {
    let wanted = reader.word("CanonicalizeHostname").unwrap_or("no");
    if wanted == "no" || (!is_direct(reader) && wanted != "always") {
        return Ok(name.to_owned());
    }
    if name.ends_with('.') {
        return found(reader, name).map_or_else(|| not_found(reader, name), Ok);
    }
    let most = reader.word("CanonicalizeMaxDots").and_then(|dots| dots.parse().ok()).unwrap_or(1);
    if name.matches('.').count() > most {
        return Ok(aliased(reader, name));
    }
    let domains = words(reader, "CanonicalDomains");
    let domains = domains.iter().take_while(|domain| !domain.eq_ignore_ascii_case("none"));
    for domain in domains {
        if let Some(full) = found(reader, &format!("{name}.{domain}.")) {
            return Ok(full);
        }
    }
    not_found(reader, name)
}

/// Whether nobody else looks the name up for us.
fn is_direct(reader: &Reader<'_>) -> bool {
    ["ProxyCommand", "ProxyJump"]
        .iter()
        .all(|way| reader.word(way).is_none_or(|word| word.eq_ignore_ascii_case("none")))
}

fn words(reader: &Reader<'_>, keyword: &str) -> Vec<String> {
    let said = reader.values.get(keyword).and_then(|said| said.first());
    said.map(|Said { words, .. }| words.clone()).unwrap_or_default()
}

/// The name without its last dot, or the alias it follows; `None` if nobody knows it.
fn found(reader: &Reader<'_>, full: &str) -> Option<String> {
    let answer = reader.world.look_up(full, family(reader))?;
    let name = full.strip_suffix('.').unwrap_or(full);
    Some(followed(reader, name, answer.canonical.as_deref()))
}

/// The name as the system's own rules find it, only to follow aliases.
fn aliased(reader: &Reader<'_>, name: &str) -> String {
    if rules(reader).is_empty() {
        return name.to_owned();
    }
    let answer = reader.world.look_up(name, family(reader)).unwrap_or_default();
    followed(reader, name, answer.canonical.as_deref())
}

fn rules(reader: &Reader<'_>) -> Vec<(String, String)> {
    words(reader, "CanonicalizePermittedCNAMEs")
        .iter()
        .filter_map(|rule| rule.split_once(':'))
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .collect()
}

/// `alias` if a rule permits it, else `name`.
fn followed(reader: &Reader<'_>, name: &str, alias: Option<&str>) -> String {
    let is_name = |alias: &&str| {
        alias.starts_with(|c: char| c.is_ascii_alphanumeric())
            && alias.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    let Some(alias) = alias.filter(is_name) else { return name.to_owned() };
    let permitted = rules(reader).iter().any(|(from, to)| {
        pattern::includes(&from.to_lowercase(), name)
            && pattern::includes(&to.to_lowercase(), alias)
    });
    if permitted { alias.strip_suffix('.').unwrap_or(alias).to_owned() } else { name.to_owned() }
}

fn not_found(reader: &Reader<'_>, name: &str) -> Result<String, Mistake> {
    if reader.word("CanonicalizeFallbackLocal") != Some("no") {
        return Ok(aliased(reader, name));
    }
    let origin = origin(reader, "CanonicalizeFallbackLocal");
    let what = format!("no domain of CanonicalDomains knows `{}`", name.escape_debug());
    Err(Mistake::passing(&origin, "CanonicalizeFallbackLocal", what))
}
