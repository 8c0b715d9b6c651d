//! The studio's routes, as its page uses them and as nobody should.

use std::fs;

use danlu_data::preference;
use danlu_data::source::Source;
use danlu_engine::serve::Options;
use danlu_server::{Keys, Rates};
use serde_json::{Value, json};

use crate::common::{Running, load, serve, serve_home, start};

const SHORT: [(&str, i64); 3] = [("max_tokens", 8), ("temperature", 1), ("seed", 3)];

/// Asks a question in a conversation and has it answered: the question's id, and the answer as it is kept.
fn ask(server: &Running, conversation: i64, parent: Option<i64>, model: &str, text: &str) -> (i64, Value) {
    let path = format!("/studio/conversations/{conversation}/messages");
    let asked = server.page("POST", &path, &json!({"parent": parent, "content": text}));
    assert_eq!(asked.status, 200, "{}", asked.body);
    let question = asked.json()["id"].as_i64().unwrap();
    (question, answer(server, conversation, question, model, 3))
}

fn answer(server: &Running, conversation: i64, question: i64, model: &str, seed: i64) -> Value {
    let mut request = json!({"parent": question, "model": model});
    SHORT.iter().for_each(|(key, value)| request[*key] = json!(value));
    request["seed"] = json!(seed);
    let answer = server.page("POST", &format!("/studio/conversations/{conversation}/answers"), &request);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let (events, _) = answer.events();
    let text: String = events.iter().filter_map(|event| event["text"].as_str()).collect();
    let kept = events.last().unwrap()["message"].clone();
    assert_eq!(kept["content"], text, "what is kept is what was sent");
    assert!(kept["finish"].is_string() && kept["tokens"].as_i64().is_some_and(|tokens| tokens <= 8), "{kept}");
    kept
}

fn begin(server: &Running) -> i64 {
    server.page("POST", "/studio/conversations", &json!({})).json()["id"].as_i64().unwrap()
}

#[test]
fn a_conversation_is_kept_and_goes_on_on_any_path() {
    let server = start("kept", Options::default(), None);
    let id = begin(&server);
    let path = format!("/studio/conversations/{id}");
    let system = json!({"system": "Be a cat.", "settings": {"temperature": "1"}});
    assert_eq!(server.page("PUT", &path, &system).json()["system"], "Be a cat.");
    let (question, first) = ask(&server, id, None, "kept", "the  cat\nsat");
    let first_id = first["id"].as_i64().unwrap();
    ask(&server, id, Some(first_id), "kept", "and the dog");
    // Another answer to the same question is beside the first, and the same seed says the same.
    let again = answer(&server, id, question, "kept", 3);
    assert_eq!((&again["parent"], &again["content"]), (&json!(question), &first["content"]));
    let whole = server.get(&path).json();
    assert_eq!((&whole["title"], &whole["system"]), (&json!("the cat sat"), &json!("Be a cat.")));
    assert_eq!(whole["settings"]["temperature"], "1");
    assert_eq!(whole["messages"].as_array().unwrap().len(), 5);
    assert_eq!(whole["leaf"], again["id"], "what was written last is looked at");
    assert_eq!(server.page("PUT", &path, &json!({"leaf": first_id})).json()["leaf"], first_id);
    assert_eq!(server.get("/studio/conversations").json()[0]["id"], id);

    // What is not there, or does not fit.
    let messages = format!("{path}/messages");
    server.page("POST", &messages, &json!({"parent": question, "content": "a"})).error(400);
    server.page("POST", &messages, &json!({"parent": 9999, "content": "a"})).error(404);
    server.page("POST", &messages, &json!({"content": " \n"})).error(400);
    let answers = format!("{path}/answers");
    server.page("POST", &answers, &json!({"parent": first_id, "model": "kept"})).error(400);
    server.page("POST", &answers, &json!({"parent": question, "model": "nobody"})).error(404);
    server.page("POST", &answers, &json!({"parent": question, "model": "kept", "n": 2})).error(400);
    server.page("POST", &answers, &json!({"parent": question, "model": "kept", "temperatur": 2})).error(400);
    server.page("PUT", &path, &json!({"leaf": 9999})).error(404);
    assert_eq!(server.get(&path).json()["messages"].as_array().unwrap().len(), 5, "what is refused leaves nothing");

    assert_eq!(server.page("DELETE", &path, &Value::Null).status, 200);
    server.get(&path).error(404);
    assert_eq!(server.get("/studio/conversations").json(), json!([]));
}

#[test]
fn votes_and_thumbs_become_preferences_that_training_reads() {
    let models = vec![load("small", Options::default()), load("large", Options::default())];
    let server = serve(models, None);
    let id = begin(&server);
    server.page("PUT", &format!("/studio/conversations/{id}"), &json!({"system": "Be a cat."}));
    let (question, first) = ask(&server, id, None, "small", "the cat");
    let second = answer(&server, id, question, "large", 8);
    let number = |message: &Value| message["id"].as_i64().unwrap();
    assert_ne!(first["content"], second["content"], "seeds 3 and 8 draw different texts");
    let vote = |winner: Option<i64>| {
        server.page("POST", "/studio/votes", &json!({"first": number(&second), "second": number(&first), "winner": winner}))
    };
    assert_eq!(vote(None).status, 200);
    let file = server.home.path().join("studio/preferences.jsonl");
    assert!(!file.exists(), "a tie prefers nothing");
    assert_eq!(vote(Some(number(&second))).json()["winner"], second["id"]);

    // A thumb on an answer that was not compared.
    let (_, third) = ask(&server, id, Some(number(&second)), "small", "and the dog");
    let thumb =
        |value: Value| server.page("PUT", &format!("/studio/messages/{}/thumb", number(&third)), &json!({"thumb": value}));
    assert_eq!(thumb(json!(-1)).json()["thumb"], -1);
    thumb(json!(2)).error(400);

    let read = preference::read(&[Source::Path(file.display().to_string())]).unwrap();
    assert!(read.bad.is_empty(), "{:?}", read.bad);
    let pairs = preference::pairs(&read.records);
    assert_eq!(pairs.len(), 1);
    let said: Vec<&str> = pairs[0].prompt.messages.iter().map(danlu_data::chat::Message::text).collect();
    assert_eq!(said, ["Be a cat.", "the cat"]);
    assert_eq!((pairs[0].chosen.text(), pairs[0].rejected.text()), (text(&second), text(&first)));
    let judged = preference::judged(&read.records);
    assert_eq!(judged.len(), 3, "two of the pair, and one alone");
    assert!(judged.iter().any(|one| !one.good && one.answer.text() == text(&third) && one.prompt.messages.len() == 4));

    let tally = server.get("/studio/votes").json();
    assert_eq!((&tally["pairs"], &tally["judged"]), (&json!(1), &json!(1)));
    assert_eq!((&tally["models"]["large"]["won"], &tally["models"]["small"]["lost"]), (&json!(1), &json!(1)));
    assert!(tally["command"].as_str().unwrap().contains("preferences.jsonl"));
    let votes = server.get(&format!("/studio/conversations/{id}")).json()["votes"].clone();
    assert_eq!(votes.as_array().unwrap().len(), 1, "a later vote takes the place of the earlier");

    for wrong in [
        json!({"first": number(&first), "second": number(&first), "winner": null}),
        json!({"first": number(&first), "second": number(&third), "winner": null}),
        json!({"first": number(&first), "second": number(&second), "winner": number(&third)}),
        json!({"first": question, "second": number(&second), "winner": null}),
    ] {
        server.page("POST", "/studio/votes", &wrong).error(400);
    }
    server.page("DELETE", &format!("/studio/conversations/{id}"), &Value::Null);
    assert!(!file.exists(), "a conversation's preferences go with it");
}

fn text(message: &Value) -> &str {
    message["content"].as_str().unwrap()
}

#[test]
fn a_template_begins_a_conversation() {
    let server = start("forms", Options::default(), None);
    let template = json!({
        "name": "Translate", "system": "To {{language}}.", "body": "{{text}}",
        "examples": [{"user": "cat to {{language}}", "assistant": "猫"}],
    });
    let made = server.page("POST", "/studio/templates", &template).json();
    assert_eq!(made["variables"], json!(["language", "text"]));
    let path = format!("/studio/templates/{}", made["id"]);
    server.page("POST", &format!("{path}/use"), &json!({"values": {"text": "dog"}})).error(400);
    let values = json!({"values": {"text": "dog {{language}}", "language": "Chinese"}});
    let used = server.page("POST", &format!("{path}/use"), &values).json();
    assert_eq!((&used["text"], &used["conversation"]["system"]), (&json!("dog {{language}}"), &json!("To Chinese.")));
    let messages = used["conversation"]["messages"].as_array().unwrap();
    assert_eq!((messages.len(), &messages[0]["content"]), (2, &json!("cat to Chinese")));
    server.page("PUT", &path, &json!({"name": "a", "body": ""})).error(400);
    assert_eq!(server.page("PUT", &path, &json!({"name": "a", "body": "b"})).json()["examples"], json!([]));
    assert_eq!(server.page("DELETE", &path, &Value::Null).status, 200);
    assert_eq!(server.get("/studio/templates").json(), json!([]));
}

#[test]
fn runs_are_read_and_asked_to_stop() {
    let server = start("looked", Options::default(), None);
    assert_eq!(server.get("/studio/runs").json(), json!([]));
    let folder = server.home.path().join("runs/first");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("recipe.toml"), "name = \"first\"\n").unwrap();
    fs::write(folder.join("run.json"), json!({"model": null, "planned": {"steps": 9}}).to_string()).unwrap();
    let row = |step: u64| json!({"step": step, "kind": "train", "loss": 2.5, "tokens": step * 10}).to_string() + "\n";
    fs::write(folder.join("metrics.jsonl"), row(1) + &row(2)).unwrap();
    let list = server.get("/studio/runs").json();
    assert_eq!((&list[0]["name"], &list[0]["state"], &list[0]["last"]["step"]), (&json!("first"), &json!("stopped"), &json!(2)));
    let shown = server.get("/studio/runs/first").json();
    assert_eq!((&shown["record"]["planned"]["steps"], shown["rows"].as_array().unwrap().len()), (&json!(9), 2));
    assert_eq!((&shown["recipe"], &shown["resumable"]), (&json!("name = \"first\"\n"), &json!(false)));
    fs::write(folder.join("metrics.jsonl"), row(1) + &row(2) + &row(3)).unwrap();
    let more = server.get(&format!("/studio/runs/first?from={}", shown["end"])).json();
    assert_eq!((more["rows"].as_array().unwrap().len(), &more["rows"][0]["step"]), (1, &json!(3)));

    // Nobody trains it.
    server.page("POST", "/studio/runs/first/stop", &Value::Null).error(409);
    server.page("POST", "/studio/runs/first/resume", &Value::Null).error(409);
    let held = danlu_registry::runs::Held::take(&folder).unwrap();
    assert_eq!(server.page("POST", "/studio/runs/first/stop", &Value::Null).json()["state"], "stopping");
    assert!(held.asked_to_stop());
    for path in ["/studio/runs/none", "/studio/runs/..%2f..%2fetc", "/studio/runs/%00", "/studio/models/nobody/lineage.svg"] {
        server.get(path).error(404);
    }
    server.get("/studio/runs/first?from=-1").error(400);
    server.get("/studio/models/a%2fb/lineage.svg").error(400);
    assert_eq!((server.get("/studio/models").json(), server.get("/studio/data").json()), (json!([]), json!([])));
}

#[test]
fn another_page_can_do_nothing() {
    let server = start("own", Options::default(), None);
    let json_kind = ("content-type", "application/json");
    let mark = ("x-danlu-studio", "1");
    let send = |headers: &[(&str, &str)]| server.send("POST", "/studio/conversations", headers, "{}");
    assert_eq!(send(&[json_kind, mark]).status, 200);
    send(&[json_kind]).error(403);
    send(&[json_kind, mark, ("origin", "http://evil.example")]).error(403);
    send(&[json_kind, mark, ("sec-fetch-site", "cross-site")]).error(403);
    send(&[json_kind, mark, ("host", "evil.example")]).error(403);
    server.send("GET", "/studio/conversations", &[("sec-fetch-site", "same-site")], "").error(403);
    let asked = server.send("OPTIONS", "/studio/conversations", &[("origin", "http://evil.example")], "");
    assert!(asked.status >= 400 && !asked.headers.contains("access-control"), "{}", asked.headers);
    // Nothing but an object is read.
    for body in ["", "[]", "null", "3", "{\"a\": 1}", "{\"title\": 3}"] {
        let answer = server.send("POST", "/studio/conversations", &[json_kind, mark], body);
        answer.error(400);
    }
    send(&[mark]).error(415);
    let long = json!({"title": "a".repeat(201)});
    server.page("POST", "/studio/conversations", &long).error(400);
    let large = json!({"settings": {"a": "b".repeat(20_000)}});
    server.page("POST", "/studio/conversations", &large).error(400);
    server.page("POST", "/studio/conversations", &json!({"system": "a".repeat(100_000)})).error(413);
    let turns = json!({"messages": [{"role": "assistant", "content": "a"}]});
    server.page("POST", "/studio/conversations", &turns).error(400);
    for id in ["0", "-1", "99999999999999999999", "abc"] {
        let answer = server.get(&format!("/studio/conversations/{id}"));
        assert!([400, 404].contains(&answer.status), "{id}: {}", answer.status);
    }
    assert!(server.get("/openapi.json").json()["paths"].as_object().unwrap().keys().all(|path| !path.contains("studio")));
}

#[test]
fn every_part_of_the_page_is_there() {
    let server = start("parts", Options::default(), None);
    let mut seen = std::collections::BTreeSet::from(["main.js".to_owned()]);
    let mut left = vec!["main.js".to_owned()];
    while let Some(name) = left.pop() {
        let part = server.get(&format!("/web/{name}"));
        assert!(part.status == 200 && part.headers.contains("text/javascript"), "{name}");
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "http://www.w3.org/1999"] {
            assert!(!part.body.contains(sink), "{name} has {sink}");
        }
        let imported = part.body.lines().filter_map(|line| line.split("from \"./").nth(1)?.strip_suffix("\";"));
        for name in imported.map(str::to_owned) {
            if seen.insert(name.clone()) {
                left.push(name);
            }
        }
    }
    assert!(seen.len() >= 9 && seen.contains("markdown.js"), "{seen:?}");
}

#[test]
fn conversations_belong_to_their_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let [ann, bob] = ["ann", "bob"].map(|name| Keys::create(&file, name, Rates::default()).unwrap());
    let keys = Keys::read(&file).unwrap();
    let mut server = serve_home(vec![load("shared", Options::default())], Some(keys), tempfile::tempdir().unwrap(), Some("ann"));
    server.get("/studio/conversations").error(401);
    server.key = Some(ann);
    let id = begin(&server);
    assert_eq!(server.get("/studio/runs").status, 200);
    server.key = Some(bob);
    let path = format!("/studio/conversations/{id}");
    server.get(&path).error(404);
    server.page("DELETE", &path, &Value::Null).error(404);
    server.page("POST", &format!("{path}/messages"), &json!({"content": "a"})).error(404);
    assert_eq!(server.get("/studio/conversations").json(), json!([]));
    for path in ["/studio/runs", "/studio/models", "/studio/data", "/studio/runs/a", "/studio/models/a/lineage.svg"] {
        assert!(server.get(path).error(403).contains("--owner"), "{path}");
    }
}
