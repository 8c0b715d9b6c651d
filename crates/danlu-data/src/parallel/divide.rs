//! Which paragraphs are kept out of training: whole pages, and nothing on both sides.

use std::collections::{HashMap, HashSet};

use super::{Dropped, Pair};
use crate::chat::held_out_lots;
use crate::dedup::{Scratch, THRESHOLD, shingles};
use crate::hash;

/// Pairs to train on and to measure with, each once.
#[derive(Clone, Debug, Default)]
pub struct Divided {
    pub train: Vec<Pair>,
    pub held_out: Vec<Pair>,
    pub dropped: Dropped,
}

/// Holds out about `share` of the pages, by a hash of their names and `seed`. A pair that was there before with the same texts is left out;
/// of the held-out ones also what is nearly the same, on either side, as something to train on.
pub fn divide(pairs: Vec<Pair>, share: f64, seed: u64) -> Divided {
    let lots: Vec<u64> = pairs.iter().map(|pair| hash::fold(seed, hash::bytes(pair.page.as_bytes()))).collect();
    let out = held_out_lots(&lots, share);
    let mut sides = [vec![], vec![]];
    for (pair, out) in pairs.into_iter().zip(out) {
        sides[usize::from(out)].push(pair);
    }
    let all = sides.iter().map(Vec::len).sum::<usize>();
    let [train, held_out] = sides.map(once);
    let repeated = all - train.len() - held_out.len();
    let near = near(&train, &held_out);
    let before = held_out.len();
    let held_out: Vec<Pair> = held_out.into_iter().zip(near).filter(|(_, near)| !near).map(|(pair, _)| pair).collect();
    let dropped = vec![("repeated", repeated), ("held out but near to what is trained on", before - held_out.len())];
    Divided { train, held_out, dropped }
}

fn once(pairs: Vec<Pair>) -> Vec<Pair> {
    let mut seen = HashSet::new();
    pairs.into_iter().filter(|pair| seen.insert((pair.source.clone(), pair.target.clone()))).collect()
}

/// Whether each held-out pair is nearly the same as one to train on: one of its texts shares at least [`THRESHOLD`] of the shingles of both.
fn near(train: &[Pair], held_out: &[Pair]) -> Vec<bool> {
    let mut scratch = Scratch::default();
    let mut near = vec![false; held_out.len()];
    let sides: [fn(&Pair) -> &str; 2] = [|pair| &pair.source, |pair| &pair.target];
    for side in sides {
        let mut set = |pair: &Pair| {
            let mut set = vec![];
            shingles(side(pair), &mut scratch, |shingle| set.push(shingle));
            set.sort_unstable();
            set.dedup();
            set
        };
        let of_held_out: Vec<Vec<u64>> = held_out.iter().map(&mut set).collect();
        let mut holders: HashMap<u64, Vec<u32>> = HashMap::new();
        for (place, set) in (0..).zip(&of_held_out) {
            set.iter().for_each(|shingle| holders.entry(*shingle).or_default().push(place));
        }
        for pair in train {
            let of_pair = set(pair);
            let mut shared: HashMap<u32, usize> = HashMap::new();
            for place in of_pair.iter().filter_map(|shingle| holders.get(shingle)).flatten() {
                *shared.entry(*place).or_default() += 1;
            }
            for (place, shared) in shared {
                let either = of_pair.len() + of_held_out[place as usize].len() - shared;
                near[place as usize] |= shared as f64 >= THRESHOLD * either as f64;
            }
        }
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_pages_are_held_out_and_nothing_is_on_both_sides() {
        let number = |n: usize| "abcdefghij".chars().nth(n % 10).unwrap().to_string().repeat(1 + n / 10);
        let mut pairs = vec![];
        for page in 0..40 {
            for id in 0..5 {
                let word = number(page * 5 + id);
                let source = format!("the {word} of {word} is opened by {word}");
                pairs.push(Pair { page: format!("page {page}"), source, target: format!("打开{page}之{id}") });
            }
            // The same on every page, with other punctuation.
            let source = format!("Click OK{}", if page % 2 == 0 { "." } else { "!" });
            pairs.push(Pair { page: format!("page {page}"), source, target: "点击确定".into() });
        }
        let divided = divide(pairs.clone(), 0.2, 0);
        let pages = |side: &[Pair]| side.iter().map(|pair| pair.page.clone()).collect::<HashSet<_>>();
        let (train, held_out) = (pages(&divided.train), pages(&divided.held_out));
        assert!(train.is_disjoint(&held_out) && (3..=16).contains(&held_out.len()), "{held_out:?}");
        assert!(divided.held_out.iter().all(|pair| !pair.source.starts_with("Click")), "near duplicates are on one side");
        assert_eq!(divided.train.iter().filter(|pair| pair.source.starts_with("Click")).count(), 2);
        let dropped: usize = divided.dropped.iter().map(|(_, count)| count).sum();
        assert_eq!(divided.train.len() + divided.held_out.len() + dropped, pairs.len());
        assert_eq!(divide(pairs, 0.2, 0).held_out, divided.held_out, "a pure function of the pairs");
    }
}
