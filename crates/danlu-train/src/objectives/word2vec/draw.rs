//! What is left to chance in word vectors: which words are kept, how wide a window is, and which words are told apart from the one that
//! stands there. All of it a pure function of the seed and the row.

use anyhow::{Result, ensure};
use danlu_ops::Windows;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::recipe::Word2vecSpec;

/// Negative words are drawn by their frequency to this power (Mikolov et al. 2013, 2.2).
const NOISE: f64 = 0.75;

/// How windows are drawn from text with these frequencies.
#[derive(Debug, Clone)]
pub struct Draw {
    /// For each word how likely it is kept where it stands; 0 of what is no word.
    keep: Vec<f32>,
    noise: Alias,
    window: usize,
    negative: usize,
    seed: u64,
}

impl Draw {
    /// `counts` says how often each word occurs; what has none is never in a window.
    ///
    /// # Errors
    /// When fewer than two words occur.
    pub fn new(counts: &[u64], spec: &Word2vecSpec, seed: u64) -> Result<Self> {
        let words = counts.iter().filter(|count| **count > 0).count();
        ensure!(words > 1, "the text has {words} different words of the vocabulary, and a word is learned from others");
        let keep = keep(counts, spec.subsample).into_iter().map(|share| share as f32).collect();
        let noise = Alias::new(&counts.iter().map(|&count| (count as f64).powf(NOISE)).collect::<Vec<_>>());
        Ok(Self { keep, noise, window: spec.window, negative: spec.negative, seed })
    }

    /// The draws of one row.
    pub fn row(&self, row: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(row);
        rng
    }

    /// Whether each token is kept, where it stands.
    pub fn kept(&self, tokens: &[u32], rng: &mut ChaCha8Rng) -> Vec<bool> {
        let keep = |id: &u32| {
            let share = self.keep[*id as usize];
            share >= 1.0 || (share > 0.0 && rng.random::<f32>() < share)
        };
        tokens.iter().map(keep).collect()
    }

    /// Adds the windows of a text whose words were all kept. A word alone has none.
    pub fn windows(&self, words: &[u32], rng: &mut ChaCha8Rng, windows: &mut Windows) {
        if words.len() < 2 {
            return;
        }
        for (i, &center) in words.iter().enumerate() {
            let reach = rng.random_range(1..=self.window);
            let around = [&words[i.saturating_sub(reach)..i], &words[i + 1..words.len().min(i + 1 + reach)]];
            let drawn = (0..self.negative).map(|_| self.noise.draw(rng.random::<u64>()));
            // A draw of the word itself tells nothing apart.
            windows.push(around, [center].into_iter().chain(drawn.filter(|&word| word != center)));
        }
    }
}

/// How likely a word is kept: `√(t/f) + t/f` of its frequency f, as the original program has it (the paper's own formula lacks the second
/// term). 0 of what does not occur.
fn keep(counts: &[u64], subsample: f64) -> Vec<f64> {
    let all: u64 = counts.iter().sum();
    let share = |&count: &u64| match count {
        0 => 0.0,
        _ if subsample == 0.0 => 1.0,
        _ => {
            let rare = subsample * all as f64 / count as f64;
            (rare.sqrt() + rare).min(1.0)
        }
    };
    counts.iter().map(share).collect()
}

/// The share of a text's tokens, of which `tokens` are there, that is kept.
pub fn kept_share(counts: &[u64], tokens: u64, subsample: f64) -> f64 {
    let kept: f64 = counts.iter().zip(keep(counts, subsample)).map(|(&count, share)| count as f64 * share).sum();
    kept / tokens.max(1) as f64
}

/// Draws by weights with one look each (Walker 1977; Vose 1991).
#[derive(Debug, Clone)]
struct Alias {
    /// Of each place: its own word is drawn below this, else the other.
    own: Vec<u32>,
    other: Vec<u32>,
}

impl Alias {
    fn new(weights: &[f64]) -> Self {
        let sum: f64 = weights.iter().sum();
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight * weights.len() as f64 / sum).collect();
        // Where rounding leaves a place unfilled, it is its own word's; one without weight is never that.
        let largest = (0..weights.len()).max_by(|&a, &b| weights[a].total_cmp(&weights[b])).unwrap_or(0) as u32;
        let mut other: Vec<u32> = (0..).zip(weights).map(|(place, &weight)| if weight > 0.0 { place } else { largest }).collect();
        let mut own: Vec<u32> = weights.iter().map(|&weight| if weight > 0.0 { u32::MAX } else { 0 }).collect();
        let (mut less, mut more): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&place| shares[place] < 1.0);
        // Each place that has too little is filled up by one that has too much.
        while let (Some(place), Some(&from)) = (less.pop(), more.last()) {
            own[place] = (shares[place] * f64::from(u32::MAX)) as u32;
            other[place] = from as u32;
            shares[from] -= 1.0 - shares[place];
            if shares[from] < 1.0 {
                more.pop();
                less.push(from);
            }
        }
        Self { own, other }
    }

    /// By 64 random bits: the upper half chooses a place, the lower half which of its two.
    fn draw(&self, bits: u64) -> u32 {
        let place = ((bits >> 32) * self.own.len() as u64) >> 32;
        let word = place as usize;
        if (bits as u32) < self.own[word] { place as u32 } else { self.other[word] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_drawn_by_their_frequency_to_three_quarters() {
        let counts = [0, 16, 81, 256, 0, 10_000];
        let draw = Draw::new(&counts, &Word2vecSpec::default(), 3).unwrap();
        let mut rng = draw.row(0);
        let (mut found, draws) = ([0u32; 6], 200_000);
        (0..draws).for_each(|_| found[draw.noise.draw(rng.random()) as usize] += 1);
        let weights = [0.0, 8.0, 27.0, 64.0, 0.0, 1000.0];
        for (found, weight) in found.iter().zip(weights) {
            let expected = f64::from(draws) * weight / 1099.0;
            // Five standard deviations.
            assert!((f64::from(*found) - expected).abs() <= 5.0 * expected.sqrt(), "{found} {expected}");
        }
    }

    #[test]
    fn frequent_words_are_left_out_now_and_then() {
        let counts = [0, 900_000, 99_000, 1000];
        let spec = Word2vecSpec { subsample: 1e-3, ..Word2vecSpec::default() };
        let draw = Draw::new(&counts, &spec, 0).unwrap();
        let mut rng = draw.row(7);
        let tokens: Vec<u32> = (0..40_000).map(|i| i % 4).collect();
        let kept = draw.kept(&tokens, &mut rng);
        for word in 0..4 {
            let found = tokens.iter().zip(&kept).filter(|(token, kept)| **token == word && **kept).count() as f64 / 1e4;
            let expected =
                [0.0, (1e-3f64 / 0.9).sqrt() + 1e-3 / 0.9, (1e-3f64 / 0.099).sqrt() + 1e-3 / 0.099, 1.0][word as usize];
            assert!((found - expected).abs() < 0.02, "{word}: {found} {expected}");
        }
        let share = kept_share(&counts, 2_000_000, 1e-3);
        assert!((share - (900_000.0 * 0.0344 + 99_000.0 * 0.1106 + 1000.0) / 2e6).abs() < 1e-3, "{share}");
        assert_eq!(kept_share(&counts, 1_000_000, 0.0), 1.0);
        assert!(Draw::new(&[0, 5, 0], &spec, 0).is_err());
    }

    #[test]
    fn windows_hold_what_stands_around() {
        let spec = Word2vecSpec { window: 2, negative: 3, ..Word2vecSpec::default() };
        let draw = Draw::new(&[5; 12], &spec, 1).unwrap();
        let words: Vec<u32> = (1..11).collect();
        let of = |row: u64| {
            let mut windows = Windows::default();
            draw.windows(&words, &mut draw.row(row), &mut windows);
            windows
        };
        let windows = of(0);
        assert_eq!(windows.len(), words.len());
        let mut reached = [false; 3];
        for i in 0..windows.len() {
            let (center, around) = (words[i], windows.contexts(i));
            let far = around.iter().map(|word| word.abs_diff(center)).max().unwrap() as usize;
            reached[far] = true;
            let expected = words.iter().filter(|word| **word != center && word.abs_diff(center) as usize <= far);
            assert_eq!(around, expected.copied().collect::<Vec<_>>());
            let outputs = windows.outputs(i);
            assert!(outputs[0] == center && outputs.len() <= 4 && !outputs[1..].contains(&center), "{outputs:?}");
        }
        assert_eq!(reached, [false, true, true]);
        assert_eq!(windows, of(0));
        assert_ne!(windows, of(1));
        let mut none = Windows::default();
        draw.windows(&words[..1], &mut draw.row(0), &mut none);
        assert!(none.is_empty());
    }
}
