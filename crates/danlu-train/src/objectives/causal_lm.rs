//! Next-token prediction on packed documents.

use std::sync::Arc;

use anyhow::{Context, Result};
use burn::module::Module;
use danlu_data::sampler::{Mixture, Sampler, TokenBatch};
use danlu_data::shards::TokenSplit;
use danlu_data::tokenizer::Tokenizer;
use danlu_engine::{Generator, Sampling};
use danlu_eval::{Document, Limits, Measure, bits_per_byte, measure};
use danlu_models::{Batch, Decoder};

use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;
use crate::recipe::SampleSpec;

/// Words of a held-out document that serve as a prompt.
const PROMPT_WORDS: usize = 4;
/// Tokens that these words may have; and no more than half of what the model can read, so that it can go on.
const PROMPT_TOKENS: usize = 32;
/// Prompts taken from held-out documents when the recipe names none.
const PROMPTS: usize = 3;
/// Documents that a measure reads at least, however few tokens it is asked for: a few long ones would say more of themselves than of the text.
const LEAST_DOCUMENTS: u64 = 16;

/// The objective of pretraining: the mean negative log-likelihood of every next token, documents not seeing each other.
pub struct CausalLm {
    rows: Mixture,
    held_out: Vec<TokenSplit>,
    tokenizer: Tokenizer,
    row_len: usize,
    recompute: bool,
    sample: SampleSpec,
    seed: u64,
}

impl CausalLm {
    /// `train` are splits with their shares of the rows; `held_out` is measured on.
    ///
    /// # Errors
    /// When a source has no text to train on.
    pub fn new(plan: &Plan, train: &[(TokenSplit, f64)], held_out: Vec<TokenSplit>, tokenizer: Tokenizer) -> Result<Self> {
        let seed = plan.recipe.seed;
        let samplers =
            train.iter().map(|(train, weight)| Ok((Sampler::new(train, plan.row_len, plan.micro_rows, seed)?, *weight)));
        let mut sample = plan.recipe.sample.clone();
        if sample.prompts.is_empty() {
            sample.prompts = first_words(&held_out, &tokenizer, PROMPT_TOKENS.min(plan.row_len / 2))?;
        }
        Ok(CausalLm {
            rows: Mixture::new(samplers.collect::<Result<_>>()?, seed)?,
            held_out,
            tokenizer,
            row_len: plan.row_len,
            recompute: plan.recipe.batch.recompute,
            sample,
            seed,
        })
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids)
    }
}

/// The beginnings of a few held-out documents, evenly spread, of `most` tokens each.
fn first_words(held_out: &[TokenSplit], tokenizer: &Tokenizer, most: usize) -> Result<Vec<String>> {
    let mut prompts = Vec::new();
    for split in held_out {
        let wanted = PROMPTS.div_ceil(held_out.len()).min(split.documents());
        for i in 0..wanted {
            let tokens = split.document(i * split.documents() / wanted)?;
            let text = tokenizer.decode_text(tokens.get(1..(1 + most).min(tokens.len())).unwrap_or_default())?;
            let words: Vec<&str> = text.split_whitespace().take(PROMPT_WORDS).collect();
            prompts.push(words.join(" "));
        }
    }
    Ok(prompts)
}

impl Objective for CausalLm {
    type Model = Decoder;
    type Batch = Batch;

    fn batch(&self, position: u64) -> Result<Batch> {
        let TokenBatch { tokens, targets, rows, row_len, starts } = self.rows.batch(position)?;
        Ok(Batch::new(tokens, targets, rows, row_len, starts))
    }

    fn targets(&self, batch: &Batch) -> usize {
        batch.targets.iter().filter(|&&target| target != danlu_ops::IGNORE).count()
    }

    fn loss(&self, model: &Decoder, batch: &Batch) -> Loss {
        if self.recompute { model.loss_recomputed(batch).into() } else { model.loss(batch).into() }
    }

    fn show(&self, batch: &Batch) -> Result<Shown> {
        let row = self.row_len.min(batch.ids.len());
        let ids = &batch.ids[..row];
        let tokens = ids.iter().zip(batch.targets.iter());
        Ok(Shown {
            text: self.decode(ids)?,
            tokens: tokens
                .map(|(&id, &target)| Ok((id, self.decode(&[id])?, target != danlu_ops::IGNORE)))
                .collect::<Result<_>>()?,
            starts: batch.segments.iter().map(|segment| segment.start).take_while(|&start| start < row).collect(),
        })
    }

    fn held_out_tokens(&self) -> u64 {
        self.held_out.iter().map(TokenSplit::len).sum()
    }

    fn measure(&self, model: &Decoder, tokens: u64) -> Result<Measure> {
        let model = model.valid();
        let documents: u64 = self.held_out.iter().map(|split| split.documents() as u64).sum();
        let tokens = tokens.max(LEAST_DOCUMENTS * self.held_out_tokens() / documents.max(1));
        let limits = Limits { tokens: Some(tokens), ..Limits::default() };
        if let [split] = &self.held_out[..] {
            return bits_per_byte(&model, split, limits);
        }
        let every = (self.held_out_tokens() / tokens.max(1)).max(1) as usize;
        let mut documents = Vec::new();
        for split in &self.held_out {
            for i in (0..split.documents()).step_by(every) {
                documents.push(Document { tokens: split.document(i)?.into(), bytes: split.document_bytes(i) });
            }
        }
        measure(|batch| model.token_nll(batch), model.context(), documents.into_iter(), Limits::default())
    }

    fn samples(&self, model: &Decoder, draw: u64) -> Result<Vec<Sample>> {
        let generator = Generator::new(Arc::new(model.valid()), self.tokenizer.clone());
        let spec = &self.sample;
        let one = |(i, prompt): (usize, &String)| {
            let sampling = Sampling {
                temperature: spec.temperature as f32,
                top_p: spec.top_p as f32,
                max_tokens: spec.tokens,
                seed: self.seed ^ (draw << 16) ^ i as u64,
                ..Sampling::default()
            };
            let mut text = String::new();
            generator.generate(prompt, &sampling, |piece| {
                text.push_str(piece);
                std::ops::ControlFlow::Continue(())
            })?;
            Ok(Sample { prompt: prompt.clone(), text })
        };
        spec.prompts.iter().enumerate().map(one).collect::<Result<_>>().context("a sample could not be written")
    }
}
