//! Data without tensors: sources are read, cleaned and deduplicated into corpora; tokenizers are trained on them; corpora become token
//! shards, and samplers deal those out in an order that is a pure function of the seed and the position.

mod progress;
pub mod sampler;
pub mod shards;
pub mod tokenizer;

pub use progress::Progress;
