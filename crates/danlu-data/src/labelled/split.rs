use std::collections::BTreeMap;

use super::record::{Example, Label};
use crate::chat::held_out_lots;

/// Whether each example is held out, by its [`Example::lot`]: about `share` of every class, so that a rare one is on both sides where it has
/// at least two texts. Equal texts are always on the same side.
pub fn held_out(examples: &[Example], share: f64, seed: u64) -> Vec<bool> {
    let mut classes: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
    for (i, example) in examples.iter().enumerate() {
        let class = if let Label::Class(class) = &example.label { Some(class.as_str()) } else { None };
        classes.entry(class).or_default().push(i);
    }
    let mut out = vec![false; examples.len()];
    for members in classes.into_values() {
        let lots: Vec<u64> = members.iter().map(|&i| examples[i].lot(seed)).collect();
        for (i, held) in members.into_iter().zip(held_out_lots(&lots, share)) {
            out[i] = held;
        }
    }
    out
}
