//! Labelled texts: read from the files people keep them in, held out by their text, encoded for a backbone, and turned into features.

mod encode;
mod features;
mod read;
mod record;
mod split;
#[cfg(test)]
mod tests;

pub use encode::{EncodedExample, Frame};
pub use features::{FeatureSpec, Features, Lexicon};
pub use read::{Labelled, read};
pub(crate) use record::spaced;
pub use record::{Columns, Example, Label, Labels};
pub use split::held_out;
