//! Word vectors: a word is told from words drawn at random by the words around it, or they are by it.

mod draw;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use danlu_data::sampler::{Mixture, Sampler, TokenBatch};
use danlu_data::shards::TokenSplit;
use danlu_data::tokenizer::Tokenizer;
use danlu_eval::{Analogies, Better, Measure, Unit, interval};
use danlu_models::{Word2Vec, WordVectors};
use danlu_ops::kernels::threads::for_each_chunk;
use danlu_ops::{Form, Windows};

use super::{Loss, Moved, Objective, Sample, Shown};
use crate::auto::Plan;

pub use draw::{Draw, kept_share};

/// Held-out text has draws of its own.
const MEASURED: u64 = 1 << 62;
/// Words that are near to each of the words that are looked at now and then.
const NEAR: usize = 8;
/// Which words these are where the recipe names none, by their place in the order of frequency: common enough to have been learned, rare
/// enough to mean something.
const LOOKED_AT: [usize; 4] = [150, 300, 600, 1200];
/// The first row is shown up to here.
const SHOWN: usize = 64;

const NATS: Unit = Unit { name: "nats_per_prediction", label: "nats per prediction", better: Better::Lower };

/// Skip-gram or CBOW with negative sampling and subsampling of frequent words ([Mikolov et al. 2013](https://arxiv.org/abs/1310.4546)). The
/// weights move by its own gradient descent, window by window, since a gradient of whole tables would be zeros but for a few rows.
pub struct Word2vec {
    rows: Mixture,
    held_out: Vec<TokenSplit>,
    tokenizer: Tokenizer,
    draw: Draw,
    form: Form,
    row_len: usize,
    looked_at: Vec<String>,
    analogies: Analogies,
}

/// Rows of text, of which the windows are drawn when they are first asked for: on all threads in turn with the steps, since a thread that drew
/// them beside would take a processor from those that step.
pub struct WindowBatch {
    tokens: Vec<u32>,
    /// The number of the first row.
    first: u64,
    windows: OnceLock<Windows>,
}

impl Word2vec {
    /// `train` are splits with their shares of the rows, whose tokens occur as often as `counts` says; `held_out` is measured on.
    ///
    /// # Errors
    /// When a source has no text.
    pub fn new(
        plan: &Plan,
        train: &[(TokenSplit, f64)],
        counts: &[u64],
        held_out: Vec<TokenSplit>,
        tokenizer: Tokenizer,
    ) -> Result<Self> {
        let recipe = &plan.recipe;
        let samplers =
            train.iter().map(|(train, weight)| Ok((Sampler::new(train, plan.row_len, plan.micro_rows, recipe.seed)?, *weight)));
        let mut looked_at = recipe.sample.prompts.clone();
        if looked_at.is_empty() {
            looked_at = LOOKED_AT.iter().filter_map(|&id| tokenizer.id_to_token(id as u32)).collect();
        }
        Ok(Self {
            rows: Mixture::new(samplers.collect::<Result<_>>()?, recipe.seed)?,
            held_out,
            draw: Draw::new(counts, &recipe.word2vec, recipe.seed)?,
            tokenizer,
            form: recipe.word2vec.form.into(),
            row_len: plan.row_len,
            looked_at,
            analogies: Analogies::built_in()?,
        })
    }

    /// Adds the windows of a row, whose texts are apart.
    fn add(&self, row: &[u32], number: u64, windows: &mut Windows) {
        let mut rng = self.draw.row(number);
        let kept = self.draw.kept(row, &mut rng);
        let mut words = vec![];
        for (&id, kept) in row.iter().zip(kept) {
            if id == self.tokenizer.end_of_text() {
                self.draw.windows(&words, &mut rng, windows);
                words.clear();
            } else if kept {
                words.push(id);
            }
        }
        self.draw.windows(&words, &mut rng, windows);
    }

    fn windows<'a>(&self, batch: &'a WindowBatch) -> &'a Windows {
        batch.windows.get_or_init(|| {
            let mut rows = vec![Windows::default(); batch.tokens.len() / self.row_len];
            for_each_chunk(&mut rows, 1, |i, rows| {
                let tokens = &batch.tokens[i * self.row_len..][..self.row_len];
                rows.iter_mut().for_each(|windows| self.add(tokens, batch.first + i as u64, windows));
            });
            let mut all = Windows::default();
            rows.iter().for_each(|row| all.append(row));
            all
        })
    }

    /// Windows of held-out texts, each with its number of tokens.
    fn measured(&self, tokens: u64) -> Result<Vec<(Windows, usize)>> {
        let every = (self.held_out_tokens() / tokens.max(1)).max(1) as usize;
        let mut texts = vec![];
        for split in &self.held_out {
            for i in (0..split.documents()).step_by(every) {
                let text = split.document(i)?;
                let mut windows = Windows::default();
                self.add(&text, MEASURED + texts.len() as u64, &mut windows);
                texts.push((windows, text.len()));
            }
        }
        Ok(texts)
    }

    /// The windows of some held-out texts, on which a model that was written and read back is compared.
    ///
    /// # Errors
    /// When there is no such text.
    pub fn probe(&self) -> Result<Windows> {
        let texts = self.measured(self.held_out_tokens())?;
        let mut found = texts.into_iter().map(|(windows, _)| windows).filter(|windows| !windows.is_empty());
        found
            .next()
            .ok_or_else(|| anyhow!("no held-out text has two words of the vocabulary; hold out a larger share of the text"))
    }

    /// What each window costs.
    pub fn losses(&self, model: &Word2Vec, windows: &Windows) -> Vec<f32> {
        danlu_ops::negative_sampling_losses(model.input.weight.val(), model.output.weight.val(), windows, self.form)
    }
}

/// The words of a vocabulary with their vectors, in the order of their ids: what is kept of a model and used.
///
/// # Errors
/// When the tokenizer has other words than the model, or a vector holds what is no number.
pub fn word_vectors(model: &Word2Vec, tokenizer: &Tokenizer) -> Result<WordVectors> {
    let table = model.input.weight.val().inner();
    let [rows, width] = table.dims();
    ensure!(rows == tokenizer.vocab_size(), "the model has {rows} words and its tokenizer {}", tokenizer.vocab_size());
    let table = table.into_data().try_into_vec::<f32>().map_err(|error| anyhow!("the vectors cannot be read: {error:?}"))?;
    let (mut words, mut values) = (vec![], vec![]);
    for (id, row) in (0..).zip(table.chunks_exact(width)).filter(|(id, _)| !tokenizer.is_special(*id)) {
        words.extend(tokenizer.id_to_token(id));
        values.extend_from_slice(row);
    }
    WordVectors::new(words, values, width)
}

impl Objective for Word2vec {
    type Model = Word2Vec;
    type Batch = WindowBatch;

    fn batch(&self, position: u64) -> Result<WindowBatch> {
        let TokenBatch { tokens, .. } = self.rows.batch(position)?;
        Ok(WindowBatch { tokens, first: position, windows: OnceLock::new() })
    }

    fn targets(&self, batch: &WindowBatch) -> usize {
        self.windows(batch).predictions(self.form)
    }

    fn loss(&self, model: &Word2Vec, batch: &WindowBatch) -> Loss {
        let (input, output) = (model.input.weight.val(), model.output.weight.val());
        let sum = danlu_ops::negative_sampling(input, output, self.windows(batch), self.form);
        (sum / self.targets(batch).max(1) as f64).into()
    }

    fn step(&self, model: Word2Vec, pieces: &[WindowBatch], rate: f64) -> (Word2Vec, Option<Moved>) {
        let predictions: usize = pieces.iter().map(|piece| self.targets(piece)).sum();
        if predictions == 0 {
            return (model, None);
        }
        let (mut loss, mut squares) = (0.0, [0.0; 2]);
        let model = model.map_tables(|tables| {
            pieces.iter().fold(tables, |[input, output], piece| {
                let moved = danlu_ops::negative_sampling_step(input, output, self.windows(piece), self.form, rate);
                loss += moved.loss;
                (0..2).for_each(|table| squares[table] += moved.squares[table]);
                [moved.input, moved.output]
            })
        });
        let squares = ["input.weight", "output.weight"].map(str::to_string).into_iter().zip(squares).collect();
        (model, Some(Moved { loss: loss / predictions as f64, squares, report: vec![] }))
    }

    fn show(&self, batch: &WindowBatch) -> Result<Shown> {
        let ids = &batch.tokens[..SHOWN.min(self.row_len)];
        let kept = self.draw.kept(ids, &mut self.draw.row(batch.first));
        let end = self.tokenizer.end_of_text();
        let tokens = ids.iter().zip(kept).map(|(&id, kept)| Ok((id, self.tokenizer.decode(&[id])?, kept)));
        Ok(Shown {
            text: self.tokenizer.decode(ids)?,
            tokens: tokens.collect::<Result<_>>()?,
            starts: ids.iter().enumerate().filter(|(_, id)| **id == end).map(|(place, _)| place).collect(),
        })
    }

    fn held_out_tokens(&self) -> u64 {
        self.held_out.iter().map(TokenSplit::len).sum()
    }

    fn measure(&self, model: &Word2Vec, tokens: u64) -> Result<Measure> {
        let start = Instant::now();
        let (mut texts, mut read) = (vec![], 0);
        for (windows, length) in self.measured(tokens)? {
            read += length as u64;
            let nats: f64 = self.losses(model, &windows).iter().map(|&nats| f64::from(nats)).sum();
            texts.push((nats, windows.predictions(self.form) as f64));
        }
        let (nats, predictions) = texts.iter().fold((0.0, 0.0), |(a, b), text| (a + text.0, b + text.1));
        ensure!(
            predictions > 0.0,
            "no held-out text has two words of the vocabulary to measure on; add more documents, or hold out a larger share of them"
        );
        ensure!(nats.is_finite(), "the loss of held-out windows is not a number; training diverged");
        let scores = self.analogies.score(&word_vectors(model, &self.tokenizer)?);
        let (right, asked) = scores.iter().fold((0, 0), |(right, asked), score| (right + score.right, asked + score.asked));
        let (low, high) = interval(&texts);
        Ok(Measure {
            unit: NATS,
            value: nats / predictions,
            low,
            high,
            items: texts.len() as u64,
            tokens: read,
            bytes: 0,
            seconds: start.elapsed().as_secs_f64(),
            others: if asked > 0 {
                vec![("analogies", right as f64 / asked as f64), ("analogies_asked", asked as f64)]
            } else {
                vec![]
            },
        })
    }

    fn samples(&self, model: &Word2Vec, _: u64) -> Result<Vec<Sample>> {
        let vectors = word_vectors(model, &self.tokenizer)?;
        let near = |word: &String| {
            let text = match vectors.place(word) {
                None => "not in the vocabulary".into(),
                Some(place) => {
                    let found = vectors.near(vectors.vector(place), &[place], NEAR);
                    let found = found.iter().map(|(place, cosine)| format!("{} {cosine:.2}", vectors.words()[*place]));
                    found.collect::<Vec<_>>().join(", ")
                }
            };
            Sample { prompt: format!("{word} → "), text }
        };
        Ok(self.looked_at.iter().map(near).collect())
    }
}
