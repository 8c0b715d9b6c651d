//! A reward model: its folder, what it scores, and what it refuses.

use burn::tensor::Device;
use danlu_models::{Batch, Decoder, DecoderConfig, Gpt2Config, LlamaConfig, RewardModel, folder, names_and_shapes};

fn configs() -> [DecoderConfig; 4] {
    let llama = LlamaConfig::new(50, 16, 2, 8, 32);
    let tied = LlamaConfig { tie_word_embeddings: true, num_key_value_heads: 1, ..llama.clone() };
    [
        DecoderConfig::Llama(llama.clone()),
        DecoderConfig::Llama(tied),
        DecoderConfig::Qwen3(llama),
        DecoderConfig::Gpt2(Gpt2Config { n_head: 2, ..Gpt2Config::new(50, 16, 2, 32) }),
    ]
}

fn model(config: &DecoderConfig) -> (RewardModel, DecoderConfig) {
    RewardModel::new(Decoder::new(config, 3, &Device::flex()).unwrap(), config, 4).unwrap()
}

const TEXTS: [&[u32]; 4] = [&[1, 2, 3, 4, 5], &[7], &[9, 8, 7], &[49, 0, 49, 0, 12, 30]];

#[test]
fn a_folder_keeps_it() {
    for config in configs() {
        let (model, config) = model(&config);
        let dir = tempfile::tempdir().unwrap();
        folder::save_reward(&model, &config, 6, dir.path()).unwrap();
        let (read, read_config) = folder::load_reward(dir.path(), &Device::flex()).unwrap();
        assert_eq!(read.score(&TEXTS).unwrap(), model.score(&TEXTS).unwrap());
        assert_eq!(read_config, config);
        let names: Vec<String> = names_and_shapes(&read).into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"score.weight".to_string()) && !names.iter().any(|name| name.contains("lm_head")), "{names:?}");
        assert!(
            names.iter().any(|name| name.starts_with("model.layers.0.") || name.starts_with("transformer.h.0.")),
            "{names:?}"
        );
        let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
        assert!(text.contains("ForSequenceClassification\"") && text.contains("\"pad_token_id\": 6"), "{text}");
        let error = folder::load(dir.path(), &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("score.weight"), "{error}");
    }
}

#[test]
fn a_text_is_scored_by_itself() {
    for config in configs() {
        let (model, _) = model(&config);
        let together = model.score(&TEXTS).unwrap();
        for (text, score) in TEXTS.iter().zip(&together) {
            let alone = model.score(&[text]).unwrap()[0];
            assert!((alone - score).abs() < 1e-5, "{alone} is {score}");
            let recomputed = model.scores(&Batch::documents(&[text]), true).into_scalar::<f32>();
            assert!((recomputed - score).abs() < 1e-5);
        }
        let mut distinct = together.clone();
        distinct.dedup();
        assert_eq!(distinct.len(), TEXTS.len(), "{together:?}");
        // More than are read at once.
        let many: Vec<&[u32]> = TEXTS.iter().cycle().take(1200).copied().collect();
        let scores = model.score(&many).unwrap();
        assert!(scores.iter().zip(together.iter().cycle()).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn what_it_cannot_score_or_read_is_said() {
    let [config, ..] = configs();
    let (reward, _) = model(&config);
    let check = |text: &[u32], part: &str| {
        let error = reward.score(&[&[1], text]).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("text 1"), "{error}");
    };
    check(&[], "empty");
    check(&[1; 33], "33 tokens and the reward model's context 32");
    check(&[50], "vocabulary of 50");
    let dir = tempfile::tempdir().unwrap();
    folder::save(&Decoder::new(&config, 3, &Device::flex()).unwrap(), &config, dir.path()).unwrap();
    let error = folder::load_reward(dir.path(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("no reward model") && error.contains("recipes/reward.toml"), "{error}");
    folder::save_reward(&reward, &config, 6, dir.path()).unwrap();
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"0\": \"reward\"", "\"0\": \"a\", \"1\": \"b\"");
    std::fs::write(&path, text).unwrap();
    let error = folder::load_reward(dir.path(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("2 labels"), "{error}");
}
