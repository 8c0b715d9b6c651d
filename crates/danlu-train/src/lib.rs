//! Training: a recipe is read and checked, what it leaves open is chosen, and one trainer runs it, with gates that are on by default,
//! checkpoints from which a run goes on bit for bit, and metrics that say what happened.

pub mod auto;
pub mod checkpoint;
mod events;
mod gradients;
mod guard;
mod initial;
mod memory;
pub mod metrics;
pub mod objectives;
mod optimizer;
mod outline;
mod pace;
pub mod recipe;
mod schedule;
mod trainer;
pub mod tune;

pub use auto::{Examples, Facts, Plan};
pub use events::{Event, Observer, Step, Summary};
pub use gradients::{Gradients, Squares};
pub use guard::LossGuard;
pub use initial::{check_base, initial_model, outline, pin_base};
pub use objectives::{
    ActorCritic, Adversarial, CausalLm, Classify, Dense, Distill, Grouped, ImageClassify, ImageEmbed, Loss, MaskedImage,
    MaskedLm, Moved, Objective, Ppo, Preference, Report, Reward, Sample, Sft, Shown, Translate, TranslateRow, Word2vec,
};
pub use optimizer::Optimizer;
pub use outline::Outline;
pub use recipe::Recipe;
pub use schedule::Schedule;
pub use trainer::{Run, Trained, train};
