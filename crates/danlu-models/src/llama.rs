//! Llama, and Qwen3, which is Llama with RMSNorm on each head's queries and keys.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use danlu_ops::{Heads, Ids, LayerCache, Rope, Segments};

use crate::config::LlamaConfig;
use crate::layers::{Matrix, RmsNorm};

/// A pre-norm decoder with RMSNorm, rope, grouped queries and SwiGLU ([Touvron et al. 2023](https://arxiv.org/abs/2302.13971)).
#[derive(Module, Debug)]
pub struct Llama {
    pub model: LlamaModel,
    /// The output projection; without one the embedding serves.
    pub lm_head: Option<Matrix>,
    #[module(skip)]
    shape: Shape,
}

/// All but the output projection.
#[derive(Module, Debug)]
pub struct LlamaModel {
    pub embed_tokens: Matrix,
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
    pub q_proj: Matrix,
    pub k_proj: Matrix,
    pub v_proj: Matrix,
    pub o_proj: Matrix,
    /// Qwen3's, `[head_dim]`, as `k_norm`; absent in Llama.
    pub q_norm: Option<RmsNorm>,
    pub k_norm: Option<RmsNorm>,
}

/// `down(silu(gate x) · up x)` ([Shazeer 2020](https://arxiv.org/abs/2002.05202)).
#[derive(Module, Debug)]
pub struct LlamaMlp {
    pub gate_proj: Matrix,
    pub up_proj: Matrix,
    pub down_proj: Matrix,
}

/// What every layer needs besides its parameters and its input.
#[derive(Clone, Debug)]
struct Shape {
    heads: Heads,
    eps: f64,
    rope: Rope,
}

impl Llama {
    pub(crate) fn new(config: &LlamaConfig, qk_norm: bool, device: &Device) -> Self {
        let c = config;
        let hidden = c.hidden_size;
        let head_norm = || qk_norm.then(|| RmsNorm::new(c.head_dim, device));
        let layer = |_| LlamaLayer {
            input_layernorm: RmsNorm::new(hidden, device),
            self_attn: LlamaAttention {
                q_proj: Matrix::new(c.num_attention_heads * c.head_dim, hidden, device),
                k_proj: Matrix::new(c.num_key_value_heads * c.head_dim, hidden, device),
                v_proj: Matrix::new(c.num_key_value_heads * c.head_dim, hidden, device),
                o_proj: Matrix::new(hidden, c.num_attention_heads * c.head_dim, device),
                q_norm: head_norm(),
                k_norm: head_norm(),
            },
            post_attention_layernorm: RmsNorm::new(hidden, device),
            mlp: LlamaMlp {
                gate_proj: Matrix::new(c.intermediate_size, hidden, device),
                up_proj: Matrix::new(c.intermediate_size, hidden, device),
                down_proj: Matrix::new(hidden, c.intermediate_size, device),
            },
        };
        Self {
            model: LlamaModel {
                embed_tokens: Matrix::new(c.vocab_size, hidden, device),
                layers: (0..c.num_hidden_layers).map(layer).collect(),
                norm: RmsNorm::new(hidden, device),
            },
            lm_head: (!c.tie_word_embeddings).then(|| Matrix::new(c.vocab_size, hidden, device)),
            shape: Shape {
                heads: Heads { heads: c.num_attention_heads, kv_heads: c.num_key_value_heads, head_dim: c.head_dim },
                eps: c.rms_norm_eps,
                rope: rope(c),
            },
        }
    }

    pub(crate) fn head_weight(&self) -> Tensor<2> {
        self.lm_head.as_ref().unwrap_or(&self.model.embed_tokens).weight.val()
    }

    pub(crate) fn hidden(&self, ids: &Ids, segments: &Segments, recompute: bool) -> Tensor<2> {
        let mut x = danlu_ops::embedding(self.model.embed_tokens.weight.val(), ids);
        for layer in &self.model.layers {
            let (shape, segments) = (self.shape.clone(), segments.clone());
            let forward = move |layer: &LlamaLayer, x| {
                layer.forward(x, &shape, |qkv| danlu_ops::attention(qkv, shape.heads, Some(&shape.rope), &segments))
            };
            x = if recompute { danlu_ops::recompute(layer, x, forward) } else { forward(layer, x) };
        }
        self.model.norm.forward(x, self.shape.eps)
    }

    pub(crate) fn hidden_cached(&self, ids: &Ids, caches: &mut [LayerCache]) -> Tensor<2> {
        let shape = &self.shape;
        let mut x = danlu_ops::embedding(self.model.embed_tokens.weight.val(), ids);
        for (layer, cache) in self.model.layers.iter().zip(caches) {
            x = layer.forward(x, shape, |qkv| danlu_ops::attention_cached(qkv, shape.heads, Some(&shape.rope), cache));
        }
        // Only the last token's logits are wanted.
        let last = x.dims()[0] - 1;
        self.model.norm.forward(x.narrow(0, last, 1), shape.eps)
    }

    pub(crate) fn caches(&self, capacity: usize, device: &Device) -> Vec<LayerCache> {
        self.model.layers.iter().map(|_| LayerCache::new(self.shape.heads, capacity, device)).collect()
    }

    pub(crate) fn context(&self) -> usize {
        self.shape.rope.max_position()
    }
}

impl LlamaLayer {
    fn forward(&self, x: Tensor<2>, shape: &Shape, attention: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let normed = self.input_layernorm.forward(x.clone(), shape.eps);
        let x = x + self.self_attn.o_proj.forward(attention(self.self_attn.qkv(normed, shape)));
        let normed = self.post_attention_layernorm.forward(x.clone(), shape.eps);
        x + self.mlp.forward(normed)
    }
}

impl LlamaAttention {
    fn qkv(&self, x: Tensor<2>, shape: &Shape) -> Tensor<2> {
        let qkv = danlu_ops::project(x, &[&self.q_proj, &self.k_proj, &self.v_proj].map(|m| m.weight.val()), None);
        match (&self.q_norm, &self.k_norm) {
            (Some(q), Some(k)) => danlu_ops::head_rms_norm(qkv, q.weight.val(), k.weight.val(), shape.heads, shape.eps),
            _ => qkv,
        }
    }
}

impl LlamaMlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate_up = danlu_ops::project(x, &[&self.gate_proj, &self.up_proj].map(|m| m.weight.val()), None);
        self.down_proj.forward(danlu_ops::swiglu(gate_up))
    }
}

fn rope(config: &LlamaConfig) -> Rope {
    let half = config.head_dim / 2;
    let frequencies = (0..half).map(|i| config.rope_theta.powf(-(i as f64) / half as f64));
    let divisors = config.rope_scaling.divisors(config.rope_theta, config.head_dim);
    let scaled: Vec<f64> = frequencies.zip(divisors).map(|(frequency, divisor)| frequency / divisor).collect();
    Rope::from_frequencies(&scaled, config.max_position_embeddings)
}
