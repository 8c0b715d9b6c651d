//! The unigram language model's pieces (Kudo, 2018), by the library's trainer made deterministic.

use anyhow::{Context, Result, anyhow, bail};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};

/// Pieces with their log probabilities in the order of ids: `special`, then the learnt ones, likeliest first.
///
/// The library's result depends on the order of the words, on how sums are divided among threads, and on hash order where letters it had
/// pruned are put back. So the words come sorted, the trainer runs on one thread, and the letters put back are numbered anew.
pub(super) fn learn(
    special: &[String],
    alphabet: Vec<String>,
    words: Vec<(String, u64)>,
    vocab_size: usize,
) -> Result<Vec<(String, f64)>> {
    let words: Vec<_> = words.into_iter().map(|(word, count)| (word, u32::try_from(count).unwrap_or(u32::MAX))).collect();
    let trainer = UnigramTrainer::builder()
        .show_progress(false)
        .vocab_size(u32::try_from(vocab_size - special.len()).context("the vocabulary is too large")?)
        .initial_alphabet(alphabet.iter().flat_map(|letter| letter.chars()).collect())
        .build()
        .map_err(|e| anyhow!("cannot set up the unigram trainer: {e}"))?;
    let mut model = Unigram::default();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| trainer.do_train(words, &mut model)).map_err(|e| anyhow!("the unigram trainer failed: {e}"))?;
    let mut pieces: Vec<(String, f64)> = model.iter().cloned().collect();
    renumber_letters(&mut pieces);
    pieces.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if pieces.len() + special.len() > vocab_size {
        bail!(
            "the unigram model needs {} tokens for this text; a vocabulary of {vocab_size} is too small",
            pieces.len() + special.len()
        );
    }
    Ok(special.iter().map(|token| (token.clone(), 0.0)).chain(pieces).collect())
}

/// The library gives letters that fell out of the model the scores `least`, `least + STEP`, `least + 2 STEP` … in hash order. The set of those
/// scores is fixed; here they are dealt out again in the order of the letters.
fn renumber_letters(pieces: &mut [(String, f64)]) {
    const STEP: f64 = 0.0001;
    let is_letter = |piece: &str| piece.chars().nth(1).is_none();
    let letters = pieces.iter().filter(|(piece, _)| is_letter(piece)).count();
    let least = pieces.iter().map(|&(_, score)| score).fold(f64::INFINITY, f64::min);
    let highest = least + STEP * letters as f64;
    let mut low: Vec<_> = pieces.iter_mut().filter(|(piece, score)| is_letter(piece) && *score <= highest).collect();
    let mut scores: Vec<f64> = low.iter().map(|(_, score)| *score).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    low.sort_by(|a, b| a.0.cmp(&b.0));
    for (piece, score) in low.into_iter().zip(scores) {
        piece.1 = score;
    }
}
