//! GPT-2.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use danlu_ops::{Before, Heads, Ids, KvFormat, LayerCache, PagedCache, Segments};

use crate::batch::{Batch, Shared};
use crate::config::Gpt2Config;
use crate::layers::{LayerNorm, Linear, Matrix, Table};
use crate::prompt;
use crate::sequences::{LEAST_ROWS, Parts, layer_of};

/// A pre-norm decoder with LayerNorm, learned positions and GELU
/// ([Radford et al. 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)).
#[derive(Module, Debug)]
pub struct Gpt2 {
    pub transformer: Gpt2Model,
    /// The output projection; without one the embedding serves, as in the paper.
    pub lm_head: Option<Table>,
    /// Learned tokens before every document, `[tokens, channels]`, under PEFT's name.
    pub prompt_embeddings: Option<Param<Tensor<2>>>,
    #[module(skip)]
    shape: Shape,
}

/// All but the output projection.
#[derive(Module, Debug)]
pub struct Gpt2Model {
    /// Tokens, `[vocabulary, channels]`.
    pub wte: Table,
    /// Positions, `[context, channels]`.
    pub wpe: Matrix,
    pub h: Vec<Gpt2Layer>,
    pub ln_f: LayerNorm,
}

#[derive(Module, Debug)]
pub struct Gpt2Layer {
    pub ln_1: LayerNorm,
    pub attn: Gpt2Attention,
    pub ln_2: LayerNorm,
    pub mlp: Gpt2Mlp,
}

#[derive(Module, Debug)]
pub struct Gpt2Attention {
    /// Queries, keys and values in one, `[3 × channels, channels]`.
    pub c_attn: Linear,
    pub c_proj: Linear,
}

#[derive(Module, Debug)]
pub struct Gpt2Mlp {
    pub c_fc: Linear,
    pub c_proj: Linear,
}

#[derive(Clone, Debug)]
struct Shape {
    heads: Heads,
    eps: f64,
    least_rows: usize,
}

/// `transformers` keeps these matrices as `[in, out]` ("Conv1D"); here every projection is `[out, in]`.
pub(crate) fn transposed_in_files(name: &str) -> bool {
    ["c_attn.weight", "c_proj.weight", "c_fc.weight"].iter().any(|end| name.ends_with(end))
}

impl Gpt2 {
    pub(crate) fn new(config: &Gpt2Config, device: &Device) -> Self {
        let c = config;
        let layer = |_| Gpt2Layer {
            ln_1: LayerNorm::new(c.n_embd, device),
            attn: Gpt2Attention {
                c_attn: Linear::new(3 * c.n_embd, c.n_embd, true, device),
                c_proj: Linear::new(c.n_embd, c.n_embd, true, device),
            },
            ln_2: LayerNorm::new(c.n_embd, device),
            mlp: Gpt2Mlp {
                c_fc: Linear::new(c.n_inner, c.n_embd, true, device),
                c_proj: Linear::new(c.n_embd, c.n_inner, true, device),
            },
        };
        Self {
            transformer: Gpt2Model {
                wte: Table::new(c.vocab_size, c.n_embd, device),
                wpe: Matrix::new(c.n_positions, c.n_embd, device),
                h: (0..c.n_layer).map(layer).collect(),
                ln_f: LayerNorm::new(c.n_embd, device),
            },
            lm_head: (!c.tie_word_embeddings).then(|| Table::new(c.vocab_size, c.n_embd, device)),
            prompt_embeddings: None,
            shape: Shape {
                heads: Heads { heads: c.n_head, kv_heads: c.n_head, head_dim: c.n_embd / c.n_head },
                eps: c.layer_norm_epsilon,
                least_rows: LEAST_ROWS,
            },
        }
    }

    /// What gives logits: the embedding when there is no projection for it.
    pub(crate) fn head(&self) -> &Table {
        self.lm_head.as_ref().unwrap_or(&self.transformer.wte)
    }

    /// A parameter that is never in blocks.
    pub(crate) fn last_norm(&self) -> &Param<Tensor<1>> {
        &self.transformer.ln_f.weight
    }

    /// The least rows that are read together, see [`Parts`].
    pub(crate) fn least_rows(&self) -> usize {
        self.shape.least_rows
    }

    pub(crate) fn set_least_rows(&mut self, rows: usize) {
        self.shape.least_rows = rows;
    }

    pub(crate) fn hidden(&self, batch: &Batch, recompute: bool) -> Tensor<2> {
        let x = self.transformer.wte.rows(&batch.ids);
        if self.prompt_embeddings.is_none() {
            return self.layers(x, &batch.segments, batch.shared.as_ref(), recompute);
        }
        let layers = |x, segments: &Segments| self.layers(x, segments, None, recompute);
        prompt::around(self.prompt_embeddings.as_ref(), x, &batch.segments, layers)
    }

    fn layers(&self, x: Tensor<2>, segments: &Segments, shared: Option<&Shared>, recompute: bool) -> Tensor<2> {
        let x = x + danlu_ops::embedding(self.transformer.wpe.weight.val(), &segments.positions());
        let mut x = Shared::computed(shared, x);
        for layer in &self.transformer.h {
            let (shape, segments, shared) = (self.shape.clone(), segments.clone(), shared.cloned());
            let forward = move |layer: &Gpt2Layer, x| {
                layer.forward(x, &shape, |qkv| Shared::attention(shared.as_ref(), qkv, shape.heads, None, &segments))
            };
            x = if recompute { danlu_ops::recompute(layer, x, forward) } else { forward(layer, x) };
        }
        Shared::all(shared, self.transformer.ln_f.forward(x, self.shape.eps))
    }

    pub(crate) fn hidden_cached(&self, ids: &Ids, caches: &mut [LayerCache]) -> Tensor<2> {
        let past = caches.first().map_or(0, LayerCache::len) as u32;
        let x = self.transformer.wte.rows(ids);
        let x = prompt::before_first(self.prompt_embeddings.as_ref(), x, caches);
        let positions: Ids = (past..past + x.dims()[0] as u32).collect();
        let mut x = x + danlu_ops::embedding(self.transformer.wpe.weight.val(), &positions);
        for (layer, cache) in self.transformer.h.iter().zip(caches) {
            x = layer.forward(x, &self.shape, |qkv| danlu_ops::attention_cached(qkv, self.shape.heads, None, cache));
        }
        // Only the last token's logits are wanted.
        let last = x.dims()[0] - 1;
        self.transformer.ln_f.forward(x.narrow(0, last, 1), self.shape.eps)
    }

    pub(crate) fn hidden_many(&self, parts: &Parts, sequences: &mut [&mut [PagedCache]]) -> Tensor<2> {
        let mut x = self.transformer.wte.rows(&parts.ids)
            + danlu_ops::embedding(self.transformer.wpe.weight.val(), &parts.positions(sequences));
        for (index, layer) in self.transformer.h.iter().enumerate() {
            let mut caches = layer_of(sequences, index);
            x = layer.forward(x, &self.shape, |qkv| {
                danlu_ops::attention_paged(qkv, self.shape.heads, None, &mut caches, &parts.counts)
            });
        }
        self.transformer.ln_f.forward(parts.wanted_rows(x), self.shape.eps)
    }

    pub(crate) fn paged(&self, capacity: usize, format: KvFormat, device: &Device) -> Vec<PagedCache> {
        self.transformer.h.iter().map(|_| PagedCache::new(self.shape.heads, capacity, format, device)).collect()
    }

    pub(crate) fn caches(&self, capacity: usize, device: &Device) -> Vec<LayerCache> {
        self.transformer.h.iter().map(|_| LayerCache::new(self.shape.heads, capacity, device)).collect()
    }

    pub(crate) fn context(&self) -> usize {
        self.transformer.wpe.weight.lazy_shape()[0] - prompt::len(self.prompt_embeddings.as_ref())
    }

    /// Every projection of the layers with its name.
    pub(crate) fn linears(&mut self) -> Vec<(String, &mut Linear)> {
        let mut all = vec![];
        for (i, layer) in self.transformer.h.iter_mut().enumerate() {
            let mut add = |name: &str, linear| all.push((format!("transformer.h.{i}.{name}"), linear));
            add("attn.c_attn", &mut layer.attn.c_attn);
            add("attn.c_proj", &mut layer.attn.c_proj);
            add("mlp.c_fc", &mut layer.mlp.c_fc);
            add("mlp.c_proj", &mut layer.mlp.c_proj);
        }
        all
    }

    pub(crate) fn embedding(&self) -> &Table {
        &self.transformer.wte
    }

    /// The embedding, and the output projection where it has one, with their names.
    pub(crate) fn tables(&mut self) -> Vec<(&'static str, &mut Table)> {
        let head = self.lm_head.as_mut().map(|head| ("lm_head", head));
        [("transformer.wte", &mut self.transformer.wte)].into_iter().chain(head).collect()
    }
}

impl Gpt2Layer {
    fn forward(&self, x: Tensor<2>, shape: &Shape, attention: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let qkv = self.attn.c_attn.after(self.ln_1.before(shape.eps), x.clone());
        let x = x + self.attn.c_proj.forward(attention(qkv));
        let inner = self.mlp.c_fc.after(self.ln_2.before(shape.eps), x.clone());
        x + self.mlp.c_proj.after(Before::Gelu, inner)
    }
}
