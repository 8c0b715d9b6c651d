//! Reinforcement learning on a tiny model: rewards rise, pieces change nothing, and a run that is killed ends in the same weights.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use burn::tensor::Device;
use danlu_data::prompts::Reference;
use danlu_data::tokenizer::{Kind, TrainSpec, train as train_tokenizer};
use danlu_engine::Rollout;
use danlu_models::{Decoder, DecoderConfig, LlamaConfig, RewardModel};
use danlu_rewards::{LearnedSpec, RewardsSpec};
use danlu_train::objectives::rl::{Game, Judge, KlControl, Learner, Question, Scorer, planned};
use danlu_train::{Event, Grouped, Objective, Plan, Ppo, Recipe, Run, checkpoint, train};

const FOLDER: &str = "DANLU_TEST_RL_FOLDER";
const OBJECTIVE: &str = "DANLU_TEST_RL_OBJECTIVE";
const KINDS: [&str; 3] = ["grpo", "rloo", "ppo"];

fn config() -> DecoderConfig {
    DecoderConfig::Llama(LlamaConfig { max_position_embeddings: 32, ..LlamaConfig::new(300, 32, 2, 16, 32) })
}

/// An answer is right when it has an `e` in it.
fn plan(kind: &str, settings: &[&str]) -> Plan {
    let text = format!(
        "name = 'toy'\n[objective]\nkind = '{kind}'\n[rewards.regex]\npattern = 'e'\n[rl]\nsamples = 4\nmax_tokens = 6\nkl = 0.02\n\
         [batch]\nexamples = 32\nmicro_tokens = 96\n[budget]\nsteps = 25\n[optimizer]\nkind = 'adamw'\nrate = 3e-3\n\
         embedding_rate = 3e-3\nweight_decay = 0.0\n[eval]\nevery = 1000\n[checkpoint]\nevery = 1\n"
    );
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    let recipe = Recipe::from_toml(&text, "toy", &settings).unwrap();
    planned(&recipe, &[Question { ids: vec![0; 6], reference: Reference::default() }], &config(), 1e11).unwrap()
}

fn game(plan: &Plan) -> Game {
    let texts = (0..40).map(|i| Ok(format!("word{i} and a few more words")));
    let tokenizer = train_tokenizer(&TrainSpec { kind: Kind::Bpe, vocab_size: 300, ..TrainSpec::default() }, texts).unwrap();
    let question = |i: u32| {
        let ids = tokenizer.encode(&format!("word{i}")).unwrap();
        Question { ids, reference: Reference::default() }
    };
    let end = tokenizer.end_of_text();
    let recipe = &plan.recipe;
    let judge = Judge::new(&recipe.rewards, recipe.rl.max_tokens, tokenizer.clone(), vec![end], None).unwrap();
    Game::new(plan, (0..64).map(question).collect(), (100..164).map(question).collect(), judge).unwrap()
}

fn objective<L: Learner>(plan: &Plan) -> L {
    let start = Decoder::new(&config(), 3, &Device::flex()).unwrap();
    L::new(game(plan), plan.recipe.objective.kind, Some(start)).unwrap()
}

/// What a run measured before and after, and the largest gap between the log-probabilities of drawing and of training.
fn learn<L: Learner>(plan: &Plan, folder: &Path) -> (danlu_eval::Measure, danlu_eval::Measure, f64) {
    let objective: L = objective(plan);
    let (device, stop) = (Device::flex().autodiff(), AtomicBool::new(false));
    let run = Run { folder, plan, objective: &objective, device: &device, data: "d", stop: &stop };
    let (mut measured, mut gap) = (vec![], 0f64);
    let mut watch = |event: &Event| match event {
        Event::Measured { measure, .. } => measured.push((*measure).clone()),
        Event::Step(step) => {
            let found = step.report.iter().find(|(name, _)| *name == "gap_largest");
            gap = gap.max(found.map_or(0.0, |(_, gap)| *gap));
        }
        _ => {}
    };
    train(&run, || Ok(L::model(Decoder::new(&config(), 3, &device)?)), &mut watch).unwrap();
    (measured[0].clone(), measured.pop().unwrap(), gap)
}

fn learn_kind(kind: &str, plan: &Plan, folder: &Path) -> (danlu_eval::Measure, danlu_eval::Measure, f64) {
    if kind == "ppo" { learn::<Ppo>(plan, folder) } else { learn::<Grouped>(plan, folder) }
}

#[test]
fn a_reward_model_is_a_reward_beside_a_rule() {
    let plan = plan("grpo", &[]);
    let texts = (0..40).map(|i| Ok(format!("word{i} and a few more words")));
    let tokenizer = train_tokenizer(&TrainSpec { kind: Kind::Bpe, vocab_size: 300, ..TrainSpec::default() }, texts).unwrap();
    let (end, most) = (tokenizer.end_of_text(), 6);
    let decoder = |seed| Decoder::new(&config(), seed, &Device::flex()).unwrap();
    let (model, _) = RewardModel::new(decoder(5), &config(), 7).unwrap();
    let spec = LearnedSpec { weight: 2.0, ..LearnedSpec::default() };
    let rewards = RewardsSpec { model: Some(spec.clone()), ..plan.recipe.rewards.clone() };
    let judged = |scorer| Judge::new(&rewards, most, tokenizer.clone(), vec![end], scorer);
    let judge = judged(Some(Scorer::new(model.clone(), end, &spec))).unwrap();
    assert_eq!(judge.names(), ["regex", "model"]);

    let question = |tokens: usize| Question { ids: vec![150; tokens], reference: Reference::default() };
    let asked = [question(4), question(5)];
    let asked: Vec<(u64, &Question)> = (0..).zip(&asked).collect();
    let drawn = judge.answers(&decoder(3), &asked, &Rollout { samples: 8, max_tokens: most, ..Rollout::default() }).unwrap();
    assert_eq!(drawn.len(), 16);
    for one in &drawn {
        // As in its training: the answer, and the token that ends it, whether it was cut off or not.
        let text = [&one.ids[..one.ids.len() - usize::from(one.ended)], &[end]].concat();
        let score = f64::from(model.score(&[&text]).unwrap()[0]);
        let expected = 1.0 / (1.0 + (-score).exp());
        let [rule, found] = one.score.each[..] else { panic!("{:?}", one.score) };
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
        assert!((one.score.total - (rule + 2.0 * found)).abs() < 1e-9, "{:?}", one.score);
    }
    let differ = |a: f64, b: f64| (a - b).abs() > 1e-6;
    assert!(drawn.iter().any(|one| differ(one.score.each[1], drawn[0].score.each[1])), "it says the same of every answer");

    // Longer than it can read, and named but not read.
    let error = format!("{:#}", judge.accepts(&question(30)).unwrap_err());
    assert!(error.contains("reads 32 tokens") && error.contains("rl.max_tokens"), "{error}");
    judge.accepts(&question(25)).unwrap();
    assert!(judged(None).err().unwrap().to_string().contains("rewards.model"));
}

#[test]
fn rewards_rise_on_questions_that_were_held_out() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let (first, last, gap) = learn_kind(kind, &plan(kind, &["budget.steps=60"]), dir.path());
        assert!(last.value > first.high, "{kind}: from {first} to {last}");
        assert!(gap > 0.0 && gap < 1e-3, "{kind}: the log-probabilities of drawing and training are {gap} apart");
    }
}

#[test]
fn how_an_update_is_cut_changes_no_loss_and_no_draw() {
    for settings in [vec![], vec!["rl.average=sequence"], vec!["rl.average=fixed"], vec!["rl.ratio=sequence"], vec!["rl.kl=0"]] {
        let with = |tokens: &str| plan("grpo", &[&settings[..], &[tokens]].concat());
        let model = Decoder::new(&config(), 3, &Device::flex().autodiff()).unwrap();
        let moved = Decoder::new(&config(), 4, &Device::flex().autodiff()).unwrap();
        let both = [with("batch.micro_tokens=24"), with("batch.micro_tokens=384")].map(|plan| {
            let objective: Grouped = objective(&plan);
            let (pieces, report) = objective.rollout(&model, vec![objective.batch(0).unwrap()], 1).unwrap();
            let counts: Vec<usize> = pieces.iter().map(|piece| objective.targets(piece)).collect();
            let total: usize = counts.iter().sum();
            let loss = |model: &Decoder| -> f64 {
                let each = pieces.iter().zip(&counts).map(|(piece, &count)| {
                    let value = objective.loss(model, piece).value.inner().into_scalar::<f32>();
                    f64::from(value) * count as f64 / total as f64
                });
                each.sum()
            };
            (pieces.len(), [loss(&model), loss(&moved)], report)
        });
        let [(few, cut, a), (one, whole, b)] = both;
        assert!(few > one, "{settings:?}: {few} pieces and {one}");
        assert_eq!(a[0], b[0], "the rewards");
        for (cut, whole) in cut.iter().zip(whole) {
            assert!((cut - whole).abs() < 1e-4 * whole.abs().max(1.0), "{settings:?}: {cut} is {whole}");
        }
    }
}

#[test]
fn what_cannot_be_learned_is_refused() {
    let refuse = |kind: &str, settings: &[&str], part: &str| {
        let plan = plan(kind, settings);
        let error = match kind {
            "ppo" => Ppo::new(game(&plan), plan.recipe.objective.kind, None).err(),
            _ => Grouped::new(game(&plan), plan.recipe.objective.kind, None).err(),
        };
        let text = error.unwrap().to_string();
        assert!(text.contains(part), "{text}");
    };
    refuse("grpo", &["rl.samples=1"], "rl.samples");
    refuse("grpo", &[], "start model");
    refuse("grpo", &["rl.kl=0", "rl.kl_target=1"], "ppo");
    refuse("ppo", &["rl.kl=0", "rl.kl_target=1"], "rl.kl");
}

#[test]
fn the_weight_of_the_divergence_follows_its_target() {
    let mut control = KlControl { weight: 0.1, target: Some(2.0), horizon: 1000.0 };
    control.follow(20.0, 100);
    assert!((control.weight - 0.102).abs() < 1e-12);
    control.follow(1.9, 100);
    assert!(control.weight < 0.102 && control.weight > 0.101);
    let mut fixed = KlControl { target: None, ..control };
    fixed.follow(20.0, 100);
    assert_eq!(fixed.weight, control.weight);
}

/// Not a test of its own: the process that the test below kills.
#[test]
#[ignore = "started by the other test"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let kind = std::env::var(OBJECTIVE).unwrap();
    let settings: &[&str] = if kind == "ppo" { &["rl.kl_target=0.5", "rl.kl_horizon=100"] } else { &["rl.updates=2"] };
    learn_kind(&kind, &plan(&kind, settings), Path::new(&folder));
}

#[test]
fn a_run_survives_kills() {
    for kind in ["grpo", "ppo"] {
        let dir = tempfile::tempdir().unwrap();
        let start = |folder: &Path| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "child", "--ignored"]).env(FOLDER, folder).env(OBJECTIVE, kind);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let (straight, killed) = (dir.path().join("straight"), dir.path().join("killed"));
        fs::create_dir_all(&straight).unwrap();
        fs::create_dir_all(&killed).unwrap();
        assert!(start(&straight).wait().unwrap().success());
        let reached =
            || checkpoint::latest(&killed.join("checkpoints"), |_, _| ()).ok().flatten().map_or(0, |found| found.state.step);
        for (life, step) in [3, 9, 16, 21].into_iter().enumerate() {
            let mut child = start(&killed);
            while reached() < step && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(2));
            }
            std::thread::sleep(Duration::from_millis(7 * life as u64));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(start(&killed).wait().unwrap().success());
        let last = |folder: &Path| {
            let found = checkpoint::latest(&folder.join("checkpoints"), |_, e| panic!("{e:#}")).unwrap().unwrap();
            let read = |name: &str| fs::read(found.folder.join(name)).unwrap();
            (found.state.step, found.state.objective.clone(), read("model.safetensors"), read("optimizer.safetensors"))
        };
        let (straight, killed) = (last(&straight), last(&killed));
        assert_eq!((straight.0, &straight.1), (killed.0, &killed.1), "{kind}: the steps or the weight of the divergence");
        assert!(straight.2 == killed.2 && straight.3 == killed.3, "{kind}: the weights differ");
        assert_eq!(straight.1.len(), usize::from(kind == "ppo"));
    }
}
