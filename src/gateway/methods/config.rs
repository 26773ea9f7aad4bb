//! `config.*`: what stands in `openclaw.json`, what may, and changes of it.

use std::sync::{Arc, OnceLock};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde_json::{Value, json};

use crate::{
    config::{self, Current, Edit, Issue, Paths, Reading, Review, Run, Unchanged, schema::Place},
    gateway::{
        VERSION,
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome},
        reload::{Source, Why, source, take_up},
        settings::Refusal,
    },
    problem::{Class, Problem},
    protocol::{
        ConfigApply, ConfigApplyParams, ConfigGet, ConfigGetParams, ConfigIssue, ConfigPatch,
        ConfigPatchParams, ConfigSchema, ConfigSchemaLookup, ConfigSchemaLookupParams,
        ConfigSchemaReply, ConfigSet, ConfigSetParams, ConfigSnapshot, ConfigWritten, ErrorShape,
        Hint, Reloaded, SchemaChild, SchemaPlace, Scope, Sentinel, SentinelPayload, SentinelStats,
        code,
    },
};

/// The largest configuration that is taken, bytes.
const LARGEST: usize = 1024 * 1024;
/// What a change without a revision is answered.
const BASE_WANTED: &str = "config base hash required; re-run config.get and retry";
/// How long to wait where the disk did not take a file, milliseconds.
const DISK_RETRY_MS: u64 = 5_000;

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<ConfigGet, _>(snapshot);
    dispatcher.on_change::<ConfigSet, _>(set);
    dispatcher.on_change::<ConfigPatch, _>(patch);
    dispatcher.on_change::<ConfigApply, _>(apply);
    dispatcher.on::<ConfigSchema, _>(schema);
    dispatcher.on::<ConfigSchemaLookup, _>(lookup);
}

async fn snapshot(call: Call, _params: ConfigGetParams) -> Outcome<ConfigSnapshot> {
    let is_admin = call.caller.holds(Scope::Admin);
    let paths = call.shared.paths.clone();
    let source = source(&call.shared).await;
    let applied = call.shared.applied();
    aside(move || {
        let mut reading = config::reading(&paths).map_err(refused)?;
        let more = refusals(source.as_deref(), &reading.review);
        reading.review.issues.extend(more);
        let shown = shown(&paths, reading, is_admin)?;
        Ok(ConfigSnapshot { applied_config_hash: applied, ..shown })
    })
    .await
}

async fn set(call: Call, params: ConfigSetParams) -> Outcome<ConfigWritten> {
    let new = parsed(&params.raw, "config.set")?;
    let decide = move |paths: &Paths, current: &Current| -> Outcome<Vec<Edit>> {
        check_base(paths, &current.own, params.base_hash.as_deref())?;
        Ok(config::replaced(current, &new))
    };
    written(&call, decide, keeps_agents).await
}

/// What a client sends whole may come from a form that does not know of agents.
fn keeps_agents(before: &Value, after: &Value) -> Result<(), Problem> {
    let lost = config::lost_agents(before, after);
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!(
        "config.set would remove existing agent entries: {}; config.patch takes out what it names",
        lost.join(", ")
    );
    Err(Problem::new(Class::Config, message))
}

async fn patch(call: Call, params: ConfigPatchParams) -> Outcome<ConfigWritten> {
    if params.replace_paths.len() > 256 || params.replace_paths.iter().any(String::is_empty) {
        let message = "invalid config.patch params: replacePaths wants 1 to 256 paths";
        return Err(ErrorShape::invalid(message).into());
    }
    let patch = parsed(&params.raw, "config.patch")?;
    let decide = move |paths: &Paths, current: &Current| -> Outcome<Vec<Edit>> {
        let own = &current.own;
        let base = params.base_hash.as_deref();
        if base.is_some() {
            check_base(paths, own, base)?;
        }
        let edits = config::patched(current, &patch, &params.replace_paths);
        let edits = edits.map_err(ErrorShape::invalid)?;
        let is_anew = !paths.config.exists();
        if base.is_none() && !is_anew && !config::is_of_preferences(&patch, &edits) {
            return Err(without_base(own, &patch, &edits));
        }
        Ok(edits)
    };
    written(&call, decide, |_, _| Ok(())).await
}

async fn apply(call: Call, params: ConfigApplyParams) -> Outcome<ConfigWritten> {
    let new = parsed(&params.raw, "config.apply")?;
    let base = params.base_hash;
    let decide = move |paths: &Paths, current: &Current| -> Outcome<Vec<Edit>> {
        check_base(paths, &current.own, base.as_deref())?;
        Ok(config::replaced(current, &new))
    };
    let mut outcome = written(&call, decide, |_, _| Ok(())).await?;
    let stats = SentinelStats {
        mode: "config.apply".to_owned(),
        root: outcome.path.clone(),
        requires_restart: !outcome.reload.needs_restart.is_empty(),
    };
    outcome.sentinel = Some(Sentinel {
        persisted: false,
        payload: SentinelPayload {
            kind: "config-apply".to_owned(),
            status: "ok".to_owned(),
            ts: now_ms(),
            message: params.note,
            doctor_hint: "openclaw doctor looks at what stands there now".to_owned(),
            stats,
        },
    });
    Ok(outcome)
}

async fn schema(_call: Call, _params: ConfigGetParams) -> Outcome<ConfigSchemaReply> {
    let hints = config::KEYS.iter().map(|key| (key.path.to_owned(), hint(key)));
    Ok(ConfigSchemaReply {
        schema: config::schema::whole(),
        ui_hints: hints.collect(),
        version: VERSION.to_owned(),
        generated_at: jiff::Timestamp::now().to_string(),
    })
}

async fn lookup(_call: Call, params: ConfigSchemaLookupParams) -> Outcome<SchemaPlace> {
    let path = params.path.trim();
    if path.is_empty() {
        let message = "invalid config.schema.lookup params: path wants at least a dot";
        return Err(ErrorShape::invalid(message).into());
    }
    let Place { path, schema, children } = config::schema::place(path)
        .ok_or_else(|| ErrorShape::invalid("config schema path not found"))?;
    let child = |(key, schema): (String, Value)| {
        let path = if path == "." { key.clone() } else { format!("{path}.{key}") };
        let hint = hint_at(&path);
        SchemaChild {
            kind: schema.get("type").and_then(Value::as_str).map(str::to_owned),
            required: false,
            has_children: schema.get("properties").is_some(),
            reload_kind: config::reload_of(&path).word().to_owned(),
            hint_path: hint.is_some().then(|| path.clone()),
            hint,
            key,
            path,
        }
    };
    let children = children.into_iter().map(child).collect();
    let hint = hint_at(&path);
    let inner = if path == "." { "" } else { &path };
    Ok(SchemaPlace {
        reload_kind: config::reload_of(inner).word().to_owned(),
        hint_path: hint.is_some().then(|| path.clone()),
        hint,
        schema,
        children,
        path,
    })
}

fn hint_at(path: &str) -> Option<Hint> {
    config::KEYS.iter().find(|key| key.path == path).map(hint)
}

fn hint(key: &config::Key) -> Hint {
    Hint { help: key.help.to_owned(), sensitive: key.form == config::Form::Secret }
}

/// What a client sent as a configuration; an object.
fn parsed(raw: &str, method: &str) -> Outcome<Value> {
    if raw.is_empty() || raw.len() > LARGEST {
        let message = format!("invalid {method} params: raw wants 1 to {LARGEST} bytes");
        return Err(ErrorShape::invalid(message).into());
    }
    match config::parse_json5(raw) {
        Ok(value) if value.is_object() => Ok(value),
        Ok(_) => Err(ErrorShape::invalid(format!("{method} raw must be an object")).into()),
        Err(error) => Err(ErrorShape::invalid(format!("not valid JSON5: {error}")).into()),
    }
}

/// Changes the file by what `decide` makes of it, or refuses to, as `accept` may once it is known
/// what comes of it.
async fn written(
    call: &Call,
    decide: impl FnOnce(&Paths, &Current) -> Outcome<Vec<Edit>> + Send + 'static,
    accept: fn(&Value, &Value) -> Result<(), Problem>,
) -> Outcome<ConfigWritten> {
    let paths = call.shared.paths.clone();
    let caller = Arc::clone(&call.caller);
    let source = source(&call.shared).await;
    let mut written = aside(move || {
        let mut refusal: Option<Box<ErrorShape>> = None;
        let judge = |review: &Review| refusals(source.as_deref(), review);
        let decide = |current: &Current| {
            decide(&paths, current).or_else(|error| {
                refusal = Some(error);
                Ok(Vec::new())
            })
        };
        let outcome = config::change_if(&paths, Run::Real, judge, decide, accept);
        let outcome = outcome.map_err(unchanged)?;
        if let Some(error) = refusal {
            return Err(error);
        }
        let reading = config::reading(&paths).map_err(refused)?;
        if outcome.is_changed {
            let (device, connection) = (caller.device_id.as_deref(), &caller.connection);
            tracing::info!(
                device,
                connection,
                client = caller.client.id,
                "openclaw.json was changed"
            );
        }
        Ok(ConfigWritten {
            ok: true,
            noop: !outcome.is_changed,
            path: paths.config.display().to_string(),
            hash: revision(&reading.own)?,
            config: config::redacted(&reading.review.whole),
            reload: Reloaded::default(),
            sentinel: None,
        })
    })
    .await?;
    if !written.noop {
        written.reload = take_up(&call.shared, Why::Changed, Some(&call.caller)).await;
    }
    Ok(written)
}

/// What the next start would refuse of it, beside its issues.
fn refusals(source: Option<&dyn Source>, review: &Review) -> Vec<Issue> {
    let refusals = source.map(|source| source.refusals(review)).unwrap_or_default();
    refusals.iter().map(Refusal::issue).collect()
}

/// As the reference gateway says it.
fn check_base(paths: &Paths, own: &Value, base: Option<&str>) -> Outcome<()> {
    let message = match base {
        None if !paths.config.exists() => return Ok(()),
        None => BASE_WANTED,
        Some(base) if base == revision(own)? => return Ok(()),
        Some(_) => "config changed since last load; re-run config.get and retry",
    };
    Err(ErrorShape::invalid(message).into())
}

/// The refusal of a patch that names no revision: which of the places that it changes want one.
fn without_base(own: &Value, patch: &Value, edits: &[Edit]) -> Box<ErrorShape> {
    // What takes `ui` or every preference away wants one whatever it changes.
    let is_by_place = config::is_of_preferences(patch, &[]);
    let mut guarded = if is_by_place { changed(own, edits) } else { Vec::new() };
    guarded.retain(|place| place != "ui.prefs" && !place.starts_with("ui.prefs."));
    if guarded.is_empty() {
        return ErrorShape::invalid(BASE_WANTED).into();
    }
    let places = guarded.join(", ");
    ErrorShape::invalid(format!(
        "config base hash required for {places}; re-run config.get and retry with baseHash"
    ))
    .into()
}

/// The places that `edits` of `own` change, as OpenClaw names them: a list is one, an object is what
/// stands in it.
fn changed(own: &Value, edits: &[Edit]) -> Vec<String> {
    let mut places = Vec::new();
    for edit in edits {
        let (path, new) = match edit {
            Edit::Set(path, new) => (path, Some(new)),
            Edit::Unset(path) => (path, None),
        };
        let (mut old, mut place) = (Some(own), Vec::new());
        for name in path.names() {
            if old.is_some_and(Value::is_array) {
                break;
            }
            place.push(name);
            old = old.and_then(|old| old.get(name));
        }
        let is_in_list = old.is_some_and(Value::is_array);
        let value = new.filter(|new| new.is_object() && !is_in_list).or(old);
        leaves(value.unwrap_or(&Value::Null), place.join("."), &mut places);
    }
    places.dedup();
    places
}

fn leaves(value: &Value, place: String, places: &mut Vec<String>) {
    match value.as_object().filter(|keys| !keys.is_empty()) {
        Some(keys) => {
            for (key, value) in keys {
                leaves(value, format!("{place}.{key}"), places);
            }
        }
        None => places.push(place),
    }
}

/// The revision of a file's value, whatever the order of its keys. The key is this process's own:
/// nobody can try out secrets on it.
pub(in crate::gateway) fn revision(own: &Value) -> Outcome<String> {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    let key = match KEY.get() {
        Some(key) => key,
        None => {
            let mut bytes = [0; 32];
            // A key that somebody can guess would tell what stands in the file: better no answer.
            SystemRandom::new()
                .fill(&mut bytes)
                .map_err(|_| ErrorShape::unavailable("no random numbers for a revision", 1_000))?;
            KEY.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        }
    };
    let mut sorted = own.clone();
    sorted.sort_all_objects();
    let tag = hmac::sign(key, sorted.to_string().as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("hmac-sha256:v1:{hex}"))
}

fn shown(paths: &Paths, reading: Reading, is_admin: bool) -> Outcome<ConfigSnapshot> {
    let Reading { text, own, review } = reading;
    let parsed = config::redacted(&own);
    let anew = || format!("{parsed:#}\n");
    let raw = text.map(|text| {
        let kept = is_admin.then(|| config::redacted_text(&text, &own)).flatten();
        kept.unwrap_or_else(anew)
    });
    let valid = review.issues.is_empty();
    let config_revision_hash = valid.then(|| revision(&review.whole)).transpose()?;
    let whole = config::redacted(&review.whole);
    Ok(ConfigSnapshot {
        path: paths.config.display().to_string(),
        exists: raw.is_some(),
        raw,
        source_config: whole.clone(),
        resolved: whole.clone(),
        config: whole,
        valid,
        hash: revision(&own)?,
        config_revision_hash,
        applied_config_hash: None,
        issues: plain(&review.issues),
        warnings: plain(&review.warnings),
        legacy_issues: Vec::new(),
        parsed,
    })
}

fn plain(issues: &[Issue]) -> Vec<ConfigIssue> {
    let issues = issues.iter();
    issues
        .map(|issue| ConfigIssue { path: issue.path.clone(), message: issue.message.clone() })
        .collect()
}

/// Why a change was not made. What is wrong with the file is told place by place as well.
fn unchanged(why: Unchanged) -> Box<ErrorShape> {
    let Unchanged { problem, issues } = why;
    if issues.is_empty() {
        return refused(problem);
    }
    let message = format!("invalid config: {}", problem.message);
    let mut error = refused(Problem { message, ..problem });
    let details = error.details.get_or_insert_with(|| json!({}));
    if let Some(fields) = details.as_object_mut() {
        fields.insert("issues".to_owned(), json!(plain(&issues)));
    }
    error
}

/// A refusal as the wire has it.
fn refused(problem: Problem) -> Box<ErrorShape> {
    let error = match problem.code.as_deref() {
        // A full disk is no fault of the request.
        Some(code::UNAVAILABLE) => ErrorShape::unavailable(problem.message, DISK_RETRY_MS),
        Some(_) | None => ErrorShape::invalid(problem.message),
    };
    match problem.fix {
        Some(fix) => error.details(json!({ "fix": fix })).into(),
        None => error.into(),
    }
}

/// Runs what reads and writes files where it holds nobody up.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ErrorShape::unavailable("the gateway is stopping", 1_000).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_makes_no_other_revision() {
        let read = |text: &str| revision(&config::parse_json5(text).unwrap()).unwrap();
        let known = read("{a: 1, list: [{b: 1, c: 2}, 3]}");
        assert_eq!(read("{list: [{c: 2, b: 1}, 3], a: 1}"), known);
        assert_ne!(read("{a: 1, list: [3, {b: 1, c: 2}]}"), known);
        assert_ne!(read("{a: 2, list: [{b: 1, c: 2}, 3]}"), known);
    }

    #[test]
    fn a_patch_without_a_revision_hears_which_places_want_one() {
        let own = json!({
            "gateway": {"port": 1, "auth": {"mode": "none"}},
            "list": [{"id": "a"}, {"id": "b"}],
            "ui": {"name": "x", "prefs": {"theme": "dark"}},
        });
        let current = Current { own: own.clone(), whole: own.clone() };
        for (patch, expected) in [
            (json!({"gateway": {"port": 2}}), "gateway.port"),
            (json!({"ui": {"prefs": {"theme": "light"}, "name": "y"}}), "ui.name"),
            (json!({"gateway": null}), "gateway.port, gateway.auth.mode"),
            (json!({"new": {"a": {"b": 1}, "c": {}}}), "new.a.b, new.c"),
            (json!({"list": [{"id": "a", "x": 1}, {"id": "b", "x": {"y": 1}}]}), "list"),
        ] {
            let edits = config::patched(&current, &patch, &[]).unwrap();
            let message = format!(
                "config base hash required for {expected}; re-run config.get and retry with baseHash"
            );
            assert_eq!(without_base(&own, &patch, &edits).message, message, "{patch}");
        }
        for patch in [json!({"ui": null}), json!({"ui": {"prefs": null}, "gateway": null})] {
            let edits = config::patched(&current, &patch, &[]).unwrap();
            assert_eq!(without_base(&own, &patch, &edits).message, BASE_WANTED, "{patch}");
        }
    }
}
