//! Many completions at once, for reinforcement learning and for drawing samples by the thousand.
//!
//! All sequences that are being written take each step together, so that the products have many rows; a prompt is read once and its
//! completions share its keys and values; what is finished leaves and the next takes its place. A completion depends on the weights, its
//! prompt, and (seed, step, prompt, sample) alone, never on what it was written beside.

use std::collections::VecDeque;

use anyhow::{Result, ensure};
use burn::module::Module;
use danlu_models::{Decoder, Sequence};
use danlu_ops::kernels::threads::for_each_chunk;
use danlu_ops::kernels::{Isa, simd};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Sampling;
use crate::sampling::{argmax, candidates};

/// Tokens of prompts that are read in one step.
const PREFILL: usize = 1024;

/// How completions are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// Completions of each prompt.
    pub samples: usize,
    /// The most tokens of a completion, the one that ends it included.
    pub max_tokens: usize,
    /// Temperature and restrictions; only these are looked at. At temperature 1 without restrictions tokens come from the distribution
    /// that is trained.
    pub sampling: Sampling,
    /// Tokens that end a completion.
    pub ends: Vec<u32>,
    pub seed: u64,
    /// Of the training, so that each step draws anew.
    pub step: u64,
    /// The most sequences that are written at the same time; it bounds memory and changes nothing else.
    pub width: usize,
}

impl Default for Rollout {
    fn default() -> Self {
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, ..Sampling::default() };
        Self { samples: 1, max_tokens: 128, sampling, ends: vec![], seed: 0, step: 0, width: 64 }
    }
}

/// What is to be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Its place among all prompts, for the draws.
    pub index: u64,
    pub ids: Vec<u32>,
}

/// A continuation of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Which of the prompts given.
    pub prompt: usize,
    /// Which of the prompt's samples.
    pub sample: usize,
    /// With the token that ended it, if one did.
    pub tokens: Vec<u32>,
    /// Of each token, in nats, given what was before it, in the model's own distribution (temperature 1, no restrictions), whatever the
    /// tokens were drawn with: what a trainer computes for the same weights.
    pub log_probs: Vec<f32>,
    /// False when it was cut off.
    pub ended: bool,
}

/// Draws `samples` completions of each prompt, in the order of prompts and then samples.
///
/// # Errors
/// Before anything is drawn: when a prompt is empty, does not leave room for a token (with both counts) or has a token that the model has
/// not, or a setting is out of its range. Later: when logits are not numbers.
pub fn rollout(decoder: &Decoder, prompts: &[Prompt], spec: &Rollout) -> Result<Vec<Completion>> {
    spec.sampling.validate()?;
    ensure!(spec.max_tokens > 0 && spec.width > 0, "max_tokens and width must be at least 1");
    ensure!(decoder.prompt_len() == 0, "a model with a tuned prompt writes one text at a time; merge or remove the prompt");
    let valid;
    // A decoder in training would record every operation for a backward pass that never comes.
    let decoder = if decoder.is_autodiff() {
        valid = decoder.valid();
        &valid
    } else {
        decoder
    };
    let (context, vocabulary) = (decoder.context(), decoder.vocabulary());
    for Prompt { index, ids } in prompts {
        ensure!(!ids.is_empty(), "prompt {index} has no token");
        ensure!(
            ids.len() < context,
            "prompt {index} has {} tokens and the model's context {context}: shorten it to at most {} tokens",
            ids.len(),
            context - 1
        );
        if let Some(token) = ids.iter().find(|token| **token as usize >= vocabulary) {
            anyhow::bail!(
                "token {token} of prompt {index} is outside the model's vocabulary of {vocabulary}: is this its tokenizer?"
            );
        }
    }
    let mut queue = Queue { decoder, prompts, spec, next: 0, read: VecDeque::new() };
    let mut active: Vec<Active> = vec![];
    let mut finished: Vec<Completion> = vec![];
    loop {
        queue.fill(&mut active)?;
        let (done, going): (Vec<Active>, Vec<Active>) = active.into_iter().partition(|one| one.done);
        finished.extend(done.into_iter().map(|one| one.completion));
        active = going;
        if active.is_empty() {
            if queue.is_empty() {
                break;
            }
            continue;
        }
        let parts: Vec<[u32; 1]> = active.iter().map(|one| [one.last()]).collect();
        let parts: Vec<&[u32]> = parts.iter().map(|part| &part[..]).collect();
        let mut sequences: Vec<&mut Sequence> = active.iter_mut().map(|one| &mut one.sequence).collect();
        let mut logits = decoder.step_many(&parts, &mut sequences);
        draw_all(&mut active, &mut logits, spec)?;
    }
    finished.sort_by_key(|one| (one.prompt, one.sample));
    Ok(finished)
}

/// A completion that is being written.
struct Active {
    completion: Completion,
    sequence: Sequence,
    rng: ChaCha8Rng,
    /// The most tokens it may have.
    limit: usize,
    done: bool,
    failed: Option<anyhow::Error>,
}

impl Active {
    fn last(&self) -> u32 {
        *self.completion.tokens.last().expect("a completion has its first token when it becomes active")
    }

    fn draw(&mut self, logits: &mut [f32], spec: &Rollout) {
        match draw(logits, &spec.sampling, &mut self.rng) {
            Ok((token, log_prob)) => {
                let one = &mut self.completion;
                one.tokens.push(token);
                one.log_probs.push(log_prob);
                one.ended = spec.ends.contains(&token);
                self.done = one.ended || one.tokens.len() == self.limit;
            }
            Err(error) => self.failed = Some(error),
        }
    }
}

/// Draws the next token of each from its row of logits.
fn draw_all(active: &mut [Active], logits: &mut [f32], spec: &Rollout) -> Result<()> {
    let vocabulary = logits.len() / active.len().max(1);
    let mut rows: Vec<(&mut Active, &mut [f32])> = active.iter_mut().zip(logits.chunks_exact_mut(vocabulary)).collect();
    for_each_chunk(&mut rows, 1, |_, row| {
        let (one, logits) = &mut row[0];
        one.draw(logits, spec);
    });
    active.iter_mut().find_map(|one| one.failed.take()).map_or(Ok(()), Err)
}

/// What has not been begun.
struct Queue<'a> {
    decoder: &'a Decoder,
    prompts: &'a [Prompt],
    spec: &'a Rollout,
    /// The next prompt to read.
    next: usize,
    /// Prompts that have been read, with samples still to begin.
    read: VecDeque<Read>,
}

struct Read {
    prompt: usize,
    sequence: Sequence,
    /// Of the first token after it.
    logits: Vec<f32>,
    /// The next sample to begin.
    sample: usize,
}

impl Queue<'_> {
    fn is_empty(&self) -> bool {
        self.read.is_empty() && self.next == self.prompts.len()
    }

    /// Begins completions until as many as may be are being written.
    fn fill(&mut self, active: &mut Vec<Active>) -> Result<()> {
        let spec = self.spec;
        if spec.samples == 0 {
            self.next = self.prompts.len();
        }
        while active.len() < spec.width && !self.is_empty() {
            if self.read.is_empty() {
                self.read_prompts((spec.width - active.len()).div_ceil(spec.samples));
            }
            let Some(read) = self.read.front_mut() else { break };
            let prompt = &self.prompts[read.prompt];
            let count = (spec.width - active.len()).min(spec.samples - read.sample);
            let mut begun: Vec<Active> = (read.sample..read.sample + count)
                .map(|sample| Active {
                    completion: Completion { prompt: read.prompt, sample, tokens: vec![], log_probs: vec![], ended: false },
                    sequence: read.sequence.clone(),
                    rng: rng(spec, prompt.index, sample),
                    limit: spec.max_tokens.min(self.decoder.context() - prompt.ids.len()),
                    done: false,
                    failed: None,
                })
                .collect();
            draw_all(&mut begun, &mut read.logits.repeat(count), spec)?;
            active.extend(begun);
            read.sample += count;
            if read.sample == spec.samples {
                self.read.pop_front();
            }
        }
        Ok(())
    }

    /// Reads up to `count` prompts, together as far as [`PREFILL`] allows. A long one is cut at multiples of it, so that it is read in the
    /// same pieces whatever it is read with.
    fn read_prompts(&mut self, count: usize) {
        let (decoder, prompts) = (self.decoder, self.prompts);
        let (first, mut tokens) = (self.next, 0);
        while self.next < prompts.len() && self.next - first < count && (tokens == 0 || tokens < PREFILL) {
            tokens += prompts[self.next].ids.len();
            self.next += 1;
        }
        let read = &prompts[first..self.next];
        let capacity = |prompt: &Prompt| prompt.ids.len() + self.spec.max_tokens;
        let mut sequences: Vec<Sequence> = read.iter().map(|p| Sequence::new(decoder, capacity(p))).collect();
        let mut logits = vec![vec![]; read.len()];
        for at in (0..).step_by(PREFILL) {
            let (mut parts, mut these, mut indices) = (vec![], vec![], vec![]);
            for (i, (prompt, sequence)) in read.iter().zip(&mut sequences).enumerate() {
                if at < prompt.ids.len() {
                    parts.push(&prompt.ids[at..prompt.ids.len().min(at + PREFILL)]);
                    these.push(sequence);
                    indices.push(i);
                }
            }
            if parts.is_empty() {
                break;
            }
            let rows = decoder.step_many(&parts, &mut these);
            let vocabulary = rows.len() / parts.len();
            indices.into_iter().zip(rows.chunks_exact(vocabulary)).for_each(|(i, row)| logits[i] = row.to_vec());
        }
        let read = sequences.into_iter().zip(logits).enumerate();
        self.read.extend(read.map(|(i, (sequence, logits))| Read { prompt: first + i, sequence, logits, sample: 0 }));
    }
}

/// The draws of one completion: a stream of its own for each (seed, step, prompt, sample).
fn rng(spec: &Rollout, prompt: u64, sample: usize) -> ChaCha8Rng {
    let mut key = [0; 32];
    let words = [spec.seed, spec.step, prompt, sample as u64];
    key.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
    ChaCha8Rng::from_seed(key)
}

/// A token and its log-probability at temperature 1. Overwrites the logits.
fn draw(logits: &mut [f32], sampling: &Sampling, rng: &mut ChaCha8Rng) -> Result<(u32, f32)> {
    let isa = Isa::current();
    let restricted = sampling.temperature != 1.0 || sampling.top_k > 0 || sampling.top_p < 1.0 || sampling.min_p > 0.0;
    if restricted {
        let best = argmax(logits)?;
        let token = if sampling.temperature == 0.0 {
            best
        } else {
            let all = candidates(sampling, logits, logits[best as usize]);
            pick(all.iter().map(|(token, weight)| (*token, f64::from(*weight))), all.iter().map(|c| f64::from(c.1)).sum(), rng)
        };
        let (largest, chosen) = (logits[best as usize], logits[token as usize]);
        let total = simd::exp_sum(isa, logits, largest);
        return Ok((token, chosen - largest - total.ln()));
    }
    let largest = simd::row_max(isa, logits);
    let total = simd::exp_sum(isa, logits, largest);
    ensure!(
        total.is_finite() && total > 0.0,
        "the logits are not numbers, or none is finite: the weights are damaged or training diverged"
    );
    let token = pick_weights(logits, rng);
    Ok((token, logits[token as usize].ln() - total.ln()))
}

/// Weights summed at a time when a token is looked for.
const STRIDE: usize = 256;

/// One of the indices, with probabilities proportional to the weights.
fn pick_weights(weights: &[f32], rng: &mut ChaCha8Rng) -> u32 {
    let sums: Vec<f64> = weights.chunks(STRIDE).map(|chunk| f64::from(simd::sum(chunk))).collect();
    let mut left = rng.random::<f64>() * sums.iter().sum::<f64>();
    let mut last = 0;
    for (i, (chunk, sum)) in weights.chunks(STRIDE).zip(sums).enumerate() {
        if left >= sum {
            left -= sum;
            continue;
        }
        for (j, weight) in chunk.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            last = (i * STRIDE + j) as u32;
            left -= f64::from(*weight);
            if left < 0.0 {
                return last;
            }
        }
        // Rounding left a remainder after this chunk's last weight, which then is the one.
        return last;
    }
    weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0) as u32
}

fn pick(candidates: impl Iterator<Item = (u32, f64)>, total: f64, rng: &mut ChaCha8Rng) -> u32 {
    let mut left = rng.random::<f64>() * total;
    let mut last = 0;
    for (token, weight) in candidates {
        last = token;
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    last
}
