//! Learning from preferences on a tiny model: every loss raises held-out accuracy, and how answers are packed changes nothing.

use std::sync::atomic::AtomicBool;

use burn::module::Module;
use burn::tensor::Device;
use danlu_data::preference::{Answer, EncodedJudged, EncodedPair};
use danlu_data::tokenizer::{Kind, Tokenizer, TrainSpec};
use danlu_models::{Decoder, DecoderConfig, LlamaConfig};
use danlu_train::auto::resolve_examples;
use danlu_train::objectives::preference::Preferences;
use danlu_train::{Event, Examples, Objective, Outline, Plan, Preference, Recipe, Run, train};

const LOSSES: [&str; 6] = ["dpo", "ipo", "hinge", "robust", "simpo", "orpo"];

fn device() -> Device {
    Device::flex().autodiff()
}

fn config() -> DecoderConfig {
    DecoderConfig::Llama(LlamaConfig { max_position_embeddings: 32, ..LlamaConfig::new(40, 16, 2, 8, 32) })
}

/// A prompt and an answer of small tokens when it is good, of large ones when it is bad, with a little chance.
fn answer(seed: usize, good: bool) -> Answer {
    let prompt = 2 + seed % 4;
    let length = 3 + (seed * 7 + usize::from(good)) % 6;
    let token = |i: usize| {
        let high = !good ^ (seed + i).is_multiple_of(5);
        (2 + (seed * 31 + i * 17) % 18 + if high { 18 } else { 0 }) as u32
    };
    Answer { ids: (0..prompt).map(|i| (2 + (seed * 13 + i * 5) % 36) as u32).chain((0..length).map(token)).collect(), prompt }
}

fn preferences(seeds: std::ops::Range<usize>, judged: bool) -> Preferences {
    match judged {
        true => Preferences::Judged(
            seeds.map(|seed| EncodedJudged { answer: answer(seed, seed % 2 == 0), good: seed % 2 == 0 }).collect(),
        ),
        false => Preferences::Pairs(
            seeds.map(|seed| EncodedPair { chosen: answer(seed, true), rejected: answer(seed, false), margin: 0.0 }).collect(),
        ),
    }
}

fn plan(loss: &str, settings: &[&str]) -> Plan {
    let text = "name = 'pref'\n[model]\ncontext = 32\n[batch]\nexamples = 8\nmicro_tokens = 72\n[budget]\nsteps = 40\n\
                [optimizer]\nkind = 'adamw'\nrate = 3e-3\nembedding_rate = 3e-3\nweight_decay = 0.0\n[eval]\nevery = 1000\n";
    let mut settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    settings.push(format!("preference.loss={loss}"));
    settings.push("preference.label_smoothing=0.1".into());
    let recipe = Recipe::from_toml(text, "pref", &settings).unwrap();
    let examples = Examples { count: 64, tokens: 18, usual_batch: 8 };
    resolve_examples(&recipe, Outline::from(&config()), &examples, config().flops_per_token(32), 1e11).unwrap()
}

fn objective(plan: &Plan, judged: bool) -> anyhow::Result<Preference> {
    let texts = (0..40).map(|i| Ok(format!("word{i} and a few more words")));
    let tokenizer: Tokenizer =
        danlu_data::tokenizer::train(&TrainSpec { kind: Kind::Bpe, vocab_size: 300, ..TrainSpec::default() }, texts)?;
    let start = Decoder::new(&config(), 3, &Device::flex())?;
    Preference::new(plan, preferences(0..64, judged), preferences(1000..1032, judged), Some(start), tokenizer, config())
}

#[test]
fn every_loss_raises_held_out_accuracy() {
    for loss in LOSSES.into_iter().chain(["kto"]) {
        let plan = plan(loss, &[]);
        let objective = objective(&plan, loss == "kto").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (device, stop) = (device(), AtomicBool::new(false));
        let run = Run { folder: dir.path(), plan: &plan, objective: &objective, device: &device, data: "d", stop: &stop };
        let mut measured = vec![];
        let mut watch = |event: &Event| {
            if let Event::Measured { measure, .. } = event {
                measured.push((*measure).clone());
            }
        };
        train(&run, || Decoder::new(&config(), 3, &device), &mut watch).unwrap();
        let (first, last) = (&measured[0], &measured[measured.len() - 1]);
        assert!(last.value > 0.85 && last.low > 0.7 && first.value < 0.75, "{loss}: from {first} to {last}");
        if !["simpo", "orpo"].contains(&loss) {
            assert_eq!(first.value, 0.5, "{loss}: an unchanged model only has ties");
        }
        assert_eq!(first.items, 32);
    }
}

#[test]
fn how_answers_are_packed_changes_no_loss() {
    for loss in LOSSES {
        let (whole, single) = (plan(loss, &["batch.micro_tokens=1000"]), plan(loss, &["batch.micro_tokens=18"]));
        assert_eq!((whole.micro_rows, single.micro_rows), (8, 1));
        let model = Decoder::new(&config(), 4, &device()).unwrap();
        let losses = |plan: &Plan| {
            let objective = objective(plan, false).unwrap();
            let each = (0..8).step_by(plan.micro_rows).map(|at| {
                let found = objective.loss(&model, &objective.batch(at).unwrap());
                f64::from(found.value.inner().into_scalar::<f32>()) * plan.micro_rows as f64 / 8.0
            });
            each.sum::<f64>()
        };
        let (together, apart) = (losses(&whole), losses(&single));
        assert!((together - apart).abs() < 1e-4 * together.abs().max(1.0), "{loss}: {together} is {apart}");
    }
}

#[test]
fn answers_carry_loss_and_prompts_do_not() {
    let plan = plan("dpo", &[]);
    let objective = objective(&plan, false).unwrap();
    let shown = objective.show(&objective.batch(0).unwrap()).unwrap();
    let first = &preferences(0..64, false);
    let Preferences::Pairs(pairs) = first else { panic!() };
    let pair = &pairs[objective.row(0)];
    let want = [&pair.chosen, &pair.rejected].map(|a| (0..a.ids.len()).map(move |i| i >= a.prompt)).into_iter().flatten();
    assert_eq!(shown.tokens.iter().map(|token| token.2).collect::<Vec<_>>(), want.collect::<Vec<_>>());
    assert!(objective.masks() && shown.starts == [0, pair.chosen.ids.len()]);
    let model = Decoder::new(&config(), 3, &device()).unwrap();
    assert_eq!(objective.measure(&model.valid(), 1 << 20).unwrap().value, 0.5);
}

#[test]
fn data_that_the_loss_cannot_use_is_refused() {
    #[track_caller]
    fn check(plan: &Plan, train: Preferences, held_out: Preferences, part: &str) {
        let texts = (0..9).map(|i| Ok(format!("word{i} and a few more words")));
        let spec = TrainSpec { vocab_size: 300, ..TrainSpec::default() };
        let tokenizer = danlu_data::tokenizer::train(&spec, texts).unwrap();
        let error = Preference::new(plan, train, held_out, None, tokenizer, config()).err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    }
    let good = |judged| match preferences(0..8, true) {
        Preferences::Judged(all) => Preferences::Judged(all.into_iter().filter(|one| one.good == judged).collect()),
        pairs => pairs,
    };
    check(&plan("dpo", &[]), preferences(0..8, true), preferences(8..9, true), "use \"kto\"");
    check(&plan("dpo", &[]), preferences(0..8, false), preferences(8..9, false), "there is none");
    check(&plan("dpo", &[]), preferences(0..0, false), preferences(8..9, false), "no preference to learn");
    check(&plan("dpo", &[]), preferences(0..8, false), preferences(8..8, false), "held out");
    check(&plan("kto", &[]), good(true), preferences(8..9, true), "judged good");
    check(&plan("kto", &["batch.examples=1"]), preferences(0..8, true), preferences(8..9, true), "batch.examples");
}
