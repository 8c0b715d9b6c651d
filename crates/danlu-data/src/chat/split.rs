//! Which conversations are kept out of training.

use super::Conversation;

/// Held out even when the share comes to less, so that there is something to measure on.
const LEAST: usize = 4;

/// Whether each conversation is held out, by its [`Conversation::lot`]: about `share` of them, at least four where there are twice as many,
/// and always both sides non-empty where there are two openings.
pub fn held_out(conversations: &[Conversation], share: f64, seed: u64) -> Vec<bool> {
    held_out_lots(&conversations.iter().map(|one| one.lot(seed)).collect::<Vec<_>>(), share)
}

/// [`held_out`] of anything whose lots are drawn already.
pub(crate) fn held_out_lots(lots: &[u64], share: f64) -> Vec<bool> {
    let mut sorted = lots.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let least = LEAST.min(sorted.len() / 2);
    let threshold = (share * u64::MAX as f64) as u64;
    let by_count = least.checked_sub(1).map_or(0, |last| sorted[last]);
    // One opening always remains to train on.
    let last = sorted.last().copied().unwrap_or(0);
    lots.iter().map(|&lot| share > 0.0 && lot < last && (lot < threshold || (least > 0 && lot <= by_count))).collect()
}
