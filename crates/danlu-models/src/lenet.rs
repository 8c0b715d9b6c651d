//! LeNet.

use anyhow::Result;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use danlu_ops::{Convolution, Planes};

use crate::config::{LenetConfig, LenetForm, Stage};
use crate::layers::{LayerNorm, Linear, placeholder};
use crate::{init, names};

/// Of the norms, as `torch` has it.
const EPSILON: f64 = 1e-5;

/// LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition"): convolutions and subsampling in
/// turn, then layers that read everything; or the same with what was found since.
///
/// Where it is not the paper's: the output is a layer with softmax in place of distances to drawn digits (RBF); C3 reads all of S2's planes,
/// where the paper leaves some connections out to break symmetry and save time; the squashing is a plain tanh before subsampling, which is
/// a plain mean, since the next layer's weights can say what its factor and bias said.
///
/// A picture goes through whole, not as tokens, so that this stands beside [`crate::Backbone`], not in it: [`Lenet::features`] is what a
/// backbone gives, and `classifier` the head on it.
#[derive(Module, Debug)]
pub struct Lenet {
    pub convolutions: Vec<Filters>,
    /// The modern form's, after each convolution.
    pub norms: Vec<LayerNorm>,
    /// The layers after the convolutions.
    pub hidden: Vec<Linear>,
    /// `[classes, hidden]`.
    pub classifier: Linear,
    #[module(skip)]
    stages: Vec<Stage>,
    #[module(skip)]
    form: LenetForm,
}

/// The windows of a convolution.
#[derive(Module, Debug)]
pub struct Filters {
    /// `[outputs, channels, rows, columns]`.
    pub weight: Param<Tensor<4>>,
    /// `[outputs]`.
    pub bias: Param<Tensor<1>>,
}

impl Filters {
    pub(crate) fn new(shape: &Convolution, device: &Device) -> Self {
        let [rows, columns] = shape.kernel;
        Self {
            weight: placeholder([shape.outputs, shape.input.channels, rows, columns], device),
            bias: placeholder([shape.outputs], device),
        }
    }
}

impl Lenet {
    /// With initial weights: uniform, with variance 1 / inputs before a tanh (LeCun 1998, "Efficient BackProp") and 2 / inputs before a ReLU
    /// (He 2015), so that the variance of what passes stays as it is; biases are zero.
    ///
    /// # Errors
    /// When the configuration's numbers do not make a model.
    pub fn new(config: &LenetConfig, seed: u64, device: &Device) -> Result<Self> {
        let gain: f64 = if config.form == LenetForm::Paper { 3.0 } else { 6.0 };
        names::fill(Self::empty(config, device)?, |name, shape| {
            let count: usize = shape.iter().product();
            Ok(match shape {
                [_] if name.ends_with(".bias") => vec![0.0; count],
                [_] => vec![1.0; count],
                [outputs, ..] => {
                    let gain = if name.starts_with("classifier.") { 3.0 } else { gain };
                    init::uniform(seed, name, (gain / (count / outputs) as f64).sqrt(), count)
                }
                [] => vec![0.0; count],
            })
        })
    }

    /// A network whose parameters have shapes and no values.
    pub(crate) fn empty(config: &LenetConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let (stages, widths) = (config.stages(), config.widths());
        let normed = config.form == LenetForm::Modern;
        let last = widths.last().copied().unwrap_or(1);
        Ok(Self {
            convolutions: stages.iter().map(|stage| Filters::new(&stage.convolution, device)).collect(),
            norms: stages.iter().filter(|_| normed).map(|stage| LayerNorm::new(stage.convolution.outputs, device)).collect(),
            hidden: widths.windows(2).map(|pair| Linear::new(pair[1], pair[0], true, device)).collect(),
            classifier: Linear::new(config.labels.len(), last, true, device),
            stages,
            form: config.form,
        })
    }

    /// What it reads.
    pub fn picture(&self) -> Planes {
        self.stages[0].convolution.input
    }

    /// What the last hidden layer makes of each picture, `[pictures, hidden]`: what another task, or a distance between sets of pictures,
    /// can stand on.
    ///
    /// # Panics
    /// When rows are not pictures of [`Lenet::picture`].
    pub fn features(&self, pictures: Tensor<2>) -> Tensor<2> {
        let mut x = pictures;
        for (i, (stage, filters)) in self.stages.iter().zip(&self.convolutions).enumerate() {
            x = danlu_ops::convolution(x, filters.weight.val(), filters.bias.val(), stage.convolution);
            if let Some(norm) = self.norms.get(i) {
                x = danlu_ops::group_norm(x, norm.weight.val(), norm.bias.val(), stage.pool.input, 1, EPSILON);
            }
            x = danlu_ops::pool(self.unit(x), stage.pool);
        }
        self.hidden.iter().fold(x, |x, layer| self.unit(layer.forward(x)))
    }

    /// The logits of each picture, `[pictures, classes]`.
    ///
    /// # Panics
    /// As [`Lenet::features`].
    pub fn logits(&self, pictures: Tensor<2>) -> Tensor<2> {
        self.classifier.forward(self.features(pictures))
    }

    fn unit(&self, x: Tensor<2>) -> Tensor<2> {
        match self.form {
            LenetForm::Paper => danlu_ops::tanh(x),
            LenetForm::Modern => danlu_ops::relu(x),
        }
    }
}
