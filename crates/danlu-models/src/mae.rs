//! The masked autoencoder.

use anyhow::Result;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use danlu_ops::{Ids, Segments};

use crate::config::MaeConfig;
use crate::layers::{LayerNorm, Linear, placeholder};
use crate::names;
use crate::vit::{Cut, Shape, Vit, VitLayer, initial, of_each, run};

/// Added to a patch's variance before it divides, as `transformers` does.
const VARIANCE: f64 = 1e-6;

/// An encoder that sees a few patches of a picture, and a small decoder that says what the others were
/// ([He et al. 2021](https://arxiv.org/abs/2111.06377)). What is wanted of it is the encoder, which has learned from pictures without labels.
#[derive(Module, Debug)]
pub struct Mae {
    pub vit: Vit,
    pub decoder: MaeDecoder,
}

#[derive(Module, Debug)]
pub struct MaeDecoder {
    /// `[decoder's hidden, hidden]`.
    pub decoder_embed: Linear,
    /// What stands for a patch that is hidden, `[1, 1, decoder's hidden]`.
    pub mask_token: Param<Tensor<3>>,
    /// `[1, patches + 1, decoder's hidden]`.
    pub decoder_pos_embed: Param<Tensor<3>>,
    pub decoder_layers: Vec<VitLayer>,
    pub decoder_norm: LayerNorm,
    /// `[values of a patch, decoder's hidden]`.
    pub decoder_pred: Linear,
    #[module(skip)]
    shape: Shape,
    #[module(skip)]
    cut: Cut,
    #[module(skip)]
    normalized: bool,
}

impl Mae {
    /// With initial weights, as [`Vit::new`].
    ///
    /// # Errors
    /// When the configuration's numbers do not make a network.
    pub fn new(config: &MaeConfig, seed: u64, device: &Device) -> Result<Self> {
        names::fill(Self::empty(config, device)?, |name, shape| Ok(initial(&config.vit, seed, name, shape)))
    }

    /// A network whose parameters have shapes and no values.
    pub(crate) fn empty(config: &MaeConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let (of_decoder, patches) = (config.decoder(), config.vit.patches());
        let hidden = of_decoder.hidden_size;
        let decoder = MaeDecoder {
            decoder_embed: Linear::new(hidden, config.vit.hidden_size, true, device),
            mask_token: placeholder([1, 1, hidden], device),
            decoder_pos_embed: placeholder([1, patches + 1, hidden], device),
            decoder_layers: VitLayer::stack(&of_decoder, device),
            decoder_norm: LayerNorm::new(hidden, device),
            decoder_pred: Linear::new(config.vit.patch_len(), hidden, true, device),
            shape: Shape::of(&of_decoder),
            cut: Cut::of(&config.vit),
            normalized: config.norm_pix_loss,
        };
        Ok(Self { vit: Vit::empty(&config.vit, device), decoder })
    }

    /// The mean squared error of the values of the patches that are hidden, `[1]`, of pictures `[pictures, values]`, of which the encoder sees
    /// the patches `kept`: places in each picture, sorted, as many of each.
    ///
    /// # Panics
    /// As [`Vit::states`], and when nothing is hidden.
    pub fn loss(&self, pictures: Tensor<2>, kept: &Ids) -> Tensor<1> {
        let (told, are) = self.told(pictures, kept);
        (told - are).square().mean()
    }

    /// [`Mae::loss`] of each picture, without gradients.
    ///
    /// # Panics
    /// As [`Mae::loss`].
    pub fn losses(&self, pictures: Tensor<2>, kept: &Ids) -> Vec<f32> {
        let count = pictures.dims()[0];
        let (told, are) = self.told(pictures, kept);
        let squares = (told - are).inner().square();
        let each = squares.shape().num_elements() / count.max(1);
        squares.reshape([count, each]).mean_dim(1).into_data().iter::<f32>().collect()
    }

    /// What the decoder says of the patches that are hidden, and what they are, both `[hidden patches, values of a patch]`, pixel after pixel,
    /// normalized where the configuration says so.
    ///
    /// # Panics
    /// As [`Mae::loss`].
    pub fn told(&self, pictures: Tensor<2>, kept: &Ids) -> (Tensor<2>, Tensor<2>) {
        let (count, patches) = (pictures.dims()[0], self.vit.patches());
        let each = kept.len() / count.max(1);
        assert!(each < patches, "of {patches} patches {each} are seen, so that none is hidden");
        let hidden = hidden_places(kept, each, patches);
        let states = self.vit.states(pictures.clone(), Some(kept));
        let told = self.decoder.forward(states, kept, &hidden, count);
        (told, self.decoder.targets(pictures, &hidden))
    }
}

/// The places of each picture that are not kept.
fn hidden_places(kept: &[u32], each: usize, patches: usize) -> Vec<u32> {
    let of_one = |kept: &[u32]| (0..patches as u32).filter(|place| !kept.contains(place)).collect::<Vec<_>>();
    kept.chunks_exact(each.max(1)).flat_map(of_one).collect()
}

impl MaeDecoder {
    /// What it makes of the encoder's states of `kept` patches, for the `hidden` ones.
    fn forward(&self, states: Tensor<2>, kept: &[u32], hidden: &[u32], count: usize) -> Tensor<2> {
        let patches = self.cut.patches();
        let (each, left) = (kept.len() / count.max(1), hidden.len() / count.max(1));
        let x = self.decoder_embed.forward(states);
        let width = x.dims()[1];
        // The states and then the token that stands for what is hidden, as a table; of each picture, where its patches are in it.
        let mask = count * (each + 1);
        let mut rows = vec![mask as u32; count * (patches + 1)];
        for (picture, rows) in rows.chunks_exact_mut(patches + 1).enumerate() {
            let first = picture * (each + 1);
            rows[0] = first as u32;
            for (i, &place) in kept[picture * each..][..each].iter().enumerate() {
                rows[place as usize + 1] = (first + 1 + i) as u32;
            }
        }
        let token = self.mask_token.val().reshape([1, width]).cast(x.dtype());
        let x = danlu_ops::embedding(Tensor::cat(vec![x, token], 0), &Ids::from(rows));
        let positions = self.decoder_pos_embed.val().reshape([patches + 1, width]);
        let x = x + danlu_ops::embedding(positions, &of_each(count, patches + 1, |_, i| i));
        // Nothing is asked about the others, so that the last layer leaves them unfinished.
        let wanted = of_each(count, left, |picture, i| picture * (patches + 1) + 1 + hidden[picture * left + i] as usize);
        let segments = Segments::rows(count, patches + 1);
        let x = run(&self.decoder_layers, x, self.shape, &segments, Some(&wanted));
        self.decoder_pred.forward(self.decoder_norm.forward(x, self.shape.eps))
    }

    /// The values of the `hidden` patches.
    fn targets(&self, pictures: Tensor<2>, hidden: &[u32]) -> Tensor<2> {
        let (count, patches) = (pictures.dims()[0], self.cut.patches());
        let left = hidden.len() / count.max(1);
        let rows = self.cut.rows(pictures, true);
        let rows = danlu_ops::embedding(
            rows,
            &of_each(count, left, |picture, i| picture * patches + hidden[picture * left + i] as usize),
        );
        if !self.normalized {
            return rows;
        }
        let values = rows.dims()[1] as f64;
        let centred = rows.clone() - rows.mean_dim(1);
        // The variance that does not underestimate, as `torch` has it.
        let variance = centred.clone().square().sum_dim(1) / (values - 1.0);
        centred / (variance + VARIANCE).sqrt()
    }
}
