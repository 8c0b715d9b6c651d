//! What a teacher answers to the prompts of conversations, for a student to learn from.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use danlu_data::Progress;
use danlu_data::chat::{self, Conversation, Encoder, Message, Role};
use danlu_data::source::Source;
use danlu_engine::{Prompt, Rollout, Sampling, rollout};
use danlu_models::folder;
use danlu_train::recipe::DistillSpec;

/// Prompts that are answered between two signs of progress.
const AT_ONCE: usize = 64;

/// Each conversation with the teacher's answer in the place of its last one. They are kept, and written once for the same teacher, prompts and
/// settings.
///
/// # Errors
/// When the teacher cannot be read, or ends none of its answers.
pub fn of(
    home: &Path,
    teacher: &Path,
    encoder: &Encoder,
    talks: &[Conversation],
    spec: &DistillSpec,
    seed: u64,
    progress: &mut dyn Progress,
) -> Result<Vec<Conversation>> {
    let (decoder, config) = folder::load(teacher, &Device::flex())?;
    let settings = serde_json::json!([
        decoder.weights_hash()?,
        encoder.template().hash(),
        encoder.tokenizer().hash(),
        talks,
        spec.answer_tokens,
        spec.answer_temperature,
        seed
    ]);
    let key = danlu_files::hash_bytes(settings.to_string().as_bytes());
    let path = home.join("answers").join(format!("{}.jsonl", &key[..16]));
    if path.exists() {
        return Ok(chat::read(&[Source::Path(path.display().to_string())])?.records);
    }
    let asked: Vec<Conversation> = talks.iter().filter_map(question).collect();
    let mut prompts = vec![];
    for (index, talk) in asked.iter().enumerate() {
        let ids = encoder.prompt(&talk.messages, &talk.tools)?;
        if ids.len() + spec.answer_tokens <= config.context() {
            prompts.push(Prompt { index: index as u64, ids });
        }
    }
    let sampling = Sampling { temperature: spec.answer_temperature as f32, top_p: 1.0, ..Sampling::default() };
    let ends = vec![encoder.turn_end()];
    let how = Rollout { max_tokens: spec.answer_tokens, sampling, ends, seed, width: AT_ONCE, ..Rollout::default() };
    progress.start("the teacher answers", Some(prompts.len() as u64), "prompts");
    let (mut answered, mut text) = (vec![], String::new());
    for (i, prompts) in prompts.chunks(AT_ONCE).enumerate() {
        progress.at((i * AT_ONCE) as u64);
        for completion in rollout(&decoder, prompts, &how)?.iter().filter(|completion| completion.ended) {
            let (_, words) = completion.tokens.split_last().context("a completion has at least one token")?;
            let words = encoder.tokenizer().decode(words)?;
            if !words.trim().is_empty() {
                let mut talk = asked[prompts[completion.prompt].index as usize].clone();
                talk.messages.push(Message::assistant(words));
                writeln!(text, "{}", serde_json::to_string(&talk)?)?;
                answered.push(talk);
            }
        }
    }
    progress.at(prompts.len() as u64);
    ensure!(
        !answered.is_empty(),
        "the teacher ended none of its answers to {} prompts within {} tokens; raise `distill.answer_tokens`",
        prompts.len(),
        spec.answer_tokens
    );
    danlu_files::write_atomic_bytes(&path, text.as_bytes())?;
    progress.note(&format!(
        "the teacher answered {} of {} prompts within {} tokens; what it wrote is in {}",
        answered.len(),
        talks.len(),
        spec.answer_tokens,
        path.display()
    ));
    Ok(answered)
}

/// What stands before the last answer, in which earlier answers are no longer learned.
fn question(talk: &Conversation) -> Option<Conversation> {
    let last = talk.messages.iter().rposition(|message| message.role == Role::Assistant)?;
    let mut before = Conversation { messages: talk.messages[..last].to_vec(), ..talk.clone() };
    before.messages.iter_mut().filter(|message| message.role == Role::Assistant).for_each(|message| message.train = false);
    (last > 0).then_some(before)
}
