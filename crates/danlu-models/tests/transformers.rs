//! Folders that `transformers` saved give the logits it computed. `tests/peers/transformers_parity.py` makes them, and compares larger
//! models in both directions.

use std::path::Path;

use burn::tensor::Device;
use danlu_models::{Batch, Cache, folder};
use serde_json::Value;

fn check(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let expected: Value = serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap();
    let ids: Vec<u32> = serde_json::from_value(expected["ids"].clone()).unwrap();
    let last: Vec<Vec<f32>> = serde_json::from_value(expected["last_logits"].clone()).unwrap();

    let (decoder, config) = folder::load(&dir, &Device::flex()).unwrap();
    let logits: Vec<f32> = decoder.logits(&Batch::document(&ids)).into_data().try_into_vec().unwrap();
    let ours: Vec<&[f32]> = logits.chunks(config.vocab_size()).skip(ids.len() - last.len()).collect();
    for (token, (ours, theirs)) in ours.iter().zip(&last).enumerate() {
        close(ours, theirs, &format!("{name}, token {token} of the last"));
    }
    let mut cache = Cache::new(&decoder, ids.len());
    close(&decoder.step(&ids, &mut cache), last.last().unwrap(), &format!("{name} in one cached step"));
}

fn close(ours: &[f32], theirs: &[f32], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let gap = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(gap <= 1e-4, "{what}: the logits differ by {gap}");
}

#[test]
fn llama_with_grouped_queries() {
    check("llama");
}

#[test]
fn llama_with_scaled_rope_tied_in_bf16() {
    check("llama3-rope-tied-bf16");
}

#[test]
fn qwen3_in_f16() {
    check("qwen3-f16");
}

#[test]
fn gpt2() {
    check("gpt2");
}

#[test]
fn gpt2_untied_in_bf16() {
    check("gpt2-untied-bf16");
}
