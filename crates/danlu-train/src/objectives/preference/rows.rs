//! What is learned from: preferences as tokens.

use anyhow::{Result, bail, ensure};
use danlu_data::preference::{Answer, EncodedJudged, EncodedPair};
use danlu_data::tokenizer::Tokenizer;

use crate::objectives::Shown;
use crate::recipe::PreferenceLoss;

/// Encoded preferences of one kind.
#[derive(Debug, Clone)]
pub enum Preferences {
    Pairs(Vec<EncodedPair>),
    Judged(Vec<EncodedJudged>),
}

impl Preferences {
    pub fn len(&self) -> usize {
        match self {
            Self::Pairs(pairs) => pairs.len(),
            Self::Judged(judged) => judged.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of a pair the chosen answer and the rejected one.
    pub(super) fn answers(&self, row: usize) -> Vec<&Answer> {
        match self {
            Self::Pairs(pairs) => vec![&pairs[row].chosen, &pairs[row].rejected],
            Self::Judged(judged) => vec![&judged[row].answer],
        }
    }

    /// Tokens that go through the model for a row.
    fn tokens(&self, row: usize) -> usize {
        self.answers(row).iter().map(|answer| answer.ids.len() - 1).sum()
    }

    /// The tokens of the first row's first answer, its prompt included.
    pub fn first(&self) -> Option<&[u32]> {
        (!self.is_empty()).then(|| &self.answers(0)[0].ids[..])
    }

    /// That the loss can learn from these, `rows` at a time, and be measured on `held_out`.
    ///
    /// # Errors
    /// When they are of another kind than the loss learns from, or there are none.
    pub fn check(&self, held_out: &Preferences, loss: PreferenceLoss, rows: usize) -> Result<()> {
        ensure!(!self.is_empty(), "there is no preference to learn from");
        ensure!(!held_out.is_empty(), "no preference is held out to measure with; raise `data.held_out` or give more");
        match (self, loss) {
            (Self::Judged(judged), PreferenceLoss::Kto) => {
                let good = judged.iter().filter(|one| one.good).count();
                ensure!(
                    good > 0 && good < judged.len(),
                    "all {} answers are judged {}; kto learns from good and bad ones",
                    judged.len(),
                    if good > 0 { "good" } else { "bad" }
                );
                ensure!(rows > 1, "kto compares the answers of an update with each other; set `batch.examples` to 2 or more");
            }
            (Self::Judged(_), loss) => bail!(
                "`preference.loss` is \"{}\", which learns from pairs, and the data has single answers; use \"kto\"",
                loss.name()
            ),
            (Self::Pairs(_), PreferenceLoss::Kto) => bail!("kto learns from judged answers; a pair is two of them"),
            (Self::Pairs(_), _) => {}
        }
        Ok(())
    }

    /// Tokens of all rows.
    pub fn all_tokens(&self) -> u64 {
        (0..self.len()).map(|row| self.tokens(row) as u64).sum()
    }
}

/// Answers as the model sees them, one after the other; `carries` says which of an answer's tokens carry loss.
pub fn shown(tokenizer: &Tokenizer, answers: Vec<&Answer>, carries: impl Fn(&Answer, usize) -> bool) -> Result<Shown> {
    let mut shown = Shown { text: String::new(), tokens: vec![], starts: vec![] };
    for answer in answers {
        shown.starts.push(shown.tokens.len());
        shown.text.push_str(&tokenizer.decode(&answer.ids)?);
        for (i, &id) in answer.ids.iter().enumerate() {
            shown.tokens.push((id, tokenizer.decode(&[id])?, carries(answer, i)));
        }
    }
    Ok(shown)
}
