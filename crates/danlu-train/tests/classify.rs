//! Labels of texts: every way learns, goes on bit for bit, and says what is wrong with the data before the first step. Beside them,
//! translation, and networks that draw pictures.

mod gan;
mod translate;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::labelled::{Example, FeatureSpec, Features, Frame, Label};
use danlu_data::tokenizer::{Kind, Tokenizer, TrainSpec, train as learn};
use danlu_models::{
    Backbone, BackboneConfig, Batch, BertConfig, Classifier, DecoderConfig, HeadConfig, LlamaConfig, Pooling, Task, names,
    to_named,
};
use danlu_train::auto::resolve_examples;
use danlu_train::objectives::classify::{Classify, ClassifyData, ClassifyRow, Rates, Target, is_new};
use danlu_train::{Event, Examples, Objective, Outline, Plan, Recipe, Run, Trained, train};

const GOOD: [&str; 4] = ["fine", "lovely", "good", "bright"];
const BAD: [&str; 4] = ["dull", "awful", "bad", "grim"];

fn texts() -> Vec<(String, usize)> {
    let text = |i: usize| {
        let label = (i * 7 / 3) % 2;
        let word = if label == 1 { GOOD } else { BAD }[i % 4];
        (format!("the {} number {i} was {word} to see", ["book", "hotel", "song"][i % 3]), label)
    };
    (0..120).map(text).collect()
}

fn tokenizer() -> Tokenizer {
    let spec = TrainSpec { kind: Kind::Bpe, vocab_size: 400, ..TrainSpec::default() };
    learn(&spec, texts().into_iter().map(|(text, _)| Ok(text))).unwrap()
}

struct Setup {
    plan: Plan,
    objective: Classify,
    head: HeadConfig,
    config: Option<BackboneConfig>,
    frozen: bool,
}

fn backbone(name: &str, vocabulary: usize) -> Option<BackboneConfig> {
    match name {
        "qwen3" => Some(BackboneConfig::Decoder(DecoderConfig::Qwen3(LlamaConfig::new(vocabulary, 32, 2, 8, 64)))),
        "bert" => Some(BackboneConfig::Bert(BertConfig::new(vocabulary, 32, 2, 64))),
        _ => None,
    }
}

fn setup(model: &str, task: Task, featured: bool, frozen: bool) -> Setup {
    setup_with(model, task, featured, frozen, "")
}

/// With more lines of a recipe.
fn setup_with(model: &str, task: Task, featured: bool, frozen: bool, more: &str) -> Setup {
    let (tokenizer, texts) = (tokenizer(), texts());
    let config = backbone(model, tokenizer.vocab_size());
    let frame = Frame::new(tokenizer.clone(), 64).unwrap();
    let example = |(text, label): &(String, usize)| {
        let tag = |word: &str| {
            if GOOD.contains(&word) {
                "good"
            } else if BAD.contains(&word) {
                "bad"
            } else {
                "other"
            }
        };
        let words = || text.split(' ').map(|word| (word.to_string(), tag(word).to_string())).collect();
        let label = match task {
            Task::Classes => Label::Class(["bad", "good"][*label].into()),
            Task::Number => Label::Number(*label as f64 * 2.0 - 0.5),
            Task::Tags => Label::Tags(words()),
        };
        Example { text: text.clone(), pair: None, label, numbers: vec![] }
    };
    let examples: Vec<Example> = texts.iter().map(example).collect();
    let labels: Vec<String> = match task {
        Task::Classes => vec!["bad".into(), "good".into()],
        Task::Number => vec![],
        Task::Tags => vec!["bad".into(), "good".into(), "other".into()],
    };
    let spec = FeatureSpec { counts: true, ngrams: Some((1, 3)), ngram_limit: 2000, ..FeatureSpec::default() };
    let features = featured.then(|| Features::fit(&spec, &examples[..90].iter().collect::<Vec<_>>()).unwrap());
    let place = |label: &str| labels.iter().position(|known| known == label).map(|place| place as u32);
    let row = |example: &Example| ClassifyRow {
        source: example.text.clone(),
        text: config.as_ref().map(|_| frame.example(example, place).unwrap()),
        features: features.as_ref().map_or(vec![], |features| features.of(example)),
        target: match &example.label {
            Label::Class(class) => Target::Class(place(class).unwrap()),
            Label::Number(number) => Target::Number(*number as f32),
            Label::Tags(_) => Target::Tags,
        },
    };
    let rows: Vec<ClassifyRow> = examples.iter().map(row).collect();
    let pooling = if model == "bert" { Pooling::First } else { Pooling::Last };
    let head = HeadConfig { task, labels: labels.clone(), pooling, features: features.as_ref().map_or(0, Features::len) };
    let text = "name = 'labels'\n[batch]\nexamples = 8\nmicro_tokens = 64\n[budget]\nsteps = 60\n[optimizer]\nkind = 'adamw'\nrate = 0.004\n\
                embedding_rate = 0.004\n[checkpoint]\nevery = 10\n[eval]\nevery = 1000\n[sample]\nevery = 0\n";
    let recipe = Recipe::from_toml(&format!("{text}{more}"), "labels", &[]).unwrap();
    let outline = Outline::of_classifier(config.as_ref(), &head, 1000, 1000);
    let plan = resolve_examples(&recipe, outline, &Examples { count: 90, tokens: 16, usual_batch: 8 }, 1e6, 1e11).unwrap();
    let data = ClassifyData {
        train: rows[..90].to_vec(),
        held_out: rows[90..].to_vec(),
        labels,
        task,
        tokenizer: config.as_ref().map(|_| tokenizer),
        feature_names: features.iter().flat_map(Features::names).map(str::to_string).collect(),
    };
    let objective = Classify::new(&plan, data, frozen, Rates { head: 2.0, features: 10.0 }).unwrap();
    Setup { plan, objective, head, config, frozen }
}

impl Setup {
    fn fresh(&self) -> Result<Classifier> {
        let device = Device::flex().autodiff();
        let backbone = self.config.as_ref().map(|config| Ok::<_, anyhow::Error>((Backbone::new(config, 5, &device)?, config)));
        let model = Classifier::new(backbone.transpose()?, &self.head, 5, &device)?;
        Ok(if self.frozen { names::freeze(model, |name| !is_new(name)) } else { model })
    }

    fn run(&self, folder: &Path, stop_at: Option<u64>) -> Trained<Classifier> {
        let (device, stop) = (Device::flex().autodiff(), AtomicBool::new(false));
        let run = Run { folder, plan: &self.plan, objective: &self.objective, device: &device, data: "labels", stop: &stop };
        let mut watch = |event: &Event| {
            if let Event::Step(step) = event {
                stop.store(stop_at == Some(step.step), Ordering::Relaxed);
            }
        };
        train(&run, || self.fresh(), &mut watch).unwrap()
    }
}

fn values(model: &Classifier) -> Vec<(String, Vec<f32>)> {
    to_named(model).unwrap().into_iter().map(|(name, data)| (name, data.try_into_vec().unwrap())).collect()
}

/// Learns, and stopped and begun again it ends in the same bits.
#[track_caller]
fn check(setup: &Setup, least: f64) {
    let whole = tempfile::tempdir().unwrap();
    let trained = setup.run(whole.path(), None);
    let measure = trained.summary.measure.as_ref().unwrap();
    let reached = if setup.head.task == Task::Number { -measure.value } else { measure.value };
    assert!(reached >= least, "{measure}");
    assert!(measure.low <= measure.value && measure.value <= measure.high && measure.items == 30, "{measure}");
    let parts = tempfile::tempdir().unwrap();
    assert!(!setup.run(parts.path(), Some(23)).summary.finished);
    assert!(values(&setup.run(parts.path(), None).model) == values(&trained.model), "a run that was stopped ended elsewhere");
}

#[test]
fn a_decoder_and_an_encoder_learn_classes_numbers_and_tags() {
    check(&setup("qwen3", Task::Classes, false, false), 0.9);
    check(&setup("bert", Task::Number, false, false), -0.7);
    check(&setup("qwen3", Task::Tags, false, false), 0.95);
}

#[test]
fn features_alone_and_beside_a_model_learn() {
    check(&setup("none", Task::Classes, true, false), 0.9);
    check(&setup("bert", Task::Classes, true, false), 0.9);
}

#[test]
fn a_frozen_model_stays_as_it_was_and_its_states_are_remembered_right() {
    let setup = setup("qwen3", Task::Classes, true, true);
    check(&setup, 0.8);
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (values(&setup.fresh().unwrap()), values(&setup.run(folder.path(), None).model));
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        assert_eq!(before == after, !is_new(name), "{name}");
    }
    // What is remembered is what the layers give: the same loss as without remembering.
    let plain = self::setup("qwen3", Task::Classes, true, false);
    let model = setup.fresh().unwrap();
    let loss = |of: &Setup| of.objective.loss(&model, &of.objective.batch(8).unwrap()).value.into_scalar::<f32>();
    assert!((loss(&setup) - loss(&plain)).abs() < 1e-5);
}

#[test]
fn a_decoder_goes_on_predicting_the_texts_whose_labels_it_learns() {
    let plain = setup("qwen3", Task::Classes, false, false);
    let both = setup_with("qwen3", Task::Classes, false, false, "[classify]\nauxiliary = 0.5\n");
    let model = both.fresh().unwrap();
    let loss = |of: &Setup| of.objective.loss(&model, &of.objective.batch(0).unwrap());
    let value = |of: &Setup| f64::from(loss(of).value.into_scalar::<f32>());

    // Text by text, by the decoder itself: each text weighs the same, however long it is.
    let Some(Backbone::Decoder(decoder)) = model.valid().backbone else { panic!("no decoder") };
    let frame = Frame::new(tokenizer(), 64).unwrap();
    let rows = both.plan.micro_rows;
    let one = |position: usize| {
        let ids = frame.encode(&texts()[both.objective.row(position as u64)].0, None).unwrap().ids;
        let (length, mut targets) = (ids.len(), ids[1..].to_vec());
        targets.push(danlu_ops::IGNORE);
        let nll = decoder.token_nll(&Batch::new(ids, targets, 1, length, vec![]));
        nll.iter().map(|&nats| f64::from(nats)).sum::<f64>() / (length - 1) as f64
    };
    let expected = (0..rows).map(one).sum::<f64>() / rows as f64;
    let found = value(&both) - value(&plain);
    assert!((found - 0.5 * expected).abs() < 1e-4 * expected, "{found} is not half of {expected}");
    let report = loss(&both).report;
    assert!(
        report.iter().any(|(name, value)| *name == "language_loss" && (value - expected).abs() < 1e-4 * expected),
        "{report:?}"
    );

    check(&both, 0.0);
}

#[test]
fn the_row_that_is_shown_says_what_carries_the_loss() {
    let shown = |setup: &Setup| setup.objective.show(&setup.objective.batch(0).unwrap()).unwrap();
    let tags = shown(&setup("qwen3", Task::Tags, false, false));
    assert!(tags.with_loss() >= 7 && tags.with_loss() < tags.tokens.len(), "one token of each word: {tags:?}");
    let linear = shown(&setup("none", Task::Classes, true, false));
    assert!(linear.text.contains("the ") && linear.tokens.iter().any(|(_, name, _)| name.starts_with("log of characters=")));
}

#[test]
fn data_that_teaches_nothing_is_refused() {
    let Setup { plan, .. } = setup("none", Task::Classes, true, false);
    let row = |class| ClassifyRow {
        source: "text".into(),
        text: None,
        features: vec![(0, 1.0)],
        target: if class < 9 { Target::Class(class) } else { Target::Number(class as f32) },
    };
    let says = |train: &[u32], held_out: &[u32], labels: &[&str], part: &str| {
        let rows = |classes: &[u32]| classes.iter().map(|class| row(*class)).collect();
        let data = ClassifyData {
            train: rows(train),
            held_out: rows(held_out),
            labels: labels.iter().map(|label| label.to_string()).collect(),
            task: if labels.is_empty() { Task::Number } else { Task::Classes },
            tokenizer: None,
            feature_names: vec!["x".into()],
        };
        let error = Classify::new(&plan, data, false, Rates { head: 1.0, features: 1.0 }).err().expect(part).to_string();
        assert!(error.contains(part), "{error}");
    };
    says(&[], &[0], &["a", "b"], "no labelled text to train on");
    says(&[0, 1], &[], &["a", "b"], "raise `data.held_out`");
    says(&[1, 1], &[1, 0], &["a", "b"], "all 2 texts to train on have the label \"b\"");
    says(&[0, 1], &[2], &["a", "b", "c"], "\"c\" is on held-out texts alone");
    says(&[0, 1], &[1], &["a", "b", "c"], "no text has the label \"c\"");
    says(&[9, 9], &[9], &[], "all 2 numbers to train on are 9");
}

/// Pictures of 12×12 that are bright above or below, with noise, as IDX files with a test set.
fn pictures(dir: &Path) -> danlu_data::images::ImageSet {
    let write = |name: &str, count: u32, first: u32| {
        let picture = |i: u32| {
            (0..144u32).map(move |at| {
                let noise = (i.wrapping_mul(2_654_435_761) ^ at.wrapping_mul(40_503)).wrapping_mul(2_246_822_519) >> 26;
                let bright = (at / 12 < 6) == i.is_multiple_of(2);
                (noise + if bright { 150 } else { 20 }) as u8
            })
        };
        let header = |dimensions: &[u32]| {
            let numbers = dimensions.iter().flat_map(|n| n.to_be_bytes());
            [0, 0, 8, dimensions.len() as u8].into_iter().chain(numbers).collect::<Vec<u8>>()
        };
        let pixels: Vec<u8> = (first..first + count).flat_map(picture).collect();
        std::fs::write(dir.join(format!("{name}-images-idx3-ubyte")), [header(&[count, 12, 12]), pixels].concat()).unwrap();
        let labels: Vec<u8> = (first..first + count).map(|i| (i % 2) as u8).collect();
        std::fs::write(dir.join(format!("{name}-labels-idx1-ubyte")), [header(&[count]), labels].concat()).unwrap();
    };
    write("train", 160, 0);
    write("test", 40, 1000);
    danlu_data::images::read(&[dir.to_path_buf()], &danlu_data::images::Wanted::default()).unwrap()
}

/// A run of an objective on the made-up pictures in a folder, perhaps stopped after a step.
fn trained_in<O: Objective>(
    folder: &Path,
    (plan, objective): (&Plan, &O),
    fresh: impl FnOnce(&Device) -> Result<O::Model>,
    stop_at: Option<u64>,
) -> Trained<O::Model> {
    let (device, stop) = (Device::flex().autodiff(), AtomicBool::new(false));
    let run = Run { folder, plan, objective, device: &device, data: "pictures", stop: &stop };
    let mut watch = |event: &Event| {
        if let Event::Step(step) = event {
            stop.store(stop_at == Some(step.step), Ordering::Relaxed);
        }
    };
    train(&run, || fresh(&device), &mut watch).unwrap()
}

/// The measure of a whole run, and its model; one that was stopped and begun again ends in the same bits.
fn exact<O: Objective>(
    plan: &Plan,
    objective: &O,
    fresh: impl Fn(&Device) -> Result<O::Model>,
) -> (danlu_eval::Measure, O::Model) {
    let weights = |model: &O::Model| -> Vec<(String, Vec<f32>)> {
        to_named(model).unwrap().into_iter().map(|(name, data)| (name, data.try_into_vec().unwrap())).collect()
    };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trained = trained_in(whole.path(), (plan, objective), &fresh, None);
    assert!(!trained_in(parts.path(), (plan, objective), &fresh, Some(23)).summary.finished);
    let again = trained_in(parts.path(), (plan, objective), &fresh, None);
    assert!(weights(&again.model) == weights(&trained.model), "a run that was stopped ended elsewhere");
    let measure = trained.summary.measure.unwrap();
    assert!(measure.low <= measure.value && measure.value <= measure.high, "{measure}");
    (measure, trained.model)
}

fn picture_recipe(more: &str) -> Recipe {
    let text = format!(
        "name = 'pictures'\n[image]\nflip = true\nshift = 1\n{more}\n[batch]\nexamples = 16\nmicro_tokens = 8\n[checkpoint]\nevery = 10\n\
         [eval]\nevery = 1000\n[sample]\nevery = 0\n"
    );
    Recipe::from_toml(&text, "pictures", &[]).unwrap()
}

const PICTURES: Examples = Examples { count: 160, tokens: 1, usual_batch: 16 };

/// Both forms of LeNet learn pictures, and stopped and begun again they end in the same bits, changed pictures and all.
#[test]
fn lenets_learn_pictures_and_go_on_bit_for_bit() {
    use danlu_data::images::Scale;
    use danlu_models::{LenetConfig, LenetForm, PictureClassifier, PictureConfig, PictureLabeller};
    use danlu_train::ImageClassify;
    let dir = tempfile::tempdir().unwrap();
    let set = std::sync::Arc::new(pictures(dir.path()));
    assert_eq!((set.train.len(), set.held_out.len(), set.own_test), (160, 40, true), "{:?}", set.set_aside);
    for form in [LenetForm::Paper, LenetForm::Modern] {
        let config = LenetConfig::new(form, [1, 12, 12], &[4, 6], &[12], set.classes.clone());
        let recipe = picture_recipe(
            "[model]\nkind = 'lenet'\n[objective]\nkind = 'image-classify'\n[optimizer]\nkind = 'adamw'\nrate = 0.01\n\
             embedding_rate = 0.01\n[budget]\nsteps = 60",
        );
        let plan = resolve_examples(&recipe, Outline::from(&config), &PICTURES, config.flops(), 1e11).unwrap();
        assert_eq!((plan.rows, plan.micro_rows, plan.row_len), (16, 8, 1));
        let objective = ImageClassify::new(&plan, set.clone(), Scale::of(&set.train)).unwrap();
        let config = PictureConfig::Lenet(config);
        let (measure, _) =
            exact(&plan, &objective, |device| Ok(PictureLabeller::from(PictureClassifier::new(&config, 5, device)?)));
        assert!(measure.value >= 0.9 && measure.items == 40, "{form:?}: {measure}");
        // Each picture is seen once an epoch, and changed otherwise in the next.
        let mut seen: Vec<usize> = (0..160).map(|position| objective.row(position)).collect();
        seen.sort_unstable();
        assert!(seen.iter().enumerate().all(|(i, row)| i == *row));
    }
}

/// Features beside a network and alone, a network that is frozen, and one with an adapter: each learns, moves what it should, and goes on bit
/// for bit.
#[test]
fn every_way_of_using_a_network_of_pictures_goes_on_bit_for_bit() {
    use danlu_data::images::{PictureFeatureSpec, PictureFeatures, Scale};
    use danlu_models::{
        AdapterSpec, LoraSpec, PictureClassifier, PictureConfig, PictureLabeller, PictureLabellerConfig, VitConfig, trained,
    };
    use danlu_train::ImageClassify;
    let dir = tempfile::tempdir().unwrap();
    let set = std::sync::Arc::new(pictures(dir.path()));
    let scale = Scale::of(&set.train);
    let spec = PictureFeatureSpec { gradients: true, brightness: true, cell: 4 };
    let features = PictureFeatures::fit(&spec, &set.train, &scale).unwrap();
    assert_eq!(features.len(), 4 * 36 + 2 + 9);
    let vit = VitConfig { labels: set.classes.clone(), ..VitConfig::new([1, 12, 12], 4, 32, 2) };
    let beside = PictureLabellerConfig::of(PictureConfig::Vit(vit.clone()), features.len());
    let alone = PictureLabellerConfig { network: None, ..beside.clone() };
    let plan = |still: bool, steps: usize| {
        let mut recipe = picture_recipe(&format!(
            "[model]\nkind = 'vit'\n[objective]\nkind = 'image-classify'\n[optimizer]\nkind = 'adamw'\nrate = 0.004\n\
             embedding_rate = 0.004\n[budget]\nsteps = {steps}"
        ));
        if still {
            (recipe.image.flip, recipe.image.shift) = (false, 0);
        }
        resolve_examples(&recipe, Outline::of_vit(&vit, 9), &PICTURES, vit.flops(9), 1e11).unwrap()
    };
    let objective = |plan: &Plan| ImageClassify::new(plan, set.clone(), scale.clone()).unwrap();
    let network = |device: &Device| PictureClassifier::new(&PictureConfig::Vit(vit.clone()), 5, device);

    let changing = plan(false, 160);
    let featured = objective(&changing).with_features(Some(features.clone()));
    let shown = featured.show(&featured.batch(0).unwrap()).unwrap();
    assert!(shown.text.contains("155 features"), "{}", shown.text);
    assert_eq!((featured.rate_factor("features.weight"), featured.rate_factor("vit.layernorm.weight")), (0.02 / 0.004, 1.0));
    let (linear, _) = exact(&changing, &featured, |device| PictureLabeller::new(None, &alone, device));
    assert!(linear.value >= 0.9 && linear.items == 40, "{linear}");
    let (both, _) = exact(&changing, &featured, |device| PictureLabeller::new(Some(network(device)?), &beside, device));
    assert!(both.value >= 0.9 && both.items == 40, "{both}");

    // What frozen layers make of a picture is remembered, and is what they make of it.
    let still = plan(true, 60);
    assert!(objective(&changing).with_frozen_layers().err().unwrap().to_string().contains("[image]"));
    let remembering = objective(&still).with_frozen_layers().unwrap();
    let frozen = |device: &Device| -> Result<PictureLabeller> {
        Ok(names::freeze(PictureLabeller::from(network(device)?), |name| !is_new(name)))
    };
    let device = Device::flex().autodiff();
    let fresh = frozen(&device).unwrap();
    assert_eq!(trained(&fresh), ["classifier.weight", "classifier.bias"]);
    let loss = |measure: danlu_eval::Measure| measure.others.into_iter().find(|(name, _)| *name == "loss").unwrap().1;
    let before = loss(objective(&still).measure(&fresh, 40).unwrap());
    for _ in 0..2 {
        let found = loss(remembering.measure(&fresh, 40).unwrap());
        assert!((before - found).abs() < 1e-4, "{before} {found}");
    }
    let transferred = loss(exact(&still, &objective(&still).with_frozen_layers().unwrap(), frozen).0);
    assert!(transferred < before, "{transferred} {before}");

    let spec = AdapterSpec::Lora(LoraSpec { rank: 4, alpha: 8.0, ..LoraSpec::default() });
    let adapted = |device: &Device| -> Result<PictureLabeller> {
        let PictureClassifier::Vit(mut model) = network(device)? else { unreachable!("it is one") };
        model.vit = model.vit.with_adapter(&spec, 5)?;
        Ok(PictureLabeller::from(PictureClassifier::Vit(model)))
    };
    assert_eq!(trained(&adapted(&device).unwrap()).len(), 2 * 6 * 2 + 2);
    let adapted = loss(exact(&changing, &objective(&changing), adapted).0);
    assert!(adapted < before, "{adapted} {before}");
}

/// A Vision Transformer learns pictures of which it sees some patches at a time, turned and with parts erased; a masked autoencoder learns what
/// is hidden; and both go on bit for bit.
#[test]
fn vision_transformers_learn_pictures_and_go_on_bit_for_bit() {
    use danlu_data::images::Scale;
    use danlu_models::{Mae, MaeConfig, PictureClassifier, PictureConfig, PictureLabeller, VitConfig};
    use danlu_train::{ImageClassify, MaskedImage};
    let dir = tempfile::tempdir().unwrap();
    let set = std::sync::Arc::new(pictures(dir.path()));
    let config = VitConfig { labels: set.classes.clone(), ..VitConfig::new([1, 12, 12], 4, 32, 2) };
    let rates = "[optimizer]\nkind = 'muon'\nrate = 0.004\nembedding_rate = 0.004\nmuon_rate = 0.03\n[model]\nkind = 'vit'\n[budget]\nsteps = 300\n";
    let recipe = picture_recipe(&format!(
        "operations = 1\nmagnitude = 0.2\nerase = 0.2\nsmoothing = 0.05\n[vit]\nkeep = 0.67\n{rates}[objective]\nkind = 'image-classify'"
    ));
    let plan = resolve_examples(&recipe, Outline::of_vit(&config, 6), &PICTURES, config.flops(6), 1e11).unwrap();
    let objective = ImageClassify::new(&plan, set.clone(), Scale::of(&set.train)).unwrap();
    let shown = objective.show(&objective.batch(0).unwrap()).unwrap();
    assert!(shown.text.contains("6 of 9 patches seen"), "{}", shown.text);
    let of_any = PictureConfig::Vit(config.clone());
    let (measure, _) = exact(&plan, &objective, |device| Ok(PictureLabeller::from(PictureClassifier::new(&of_any, 5, device)?)));
    assert!(measure.value >= 0.8 && measure.items == 40, "{measure}");

    let config = MaeConfig { mask_ratio: 0.5, norm_pix_loss: false, ..MaeConfig::new(config, 32, 1) };
    let recipe = picture_recipe(&format!("{rates}[objective]\nkind = 'masked-image'"));
    let plan = resolve_examples(&recipe, Outline::from(&config), &PICTURES, config.flops(), 1e11).unwrap();
    let objective = MaskedImage::new(&plan, set.clone(), Scale::of(&set.train), config.kept()).unwrap();
    assert_eq!(objective.show(&objective.batch(0).unwrap()).unwrap().with_loss(), 5);
    let before = objective.measure(&Mae::new(&config, 5, &Device::flex().autodiff()).unwrap(), 40).unwrap();
    let (after, _) = exact(&plan, &objective, |device| Mae::new(&config, 5, device));
    assert!(after.value < 0.6 * before.value && after.items == 40, "{before} to {after}");
}

/// A folder for each of 24 identities with ten pictures of 12×12: of one colour above and another below, with noise.
fn identities(dir: &Path) -> std::sync::Arc<danlu_data::images::Identities> {
    for identity in 0..24usize {
        let folder = dir.join(format!("who-{identity}"));
        std::fs::create_dir(&folder).unwrap();
        for i in 0..10 {
            let value = |at: usize| {
                let color = if at % 144 < 72 { identity % 5 } else { identity / 5 };
                let noise = ((identity * 7919 + i * 104_729 + at * 40_503).wrapping_mul(2_654_435_761) >> 8) % 32;
                ((color + 2 * (at / 144)) % 5 * 40 + noise) as u8
            };
            let pixels: Vec<u8> = (0..3 * 144).map(value).collect();
            std::fs::write(folder.join(format!("{i}.png")), danlu_data::images::sheet(&pixels, [3, 12, 12], 1).unwrap()).unwrap();
        }
    }
    let wanted = danlu_data::images::Wanted { held_out: 0.3, ..Default::default() };
    std::sync::Arc::new(danlu_data::images::Identities::of_folders(dir, &wanted).unwrap())
}

/// A network that tells identities apart with a margin finds others again that it has never seen, and goes on bit for bit.
#[test]
fn recognizers_learn_identities_and_go_on_bit_for_bit() {
    use danlu_models::{Recognizer, VitConfig, VitEmbedder, VitEmbedderConfig};
    use danlu_train::ImageEmbed;
    let dir = tempfile::tempdir().unwrap();
    let identities = identities(dir.path());
    assert!(identities.names.iter().all(|name| !identities.held_out_names.contains(name)));
    let config = VitEmbedderConfig { vit: VitConfig::new([3, 12, 12], 4, 32, 2), embedding_size: 16 };
    let count = identities.names.len();
    let recipe = picture_recipe(
        "[embed]\nsize = 16\nmargin = 0.2\nscale = 16.0\n[optimizer]\nkind = 'muon'\nrate = 0.004\nembedding_rate = 0.004\n\
         muon_rate = 0.03\n[model]\nkind = 'vit'\n[vit]\nkeep = 0.67\n[objective]\nkind = 'image-embed'\n[budget]\nsteps = 300",
    );
    let outline = Outline::of_embedder(&config, 6, count);
    let plan = resolve_examples(&recipe, outline, &PICTURES, config.flops(6, count), 1e11).unwrap();
    let objective = ImageEmbed::new(&plan, identities.clone(), identities.scale()).unwrap();
    let fresh = |device: &Device| Recognizer::new(VitEmbedder::new(&config, 5, device)?, &config, count, 5, device);
    // The same pictures before and after: what is not trained on them cannot name them, and has a margin to lose as well.
    let loss = |model: &Recognizer| {
        let costs = (0..4).map(|i| objective.loss(model, &objective.batch(8 * i).unwrap()).value.into_scalar::<f32>());
        costs.sum::<f32>() / 4.0
    };
    let before = loss(&fresh(&Device::flex().autodiff()).unwrap());
    let (measure, model) = exact(&plan, &objective, fresh);
    let after = loss(&model);
    assert!(after < 0.5 * before, "the loss went from {before} to {after}");
    assert!(measure.value > 0.75 && measure.items == 6000, "{measure}");
    assert_eq!(objective.samples(&model, 3).unwrap().len(), 4);
}

/// Coloured rectangles on noise, one in each picture, with their boxes, masks and two corners, as folders in COCO's format.
fn rectangles(dir: &Path) -> danlu_data::scenes::SceneSet {
    use danlu_data::scenes::coco::{self, Class};
    use danlu_data::scenes::{Instance, Kept, Keypoint, Picture, Rle, SceneSet, Visibility};
    let class = |(id, name): (u64, &str)| Class { id, name: name.into(), keypoints: vec!["first".into(), "last".into()] };
    let classes: Vec<Class> = (1..).zip(["red", "green"]).map(class).collect();
    let write = |split: &str, count: u64, first: u64| {
        let picture = |index: u64| {
            let random = |stream: u64| {
                ((index + first).wrapping_mul(2_654_435_761) ^ stream.wrapping_mul(40_503)).wrapping_mul(2_246_822_519) >> 20
            };
            let (wide, high) = (10 + random(1) % 9, 10 + random(2) % 9);
            let (left, top) = (random(3) % (33 - wide), random(4) % (33 - high));
            let is_in = |y: u64, x: u64| (top..top + high).contains(&y) && (left..left + wide).contains(&x);
            let class = (index + first) % 2;
            let pixel = |at: u64| {
                let (channel, y, x) = (at / 1024, at / 32 % 32, at % 32);
                let noise = random(10 + at) % 60;
                (if is_in(y, x) && channel == class { 180 + noise } else { noise }) as u8
            };
            let at = |x: u64, y: u64| Keypoint { x: x as f64, y: y as f64, visibility: Visibility::Visible };
            let thing = Instance {
                class: class as u32,
                bbox: [left, top, wide, high].map(|side| side as f64),
                area: (wide * high) as f64,
                mask: Some(Rle::of_bitmap(32, 32, |y, x| is_in(u64::from(y), u64::from(x)))),
                keypoints: vec![at(left, top), at(left + wide, top + high)],
                crowd: false,
                identity: None,
            };
            (Picture { height: 32, width: 32, pixels: (0..3072).map(pixel).collect() }, vec![thing])
        };
        let folder = dir.join(split);
        coco::write(&folder, &classes, count, picture).unwrap();
        let (from, to) = (folder.join("instances.json"), folder.join(format!("instances_{split}.json")));
        std::fs::rename(from, &to).unwrap();
        (to, folder.join("images"))
    };
    let files = vec![write("train", 160, 0), write("val", 40, 1000)];
    SceneSet::kept(files, &Kept { height: 32, width: 32, alone: false, held_out: 0.2, seed: 0 }).unwrap()
}

/// A Vision Transformer learns boxes, pixels and points, and goes on bit for bit.
#[test]
fn vision_transformers_learn_what_is_where_and_go_on_bit_for_bit() {
    use danlu_data::images::Scale;
    use danlu_data::scenes::Side;
    use danlu_models::{DenseConfig, DenseTask, VitConfig, VitDense};
    use danlu_train::Dense;
    use danlu_train::objectives::dense::{guesses, is_shown};
    let dir = tempfile::tempdir().unwrap();
    let set = std::sync::Arc::new(rectangles(dir.path()));
    assert_eq!((set.count(Side::Train), set.count(Side::HeldOut)), (160, 40), "{:?}", set.set_aside);
    let labels: Vec<String> = set.classes.iter().map(|class| class.name.clone()).collect();
    let scale = Scale { mean: vec![0.15; 3], deviation: vec![0.2; 3] };
    for (task, kind, least) in
        [(DenseTask::Detect, "detect", 0.05), (DenseTask::Segment, "segment", 0.5), (DenseTask::Pose, "pose", 0.1)]
    {
        let vit = VitConfig { labels: labels.clone(), ..VitConfig::new([3, 32, 32], 8, 32, 2) };
        let keypoints = if task == DenseTask::Pose { set.classes[0].keypoints.clone() } else { vec![] };
        let config = DenseConfig { vit, task, keypoints, stride: task.usual_stride(8) };
        let recipe = format!(
            "name = 'places'\n[objective]\nkind = '{kind}'\n[model]\nkind = 'vit'\n[vit]\npatch = 8\n[batch]\nexamples = 16\nmicro_tokens = 8\n\
             [optimizer]\nkind = 'muon'\nrate = 0.004\nembedding_rate = 0.004\nmuon_rate = 0.03\n[checkpoint]\nevery = 10\n[eval]\n\
             every = 1000\n[sample]\nevery = 0\n[budget]\nsteps = 300\n"
        );
        let recipe = Recipe::from_toml(&recipe, "places", &[]).unwrap();
        let plan = resolve_examples(&recipe, Outline::from(&config), &PICTURES, config.flops(), 1e11).unwrap();
        let objective = Dense::new(&plan, set.clone(), scale.clone(), config.clone()).unwrap();
        let shown = objective.show(&objective.batch(0).unwrap()).unwrap();
        assert!(shown.text.contains("3×32×32") && shown.with_loss() >= 1, "{shown:?}");
        let fresh = |device: &Device| VitDense::new(&config, 5, device);
        let model = fresh(&Device::flex().autodiff()).unwrap();
        let before = objective.measure(&model, 40).unwrap();
        let first = objective.loss(&model, &objective.batch(0).unwrap()).value.into_scalar::<f32>();
        let (after, trained) = exact(&plan, &objective, fresh);
        assert!(after.value > before.value && after.value >= least, "{kind}: {before} to {after}");
        let folder = tempfile::tempdir().unwrap();
        let last = objective.loss(&trained, &objective.batch(0).unwrap()).value.into_scalar::<f32>();
        assert!(last < 0.8 * first, "{kind}: a loss of {first} became {last}");

        // Saved and loaded it sees the same things, and draws them.
        let at = folder.path().join("model");
        std::fs::create_dir(&at).unwrap();
        danlu_models::folder::save_dense(&trained.valid(), &config, &at).unwrap();
        let (read, found) = danlu_models::folder::load_dense(&at, &Device::flex()).unwrap();
        let pictures: Vec<_> = (0..4).map(|index| set.held_out(index).picture).collect();
        let seen = guesses(&trained.valid(), &config, &scale, &pictures).unwrap();
        assert_eq!(guesses(&read, &found, &scale, &pictures).unwrap(), seen);
        assert!(task == DenseTask::Detect || seen.iter().flatten().any(|guess| is_shown(&config, guess)), "{kind}: {seen:?}");
        let png = objective.sheet(&trained).unwrap().unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        assert_eq!(objective.samples(&trained, 0).unwrap().len(), 3);
    }
}
