//! The names of tensors: danlu's, which are those of `transformers`, and GGUF's.

/// Parts of a layer's names.
const LLAMA: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const GPT2: [(&str, &str); 6] = [
    ("ln_1", "attn_norm"),
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("ln_2", "ffn_norm"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
];
const WHOLE: [(&str, &str); 6] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"),
];

/// What GGUF calls a parameter of a decoder; none for a name that no decoder has.
pub(super) fn in_gguf(name: &str) -> Option<String> {
    let (module, kind) = name.rsplit_once('.')?;
    let find =
        |table: &[(&str, &'static str)], part: &str| table.iter().find(|(ours, _)| *ours == part).map(|(_, theirs)| *theirs);
    if let Some(whole) = find(&WHOLE, module) {
        return Some(format!("{whole}.{kind}"));
    }
    let (table, layer): (&[_], _) = match (module.strip_prefix("model.layers."), module.strip_prefix("transformer.h.")) {
        (Some(layer), _) => (&LLAMA, layer),
        (_, Some(layer)) => (&GPT2, layer),
        _ => return None,
    };
    let (number, part) = layer.split_once('.')?;
    Some(format!("blk.{number}.{}.{kind}", find(table, part)?))
}

/// Whether it is a projection to queries or keys. Those have their rows in another order in a GGUF file of Llama: there the two channels
/// that rope turns together are neighbours, here they lie half a head apart.
pub(super) fn is_query_or_key(name: &str) -> bool {
    name.ends_with(".self_attn.q_proj.weight") || name.ends_with(".self_attn.k_proj.weight")
}

/// Row `row` of a projection to heads of `head_dim` channels, as it is counted here, is this row of the file.
pub(super) fn row_in_gguf(row: usize, head_dim: usize) -> usize {
    let (head, channel, half) = (row / head_dim, row % head_dim, head_dim / 2);
    head * head_dim + channel % half * 2 + channel / half
}

/// Row `row` of the file is this row here: the inverse of [`row_in_gguf`].
pub(super) fn row_from_gguf(row: usize, head_dim: usize) -> usize {
    let (head, channel, half) = (row / head_dim, row % head_dim, head_dim / 2);
    head * head_dim + channel % 2 * half + channel / 2
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{Decoder, DecoderConfig, Gpt2Config, LlamaConfig, names_and_shapes};

    #[test]
    fn every_parameter_has_a_name_of_its_own() {
        let llama = LlamaConfig::new(32, 16, 2, 4, 8);
        for config in [
            DecoderConfig::Llama(llama.clone()),
            DecoderConfig::Qwen3(llama),
            DecoderConfig::Gpt2(Gpt2Config { tie_word_embeddings: false, ..Gpt2Config::new(32, 64, 2, 8) }),
        ] {
            let names = names_and_shapes(&Decoder::empty(&config, &Device::flex()).unwrap());
            let mut theirs: Vec<String> = names.iter().map(|(name, _)| in_gguf(name).expect(name)).collect();
            theirs.sort();
            theirs.dedup();
            assert_eq!(theirs.len(), names.len(), "{}", config.model_type());
        }
        assert_eq!(in_gguf("model.layers.7.mlp.down_proj.weight").as_deref(), Some("blk.7.ffn_down.weight"));
        assert_eq!(in_gguf("transformer.h.0.attn.c_attn.bias").as_deref(), Some("blk.0.attn_qkv.bias"));
        assert_eq!(in_gguf("model.layers.7.mlp.other.weight"), None);
    }

    #[test]
    fn rows_go_there_and_back() {
        for row in 0..24 {
            assert_eq!(row_from_gguf(row_in_gguf(row, 8), 8), row);
        }
        // Channels 0 and 4 of a head of eight turn together, and are neighbours in the file.
        assert_eq!((row_in_gguf(8, 8), row_in_gguf(12, 8)), (8, 9));
    }
}
