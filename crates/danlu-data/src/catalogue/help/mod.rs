//! Pages of a program's help, as LibreOffice ships them: their text as people read it, and the questions that they answer.

mod page;
mod questions;

pub(super) use page::{Block, Kind, Page};
pub(super) use questions::{Question, distinct, questions};
