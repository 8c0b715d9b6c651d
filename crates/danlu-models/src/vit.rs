//! The Vision Transformer.

use anyhow::Result;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use danlu_ops::{Convolution, Heads, Ids, Planes, Segments};

use crate::bert::{BertDense, BertSelfAttention};
use crate::config::VitConfig;
use crate::layers::{LayerNorm, Linear, placeholder};
use crate::lenet::Filters;
use crate::{init, names};

/// A picture as a text of patches ([Dosovitskiy et al. 2020](https://arxiv.org/abs/2010.11929)): each patch becomes a token by one
/// projection, a token for the whole stands before them, learned positions are added, and a pre-norm encoder lets every token see all others.
///
/// It is what a head stands on: one that reads the token of the whole ([`VitClassifier`]), or all tokens, of which those from the second on
/// lie row by row as the patches do.
#[derive(Module, Debug)]
pub struct Vit {
    pub embeddings: VitEmbeddings,
    pub encoder: VitEncoder,
    pub layernorm: LayerNorm,
    #[module(skip)]
    shape: Shape,
    #[module(skip)]
    cut: Cut,
}

#[derive(Module, Debug)]
pub struct VitEmbeddings {
    /// The token of the whole, `[1, 1, hidden]`.
    pub cls_token: Param<Tensor<3>>,
    /// Of that token and then of the patches, `[1, patches + 1, hidden]`.
    pub position_embeddings: Param<Tensor<3>>,
    pub patch_embeddings: VitPatches,
}

#[derive(Module, Debug)]
pub struct VitPatches {
    /// A convolution whose windows do not overlap.
    pub projection: Filters,
}

#[derive(Module, Debug)]
pub struct VitEncoder {
    pub layer: Vec<VitLayer>,
}

#[derive(Module, Debug)]
pub struct VitLayer {
    pub layernorm_before: LayerNorm,
    pub attention: VitAttention,
    pub layernorm_after: LayerNorm,
    pub intermediate: BertDense,
    pub output: BertDense,
}

#[derive(Module, Debug)]
pub struct VitAttention {
    pub attention: BertSelfAttention,
    pub output: BertDense,
}

/// What the layers of a stack have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    heads: Heads,
    pub(crate) eps: f64,
}

impl Shape {
    pub(crate) fn of(config: &VitConfig) -> Self {
        let heads = config.num_attention_heads;
        let heads = Heads { heads, kv_heads: heads, head_dim: config.hidden_size / heads };
        Self { heads, eps: config.layer_norm_eps }
    }
}

/// How a picture is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    picture: Planes,
    side: usize,
}

impl Cut {
    pub(crate) fn of(config: &VitConfig) -> Self {
        Self { picture: config.picture(), side: config.patch_size }
    }

    fn grid(self) -> [usize; 2] {
        [self.picture.height / self.side, self.picture.width / self.side]
    }

    pub(crate) fn patches(self) -> usize {
        self.grid().iter().product()
    }

    /// The patches of pictures `[pictures, values]` as rows, `[pictures × patches, values of a patch]`: plane after plane, as a convolution's
    /// window lies; or, with `channels_last`, pixel after pixel.
    pub(crate) fn rows(self, pictures: Tensor<2>, channels_last: bool) -> Tensor<2> {
        let [count, values] = pictures.dims();
        let Planes { channels, height, width } = self.picture;
        assert_eq!(values, channels * height * width, "a row is a picture of {channels}×{height}×{width}");
        let ([rows, columns], side) = (self.grid(), self.side);
        let order = if channels_last { [0, 2, 4, 3, 5, 1] } else { [0, 2, 4, 1, 3, 5] };
        let cut = pictures.reshape([count, channels, rows, side, columns, side]).permute(order);
        cut.reshape([count * rows * columns, channels * side * side])
    }
}

impl Vit {
    /// With initial weights: uniform with variance 2 / (inputs + outputs) (Glorot 2010), biases zero, and positions that begin as the sines and
    /// cosines of their rows and columns, so that near ones are alike before anything is learned. The same for the same seed.
    ///
    /// # Errors
    /// When the configuration's numbers do not make a network.
    pub fn new(config: &VitConfig, seed: u64, device: &Device) -> Result<Self> {
        config.validate()?;
        names::fill(Self::empty(config, device), |name, shape| Ok(initial(config, seed, &format!("vit.{name}"), shape)))
    }

    /// A network whose parameters have shapes and no values.
    pub(crate) fn empty(config: &VitConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let windows = Convolution {
            input: config.picture(),
            outputs: hidden,
            kernel: [config.patch_size; 2],
            stride: config.patch_size,
            padding: 0,
        };
        Self {
            embeddings: VitEmbeddings {
                cls_token: placeholder([1, 1, hidden], device),
                position_embeddings: placeholder([1, config.patches() + 1, hidden], device),
                patch_embeddings: VitPatches { projection: Filters::new(&windows, device) },
            },
            encoder: VitEncoder { layer: VitLayer::stack(config, device) },
            layernorm: LayerNorm::new(hidden, device),
            shape: Shape::of(config),
            cut: Cut::of(config),
        }
    }

    /// What it reads.
    pub fn picture(&self) -> Planes {
        self.cut.picture
    }

    /// Patches of a picture.
    pub fn patches(&self) -> usize {
        self.cut.patches()
    }

    /// The states of all tokens, `[pictures × (1 + patches), hidden]`, of pictures `[pictures, values]`. With `kept`, only these patches of
    /// each picture are read: their places in it, as many of each picture, picture after picture.
    ///
    /// # Panics
    /// When rows are not pictures of [`Vit::picture`], or a place is outside of it.
    pub fn states(&self, pictures: Tensor<2>, kept: Option<&Ids>) -> Tensor<2> {
        let count = pictures.dims()[0];
        self.run(self.tokens(pictures, kept), count, None)
    }

    /// [`Vit::states`] of the tokens of the whole alone, `[pictures, hidden]`: after its attention the last layer works on these only.
    ///
    /// # Panics
    /// As [`Vit::states`].
    pub fn wholes(&self, pictures: Tensor<2>, kept: Option<&Ids>) -> Tensor<2> {
        let count = pictures.dims()[0];
        let tokens = self.tokens(pictures, kept);
        let each = tokens.dims()[0] / count.max(1);
        let firsts = (0..count).map(|picture| (picture * each) as u32).collect();
        self.run(tokens, count, Some(&firsts))
    }

    /// Every projection inside the layers with its name, in the order of the fields.
    pub(crate) fn linears(&mut self) -> Vec<(String, &mut Linear)> {
        let mut all = vec![];
        for (i, layer) in self.encoder.layer.iter_mut().enumerate() {
            let VitLayer { attention, intermediate, output, .. } = layer;
            let BertSelfAttention { query, key, value } = &mut attention.attention;
            let mut add = |name: &str, linear| all.push((format!("vit.encoder.layer.{i}.{name}"), linear));
            add("attention.attention.query", query);
            add("attention.attention.key", key);
            add("attention.attention.value", value);
            add("attention.output.dense", &mut attention.output.dense);
            add("intermediate.dense", &mut intermediate.dense);
            add("output.dense", &mut output.dense);
        }
        all
    }

    fn run(&self, tokens: Tensor<2>, pictures: usize, wanted: Option<&Ids>) -> Tensor<2> {
        let segments = Segments::rows(pictures, tokens.dims()[0] / pictures.max(1));
        let x = run(&self.encoder.layer, tokens, self.shape, &segments, wanted);
        self.layernorm.forward(x, self.shape.eps)
    }

    /// What the layers read: the token of the whole and then the patches of each picture, with their positions.
    fn tokens(&self, pictures: Tensor<2>, kept: Option<&Ids>) -> Tensor<2> {
        let (count, patches) = (pictures.dims()[0], self.patches());
        let mut rows = self.cut.rows(pictures, false);
        let each = kept.map_or(patches, |kept| kept.len() / count.max(1));
        if let Some(kept) = kept {
            assert_eq!(kept.len(), each * count, "as many patches of each of {count} pictures are kept");
            assert!(kept.iter().all(|&place| (place as usize) < patches), "a picture has {patches} patches");
            rows = danlu_ops::embedding(
                rows,
                &of_each(count, each, |picture, i| picture * patches + kept[picture * each + i] as usize),
            );
        }
        let VitEmbeddings { cls_token, position_embeddings, patch_embeddings } = &self.embeddings;
        let (weight, bias) = (patch_embeddings.projection.weight.val(), patch_embeddings.projection.bias.val());
        let [hidden, channels, height, width] = weight.dims();
        let rows = danlu_ops::linear(rows, weight.reshape([hidden, channels * height * width]), Some(bias));
        // The one row of the whole and then those of all patches, as a table.
        let table = Tensor::cat(vec![cls_token.val().reshape([1, hidden]).cast(rows.dtype()), rows], 0);
        let tokens = of_each(count, each + 1, |picture, i| if i == 0 { 0 } else { picture * each + i });
        let places = of_each(count, each + 1, |picture, i| match (i, kept) {
            (0, _) => 0,
            (_, None) => i,
            (_, Some(kept)) => kept[picture * each + i - 1] as usize + 1,
        });
        let positions = position_embeddings.val().reshape([patches + 1, hidden]);
        danlu_ops::embedding(table, &tokens) + danlu_ops::embedding(positions, &places)
    }
}

/// Rows of a table for each of `count` pictures, `each` of them, by `row(picture, i)`.
pub(crate) fn of_each(count: usize, each: usize, row: impl Fn(usize, usize) -> usize) -> Ids {
    (0..count * each).map(|i| row(i / each, i % each) as u32).collect()
}

/// Layers one after the other; the last finishes only the `wanted` rows, where there are any.
pub(crate) fn run(layers: &[VitLayer], x: Tensor<2>, shape: Shape, segments: &Segments, wanted: Option<&Ids>) -> Tensor<2> {
    let last = layers.len().saturating_sub(1);
    let layers = layers.iter().enumerate();
    layers.fold(x, |x, (i, layer)| layer.forward(x, shape, segments, wanted.filter(|_| i == last)))
}

impl VitLayer {
    pub(crate) fn stack(config: &VitConfig, device: &Device) -> Vec<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let dense = |out, inp| BertDense { dense: Linear::new(out, inp, true, device) };
        let projection = || Linear::new(hidden, hidden, config.qkv_bias, device);
        let layer = |_| Self {
            layernorm_before: LayerNorm::new(hidden, device),
            attention: VitAttention {
                attention: BertSelfAttention { query: projection(), key: projection(), value: projection() },
                output: dense(hidden, hidden),
            },
            layernorm_after: LayerNorm::new(hidden, device),
            intermediate: dense(inner, hidden),
            output: dense(hidden, inner),
        };
        (0..config.num_hidden_layers).map(layer).collect()
    }

    fn forward(&self, x: Tensor<2>, shape: Shape, segments: &Segments, wanted: Option<&Ids>) -> Tensor<2> {
        let BertSelfAttention { query, key, value } = &self.attention.attention;
        let norm = self.layernorm_before.before(shape.eps);
        let qkv = danlu_ops::projections_after(norm, x.clone(), &[query, key, value].map(Linear::projection));
        let seen = danlu_ops::bidirectional_attention(qkv, shape.heads, None, segments);
        let [x, seen] = [x, seen].map(|all| match wanted {
            Some(wanted) => danlu_ops::embedding(all, wanted),
            None => all,
        });
        let x = x + self.attention.output.dense.forward(seen);
        let inner = self.intermediate.dense.after(self.layernorm_after.before(shape.eps), x.clone());
        x + self.output.dense.forward(danlu_ops::gelu_exact(inner))
    }
}

/// A [`Vit`] with a head that says which class a picture has, from the token of the whole.
#[derive(Module, Debug)]
pub struct VitClassifier {
    pub vit: Vit,
    /// `[classes, hidden]`.
    pub classifier: Linear,
}

impl VitClassifier {
    /// With initial weights, as [`Vit::new`].
    ///
    /// # Errors
    /// When the configuration's numbers do not make a classifier.
    pub fn new(config: &VitConfig, seed: u64, device: &Device) -> Result<Self> {
        Self::on(Vit::new(config, seed, device)?, config, seed, device)
    }

    /// A new head on a network that is there.
    ///
    /// # Errors
    /// As [`VitClassifier::new`].
    pub fn on(vit: Vit, config: &VitConfig, seed: u64, device: &Device) -> Result<Self> {
        config.validate_classifier()?;
        let head = Linear::new(config.labels.len(), config.hidden_size, true, device);
        let classifier = names::fill(head, |name, shape| Ok(initial(config, seed, &format!("classifier.{name}"), shape)))?;
        Ok(Self { vit, classifier })
    }

    pub(crate) fn empty(config: &VitConfig, device: &Device) -> Result<Self> {
        config.validate_classifier()?;
        let classifier = Linear::new(config.labels.len(), config.hidden_size, true, device);
        Ok(Self { vit: Vit::empty(config, device), classifier })
    }

    /// The logits of each picture, `[pictures, classes]`, from all of its patches or those that are `kept`.
    ///
    /// # Panics
    /// As [`Vit::states`].
    pub fn logits(&self, pictures: Tensor<2>, kept: Option<&Ids>) -> Tensor<2> {
        self.classifier.forward(self.vit.wholes(pictures, kept))
    }
}

/// What a parameter starts as; see [`Vit::new`]. What no product reads begins normal with the configuration's deviation, as the head does.
pub(crate) fn initial(config: &VitConfig, seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let range = config.initializer_range;
    match shape {
        [_, places, width] if *places > 1 => positions(config.grid(), *width),
        [outputs, rest @ ..] if matches!(shape.len(), 2 | 4) && !name.starts_with("classifier.") => {
            let inputs: usize = rest.iter().product();
            let bound = (6.0 / (inputs + outputs) as f64).sqrt();
            init::uniform(seed, name, bound, outputs * inputs)
        }
        _ => init::values(seed, name, shape, range, 1),
    }
}

/// Sines and cosines of columns and rows, a quarter of the channels each, after a row of zeros for the token of the whole
/// ([He et al. 2021](https://arxiv.org/abs/2111.06377), in whose code they lie in this order).
fn positions([rows, columns]: [usize; 2], width: usize) -> Vec<f32> {
    let quarter = width / 4;
    let mut values = vec![0.0; (rows * columns + 1) * width];
    for (place, values) in values.chunks_exact_mut(width).skip(1).enumerate() {
        for i in 0..quarter {
            let frequency = 10_000f64.powf(-(i as f64) / quarter as f64);
            for (part, at) in [place % columns, place / columns].into_iter().enumerate() {
                let (sin, cos) = (at as f64 * frequency).sin_cos();
                values[2 * part * quarter + i] = sin as f32;
                values[(2 * part + 1) * quarter + i] = cos as f32;
            }
        }
    }
    values
}
