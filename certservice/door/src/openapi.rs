//! The API as an OpenAPI 3.1 document, from the table of routes and the types that they take and answer with.

use std::borrow::Cow;

use axum::routing::MethodRouter;
use contract::api::Problem;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Who may ask a route.
pub trait Roles {
    /// Empty where anybody may.
    fn roles(&self) -> &'static [&'static str];
}

pub struct Route<State, Allowed> {
    pub method: &'static str,
    /// As it is documented; a verb (`{name}:check`) is told apart by the handler.
    pub path: &'static str,
    pub allowed: Allowed,
    pub handler: MethodRouter<State>,
    about: About,
}

/// What the document says of the whole.
pub struct Info {
    pub title: &'static str,
    pub version: &'static str,
    pub says: &'static str,
    pub path_inputs: &'static [PathInput],
}

/// A parameter in paths.
pub struct PathInput {
    pub name: &'static str,
    pub says: &'static str,
    pub example: &'static str,
    pub format: Option<&'static str>,
}

/// What the document says of a route, beside who may ask it.
#[derive(Default)]
struct About {
    says: &'static str,
    inputs: Vec<Value>,
    /// Media type and schema; any of them.
    bodies: Vec<(&'static str, Content)>,
    answers: Vec<Answer>,
    errors: &'static [u16],
}

enum Content {
    Json(SchemaOf),
    Text(&'static str),
}

struct Answer {
    status: u16,
    content: Option<(&'static str, Content)>,
}

pub fn route<State, Allowed>(
    method: &'static str,
    path: &'static str,
    allowed: Allowed,
    handler: MethodRouter<State>,
) -> Route<State, Allowed> {
    Route { method, path, allowed, handler, about: About::default() }
}

impl<State, Allowed> Route<State, Allowed> {
    /// As the router has it.
    pub fn served_at(&self) -> &'static str {
        self.path.split_once("}:").map_or(self.path, |(before, _)| &self.path[..=before.len()])
    }

    #[must_use]
    pub fn says(mut self, says: &'static str) -> Self {
        self.about.says = says;
        self
    }

    #[must_use]
    pub fn query(self, name: &str, schema: Value, says: &str) -> Self {
        self.input("query", name, schema, says)
    }

    #[must_use]
    pub fn header(self, name: &str, schema: Value, says: &str) -> Self {
        self.input("header", name, schema, says)
    }

    fn input(mut self, place: &str, name: &str, schema: Value, says: &str) -> Self {
        self.about.inputs.push(json!({"name": name, "in": place, "description": says, "schema": schema}));
        self
    }

    /// A body in JSON, which may be left out.
    #[must_use]
    pub fn takes<T: JsonSchema>(mut self) -> Self {
        self.about.bodies.push((JSON, Content::Json(SchemaGenerator::subschema_for::<T>)));
        self
    }

    #[must_use]
    pub fn takes_text(mut self, media_type: &'static str, says: &'static str) -> Self {
        self.about.bodies.push((media_type, Content::Text(says)));
        self
    }

    #[must_use]
    pub fn json<T: JsonSchema>(self, status: u16) -> Self {
        self.answer(status, Some((JSON, Content::Json(SchemaGenerator::subschema_for::<T>))))
    }

    #[must_use]
    pub fn text(self, status: u16, media_type: &'static str) -> Self {
        self.answer(status, Some((media_type, Content::Text(""))))
    }

    #[must_use]
    pub fn empty(self, status: u16) -> Self {
        self.answer(status, None)
    }

    fn answer(mut self, status: u16, content: Option<(&'static str, Content)>) -> Self {
        self.about.answers.push(Answer { status, content });
        self
    }

    /// Those of its own; 401, 403 and 503 can come anywhere.
    #[must_use]
    pub fn errors(mut self, errors: &'static [u16]) -> Self {
        self.about.errors = errors;
        self
    }
}

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// The whole document, in the form in which it is checked in.
pub fn openapi<State, Allowed: Roles>(info: &Info, routes: &[Route<State, Allowed>]) -> String {
    // What is sent may leave out what has a default; what is answered has it.
    let mut sent = generator(SchemaSettings::for_deserialize);
    let mut answered = generator(SchemaSettings::for_serialize);
    let mut paths: Map<String, Value> = Map::new();
    let problem = answered.subschema_for::<Problem>();
    for route in routes {
        let operation = operation(info, route, &mut sent, &mut answered, &problem);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation;
    }
    let mut schemas = answered.take_definitions(true);
    schemas.extend(sent.take_definitions(true));
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": info.title,
            "version": info.version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": info.says,
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    });
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn generator(side: fn(SchemaSettings) -> SchemaSettings) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = Cow::Borrowed("/components/schemas");
        settings.meta_schema = None;
    });
    side(settings).into_generator()
}

fn operation<State, Allowed: Roles>(
    info: &Info,
    route: &Route<State, Allowed>,
    sent: &mut SchemaGenerator,
    answered: &mut SchemaGenerator,
    problem: &Schema,
) -> Value {
    let about = &route.about;
    let mut answers = Map::new();
    for Answer { status, content } in &about.answers {
        let mut answer = json!({"description": reason(*status)});
        if let Some((media_type, content)) = content {
            answer["content"] = json!({*media_type: {"schema": schema(content, answered)}});
        }
        answers.insert(status.to_string(), answer);
    }
    let roles = route.allowed.roles();
    let anywhere: &[u16] = if roles.is_empty() { &[503] } else { &[401, 403, 503] };
    for status in about.errors.iter().chain(anywhere) {
        let mut answer = json!({"description": reason(*status), "content": {PROBLEM: {"schema": problem}}});
        if *status == 429 {
            let seconds = json!({"type": "integer", "minimum": 1});
            answer["headers"] = json!({"Retry-After": {"description": "seconds", "schema": seconds}});
        }
        answers.entry(status.to_string()).or_insert(answer);
    }
    answers.sort_keys();
    let mut operation = json!({
        "operationId": operation_id(route.method, route.path),
        "summary": about.says,
        "parameters": path_inputs(info, route.path).chain(about.inputs.iter().cloned()).collect::<Vec<_>>(),
        "responses": answers,
    });
    if !about.bodies.is_empty() {
        let content: Map<_, _> = about
            .bodies
            .iter()
            .map(|(media_type, content)| ((*media_type).to_owned(), json!({"schema": schema(content, sent)})))
            .collect();
        let is_json = about.bodies.iter().any(|(media_type, _)| *media_type == JSON);
        operation["requestBody"] = json!({"content": content, "required": !is_json});
    }
    if !roles.is_empty() {
        operation["security"] = json!([{"token": []}]);
        operation["x-roles"] = json!(roles);
    }
    operation
}

fn schema(content: &Content, generator: &mut SchemaGenerator) -> Value {
    match content {
        Content::Json(schema) => schema(generator).into(),
        Content::Text("") => json!({"type": "string"}),
        // Any bytes: a faulty line costs itself only.
        Content::Text(says) => json!({"description": says}),
    }
}

/// `GET /v1/domains/{name}` is `get_domains_name`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !matches!(*word, "" | "v1"));
    std::iter::once(method.to_lowercase()).chain(words.map(|word| word.replace('-', "_"))).collect::<Vec<_>>().join("_")
}

fn path_inputs(info: &Info, path: &'static str) -> impl Iterator<Item = Value> {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    names.map(move |name| {
        let mut input = json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
        if let Some(path_input) = info.path_inputs.iter().find(|known| known.name == name) {
            input["description"] = path_input.says.into();
            input["example"] = path_input.example.into();
            if let Some(format) = path_input.format {
                input["schema"]["format"] = format.into();
            }
        }
        input
    })
}

fn reason(status: u16) -> &'static str {
    axum::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Answer")
}
