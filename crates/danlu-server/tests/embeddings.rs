//! Embeddings of decoders and encoders, held to the models' own states.

mod common;

use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::Device;
use common::{CONTEXT, Running, model, serve};
use danlu_data::tokenizer::{Kind, Tokenizer, TrainSpec, train};
use danlu_engine::serve::Options;
use danlu_models::{Backbone, Bert, BertConfig, BertHeads, Texts, folder};
use danlu_server::Model;
use serde_json::{Value, json};
use tempfile::TempDir;

const ENCODER_CONTEXT: usize = 24;

/// The folder of an encoder whose texts stand between `[CLS]` and `[SEP]`.
fn encoder() -> &'static Path {
    static DIR: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let texts = ["the cat sat on the mat", "a cat and a dog"].map(|text| Ok(text.to_owned()));
        let spec = TrainSpec { kind: Kind::WordPiece, vocab_size: 320, min_frequency: 1, ..TrainSpec::default() };
        let json = train(&spec, texts.into_iter()).unwrap().to_json().unwrap();
        let tokenizer = Tokenizer::from_json(json.as_bytes(), Some("[SEP]")).unwrap();
        let config = BertConfig { initializer_range: 0.3, ..BertConfig::new(tokenizer.vocab_size(), 64, 2, ENCODER_CONTEXT) };
        let bert = Bert::new(&config, BertHeads::default(), 3, &Device::flex()).unwrap();
        folder::save_bert(&bert, &config, dir.path()).unwrap();
        tokenizer.export(dir.path(), ENCODER_CONTEXT).unwrap();
        dir
    };
    DIR.get_or_init(make).path()
}

fn both() -> Running {
    let load = |id: &str, folder: &Path| Model::load(id, None, folder, Options::default()).unwrap();
    serve(vec![load("decoder", model()), load("encoder", encoder())], None)
}

/// The mean of a text's states, of length 1.
fn mean(folder: &Path, ids: &[u32]) -> Vec<f64> {
    let (backbone, config): (Backbone, _) = folder::load_backbone(folder, &Device::flex()).unwrap();
    let kinds = vec![0; ids.len()];
    let states = backbone.hidden(&Texts::new([(ids, &kinds[..])]), false).into_data().convert::<f32>();
    let states: Vec<f32> = states.try_into_vec().unwrap();
    let size = config.hidden_size();
    let sums: Vec<f64> = (0..size).map(|i| states.iter().skip(i).step_by(size).map(|x| f64::from(*x)).sum()).collect();
    let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
    sums.into_iter().map(|x| x / length).collect()
}

fn vectors(answer: &Value) -> Vec<Vec<f64>> {
    let numbers = |one: &Value| one["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    answer["data"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().map(numbers).collect()
}

#[track_caller]
fn near(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    let gap = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(gap < 1e-5, "{gap}");
}

fn ask(server: &Running, model: &str, input: &Value) -> Value {
    server.post("/v1/embeddings", &json!({"model": model, "input": input})).json()
}

#[test]
fn a_vector_is_the_mean_of_a_texts_states() {
    let server = both();
    for (name, folder) in [("decoder", model()), ("encoder", encoder())] {
        let tokenizer = Tokenizer::load(folder).unwrap();
        let own = tokenizer.encode("the cat").unwrap();
        let answer = ask(&server, name, &json!("the cat"));
        let read = answer["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
        let ids = match name {
            "encoder" => {
                [vec![tokenizer.token_to_id("[CLS]").unwrap()], own, vec![tokenizer.token_to_id("[SEP]").unwrap()]].concat()
            }
            // What begins every text of the model, when anything does.
            _ => [vec![tokenizer.end_of_text(); read - own.len()], own].concat(),
        };
        assert_eq!(
            (&answer["object"], &answer["model"], &answer["data"][0]["object"]),
            (&json!("list"), &json!(name), &json!("embedding"))
        );
        assert_eq!((read, &answer["usage"]["total_tokens"]), (ids.len(), &json!(ids.len())));
        let want = mean(folder, &ids);
        near(&vectors(&answer)[0], &want);
        near(&vectors(&ask(&server, name, &json!(ids)))[0], &want);

        // Many together, each as it is alone.
        let texts = json!(["a dog", "the cat", "the mat and the dog"]);
        let many = ask(&server, name, &texts);
        assert_eq!(many["data"][2]["index"], 2);
        near(&vectors(&many)[1], &want);
        near(&vectors(&ask(&server, name, &json!([[ids[0]], ids])))[1], &want);

        let with = |more: Value| {
            let mut request = json!({"model": name, "input": "the cat"});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            server.post("/v1/embeddings", &request)
        };
        let short = vectors(&with(json!({"dimensions": 8})).json()).remove(0);
        let length = want[..8].iter().map(|x| x * x).sum::<f64>().sqrt();
        near(&short, &want[..8].iter().map(|x| x / length).collect::<Vec<_>>());
        let text = with(json!({"encoding_format": "base64"})).json()["data"][0]["embedding"].as_str().unwrap().to_owned();
        assert_eq!(text.len(), (want.len() * 4).div_ceil(3) * 4);
        assert!(with(json!({"dimensions": want.len() + 1})).error(400).contains("dimensions"));
        assert!(with(json!({"dimensions": 0})).error(400).contains("dimensions"));
    }
    assert!(server.measure("danlu_embedded_tokens_total", "encoder") > 0.0);
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let server = both();
    let wrong = |model: &str, input: Value, says: &str| {
        let message = server.post("/v1/embeddings", &json!({"model": model, "input": input})).error(400);
        assert!(message.contains(says), "{message:?} does not say {says:?}");
    };
    for model in ["decoder", "encoder"] {
        wrong(model, json!(""), "empty");
        wrong(model, json!(["a", ""]), "text 1 is empty");
        wrong(model, json!([]), "1 to 2048");
        wrong(model, json!([[]]), "without tokens");
        wrong(model, json!(vec!["a"; 2049]), "it has 2049");
        wrong(model, json!([[999_999]]), "999999");
        wrong(model, json!([-1]), "input must be");
        wrong(model, json!([1.5]), "input must be");
        wrong(model, json!({"text": "a"}), "input must be");
    }
    let long = vec![1; ENCODER_CONTEXT + 1];
    wrong("encoder", json!(["a", "the cat ".repeat(40)]), &format!("at most {ENCODER_CONTEXT}"));
    wrong("encoder", json!(long), &format!("{} tokens and the model reads at most {ENCODER_CONTEXT}", ENCODER_CONTEXT + 1));
    wrong("decoder", json!(vec![1; CONTEXT + 1]), &format!("{} tokens", CONTEXT + 1));
    server.post("/v1/embeddings", &json!({"model": "nobody", "input": "a"})).error(404);
    let request = json!({"model": "encoder", "input": "a", "encoding_format": "hex"});
    server.post("/v1/embeddings", &request).error(400);
}

#[test]
fn an_encoder_embeds_and_writes_nothing() {
    let server = both();
    let list = server.get("/v1/models").json();
    let facts = |i: usize| {
        let one = &list["data"][i];
        (one["chat"].as_bool(), one["completions"].as_bool(), one["context"].as_u64(), one["embedding_size"].as_u64())
    };
    assert_eq!(facts(0), (Some(true), Some(true), Some(CONTEXT as u64), Some(64)));
    assert_eq!(facts(1), (Some(false), Some(false), Some(ENCODER_CONTEXT as u64), Some(64)));
    let chat = server.post("/v1/chat/completions", &common::chat("encoder", json!({})));
    assert!(chat.error(400).contains("/v1/embeddings"));
    let text = json!({"model": "encoder", "prompt": "the"});
    assert!(server.post("/v1/completions", &text).error(400).contains("encoder"));
    assert_eq!(server.get("/health").json()["status"], "ok");
}
