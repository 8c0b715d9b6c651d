//! The API as OpenAPI describes it: what is taken is described as exactly as it is checked, so that other programs can rely on it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, OpenApi};

use crate::api::{IGNORED, chat, completions, embeddings, models, responses};
use crate::error::ErrorBody;
use crate::{metrics, server};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "danlu",
        description = "Models over the API of OpenAI's clients. The routes of the page under /studio belong to it and change with it, so they are not described."
    ),
    paths(
        chat::complete,
        completions::complete,
        responses::create,
        embeddings::create,
        models::list,
        models::show,
        metrics::show,
        server::health
    ),
    components(schemas(chat::ChatChunk, responses::StreamEvent, ErrorBody))
)]
struct Document;

/// What may be answered instead of what was asked for.
pub struct Errors;

impl IntoResponses for Errors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let all = [
            (400, "The request is wrong, or its prompt does not fit"),
            (401, "A key is needed"),
            (403, "Without keys, only this machine is answered"),
            (404, "There is no such model"),
            (413, "The request is too large"),
            (415, "The request is not JSON"),
            (429, "Too many requests wait, or the key's rate is passed; `Retry-After` says when to come again, in seconds"),
            (500, "The model has failed"),
            (503, "The model has failed before"),
        ];
        let response = |description: &str| {
            let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
            ResponseBuilder::new().description(description).content("application/json", body)
        };
        all.map(|(status, description)| (status.to_string(), response(description).into())).into()
    }
}

/// What the document says of the models that are served.
#[derive(Debug, Default)]
pub struct Served {
    /// All names that they answer to.
    pub names: BTreeSet<String>,
    /// The most tokens that one of them knows.
    pub vocabulary: usize,
    /// The most numbers that embeddings of one of them have.
    pub embedding_size: usize,
}

/// The whole document; `keys` when they are needed.
pub fn document(keys: bool, served: &Served) -> Value {
    // Its keys are text and its numbers finite, so that it always is JSON.
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    let schemas = &mut document["components"]["schemas"];
    for request in ["ChatRequest", "CompletionRequest", "EmbeddingRequest", "ResponseRequest"] {
        close(schemas, request);
        schemas[request]["properties"]["model"]["enum"] = json!(served.names);
    }
    // Lists without anything in them would be of two kinds.
    let id = json!({"type": "integer", "minimum": 0, "maximum": served.vocabulary.saturating_sub(1)});
    let tokens = || json!({"minItems": 1, "items": id});
    let texts = |most: usize| json!({"minItems": 1, "maxItems": most, "items": {"type": "string", "minLength": 1}});
    let many = json!({"minItems": 1, "maxItems": 2048, "items": {"type": "array", "minItems": 1, "items": id}});
    refine(schemas, "TextOrTokens", &[json!({}), tokens(), json!({"minItems": 1, "maxItems": 1})]);
    refine(schemas, "OneOrMore", &[json!({"minLength": 1}), json!({"maxItems": 4, "items": {"type": "string", "minLength": 1}})]);
    refine(schemas, "Input", &[json!({"minLength": 1}), texts(2048), tokens(), many]);
    refine(schemas, "ResponseInput", &[json!({}), json!({"minItems": 1})]);
    schemas["EmbeddingRequest"]["properties"]["dimensions"]["maximum"] = json!(served.embedding_size);
    for request in ["ChatRequest", "CompletionRequest"] {
        let bias = &mut schemas[request]["properties"]["logit_bias"];
        bias["propertyNames"] = json!({"pattern": "^[0-9]{1,9}$"});
        bias["additionalProperties"] = json!({"type": "number", "minimum": -100, "maximum": 100});
    }
    bound_integers(schemas);
    for (path, piece) in
        [("/v1/chat/completions", "ChatChunk"), ("/v1/completions", "TextCompletion"), ("/v1/responses", "StreamEvent")]
    {
        let content = &mut document["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"];
        content["schema"] = event(piece, path != "/v1/responses");
    }
    document["components"]["securitySchemes"] = json!({"key": {"type": "http", "scheme": "bearer"}});
    document["security"] = if keys { json!([{"key": []}]) } else { json!([{}]) };
    document["paths"]["/health"]["get"]["security"] = json!([{}]);
    document
}

/// An event of an answer that is streamed, by its fields: JSON in `data`, and at the end `[DONE]` where that is the way. An answer that fails ends with
/// an error.
fn event(piece: &str, ends_with_done: bool) -> Value {
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let data = |schema: Value| json!({"type": "string", "contentMediaType": "application/json", "contentSchema": schema});
    if ends_with_done {
        let pieces = data(json!({"anyOf": [schema(piece), schema("ErrorBody")]}));
        let data = json!({"anyOf": [{"type": "string", "const": "[DONE]"}, pieces]});
        return json!({"type": "object", "properties": {"data": data}, "required": ["data"]});
    }
    let name = json!({"type": "string", "description": "The event's `type`."});
    json!({"type": "object", "properties": {"event": name, "data": data(schema(piece))}, "required": ["event", "data"]})
}

/// Makes a request one object that takes no other keys: it is put together from parts, and each part alone would refuse the other's keys.
fn close(schemas: &mut Value, name: &str) {
    let schema = schemas[name].take();
    let parts = match &schema["allOf"] {
        Value::Array(parts) => parts.clone(),
        _ => vec![schema.clone()],
    };
    let (mut properties, mut required) = (Map::new(), vec![]);
    for part in &parts {
        let part = match part["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
            Some(name) => &schemas[name],
            None => part,
        };
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    for name in IGNORED {
        properties.entry(name).or_insert_with(|| json!({"description": "Taken and not looked at."}));
    }
    let mut whole = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    if let Some(description) = schema.get("description") {
        whole["description"] = description.clone();
    }
    schemas[name] = whole;
}

/// Adds to each kind that a value may have, in their order, what else must hold.
fn refine(schemas: &mut Value, name: &str, more: &[Value]) {
    for (kind, more) in schemas[name]["oneOf"].as_array_mut().into_iter().flatten().zip(more) {
        if let (Some(kind), Some(more)) = (kind.as_object_mut(), more.as_object()) {
            kind.extend(more.clone());
        }
    }
}

/// Integers have the bounds of the types that they are read into.
fn bound_integers(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let bounds = match object.get("format").and_then(Value::as_str) {
                Some("int32") if object.contains_key("minimum") => Some((json!(0), json!(u32::MAX))),
                Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
                _ => None,
            };
            if let Some((least, most)) = bounds {
                object.entry("minimum").or_insert(least);
                object.entry("maximum").or_insert(most);
                // The format would say otherwise.
                object.shift_remove("format");
            }
            object.values_mut().for_each(bound_integers);
        }
        Value::Array(values) => values.iter_mut().for_each(bound_integers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_take_no_other_keys() {
        let document = document(false, &Served { names: ["a".to_owned(), "a@1".to_owned()].into(), ..Served::default() });
        let chat = &document["components"]["schemas"]["ChatRequest"];
        assert_eq!(chat["additionalProperties"], false);
        for key in ["model", "messages", "tools", "temperature", "response_format", "user", "stream"] {
            assert!(chat["properties"].get(key).is_some(), "{key}");
        }
        assert!(chat["properties"].get("other").is_none());
        let required: Vec<&str> = chat["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(required, ["model", "messages"]);
        assert_eq!(chat["properties"]["model"]["enum"], json!(["a", "a@1"]));
    }

    #[test]
    fn numbers_have_the_bounds_they_are_checked_for() {
        let document = document(true, &Served { names: BTreeSet::new(), vocabulary: 50, embedding_size: 8 });
        let schemas = &document["components"]["schemas"];
        let property = |schema: &str, key: &str| schemas[schema]["properties"][key].clone();
        let seed = property("ChatRequest", "seed");
        assert_eq!((&seed["minimum"], &seed["maximum"]), (&json!(i64::MIN), &json!(i64::MAX)));
        let most = property("ChatRequest", "max_tokens");
        assert_eq!((&most["minimum"], &most["maximum"]), (&json!(1), &json!(u32::MAX)));
        assert_eq!(property("ChatRequest", "top_p")["minimum"].as_f64(), Some(0.0));
        let dimensions = property("EmbeddingRequest", "dimensions");
        assert_eq!((dimensions["minimum"].as_f64(), dimensions["maximum"].as_u64()), (Some(1.0), Some(8)));
        assert_eq!(schemas["Input"]["oneOf"][3]["items"]["items"]["maximum"], 49);
        assert_eq!(schemas["Input"]["oneOf"][1]["maxItems"], 2048);
        assert_eq!(document["security"], json!([{"key": []}]));
    }

    #[test]
    fn all_that_is_referred_to_is_there() {
        let document = document(true, &Served::default());
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                assert!(operation["responses"].get("200").is_some(), "{method} {path}");
                assert!(path == "/health" || operation["responses"].get("401").is_some(), "{method} {path}");
            }
        }
    }
}
