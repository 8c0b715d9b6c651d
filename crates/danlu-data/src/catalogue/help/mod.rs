//! Pages of a program's help, as LibreOffice ships them: their text as people read it, the questions that they answer, and their paragraphs
//! by name.

mod page;
mod paragraphs;
mod questions;

pub(super) use page::{Block, Kind, Page};
pub(super) use paragraphs::paragraphs;
pub(super) use questions::{Question, distinct, questions};
