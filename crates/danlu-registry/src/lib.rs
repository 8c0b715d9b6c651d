//! Models and runs on disk, with their lineage.
//!
//! A model is a plain folder that `transformers` loads, `models/<name>@<version>/`, with a `danlu.json` that says where it came from:
//! parent, recipe, data, tokenizer, code, measures, and the BLAKE3 of each file. The folders are the truth. `index.sqlite` is an index
//! over them that is rebuilt whenever it is missing, damaged or behind, so that losing it loses nothing.

mod card;
mod clock;
mod evaluation;
mod id;
mod index;
mod lineage;
mod record;
mod registry;
pub mod runs;
mod standing;
mod transfer;

pub use clock::timestamp;
pub use evaluation::{ChangeRecord, GateRecord, Role, SetRecord, Verdict};
pub use id::{ModelId, ModelRef, check_name};
pub use record::{Data, FileRecord, Level, Lineage, Measure, Origin, RecipeRecord, Record};
pub use registry::Registry;
pub use standing::Standing;
pub use transfer::{Damage, Verified};
