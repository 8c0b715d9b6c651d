//! Instruction tuning: the assistant's tokens of conversations, given everything before them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::module::Module;
use danlu_data::chat::{Conversation, Encoded, Encoder, PackedMixture};
use danlu_data::sampler::TokenBatch;
use danlu_engine::{Generator, Sampling};
use danlu_eval::{ANSWER_BITS_PER_BYTE, Measure, answer_bits, interval};
use danlu_models::{Batch, Decoder};

use super::{Loss, Objective, Sample, Shown};
use crate::auto::Plan;
use crate::recipe::SampleSpec;

/// Prompts that are answered now and then when the recipe names none.
const PROMPTS: usize = 3;

/// The mean negative log-likelihood of what the assistant says, ends of turns included. Conversations share rows and do not see each other.
pub struct Sft {
    rows: PackedMixture,
    held_out: Vec<(Conversation, Encoded)>,
    encoder: Encoder,
    micro_rows: usize,
    row_len: usize,
    recompute: bool,
    sample: SampleSpec,
    seed: u64,
}

impl Sft {
    /// Held-out conversations longer than the model's context are left out of the measure.
    pub fn new(plan: &Plan, rows: impl Into<PackedMixture>, held_out: Vec<(Conversation, Encoded)>, encoder: Encoder) -> Self {
        let held_out =
            held_out.into_iter().filter(|(_, one)| one.ids.len() <= plan.row_len && one.loss.contains(&true)).collect();
        Sft {
            rows: rows.into(),
            held_out,
            encoder,
            micro_rows: plan.micro_rows,
            row_len: plan.row_len,
            recompute: plan.recipe.batch.recompute,
            sample: plan.recipe.sample.clone(),
            seed: plan.recipe.seed,
        }
    }

    /// The prompts to answer: the recipe's, or the openings of held-out conversations.
    fn prompts(&self) -> Result<Vec<(String, Vec<u32>)>> {
        use danlu_data::chat::Message;
        if !self.sample.prompts.is_empty() {
            let one = |text: &String| Ok((text.clone(), self.encoder.prompt(&[Message::user(text.as_str())], &[])?));
            return self.sample.prompts.iter().map(one).collect();
        }
        let every = (self.held_out.len() / PROMPTS).max(1);
        let openings = self.held_out.iter().step_by(every).take(PROMPTS).map(|(conversation, _)| {
            let first = conversation.messages.iter().take_while(|message| message.role != danlu_data::chat::Role::Assistant);
            let messages: Vec<Message> = first.cloned().collect();
            let shown = messages.last().map_or("", |message| message.text()).to_string();
            Ok((shown, self.encoder.prompt(&messages, &conversation.tools)?))
        });
        openings.collect()
    }
}

impl Objective for Sft {
    type Model = Decoder;
    type Batch = Batch;

    fn batch(&self, position: u64) -> Result<Batch> {
        let TokenBatch { tokens, targets, rows, row_len, starts } = self.rows.batch(position, self.micro_rows);
        Ok(Batch::new(tokens, targets, rows, row_len, starts))
    }

    fn targets(&self, batch: &Batch) -> usize {
        batch.targets.iter().filter(|&&target| target != danlu_ops::IGNORE).count()
    }

    fn loss(&self, model: &Decoder, batch: &Batch) -> Loss {
        if self.recompute { model.loss_recomputed(batch).into() } else { model.loss(batch).into() }
    }

    fn masks(&self) -> bool {
        true
    }

    /// A token is shown to carry loss where predicting it does: the target of the token before.
    fn show(&self, batch: &Batch) -> Result<Shown> {
        let row = self.row_len.min(batch.ids.len());
        let ids = &batch.ids[..row];
        let tokenizer = self.encoder.tokenizer();
        let carries = |i: usize| i > 0 && batch.targets[i - 1] != danlu_ops::IGNORE;
        let tokens = ids.iter().enumerate().map(|(i, &id)| Ok((id, tokenizer.decode(&[id])?, carries(i))));
        Ok(Shown {
            text: tokenizer.decode(ids)?,
            tokens: tokens.collect::<Result<_>>()?,
            starts: batch.segments.iter().map(|segment| segment.start).take_while(|&start| start < row).collect(),
        })
    }

    fn held_out_tokens(&self) -> u64 {
        self.held_out.iter().map(|(_, one)| one.ids.len() as u64).sum()
    }

    fn measure(&self, model: &Decoder, tokens: u64) -> Result<Measure> {
        let start = Instant::now();
        let model = model.valid();
        let every = (self.held_out_tokens() / tokens.max(1)).max(1) as usize;
        let (mut pairs, mut total, mut carried) = (Vec::new(), 0u64, 0u64);
        for (_, one) in self.held_out.iter().step_by(every) {
            total += one.ids.len() as u64;
            carried += one.loss.iter().filter(|loss| **loss).count() as u64;
            pairs.push(answer_bits(&model, one));
        }
        let (bits, bytes) = pairs.iter().fold((0.0, 0.0), |(a, b), (bits, bytes)| (a + bits, b + bytes));
        anyhow::ensure!(
            !pairs.is_empty(),
            "no conversation is held out to measure with; raise `data.held_out` or add conversations"
        );
        anyhow::ensure!(bits.is_finite(), "the model's likelihood of the held-out answers is not a number; training diverged");
        let (low, high) = interval(&pairs);
        Ok(Measure {
            unit: ANSWER_BITS_PER_BYTE,
            value: bits / bytes,
            low,
            high,
            items: pairs.len() as u64,
            tokens: total,
            bytes: bytes as u64,
            seconds: start.elapsed().as_secs_f64(),
            others: vec![("nats_per_token", bits * std::f64::consts::LN_2 / carried.max(1) as f64)],
        })
    }

    fn samples(&self, model: &Decoder, draw: u64) -> Result<Vec<Sample>> {
        let generator =
            Generator::new(Arc::new(model.valid()), self.encoder.tokenizer().clone()).with_end(self.encoder.turn_end());
        let spec = &self.sample;
        let one = |(i, (shown, prompt)): (usize, (String, Vec<u32>))| {
            let sampling = Sampling {
                temperature: spec.temperature as f32,
                top_p: spec.top_p as f32,
                max_tokens: spec.tokens,
                seed: self.seed ^ (draw << 16) ^ i as u64,
                ..Sampling::default()
            };
            let mut text = String::new();
            generator.generate_from(&prompt, &sampling, |piece| {
                text.push_str(piece);
                ControlFlow::Continue(())
            })?;
            Ok(Sample { prompt: format!("{shown}\n"), text })
        };
        self.prompts()?.into_iter().enumerate().map(one).collect::<Result<_>>().context("a sample could not be written")
    }
}
