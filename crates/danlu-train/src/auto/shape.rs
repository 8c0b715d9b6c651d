//! The shape of a model: given, asked for by its size, or the one whose parameters and tokens are in balance.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use danlu_models::{BackboneConfig, BertConfig, DecoderConfig, Gpt2Config, LlamaConfig};

use super::{Facts, USUAL_WIDTH, compute, context, efficiency, tokens_per_parameter};
use crate::recipe::{ModelKind, ModelSpec, Recipe};

/// Tokens seen again are worth less: `U + U·R·(1 − exp(−(epochs − 1)/R))` with this R (Muennighoff 2023).
const REPEATS: f64 = 15.4;

/// Channels per layer that widths and depths keep to, and the fewest layers, below which depth is worth more than width.
const ASPECT: usize = 64;
const FEWEST_LAYERS: usize = 4;

/// The shape that a recipe gives or asks for, of any kind of backbone; see [`super::resolve`].
///
/// # Errors
/// When given values do not fit each other or the data.
pub fn backbone(recipe: &Recipe, facts: &Facts) -> Result<BackboneConfig> {
    let context = recipe.model.context.unwrap_or_else(|| context(recipe, facts));
    choose(recipe, facts, context)
}

/// The shape the recipe gives, completed; or the candidate of the size it asks for; or the one whose parameters and tokens are in balance.
pub(super) fn choose(recipe: &Recipe, facts: &Facts, context: usize) -> Result<BackboneConfig> {
    let spec = &recipe.model;
    ensure!(
        !matches!(spec.kind, ModelKind::Lenet | ModelKind::Vit),
        "`model.kind` is \"{}\", which reads pictures and no text; its objective is \"image-classify\"",
        if spec.kind == ModelKind::Vit { "vit" } else { "lenet" }
    );
    ensure!(
        !matches!(spec.kind, ModelKind::Gan | ModelKind::Dcgan),
        "`model.kind` names a network that draws pictures and reads no text; its objective is \"gan\""
    );
    // A shape given in parts is kept to by every candidate, so that `hidden` alone or `layers` alone chooses the rest around it.
    let widths: Vec<usize> = match spec.hidden {
        Some(hidden) => vec![hidden],
        None => (2..=128).map(|n| n * 32).chain((33..=128).map(|n| n * 128)).collect(),
    };
    let candidates = widths.iter().flat_map(|&hidden| {
        let usual = (hidden / ASPECT).max(FEWEST_LAYERS);
        let depths = match (spec.layers, hidden) {
            (Some(layers), _) => layers..=layers,
            // A size that is asked for is met by depth as well as by width.
            (None, _) if spec.size.is_some() => usual / 2..=usual + usual / 3 + 1,
            (None, _) => usual..=usual,
        };
        depths.map(move |layers| shape(spec, facts.vocabulary, hidden, layers, context))
    });
    let budget = compute(&recipe.budget, facts.train_tokens, facts.gemm_rate);
    let wanted = spec.size.as_deref().map(parse_size).transpose()?;
    let cost = |config: &BackboneConfig| match wanted {
        Some(size) => {
            let parameters = match config {
                BackboneConfig::Decoder(config) => config.parameters(),
                BackboneConfig::Bert(config) => config.parameters(),
            };
            (parameters as f64 / size).ln().abs()
        }
        None => {
            // A budget in minutes buys a narrow model fewer FLOPs.
            let share = recipe.budget.minutes.map_or(1.0, |_| efficiency(config.hidden_size()) / efficiency(USUAL_WIDTH));
            imbalance(whole_flops(config, context), budget * share, facts.train_tokens)
        }
    };
    candidates.min_by(|a, b| cost(a).total_cmp(&cost(b))).context("no shape fits `model`")
}

/// Of a token of pretraining, the head that says words included: of a decoder for every token, of an encoder for the masked ones.
pub(super) fn whole_flops(config: &BackboneConfig, context: usize) -> f64 {
    match config {
        BackboneConfig::Decoder(config) => config.flops_per_token(context),
        BackboneConfig::Bert(c) => {
            let head = (c.hidden_size * (c.vocab_size + c.hidden_size)) as f64;
            c.flops_per_token(context) + 6.0 * 0.15 * head
        }
    }
}

/// The shape of the model that training starts from.
pub(super) fn inherited(folder: &str, facts: &Facts) -> Result<BackboneConfig> {
    let config =
        danlu_models::folder::load_backbone_config(Path::new(folder)).with_context(|| format!("`model.from` is {folder:?}"))?;
    let (entries, room) = (facts.vocabulary, config.vocab_size());
    ensure!(
        entries <= room,
        "the tokenizer has {entries} entries and the model {folder} room for {room}; use the model's own tokenizer"
    );
    Ok(config)
}

/// How far a model that costs this much per token is from [`tokens_per_parameter`] after spending `budget` on `unique` different tokens.
fn imbalance(flops_per_token: f64, budget: f64, unique: u64) -> f64 {
    let (parameters, tokens, unique) = (flops_per_token / 6.0, budget / flops_per_token, unique as f64);
    let repeats = (tokens / unique - 1.0).max(0.0);
    let worth = tokens.min(unique) + unique * REPEATS * (1.0 - (-repeats / REPEATS).exp());
    (worth / (tokens_per_parameter(budget) * parameters)).ln().abs()
}

fn shape(spec: &ModelSpec, vocabulary: usize, hidden: usize, layers: usize, context: usize) -> BackboneConfig {
    if spec.kind == ModelKind::Bert {
        let mut config = BertConfig::new(vocabulary, hidden, layers, context);
        config.num_attention_heads = spec.heads.unwrap_or(config.num_attention_heads);
        config.intermediate_size = spec.intermediate.unwrap_or(config.intermediate_size);
        return BackboneConfig::Bert(config);
    }
    BackboneConfig::Decoder(decoder(spec, vocabulary, hidden, layers, context))
}

fn decoder(spec: &ModelSpec, vocabulary: usize, hidden: usize, layers: usize, context: usize) -> DecoderConfig {
    if spec.kind == ModelKind::Gpt2 {
        let mut config = Gpt2Config::new(vocabulary, hidden, layers, context);
        let head_dim =
            [64, 32, 16, 8].into_iter().find(|d| hidden.is_multiple_of(*d) && (hidden > 256 || *d <= 32)).unwrap_or(hidden);
        config.n_head = spec.heads.unwrap_or(hidden / head_dim);
        config.n_inner = spec.intermediate.unwrap_or(config.n_inner);
        config.tie_word_embeddings = spec.tied.unwrap_or(config.tie_word_embeddings);
        return DecoderConfig::Gpt2(config);
    }
    let head_dim = spec.head_dim.unwrap_or(match spec.heads {
        Some(heads) => (hidden / heads).max(2).next_multiple_of(2),
        None if hidden <= 256 => 32.min(hidden),
        None => 64,
    });
    let mut config = LlamaConfig::new(vocabulary, hidden, layers, head_dim, context);
    config.num_attention_heads = spec.heads.unwrap_or(config.num_attention_heads);
    config.num_key_value_heads = spec.kv_heads.unwrap_or(config.num_attention_heads);
    config.intermediate_size = spec.intermediate.unwrap_or(config.intermediate_size);
    config.tie_word_embeddings = spec.tied.unwrap_or(config.tie_word_embeddings);
    match spec.kind {
        ModelKind::Qwen3 => DecoderConfig::Qwen3(config),
        _ => DecoderConfig::Llama(config),
    }
}

/// Writes a chosen shape back into the recipe, where it replaces a size.
pub fn write_backbone(spec: &mut ModelSpec, config: &BackboneConfig) {
    match config {
        BackboneConfig::Decoder(config) => write_shape(spec, config),
        BackboneConfig::Bert(c) => {
            (spec.size, spec.kind, spec.tied) = (None, ModelKind::Bert, None);
            (spec.layers, spec.hidden) = (Some(c.num_hidden_layers), Some(c.hidden_size));
            (spec.heads, spec.intermediate) = (Some(c.num_attention_heads), Some(c.intermediate_size));
        }
    }
}

/// [`write_backbone`] of a decoder.
pub fn write_shape(spec: &mut ModelSpec, config: &DecoderConfig) {
    spec.size = None;
    spec.kind = match config {
        DecoderConfig::Llama(_) => ModelKind::Llama,
        DecoderConfig::Qwen3(_) => ModelKind::Qwen3,
        DecoderConfig::Gpt2(_) => ModelKind::Gpt2,
    };
    spec.layers = Some(config.layers());
    spec.hidden = Some(config.hidden_size());
    spec.tied = Some(config.tied());
    match config {
        DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => {
            spec.heads = Some(c.num_attention_heads);
            spec.kv_heads = Some(c.num_key_value_heads);
            spec.head_dim = Some(c.head_dim);
            spec.intermediate = Some(c.intermediate_size);
        }
        DecoderConfig::Gpt2(c) => {
            spec.heads = Some(c.n_head);
            spec.intermediate = Some(c.n_inner);
        }
    }
}

/// Reads "800k", "10M", "1.5B".
///
/// # Errors
/// When it is not a number with k, M or B, or out of bounds.
pub fn parse_size(size: &str) -> Result<f64> {
    let parse = || {
        let text = size.trim();
        let unit = match text.chars().last()?.to_ascii_lowercase() {
            'k' => 1e3,
            'm' => 1e6,
            'b' => 1e9,
            c if c.is_ascii_digit() => return text.parse::<f64>().ok(),
            _ => return None,
        };
        Some(text[..text.len() - 1].trim().parse::<f64>().ok()? * unit)
    };
    let value = parse().with_context(|| format!("`model.size` is {size:?}; write it like \"800k\", \"10M\" or \"1.5B\""))?;
    ensure!((1e4..=1e12).contains(&value), "`model.size` is {size:?}; it must be from 10k to 1000B");
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, value) in [("800k", 8e5), ("10M", 1e7), ("1.5b", 1.5e9), ("25000", 25_000.0)] {
            assert_eq!(parse_size(text).unwrap(), value);
        }
        for text in ["", "M", "ten", "10X", "-1M", "1k", "nanM", "infB", "10é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
