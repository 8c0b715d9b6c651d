//! Masked words: an encoder says which words stood where some were taken away.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use danlu_data::sampler::{Mixture, Sampler, TokenBatch};
use danlu_data::shards::TokenSplit;
use danlu_data::tokenizer::Tokenizer;
use danlu_eval::{Better, Measure, Unit, interval};
use danlu_models::Bert;
use danlu_ops::{Ids, Segments};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;

/// The share of words that is asked for, and of these the shares that become the mask and another token; the rest stay as they are, since
/// no text that the model is used on has masks ([Devlin et al. 2018](https://arxiv.org/abs/1810.04805), 3.1).
const ASKED: f64 = 0.15;
const MASKED: f64 = 0.8;
const REPLACED: f64 = 0.1;
/// Held-out words are masked by a draw of their own.
const MEASURED: u64 = 1 << 62;
/// Held-out texts whose masked words are guessed now and then, for a person to read.
const SAMPLES: usize = 3;
const SAMPLE_TOKENS: usize = 32;

const BITS: Unit = Unit { name: "bits_per_masked_token", label: "bits per masked token", better: Better::Lower };

/// The mean negative log-likelihood of masked words, whole words at a time
/// ([Cui et al. 2019](https://arxiv.org/abs/1906.08101)), each text seeing itself alone.
pub struct MaskedLm {
    rows: Mixture,
    held_out: Vec<TokenSplit>,
    tokenizer: Tokenizer,
    /// Whether a token goes on with the word before.
    continues: Vec<bool>,
    mask: u32,
    row_len: usize,
    recompute: bool,
    seed: u64,
}

/// Rows with words taken away.
#[derive(Debug, Clone)]
pub struct MaskedBatch {
    ids: Ids,
    segments: Segments,
    /// The tokens that are asked for: their places, and what stood there.
    places: Ids,
    targets: Ids,
}

impl MaskedLm {
    /// `train` are splits with their shares of the rows; `held_out` is measured on.
    ///
    /// # Errors
    /// When a source has no text, or the tokenizer no token for a masked word.
    pub fn new(plan: &Plan, train: &[(TokenSplit, f64)], held_out: Vec<TokenSplit>, tokenizer: Tokenizer) -> Result<Self> {
        let mask = tokenizer.token_to_id("[MASK]").context(
            "the tokenizer has no token [MASK] to stand where a word is asked for; learn one with `tokenizer.kind = \"wordpiece\"`",
        )?;
        let seed = plan.recipe.seed;
        let samplers =
            train.iter().map(|(train, weight)| Ok((Sampler::new(train, plan.row_len, plan.micro_rows, seed)?, *weight)));
        let continues = |id: u32| tokenizer.id_to_token(id).is_some_and(|token| token.starts_with("##"));
        Ok(Self {
            rows: Mixture::new(samplers.collect::<Result<_>>()?, seed)?,
            held_out,
            continues: (0..tokenizer.vocab_size() as u32).map(continues).collect(),
            tokenizer,
            mask,
            row_len: plan.row_len,
            recompute: plan.recipe.batch.recompute,
            seed,
        })
    }

    /// Takes words away from rows of `row_len` tokens: a pure function of the tokens, the seed and the number of the first row.
    fn masked(&self, mut tokens: Vec<u32>, segments: Segments, first: u64) -> MaskedBatch {
        let (mut places, mut targets) = (vec![], vec![]);
        let vocabulary = self.continues.len() as u32;
        for (row, begin) in (0..tokens.len()).step_by(segments.row_len).enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(first + row as u64);
            let words = self.words(&tokens[begin..begin + segments.row_len]);
            let asked = words.iter().filter(|_| rng.random::<f64>() < ASKED).cloned().collect::<Vec<_>>();
            // A row in which the draw asks for nothing would teach nothing.
            let asked = if asked.is_empty() { words.into_iter().take(1).collect() } else { asked };
            for place in asked.into_iter().flatten() {
                let place = begin + place;
                places.push(place as u32);
                targets.push(tokens[place]);
                let draw = rng.random::<f64>();
                if draw < MASKED {
                    tokens[place] = self.mask;
                } else if draw < MASKED + REPLACED {
                    tokens[place] = rng.random_range(0..vocabulary);
                }
            }
        }
        MaskedBatch { ids: tokens.into(), segments, places: places.into(), targets: targets.into() }
    }

    /// The words of a row, as ranges of its tokens; special tokens are none.
    fn words(&self, row: &[u32]) -> Vec<std::ops::Range<usize>> {
        let mut words: Vec<std::ops::Range<usize>> = vec![];
        for (i, &id) in row.iter().enumerate() {
            match words.last_mut() {
                Some(word) if word.end == i && self.continues.get(id as usize).copied().unwrap_or(false) => word.end += 1,
                _ if self.tokenizer.is_special(id) => {}
                _ => words.push(i..i + 1),
            }
        }
        words
    }

    fn hidden(&self, model: &Bert, batch: &MaskedBatch) -> burn::tensor::Tensor<2> {
        let hidden = model.hidden(&batch.ids, None, &batch.segments, self.recompute);
        danlu_ops::embedding(hidden, &batch.places)
    }

    /// Held-out texts, each cut to one row, with words taken away.
    fn measured_texts(&self, tokens: u64) -> Result<Vec<MaskedBatch>> {
        let all: u64 = self.held_out_tokens();
        let every = (all / tokens.max(1)).max(1) as usize;
        let mut batches = vec![];
        for split in &self.held_out {
            for i in (0..split.documents()).step_by(every) {
                let mut text = split.document(i)?;
                text.truncate(self.row_len);
                if !self.words(&text).is_empty() {
                    let segments = Segments::rows(1, text.len());
                    batches.push(self.masked(text, segments, MEASURED + batches.len() as u64));
                }
            }
        }
        Ok(batches)
    }
}

impl Objective for MaskedLm {
    type Model = Bert;
    type Batch = MaskedBatch;

    fn batch(&self, position: u64) -> Result<MaskedBatch> {
        let TokenBatch { tokens, rows, row_len, starts, .. } = self.rows.batch(position)?;
        Ok(self.masked(tokens, Segments::new(rows, row_len, starts), position))
    }

    fn targets(&self, batch: &MaskedBatch) -> usize {
        batch.targets.len()
    }

    fn loss(&self, model: &Bert, batch: &MaskedBatch) -> Loss {
        model.masked_loss(self.hidden(model, batch), &batch.targets).into()
    }

    fn masks(&self) -> bool {
        true
    }

    fn show(&self, batch: &MaskedBatch) -> Result<Shown> {
        let row = self.row_len.min(batch.ids.len());
        let ids = &batch.ids[..row];
        let asked = |i: usize| batch.places.binary_search(&(i as u32)).is_ok();
        let tokens = ids.iter().enumerate().map(|(i, &id)| Ok((id, self.tokenizer.decode(&[id])?, asked(i))));
        Ok(Shown {
            text: self.tokenizer.decode(ids)?,
            tokens: tokens.collect::<Result<_>>()?,
            starts: batch.segments.iter().map(|segment| segment.start).take_while(|&start| start < row).collect(),
        })
    }

    fn held_out_tokens(&self) -> u64 {
        self.held_out.iter().map(TokenSplit::len).sum()
    }

    fn measure(&self, model: &Bert, tokens: u64) -> Result<Measure> {
        let start = Instant::now();
        let model = model.valid();
        let (mut pairs, mut right, mut read) = (vec![], 0, 0);
        for batch in self.measured_texts(tokens)? {
            let hidden = self.hidden(&model, &batch);
            let nll = model.masked_nll(hidden.clone(), &batch.targets);
            pairs.push((nll.iter().map(|&nats| f64::from(nats)).sum::<f64>() / std::f64::consts::LN_2, nll.len() as f64));
            let guesses = model.masked_logits(hidden).argmax(1).into_data();
            right +=
                guesses.iter::<i64>().zip(batch.targets.iter()).filter(|(guess, target)| *guess == i64::from(**target)).count();
            read += batch.ids.len() as u64;
        }
        let (bits, all) = pairs.iter().fold((0.0, 0.0), |(a, b), pair| (a + pair.0, b + pair.1));
        ensure!(all > 0.0, "there is no held-out text to measure on; add more documents, or hold out a larger share of them");
        ensure!(bits.is_finite(), "the model's likelihood of the held-out words is not a number; training diverged");
        let (low, high) = interval(&pairs);
        Ok(Measure {
            unit: BITS,
            value: bits / all,
            low,
            high,
            items: pairs.len() as u64,
            tokens: read,
            bytes: 0,
            seconds: start.elapsed().as_secs_f64(),
            others: vec![("accuracy", right as f64 / all), ("nats_per_token", bits / all * std::f64::consts::LN_2)],
        })
    }

    fn samples(&self, model: &Bert, _: u64) -> Result<Vec<Sample>> {
        let model = model.valid();
        let batches = self.measured_texts(self.held_out_tokens())?;
        let every = (batches.len() / SAMPLES).max(1);
        let one = |batch: &MaskedBatch| {
            let guesses = model.masked_logits(self.hidden(&model, batch)).argmax(1).into_data();
            let guesses: Vec<u32> = guesses.iter::<i64>().map(|id| id as u32).collect();
            let shown = SAMPLE_TOKENS.min(batch.ids.len());
            let mut filled = batch.ids.to_vec();
            batch.places.iter().zip(guesses).for_each(|(place, guess)| filled[*place as usize] = guess);
            let prompt = self.tokenizer.decode(&batch.ids[..shown])?;
            Ok(Sample { prompt: format!("{prompt}\n→ "), text: self.tokenizer.decode(&filled[..shown])? })
        };
        batches.iter().step_by(every).take(SAMPLES).map(one).collect()
    }
}
