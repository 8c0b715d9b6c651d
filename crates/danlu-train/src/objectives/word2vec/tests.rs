use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use danlu_data::shards::{TokenSet, build_from};
use danlu_data::tokenizer::{Kind, TrainSpec, train as learn};
use danlu_models::{Word2VecConfig, to_named};

use super::*;
use crate::auto::{Facts, resolve_words};
use crate::recipe::Recipe;
use crate::{Event, Run, Trained, train};

/// Sentences about four kinds of things, each with words of its own: words of one kind stand with the same words.
const KINDS: [([&str; 3], [&str; 3]); 4] = [
    (["paris", "rome", "berlin"], ["city", "streets", "mayor"]),
    (["trout", "salmon", "pike"], ["river", "swims", "fins"]),
    (["violin", "flute", "drum"], ["plays", "concert", "tune"]),
    (["oak", "birch", "maple"], ["forest", "leaves", "bark"]),
];

fn texts(count: usize) -> impl Iterator<Item = Result<String>> {
    (0..count).map(|i| {
        let (things, words) = KINDS[i * 7 % 4];
        let sentence = |k: usize| {
            let word = |of: [&'static str; 3], at: usize| of[at % 3];
            format!("The {}, {} {} {}.", word(things, i + k), word(words, i / 3 + k), word(words, k), word(words, i + 2 * k))
        };
        Ok((0..6).map(sentence).collect::<Vec<_>>().join(" "))
    })
}

struct Setup {
    plan: Plan,
    objective: Word2vec,
    config: Word2VecConfig,
}

fn setup(folder: &Path, settings: &[&str]) -> Setup {
    let spec = TrainSpec { kind: Kind::Words, vocab_size: 500, min_frequency: 2, ..TrainSpec::default() };
    let tokenizer = learn(&spec, texts(400)).unwrap();
    let set: TokenSet = build_from(&folder.join("tokens"), "made up", &tokenizer, texts(400), texts(40), &mut ()).unwrap();
    let text = "name = 'words'\n[objective]\nkind = 'word2vec'\n[model]\nhidden = 16\ncontext = 64\n[word2vec]\nwindow = 4\nsubsample = 0.05\n\
                [batch]\ntokens = 2048\nmicro_tokens = 512\n[optimizer]\nschedule = 'wsd'\nwarmup = 0.0\ndecay = 1.0\nfloor = 0.004\n\
                [budget]\nepochs = 20.0\n[eval]\nevery = 100000\n";
    let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
    let recipe = Recipe::from_toml(text, "test", &settings).unwrap();
    let facts = Facts { vocabulary: tokenizer.vocab_size(), train_tokens: set.train.len(), gemm_rate: 1e11 };
    let counts = set.train.counts().unwrap();
    let words: Vec<u64> = (0..).zip(&counts).map(|(id, &count)| if tokenizer.is_special(id) { 0 } else { count }).collect();
    let plan = resolve_words(&recipe, &facts, kept_share(&words, facts.train_tokens, recipe.word2vec.subsample)).unwrap();
    let config = Word2VecConfig {
        model_type: Word2VecConfig::MODEL_TYPE.into(),
        form: plan.recipe.word2vec.form.name().into(),
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 16,
        window: 4,
        negative: 5,
    };
    let objective = Word2vec::new(&plan, &[(set.train.clone(), 1.0)], &words, vec![set.held_out.clone()], tokenizer).unwrap();
    Setup { plan, objective, config }
}

fn run(folder: &Path, setup: &Setup, stop: &AtomicBool, mut watch: impl FnMut(&Event)) -> Trained<Word2Vec> {
    let device = Device::flex().autodiff();
    let run = Run { folder, plan: &setup.plan, objective: &setup.objective, device: &device, data: "made up", stop };
    train(&run, || Word2Vec::new(&setup.config, 1, &device), &mut watch).unwrap()
}

fn weights(model: &Word2Vec) -> Vec<(String, Vec<f32>)> {
    let named = to_named(model).unwrap();
    named.into_iter().map(|(name, values)| (name, values.try_into_vec::<f32>().unwrap())).collect()
}

/// Words that stand with the same words come to lie near each other, and the loss of held-out text falls, in both forms.
#[test]
fn words_of_a_kind_come_together() {
    for form in ["skip-gram", "cbow"] {
        let dir = tempfile::tempdir().unwrap();
        let setup = setup(dir.path(), &[&format!("word2vec.form={form}")]);
        let mut measures = vec![];
        let trained = run(dir.path(), &setup, &AtomicBool::new(false), |event| {
            if let Event::Measured { measure, .. } = event {
                measures.push(measure.value);
            }
        });
        // Five negative words and the true one, of which nothing is known before the first step.
        assert!((measures[0] - 6.0 * std::f64::consts::LN_2).abs() < 0.35, "{form}: {measures:?}");
        assert!(measures.last().unwrap() < &(0.8 * measures[0]), "{form}: {measures:?}");
        let vectors = word_vectors(&trained.model, &setup.objective.tokenizer).unwrap();
        assert!(vectors.place("the").is_some() && vectors.place("<|endoftext|>").is_none());
        for (things, words) in KINDS {
            for thing in things {
                let place = vectors.find(thing).unwrap();
                let near = vectors.near(vectors.vector(place), &[place], 2);
                let near: Vec<&str> = near.iter().map(|(place, _)| vectors.words()[*place].as_str()).collect();
                assert!(
                    near.iter().all(|word| things.contains(word) || words.contains(word)),
                    "{form}: {thing} is near {near:?}"
                );
            }
        }
        let samples = setup.objective.samples(&trained.model, 0).unwrap();
        assert!(samples.is_empty(), "a vocabulary of 25 words has none of the usual places");
    }
}

/// A run that is stopped and goes on ends with the bytes of one that was not.
#[test]
fn a_run_goes_on_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path(), &["budget.steps=12", "checkpoint.every=1"]);
    let (straight, stopped) = (dir.path().join("straight"), dir.path().join("stopped"));
    std::fs::create_dir_all(&straight).unwrap();
    std::fs::create_dir_all(&stopped).unwrap();
    let whole = run(&straight, &setup, &AtomicBool::new(false), |_| ());
    let mut sessions = 0;
    let pieces = loop {
        let stop = AtomicBool::new(false);
        let mut steps = 0;
        let trained = run(&stopped, &setup, &stop, |event| {
            if let Event::Step(_) = event {
                steps += 1;
                stop.store(steps == 5, Ordering::Relaxed);
            }
        });
        sessions += 1;
        if trained.summary.finished {
            break trained;
        }
    };
    assert_eq!((sessions, pieces.summary.step), (3, 12));
    assert!(weights(&whole.model) == weights(&pieces.model), "the weights differ");
    assert_ne!(weights(&whole.model), weights(&Word2Vec::new(&setup.config, 1, &Device::flex()).unwrap()));
}

/// The update that the objective makes by itself goes down the gradient of the loss that it states, at word2vec's rate and in one window.
#[test]
fn the_own_update_is_descent_on_the_stated_loss() {
    for form in ["skip-gram", "cbow"] {
        let dir = tempfile::tempdir().unwrap();
        let setup = setup(dir.path(), &[&format!("word2vec.form={form}")]);
        let objective = &setup.objective;
        // A trained model, since a fresh one has output vectors of zeros.
        let model = run(dir.path(), &setup, &AtomicBool::new(false), |_| ()).model;
        let first = objective.batch(0).unwrap();
        let all = objective.windows(&first);
        let mut windows = Windows::default();
        windows.push([all.contexts(5), &[]], all.outputs(5).iter().copied());
        let batch = WindowBatch { windows: windows.into(), ..objective.batch(0).unwrap() };
        let mut gradients = objective.loss(&model, &batch).value.backward();
        let count = objective.targets(&batch) as f32;
        let gradient = |table: &burn::module::Param<burn::tensor::Tensor<2>>, found: &mut burn::tensor::Gradients| {
            table.val().grad_remove(found).unwrap().into_data().try_into_vec::<f32>().unwrap()
        };
        let expected = [gradient(&model.input.weight, &mut gradients), gradient(&model.output.weight, &mut gradients)];
        let before = weights(&model);
        let rate = 1.0 / 64.0;
        let (model, moved) = objective.step(model, std::slice::from_ref(&batch), rate);
        assert_eq!(moved.unwrap().squares.len(), 2);
        for (((name, before), (_, after)), expected) in before.into_iter().zip(weights(&model)).zip(expected) {
            let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs() * count));
            assert!(largest > 0.0, "{form}: {name}");
            for ((before, after), gradient) in before.iter().zip(&after).zip(&expected) {
                let found = (before - after) / rate as f32;
                assert!((found - gradient * count).abs() < 1e-3 * largest, "{form} {name}: {found} {}", gradient * count);
            }
        }
    }
}

#[test]
fn the_first_row_says_which_words_are_learned_from() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path(), &["word2vec.subsample=0.001"]);
    let shown = setup.objective.show(&setup.objective.batch(0).unwrap()).unwrap();
    assert_eq!(shown.tokens.len(), SHOWN);
    assert!((1..SHOWN).contains(&shown.with_loss()), "{}", shown.with_loss());
    let learned = |text: &str| shown.tokens.iter().any(|(_, word, kept)| word == text && *kept);
    assert!(!learned("<|endoftext|>"));
    assert!(shown.text.contains("the"), "{}", shown.text);
}
