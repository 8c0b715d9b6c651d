//! The kinds of recipes. Each brings its data, its objective and its first model to the one trainer, and keeps what came of it.

mod classify;
mod dense;
mod distill;
mod faces;
mod gan;
mod masked;
mod masked_pictures;
mod pictures;
mod preference;
mod pretrain;
mod reward;
pub mod rl;
pub mod sft;
mod translate;
mod word2vec;

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::chat::Template;
use danlu_data::tokenizer::Tokenizer;
use danlu_registry::ModelId;
use danlu_train::recipe::{DistillOn, ObjectiveKind, Way};
use danlu_train::{Grouped, Objective, Plan, Ppo, Recipe, Summary};
use serde::{Deserialize, Serialize};

pub use classify::{FEATURES, Labeller};
pub use dense::Seer;
pub use distill::Distill;
pub use faces::Faces;
pub use gan::Game;
pub use masked::Masked;
pub use masked_pictures::MaskedPictures;
pub use pictures::Pictures;
pub use preference::Prefer;
pub use pretrain::Pretrain;
pub use reward::Judge;
pub use rl::Asked;
pub use sft::Tune;
pub use translate::Interpreter;
pub use word2vec::Words;

use super::export::Export;
use super::run::{self, Done};
use crate::views::run::Kind as View;

/// A recipe with everything in place to begin, or to go on.
pub trait Kind {
    type Objective: Objective;

    fn plan(&self) -> &Plan;

    /// # Errors
    /// When the data has nothing to train on or to measure with.
    fn objective(&self) -> Result<Self::Objective>;

    /// The model before the first step.
    ///
    /// # Errors
    /// When the model it starts from cannot be read.
    fn fresh(&self, device: &Device) -> Result<<Self::Objective as Objective>::Model>;

    /// What the run is trained on, for its record and its lineage.
    fn data(&self) -> Vec<DataRecord>;

    /// Of the run's tokens, where it has any.
    fn tokenizer(&self) -> Option<&Tokenizer> {
        None
    }

    /// What conversations are written by, where it reads any.
    fn template(&self) -> Option<&Template> {
        None
    }

    /// Changes with anything that changes a batch: data, weights, tokenizer, template.
    fn identity(&self) -> String {
        let tokenizer = self.tokenizer().map_or("", Tokenizer::hash);
        let template = self.template().map_or_else(|| "plain".to_owned(), Template::hash);
        let data: Vec<String> = self.data().into_iter().map(|data| data.manifest_hash).collect();
        danlu_files::hash_bytes(format!("{tokenizer} {template} {}", data.join(" ")).as_bytes())
    }

    /// Which number of the training steps stands beside the held-out measure.
    fn curve(&self) -> Curve;

    /// The command that tries the model.
    fn usage(&self, id: &ModelId) -> String {
        format!("danlu generate {id} --interactive")
    }

    /// Writes the trained model, reads it back, compares, and registers it.
    ///
    /// # Errors
    /// When it cannot be written, or read back is another; nothing is registered then.
    fn keep(&self, export: &Export, model: &<Self::Objective as Objective>::Model, summary: &Summary) -> Result<ModelId>;
}

/// A number of the training steps that is drawn beside the held-out measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Curve {
    /// "loss", or a name of the objective's report.
    pub key: &'static str,
    /// What it is multiplied by to be in the measure's unit; nothing where it is of another kind and has a frame of its own.
    pub scale: Option<f64>,
}

/// One body of data of a run, as the run's folder and the model's lineage record it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    pub name: String,
    pub manifest_hash: String,
}

/// Makes [`Prepared`] of a list of kinds: what is asked of any of them, without their types.
macro_rules! kinds {
    ($($name:ident($kind:ty),)*) => {
        /// Any kind.
        pub enum Prepared {
            $($name(Box<$kind>),)*
        }

        impl Prepared {
            pub fn plan(&self) -> &Plan {
                match self { $(Self::$name(kind) => kind.plan(),)* }
            }

            pub fn data(&self) -> Vec<DataRecord> {
                match self { $(Self::$name(kind) => kind.data(),)* }
            }

            pub fn tokenizer(&self) -> Option<&Tokenizer> {
                match self { $(Self::$name(kind) => kind.tokenizer(),)* }
            }

            /// Trains it and keeps what came of it; see [`run::execute`].
            ///
            /// # Errors
            /// As [`run::execute`].
            pub fn execute(&self, home: &Path, view: View) -> Result<Done> {
                match self { $(Self::$name(kind) => run::execute(home, &**kind, view),)* }
            }
        }
    };
}

kinds! {
    Pretrain(Pretrain),
    Masked(Masked),
    Words(Words),
    Tune(Tune),
    Label(Labeller),
    Picture(Pictures),
    Play(Game),
    MaskedPicture(MaskedPictures),
    Recognize(Faces),
    See(Seer),
    Prefer(Prefer),
    Judge(Judge),
    DistillText(Distill<Pretrain>),
    DistillTalks(Distill<Tune>),
    Compare(Asked<Grouped>),
    Expect(Asked<Ppo>),
    Translate(Interpreter),
}

impl Prepared {
    /// Makes the data of a recipe ready, trains a tokenizer where one is needed, and plans the run. With `run`, the folder of a run that was
    /// begun, its tokenizer is used.
    ///
    /// # Errors
    /// When data cannot be had or the recipe does not fit it.
    pub fn new(home: &Path, recipe: &Recipe, run: Option<&Path>, progress: &mut dyn Progress) -> Result<Self> {
        let mut recipe = recipe.clone();
        if recipe.classify.way == Way::Linear {
            // Features alone: a model that the recipe names for its other ways need not be there.
            (recipe.model.from, recipe.tokenizer.from) = (None, None);
        }
        let recipe = super::prepare::with_folders(home, &recipe)?;
        super::device::set_precision(recipe.precision)?;
        // What cannot be measured at the end is better known before the first step.
        super::gate::sets(home, &recipe, progress)?;
        Ok(match recipe.objective.kind {
            ObjectiveKind::CausalLm => Prepared::Pretrain(Box::new(Pretrain::new(home, &recipe, run, progress)?)),
            ObjectiveKind::MaskedLm => Prepared::Masked(Box::new(Masked::new(home, &recipe, run, progress)?)),
            ObjectiveKind::Word2vec => Prepared::Words(Box::new(Words::new(home, &recipe, run, progress)?)),
            ObjectiveKind::Sft => Prepared::Tune(Box::new(Tune::new(home, &recipe, progress)?)),
            ObjectiveKind::Classify | ObjectiveKind::Regression | ObjectiveKind::TokenClassify => {
                Prepared::Label(Box::new(Labeller::new(home, &recipe, run, progress)?))
            }
            ObjectiveKind::ImageClassify => Prepared::Picture(Box::new(Pictures::new(home, &recipe, progress)?)),
            ObjectiveKind::Gan => Prepared::Play(Box::new(Game::new(home, &recipe, progress)?)),
            ObjectiveKind::MaskedImage => Prepared::MaskedPicture(Box::new(MaskedPictures::new(home, &recipe, progress)?)),
            ObjectiveKind::ImageEmbed => Prepared::Recognize(Box::new(Faces::new(home, &recipe, progress)?)),
            ObjectiveKind::Detect | ObjectiveKind::Segment | ObjectiveKind::Pose => {
                Prepared::See(Box::new(Seer::new(home, &recipe, progress)?))
            }
            ObjectiveKind::Preference => Prepared::Prefer(Box::new(Prefer::new(home, &recipe, progress)?)),
            ObjectiveKind::Reward => Prepared::Judge(Box::new(Judge::new(home, &recipe, progress)?)),
            ObjectiveKind::Distill => match recipe.distill.on {
                DistillOn::Text => Prepared::DistillText(Box::new(Distill::on_text(home, &recipe, run, progress)?)),
                _ => Prepared::DistillTalks(Box::new(Distill::on_talks(home, &recipe, progress)?)),
            },
            ObjectiveKind::Grpo | ObjectiveKind::Rloo => Prepared::Compare(Box::new(Asked::new(home, &recipe, progress)?)),
            ObjectiveKind::Ppo => Prepared::Expect(Box::new(Asked::new(home, &recipe, progress)?)),
            ObjectiveKind::Translate => Prepared::Translate(Box::new(Interpreter::new(home, &recipe, run, progress)?)),
        })
    }
}
