//! Data without tensors: sources are read, cleaned and deduplicated into corpora; tokenizers are trained on them; corpora become token
//! shards, and samplers deal those out in an order that is a pure function of the seed and the position.

mod add;
pub mod catalogue;
pub mod chat;
pub mod clean;
pub mod corpus;
mod dedup;
mod hash;
pub mod images;
pub mod labelled;
pub mod parallel;
pub mod preference;
mod progress;
pub mod prompts;
pub mod report;
pub mod sampler;
pub mod scenes;
pub mod shards;
pub mod source;
mod split;
mod spool;
pub mod tokenizer;
mod usual;

pub use add::{AddOptions, add};
pub use corpus::{Corpus, Split};
pub use progress::Progress;
pub use split::HeldOut;
