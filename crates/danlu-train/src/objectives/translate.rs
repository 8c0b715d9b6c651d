//! Translation: a text in one language is read, and the same in another is written.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use burn::module::Module;
use danlu_data::parallel::Pair;
use danlu_data::sampler::shuffled;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::{Search, Translator};
use danlu_eval::answers::{Bleu, Chrf, Words};
use danlu_eval::{Better, Measure, Unit, interval, interval_of_sums};
use danlu_models::{Marian, Pairs};

use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;

/// Held-out texts that are translated now and then, for a person to read.
const SAMPLES: usize = 3;
/// Held-out tokens that are read at once.
const READ: usize = 4096;

const BITS: Unit = Unit { name: "translation_bits_per_byte", label: "bits per byte of translations", better: Better::Lower };

/// A pair as tokens of text, without what begins and ends it.
#[derive(Debug, Clone, PartialEq)]
pub struct TranslateRow {
    pub source: Vec<u32>,
    pub target: Vec<u32>,
}

impl TranslateRow {
    /// Tokens that go through the model, the ends included.
    pub fn cost(&self) -> u64 {
        (self.source.len() + self.target.len() + 2) as u64
    }
}

/// The mean negative log-likelihood of translations with smoothed labels ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), 5.4),
/// measured without smoothing; and BLEU and chrF of the translations that a beam search finds.
pub struct Translate {
    train: Vec<TranslateRow>,
    held_out: Vec<(Pair, TranslateRow)>,
    tokenizer: Tokenizer,
    smoothing: f64,
    search: Search,
    words: Words,
    prompts: Vec<String>,
    micro_rows: usize,
    seed: u64,
}

/// Pairs of one piece.
#[derive(Debug, Clone)]
pub struct TranslateBatch {
    /// Places among the training rows.
    rows: Vec<usize>,
    pairs: Pairs,
}

impl Translate {
    /// # Errors
    /// When there is nothing to learn from or to measure with.
    pub fn new(plan: &Plan, train: Vec<TranslateRow>, held_out: Vec<(Pair, TranslateRow)>, tokenizer: Tokenizer) -> Result<Self> {
        ensure!(!train.is_empty(), "there is no translation to learn from");
        ensure!(!held_out.is_empty(), "no translation is held out to measure with; raise `data.held_out` or give more");
        let recipe = &plan.recipe;
        let spec = &recipe.translate;
        Ok(Self {
            train,
            held_out,
            tokenizer,
            smoothing: spec.smoothing,
            search: Search { beam: spec.beam, length_penalty: spec.length_penalty },
            words: Words::of_language(&spec.to),
            prompts: recipe.sample.prompts.clone(),
            micro_rows: plan.micro_rows,
            seed: recipe.seed,
        })
    }

    /// The training row at a position of the run.
    pub fn row(&self, position: u64) -> usize {
        shuffled(position, self.train.len() as u64, self.seed) as usize
    }

    fn pairs<'a>(&self, rows: impl IntoIterator<Item = &'a TranslateRow>) -> Pairs {
        Pairs::new(rows.into_iter().map(|row| (&row.source[..], &row.target[..])), self.tokenizer.end_of_text())
    }

    fn translator(&self, model: Marian) -> Translator {
        Translator::new(Arc::new(model), self.tokenizer.clone(), self.search)
    }

    /// The bits of each translation beside its bytes.
    fn bits(&self, model: &Marian, taken: &[&(Pair, TranslateRow)]) -> Vec<(f64, f64)> {
        let mut found = vec![];
        let mut rest = taken;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = |one: &&&(Pair, TranslateRow)| {
                tokens += one.1.cost() as usize;
                tokens <= READ
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (batch, after) = rest.split_at(count);
            let nll = model.token_nll(&self.pairs(batch.iter().map(|one| &one.1)));
            let mut at = 0;
            for (pair, row) in batch {
                let of_row = &nll[at..at + row.target.len() + 1];
                at += of_row.len();
                let nats: f64 = of_row.iter().map(|&nats| f64::from(nats)).sum();
                found.push((nats / std::f64::consts::LN_2, pair.target.len() as f64));
            }
            rest = after;
        }
        found
    }
}

impl Objective for Translate {
    type Model = Marian;
    type Batch = TranslateBatch;

    fn batch(&self, position: u64) -> Result<TranslateBatch> {
        let rows: Vec<usize> = (position..position + self.micro_rows as u64).map(|position| self.row(position)).collect();
        let pairs = self.pairs(rows.iter().map(|&row| &self.train[row]));
        Ok(TranslateBatch { rows, pairs })
    }

    fn targets(&self, batch: &TranslateBatch) -> usize {
        batch.pairs.targets.len()
    }

    fn loss(&self, model: &Marian, batch: &TranslateBatch) -> Loss {
        model.loss(&batch.pairs, self.smoothing).into()
    }

    fn masks(&self) -> bool {
        true
    }

    /// The source, and behind it the translation, which carries the loss.
    fn show(&self, batch: &TranslateBatch) -> Result<Shown> {
        let TranslateRow { source, target } = &self.train[batch.rows[0]];
        let end = self.tokenizer.end_of_text();
        let read = source.iter().chain([&end]).map(|id| (*id, false));
        let written = target.iter().chain([&end]).map(|id| (*id, true));
        let tokens = read.chain(written).map(|(id, carries)| Ok((id, self.tokenizer.decode(&[id])?, carries)));
        Ok(Shown {
            text: format!("{} → {}", self.tokenizer.decode(source)?, self.tokenizer.decode(target)?),
            tokens: tokens.collect::<Result<_>>()?,
            starts: vec![0, source.len() + 1],
        })
    }

    fn held_out_tokens(&self) -> u64 {
        self.held_out.iter().map(|(_, row)| row.cost()).sum()
    }

    fn measure(&self, model: &Marian, tokens: u64) -> Result<Measure> {
        let begun = Instant::now();
        let model = model.valid();
        let every = (self.held_out_tokens() / tokens.max(1)).max(1) as usize;
        let taken: Vec<&(Pair, TranslateRow)> = self.held_out.iter().step_by(every).collect();
        let bits = self.bits(&model, &taken);
        let (all_bits, bytes) = bits.iter().fold((0.0, 0.0), |(a, b), (bits, bytes)| (a + bits, b + bytes));
        ensure!(all_bits.is_finite(), "the model's likelihood of held-out translations is not a number; training diverged");
        let sources: Vec<&[u32]> = taken.iter().map(|(_, row)| &row.source[..]).collect();
        let translated = self.translator(model).search(&sources)?;
        let (mut bleu, mut chrf) = (vec![], vec![]);
        for ((pair, _), translation) in taken.iter().zip(&translated) {
            let text = self.tokenizer.decode_text(&translation.tokens)?;
            bleu.push(Bleu::of(&text, &pair.target, self.words));
            chrf.push(Chrf::of(&text, &pair.target));
        }
        let (low, high) = interval(&bits);
        let (bleu_low, bleu_high) = interval_of_sums(&bleu, |sum: Bleu| sum.score());
        let written: usize = taken.iter().map(|(_, row)| row.target.len() + 1).sum();
        Ok(Measure {
            unit: BITS,
            value: all_bits / bytes,
            low,
            high,
            items: taken.len() as u64,
            tokens: taken.iter().map(|(_, row)| row.cost()).sum(),
            bytes: bytes as u64,
            seconds: begun.elapsed().as_secs_f64(),
            others: vec![
                ("bleu", bleu.iter().copied().sum::<Bleu>().score()),
                ("bleu_low", bleu_low),
                ("bleu_high", bleu_high),
                ("chrf", chrf.iter().copied().sum::<Chrf>().score()),
                ("nats_per_token", all_bits * std::f64::consts::LN_2 / written as f64),
            ],
        })
    }

    /// Translations of the recipe's prompts, or of held-out texts with what they should be.
    fn samples(&self, model: &Marian, _: u64) -> Result<Vec<Sample>> {
        let every = (self.held_out.len() / SAMPLES).max(1);
        let held_out = self.held_out.iter().step_by(every).take(SAMPLES).map(|(pair, _)| (&pair.source, Some(&pair.target)));
        let given = self.prompts.iter().map(|text| (text, None));
        let asked: Vec<(&String, Option<&String>)> = if self.prompts.is_empty() { held_out.collect() } else { given.collect() };
        let texts: Vec<&str> = asked.iter().map(|(text, _)| text.as_str()).collect();
        let translated = self.translator(model.valid()).translate(&texts)?;
        let one = |((text, wanted), translation): ((&String, Option<&String>), String)| Sample {
            prompt: format!("{text}\n→ "),
            text: wanted.map_or(translation.clone(), |wanted| format!("{translation} (is {wanted})")),
        };
        Ok(asked.into_iter().zip(translated).map(one).collect())
    }
}
