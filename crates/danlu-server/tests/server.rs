//! The server as its clients meet it: on a free port, over plain HTTP, with a tiny model of random weights.

mod common;
mod studio;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use danlu_data::chat::{Encoder, Message, Template};
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::serve::Options;
use danlu_engine::{Generator, Sampling};
use danlu_models::folder;
use danlu_server::{Keys, Rates, Server};
use serde_json::{Value, json};

use common::{CONTEXT, chat, model, start};

/// What the plain generator says to the same conversation.
fn plain(sampling: &Sampling) -> (String, usize, usize) {
    let (decoder, config) = folder::load(model(), &Device::flex()).unwrap();
    let tokenizer = Tokenizer::load(model()).unwrap();
    let encoder = Encoder::new(Template::of_folder(model()).unwrap().unwrap(), tokenizer.clone()).unwrap();
    let generator = Generator::new(decoder, tokenizer).with_config(&config).with_end(encoder.turn_end());
    let prompt = encoder.prompt(&[Message::user("the cat")], &[]).unwrap();
    let mut text = String::new();
    let finish = generator.generate_from(&prompt, sampling, |piece| {
        text.push_str(piece);
        ControlFlow::Continue(())
    });
    (text, finish.unwrap().tokens, prompt.len())
}

#[test]
fn a_conversation_is_answered_whole_and_in_pieces() {
    let server = start("talker", Options::default(), None);
    let (want, tokens, prompt) = plain(&Sampling { max_tokens: 12, ..Sampling::greedy() });
    let answer = server.post("/v1/chat/completions", &chat("talker", json!({"logprobs": true, "top_logprobs": 2})));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let whole = answer.json();
    assert_eq!((whole["object"].as_str(), whole["model"].as_str()), (Some("chat.completion"), Some("talker")));
    let choice = &whole["choices"][0];
    assert_eq!(choice["message"]["content"], want);
    assert_eq!(whole["usage"]["completion_tokens"], tokens);
    assert_eq!(whole["usage"]["total_tokens"], tokens + prompt);
    let log_probs = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(log_probs.len(), tokens);
    let bytes: Vec<u8> =
        log_probs.iter().flat_map(|one| one["bytes"].as_array().unwrap()).map(|b| b.as_u64().unwrap() as u8).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), want, "the tokens' bytes are the text");
    for one in log_probs {
        assert_eq!(one["top_logprobs"].as_array().unwrap().len(), 2);
        assert_eq!(one["top_logprobs"][0]["logprob"], one["logprob"], "greedy takes the likeliest");
    }

    let streamed = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = server.post("/v1/chat/completions", &chat("talker", streamed));
    assert!(answer.headers.contains("text/event-stream"), "{}", answer.headers);
    let (events, done) = answer.events();
    assert!(done);
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, want);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let finish: Vec<&str> = events.iter().filter_map(|event| event["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(finish, [choice["finish_reason"].as_str().unwrap()]);
    let usage = &events.last().unwrap()["usage"];
    assert_eq!((&usage["completion_tokens"], &usage["prompt_tokens"]), (&json!(tokens), &json!(prompt)));
    assert!(events.iter().all(|event| event["id"] == events[0]["id"]));

    // Parts of text, several answers, a seed, a stop string.
    let drawn = |n: usize, seed: u64| {
        let more = json!({"temperature": 1, "n": n, "seed": seed, "messages": [{"role": "user", "content": [{"type": "text", "text": "the cat"}]}]});
        let answer = server.post("/v1/chat/completions", &chat("talker", more)).json();
        answer["choices"].as_array().unwrap().iter().map(|one| one["message"]["content"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(drawn(3, 7), drawn(3, 7));
    assert_eq!(drawn(3, 7)[1], drawn(1, 8)[0]);
    assert_ne!(drawn(1, 7), drawn(1, 8));
    let stop: String = want.chars().skip(2).take(2).collect();
    let stopped = server.post("/v1/chat/completions", &chat("talker", json!({"stop": stop}))).json();
    assert_eq!(stopped["choices"][0]["message"]["content"], want[..want.find(&stop).unwrap()]);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert!(server.measure("danlu_answers_total", "talker") >= 7.0);
}

#[test]
fn a_text_is_gone_on_with_and_held_to_a_schema() {
    let server = start("writer", Options::default(), None);
    let request = json!({"model": "writer@1", "prompt": "the dog", "max_tokens": 10, "temperature": 0, "logprobs": 1});
    let whole = server.post("/v1/completions", &request).json();
    let text = whole["choices"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(
        (whole["object"].as_str(), whole["choices"][0]["logprobs"]["tokens"].as_array().map(Vec::len)),
        (Some("text_completion"), Some(10))
    );
    let ids = Tokenizer::load(model()).unwrap().encode("the dog").unwrap();
    let mut streamed = request.clone();
    streamed["stream"] = json!(true);
    let (events, done) = server.post("/v1/completions", &streamed).events();
    assert!(done && !text.is_empty());
    assert_eq!(events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect::<String>(), text);
    let mut as_tokens = request;
    let begin = whole["usage"]["prompt_tokens"].as_u64().unwrap() as usize - ids.len();
    as_tokens["prompt"] = json!([vec![Tokenizer::load(model()).unwrap().end_of_text(); begin], ids].concat());
    assert_eq!(server.post("/v1/completions", &as_tokens).json()["choices"][0]["text"], text);

    // Whole numbers may be written as floats, and at 0 there is only the likeliest token.
    let odd = json!({"model": "writer", "prompt": "the dog", "max_tokens": 10.0, "temperature": 1, "top_p": 0});
    assert_eq!(server.post("/v1/completions", &odd).json()["choices"][0]["text"], text);

    let schema =
        json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}});
    let more = json!({"response_format": format, "temperature": 1, "seed": 3, "max_tokens": 200});
    let answer = server.post("/v1/chat/completions", &chat("writer", more)).json();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let value: Value = serde_json::from_str(content).unwrap_or_else(|error| panic!("{error}: {content:?}"));
    assert!(value["ok"].is_boolean() && value.as_object().unwrap().len() == 1);
    let more = json!({"response_format": {"type": "regex", "pattern": "(ja|nein), [0-9]{3}"}, "temperature": 1});
    let answer = server.post("/v1/chat/completions", &chat("writer", more)).json();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let (word, number) = content.split_once(", ").unwrap();
    assert!(["ja", "nein"].contains(&word) && number.len() == 3 && number.parse::<u32>().is_ok(), "{content}");
}

#[test]
fn what_is_wrong_is_said_as_openai_says_it() {
    let server = start("strict", Options { queue: 0, ..Options::default() }, None);
    let path = "/v1/chat/completions";
    let wrong = |status: u16, more: Value, says: &str| {
        let message = server.post(path, &chat("strict", more)).error(status);
        assert!(message.contains(says), "{message:?} does not say {says:?}");
    };
    wrong(404, json!({"model": "nobody"}), "there is strict");
    wrong(400, json!({"messages": []}), "at least one message");
    wrong(400, json!({"messages": [{"role": "king", "content": "a"}]}), "king");
    wrong(400, json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "image_url");
    wrong(400, json!({"temperature": -1}), "temperature must be 0 or more");
    wrong(400, json!({"max_tokens": 0}), "at least one token");
    wrong(400, json!({"max_tokens": 0, "max_completion_tokens": 2}), "at least one token");
    wrong(400, json!({"response_format": {"type": 0}}), "must be a text");
    wrong(400, json!({"response_format": {"type": "json_schema", "json_schema": {"schema": true}}}), "map");
    wrong(400, json!({"repetition_penalty": 1e-9}), "at least 0.001");
    wrong(400, json!({"n": 99}), "n must be from 1 to 16");
    wrong(400, json!({"stop": ["a", "b", "c", "d", "e"]}), "at most 4");
    wrong(400, json!({"logit_bias": {"one": 1}}), "one");
    wrong(400, json!({"logit_bias": {"99999": 1}}), "99999");
    wrong(400, json!({"top_logprobs": 3}), "needs logprobs");
    wrong(400, json!({"temperatur": 1}), "unknown parameter: temperatur");
    wrong(400, json!({"tools": [{"type": "function"}]}), "function");
    wrong(400, json!({"functions": []}), "use tools");
    wrong(400, json!({"response_format": {"type": "regex", "pattern": "("}}), "response_format");
    let long = "the ".repeat(CONTEXT);
    let message = server.post(path, &chat("strict", json!({"messages": [{"role": "user", "content": long}]}))).error(400);
    assert!(message.contains("tokens and the model's context 8192"), "{message}");

    // Nothing may wait here.
    let full = server.post(path, &chat("strict", json!({"user": "ann", "seed": null})));
    assert!(full.error(429).contains("waiting") && full.headers.contains("retry-after: 1"), "{}", full.headers);

    let json = [("content-type", "application/json")];
    assert!(server.send("POST", path, &json, "{\"model\": ").error(400).contains("line 1"));
    assert!(server.send("POST", path, &json, &" ".repeat(100_001)).error(413).contains("length limit"));
    server.send("POST", path, &[("content-type", "text/plain")], "{}").error(415);
    let other = server.get(path);
    other.error(405);
    assert!(other.headers.contains("allow: post"), "{}", other.headers);
    server.get("/v1/nothing").error(404);
    server.get("/v1/models/nobody").error(404);
    let foreign = [("host", "evil.example"), ("content-type", "application/json")];
    assert!(server.send("POST", path, &foreign, "{}").error(403).contains("evil.example"));
}

#[test]
fn what_there_is_can_be_looked_at() {
    let server = start("shown", Options::default(), None);
    let models = server.get("/v1/models").json();
    assert_eq!((&models["data"][0]["id"], &models["data"][0]["chat"]), (&json!("shown"), &json!(true)));
    assert_eq!(server.get("/v1/models/shown@1").json()["context"], CONTEXT);
    assert_eq!(server.get("/health").json()["status"], "ok");
    let document = server.get("/openapi.json").json();
    for path in
        ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/models", "/metrics", "/health"]
    {
        assert!(document["paths"].get(path).is_some(), "{path} is not described");
    }
    let schema = document["components"]["schemas"].to_string();
    assert!(schema.contains("frequency_penalty") && schema.contains("From -2 to 2"));
    let page = server.get("/");
    assert!(page.status == 200 && page.headers.contains("default-src 'self'") && page.body.contains("<!doctype html>"));
    // All that the page loads is there, and nothing is from elsewhere.
    for part in page.body.split(['"', '\'']).filter(|part| part.starts_with("/web/")) {
        assert_eq!(server.get(part).status, 200, "{part}");
    }
    assert!(!page.body.contains("http:") && !page.body.contains("https:"));
    assert_eq!(server.get("/web/..%2fCargo.toml").status, 404);
    let cors = server.send("OPTIONS", "/v1/chat/completions", &[("origin", "http://evil.example")], "");
    assert!(!cors.headers.contains("access-control"), "{}", cors.headers);
}

#[test]
fn with_keys_only_who_has_one_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let key = Keys::create(&file, "ann", Rates::default()).unwrap();
    let mut server = start("locked", Options::default(), Some(Keys::read(&file).unwrap()));
    for path in ["/v1/models", "/metrics"] {
        let answer = server.get(path);
        answer.error(401);
        assert!(answer.headers.contains("www-authenticate: bearer"));
    }
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
    server.key = Some("sk-danlu-wrong".to_owned());
    assert!(server.get("/v1/models").error(401).contains("not known"));
    server.key = Some(key);
    assert_eq!(server.get("/v1/models").status, 200);
    assert_eq!(server.send("GET", "/v1/models", &[("host", "models.example")], "").status, 200, "with keys any name is answered");

    let open = Server { models: vec![], keys: None, studio: None, body_limit: 0 };
    let message = open.bind("0.0.0.0:0".parse().unwrap()).unwrap_err().to_string();
    assert!(message.contains("--api-key-file"), "{message}");
}

/// A request whose answer takes seconds, and which cannot end before.
fn endless(id: &str, more: Value) -> Value {
    let tokenizer = Tokenizer::load(model()).unwrap();
    let ends = ["<|endoftext|>", "<|im_end|>"].map(|token| (tokenizer.token_to_id(token).unwrap().to_string(), -100));
    let mut request = chat(
        id,
        json!({"stream": true, "max_tokens": CONTEXT, "logit_bias": serde_json::Map::from_iter(ends.map(|(id, bias)| (id, json!(bias))))}),
    );
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

fn first_piece(stream: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while !line.contains("delta") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended before it began");
    }
}

#[test]
fn a_client_that_goes_away_is_not_worked_for() {
    let server = start("left", Options { kept_tokens: 0, ..Options::default() }, None);
    let headers = [("content-type", "application/json")];
    let mut streamed = server.open("POST", "/v1/chat/completions", &headers, &endless("left", json!({})).to_string());
    first_piece(&mut streamed);
    let whole =
        server.open("POST", "/v1/chat/completions", &headers, &endless("left", json!({"stream": false, "n": 3})).to_string());
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what} did not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait("both run", &|| server.measure("danlu_running", "left") == 4.0);
    drop(streamed);
    wait("the first is dropped", &|| server.measure("danlu_running", "left") == 3.0);
    drop(whole);
    wait("the second is dropped", &|| server.measure("danlu_cancelled_total", "left") == 2.0);
    wait("nothing runs", &|| server.measure("danlu_running", "left") == 0.0);
    assert_eq!(server.measure("danlu_answers_total", "left"), 0.0);
}

#[test]
fn a_server_that_stops_finishes_what_streams() {
    let mut server = start("stopping", Options::default(), None);
    let headers = [("content-type", "application/json")];
    let request = endless("stopping", json!({"max_tokens": 400})).to_string();
    let mut streamed = server.open("POST", "/v1/chat/completions", &headers, &request);
    first_piece(&mut streamed);
    server.stop.store(true, Ordering::Release);
    let mut rest = String::new();
    streamed.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]") && rest.contains("\"length\""), "{rest}");
    server.thread.take().unwrap().join().unwrap();
    assert!(TcpStream::connect(server.address).is_err(), "nothing listens any more");
}
