//! Guessing what a continuation will say, so that one step of the model reads several tokens of it: speculative decoding
//! ([Leviathan et al. 2023](https://arxiv.org/abs/2211.17192)). Every token is still drawn from the model's own logits, with its own
//! settings and seed; a guess only says which logits are computed ahead, so that texts are the same to the bit, and only come sooner.

use std::fmt;
use std::sync::Arc;

use anyhow::{Result, ensure};
use danlu_models::{Decoder, Sequence};

use super::writing::Writing;
use crate::Generator;

/// Rows that a step reads for hardly more than one, since it waits for the weights: where so many are written at once, nothing is guessed.
const ROWS: usize = 8;
/// The most tokens that are guessed of one continuation. With the token before them they are fewer than the rows for which attention makes
/// its sums in another order.
const MOST: usize = ROWS - 2;
/// Tokens of a text that are looked for in what came before, most at first.
const LOOKED_FOR: std::ops::RangeInclusive<usize> = 2..=3;
/// A draft model reads prompts this many tokens at a time.
const PREFILL: usize = 256;

/// Who guesses.
#[derive(Clone, Default)]
pub enum Draft {
    /// Nobody.
    #[default]
    Off,
    /// What followed when the last tokens stood in the text before ([Saxena 2023](https://github.com/apoorvumang/prompt-lookup-decoding)):
    /// costs nothing, and is right where a text repeats itself or its prompt, as in code and summaries.
    Lookup,
    /// A smaller model with the same tokenizer.
    Model(Arc<Generator>),
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::Lookup => "Lookup",
            Self::Model(_) => "Model",
        })
    }
}

impl Draft {
    /// # Errors
    /// When the draft model's tokens are others than the model's.
    pub(super) fn check(&self, generator: &Generator) -> Result<()> {
        let Self::Model(draft) = self else { return Ok(()) };
        let (theirs, ours) = (draft.tokenizer(), generator.tokenizer());
        ensure!(
            theirs.hash() == ours.hash(),
            "the draft model reads with another tokenizer, of {} tokens, than the model, of {}: what it guesses would be other words",
            theirs.vocab_size(),
            ours.vocab_size()
        );
        ensure!(draft.decoder().prompt_len() == 0, "a model with a tuned prompt cannot be a draft model");
        Ok(())
    }

    /// What a continuation needs to be guessed at.
    pub(super) fn sequence(&self) -> Option<Sequence> {
        match self {
            Self::Model(draft) => Some(Sequence::holding(draft.decoder(), draft.decoder().context(), draft.kv())),
            _ => None,
        }
    }

    /// Sets what each continuation reads next: its last token and the guesses of those after it.
    pub(super) fn guess(&self, writing: &mut [Writing]) {
        let each = (ROWS / writing.len().max(1)).saturating_sub(1).min(MOST);
        for one in writing.iter_mut() {
            let guesses = if matches!(self, Self::Lookup) { lookup(&one.text_so_far, each.min(one.room())) } else { &[] };
            one.next = one.text_so_far.last().into_iter().chain(guesses).copied().collect();
        }
        if let Self::Model(draft) = self {
            let mut writing: Vec<&mut Writing> = writing.iter_mut().filter(|one| one.room() > 0).collect();
            by_model(draft.decoder(), &mut writing, each);
        }
    }
}

/// What followed the last time the text's last tokens stood in it, at most `most` tokens.
fn lookup(text: &[u32], most: usize) -> &[u32] {
    for n in LOOKED_FOR.rev() {
        let Some(start) = text.len().checked_sub(n) else { continue };
        if let Some(at) = (0..start).rev().find(|&at| text[at..].starts_with(&text[start..])) {
            return &text[at + n..text.len().min(at + n + most)];
        }
    }
    &[]
}

/// The draft model's likeliest next tokens, `most` of each continuation that has room for them: a step of the draft model for each of them.
fn by_model(draft: &Decoder, writing: &mut Vec<&mut Writing>, most: usize) {
    writing.retain(|one| one.text_so_far.len() + most <= draft.context());
    for one in writing.iter_mut() {
        catch_up(draft, one);
    }
    for guessed in 0..most {
        writing.retain(|one| guessed < one.room());
        let (mut parts, mut sequences): (Vec<&[u32]>, Vec<&mut Sequence>) = (vec![], vec![]);
        for Writing { draft: sequence, text_so_far, next, .. } in writing.iter_mut().map(|one| &mut **one) {
            let Some(sequence) = sequence else { continue };
            parts.push(if guessed == 0 { &text_so_far[sequence.len()..] } else { &next[guessed..] });
            sequences.push(sequence);
        }
        if parts.is_empty() {
            return;
        }
        let logits = draft.step_many(&parts, &mut sequences);
        let vocabulary = logits.len() / parts.len();
        for (one, logits) in writing.iter_mut().zip(logits.chunks_exact(vocabulary)) {
            one.next.push(likeliest(logits));
        }
    }
}

/// Reads what the draft model has not read yet, but for the end.
fn catch_up(draft: &Decoder, one: &mut Writing) {
    let Writing { draft: Some(sequence), text_so_far, .. } = one else { return };
    while text_so_far.len() - sequence.len() > PREFILL {
        let at = sequence.len();
        draft.step_many(&[&text_so_far[at..at + PREFILL]], &mut [sequence]);
    }
}

/// The first of the likeliest; logits that are no numbers make a wrong guess, which costs time and nothing else.
fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &x)| if x > best.1 { (i, x) } else { best });
    best.0 as u32
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn what_followed_the_last_time_is_guessed() {
        let text = [1, 2, 3, 4, 5, 9, 2, 3, 4, 6, 7, 2, 3, 4];
        assert_eq!(lookup(&text, 6), [6, 7, 2, 3, 4], "the latest place where three tokens stood");
        assert_eq!(lookup(&text, 2), [6, 7]);
        assert_eq!(lookup(&[5, 8, 1, 2, 9, 1, 2], 6), [9, 1, 2], "or where two did");
        assert_eq!(lookup(&[7, 7, 7], 6), [7], "where a text repeats one token");
        for nothing in [&[][..], &[1], &[1, 2], &[1, 2, 3, 4]] {
            assert!(lookup(nothing, 6).is_empty(), "{nothing:?}");
        }
    }
}
