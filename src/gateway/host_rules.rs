//! What becomes of rules for the gateway's own host before they are kept, and before they are shown.
//!
//! Pure: who calls hands in where new ids come from.

use std::collections::BTreeSet;

use crate::protocol::{AgentRules, Filled, HostRules, Listed, RulesSocket};

/// An older name of the main agent's rules, and the present one.
const OLDER: &str = "default";
const MAIN: &str = "main";

/// The rules as they are kept: nothing blank, every listed program with an id. What `given` leaves
/// out of the socket stays as it was `before`, since nobody is ever shown its token.
pub(super) fn settled(
    given: HostRules,
    before: &HostRules,
    mut new_id: impl FnMut() -> String,
) -> HostRules {
    let mut agents = given.agents.unwrap_or_default();
    if let Some(older) = agents.remove(OLDER) {
        let main = agents.remove(MAIN);
        let main = main.map_or_else(|| older.clone(), |main| joined(main, older.clone()));
        agents.insert(MAIN.to_owned(), main);
    }
    for rules in agents.values_mut() {
        rules.allowlist = rules.allowlist.take().and_then(|listed| tidied(listed, &mut new_id));
    }
    HostRules {
        version: given.version,
        socket: socket(given.socket, before.socket.as_ref()),
        defaults: Some(given.defaults.unwrap_or_default()),
        agents: Some(agents),
    }
}

/// The rules for other eyes: without the socket's token.
pub(super) fn shown(rules: &HostRules) -> HostRules {
    let path = rules.socket.as_ref().and_then(|socket| socket.path.clone());
    HostRules {
        socket: path.map(|path| RulesSocket { path: Some(path), token: None }),
        defaults: Some(rules.defaults.clone().unwrap_or_default()),
        agents: Some(rules.agents.clone().unwrap_or_default()),
        version: rules.version,
    }
}

fn socket(given: Option<RulesSocket>, before: Option<&RulesSocket>) -> Option<RulesSocket> {
    let RulesSocket { path, token } = given.unwrap_or_default();
    let path = path.map(|path| path.trim().to_owned()).filter(|path| !path.is_empty());
    let token = token.filter(|token| !token.expose().trim().is_empty());
    let path = path.or_else(|| before?.path.clone());
    let token = token.or_else(|| before?.token.clone());
    (path.is_some() || token.is_some()).then_some(RulesSocket { path, token })
}

/// Programs that name something, with ids; `None` if there were only others.
fn tidied(listed: Vec<Listed>, new_id: &mut impl FnMut() -> String) -> Option<Vec<Listed>> {
    let was_empty = listed.is_empty();
    let named = listed.into_iter().filter(|entry| !entry.pattern.trim().is_empty());
    let kept: Vec<_> = named
        .map(|entry| {
            let id = entry.id.unwrap_or_else(|| Filled(new_id()));
            Listed { id: Some(id), command_text: None, ..entry }
        })
        .collect();
    (was_empty || !kept.is_empty()).then_some(kept)
}

/// The main agent's rules, with those under the older name where it says nothing.
fn joined(main: AgentRules, older: AgentRules) -> AgentRules {
    let mut known = BTreeSet::new();
    let mut is_new = |entry: &Listed| {
        let arguments = entry.arg_pattern.as_deref().unwrap_or_default();
        known.insert((entry.pattern.trim().to_lowercase(), arguments.trim().to_owned()))
    };
    let listed = main.allowlist.into_iter().chain(older.allowlist).flatten();
    let listed: Vec<_> = listed.filter(|entry| is_new(entry)).collect();
    let tools = main.mcp_tools.into_iter().chain(older.mcp_tools);
    let tools = tools.reduce(|mut main, older| {
        let is_known = |tool: &(&str, &str)| {
            main.iter().any(|own| (own.server.0.as_str(), own.tool.0.as_str()) == *tool)
        };
        let more: Vec<_> =
            older.into_iter().filter(|it| !is_known(&(&it.server.0, &it.tool.0))).collect();
        main.extend(more);
        main
    });
    AgentRules {
        security: main.security.or(older.security),
        ask: main.ask.or(older.ask),
        ask_fallback: main.ask_fallback.or(older.ask_fallback),
        auto_allow_skills: main.auto_allow_skills.or(older.auto_allow_skills),
        allowlist: (!listed.is_empty()).then_some(listed),
        mcp_tools: tools,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(text: Value) -> HostRules {
        serde_json::from_value(text).unwrap()
    }

    fn settle(given: Value, before: Value) -> Value {
        let mut number = 0;
        let new_id = || {
            number += 1;
            format!("id-{number}")
        };
        serde_json::to_value(settled(rules(given), &rules(before), new_id)).unwrap()
    }

    // What the reference gateway answered to the same document.
    #[test]
    fn a_document_is_tidied_as_the_reference_gateway_does() {
        let given = json!({
            "version": 1,
            "socket": {"path": " /tmp/x.sock ", "token": "t"},
            "defaults": {"ask": "on-miss"},
            "agents": {
                "default": {"allowlist": [{"pattern": "a", "commandText": "x"}, {"pattern": "  "}],
                    "ask": "off"},
                "main": {"allowlist": [{"pattern": "A"}, {"pattern": "b", "id": "q"}],
                    "security": "deny"},
                "e": {"allowlist": [{"pattern": " "}]},
                "f": {"allowlist": []},
                "m": {"mcpTools": [
                    {"server": "s", "tool": "t", "source": "allow-always", "addedAt": 1}]},
            },
        });
        let expected = json!({
            "version": 1,
            "socket": {"path": "/tmp/x.sock", "token": "t"},
            "defaults": {"ask": "on-miss"},
            "agents": {
                "main": {"allowlist": [{"pattern": "A", "id": "id-1"}, {"pattern": "b", "id": "q"}],
                    "security": "deny", "ask": "off"},
                "e": {},
                "f": {"allowlist": []},
                "m": {"mcpTools": [
                    {"server": "s", "tool": "t", "source": "allow-always", "addedAt": 1}]},
            },
        });
        assert_eq!(settle(given, json!({"version": 1})), expected);
    }

    #[test]
    fn rules_under_the_older_name_become_the_main_agents() {
        let tool = |name: &str, at: u64| json!({"server": "s", "tool": name, "source": "allow-always", "addedAt": at});
        let given = json!({"version": 1, "agents": {
            "default": {"security": "full", "mcpTools": [tool("a", 1), tool("b", 2)]},
            "main": {"mcpTools": [tool("a", 3)]},
        }});
        let settled = settle(given, json!({"version": 1}));
        let main = json!({"security": "full", "mcpTools": [tool("a", 3), tool("b", 2)]});
        assert_eq!(settled["agents"], json!({ "main": main }));
        let alone = json!({"version": 1, "agents": {"default": {"ask": "always"}}});
        let settled = settle(alone, json!({"version": 1}));
        assert_eq!(settled["agents"], json!({"main": {"ask": "always"}}));
    }

    #[test]
    fn what_is_left_out_of_the_socket_stays_and_its_token_is_not_shown() {
        let before = json!({"version": 1, "socket": {"path": "/a", "token": "t"}});
        for (given, kept) in [
            (json!({"version": 1}), json!({"path": "/a", "token": "t"})),
            (
                json!({"version": 1, "socket": {"path": "/b", "token": " "}}),
                json!({"path": "/b", "token": "t"}),
            ),
            (
                json!({"version": 1, "socket": {"path": " ", "token": "u"}}),
                json!({"path": "/a", "token": "u"}),
            ),
        ] {
            assert_eq!(settle(given, before.clone())["socket"], kept);
        }
        let told = serde_json::to_value(shown(&rules(before))).unwrap();
        assert_eq!(told["socket"], json!({"path": "/a"}));
        let alone = rules(json!({"version": 1, "socket": {"token": "t"}}));
        assert!(shown(&alone).socket.is_none());
        assert!(!format!("{alone:?}").contains("\"t\""), "{alone:?}");
    }
}
