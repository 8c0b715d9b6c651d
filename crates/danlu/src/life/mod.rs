//! From a recipe to a registered model: text becomes a corpus, a tokenizer and tokens; a plan is made; the trainer runs; what it made is
//! exported, checked and registered. The verbs call these steps and show them.

pub mod adapters;
mod answers;
pub mod compare;
pub mod corpora;
pub mod curves;
pub mod device;
pub mod export;
pub mod few_shot;
pub mod finder;
pub mod gate;
pub mod import;
pub mod kinds;
pub mod labels;
pub mod pictures;
pub mod prepare;
pub mod quantize;
pub mod run;
pub mod scorer;
