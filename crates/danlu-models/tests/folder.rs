//! Folders: what is saved is loaded back, and what is damaged is refused with its reason.

mod common;

use std::fs;
use std::path::Path;

use burn::tensor::Device;
use common::configs;
use danlu_models::folder::{self, Precision, SaveOptions};
use danlu_models::{Decoder, DecoderConfig, Marian, MarianConfig, Pairs, Written, to_named};

fn values(decoder: &Decoder) -> Vec<(String, Vec<f32>)> {
    to_named(decoder).unwrap().into_iter().map(|(name, data)| (name, data.try_into_vec().unwrap())).collect()
}

fn saved(dir: &Path, config: &DecoderConfig, options: &SaveOptions) -> Decoder {
    let decoder = Decoder::new(config, 3, &Device::flex()).unwrap();
    folder::save_with(&decoder, config, dir, options).unwrap();
    decoder
}

#[test]
fn what_is_saved_is_loaded_bit_for_bit() {
    for (name, config) in configs() {
        for max_shard_bytes in [u64::MAX, 4000] {
            let dir = tempfile::tempdir().unwrap();
            let decoder = saved(dir.path(), &config, &SaveOptions { max_shard_bytes, ..SaveOptions::default() });
            assert_eq!(dir.path().join("model.safetensors.index.json").exists(), max_shard_bytes == 4000, "{name}");
            let (loaded, read) = folder::load(dir.path(), &Device::flex()).unwrap();
            assert_eq!(read, config, "{name}");
            assert_eq!(values(&loaded), values(&decoder), "{name}");
        }
    }
}

#[test]
fn a_model_saved_over_a_sharded_one_is_the_one_that_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (_, config) = configs().remove(0);
    saved(dir.path(), &config, &SaveOptions { max_shard_bytes: 4000, ..SaveOptions::default() });
    let other = Decoder::new(&config, 99, &Device::flex()).unwrap();
    folder::save(&other, &config, dir.path()).unwrap();
    assert_eq!(values(&folder::load(dir.path(), &Device::flex()).unwrap().0), values(&other));
}

#[test]
fn half_precision_rounds_to_its_mantissa() {
    for (precision, relative) in [(Precision::Bf16, 2.0_f32.powi(-8)), (Precision::F16, 2.0_f32.powi(-10))] {
        let dir = tempfile::tempdir().unwrap();
        let (_, config) = configs().remove(3);
        let decoder = saved(dir.path(), &config, &SaveOptions { precision, ..SaveOptions::default() });
        let loaded = folder::load(dir.path(), &Device::flex()).unwrap().0;
        for ((name, before), (_, after)) in values(&decoder).into_iter().zip(values(&loaded)) {
            for (before, after) in before.into_iter().zip(after) {
                assert!(
                    (before - after).abs() <= before.abs() * relative + 1e-7,
                    "{name} in {precision:?}: {before} became {after}"
                );
            }
        }
    }
}

fn refused(dir: &Path, says: &[&str]) {
    let message = match folder::load(dir, &Device::flex()) {
        Ok(_) => panic!("it was loaded; expected: {says:?}"),
        Err(error) => format!("{error:#}"),
    };
    for says in says {
        assert!(message.contains(says), "{says:?} is not in {message:?}");
    }
}

#[test]
fn files_that_do_not_make_the_model_are_refused_with_the_reason() {
    let (_, config) = configs().remove(0);
    let with = |change: &dyn Fn(&Path), says: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        saved(dir.path(), &config, &SaveOptions::default());
        change(dir.path());
        refused(dir.path(), says);
    };
    let configured = |key: &str, value: serde_json::Value| {
        let key = key.to_string();
        move |dir: &Path| {
            let path = dir.join("config.json");
            let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            config[&key] = value.clone();
            fs::write(path, config.to_string()).unwrap();
        }
    };
    with(&|dir| fs::remove_file(dir.join("config.json")).unwrap(), &["config.json"]);
    with(&|dir| fs::write(dir.join("config.json"), "{").unwrap(), &["config.json is not JSON"]);
    with(&|dir| fs::write(dir.join("config.json"), [0xff, 0xfe]).unwrap(), &["not UTF-8"]);
    with(&|dir| fs::remove_file(dir.join("model.safetensors")).unwrap(), &["model.safetensors"]);
    with(&|dir| fs::write(dir.join("model.safetensors"), "").unwrap(), &["model.safetensors"]);
    with(&configured("num_hidden_layers", 3.into()), &["9 missing", "model.layers.2", "0 unexpected"]);
    with(&configured("num_hidden_layers", 1.into()), &["9 unexpected", "model.layers.1"]);
    with(&configured("vocab_size", 16_000_000.into()), &["model.embed_tokens.weight", "[29, 12]", "[16000000, 12]"]);
    with(&configured("model_type", "qwen3".into()), &["4 missing", "q_norm"]);
    with(
        &|dir| {
            let index = r#"{"metadata": {}, "weight_map": {"lm_head.weight": "../secret.safetensors"}}"#;
            fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
        },
        &["../secret.safetensors", "same folder"],
    );
}

/// Every truncation and many changed bytes: an error or a model with other values, never a panic or a huge allocation.
#[test]
fn damaged_weights_never_panic() {
    let (_, config) = configs().remove(3);
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path(), &config, &SaveOptions::default());
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(97).chain([7, 8, 9, whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        refused(dir.path(), &["model.safetensors"]);
    }
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for at in (0..8 + header).step_by(5).chain(0..8) {
        for flip in [0x01, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            fs::write(&path, damaged).unwrap();
            let _ = folder::load(dir.path(), &Device::flex());
        }
    }
}

/// An encoder and a decoder that translate: what is saved is loaded, pairs do not see each other, and writing token by token from several
/// sources at once gives the logits of whole translations.
#[test]
fn a_model_that_translates_is_kept_and_writes_what_it_reads() {
    let config = MarianConfig {
        attention_heads: 2,
        encoder_layers: 1,
        pad_token_id: 2,
        eos_token_id: 1,
        ..MarianConfig::new(29, 16, 2, 32)
    };
    let dir = tempfile::tempdir().unwrap();
    let model = Marian::new(&config, 3, &Device::flex()).unwrap();
    folder::save_marian(&model, &config, dir.path()).unwrap();
    let (loaded, read) = folder::load_marian(dir.path(), &Device::flex()).unwrap();
    assert_eq!(read, config);
    let parameters: usize = to_named(&model).unwrap().iter().map(|(_, data)| data.shape().iter().product::<usize>()).sum();
    assert_eq!(parameters as u64, config.parameters());

    let pairs: [(&[u32], &[u32]); 2] = [(&[5, 9, 4, 28], &[7, 3]), (&[11], &[8, 8, 20, 6, 17])];
    let logits = |model: &Marian, pairs: &[(&[u32], &[u32])]| {
        let logits = model.logits(&Pairs::new(pairs.iter().copied(), 1));
        logits.into_data().try_into_vec::<f32>().unwrap()
    };
    let whole = logits(&model, &pairs);
    assert_eq!(whole, logits(&loaded, &pairs));
    let alone = [logits(&model, &pairs[..1]), logits(&model, &pairs[1..])].concat();
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(whole.len() == alone.len() && far(&whole, &alone) < 1e-5, "{}", far(&whole, &alone));

    let sources = model.sources(&[&[5, 9, 4, 28, 1], &[11, 1]]);
    // Two translations of the first source, of which one goes another way, and one of the second.
    let mut written = [model.begin(), model.begin(), model.begin()];
    let steps = [[1, 1, 1], [7, 20, 8], [3, 20, 8]];
    for (at, tokens) in steps.iter().enumerate() {
        let mut borrowed: Vec<&mut Written> = written.iter_mut().collect();
        let got = model.step(&[&sources[0], &sources[1]], &[2, 1], &mut borrowed, tokens);
        let got = got.into_data().try_into_vec::<f32>().unwrap();
        let row = |place: usize| &whole[place * 29..][..29];
        assert!(far(&got[..29], row(at)) < 1e-5 && far(&got[58..], row(3 + at)) < 1e-5, "token {at}");
        assert_eq!(far(&got[29..58], row(at)) < 1e-5, at == 0, "token {at} of the one that goes another way");
    }
    assert!(written.iter().all(|one| one.len() == 3));
}
