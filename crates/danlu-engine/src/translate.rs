//! Translation: an encoder reads, and the likeliest translation is searched for token by token.

use std::sync::Arc;

use anyhow::{Result, ensure};
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Marian, Written};

/// Translations that are gone on with at once, of all sources together.
const ROWS: usize = 256;

/// How a translation is searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// Beginnings of each translation that are kept; 1 takes the likeliest token each time.
    pub beam: usize,
    /// How much longer translations are preferred: the logarithm of a translation's probability is divided by `((5 + tokens) / 6)` to the
    /// power of this ([Wu et al. 2016](https://arxiv.org/abs/1609.08144), 7).
    pub length_penalty: f64,
}

impl Default for Search {
    /// The paper's ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), 6.1).
    fn default() -> Self {
        Self { beam: 4, length_penalty: 0.6 }
    }
}

/// A translation that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Translation {
    /// Without the token that ends it.
    pub tokens: Vec<u32>,
    /// The logarithm of its probability, by its length; the larger the better.
    pub score: f64,
}

/// A model that translates, with the tokenizer it reads and writes with.
pub struct Translator {
    model: Arc<Marian>,
    tokenizer: Tokenizer,
    search: Search,
    /// Tokens that no text has, the end but for: they are never written.
    forbidden: Vec<bool>,
}

impl Translator {
    /// For a model without autodiff (`Module::valid`).
    pub fn new(model: impl Into<Arc<Marian>>, tokenizer: Tokenizer, search: Search) -> Self {
        let end = tokenizer.end_of_text();
        let forbidden = (0..tokenizer.vocab_size() as u32).map(|id| id != end && tokenizer.is_special(id)).collect();
        Self { model: model.into(), tokenizer, search: Search { beam: search.beam.max(1), ..search }, forbidden }
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The translations of texts, in their order. A text without anything to read has an empty one.
    ///
    /// # Errors
    /// When a text is longer than the model reads: by how much.
    pub fn translate(&self, texts: &[&str]) -> Result<Vec<String>> {
        let sources = texts.iter().map(|text| self.tokenizer.encode(text.trim())).collect::<Result<Vec<_>>>()?;
        let found = self.search(&sources.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        found.iter().map(|translation| self.tokenizer.decode_text(&translation.tokens)).collect()
    }

    /// The best translations of sources as tokens of text, in their order.
    ///
    /// # Errors
    /// As [`Translator::translate`].
    pub fn search(&self, sources: &[&[u32]]) -> Result<Vec<Translation>> {
        let room = self.model.context().saturating_sub(1);
        for source in sources {
            ensure!(
                source.len() <= room,
                "a text has {} tokens and the model reads {room} at once; translate it in parts",
                source.len()
            );
        }
        // Those of a length end at about the same time, so that they are searched for together.
        let mut order: Vec<usize> = (0..sources.len()).filter(|&i| !sources[i].is_empty()).collect();
        order.sort_by_key(|&i| sources[i].len());
        let mut found = vec![Translation { tokens: vec![], score: 0.0 }; sources.len()];
        for places in order.chunks((ROWS / self.search.beam).max(1)) {
            let batch: Vec<&[u32]> = places.iter().map(|&place| sources[place]).collect();
            for (&place, translation) in places.iter().zip(self.search_together(&batch)?) {
                found[place] = translation;
            }
        }
        Ok(found)
    }

    fn search_together(&self, sources: &[&[u32]]) -> Result<Vec<Translation>> {
        let end = self.tokenizer.end_of_text();
        let ended: Vec<Vec<u32>> = sources.iter().map(|source| [source, &[end][..]].concat()).collect();
        let read = self.model.sources(&ended.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let begin = |source: &&[u32]| Progress {
            open: vec![Beginning { tokens: vec![], total: 0.0, written: self.model.begin() }],
            finished: vec![],
            // A translation that is far longer than its source has lost its way.
            longest: (2 * source.len() + 10).min(self.model.context()),
        };
        let mut all: Vec<Progress> = sources.iter().map(begin).collect();
        loop {
            let open: Vec<usize> = (0..all.len()).filter(|&i| !all[i].open.is_empty()).collect();
            if open.is_empty() {
                break;
            }
            let of: Vec<_> = open.iter().map(|&i| &read[i]).collect();
            let counts: Vec<usize> = open.iter().map(|&i| all[i].open.len()).collect();
            let tokens: Vec<u32> =
                all.iter().flat_map(|one| &one.open).map(|one| one.tokens.last().copied().unwrap_or(end)).collect();
            let mut written: Vec<&mut Written> =
                all.iter_mut().flat_map(|one| &mut one.open).map(|one| &mut one.written).collect();
            let logits = self.model.step(&of, &counts, &mut written, &tokens).into_data().try_into_vec::<f32>();
            let logits = logits.map_err(|error| anyhow::anyhow!("logits are not 32-bit floats: {error:?}"))?;
            let mut rows = logits.chunks_exact(logits.len() / tokens.len().max(1));
            for i in open {
                let rows: Vec<&[f32]> = rows.by_ref().take(all[i].open.len()).collect();
                self.advance(&mut all[i], &rows, end)?;
            }
        }
        Ok(all.into_iter().map(Progress::best).collect())
    }

    /// Goes on with the beginnings of one source by one token, given the logits after each.
    fn advance(&self, progress: &mut Progress, rows: &[&[f32]], end: u32) -> Result<()> {
        let beam = self.search.beam;
        let mut candidates: Vec<(f64, usize, u32)> = vec![];
        for (place, (row, beginning)) in rows.iter().zip(&progress.open).enumerate() {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|&x| f64::from((x - largest).exp())).sum();
            ensure!(total.is_finite(), "the model gives logits that are not numbers");
            let normalizer = f64::from(largest) + total.ln();
            // Twice as many as are kept: up to half may end here.
            for (logit, token) in self.likeliest(row, 2 * beam) {
                candidates.push((beginning.total + f64::from(logit) - normalizer, place, token));
            }
        }
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let mut next: Vec<Beginning> = vec![];
        for (rank, (total, place, token)) in candidates.into_iter().take(2 * beam).enumerate() {
            let from = &progress.open[place];
            if token == end {
                // One that ends and is not among the best would not have been kept if it went on either.
                if rank < beam {
                    progress.finished.push((self.scored(total, from.tokens.len() + 1), from.tokens.clone()));
                }
            } else if next.len() < beam {
                let tokens = [&from.tokens[..], &[token]].concat();
                next.push(Beginning { tokens, total, written: from.written.clone() });
            }
        }
        let length = next.first().map_or(0, |one| one.tokens.len());
        let at_best = next.first().map(|one| self.scored(one.total, length));
        let finished = progress.finished.iter().map(|one| one.0).fold(f64::NEG_INFINITY, f64::max);
        // As many as are kept have ended, and none that goes on is better now.
        let done = progress.finished.len() >= beam && at_best.is_none_or(|at_best| finished >= at_best);
        if done || length + 1 >= progress.longest {
            if progress.finished.is_empty() {
                progress.finished = next.into_iter().map(|one| (self.scored(one.total, length), one.tokens)).collect();
            }
            next = vec![];
        }
        progress.open = next;
        Ok(())
    }

    fn scored(&self, total: f64, length: usize) -> f64 {
        total / ((5.0 + length as f64) / 6.0).powf(self.search.length_penalty)
    }

    /// The likeliest tokens with their logits, the likeliest first.
    fn likeliest(&self, row: &[f32], count: usize) -> Vec<(f32, u32)> {
        let mut best: Vec<(f32, u32)> = Vec::with_capacity(count + 1);
        for (token, &logit) in (0..).zip(row) {
            if best.len() == count && best.last().is_some_and(|last| logit <= last.0) {
                continue;
            }
            // Ids that the tokenizer does not know are never written.
            if self.forbidden.get(token as usize).copied().unwrap_or(true) {
                continue;
            }
            let place = best.partition_point(|one| one.0 >= logit);
            best.insert(place, (logit, token));
            best.truncate(count);
        }
        best
    }
}

/// The search for one source.
struct Progress {
    open: Vec<Beginning>,
    /// With their scores.
    finished: Vec<(f64, Vec<u32>)>,
    longest: usize,
}

/// A translation that goes on.
struct Beginning {
    tokens: Vec<u32>,
    /// The logarithm of its probability.
    total: f64,
    written: Written,
}

impl Progress {
    /// The best of all that ended; the first of equal ones.
    fn best(self) -> Translation {
        let first = self.finished.into_iter().reduce(|best, one| if one.0 > best.0 { one } else { best });
        let (score, tokens) = first.unwrap_or_default();
        Translation { tokens, score }
    }
}
