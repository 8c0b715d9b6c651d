//! Conversations: read from the forms people keep them in, written out by a model's own chat template, and encoded with a mask that says
//! which tokens are the assistant's.

mod encode;
pub mod form;
mod message;
mod mix;
mod pack;
mod python;
mod read;
mod split;
mod template;
#[cfg(test)]
mod tests;

pub use encode::{Encoded, Encoder};
pub use form::Form;
pub use message::{Conversation, FunctionCall, Message, Role, ToolCall};
pub use mix::PackedMixture;
pub use pack::{Packed, append};
pub use read::{Records, read, read_with};
pub use split::held_out;
pub(crate) use split::held_out_lots;
pub use template::{CHATML, Template};
