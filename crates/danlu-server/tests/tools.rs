//! Calls of tools, in chats and responses, by a model of random weights: what is asked for must be right whatever the model likes.

mod common;

use common::{Running, chat, start};
use danlu_engine::serve::Options;
use serde_json::{Value, json};

/// Functions whose arguments end soon, whatever is drawn.
fn tools() -> Value {
    let weather = json!({
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/City"}, "tomorrow": {"type": "boolean"}},
        "required": ["city", "tomorrow"],
        "$defs": {"City": {"enum": ["Rome", "Oslo"]}},
    });
    json!([
        {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": weather, "strict": true}},
        {"type": "function", "function": {"name": "stop"}},
    ])
}

#[track_caller]
fn check_arguments(name: &str, arguments: &str) {
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{error}: {arguments:?}"));
    match name {
        "weather" => {
            assert!(["Rome", "Oslo"].contains(&arguments["city"].as_str().unwrap()), "{arguments}");
            assert!(arguments["tomorrow"].is_boolean() && arguments.as_object().unwrap().len() == 2, "{arguments}");
        }
        "stop" => assert_eq!(arguments, json!({})),
        other => panic!("{other} is no function"),
    }
}

fn named(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[test]
fn a_call_that_is_asked_for_is_made_and_right() {
    let server = start("caller", Options::default(), None);
    for seed in 0..4 {
        let more = json!({"tools": tools(), "tool_choice": "required", "temperature": 1, "seed": seed, "max_tokens": 200});
        let answer = server.post("/v1/chat/completions", &chat("caller", more));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let choice = &answer.json()["choices"][0];
        assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
        let calls = choice["message"]["tool_calls"].as_array().unwrap();
        assert_eq!((calls.len(), calls[0]["type"].as_str()), (1, Some("function")));
        assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
        let function = &calls[0]["function"];
        check_arguments(function["name"].as_str().unwrap(), function["arguments"].as_str().unwrap());
    }
    let more = json!({"tools": tools(), "tool_choice": named("weather"), "max_tokens": 200});
    let whole = server.post("/v1/chat/completions", &chat("caller", more.clone())).json();
    let want = &whole["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(want["name"], "weather");

    // The same in pieces, as OpenAI's clients put them together.
    let mut streamed = chat("caller", more);
    streamed["stream"] = json!(true);
    let (events, done) = server.post("/v1/chat/completions", &streamed).events();
    assert!(done);
    let deltas: Vec<&Value> = events.iter().filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    assert!(deltas.iter().all(|delta| delta["index"] == 0));
    assert_eq!((&deltas[0]["function"]["name"], &deltas[0]["type"]), (&json!("weather"), &json!("function")));
    assert!(deltas[0]["id"].is_string() && deltas[1..].iter().all(|delta| delta.get("id").is_none()));
    let arguments: String = deltas.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
    assert_eq!(want["arguments"], arguments);
    assert!(deltas.len() > 3, "arguments come as they are written");
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    assert!(events.iter().all(|event| event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().is_empty()));

    // A call that is cut off says so.
    let cut = json!({"tools": tools(), "tool_choice": "required", "max_tokens": 3});
    let cut = server.post("/v1/chat/completions", &chat("caller", cut)).json();
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
}

#[test]
fn a_model_that_may_call_need_not() {
    let server = start("free", Options::default(), None);
    let plain = server.post("/v1/chat/completions", &chat("free", json!({}))).json();
    // As if there were none.
    let none = server.post("/v1/chat/completions", &chat("free", json!({"tools": tools(), "tool_choice": "none"}))).json();
    assert_eq!(none["choices"][0]["message"], plain["choices"][0]["message"]);
    assert_eq!(none["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"]);
    let auto = server.post("/v1/chat/completions", &chat("free", json!({"tools": tools(), "parallel_tool_calls": false}))).json();
    assert!(auto["usage"]["prompt_tokens"].as_u64() > plain["usage"]["prompt_tokens"].as_u64(), "the model is told of them");
    assert!(auto["choices"][0]["message"]["content"].is_string(), "random weights write no call");
    // What came of a call is read.
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}});
    let messages = json!([
        {"role": "user", "content": "the cat"},
        {"role": "assistant", "content": null, "tool_calls": [call], "refusal": null},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]);
    let after = server.post("/v1/chat/completions", &chat("free", json!({"messages": messages, "tools": tools()})));
    assert_eq!(after.status, 200, "{}", after.body);
}

#[test]
fn what_is_wrong_with_tools_is_said() {
    let server = start("picky", Options::default(), None);
    let wrong = |more: Value, says: &str| {
        let message = server.post("/v1/chat/completions", &chat("picky", more)).error(400);
        assert!(message.contains(says), "{message:?} does not say {says:?}");
    };
    wrong(json!({"tool_choice": "required"}), "no tools");
    wrong(json!({"tools": tools(), "tool_choice": named("nothing")}), "nothing");
    wrong(json!({"tools": tools(), "tool_choice": 3}), "tool_choice must be");
    wrong(json!({"tools": [named("a b")]}), "a b");
    wrong(json!({"tools": tools(), "response_format": {"type": "json_object"}}), "tool_choice");
    let bad = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}]);
    wrong(json!({"tools": bad, "tool_choice": "required"}), "parameters of the tools");
    let call = json!({"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    wrong(json!({"messages": [{"role": "user", "content": "a", "tool_calls": [call]}]}), "assistant");
}

fn respond(server: &Running, more: Value) -> common::Answer {
    let mut request = json!({"model": "responder", "input": "the cat", "max_output_tokens": 12, "temperature": 0});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("/v1/responses", &request)
}

#[test]
fn a_response_is_the_answer_of_a_chat() {
    let server = start("responder", Options::default(), None);
    let said = server.post("/v1/chat/completions", &chat("responder", json!({}))).json();
    let want = said["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let whole = respond(&server, json!({})).json();
    assert_eq!((&whole["object"], &whole["error"], &whole["store"]), (&json!("response"), &Value::Null, &json!(false)));
    let message = &whole["output"][0];
    assert_eq!((&message["type"], &message["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!((&message["content"][0]["type"], &message["content"][0]["text"]), (&json!("output_text"), &json!(want)));
    assert_eq!(whole["usage"]["output_tokens"], said["usage"]["completion_tokens"]);
    let cut = said["choices"][0]["finish_reason"] == "length";
    assert_eq!(whole["status"], if cut { "incomplete" } else { "completed" });
    let as_messages = json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "the cat"}]}]});
    assert_eq!(respond(&server, as_messages).json()["output"][0]["content"], message["content"]);
    let told = respond(&server, json!({"instructions": "the dog"})).json();
    assert!(told["usage"]["input_tokens"].as_u64() > whole["usage"]["input_tokens"].as_u64());

    let answer = respond(&server, json!({"stream": true}));
    assert!(answer.body.contains("event: response.output_text.delta\n"), "{}", answer.body);
    let (events, done) = answer.events();
    assert!(!done, "these end with their last event");
    assert!(events.iter().enumerate().all(|(i, event)| event["sequence_number"] == i));
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds[..4],
        ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    );
    let last = if cut { "response.incomplete" } else { "response.completed" };
    let end = ["response.output_text.done", "response.content_part.done", "response.output_item.done", last];
    assert_eq!(kinds[kinds.len() - 4..], end);
    let text: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(text, want);
    assert_eq!(events.last().unwrap()["response"]["output"][0]["content"], message["content"]);
}

#[test]
fn a_response_calls_and_keeps_to_a_schema() {
    let server = start("responder", Options::default(), None);
    let function = |tool: &Value| {
        let mut flat = tool["function"].clone();
        flat["type"] = json!("function");
        flat
    };
    let flat: Vec<Value> = tools().as_array().unwrap().iter().map(function).collect();
    let more = json!({"tools": flat, "tool_choice": {"type": "function", "name": "weather"}, "max_output_tokens": 200});
    let whole = respond(&server, more.clone()).json();
    let call = &whole["output"][0];
    assert_eq!(
        (&call["type"], &call["status"], &whole["status"]),
        (&json!("function_call"), &json!("completed"), &json!("completed"))
    );
    check_arguments(call["name"].as_str().unwrap(), call["arguments"].as_str().unwrap());
    let mut streamed = more;
    streamed["stream"] = json!(true);
    let (events, _) = respond(&server, streamed).events();
    let deltas = events.iter().filter(|event| event["type"] == "response.function_call_arguments.delta");
    let arguments: String = deltas.filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(call["arguments"], arguments);
    assert_eq!(events.last().unwrap()["response"]["output"][0]["arguments"], arguments);

    // The next turn, with what came of the call.
    let turn = json!([
        {"role": "user", "content": "the cat"}, call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"},
    ]);
    assert_eq!(respond(&server, json!({"input": turn})).status, 200);

    let schema =
        json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "name": "answer", "strict": true, "schema": schema});
    let held = respond(&server, json!({"text": {"format": format}, "temperature": 1, "max_output_tokens": 200})).json();
    let text = held["output"][0]["content"][0]["text"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert!(value["ok"].is_boolean());

    assert!(respond(&server, json!({"previous_response_id": "resp_1"})).error(400).contains("whole conversation"));
    assert!(respond(&server, json!({"input": []})).error(400).contains("at least one"));
}
