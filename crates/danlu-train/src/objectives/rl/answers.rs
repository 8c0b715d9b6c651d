//! Answers that were drawn, and how they lie in rows of tokens.

use std::ops::Range;

use danlu_models::{Batch, Decoder};
use danlu_ops::IGNORE;
use danlu_rewards::Score;

/// An answer to a question, with what it is worth.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The question's tokens, then the answer's.
    pub ids: Vec<u32>,
    /// How many of them are the question's.
    pub prompt: usize,
    /// The log-probability of each of the answer's tokens when it was drawn.
    pub log_probs: Vec<f32>,
    /// False when it was cut off.
    pub ended: bool,
    pub score: Score,
}

impl Drawn {
    /// Tokens of the answer, the one that ended it included.
    pub fn answer_len(&self) -> usize {
        self.ids.len() - self.prompt
    }

    /// Tokens that go through the model.
    fn read(&self) -> usize {
        self.ids.len() - 1
    }
}

/// Answers one after the other in one row, none seeing another.
#[derive(Debug, Clone)]
pub struct Row {
    pub batch: Batch,
    /// Where each answer's tokens are predicted.
    pub spans: Vec<Range<usize>>,
}

impl Row {
    pub fn new(answers: &[&Drawn]) -> Self {
        let (mut ids, mut targets, mut starts, mut spans) = (vec![], vec![], vec![], vec![]);
        for answer in answers {
            let begin = ids.len();
            starts.push(begin as u32);
            // The last token is only predicted.
            ids.extend_from_slice(&answer.ids[..answer.read()]);
            targets.extend((1..answer.ids.len()).map(|i| if i < answer.prompt { IGNORE } else { answer.ids[i] }));
            spans.push(begin + answer.prompt - 1..ids.len());
        }
        let tokens = ids.len();
        Self { batch: Batch::new(ids, targets, 1, tokens, starts).sharing(), spans }
    }

    pub fn tokens(&self) -> usize {
        self.batch.ids.len()
    }

    /// Numbers of each answer's tokens where those are predicted, zero elsewhere, `[tokens]`.
    pub fn spread<'a>(&self, each: impl IntoIterator<Item = &'a [f32]>) -> Vec<f32> {
        let mut all = vec![0.0; self.tokens()];
        for (span, numbers) in self.spans.iter().zip(each) {
            all[span.clone()].copy_from_slice(numbers);
        }
        all
    }

    /// The numbers of each answer's tokens.
    pub fn each(&self, all: &[f32]) -> Vec<Vec<f32>> {
        self.spans.iter().map(|span| all[span.clone()].to_vec()).collect()
    }
}

/// Which answers share a row of about `tokens` tokens, at most an eighth more, in their order: of about equally many each, so that the last is
/// not a small one, for which all weights are read as for a large one, and answers to one question stay together where they can.
pub fn pieces(answers: &[&Drawn], tokens: usize) -> Vec<Range<usize>> {
    let total: usize = answers.iter().map(|answer| answer.read()).sum();
    let count = total.div_ceil(tokens.max(1)).min(answers.len());
    let mut found: Vec<Range<usize>> = vec![];
    let (mut begin, mut before, mut filled) = (0, 0, 0);
    for (i, answer) in answers.iter().enumerate() {
        let end = total * (found.len() + 1) / count;
        let past_its_share = before + filled + answer.read() / 2 >= end;
        if i > begin && (past_its_share || filled + answer.read() > tokens + tokens / 8) {
            found.push(begin..i);
            (begin, before, filled) = (i, before + filled, 0);
        }
        filled += answer.read();
    }
    if begin < answers.len() {
        found.push(begin..answers.len());
    }
    found
}

/// The log-probability that `model`, which has no autodiff, gives each token of each answer.
pub fn log_probs(model: &Decoder, answers: &[&Drawn], tokens: usize) -> Vec<Vec<f32>> {
    let rows = pieces(answers, tokens).into_iter().map(|piece| Row::new(&answers[piece]));
    let one = |row: Row| {
        let nll = model.token_nll(&row.batch);
        let log_probs: Vec<f32> = nll.iter().map(|x| -x).collect();
        row.each(&log_probs)
    };
    rows.flat_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(prompt: usize, answer: usize) -> Drawn {
        let score = Score { total: 0.0, each: vec![] };
        Drawn { ids: (0..(prompt + answer) as u32).collect(), prompt, log_probs: vec![0.0; answer], ended: true, score }
    }

    #[test]
    fn every_token_of_an_answer_is_predicted_once() {
        let (a, b) = (drawn(3, 2), drawn(1, 4));
        let row = Row::new(&[&a, &b]);
        assert_eq!(row.spans, [2..4, 4..8]);
        assert_eq!(row.batch.targets.to_vec(), [IGNORE, IGNORE, 3, 4, 1, 2, 3, 4]);
        assert_eq!(row.spread([&[1.0, 2.0][..], &[3.0; 4]]), [0.0, 0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0]);
        assert_eq!(row.each(&row.spread([&[1.0, 2.0][..], &[3.0; 4]]))[0], [1.0, 2.0]);
    }

    #[test]
    fn pieces_hold_whole_answers() {
        let all = [drawn(3, 2), drawn(1, 4), drawn(9, 9), drawn(2, 2)];
        let all: Vec<&Drawn> = all.iter().collect();
        assert_eq!(pieces(&all, 8), [0..2, 2..3, 3..4]);
        assert_eq!(pieces(&all, 1000), vec![0..4]);
        assert_eq!(pieces(&[], 8), Vec::<Range<usize>>::new());
        let three = [drawn(300, 301), drawn(300, 301), drawn(300, 301)];
        let three: Vec<&Drawn> = three.iter().collect();
        assert_eq!(pieces(&three, 1024), [0..1, 1..2, 2..3], "two have more than an eighth too many");
    }

    #[test]
    fn answers_to_one_question_stay_together_though_questions_differ_in_length() {
        let all: Vec<Drawn> = [42, 36, 38, 36].iter().flat_map(|&prompt| (0..8).map(move |_| drawn(prompt, 64))).collect();
        let all: Vec<&Drawn> = all.iter().collect();
        assert_eq!(pieces(&all, 8 * (38 + 64)), [0..8, 8..16, 16..24, 24..32]);
    }
}
