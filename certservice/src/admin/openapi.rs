//! The API as an OpenAPI 3.1 document, from the table of routes and the types that they take and answer with.

use std::borrow::Cow;
use std::sync::Arc;

use axum::routing::MethodRouter;
use contract::api::Problem;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Api;
use super::access::Allowed;
use super::routes::{Route, routes};

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What the document says of a route, beside who may ask it.
#[derive(Default)]
pub(super) struct About {
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

pub(super) fn route(
    method: &'static str,
    path: &'static str,
    allowed: Allowed,
    handler: MethodRouter<Arc<Api>>,
) -> Route {
    Route { method, path, allowed, handler, about: About::default() }
}

impl Route {
    pub(super) fn says(mut self, says: &'static str) -> Self {
        self.about.says = says;
        self
    }

    pub(super) fn query(self, name: &str, schema: Value, says: &str) -> Self {
        self.input("query", name, schema, says)
    }

    pub(super) fn header(self, name: &str, schema: Value, says: &str) -> Self {
        self.input("header", name, schema, says)
    }

    fn input(mut self, place: &str, name: &str, schema: Value, says: &str) -> Self {
        self.about.inputs.push(json!({"name": name, "in": place, "description": says, "schema": schema}));
        self
    }

    /// A body in JSON, which may be left out.
    pub(super) fn takes<T: JsonSchema>(mut self) -> Self {
        self.about.bodies.push((JSON, Content::Json(SchemaGenerator::subschema_for::<T>)));
        self
    }

    pub(super) fn takes_text(mut self, media_type: &'static str, says: &'static str) -> Self {
        self.about.bodies.push((media_type, Content::Text(says)));
        self
    }

    pub(super) fn json<T: JsonSchema>(self, status: u16) -> Self {
        self.answer(status, Some((JSON, Content::Json(SchemaGenerator::subschema_for::<T>))))
    }

    pub(super) fn text(self, status: u16, media_type: &'static str) -> Self {
        self.answer(status, Some((media_type, Content::Text(""))))
    }

    pub(super) fn empty(self, status: u16) -> Self {
        self.answer(status, None)
    }

    fn answer(mut self, status: u16, content: Option<(&'static str, Content)>) -> Self {
        self.about.answers.push(Answer { status, content });
        self
    }

    /// Those of its own; 401, 403 and 503 can come anywhere.
    pub(super) fn errors(mut self, errors: &'static [u16]) -> Self {
        self.about.errors = errors;
        self
    }
}

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// The whole document, in the form in which it is checked in.
pub fn openapi() -> String {
    // What is sent may leave out what has a default; what is answered has it.
    let mut sent = generator(SchemaSettings::for_deserialize);
    let mut answered = generator(SchemaSettings::for_serialize);
    let mut paths: Map<String, Value> = Map::new();
    let problem = answered.subschema_for::<Problem>();
    for route in routes() {
        let operation = operation(&route, &mut sent, &mut answered, &problem);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation;
    }
    let mut schemas = answered.take_definitions(true);
    schemas.extend(sent.take_definitions(true));
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Latchkey CertService",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Registers domains, obtains their certificates and hands them, sealed, to the edges. \
                `x-roles` of an operation are the roles that may ask it; without them anybody may.",
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

fn operation(route: &Route, sent: &mut SchemaGenerator, answered: &mut SchemaGenerator, problem: &Schema) -> Value {
    let about = &route.about;
    let mut answers = Map::new();
    for Answer { status, content } in &about.answers {
        let mut answer = json!({"description": reason(*status)});
        if let Some((media_type, content)) = content {
            answer["content"] = json!({*media_type: {"schema": schema(content, answered)}});
        }
        answers.insert(status.to_string(), answer);
    }
    let anywhere: &[u16] = if route.allowed == Allowed::Anybody { &[503] } else { &[401, 403, 503] };
    for status in about.errors.iter().chain(anywhere) {
        let answer = json!({"description": reason(*status), "content": {PROBLEM: {"schema": problem}}});
        answers.insert(status.to_string(), answer);
    }
    answers.sort_keys();
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": about.says,
        "parameters": path_inputs(route.path).chain(about.inputs.iter().cloned()).collect::<Vec<_>>(),
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
    if route.allowed != Allowed::Anybody {
        operation["security"] = json!([{"token": []}]);
        operation["x-roles"] = json!(route.allowed.roles());
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
fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !matches!(*word, "" | "v1"));
    std::iter::once(route.method.to_lowercase())
        .chain(words.map(|word| word.replace('-', "_")))
        .collect::<Vec<_>>()
        .join("_")
}

fn path_inputs(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    names.map(|name| {
        let mut input = json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
        if name == "name" {
            input["description"] = "a host name; Unicode is taken, too".into();
            input["schema"]["format"] = "hostname".into();
            input["example"] = "shop.example".into();
        }
        input
    })
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Answer")
}
