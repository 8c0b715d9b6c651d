//! Translation learns, goes on bit for bit, and says what it measures.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use danlu_data::parallel::Pair;
use danlu_data::tokenizer::{Tokenizer, TrainSpec, train as learn};
use danlu_eval::Measure;
use danlu_models::{Marian, MarianConfig, to_named};
use danlu_train::auto::resolve_examples;
use danlu_train::{Event, Examples, Objective, Outline, Plan, Recipe, Run, Trained, Translate, TranslateRow, train};

const WORDS: [[(&str, &str); 4]; 3] = [
    [("red", "红"), ("old", "旧"), ("small", "小"), ("quiet", "静")],
    [("car", "汽车"), ("house", "房子"), ("river", "河流"), ("garden", "花园")],
    [("waits", "等待"), ("sleeps", "睡觉"), ("sings", "唱歌"), ("changes", "变化")],
];

/// "the red car waits" with what it is in Chinese.
fn pairs() -> Vec<Pair> {
    let one = |i: usize| {
        let [adjective, noun, verb] = [WORDS[0][i % 4], WORDS[1][i / 4 % 4], WORDS[2][i / 16]];
        Pair {
            page: i.to_string(),
            source: format!("the {} {} {}", adjective.0, noun.0, verb.0),
            target: format!("{}的{}{}", adjective.1, noun.1, verb.1),
        }
    };
    // Neighbours differ in all words, so that each is among those to train on.
    (0..64).map(|i| one(i * 21 % 64)).collect()
}

struct Setup {
    plan: Plan,
    objective: Translate,
    config: MarianConfig,
}

fn setup() -> Setup {
    let pairs = pairs();
    let texts = pairs.iter().flat_map(|pair| [pair.source.clone(), pair.target.clone()]).map(Ok);
    let tokenizer: Tokenizer = learn(&TrainSpec { vocab_size: 400, ..TrainSpec::default() }, texts).unwrap();
    let end = tokenizer.end_of_text();
    let config = MarianConfig { eos_token_id: end, ..MarianConfig::new(tokenizer.vocab_size(), 32, 2, 48) };
    let text = "name = 'translate'\n[objective]\nkind = 'translate'\n[batch]\nexamples = 16\nmicro_tokens = 200\n[budget]\nsteps = 150\n\
                [optimizer]\nkind = 'adamw'\nschedule = 'inverse-sqrt'\nwarmup = 0.1\nrate = 0.005\nembedding_rate = 0.005\nbeta2 = 0.98\n\
                weight_decay = 0.0\n[checkpoint]\nevery = 50\n[eval]\nevery = 1000\n[sample]\nevery = 0\n";
    let recipe = Recipe::from_toml(text, "translate", &[]).unwrap();
    let examples = Examples { count: 52, tokens: 12, usual_batch: 16 };
    let plan = resolve_examples(&recipe, Outline::from(&config), &examples, 1e6, 1e11).unwrap();
    let row = |pair: &Pair| TranslateRow {
        source: tokenizer.encode(&pair.source).unwrap(),
        target: tokenizer.encode(&pair.target).unwrap(),
    };
    let train = pairs[..52].iter().map(row).collect();
    let held_out = pairs[52..].iter().map(|pair| (pair.clone(), row(pair))).collect();
    let objective = Translate::new(&plan, train, held_out, tokenizer).unwrap();
    Setup { plan, objective, config }
}

impl Setup {
    fn run(&self, folder: &Path, stop_at: Option<u64>) -> (Trained<Marian>, Option<Measure>) {
        let (device, stop) = (Device::flex().autodiff(), AtomicBool::new(false));
        let run = Run { folder, plan: &self.plan, objective: &self.objective, device: &device, data: "pairs", stop: &stop };
        let mut first = None;
        let mut watch = |event: &Event| match event {
            Event::Step(step) => stop.store(stop_at == Some(step.step), Ordering::Relaxed),
            Event::Measured { measure, .. } => {
                first.get_or_insert_with(|| Measure::clone(measure));
            }
            _ => {}
        };
        let trained = train(&run, || Marian::new(&self.config, 5, &device), &mut watch).unwrap();
        (trained, first)
    }
}

fn values(model: &Marian) -> Vec<(String, Vec<f32>)> {
    to_named(model).unwrap().into_iter().map(|(name, data)| (name, data.try_into_vec().unwrap())).collect()
}

fn other(measure: &Measure, name: &str) -> f64 {
    measure.others.iter().find(|(known, _)| *known == name).unwrap().1
}

#[test]
fn translation_learns_and_goes_on_bit_for_bit() {
    let setup = setup();
    let whole = tempfile::tempdir().unwrap();
    let (trained, first) = setup.run(whole.path(), None);
    let (first, last) = (first.unwrap(), trained.summary.measure.as_ref().unwrap());
    assert!(last.value < 0.5 * first.value && last.items == 12, "{first} to {last}");
    assert!(other(last, "chrf") > other(&first, "chrf") + 10.0, "{first} to {last}");
    let bleu = other(last, "bleu");
    assert!((0.0..=100.0).contains(&bleu) && other(last, "bleu_low") <= other(last, "bleu_high"), "{last}");

    let parts = tempfile::tempdir().unwrap();
    assert!(!setup.run(parts.path(), Some(73)).0.summary.finished);
    let again = setup.run(parts.path(), None).0;
    assert!(values(&again.model) == values(&trained.model), "a run that was stopped ended elsewhere");
}

#[test]
fn the_row_that_is_shown_carries_loss_on_the_translation_alone() {
    let setup = setup();
    let shown = setup.objective.show(&setup.objective.batch(0).unwrap()).unwrap();
    assert!(shown.text.starts_with("the ") && shown.text.contains(" → "), "{}", shown.text);
    let [_, second] = shown.starts[..] else { panic!("a source and a translation: {:?}", shown.starts) };
    assert!(shown.tokens.iter().enumerate().all(|(i, token)| token.2 == (i >= second)), "{shown:?}");
    let model = Marian::new(&setup.config, 5, &Device::flex()).unwrap();
    let samples = setup.objective.samples(&model, 0).unwrap();
    assert!(samples.len() == 3 && samples.iter().all(|one| one.prompt.starts_with("the ") && one.text.contains("(is ")));
}
