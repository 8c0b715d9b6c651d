//! How near an answer is to the one expected, from 0 to 1; of many translations, from 0 to 100. Each measure is a file and equal to its
//! public definition.

mod bleu;
mod chrf;
mod exact_match;
mod rouge_l;
mod token_f1;

pub use bleu::{Bleu, Words};
pub use chrf::{Chrf, chrf};
pub use exact_match::exact_match;
pub use rouge_l::rouge_l;
pub use token_f1::token_f1;

/// How many values two bags have in common, each as often as in both.
fn common<T: Ord>(a: &[T], b: &[T]) -> usize {
    let mut sorted: (Vec<&T>, Vec<&T>) = (a.iter().collect(), b.iter().collect());
    sorted.0.sort_unstable();
    sorted.1.sort_unstable();
    let (mut i, mut j, mut count) = (0, 0, 0);
    while let (Some(x), Some(y)) = (sorted.0.get(i), sorted.1.get(j)) {
        match x.cmp(y) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, count) = (i + 1, j + 1, count + 1),
        }
    }
    count
}
