//! Drawing the next token.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use danlu_ops::kernels::{Isa, simd};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How the next token is drawn, and when generation ends. The restrictions apply in the order of the fields, as in `transformers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Logits of tokens that have been are divided by this when positive and multiplied when negative, so above 1 repeats less; 1 changes
    /// nothing ([Keskar et al. 2019](https://arxiv.org/abs/1909.05858)).
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens that have been written, as often as they have been; what was read does not count. 0 changes nothing.
    /// As in OpenAI's API, where it lies between -2 and 2; so does the next.
    pub frequency_penalty: f32,
    /// Taken from the logits of tokens that have been written, once.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Logits are divided by this. 0 takes the most likely token always.
    pub temperature: f32,
    /// Only the most likely so many tokens; 0 is all ([Fan et al. 2018](https://arxiv.org/abs/1805.04833)).
    pub top_k: usize,
    /// Only the fewest tokens whose probabilities reach this; 1 is all ([Holtzman et al. 2020](https://arxiv.org/abs/1904.09751)).
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the likeliest; 0 is all ([Nguyen et al. 2024](https://arxiv.org/abs/2407.01082)).
    pub min_p: f32,
    pub seed: u64,
    /// The most tokens to write.
    pub max_tokens: usize,
    /// Strings that end the text and are no part of it.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            temperature: 0.8,
            top_k: 0,
            top_p: 0.95,
            min_p: 0.0,
            seed: 0,
            max_tokens: 256,
            stop: vec![],
        }
    }
}

impl Sampling {
    /// The most likely token always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// # Errors
    /// Names the setting that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let check = |name: &str, value: f32, ok: bool, range: &str| {
            ensure!(value.is_finite() && ok, "{name} must be {range}; it is {value}");
            Ok(())
        };
        check("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "above 0")?;
        for (name, value) in [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)] {
            check(name, value, (-2.0..=2.0).contains(&value), "from -2 to 2")?;
        }
        for (token, bias) in &self.logit_bias {
            check(&format!("the logit_bias of token {token}"), *bias, (-100.0..=100.0).contains(bias), "from -100 to 100")?;
        }
        check("temperature", self.temperature, self.temperature >= 0.0, "0 or more")?;
        check("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1")?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1")?;
        ensure!(self.stop.iter().all(|stop| !stop.is_empty()), "a stop string must not be empty");
        Ok(())
    }
}

/// Draws tokens by a [`Sampling`]; a pure function of its seed and of the logits it has seen.
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    /// Tokens of the text so far, each once.
    seen: Vec<u32>,
    is_seen: Vec<bool>,
    /// How often each token has been drawn.
    drawn: BTreeMap<u32, u32>,
}

/// Weights that are summed in 32 bits.
const STRIDE: usize = 256;

/// A token that may be drawn, with its weight.
pub(crate) type Candidate = (u32, f32);

impl Sampler {
    /// A sampler for a text that begins with `prompt`.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn new(sampling: &Sampling, prompt: &[u32]) -> Result<Self> {
        sampling.validate()?;
        let rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        let mut sampler = Self { sampling: sampling.clone(), rng, seen: vec![], is_seen: vec![], drawn: BTreeMap::new() };
        for token in prompt {
            sampler.note(*token);
        }
        Ok(sampler)
    }

    /// Draws the next token from its logits, `[vocabulary]`. Equal logits are taken in the order of ids.
    ///
    /// # Errors
    /// When a logit is NaN or all are minus infinity: the weights are damaged or training diverged.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32> {
        self.penalize(logits);
        let best = argmax(logits)?;
        let token = if self.sampling.temperature == 0.0 { best } else { self.draw(logits, logits[best as usize]) };
        self.note(token);
        *self.drawn.entry(token).or_default() += 1;
        Ok(token)
    }

    fn penalize(&self, logits: &mut [f32]) {
        for (token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        let (frequency, presence) = (self.sampling.frequency_penalty, self.sampling.presence_penalty);
        if frequency != 0.0 || presence != 0.0 {
            for (token, count) in &self.drawn {
                if let Some(logit) = logits.get_mut(*token as usize) {
                    *logit -= *count as f32 * frequency + presence;
                }
            }
        }
        let penalty = self.sampling.repetition_penalty;
        if penalty != 1.0 {
            for token in &self.seen {
                if let Some(logit) = logits.get_mut(*token as usize) {
                    *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                }
            }
        }
    }

    fn draw(&mut self, logits: &[f32], best: f32) -> u32 {
        let candidates = candidates(&self.sampling, logits, best);
        let total: f64 = candidates.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let mut left = self.rng.random::<f64>() * total;
        let mut last = candidates[0].0;
        for (token, weight) in candidates {
            last = token;
            left -= f64::from(weight);
            if left < 0.0 {
                break;
            }
        }
        // Rounding may leave a remainder after the last candidate, which then is the one.
        last
    }

    fn note(&mut self, token: u32) {
        let index = token as usize;
        if self.is_seen.len() <= index {
            self.is_seen.resize(index + 1, false);
        }
        if !self.is_seen[index] {
            self.is_seen[index] = true;
            self.seen.push(token);
        }
    }
}

pub(crate) fn argmax(logits: &[f32]) -> Result<u32> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in logits.iter().enumerate() {
        ensure!(!logit.is_nan(), "the logit of token {token} is not a number: the weights are damaged or training diverged");
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    ensure!(best.1.is_finite(), "no token has a finite logit: the weights are damaged or training diverged");
    Ok(best.0 as u32)
}

/// The tokens that may be drawn, with weights proportional to their probabilities; the likeliest has the weight 1 and is among them.
pub(crate) fn candidates(sampling: &Sampling, logits: &[f32], best: f32) -> Vec<Candidate> {
    let mut weights: Vec<f32> = logits.iter().map(|logit| (logit - best) / sampling.temperature).collect();
    simd::exp_sum(Isa::current(), &mut weights, 0.0);
    let restricted = (1..weights.len()).contains(&sampling.top_k);
    let top_p = f64::from(sampling.top_p);
    let mut total: f64 = weights.chunks(STRIDE).map(|chunk| f64::from(simd::sum(chunk))).sum();
    // Tokens below this hold less than 1 - top_p together, so none of them is needed and none has to be sorted. It counts what top_k leaves.
    let least = if restricted { 0.0 } else { (1.0 - top_p) * total / weights.len() as f64 };
    let possible = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0 && f64::from(**weight) >= least);
    let mut all: Vec<Candidate> = possible.map(|(token, weight)| (token as u32, *weight)).collect();
    if restricted && sampling.top_k < all.len() {
        all.select_nth_unstable_by(sampling.top_k - 1, likelier);
        all.truncate(sampling.top_k);
        total = all.iter().map(|(_, weight)| f64::from(*weight)).sum();
    }
    if sampling.top_p < 1.0 {
        all.sort_unstable_by(likelier);
        let (mut reached, wanted) = (0.0, top_p * total);
        let enough = all.iter().position(|(_, weight)| {
            reached += f64::from(*weight);
            reached >= wanted
        });
        all.truncate(enough.map_or(all.len(), |last| last + 1));
    }
    if sampling.min_p > 0.0 {
        all.retain(|(_, weight)| *weight >= sampling.min_p);
    }
    all
}

/// Likelier first, then the smaller id, so that the order is never a matter of chance.
fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Sampling {
        Sampling { temperature: 1.0, top_p: 1.0, ..Sampling::default() }
    }

    fn kept(sampling: &Sampling, probabilities: &[f32]) -> Vec<u32> {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut kept: Vec<u32> = candidates(sampling, &logits, best).into_iter().map(|(token, _)| token).collect();
        kept.sort();
        kept
    }

    #[test]
    fn each_restriction_keeps_exactly_the_tokens_of_its_definition() {
        let p = [0.05, 0.4, 0.1, 0.25, 0.2];
        let check = |sampling: Sampling, expected: &[u32]| assert_eq!(kept(&sampling, &p), expected, "{sampling:?}");
        check(all(), &[0, 1, 2, 3, 4]);
        check(Sampling { top_k: 1, ..all() }, &[1]);
        check(Sampling { top_k: 3, ..all() }, &[1, 3, 4]);
        check(Sampling { top_k: 9, ..all() }, &[0, 1, 2, 3, 4]);
        // 0.4, 0.65, 0.85: the fewest that reach the mark.
        check(Sampling { top_p: 0.3, ..all() }, &[1]);
        check(Sampling { top_p: 0.41, ..all() }, &[1, 3]);
        check(Sampling { top_p: 0.64, ..all() }, &[1, 3]);
        check(Sampling { top_p: 0.66, ..all() }, &[1, 3, 4]);
        check(Sampling { top_p: 0.96, ..all() }, &[0, 1, 2, 3, 4]);
        // A quarter of the likeliest is 0.1.
        check(Sampling { min_p: 0.24, ..all() }, &[1, 2, 3, 4]);
        check(Sampling { min_p: 0.26, ..all() }, &[1, 3, 4]);
        check(Sampling { min_p: 1.0, ..all() }, &[1]);
        // top_p counts what top_k left: 0.4 / 0.65 is more than 0.6.
        check(Sampling { top_k: 2, top_p: 0.6, ..all() }, &[1]);
    }

    #[test]
    fn the_nucleus_is_the_fewest_tokens_whatever_the_distribution() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for round in 0..200 {
            let count = 2 + round;
            let mut p: Vec<f32> = (0..count).map(|_| rng.random::<f32>().powi(1 + round % 9) + 1e-6).collect();
            let total: f32 = p.iter().sum();
            p.iter_mut().for_each(|p| *p /= total);
            let top_p = 0.05 + 0.9 * rng.random::<f32>();
            let kept = kept(&Sampling { top_p, ..all() }, &p);
            let mass: f64 = kept.iter().map(|t| f64::from(p[*t as usize])).sum();
            let smallest = kept.iter().map(|t| f64::from(p[*t as usize])).fold(1.0, f64::min);
            let largest_out =
                (0..count as u32).filter(|t| !kept.contains(t)).map(|t| f64::from(p[t as usize])).fold(0.0, f64::max);
            assert!(mass >= f64::from(top_p) - 1e-5 && mass - smallest < f64::from(top_p) + 1e-5, "mass {mass} for {top_p}");
            assert!(largest_out <= smallest * (1.0 + 1e-5), "{largest_out} is out and {smallest} in");
        }
    }

    /// Pearson's chi-square of 40,000 draws against the distribution that the setting defines.
    #[test]
    fn frequencies_are_those_of_the_distribution() {
        let p = [0.05_f64, 0.4, 0.1, 0.25, 0.2];
        let check = |sampling: Sampling, expected: [f64; 5]| {
            let mut sampler = Sampler::new(&Sampling { seed: 11, ..sampling.clone() }, &[]).unwrap();
            let mut counts = [0.0; 5];
            for _ in 0..40_000 {
                let mut logits = p.map(|p| p.ln() as f32 + 3.0);
                counts[sampler.sample(&mut logits).unwrap() as usize] += 1.0;
            }
            let chi: f64 = (0..5)
                .filter(|i| expected[*i] > 0.0)
                .map(|i| (counts[i] - expected[i] * 4e4).powi(2) / (expected[i] * 4e4))
                .sum();
            // The 99.9 % quantile with four degrees of freedom.
            assert!(chi < 18.47, "{sampling:?}: chi-square {chi}, counts {counts:?}");
            assert!((0..5).all(|i| expected[i] > 0.0 || counts[i] == 0.0), "{sampling:?}: {counts:?}");
        };
        check(all(), p);
        let squares = p.map(|p| p * p);
        let total: f64 = squares.iter().sum();
        check(Sampling { temperature: 0.5, ..all() }, squares.map(|s| s / total));
        check(Sampling { top_k: 2, ..all() }, [0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65, 0.0]);
        check(Sampling { top_p: 0.8, ..all() }, [0.0, 0.4 / 0.85, 0.0, 0.25 / 0.85, 0.2 / 0.85]);
        check(Sampling { min_p: 0.3, ..all() }, [0.0, 0.4 / 0.85, 0.0, 0.25 / 0.85, 0.2 / 0.85]);
    }

    #[test]
    fn greedy_takes_the_first_of_the_most_likely() {
        let mut sampler = Sampler::new(&Sampling::greedy(), &[]).unwrap();
        assert_eq!(sampler.sample(&mut [0.0, 2.0, 2.0, -1.0]).unwrap(), 1);
    }

    #[test]
    fn a_penalty_lowers_what_has_been() {
        let greedy = Sampling { repetition_penalty: 2.0, ..Sampling::greedy() };
        let mut sampler = Sampler::new(&greedy, &[1]).unwrap();
        assert_eq!(sampler.sample(&mut [1.2, 2.0, 0.0]).unwrap(), 0, "2.0 of the prompt's token counts as 1.0");
        assert_eq!(sampler.sample(&mut [1.2, 1.8, 0.95]).unwrap(), 2, "and so does 1.2 of the token just drawn as 0.6");
        let mut negative = [-1.0, -1.5, -9.0];
        assert_eq!(Sampler::new(&greedy, &[0]).unwrap().sample(&mut negative).unwrap(), 1, "-1 counts as -2");
    }

    #[test]
    fn frequency_presence_and_bias_move_logits_by_their_definition() {
        let mut sampler = Sampler::new(&Sampling { frequency_penalty: 0.5, ..Sampling::greedy() }, &[0, 0, 0]).unwrap();
        // What was read does not count; each writing costs a half.
        let draws: Vec<u32> = (0..4).map(|_| sampler.sample(&mut [1.7, 1.0, 0.0]).unwrap()).collect();
        assert_eq!(draws, [0, 0, 1, 0], "1.7, 1.2, then 0.7 against 1.0, then 0.7 against 0.5");
        let mut sampler = Sampler::new(&Sampling { presence_penalty: 0.9, ..Sampling::greedy() }, &[]).unwrap();
        let draws: Vec<u32> = (0..3).map(|_| sampler.sample(&mut [2.0, 1.5, 0.0]).unwrap()).collect();
        assert_eq!(draws, [0, 1, 0], "2.0, 1.5 against 1.1, then 1.1 against 0.6: once, however often");
        let logit_bias = [(2, 100.0), (7, 5.0)].into();
        assert_eq!(
            Sampler::new(&Sampling { logit_bias, ..Sampling::greedy() }, &[]).unwrap().sample(&mut [9.0, 1.0, 0.0]).unwrap(),
            2
        );
    }

    #[test]
    fn the_seed_decides() {
        let draw = |seed| {
            let mut sampler = Sampler::new(&Sampling { seed, ..all() }, &[]).unwrap();
            (0..50).map(|_| sampler.sample(&mut [0.1; 64]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn what_cannot_be_drawn_from_is_an_error() {
        let mut sampler = Sampler::new(&all(), &[]).unwrap();
        assert!(sampler.sample(&mut [0.0, f32::NAN]).unwrap_err().to_string().contains("token 1 is not a number"));
        assert!(sampler.sample(&mut [f32::NEG_INFINITY; 3]).is_err());
        let check = |sampling: Sampling, says: &str| {
            let message = sampling.validate().unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        };
        check(Sampling { temperature: -1.0, ..all() }, "temperature must be 0 or more; it is -1");
        check(Sampling { temperature: f32::NAN, ..all() }, "temperature");
        check(Sampling { top_p: 0.0, ..all() }, "top_p");
        check(Sampling { min_p: 1.5, ..all() }, "min_p");
        check(Sampling { repetition_penalty: 0.0, ..all() }, "repetition_penalty");
        check(Sampling { frequency_penalty: 2.5, ..all() }, "frequency_penalty must be from -2 to 2");
        check(Sampling { logit_bias: [(3, f32::NAN)].into(), ..all() }, "logit_bias of token 3");
        check(Sampling { stop: vec![String::new()], ..all() }, "stop string");
    }
}
