//! Llama, and Qwen3, which is Llama with RMSNorm on each head's queries and keys.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use danlu_ops::{Before, Heads, Ids, KvFormat, LayerCache, PagedCache, Rope, Segments};

use crate::batch::{Batch, Shared};
use crate::config::LlamaConfig;
use crate::layers::{Linear, RmsNorm, Table};
use crate::prompt;
use crate::sequences::{LEAST_ROWS, Parts, layer_of};

/// A pre-norm decoder with RMSNorm, rope, grouped queries and SwiGLU ([Touvron et al. 2023](https://arxiv.org/abs/2302.13971)).
#[derive(Module, Debug)]
pub struct Llama {
    pub model: LlamaModel,
    /// The output projection; without one the embedding serves.
    pub lm_head: Option<Table>,
    /// Learned tokens before every document, `[tokens, hidden]`, under PEFT's name.
    pub prompt_embeddings: Option<Param<Tensor<2>>>,
    #[module(skip)]
    shape: Shape,
}

/// All but the output projection.
#[derive(Module, Debug)]
pub struct LlamaModel {
    pub embed_tokens: Table,
    pub layers: Vec<LlamaLayer>,
    pub norm: RmsNorm,
}

#[derive(Module, Debug)]
pub struct LlamaLayer {
    pub input_layernorm: RmsNorm,
    pub self_attn: LlamaAttention,
    pub post_attention_layernorm: RmsNorm,
    pub mlp: LlamaMlp,
}

/// Projections of `[heads × head_dim, hidden]` (queries), `[kv_heads × head_dim, hidden]` (keys, values) and back.
#[derive(Module, Debug)]
pub struct LlamaAttention {
    pub q_proj: Linear,
    pub k_proj: Linear,
    pub v_proj: Linear,
    pub o_proj: Linear,
    /// Qwen3's, `[head_dim]`, as `k_norm`; absent in Llama.
    pub q_norm: Option<RmsNorm>,
    pub k_norm: Option<RmsNorm>,
}

/// `down(silu(gate x) · up x)` ([Shazeer 2020](https://arxiv.org/abs/2002.05202)).
#[derive(Module, Debug)]
pub struct LlamaMlp {
    pub gate_proj: Linear,
    pub up_proj: Linear,
    pub down_proj: Linear,
}

/// What every layer needs besides its parameters and its input.
#[derive(Clone, Debug)]
struct Shape {
    heads: Heads,
    eps: f64,
    rope: Rope,
    least_rows: usize,
}

impl Llama {
    pub(crate) fn new(config: &LlamaConfig, qk_norm: bool, device: &Device) -> Self {
        let c = config;
        let hidden = c.hidden_size;
        let head_norm = || qk_norm.then(|| RmsNorm::new(c.head_dim, device));
        let layer = |_| LlamaLayer {
            input_layernorm: RmsNorm::new(hidden, device),
            self_attn: LlamaAttention {
                q_proj: Linear::new(c.num_attention_heads * c.head_dim, hidden, false, device),
                k_proj: Linear::new(c.num_key_value_heads * c.head_dim, hidden, false, device),
                v_proj: Linear::new(c.num_key_value_heads * c.head_dim, hidden, false, device),
                o_proj: Linear::new(hidden, c.num_attention_heads * c.head_dim, false, device),
                q_norm: head_norm(),
                k_norm: head_norm(),
            },
            post_attention_layernorm: RmsNorm::new(hidden, device),
            mlp: LlamaMlp {
                gate_proj: Linear::new(c.intermediate_size, hidden, false, device),
                up_proj: Linear::new(c.intermediate_size, hidden, false, device),
                down_proj: Linear::new(hidden, c.intermediate_size, false, device),
            },
        };
        Self {
            model: LlamaModel {
                embed_tokens: Table::new(c.vocab_size, hidden, device),
                layers: (0..c.num_hidden_layers).map(layer).collect(),
                norm: RmsNorm::new(hidden, device),
            },
            lm_head: (!c.tie_word_embeddings).then(|| Table::new(c.vocab_size, hidden, device)),
            prompt_embeddings: None,
            shape: Shape {
                heads: Heads { heads: c.num_attention_heads, kv_heads: c.num_key_value_heads, head_dim: c.head_dim },
                eps: c.rms_norm_eps,
                rope: rope(c),
                least_rows: LEAST_ROWS,
            },
        }
    }

    /// What gives logits: the embedding when there is no projection for it.
    pub(crate) fn head(&self) -> &Table {
        self.lm_head.as_ref().unwrap_or(&self.model.embed_tokens)
    }

    /// A parameter that is never in blocks.
    pub(crate) fn last_norm(&self) -> &Param<Tensor<1>> {
        &self.model.norm.weight
    }

    /// The least rows that are read together, see [`Parts`].
    pub(crate) fn least_rows(&self) -> usize {
        self.shape.least_rows
    }

    pub(crate) fn set_least_rows(&mut self, rows: usize) {
        self.shape.least_rows = rows;
    }

    pub(crate) fn hidden(&self, batch: &Batch, recompute: bool) -> Tensor<2> {
        let x = self.model.embed_tokens.rows(&batch.ids);
        if self.prompt_embeddings.is_none() {
            return self.layers(x, &batch.segments, batch.shared.as_ref(), recompute);
        }
        let layers = |x, segments: &Segments| self.layers(x, segments, None, recompute);
        prompt::around(self.prompt_embeddings.as_ref(), x, &batch.segments, layers)
    }

    fn layers(&self, x: Tensor<2>, segments: &Segments, shared: Option<&Shared>, recompute: bool) -> Tensor<2> {
        let mut x = Shared::computed(shared, x);
        for layer in &self.model.layers {
            let (shape, segments, shared) = (self.shape.clone(), segments.clone(), shared.cloned());
            let forward = move |layer: &LlamaLayer, x| {
                layer.forward(x, &shape, |qkv| Shared::attention(shared.as_ref(), qkv, shape.heads, Some(&shape.rope), &segments))
            };
            x = if recompute { danlu_ops::recompute(layer, x, forward) } else { forward(layer, x) };
        }
        Shared::all(shared, self.model.norm.forward(x, self.shape.eps))
    }

    pub(crate) fn hidden_cached(&self, ids: &Ids, caches: &mut [LayerCache]) -> Tensor<2> {
        let shape = &self.shape;
        let x = self.model.embed_tokens.rows(ids);
        let mut x = prompt::before_first(self.prompt_embeddings.as_ref(), x, caches);
        for (layer, cache) in self.model.layers.iter().zip(caches) {
            x = layer.forward(x, shape, |qkv| danlu_ops::attention_cached(qkv, shape.heads, Some(&shape.rope), cache));
        }
        // Only the last token's logits are wanted.
        let last = x.dims()[0] - 1;
        self.model.norm.forward(x.narrow(0, last, 1), shape.eps)
    }

    /// The normalized output after each wanted token of many sequences, `[wanted, hidden]` and padding.
    pub(crate) fn hidden_many(&self, parts: &Parts, sequences: &mut [&mut [PagedCache]]) -> Tensor<2> {
        let shape = &self.shape;
        let mut x = self.model.embed_tokens.rows(&parts.ids);
        for (index, layer) in self.model.layers.iter().enumerate() {
            let mut caches = layer_of(sequences, index);
            x = layer.forward(x, shape, |qkv| {
                danlu_ops::attention_paged(qkv, shape.heads, Some(&shape.rope), &mut caches, &parts.counts)
            });
        }
        self.model.norm.forward(parts.wanted_rows(x), shape.eps)
    }

    pub(crate) fn paged(&self, capacity: usize, format: KvFormat, device: &Device) -> Vec<PagedCache> {
        self.model.layers.iter().map(|_| PagedCache::new(self.shape.heads, capacity, format, device)).collect()
    }

    pub(crate) fn caches(&self, capacity: usize, device: &Device) -> Vec<LayerCache> {
        self.model.layers.iter().map(|_| LayerCache::new(self.shape.heads, capacity, device)).collect()
    }

    pub(crate) fn context(&self) -> usize {
        self.shape.rope.max_position() - prompt::len(self.prompt_embeddings.as_ref())
    }

    /// Every projection of the layers with its name.
    pub(crate) fn linears(&mut self) -> Vec<(String, &mut Linear)> {
        let mut all = vec![];
        for (i, layer) in self.model.layers.iter_mut().enumerate() {
            let (attention, mlp) = (&mut layer.self_attn, &mut layer.mlp);
            let mut add = |name: &str, linear| all.push((format!("model.layers.{i}.{name}"), linear));
            add("self_attn.q_proj", &mut attention.q_proj);
            add("self_attn.k_proj", &mut attention.k_proj);
            add("self_attn.v_proj", &mut attention.v_proj);
            add("self_attn.o_proj", &mut attention.o_proj);
            add("mlp.gate_proj", &mut mlp.gate_proj);
            add("mlp.up_proj", &mut mlp.up_proj);
            add("mlp.down_proj", &mut mlp.down_proj);
        }
        all
    }

    pub(crate) fn embedding(&self) -> &Table {
        &self.model.embed_tokens
    }

    /// The embedding, and the output projection where it has one, with their names.
    pub(crate) fn tables(&mut self) -> Vec<(&'static str, &mut Table)> {
        let head = self.lm_head.as_mut().map(|head| ("lm_head", head));
        [("model.embed_tokens", &mut self.model.embed_tokens)].into_iter().chain(head).collect()
    }
}

impl LlamaLayer {
    fn forward(&self, x: Tensor<2>, shape: &Shape, attention: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let qkv = self.self_attn.qkv(self.input_layernorm.before(shape.eps), x.clone(), shape);
        let x = x + self.self_attn.o_proj.forward(attention(qkv));
        let inner = self.mlp.forward(self.post_attention_layernorm.before(shape.eps), x.clone());
        x + inner
    }
}

impl LlamaAttention {
    fn qkv(&self, norm: Before, x: Tensor<2>, shape: &Shape) -> Tensor<2> {
        let qkv = danlu_ops::projections_after(norm, x, &[&self.q_proj, &self.k_proj, &self.v_proj].map(Linear::projection));
        match (&self.q_norm, &self.k_norm) {
            (Some(q), Some(k)) => danlu_ops::head_rms_norm(qkv, q.weight.val(), k.weight.val(), shape.heads, shape.eps),
            _ => qkv,
        }
    }
}

impl LlamaMlp {
    fn forward(&self, norm: Before, x: Tensor<2>) -> Tensor<2> {
        let gate_up = danlu_ops::projections_after(norm, x, &[&self.gate_proj, &self.up_proj].map(Linear::projection));
        self.down_proj.after(Before::Swiglu, gate_up)
    }
}

fn rope(config: &LlamaConfig) -> Rope {
    let half = config.head_dim / 2;
    let frequencies = (0..half).map(|i| config.rope_theta.powf(-(i as f64) / half as f64));
    let divisors = config.rope_scaling.divisors(config.rope_theta, config.head_dim);
    let scaled: Vec<f64> = frequencies.zip(divisors).map(|(frequency, divisor)| frequency / divisor).collect();
    Rope::from_frequencies(&scaled, config.max_position_embeddings)
}
