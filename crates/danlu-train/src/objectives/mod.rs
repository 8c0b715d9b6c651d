//! What a model learns to do. An objective brings the batches, the loss and the measures; the trainer brings everything else.

pub mod adversarial;
mod causal_lm;
pub mod classify;
pub mod dense;
mod distill;
mod frozen;
pub mod image_classify;
pub mod image_embed;
mod masked_image;
mod masked_lm;
pub mod preference;
mod reward;
pub mod rl;
mod sft;
mod translate;
pub mod word2vec;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Tensor;
use danlu_eval::Measure;

use crate::gradients::Squares;

pub use adversarial::Adversarial;
pub use causal_lm::CausalLm;
pub use classify::Classify;
pub use dense::Dense;
pub use distill::Distill;
pub use image_classify::ImageClassify;
pub use image_embed::ImageEmbed;
pub use masked_image::MaskedImage;
pub use masked_lm::MaskedLm;
pub use preference::Preference;
pub use reward::Reward;
pub use rl::{ActorCritic, Grouped, Ppo};
pub use sft::Sft;
pub use translate::{Translate, TranslateRow};
pub use word2vec::Word2vec;

/// Further numbers of a step, for the log and the views: a reward, an accuracy. Pieces of an update are averaged by their targets.
pub type Report = Vec<(&'static str, f64)>;

/// What a batch costs, `[1]`, with its graph, and what else is worth knowing about it.
pub struct Loss {
    pub value: Tensor<1>,
    pub report: Report,
}

impl From<Tensor<1>> for Loss {
    fn from(value: Tensor<1>) -> Self {
        Loss { value, report: vec![] }
    }
}

/// An update that an objective made by itself.
pub struct Moved {
    /// The mean loss over its targets.
    pub loss: f64,
    /// For each parameter the square of the length it moved by.
    pub squares: Squares,
    pub report: Report,
}

/// A training objective. Batches are made on another thread while the model computes.
pub trait Objective: Sync {
    type Model: Module;
    type Batch: Send;

    /// The piece of an update that begins at row `position`: a pure function of the position.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn batch(&self, position: u64) -> Result<Self::Batch>;

    /// Completes the pieces of an update with what the model of now does with them: answers to prompts and their rewards, in reinforcement
    /// learning. A pure function of the weights and the step.
    ///
    /// # Errors
    /// When the model cannot answer, or an answer cannot be judged.
    fn rollout(&self, _: &Self::Model, pieces: Vec<Self::Batch>, _step: u64) -> Result<(Vec<Self::Batch>, Report)> {
        Ok((pieces, vec![]))
    }

    /// How often the weights move on one rollout.
    fn epochs(&self) -> usize {
        1
    }

    /// What it has learned beside the weights, for checkpoints: a run that goes on gets it back.
    fn state(&self) -> Vec<f64> {
        vec![]
    }

    /// Takes back what [`Objective::state`] gave.
    ///
    /// # Errors
    /// When it is not of this objective.
    fn restore(&self, state: &[f64]) -> Result<()> {
        anyhow::ensure!(
            state.is_empty(),
            "the checkpoint is of another objective: it has {} numbers that this one has not",
            state.len()
        );
        Ok(())
    }

    /// How many targets of the batch carry loss; pieces of an update are weighed by it.
    fn targets(&self, batch: &Self::Batch) -> usize;

    /// The mean loss over the targets.
    fn loss(&self, model: &Self::Model, batch: &Self::Batch) -> Loss;

    /// Makes an update by itself, at this learning rate, where a method is its own optimizer: where one update is many small ones, or reaches
    /// so few rows of its tables that their whole gradients would cost more than all else. A pure function of the weights, the pieces and the
    /// rate. Nothing, with the model as it was, where the loss is to be differentiated; only what has no gradient may have moved then.
    fn step(&self, model: Self::Model, _pieces: &[Self::Batch], _rate: f64) -> (Self::Model, Option<Moved>) {
        (model, None)
    }

    /// What the learning rate of a parameter is multiplied by: more than one for what starts from nothing in a model that knows something.
    fn rate_factor(&self, _name: &str) -> f64 {
        1.0
    }

    /// Whether a loss far above those before it stops the run. Of players against each other it says nothing: what one loses the other wins.
    fn guards_loss(&self) -> bool {
        true
    }

    /// Whether some tokens of every row are meant to carry no loss (prompts, padding); then a row in which all carry it is an error.
    fn masks(&self) -> bool {
        false
    }

    /// The first row of a batch as the model sees it.
    ///
    /// # Errors
    /// When it cannot be shown.
    fn show(&self, batch: &Self::Batch) -> Result<Shown>;

    /// How much there is to measure on.
    fn held_out_tokens(&self) -> u64;

    /// The held-out measure on about `tokens` tokens.
    ///
    /// # Errors
    /// When there is nothing to measure on.
    fn measure(&self, model: &Self::Model, tokens: u64) -> Result<Measure>;

    /// What the model writes, one text per prompt; `draw` makes the draws of different calls differ.
    ///
    /// # Errors
    /// When a prompt cannot be used.
    fn samples(&self, model: &Self::Model, draw: u64) -> Result<Vec<Sample>>;

    /// What the model draws, many pictures on a sheet in PNG, where it draws any.
    ///
    /// # Errors
    /// When what it draws is no picture.
    fn sheet(&self, _: &Self::Model) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// A training row as the model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The row's text.
    pub text: String,
    /// Each token's id and text, and whether predicting it carries loss.
    pub tokens: Vec<(u32, String, bool)>,
    /// Where documents begin within the row.
    pub starts: Vec<usize>,
}

impl Shown {
    /// How many tokens carry loss.
    pub fn with_loss(&self) -> usize {
        self.tokens.iter().filter(|token| token.2).count()
    }
}

/// Text that a model wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub prompt: String,
    pub text: String,
}
