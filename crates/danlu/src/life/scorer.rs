//! The reward model that `[rewards.model]` names, read and held to what it must have in common with the model that answers.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use danlu_data::chat::{Message, Template};
use danlu_models::folder;
use danlu_rewards::{LearnedSpec, RewardsSpec};
use danlu_train::objectives::rl::Scorer;

use super::kinds::rl::Reader;
use super::kinds::sft;

/// Reads the reward model, where there is one, whose name [`super::prepare::with_folders`] has made a folder. Pins its weights in `spec`, or holds
/// them to what is pinned there.
///
/// # Errors
/// When the folder holds no reward model or other weights than were pinned, or when it reads otherwise than `reader`: with another tokenizer, or
/// by another template.
pub fn open(spec: &mut RewardsSpec, reader: &Reader) -> Result<Option<Scorer>> {
    let Some(spec) = &mut spec.model else { return Ok(None) };
    let from = spec.from.clone();
    read(spec, reader).with_context(|| format!("`rewards.model.from` is {from:?}, which cannot judge")).map(Some)
}

fn read(spec: &mut LearnedSpec, reader: &Reader) -> Result<Scorer> {
    let from = PathBuf::from(&spec.from);
    let (model, _) = folder::load_reward(&from, &danlu_ops::device())?;
    let found = folder::weights_hash(&from)?;
    let pinned = spec.hash.get_or_insert_with(|| found.clone());
    ensure!(
        *pinned == found,
        "its weights are not those that are asked for: their BLAKE3 was {pinned:.12} and is {found:.12}; put the old ones back, or begin a \
         new run"
    );
    let encoder = sft::encoder(&from)?;
    let (theirs, ours) = (encoder.tokenizer(), reader.tokenizer());
    ensure!(
        theirs.hash() == ours.hash(),
        "it reads with another tokenizer, of {} tokens, than the model that answers, of {}: its scores would be of other words. Make one from \
         a model with the same tokenizer (`recipes/reward.toml`)",
        theirs.vocab_size(),
        ours.vocab_size()
    );
    let template = reader.template().context(
        "it judges answers in conversations, and the model that answers is asked in plain text; tune it on conversations first, or \
         set `rl.template` to \"chat\"",
    )?;
    ensure!(
        alike(encoder.template(), template)?,
        "it learned from conversations that were written by another chat template than that of the model that answers. Make one from this \
         model, or from one with its template"
    );
    Ok(Scorer::new(model, encoder.turn_end(), spec))
}

/// Whether two templates write the same: their hashes may differ by tokens that they name and do not write.
fn alike(one: &Template, other: &Template) -> Result<bool> {
    let talk = [Message::user("Hello"), Message::assistant("Goodbye"), Message::user("Again")];
    Ok(one.same_as(other) && one.render(&talk, &[], true)? == other.render(&talk, &[], true)?)
}
