use anyhow::{Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::Matrix;
use crate::{init, names};

/// More of either is no word vector's shape but a damaged file.
const MOST: usize = 1 << 28;
const WIDEST: usize = 1 << 16;

/// The shape of a [`Word2Vec`], and by what windows it was learned; `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word2VecConfig {
    pub model_type: String,
    /// "skip-gram" or "cbow".
    pub form: String,
    pub vocab_size: usize,
    /// Channels of a word's vector.
    pub hidden_size: usize,
    /// Words on either side that a word is predicted from, at most.
    pub window: usize,
    /// Words drawn beside each that stands there.
    pub negative: usize,
}

impl Word2VecConfig {
    pub const MODEL_TYPE: &str = "word2vec";

    /// Whether the numbers make a model.
    ///
    /// # Errors
    /// Names the one that does not.
    pub fn validate(&self) -> Result<()> {
        ensure!(self.model_type == Self::MODEL_TYPE, "`model_type` is {:?}, not {:?}", self.model_type, Self::MODEL_TYPE);
        ensure!((1..=MOST).contains(&self.vocab_size), "`vocab_size` is {}; it must be from 1 to {MOST}", self.vocab_size);
        ensure!((1..=WIDEST).contains(&self.hidden_size), "`hidden_size` is {}; it must be from 1 to {WIDEST}", self.hidden_size);
        Ok(())
    }

    pub fn parameters(&self) -> u64 {
        2 * (self.vocab_size * self.hidden_size) as u64
    }
}

/// Two tables of vectors `[words, channels]`: of a word where it stands around another, which is what is kept and used, and where it is the
/// one that is predicted ([Mikolov et al. 2013](https://arxiv.org/abs/1310.4546)).
#[derive(Module, Debug)]
pub struct Word2Vec {
    pub input: Matrix,
    pub output: Matrix,
}

impl Word2Vec {
    /// Input vectors uniform in ±1/2 divided by the channels and output vectors of zeros, as in the original program.
    ///
    /// # Errors
    /// When the configuration makes no model.
    pub fn new(config: &Word2VecConfig, seed: u64, device: &Device) -> Result<Self> {
        config.validate()?;
        let bound = 0.5 / config.hidden_size as f64;
        names::fill(Self::empty(config, device), |name, shape| {
            let count = shape.iter().product();
            Ok(if name == "input.weight" { init::uniform(seed, name, bound, count) } else { vec![0.0; count] })
        })
    }

    /// Without values yet.
    pub(crate) fn empty(config: &Word2VecConfig, device: &Device) -> Self {
        let table = || Matrix::new(config.vocab_size, config.hidden_size, device);
        Self { input: table(), output: table() }
    }

    /// The model whose tables are what `f` makes of the input and the output table, which it gets without autodiff and may change in place.
    #[must_use]
    pub fn map_tables(self, f: impl FnOnce([Tensor<2>; 2]) -> [Tensor<2>; 2]) -> Self {
        let parts = [self.input, self.output].map(|matrix| matrix.weight.consume());
        let tracked = parts.each_ref().map(|(_, table, _)| (table.is_autodiff(), table.is_require_grad()));
        let [(input_id, input, input_mapper), (output_id, output, output_mapper)] = parts;
        let [input, output] = f([input.inner(), output.inner()]);
        let back = |table: Tensor<2>, (autodiff, tracked): (bool, bool)| match autodiff {
            true => Tensor::from_inner(table).set_require_grad(tracked),
            false => table,
        };
        let matrix = |weight| Matrix { weight };
        Self {
            input: matrix(Param::from_mapped_value(input_id, back(input, tracked[0]), input_mapper)),
            output: matrix(Param::from_mapped_value(output_id, back(output, tracked[1]), output_mapper)),
        }
    }
}
