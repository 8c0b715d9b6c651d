//! Completions of many prompts at once, held to whole passes and to themselves in other company.

use burn::module::Module;
use burn::tensor::Device;
use danlu_engine::{Completion, Prompt, Rollout, Sampling, rollout};
use danlu_models::{Batch, Decoder, DecoderConfig, Gpt2Config, LlamaConfig};

const VOCABULARY: usize = 40;

fn llama() -> Decoder {
    let config = LlamaConfig { initializer_range: 0.3, ..LlamaConfig::new(VOCABULARY, 32, 2, 8, 64) };
    Decoder::new(&DecoderConfig::Llama(config), 3, &Device::flex()).unwrap()
}

fn gpt2() -> Decoder {
    let config = Gpt2Config { initializer_range: 0.3, ..Gpt2Config::new(VOCABULARY, 32, 2, 64) };
    Decoder::new(&DecoderConfig::Gpt2(config), 3, &Device::flex()).unwrap()
}

fn prompts() -> Vec<Prompt> {
    let ids = |index: u64, len: u32| (0..len).map(|i| (i * 7 + index as u32 * 5) % VOCABULARY as u32).collect();
    [3, 20, 1, 9, 33].into_iter().enumerate().map(|(i, len)| Prompt { index: i as u64, ids: ids(i as u64, len) }).collect()
}

fn spec() -> Rollout {
    Rollout { samples: 4, max_tokens: 24, ends: vec![7], seed: 5, step: 2, ..Rollout::default() }
}

/// The log-probabilities of whole passes over prompt and completion.
fn whole(decoder: &Decoder, prompt: &[u32], one: &Completion) -> Vec<f64> {
    let ids: Vec<u32> = prompt.iter().chain(&one.tokens).copied().collect();
    let logits: Vec<f32> = decoder.logits(&Batch::document(&ids)).into_data().try_into_vec().unwrap();
    let rows = logits.chunks_exact(VOCABULARY).skip(prompt.len() - 1);
    let log_prob = |(row, token): (&[f32], &u32)| {
        let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        f64::from(row[*token as usize]) - total.ln()
    };
    rows.zip(&one.tokens).map(log_prob).collect()
}

#[test]
fn log_probabilities_are_those_of_whole_passes() {
    for decoder in [llama(), gpt2()] {
        for sampling in [spec().sampling, Sampling { temperature: 0.7, top_k: 5, ..spec().sampling }] {
            let all = rollout(&decoder, &prompts(), &Rollout { sampling, ..spec() }).unwrap();
            assert_eq!(all.len(), 20);
            for (i, one) in all.iter().enumerate() {
                assert_eq!((one.prompt, one.sample), (i / 4, i % 4));
                assert_eq!(one.ended, one.tokens.last() == Some(&7));
                assert!(one.ended || one.tokens.len() == 24);
                assert!(!one.tokens[..one.tokens.len() - 1].contains(&7), "nothing follows the end");
                for (got, want) in one.log_probs.iter().zip(whole(&decoder, &prompts()[one.prompt].ids, one)) {
                    assert!((f64::from(*got) - want).abs() < 2e-5, "{got} for {want}");
                }
            }
            let lengths: std::collections::HashSet<usize> = all.iter().map(|one| one.tokens.len()).collect();
            assert!(lengths.len() > 3, "completions end at different times: {lengths:?}");
        }
    }
}

#[test]
fn a_completion_does_not_depend_on_its_company() {
    let decoder = llama();
    let all = rollout(&decoder, &prompts(), &spec()).unwrap();
    for width in [1, 3, 7, 20] {
        assert_eq!(rollout(&decoder, &prompts(), &Rollout { width, ..spec() }).unwrap(), all, "{width} at a time");
    }
    for (i, prompt) in prompts().iter().enumerate() {
        let alone = rollout(&decoder, std::slice::from_ref(prompt), &spec()).unwrap();
        let want: Vec<Completion> = all[i * 4..][..4].iter().map(|one| Completion { prompt: 0, ..one.clone() }).collect();
        assert_eq!(alone, want, "prompt {i} alone");
    }
    let training = Decoder::new(
        &DecoderConfig::Llama(LlamaConfig { initializer_range: 0.3, ..LlamaConfig::new(VOCABULARY, 32, 2, 8, 64) }),
        3,
        &Device::flex().autodiff(),
    );
    assert_eq!(rollout(&training.unwrap(), &prompts(), &spec()).unwrap(), all, "a decoder in training writes the same");
    let other = |spec: Rollout| rollout(&decoder, &prompts(), &spec).unwrap();
    assert_ne!(other(Rollout { seed: 6, ..spec() }), all);
    assert_ne!(other(Rollout { step: 3, ..spec() }), all);
    assert_ne!(all[0].tokens, all[1].tokens);
}

#[test]
fn tokens_come_with_the_model_s_frequencies() {
    let decoder = llama().valid();
    let prompt = Prompt { index: 0, ids: vec![1, 2, 3] };
    let spec = Rollout { samples: 4000, max_tokens: 1, width: 256, ..spec() };
    let all = rollout(&decoder, &[prompt], &spec).unwrap();
    let mut counts = [0.0; VOCABULARY];
    all.iter().for_each(|one| counts[one.tokens[0] as usize] += 1.0);
    let probability = |token: usize| all.iter().find(|one| one.tokens[0] as usize == token).map(|one| one.log_probs[0].exp());
    let mut chi = 0.0;
    for (token, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
        let expected = f64::from(probability(token).unwrap()) * 4000.0;
        chi += (count - expected).powi(2) / expected;
    }
    // The 99.9 % quantile with 39 degrees of freedom.
    assert!(chi < 72.1, "chi-square {chi}");
}

#[test]
fn what_cannot_be_continued_is_refused_with_its_reason() {
    let decoder = llama();
    let check = |ids: Vec<u32>, spec: Rollout, says: &str| {
        let error = rollout(&decoder, &[Prompt { index: 4, ids }], &spec).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    check(vec![], spec(), "prompt 4 has no token");
    check(vec![1; 64], spec(), "64 tokens and the model's context 64");
    check(vec![99], spec(), "token 99");
    check(vec![1], Rollout { max_tokens: 0, ..spec() }, "at least 1");
    let full = rollout(&decoder, &[Prompt { index: 0, ids: vec![1; 62] }], &Rollout { ends: vec![], ..spec() }).unwrap();
    assert!(full.iter().all(|one| one.tokens.len() == 2 && !one.ended), "the context is the end");
    assert_eq!(rollout(&decoder, &prompts(), &Rollout { samples: 0, ..spec() }).unwrap(), vec![]);
}
