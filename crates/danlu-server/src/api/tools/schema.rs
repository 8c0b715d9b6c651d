use serde_json::{Map, Value, json};

use super::Function;

/// The JSON schema of a call of one of the functions: an object with `name` and, under the name `arguments`, what the function takes.
pub fn of_call<'a>(functions: impl Iterator<Item = &'a Function>, arguments: &str) -> Value {
    let (mut calls, mut definitions) = (vec![], Map::new());
    for (i, function) in functions.enumerate() {
        let place = format!("f{i}");
        let mut properties = Map::new();
        properties.insert("name".to_owned(), json!({"const": function.name}));
        properties.insert(arguments.to_owned(), json!({"$ref": format!("#/$defs/{place}")}));
        calls.push(json!({
            "type": "object",
            "properties": properties,
            "required": ["name", arguments],
            "additionalProperties": false,
        }));
        let parameters = parameters(function, &format!("#/$defs/{place}"));
        definitions.insert(place, parameters);
    }
    json!({"anyOf": calls, "$defs": definitions})
}

/// A function's parameters as they stand at `place` of the whole schema. They are an object; and keys that nobody named are left out, which
/// the schema allows and small models would write without end.
fn parameters(function: &Function, place: &str) -> Value {
    let mut parameters = function.parameters.clone().unwrap_or_default();
    // They say where references begin, which is elsewhere now.
    parameters.shift_remove("$schema");
    parameters.shift_remove("$id");
    let refers = ["$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| parameters.contains_key(*key));
    if !refers {
        parameters.entry("type").or_insert_with(|| json!("object"));
        parameters.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    let mut parameters = Value::Object(parameters);
    rebase(&mut parameters, place);
    parameters
}

/// Makes references within the schema refer to where it stands now.
fn rebase(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(reference) if key == "$ref" && reference.starts_with('#') => {
                        *reference = format!("{place}{}", reference[1..].trim_end_matches('/'));
                    }
                    value => rebase(value, place),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rebase(value, place)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, parameters: Value) -> Function {
        serde_json::from_value(json!({"name": name, "parameters": parameters})).unwrap()
    }

    #[test]
    fn references_follow_their_schema() {
        let tree = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"root": {"$ref": "#/$defs/Node"}, "again": {"$ref": "#"}},
            "$defs": {"Node": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}},
        });
        let functions = [function("plant", Value::Null), function("grow", tree)];
        let schema = of_call(functions.iter(), "parameters");
        assert_eq!(schema["$defs"]["f0"], json!({"type": "object", "additionalProperties": false}));
        let grow = &schema["$defs"]["f1"];
        assert_eq!(grow["properties"]["root"]["$ref"], "#/$defs/f1/$defs/Node");
        assert_eq!(grow["properties"]["again"]["$ref"], "#/$defs/f1");
        assert_eq!(grow["$defs"]["Node"]["properties"]["children"]["items"]["$ref"], "#/$defs/f1/$defs/Node");
        assert!(grow.get("$schema").is_none() && grow["additionalProperties"] == false);
        let calls = schema["anyOf"].as_array().unwrap();
        assert_eq!((&calls[1]["properties"]["name"], calls.len()), (&json!({"const": "grow"}), 2));
        assert_eq!(calls[1]["required"], json!(["name", "parameters"]));
    }
}
