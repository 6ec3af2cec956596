// SPDX-License-Identifier: Apache-2.0
//! The OpenAPI document of the admin API, made from the types that go over the wire.
//!
//! One table has a row for each address and method; what a row takes and answers is a type, whose
//! fields and their meanings are those of its code. `docs/openapi.json` is made from it, and a daemon
//! answers it at `GET /v1/openapi.json`.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::wire;

/// Where types are described in the document.
const TYPES: &str = "/components/schemas";

type Describe = fn(&mut SchemaGenerator) -> Schema;

/// An address with a method.
struct Route {
    method: &'static str,
    address: &'static str,
    summary: &'static str,
    /// What the body is, or for `GET` the query.
    takes: Option<Describe>,
    /// What an answer is; none for a text.
    answers: Option<Describe>,
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The fields of a type, for those of a query.
fn fields<T: JsonSchema>(_: &mut SchemaGenerator) -> Schema {
    generator(false).into_root_schema_for::<T>()
}

fn get(address: &'static str, summary: &'static str, answers: Describe) -> Route {
    Route {
        method: "get",
        address,
        summary,
        takes: None,
        answers: Some(answers),
    }
}

fn post(address: &'static str, summary: &'static str, takes: Describe, answers: Describe) -> Route {
    Route {
        method: "post",
        takes: Some(takes),
        ..get(address, summary, answers)
    }
}

/// All addresses.
fn table() -> Vec<Route> {
    let mut table = seeing();
    table.extend(of_the_tree());
    table.extend(of_paths());
    table.extend(of_rules());
    table
}

fn seeing() -> Vec<Route> {
    vec![
        get(
            "/v1/status",
            "What the daemon tells of itself.",
            of::<wire::Status>,
        ),
        get(
            "/v1/history",
            "How its counters stood in the last hour.",
            of::<wire::History>,
        ),
        get(
            "/v1/health",
            "What is not well, and what mends it.",
            of::<wire::Health>,
        ),
        get(
            "/v1/mounts",
            "What is mounted where in the tree.",
            of::<wire::MountList>,
        ),
        get(
            "/v1/staged",
            "What was written and the storages do not have yet.",
            of::<wire::StagedList>,
        ),
        get(
            "/v1/jobs",
            "The loads that run, and the latest that ended.",
            of::<wire::JobList>,
        ),
        get(
            "/v1/traffic",
            "Who opens, reads and writes what; counted for five seconds more.",
            of::<wire::Traffic>,
        ),
        Route {
            takes: Some(fields::<wire::Measure>),
            ..get("/v1/usage", "What of a path is cached.", of::<wire::Usage>)
        },
        Route {
            answers: None,
            ..get(
                "/metrics",
                "The metrics, in the text format of Prometheus.",
                of::<wire::Status>,
            )
        },
        get(
            "/v1/openapi.json",
            "This document.",
            of::<Map<String, Value>>,
        ),
    ]
}

fn of_the_tree() -> Vec<Route> {
    vec![
        post(
            "/v1/unmount",
            "Unmounts, and ends the daemon.",
            of::<wire::Unmount>,
            of::<wire::Unmounted>,
        ),
        post(
            "/v1/mounts",
            "Hangs one more storage into the tree.",
            of::<wire::AddMount>,
            of::<wire::MountChanged>,
        ),
        post(
            "/v1/mounts/update",
            "Describes a mount in another way.",
            of::<wire::UpdateMount>,
            of::<wire::MountChanged>,
        ),
        post(
            "/v1/mounts/remove",
            "Takes a storage out of the tree.",
            of::<wire::RemoveMount>,
            of::<wire::MountChanged>,
        ),
    ]
}

fn of_paths() -> Vec<Route> {
    vec![
        post(
            "/v1/usage",
            "What of a path is cached.",
            of::<wire::Measure>,
            of::<wire::Usage>,
        ),
        post(
            "/v1/sync",
            "Looks at a path of the tree anew.",
            of::<wire::Sync>,
            of::<wire::Synced>,
        ),
        post(
            "/v1/staged/drop",
            "Gives up what a storage does not have of a file.",
            of::<wire::DropStaged>,
            of::<wire::DroppedStaged>,
        ),
        post(
            "/v1/load",
            "Begins to bring a path into the cache, or joins who does.",
            of::<wire::Load>,
            of::<wire::Job>,
        ),
        post(
            "/v1/jobs/stop",
            "Stops a load; what it fetched stays.",
            of::<wire::StopJob>,
            of::<wire::Job>,
        ),
        post(
            "/v1/free",
            "Drops what is cached of a path.",
            of::<wire::OfPath>,
            of::<wire::Freed>,
        ),
        post(
            "/v1/pin",
            "Keeps what is cached of a path, now or later.",
            of::<wire::OfPath>,
            of::<wire::Pinned>,
        ),
        post(
            "/v1/unpin",
            "Takes that back.",
            of::<wire::OfPath>,
            of::<wire::Unpinned>,
        ),
        post(
            "/v1/check",
            "Compares what is cached of a path with its storages.",
            of::<wire::Check>,
            of::<wire::Checked>,
        ),
        post(
            "/v1/scrub",
            "Compares all that is cached with its checksums.",
            of::<wire::Scrub>,
            of::<wire::Scrubbed>,
        ),
    ]
}

fn of_rules() -> Vec<Route> {
    vec![
        get(
            "/v1/rules",
            "Which paths have rules for what is cached of them.",
            of::<wire::RuleList>,
        ),
        post(
            "/v1/rules/set",
            "Says something of the cached bytes of a path.",
            of::<wire::SetRule>,
            of::<wire::Rule>,
        ),
        post(
            "/v1/rules/remove",
            "Takes that back.",
            of::<wire::RemoveRule>,
            of::<wire::Rule>,
        ),
    ]
}

/// Returns the addresses with their methods, in the order of the document.
pub fn routes() -> Vec<(&'static str, &'static str)> {
    let table = table().into_iter();
    table.map(|route| (route.method, route.address)).collect()
}

/// An answer has all its fields; a request may leave out what has a default.
fn generator(is_answer: bool) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = TYPES.into();
        settings.meta_schema = None;
    });
    match is_answer {
        true => settings.for_serialize().into_generator(),
        false => settings.for_deserialize().into_generator(),
    }
}

/// Makes the document.
pub fn document() -> Value {
    let (mut requests, mut answers) = (generator(false), generator(true));
    let failure = of::<wire::Failure>(&mut answers);
    let mut paths: Map<String, Value> = Map::new();
    for route in table() {
        let told = operation(&route, &failure, &mut requests, &mut answers);
        let address = paths.entry(route.address).or_insert_with(|| json!({}));
        address[route.method] = told;
    }
    let mut types = requests.take_definitions(true);
    types.extend(answers.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Forebay admin API",
            "version": "1",
            "description": "Answered on a Unix socket to the daemon's own user and root, and over TLS \
                            where --admin-listen says so, to who has the token. Fields are added, \
                            never renamed or given another meaning. Times are in seconds and sizes \
                            in bytes unless a name says otherwise.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": types,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

/// Returns the document as it is kept and answered.
pub fn text() -> String {
    format!("{:#}\n", document())
}

fn operation(
    route: &Route,
    failure: &Schema,
    requests: &mut SchemaGenerator,
    answers: &mut SchemaGenerator,
) -> Value {
    let content = match route.answers {
        Some(describe) => json!({"application/json": {"schema": describe(answers)}}),
        None => json!({"text/plain": {"schema": {"type": "string"}}}),
    };
    let mut told = json!({
        "summary": route.summary,
        "responses": {
            "200": {"description": "It is done.", "content": content},
            "default": {
                "description": "It was refused or failed; the status follows from the kind.",
                "content": {"application/json": {"schema": failure}},
            },
        },
    });
    match (route.takes, route.method) {
        (Some(describe), "get") => told["parameters"] = parameters(&describe(requests)),
        (Some(describe), _) => {
            let schema = describe(requests);
            told["requestBody"] = json!({"content": {"application/json": {"schema": schema}}});
        }
        (None, _) => {}
    }
    told
}

/// Each field of a type is a parameter of the query.
fn parameters(schema: &Schema) -> Value {
    let schema = schema.as_value();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let fields = schema["properties"].as_object().into_iter().flatten();
    let fields = fields.map(|(name, field)| {
        let is_required = required.iter().any(|one| one == name);
        json!({"name": name, "in": "query", "required": is_required, "schema": field})
    });
    Value::Array(fields.collect())
}
