use std::time::Instant;

use anyhow::{Result, ensure};
use danlu_data::chat::{Encoded, Encoder};
use danlu_data::preference::{Answer, EncodedPair, Pair};

use crate::scores::Scores;
use crate::sets::{Metric, Subject, answer_bits};

/// How often the model finds the better of two answers the likelier one, by bits per token, so that a longer answer is not the less likely for
/// its length. A tie counts half. Other than the accuracy that learning from preferences reports, this needs no start model to compare with, so
/// that every model of a line can be measured.
///
/// # Errors
/// When there is no pair, the template refuses one, or an answer with its prompt is longer than the model's context.
pub(crate) fn preferred(subject: &Subject, encoder: &Encoder, pairs: &[Pair]) -> Result<Scores> {
    let start = Instant::now();
    let context = subject.decoder.context();
    let (mut items, mut tokens) = (Vec::new(), 0);
    for pair in pairs {
        let EncodedPair { chosen, rejected, .. } = EncodedPair::new(encoder, pair)?;
        let longest = chosen.ids.len().max(rejected.ids.len());
        ensure!(longest <= context, "an answer with its prompt has {longest} tokens, and the model's context {context}");
        tokens += (chosen.ids.len() + rejected.ids.len()) as u64;
        let bits = |answer: Answer| {
            let (prompt, length) = (answer.prompt, answer.answer_len());
            let loss = (0..answer.ids.len()).map(|i| i >= prompt).collect();
            answer_bits(subject.decoder, &Encoded { ids: answer.ids, loss, bytes: 0 }).0 / length as f64
        };
        let (better, worse) = (bits(chosen), bits(rejected));
        ensure!(better.is_finite() && worse.is_finite(), "the model's likelihood of an answer is not a number");
        items.push((if better == worse { 0.5 } else { f64::from(better < worse) }, 1.0));
    }
    ensure!(!items.is_empty(), "it has no items");
    let unit = Metric::PreferenceAccuracy.unit();
    Ok(Scores { unit, items, tokens, bytes: 0, seconds: start.elapsed().as_secs_f64() })
}
