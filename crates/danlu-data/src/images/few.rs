//! A few of many pictures.

use super::Images;
use crate::hash;

/// Which `limit` of the pictures are kept: as many of each class as there can be, those with the smallest hashes. Fewer are some of more.
pub(super) fn few(images: &Images, limit: usize, seed: u64) -> Vec<bool> {
    let classes = images.labels.iter().max().map_or(0, |most| *most as usize + 1);
    let mut of_class: Vec<Vec<(u64, usize)>> = vec![vec![]; classes];
    for place in 0..images.len() {
        // Another lot than the one that held pictures out.
        let lot = hash::fold(!seed, hash::bytes(images.picture(place)));
        of_class[images.label(place) as usize].push((lot, place));
    }
    let mut turns: Vec<(usize, u64, usize)> = vec![];
    for mut members in of_class {
        members.sort_unstable();
        turns.extend(members.into_iter().enumerate().map(|(turn, (lot, place))| (turn, lot, place)));
    }
    turns.sort_unstable();
    let mut keep = vec![false; images.len()];
    turns.into_iter().take(limit).for_each(|(.., place)| keep[place] = true);
    keep
}
