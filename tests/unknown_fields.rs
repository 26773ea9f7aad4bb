//! Parameters that are not as published: every method of the table refuses fields that the schema
//! refuses, by name and at any depth, and passes over all others; and it refuses a value of another
//! kind, and a word that is none of those published, wherever a published field stands.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Device, Home, OurGateway, Schema, Wire, connect};

/// A field that no method has; it comes first, so that nothing else is complained about before it.
const UNHEARD: &str = "0unheard";
/// Methods whose parameters the schema leaves undescribed, and of which the running reference
/// gateway 2026.9.6 refuses fields that it does not know all the same.
const STRICT: [&str; 4] =
    ["system-event", "users.self", "node.pending.pull", "node.runnerInventory.update"];

/// Fields where another kind of value is taken all the same, and why.
const LENIENT: [(&str, &str); 1] =
    [("node.invoke.result payloadJSON", "some nodes write the value where its text belongs")];

/// Somewhere in the parameters of a method that an unknown field can stand.
struct Place {
    /// The parameters, with the unknown field there.
    params: Value,
    /// Whether the schema says that no others may stand there.
    is_closed: bool,
}

impl Place {
    /// The same place, seen from what holds it.
    fn within(self, wrap: impl FnOnce(Value) -> Value) -> Self {
        Self { params: wrap(self.params), ..self }
    }
}

/// Every object that `shape` describes, itself and those within it.
fn places(shape: &Value) -> Vec<Place> {
    let mut found = Vec::new();
    for choice in ["anyOf", "oneOf"] {
        let shapes = shape[choice].as_array().into_iter().flatten();
        let shapes = shapes.filter(|shape| shape["type"] == "object");
        found.extend(shapes.flat_map(places));
    }
    if shape["type"] == "array" {
        found.extend(
            places(&shape["items"]).into_iter().map(|place| place.within(|it| json!([it]))),
        );
    }
    if shape["type"] == "object" {
        let around = least(shape);
        let with = |name: &str, value: Value| {
            let mut all = around.clone();
            all[name] = value;
            all
        };
        let is_closed = shape["additionalProperties"] == false;
        // Where any name is good, this one is as good as others.
        if shape["patternProperties"].is_null() {
            let params = with(UNHEARD, json!("x"));
            found.push(Place { params, is_closed });
        }
        for (name, inner) in shape["properties"].as_object().into_iter().flatten() {
            let wrap = |it| with(name, it);
            found.extend(places(inner).into_iter().map(|place| place.within(wrap)));
        }
        for inner in shape["patternProperties"].as_object().into_iter().flat_map(|all| all.values())
        {
            found.extend(places(inner).into_iter().map(|place| place.within(|it| with("any", it))));
        }
    }
    found
}

/// A published field of a method's parameters with a value that the schema refuses there.
struct Misfit {
    /// The parameters, with the value there.
    params: Value,
    /// The names that lead to the field, the outermost first.
    path: Vec<String>,
}

impl Misfit {
    /// The same field, seen from what holds it.
    fn within(self, wrap: impl FnOnce(Value) -> Value) -> Self {
        Self { params: wrap(self.params), ..self }
    }

    /// The same field, seen from the object in which `name` leads to it.
    fn behind(mut self, name: &str, wrap: impl FnOnce(Value) -> Value) -> Self {
        self.path.insert(0, name.to_owned());
        self.within(wrap)
    }

    /// As the list of what is open has it.
    fn place(&self, method: &str) -> String {
        format!("{method} {}", self.path.join("."))
    }
}

/// A value of each kind but null, which is as good as nothing here, and a word that nobody publishes.
fn kinds() -> [Value; 8] {
    [
        json!(UNHEARD),
        json!(7),
        json!(-7),
        json!(7.5),
        json!(true),
        json!([]),
        json!([{ UNHEARD: 1 }]),
        json!({ UNHEARD: 1 }),
    ]
}

/// Every value of another kind for `shape` itself, and for every field within it.
fn misfits(shape: &Value) -> Vec<Misfit> {
    let takes = jsonschema::draft7::new(shape).unwrap();
    // An object's values without their names are none.
    let fields = shape["properties"].as_object().into_iter().flatten();
    let unnamed = Value::Array(fields.map(|(_, inner)| least(inner)).collect());
    let whole = kinds().into_iter().chain([unnamed]).filter(|value| !takes.is_valid(value));
    let mut found: Vec<_> = whole.map(|params| Misfit { params, path: Vec::new() }).collect();
    for choice in ["anyOf", "oneOf"] {
        let shapes = shape[choice].as_array().into_iter().flatten();
        let shapes = shapes.filter(|shape| shape["type"] == "object");
        found.extend(shapes.flat_map(inner_misfits));
    }
    found.extend(inner_misfits(shape));
    found
}

/// Every value of another kind for a field within `shape`.
fn inner_misfits(shape: &Value) -> Vec<Misfit> {
    let mut found = Vec::new();
    if shape["type"] == "array" {
        found.extend(misfits(&shape["items"]).into_iter().map(|it| it.within(|it| json!([it]))));
    }
    if shape["type"] == "object" {
        let around = least(shape);
        let with = |name: &str, value: Value| {
            let mut all = around.clone();
            all[name] = value;
            all
        };
        for (name, inner) in shape["properties"].as_object().into_iter().flatten() {
            let all = misfits(inner).into_iter();
            found.extend(all.map(|misfit| misfit.behind(name, |it| with(name, it))));
        }
        for inner in shape["patternProperties"].as_object().into_iter().flat_map(|all| all.values())
        {
            let all = misfits(inner).into_iter();
            found.extend(all.map(|misfit| misfit.behind("any", |it| with("any", it))));
        }
    }
    found
}

/// Whether `error` refuses a request for the field at `path`: by its name, or that of what holds it.
fn names(error: &Value, path: &[String]) -> bool {
    let message = error["message"].as_str().unwrap_or_default();
    let words: Vec<_> = message.split(|letter: char| !letter.is_alphanumeric()).collect();
    let is_named = path.is_empty() || path.iter().any(|name| words.contains(&name.as_str()));
    error["code"] == "INVALID_REQUEST" && is_named
}

/// The least that `shape` asks for.
fn least(shape: &Value) -> Value {
    if !shape["const"].is_null() {
        return shape["const"].clone();
    }
    let first = ["enum", "anyOf", "oneOf"].iter().find_map(|key| Some((key, shape[key].get(0)?)));
    match (shape["type"].as_str(), first) {
        (Some("object"), _) => {
            let names =
                shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let all = names.map(|name| (name.to_owned(), least(&shape["properties"][name])));
            Value::Object(all.collect())
        }
        (_, Some((&"enum", value))) => value.clone(),
        (_, Some((_, shape))) => least(shape),
        (Some("array"), None) => json!([]),
        (Some("integer" | "number"), None) => json!(shape["minimum"].as_u64().unwrap_or(1)),
        (Some("boolean"), None) => json!(true),
        (Some(_) | None, None) => json!("x"),
    }
}

/// A gateway with an administrator and a paired node, who may ask for everything between them.
struct Everybody {
    operator: Wire,
    node: Wire,
    _gateway: OurGateway,
    _home: Home,
}

impl Everybody {
    async fn come_in() -> Self {
        let home = Home::new();
        let gateway = OurGateway::start(&home);
        let (port, token) = (gateway.port(), gateway.token());
        let (mut operator, _) = Wire::open(port).await.unwrap();
        let mut params = connect(&json!({ "token": token }));
        params["scopes"] = json!(["operator.admin"]);
        assert_eq!(operator.call("connect", params).await.unwrap()["ok"], true);
        let waits = Self::node(port, &token).await.0;
        assert_eq!(waits["error"]["code"], "NOT_PAIRED", "{waits}");
        let request = json!({ "requestId": waits["error"]["details"]["requestId"] });
        let approved = operator.call("device.pair.approve", request).await.unwrap();
        assert_eq!(approved["ok"], true, "{approved}");
        let (hello, node) = Self::node(port, &token).await;
        assert_eq!(hello["ok"], true, "{hello}");
        Self { operator, node, _gateway: gateway, _home: home }
    }

    /// What the gateway says to a node that comes in, and its connection.
    async fn node(port: u16, token: &str) -> (Value, Wire) {
        let (mut wire, asked) = Wire::open(port).await.unwrap();
        let mut params = connect(&json!({ "token": token }));
        params["role"] = json!("node");
        params["scopes"] = json!([]);
        params["client"]["id"] = json!("node-host");
        params["client"]["mode"] = json!("node");
        Device::new(7).sign(&mut params, &asked);
        (wire.call("connect", params).await.unwrap(), wire)
    }

    /// The error of the answer to `method`, null where there is none.
    async fn complaint(&mut self, method: &str, scope: &str, params: Value) -> Value {
        let wire = if scope == "node" { &mut self.node } else { &mut self.operator };
        let answer = wire.call(method, params).await.unwrap();
        answer["error"].clone()
    }
}

#[tokio::test]
async fn every_method_refuses_the_fields_that_the_schema_refuses_and_no_others() {
    let Some(schema) = Schema::published() else { return };
    let mut everybody = Everybody::come_in().await;
    // The table of methods, which a test of the table holds to be this file.
    let table = include_str!("../fixtures/methods.txt").lines();
    let (mut wrong, mut closed) = (Vec::new(), 0);
    for (method, scope) in table.filter_map(|line| line.split_once(' ')) {
        let places = match schema.params_of(method) {
            Some(shape) => places(shape),
            None => places(&json!({
                "type": "object", "additionalProperties": !STRICT.contains(&method),
            })),
        };
        assert!(!places.is_empty(), "{method}: the schema describes no object");
        for Place { params, is_closed } in places {
            let asked = format!("{method} {params}");
            let error = everybody.complaint(method, scope, params).await;
            let is_named = error["message"].as_str().is_some_and(|text| text.contains(UNHEARD));
            let is_refused = error["code"] == "INVALID_REQUEST" && is_named;
            let is_good = if is_closed { is_refused } else { !is_named };
            if !is_good {
                let verdict = if is_closed { "refused by name" } else { "passed over" };
                wrong.push(format!("{asked}: not {verdict}: {error}"));
            }
            closed += usize::from(is_closed);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(closed > 60, "only {closed} places were found");
}

#[tokio::test]
async fn every_method_refuses_values_of_another_kind_and_names_the_field() {
    let Some(schema) = Schema::published() else { return };
    let mut everybody = Everybody::come_in().await;
    let table = include_str!("../fixtures/methods.txt").lines();
    let (mut wrong, mut tried) = (BTreeMap::new(), 0);
    for (method, scope) in table.filter_map(|line| line.split_once(' ')) {
        let Some(shape) = schema.params_of(method) else { continue };
        for misfit in misfits(shape) {
            let place = misfit.place(method);
            let asked = misfit.params.to_string();
            let error = everybody.complaint(method, scope, misfit.params).await;
            tried += 1;
            if !names(&error, &misfit.path) {
                wrong.entry(place).or_insert_with(Vec::new).push(format!("{asked}: {error}"));
            }
        }
    }
    let told = |place: &str| wrong[place].join("\n  ");
    let mild = |place: &str| LENIENT.iter().any(|(known, _)| *known == place);
    let strange: Vec<_> = wrong.keys().filter(|place| !mild(place)).collect();
    let strange: Vec<_> =
        strange.iter().map(|place| format!("{place}\n  {}", told(place))).collect();
    assert!(strange.is_empty(), "{}", strange.join("\n"));
    for (place, _) in LENIENT {
        assert!(wrong.contains_key(place), "{place} is mended: take it from the list");
    }
    assert!(tried > 1_000, "only {tried} values were tried");
}
