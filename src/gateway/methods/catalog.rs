//! What `openclaw.json` names: agents, models; and empty lists of what this gateway does not run.

use serde_json::Value;

use super::config::aside;
use crate::{
    config::{self, Paths},
    gateway::{
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome},
    },
    protocol::{
        Agent, AgentIdentity, AgentIdentityGet, AgentIdentityParams, AgentIdentityResult,
        AgentModel, AgentsList, AgentsListParams, AgentsListResult, ChannelsStatus,
        ChannelsStatusParams, ChannelsStatusResult, CliProjection, CommandsList,
        CommandsListParams, CommandsListResult, ErrorShape, LastHeartbeat, MemoryPlugin, Model,
        ModelsList, ModelsListParams, ModelsListResult, NamelessSession, NoParams, ProjectedAgent,
        ProjectedAgents, ToolsCatalog, ToolsCatalogParams, ToolsCatalogResult,
    },
};

/// The agent of a file that names none.
const MAIN: &str = "main";
/// What an agent is called that has no name.
const NAMELESS: &str = "Assistant";

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<LastHeartbeat, _>(last_heartbeat);
    dispatcher.on::<ModelsList, _>(models);
    dispatcher.on::<AgentsList, _>(agents);
    dispatcher.on::<AgentIdentityGet, _>(identity);
    dispatcher.on::<CommandsList, _>(commands);
    dispatcher.on::<ToolsCatalog, _>(tools);
    dispatcher.on::<ChannelsStatus, _>(channels);
}

async fn last_heartbeat(_call: Call, _params: NoParams) -> Outcome<Option<Value>> {
    Ok(None)
}

async fn models(call: Call, params: ModelsListParams) -> Outcome<ModelsListResult> {
    if params.prepared_only && params.refresh {
        let message = "invalid models.list params: preparedOnly and refresh exclude each other";
        return Err(ErrorShape::invalid(message).into());
    }
    let whole = configured(&call.shared.paths).await?;
    known_agent(&roster(&whole), params.agent_id)?;
    Ok(ModelsListResult { models: models_of(&whole) })
}

async fn agents(call: Call, _params: AgentsListParams) -> Outcome<AgentsListResult> {
    Ok(roster(&configured(&call.shared.paths).await?))
}

async fn identity(call: Call, params: AgentIdentityParams) -> Outcome<AgentIdentityResult> {
    let roster = roster(&configured(&call.shared.paths).await?);
    let of_session = params.session_key.as_deref().and_then(agent_of).map(str::to_owned);
    // Who asks how somebody unknown calls itself hears what everybody is called without a name.
    let id = params.agent_id.or(of_session).unwrap_or_else(|| roster.default_id.clone());
    let known = roster.agents.into_iter().find(|agent| agent.id == id);
    let agent = known.unwrap_or_else(|| Agent { id, ..Agent::default() });
    let own = agent.identity.unwrap_or_default();
    let named = own.name.or(agent.name);
    let name_source = if named.is_some() { "config" } else { "default" }.to_owned();
    let name = named.unwrap_or_else(|| NAMELESS.to_owned());
    let letter = || name.chars().next().map(String::from).unwrap_or_default();
    let avatar = own.avatar.or_else(|| own.emoji.clone()).unwrap_or_else(letter);
    Ok(AgentIdentityResult { agent_id: agent.id, name, name_source, avatar, emoji: own.emoji })
}

async fn commands(call: Call, params: CommandsListParams) -> Outcome<CommandsListResult> {
    known_agent(&roster(&configured(&call.shared.paths).await?), params.agent_id)?;
    Ok(CommandsListResult::default())
}

async fn tools(call: Call, params: ToolsCatalogParams) -> Outcome<ToolsCatalogResult> {
    let agent = known_agent(&roster(&configured(&call.shared.paths).await?), params.agent_id)?;
    Ok(ToolsCatalogResult { agent_id: agent.id, ..ToolsCatalogResult::default() })
}

async fn channels(_call: Call, params: ChannelsStatusParams) -> Outcome<ChannelsStatusResult> {
    if let Some(channel) = params.channel {
        let message = format!("invalid channels.status channel: {channel}");
        return Err(ErrorShape::invalid(message).into());
    }
    Ok(ChannelsStatusResult { ts: now_ms(), ..ChannelsStatusResult::default() })
}

/// What stands in the file and those that it includes.
pub(super) async fn configured(paths: &Paths) -> Outcome<Value> {
    let paths = paths.clone();
    aside(move || {
        let reading = config::reading(&paths);
        let reading = reading.map_err(|problem| ErrorShape::unavailable(problem.message, 1_000))?;
        Ok(reading.review.whole)
    })
    .await
}

/// The agent of this id, or the default one.
fn known_agent(roster: &AgentsListResult, id: Option<String>) -> Outcome<Agent> {
    let id = id.unwrap_or_else(|| roster.default_id.clone());
    let agent = roster.agents.iter().find(|agent| agent.id == id).cloned();
    agent.ok_or_else(|| ErrorShape::invalid(format!("unknown agent id \"{id}\"")).into())
}

/// The agent in `agent:ID:…`.
fn agent_of(session_key: &str) -> Option<&str> {
    session_key.strip_prefix("agent:")?.split(':').next().filter(|id| !id.is_empty())
}

fn text(value: &Value, key: &str) -> Option<String> {
    let text = value.get(key)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The agents in `agents.entries` and in the older list `agents.list`.
pub(super) fn roster(whole: &Value) -> AgentsListResult {
    let entries = whole.pointer("/agents/entries").and_then(Value::as_object);
    let entries = entries.into_iter().flatten().map(|(id, value)| (id.clone(), value));
    let list = whole.pointer("/agents/list").and_then(Value::as_array);
    let list = list.into_iter().flatten().filter_map(|value| Some((text(value, "id")?, value)));
    let (mut agents, mut default_id) = (Vec::<Agent>::new(), None);
    for (id, value) in entries.chain(list) {
        if id.is_empty() || agents.iter().any(|known| known.id == id) {
            continue;
        }
        if is_default(value) {
            default_id.get_or_insert_with(|| id.clone());
        }
        agents.push(agent(id, value));
    }
    if agents.is_empty() {
        agents.push(Agent { id: MAIN.to_owned(), ..Agent::default() });
    }
    let first = agents.first().map(|agent| agent.id.clone());
    let is_explicit = whole.pointer("/agents/ownership") == Some(&"explicit".into());
    let is_sole = agents.len() == 1;
    let ownership = match (is_sole, default_id.is_some() && !is_explicit) {
        (true, _) => "sole",
        (false, true) => "legacy",
        (false, false) => "explicit",
    };
    let selection_required = !is_sole && default_id.is_none();
    let session = whole.get("session").cloned().unwrap_or_default();
    let is_global = text(&session, "scope").as_deref() == Some("global");
    AgentsListResult {
        default_id: default_id.or(first).unwrap_or_else(|| MAIN.to_owned()),
        ownership: Some(ownership.to_owned()),
        selection_required: Some(selection_required),
        main_key: text(&session, "mainKey").unwrap_or_else(|| MAIN.to_owned()),
        scope: if is_global { "global" } else { "per-sender" }.to_owned(),
        agents,
    }
}

/// The session that news go to where none is named.
pub(super) fn main_session(roster: &AgentsListResult) -> String {
    if roster.scope == "global" {
        return "global".to_owned();
    }
    format!("agent:{}:{}", roster.default_id, roster.main_key)
}

/// What a client goes by that names neither agent nor session.
pub(super) fn nameless(whole: &Value) -> NamelessSession {
    let roster = roster(whole);
    let default = roster.agents.iter().find(|agent| agent.id == roster.default_id);
    let own = default.and_then(|agent| agent.model.as_ref()?.primary.as_deref());
    // As of an agent, either a name or an object with the first choice.
    let general = whole.pointer("/agents/defaults/model");
    let general = general.is_some_and(|model| {
        let name = model.as_str().map(str::trim).filter(|name| !name.is_empty());
        name.is_some() || text(model, "primary").is_some()
    });
    NamelessSession {
        model_configured: Some(own.is_some_and(|name| !name.trim().is_empty()) || general),
        main_session_key: main_session(&roster),
        default_agent_id: roster.default_id,
        ownership: roster.ownership,
        selection_required: roster.selection_required,
        main_key: roster.main_key,
        scope: Some(roster.scope),
    }
}

/// What the command line would read from the configuration.
pub(super) fn projection(whole: &Value) -> CliProjection {
    let roster = roster(whole);
    let selection_required = roster.selection_required == Some(true);
    let row = |agent: Agent| {
        let named = agent.identity.and_then(|identity| identity.name);
        ProjectedAgent { id: agent.id, name: agent.name.or(named) }
    };
    CliProjection {
        agents: ProjectedAgents {
            default_id: (!selection_required).then_some(roster.default_id),
            ownership: roster.ownership.unwrap_or_default(),
            selection_required,
            rows: roster.agents.into_iter().map(row).collect(),
        },
        update_channel: whole.pointer("/update/channel").and_then(Value::as_str).map(str::to_owned),
        memory_plugin: MemoryPlugin::default(),
    }
}

fn is_default(agent: &Value) -> bool {
    agent.get("default") == Some(&Value::Bool(true))
}

fn agent(id: String, value: &Value) -> Agent {
    let identity = value.get("identity").map(|identity| AgentIdentity {
        name: text(identity, "name"),
        theme: text(identity, "theme"),
        emoji: text(identity, "emoji"),
        avatar: text(identity, "avatar"),
    });
    let model = value.get("model").map(|model| AgentModel {
        primary: model.as_str().map(str::to_owned).or_else(|| text(model, "primary")),
        fallbacks: model.get("fallbacks").and_then(Value::as_array).map_or_else(Vec::new, |list| {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }),
    });
    Agent { id, name: text(value, "name"), identity, workspace: text(value, "workspace"), model }
}

fn models_of(whole: &Value) -> Vec<Model> {
    let providers = whole.pointer("/models/providers").and_then(Value::as_object);
    let of_provider = |(provider, value): (&String, &Value)| {
        let models = value.get("models").and_then(Value::as_array).cloned().unwrap_or_default();
        let provider = provider.clone();
        models.into_iter().filter_map(move |model| {
            let id = text(&model, "id")?;
            Some(Model {
                name: text(&model, "name").unwrap_or_else(|| id.clone()),
                id,
                provider: provider.clone(),
                context_window: model
                    .get("contextWindow")
                    .and_then(Value::as_u64)
                    .filter(|n| *n > 0),
                reasoning: model.get("reasoning").and_then(Value::as_bool),
            })
        })
    };
    providers.into_iter().flatten().flat_map(of_provider).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_file_has_the_one_agent_and_no_model() {
        let roster = roster(&json!({}));
        assert_eq!((roster.default_id.as_str(), roster.scope.as_str()), ("main", "per-sender"));
        assert_eq!(roster.agents.len(), 1);
        assert!(models_of(&json!({})).is_empty());
    }

    #[test]
    fn agents_stand_in_either_form_and_one_is_the_default() {
        let roster = roster(&json!({"agents": {
            "entries": {"a": {"model": "x/y"}},
            "list": [{"id": "b", "default": true, "identity": {"name": "Bee", "emoji": "🐝"}}, {"id": "a"}],
        }, "session": {"scope": "global", "mainKey": "home"}}));
        assert_eq!(roster.agents.len(), 2);
        assert_eq!((roster.default_id.as_str(), roster.main_key.as_str()), ("b", "home"));
        let bee = known_agent(&roster, agent_of("agent:b:main").map(str::to_owned)).unwrap();
        assert_eq!(bee.identity.unwrap().name.as_deref(), Some("Bee"));
        known_agent(&roster, Some("c".to_owned())).unwrap_err();
    }

    #[test]
    fn the_command_line_hears_which_agent_answers_and_whether_one_must_be_named() {
        for (agents, ownership, default) in [
            (json!({}), "sole", Some("main")),
            (json!({"entries": {"a": {}}}), "sole", Some("a")),
            (json!({"entries": {"a": {}, "b": {"default": true}}}), "legacy", Some("b")),
            (
                json!({"ownership": "explicit", "list": [{"id": "a", "default": true}, {"id": "b"}]}),
                "explicit",
                Some("a"),
            ),
            (json!({"entries": {"a": {}, "b": {}}}), "explicit", None),
        ] {
            let whole = json!({ "agents": agents, "update": { "channel": "beta" } });
            // Whoever asks for the agents, and whoever comes in, hears the same.
            let (listed, told) = (roster(&whole), nameless(&whole));
            for (said, required) in [
                (listed.ownership, listed.selection_required),
                (told.ownership, told.selection_required),
            ] {
                assert_eq!(said.as_deref(), Some(ownership), "{agents}");
                assert_eq!(required, Some(default.is_none()), "{agents}");
            }
            assert_eq!(told.default_agent_id, default.unwrap_or("a"), "{agents}");
            let shown = projection(&whole);
            assert_eq!(shown.agents.ownership, ownership, "{agents}");
            assert_eq!(shown.agents.default_id.as_deref(), default, "{agents}");
            assert_eq!(shown.agents.selection_required, default.is_none(), "{agents}");
            assert_eq!(shown.update_channel.as_deref(), Some("beta"));
        }
    }

    #[test]
    fn who_names_no_session_hears_which_one_is_meant_and_whether_it_has_a_model() {
        let told = |whole: &Value| {
            let told = nameless(whole);
            (told.main_session_key, told.model_configured)
        };
        for (agents, session, key, has_model) in [
            (json!({}), json!({}), "agent:main:main", false),
            (json!({"entries": {"a": {"model": "x/y"}}}), json!({}), "agent:a:main", true),
            (json!({"entries": {"a": {"model": " "}}}), json!({}), "agent:a:main", false),
            (
                json!({"defaults": {"model": {"primary": "x/y"}}}),
                json!({"mainKey": "home"}),
                "agent:main:home",
                true,
            ),
            (json!({"defaults": {"model": "x/y"}}), json!({"scope": "global"}), "global", true),
            (
                json!({"defaults": {"model": {"fallbacks": []}}}),
                json!({}),
                "agent:main:main",
                false,
            ),
        ] {
            let whole = json!({"agents": agents, "session": session});
            assert_eq!(told(&whole), (key.to_owned(), Some(has_model)), "{whole}");
        }
    }

    #[test]
    fn models_come_from_the_providers() {
        let models = models_of(&json!({"models": {"providers": {
            "local": {"apiKey": "k", "models": [{"id": "m", "contextWindow": 8192}, {"name": "no id"}]},
        }}}));
        assert_eq!(
            serde_json::to_value(models).unwrap(),
            json!([
                {"id": "m", "name": "m", "provider": "local", "contextWindow": 8192},
            ])
        );
    }
}
