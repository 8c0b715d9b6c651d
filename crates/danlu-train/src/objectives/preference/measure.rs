//! How often the model prefers what people prefer.

use std::time::Instant;

use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use danlu_eval::{Better, Measure, Unit, interval};
use danlu_models::Decoder;

use super::{Answers, Packed, Preference, Preferences, judged, numbers, pairs};

/// The share of held-out preferences on the right side: of pairs whose chosen answer has the larger reward, of judged answers whose reward
/// has the right sign. A tie counts half; so a model that compares with its start begins at a half.
pub const PREFERENCE_ACCURACY: Unit = Unit { name: "preference_accuracy", label: "preference accuracy", better: Better::Higher };

impl Preference {
    /// Measures on about `tokens` tokens of the held-out rows, evenly taken. `model` has no autodiff.
    pub(super) fn measured(&self, model: &Decoder, tokens: u64) -> Result<Measure> {
        let begun = Instant::now();
        let every = (self.held_out.all_tokens() / tokens.max(1)).max(1) as usize;
        let mut hits = vec![];
        let mut others = Others::default();
        let mut read = 0;
        for row in (0..self.held_out.len()).step_by(every) {
            // As the start model reads them: then an unchanged model has ties, and not chance.
            let packed = Packed::new(self.held_out.answers(row));
            let policy = packed.log_probs_of(model);
            let reference = match &self.reference {
                Some(reference) => reference.row(self.train.len() + row, self.held_out.answers(row)).to_vec(),
                None => vec![],
            };
            read += packed.tokens() as u64;
            let side = |i: usize| Answers {
                policy: Tensor::from_data(TensorData::new(vec![policy[i]], [1]), &Device::flex()),
                reference: reference.get(i).copied().into_iter().collect(),
                lengths: vec![packed.lengths()[i]],
            };
            let reward = |answers: &Answers| numbers(answers.rewards(&self.spec))[0];
            let (margin, loss) = match &self.held_out {
                Preferences::Pairs(_) => {
                    let (chosen, rejected) = (side(0), side(1));
                    others.likelier += f64::from(policy[0] > policy[1]);
                    others.likelier_per_token += f64::from(policy[0] / chosen.lengths[0] > policy[1] / rejected.lengths[0]);
                    (reward(&chosen) - reward(&rejected), pairs(&self.spec, &chosen, &rejected))
                }
                Preferences::Judged(rows) => {
                    let (answer, good) = (side(0), rows[row].good);
                    let reward = reward(&answer);
                    (if good { reward } else { -reward }, judged(&self.spec, &answer, &[good], 0.0))
                }
            };
            ensure!(margin.is_finite(), "the model's likelihood of a held-out answer is not a number; training diverged");
            let hit = if margin == 0.0 { 0.5 } else { f64::from(margin > 0.0) };
            hits.push((hit, 1.0));
            others.margin += margin;
            others.loss += numbers(loss)[0];
        }
        let count = hits.len() as f64;
        let (low, high) = interval(&hits);
        let mut named = vec![("margin", others.margin / count), ("held_out_loss", others.loss / count)];
        if let Preferences::Pairs(_) = &self.held_out {
            named.push(("likelier", others.likelier / count));
            named.push(("likelier_per_token", others.likelier_per_token / count));
        }
        Ok(Measure {
            unit: PREFERENCE_ACCURACY,
            value: hits.iter().map(|hit| hit.0).sum::<f64>() / count,
            low,
            high,
            items: hits.len() as u64,
            tokens: read,
            bytes: 0,
            seconds: begun.elapsed().as_secs_f64(),
            others: named,
        })
    }
}

/// Sums over rows.
#[derive(Default)]
struct Others {
    margin: f64,
    loss: f64,
    /// Pairs whose chosen answer the model finds likelier, whole and per token: what it would prefer by itself, without a start to compare
    /// with.
    likelier: f64,
    likelier_per_token: f64,
}
