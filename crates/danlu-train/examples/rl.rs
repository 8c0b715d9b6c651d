//! The advantages and losses of a fixed batch of answers, for comparison with other implementations:
//!
//!     rl CASE.json key=value…
//!
//! The case names three model folders, `start`, `old` (which drew the answers) and `now` (which is trained), and has `answers` of
//! `{"prompt": [ids], "answer": [ids], "reward": x}`, groups one after another, and for ppo the value heads `old_head` and `now_head`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use danlu_data::prompts::Reference;
use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Batch, Decoder, folder};
use danlu_rewards::Score;
use danlu_train::auto::resolve_examples;
use danlu_train::objectives::rl::{ActorCritic, Drawn, Game, Judge, Known, Learner, Piece, Question};
use danlu_train::recipe::ObjectiveKind;
use danlu_train::{Examples, Grouped, Loss, Objective, Outline, Ppo, Recipe};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Case {
    start: PathBuf,
    old: PathBuf,
    now: PathBuf,
    answers: Vec<Answer>,
    #[serde(default)]
    old_head: Vec<f32>,
    #[serde(default)]
    now_head: Vec<f32>,
}

#[derive(Deserialize)]
struct Answer {
    prompt: Vec<u32>,
    answer: Vec<u32>,
    reward: f64,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("rl CASE.json key=value…")?;
    let case: Case = serde_json::from_str(&danlu_files::read_text_bounded(Path::new(&path), 64 << 20)?)?;
    let text = "name = 'parity'\n[budget]\nsteps = 1\n[rewards.exact]\n[batch]\nmicro_tokens = 100000\n";
    let recipe = Recipe::from_toml(text, "parity", &arguments.collect::<Vec<_>>())?;
    let autodiff = Device::flex().autodiff();
    let load = |folder: &Path, device: &Device| Ok::<_, anyhow::Error>(folder::load(folder, device)?.0);
    let (start, config) = folder::load(&case.start, &Device::flex())?;
    let old = load(&case.old, &Device::flex())?;
    let examples = Examples { count: case.answers.len() as u64, tokens: 64, usual_batch: case.answers.len() };
    let plan = resolve_examples(&recipe, Outline::from(&config), &examples, config.flops_per_token(64), 1e11)?;
    let drawn: Vec<Drawn> = case.answers.iter().map(|one| drawn(&old, one)).collect();
    let question = Question { ids: vec![0], reference: Reference { answer: Some("0".into()), ..Reference::default() } };
    let judge = Judge::new(&plan.recipe.rewards, plan.recipe.rl.max_tokens, Tokenizer::load(&case.start)?, vec![0], None)?;
    let game = Game::new(&plan, vec![question.clone()], vec![question], judge)?;
    let kind = recipe.objective.kind;
    if kind == ObjectiveKind::Ppo {
        let objective = Ppo::new(game, kind, Some(start))?;
        let (batches, _) = objective.answered(&ActorCritic::with_head(old, case.old_head.clone(), 0.0), &drawn);
        let now = ActorCritic::with_head(load(&case.now, &autodiff)?, case.now_head.clone(), 0.0);
        let [Piece::Answered(answered)] = &batches[..] else { anyhow::bail!("the batch is cut") };
        print(&answered.known, objective.loss(&now, &batches[0]));
    } else {
        let objective = Grouped::new(game, kind, Some(start))?;
        let (batches, _) = objective.answered(&drawn);
        // The first pass is before the weights move.
        objective.loss(&load(&case.old, &autodiff)?, &batches[0]);
        let [Piece::Answered(answered)] = &batches[..] else { anyhow::bail!("the batch is cut") };
        print(&answered.known, objective.loss(&load(&case.now, &autodiff)?, &batches[0]));
    }
    Ok(())
}

fn drawn(model: &Decoder, one: &Answer) -> Drawn {
    let ids: Vec<u32> = one.prompt.iter().chain(&one.answer).copied().collect();
    let (read, prompt) = (ids.len() - 1, one.prompt.len());
    let nll = model.token_nll(&Batch::new(ids[..read].to_vec(), ids[1..].to_vec(), 1, read, vec![]));
    let log_probs = nll[prompt - 1..].iter().map(|x| -x).collect();
    Drawn { ids, prompt, log_probs, ended: true, score: Score { total: one.reward, each: vec![one.reward] } }
}

fn print(known: &Known, loss: Loss) {
    let advantages: Vec<&[f32]> = known.spans.iter().map(|span| &known.advantages[span.clone()]).collect();
    let report: serde_json::Map<_, _> = loss.report.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
    println!("{}", json!({"advantages": advantages, "loss": loss.value.into_scalar::<f32>(), "report": report}));
}
