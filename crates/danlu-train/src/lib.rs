//! Training: a recipe is read and checked, what it leaves open is chosen, and one trainer runs it, with gates that are on by default,
//! checkpoints from which a run goes on bit for bit, and metrics that say what happened.

pub mod auto;
pub mod checkpoint;
mod events;
mod gradients;
mod guard;
mod memory;
pub mod metrics;
pub mod objectives;
mod optimizer;
mod outline;
mod pace;
pub mod recipe;
mod schedule;
mod trainer;

pub use auto::{Examples, Facts, Plan, initial_model};
pub use events::{Event, Observer, Step, Summary};
pub use gradients::{Gradients, Squares};
pub use guard::LossGuard;
pub use objectives::{CausalLm, Classify, Loss, MaskedLm, Objective, Preference, Report, Sample, Sft, Shown};
pub use optimizer::Optimizer;
pub use outline::Outline;
pub use recipe::Recipe;
pub use schedule::Schedule;
pub use trainer::{Run, Trained, train};
