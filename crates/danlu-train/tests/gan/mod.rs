//! Networks that learn against each other: each kind goes on bit for bit, and moves the right way.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use danlu_data::images::{ImageSet, Images, Scale};
use danlu_models::{Gan, GanConfig, GanForm, Lenet, LenetConfig, LenetForm, to_named};
use danlu_train::auto::resolve_examples;
use danlu_train::metrics::read_metrics;
use danlu_train::objectives::adversarial::{Judge, drawn, settled};
use danlu_train::{Adversarial, Event, Examples, Objective, Outline, Plan, Recipe, Run, Trained, train};

const SIDE: usize = 8;

/// Pictures that are bright on the left, all of them a little different.
fn pictures(count: usize, seed: usize) -> Images {
    let pixel = |picture: usize, at: usize| {
        let left = at % SIDE < SIDE / 2;
        let noise = ((picture * 31 + at * 17 + seed * 7) % 23) as u8;
        if left { 200 + noise } else { 20 + noise }
    };
    let pixels = (0..count).flat_map(|picture| (0..SIDE * SIDE).map(move |at| pixel(picture, at))).collect();
    Images::of_pixels(pixels, [1, SIDE, SIDE]).unwrap()
}

fn set() -> Arc<ImageSet> {
    let classes = vec!["side".to_string()];
    Arc::new(ImageSet { train: pictures(80, 1), held_out: pictures(40, 2), classes, own_test: true, set_aside: vec![] })
}

fn plan(config: &GanConfig, settings: &[&str]) -> Plan {
    let text = "name = 'gan'\n[objective]\nkind = 'gan'\n[model]\nkind = 'gan'\n[gan]\nlatent = 6\nscored = 40\n[batch]\nexamples = 16\n\
                micro_tokens = 16\n[budget]\nsteps = 24\n[optimizer]\nkind = 'adamw'\nrate = 0.002\nembedding_rate = 0.002\nbeta1 = 0.5\n\
                clip = 0.0\nweight_decay = 0.0\nwarmup = 0.0\n[checkpoint]\nevery = 3\n[eval]\nevery = 1000\n[sample]\nevery = 12\n";
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    let recipe = Recipe::from_toml(text, "gan", &settings).unwrap();
    let examples = Examples { count: 80, tokens: 1, usual_batch: 16 };
    resolve_examples(&recipe, Outline::from(config), &examples, config.flops(), 1e11).unwrap()
}

fn config(form: GanForm, spectral: bool) -> GanConfig {
    let widths: &[usize] = if form == GanForm::Mlp { &[16, 24] } else { &[8, 4] };
    GanConfig::new(form, [1, SIDE, SIDE], 6, widths, spectral)
}

fn judge() -> Judge {
    let labels = ["left", "right"].map(String::from).to_vec();
    let config = LenetConfig::new(LenetForm::Paper, [1, SIDE, SIDE], &[4], &[10], labels);
    let lenet = Lenet::new(&config, 1, &Device::flex()).unwrap();
    Judge::new(lenet, Scale { mean: vec![0.5], deviation: vec![0.5] }, &set()).unwrap()
}

fn run(
    folder: &Path,
    plan: &Plan,
    config: &GanConfig,
    judge: Option<Judge>,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&Event),
) -> Result<Trained<Gan>> {
    let device = Device::flex().autodiff();
    let objective = Adversarial::new(plan, set(), judge)?;
    let run = Run { folder, plan, objective: &objective, device: &device, data: "sides", stop };
    train(&run, || Gan::new(config, 5, &device), &mut |event: &Event| watch(event))
}

fn weights(model: &Gan) -> Vec<(String, Vec<f32>)> {
    let named = to_named(model).unwrap();
    named.into_iter().map(|(name, values)| (name, values.try_into_vec::<f32>().unwrap())).collect()
}

#[test]
fn stopped_and_resumed_both_networks_are_the_same_bit_for_bit() {
    for (form, spectral, loss) in [
        (GanForm::Mlp, false, "gan.loss=non-saturating"),
        (GanForm::Mlp, true, "gan.loss=hinge"),
        (GanForm::Dcgan, false, "gan.loss=non-saturating"),
        (GanForm::Dcgan, true, "gan.loss=hinge"),
    ] {
        let (config, norm) = (config(form, spectral), format!("gan.spectral_norm={spectral}"));
        let plan = plan(&config, &[loss, &norm]);
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let never = AtomicBool::new(false);
        let straight = run(whole.path(), &plan, &config, None, &never, &mut |_| ()).unwrap();
        let before = weights(&Gan::new(&config, 5, &Device::flex()).unwrap());
        let after = weights(&straight.model);
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            assert!(before != after || name.ends_with(".bias"), "{form:?}: {name} did not move");
            assert!(after.iter().all(|x| x.is_finite()), "{form:?}: {name}");
        }
        let mut sessions = 0;
        let resumed = loop {
            let stop = AtomicBool::new(false);
            let mut here = 0;
            let mut watch = |event: &Event| {
                if let Event::Step(_) = event {
                    here += 1;
                    stop.store(here == 7, Ordering::Relaxed);
                }
            };
            let trained = run(parts.path(), &plan, &config, None, &stop, &mut watch).unwrap();
            sessions += 1;
            if trained.summary.finished {
                break trained;
            }
        };
        assert!(sessions >= 3, "{sessions}");
        assert!(after == weights(&resumed.model), "{form:?} {loss}: the weights differ");
        let sheet = |folder: &Path, step: u64| std::fs::read(folder.join(format!("samples/step-{step:08}.png"))).unwrap();
        for step in [12, 24] {
            assert!(sheet(whole.path(), step).starts_with(b"\x89PNG"));
            assert!(sheet(whole.path(), step) == sheet(parts.path(), step), "{form:?} {loss}: sheets differ at {step}");
        }
    }
}

/// What is drawn comes nearer to what is real, by the features of a network, and the log has the scores.
#[test]
fn drawn_pictures_come_nearer_to_real_ones() {
    let config = config(GanForm::Mlp, false);
    let plan = plan(&config, &["budget.steps=400", "checkpoint.every=1000", "sample.every=0"]);
    let dir = tempfile::tempdir().unwrap();
    let mut measured = vec![];
    let never = AtomicBool::new(false);
    let mut watch = |event: &Event| {
        if let Event::Measured { measure, .. } = event {
            measured.push((*measure).clone());
        }
    };
    let trained = run(dir.path(), &plan, &config, Some(judge()), &never, &mut watch).unwrap();
    let [first, last] = &measured[..] else { panic!("{measured:?}") };
    assert_eq!((first.unit.name, last.items), ("frechet_distance", 40));
    assert!(last.value < 0.5 * first.value, "{} after {}", last.value, first.value);
    let rows = read_metrics(&dir.path().join("metrics.jsonl")).unwrap();
    let end = rows.iter().find(|row| row["kind"] == "final").unwrap();
    for key in ["precision", "recall", "told_apart"] {
        assert!((0.0..=1.0).contains(&end[key].as_f64().unwrap()), "{key}: {end:?}");
    }
    let step = rows.iter().find(|row| row["kind"] == "train").unwrap();
    for key in ["discriminator_loss", "generator_loss", "real_taken", "drawn_taken"] {
        assert!(step[key].is_number(), "{key}: {step:?}");
    }
    // A settled generator draws the same pictures however many are asked for.
    let generator = settled(&trained.model.generator.valid(), 5);
    let all = drawn(&generator, 5, 0, 300).unwrap();
    assert_eq!(all.len(), 300 * SIDE * SIDE);
    let some = drawn(&generator, 5, 290, 10).unwrap();
    let far = all[290 * SIDE * SIDE..].iter().zip(&some).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(far <= Some(1), "{far:?}");
}

#[test]
fn what_cannot_be_played_is_refused() {
    let config = config(GanForm::Mlp, false);
    let refused = |plan: &Plan, set: Arc<ImageSet>, says: &str| {
        let error = Adversarial::new(plan, set, None).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(&plan(&config, &["batch.micro_tokens=8"]), set(), "one piece");
    let empty = ImageSet { train: Images::default(), ..(*set()).clone() };
    refused(&plan(&config, &[]), Arc::new(empty), "no pictures to train on");
    let other = LenetConfig::new(LenetForm::Paper, [1, 16, 16], &[4], &[10], ["left", "right"].map(String::from).to_vec());
    let lenet = Lenet::new(&other, 1, &Device::flex()).unwrap();
    let error = Judge::new(lenet, Scale { mean: vec![0.5], deviation: vec![0.5] }, &set()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("1×16×16"), "{error}");
    // Both rates are the recipe's, each network by its name.
    let objective = Adversarial::new(&plan(&config, &["gan.discriminator_rate=4"]), set(), None).unwrap();
    assert_eq!(
        (objective.rate_factor("generator.layers.0.weight"), objective.rate_factor("discriminator.layers.0.weight")),
        (1.0, 4.0)
    );
}
