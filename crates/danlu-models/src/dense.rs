//! A Vision Transformer that says something of every place of a picture.

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::config::{DenseConfig, DenseTask};
use crate::layers::Linear;
use crate::names;
use crate::vit::{Vit, initial, of_each};

/// How sure a new detector is of every class everywhere: few cells have a thing, and a loss that begins with all of the others wrong would
/// have to unlearn that first ([Lin et al. 2017](https://arxiv.org/abs/1708.02002), 3.3).
const SURE: f64 = 0.01;

/// A [`Vit`] with a head for every place: each patch's state goes through two layers, which give the outputs of all cells of the patch at
/// once, as the decoder of a masked autoencoder gives its pixels and sub-pixel convolution a larger picture
/// ([Shi et al. 2016](https://arxiv.org/abs/1609.05158)). Boxes, pixels' classes and points differ in what the outputs are taken for.
#[derive(Module, Debug)]
pub struct VitDense {
    pub vit: Vit,
    /// `[hidden, hidden]`, before GELU.
    pub dense: Linear,
    /// `[cells of a patch × outputs, hidden]`.
    pub classifier: Linear,
    /// Rows and columns of patches, cells along a patch's side, and outputs of a cell.
    #[module(skip)]
    shape: [usize; 4],
}

impl VitDense {
    /// With initial weights, as [`Vit::new`].
    ///
    /// # Errors
    /// When the configuration's numbers do not make a network.
    pub fn new(config: &DenseConfig, seed: u64, device: &Device) -> Result<Self> {
        config.validate()?;
        Self::on(Vit::new(&config.vit, seed, device)?, config, seed, device)
    }

    /// A new head on an encoder that is there.
    ///
    /// # Errors
    /// As [`VitDense::new`].
    pub fn on(vit: Vit, config: &DenseConfig, seed: u64, device: &Device) -> Result<Self> {
        let new = Self { vit, ..Self::empty(config, device)? };
        names::fill_some(new, |name, shape| {
            if name.starts_with("vit.") {
                return Ok(None);
            }
            let mut values = initial(&config.vit, seed, name, shape);
            if config.task == DenseTask::Detect && name == "classifier.bias" {
                let bias = (SURE / (1.0 - SURE)).ln() as f32;
                values.chunks_exact_mut(config.outputs()).for_each(|cell| cell[..config.vit.labels.len()].fill(bias));
            }
            Ok(Some(values))
        })
    }

    /// A network whose parameters have shapes and no values.
    pub(crate) fn empty(config: &DenseConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let (hidden, [rows, columns]) = (config.vit.hidden_size, config.vit.grid());
        Ok(Self {
            vit: Vit::empty(&config.vit, device),
            dense: Linear::new(hidden, hidden, true, device),
            classifier: Linear::new(config.patch_outputs(), hidden, true, device),
            shape: [rows, columns, config.fine(), config.outputs()],
        })
    }

    /// The outputs of all cells, `[pictures × cells, outputs]`, picture after picture and row after row, of pictures `[pictures, values]`.
    ///
    /// # Panics
    /// When rows are not pictures of [`Vit::picture`].
    pub fn maps(&self, pictures: Tensor<2>) -> Tensor<2> {
        let (count, patches) = (pictures.dims()[0], self.vit.patches());
        let states = self.vit.states(pictures, None);
        // The token of the whole is not asked.
        let states = danlu_ops::embedding(states, &of_each(count, patches, |picture, i| picture * (patches + 1) + 1 + i));
        let said = self.classifier.forward(danlu_ops::gelu_exact(self.dense.forward(states)));
        let [rows, columns, fine, outputs] = self.shape;
        let cells = said.reshape([count, rows, columns, fine, fine, outputs]).permute([0, 1, 3, 2, 4, 5]);
        cells.reshape([count * rows * fine * columns * fine, outputs])
    }
}
