//! Tiny models of every architecture.

use danlu_models::{DecoderConfig, Gpt2Config, LlamaConfig, RopeScaling};

/// Grouped queries, tied and untied, head widths that are not `hidden / heads`. Initial weights are large, so that no part of the model is
/// too weak to be noticed in its logits.
pub fn configs() -> Vec<(&'static str, DecoderConfig)> {
    let llama = LlamaConfig {
        intermediate_size: 20,
        num_key_value_heads: 1,
        initializer_range: 0.3,
        ..LlamaConfig::new(29, 12, 2, 6, 32)
    };
    let tied = LlamaConfig { tie_word_embeddings: true, rope_scaling: RopeScaling::Linear { factor: 2.0 }, ..llama.clone() };
    let qwen3 = LlamaConfig { num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8, ..llama.clone() };
    let gpt2 = Gpt2Config { n_head: 3, n_inner: 20, initializer_range: 0.3, ..Gpt2Config::new(29, 12, 2, 32) };
    let untied = Gpt2Config { tie_word_embeddings: false, ..gpt2.clone() };
    vec![
        ("llama", DecoderConfig::Llama(llama)),
        ("llama, tied", DecoderConfig::Llama(tied)),
        ("qwen3", DecoderConfig::Qwen3(qwen3)),
        ("gpt2", DecoderConfig::Gpt2(gpt2)),
        ("gpt2, untied", DecoderConfig::Gpt2(untied)),
    ]
}

/// A sequence that repeats nothing soon.
#[allow(dead_code)]
pub fn tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * i * 7 + i * 3 + 1) % vocabulary) as u32).collect()
}
