//! The server as someone meets it who sends what nobody should, and as one who sends too much.

mod common;

use common::{chat, start};
use danlu_engine::serve::Options;
use danlu_server::{Keys, Rates};
use serde_json::{Value, json};

/// A request that is right, to each address that takes one.
fn right(id: &str) -> [(&'static str, Value); 4] {
    [
        ("/v1/chat/completions", chat(id, json!({"max_tokens": 2}))),
        ("/v1/completions", json!({"model": id, "prompt": "the", "max_tokens": 2})),
        ("/v1/responses", json!({"model": id, "input": "the", "max_output_tokens": 2})),
        ("/v1/embeddings", json!({"model": id, "input": "the"})),
    ]
}

#[test]
fn whatever_is_sent_is_answered_with_a_reason() {
    let server = start("hard", Options::default(), None);
    let kind = [("content-type", "application/json")];
    for (path, request) in right("hard") {
        assert_eq!(server.post(path, &request).status, 200, "{path} takes {request}");
        for body in [
            "",
            " ",
            "null",
            "[]",
            "3",
            "\"a\"",
            "{",
            "{}",
            "{\"model\": null}",
            "{\"model\": 1e999}",
            "\u{feff}{}",
            "{\"model\": \"\\ud800\"}",
            "{\"model\": \"a\\u0000b\", \"x\": 1}",
        ] {
            let answer = server.send("POST", path, &kind, body);
            assert_eq!(answer.status, 400, "{path} {body:?}: {}", answer.body);
            answer.error(400);
        }
        let twice = format!("{{\"model\": \"hard\", {}", &request.to_string()[1..]);
        let answer = server.send("POST", path, &kind, &twice);
        assert!(answer.status == 400 && answer.body.contains("\\\"model\\\" is there twice"), "{path}: {}", answer.body);
        let deep = format!("{{\"model\": {}1{}}}", "[".repeat(20_000), "]".repeat(20_000));
        server.send("POST", path, &kind, &deep).error(400);
        for wrong in ["text/plain", "application/jsonp", "application/json5", "multipart/form-data", ""] {
            server.send("POST", path, &[("content-type", wrong)], &request.to_string()).error(415);
        }
        server.send("POST", path, &[], &request.to_string()).error(415);
        let with_charset = [("content-type", "Application/JSON; charset=utf-8")];
        assert_eq!(server.send("POST", path, &with_charset, &request.to_string()).status, 200);
        for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"] {
            let answer = server.send(method, path, &[], "");
            answer.error(405);
            assert!(answer.headers.contains("\r\nallow: post"), "{}", answer.headers);
        }
        server.send("POST", &format!("{path}/"), &kind, "{}").error(404);
        // Each parameter with each kind of value: whatever comes of it is no fault of the server.
        let settings = [
            "model",
            "messages",
            "prompt",
            "input",
            "instructions",
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "frequency_penalty",
            "presence_penalty",
            "logit_bias",
            "seed",
            "n",
            "stop",
            "stream",
            "stream_options",
            "response_format",
            "text",
            "logprobs",
            "top_logprobs",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "truncation",
            "encoding_format",
            "dimensions",
            "nonsense",
        ];
        let values = [
            json!(null),
            json!(true),
            json!(-1),
            json!(0),
            json!(1e300),
            json!(-1e300),
            json!(u64::MAX),
            json!(0.5),
            json!(""),
            json!("\u{0}🦀\u{202e}"),
            json!([]),
            json!([null]),
            json!([[]]),
            json!({}),
            json!({"type": "json_schema"}),
            json!({"": ""}),
            json!([{"type": "function"}]),
        ];
        for key in settings {
            for value in &values {
                // Without a limit an answer fills the whole context.
                if value.is_null() && key.starts_with("max_") {
                    continue;
                }
                let mut request = request.clone();
                request[key] = value.clone();
                let answer = server.post(path, &request);
                assert!([200, 400, 404].contains(&answer.status), "{path} {key}={value}: {} {}", answer.status, answer.body);
                if answer.status != 200 {
                    answer.error(answer.status);
                }
            }
        }
    }
}

#[test]
fn addresses_are_read_with_care() {
    let server = start("paths", Options::default(), None);
    for path in ["/v1/models/%ff", "/v1/models/%00", "/v1/models/%F0%9F%A6%80", "/v1/models/..%2f..%2fetc", "/v1/models/a%20b"] {
        let answer = server.get(path);
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
        answer.error(answer.status);
    }
    for path in ["/v1/models", "/v1/models/paths", "/metrics", "/health"] {
        let answer = server.send("POST", path, &[("content-type", "application/json")], "{}");
        answer.error(405);
        assert!(answer.headers.contains("allow: get"), "{}", answer.headers);
    }
    assert_eq!(server.send("HEAD", "/v1/models", &[], "").status, 200);
}

#[test]
fn a_key_may_ask_as_often_as_its_rates_say() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let key = |name: &str, requests, tokens| Keys::create(&file, name, Rates { requests, tokens }).unwrap();
    let (often, much, free) = (key("often", Some(2), None), key("much", None, Some(1)), key("free", None, None));
    let mut server = start("rated", Options::default(), Some(Keys::read(&file).unwrap()));
    let ask = |server: &common::Running| server.post("/v1/chat/completions", &chat("rated", json!({"max_tokens": 1})));

    server.key = Some(often);
    assert_eq!((ask(&server).status, ask(&server).status), (200, 200));
    let third = ask(&server);
    assert!(third.error(429).contains("the key often may ask for 2 requests a minute"), "{}", third.body);
    let wait = third.headers.split("retry-after: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<u64>().ok());
    assert!(wait.is_some_and(|wait| (1..=30).contains(&wait)), "{}", third.headers);
    assert_eq!(third.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(server.get("/v1/models").status, 200, "looking around is not counted");

    // What is read counts from the first request on, and embeddings count too.
    server.key = Some(much);
    assert_eq!(server.post("/v1/embeddings", &json!({"model": "rated", "input": "the cat"})).status, 200);
    assert!(ask(&server).error(429).contains("1 tokens a minute"));
    server.key = Some(free);
    assert!((0..5).all(|_| ask(&server).status == 200), "who has no rates has no limit");
}
