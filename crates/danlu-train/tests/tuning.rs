//! Adapters and partial tuning through the trainer: only what is trained moves and is kept, and a run goes on exactly, with the base it began with.

#[allow(dead_code, reason = "the runs here start from a folder")]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use burn::tensor::Device;
use common::{DATA, Toy, VOCABULARY, device};
use danlu_models::{Decoder, DecoderConfig, LlamaConfig, folder, names, trained};
use danlu_train::auto::resolve;
use danlu_train::{Event, Facts, Plan, Recipe, Run, checkpoint, initial_model, train};

/// A folder with a model of three layers.
fn base(dir: &Path, seed: u64) -> String {
    let config = DecoderConfig::Llama(LlamaConfig::new(VOCABULARY, 32, 3, 16, 64));
    folder::save(&Decoder::new(&config, seed, &Device::flex()).unwrap(), &config, dir).unwrap();
    dir.display().to_string()
}

fn planned(base: &str, settings: &[&str]) -> Result<(Plan, DecoderConfig)> {
    let text = format!(
        "name = 'toy'\n[model]\nfrom = {base:?}\ncontext = 16\n[batch]\ntokens = 128\nmicro_tokens = 32\n[optimizer]\nkind = 'adamw'\n\
         rate = 0.01\n[budget]\nsteps = 8\n[checkpoint]\nevery = 2\nkeep = 2\n"
    );
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    let recipe = Recipe::from_toml(&text, "toy", &settings)?;
    resolve(&recipe, &Facts { vocabulary: VOCABULARY, train_tokens: 100_000, gemm_rate: 1e11 })
}

fn weights(decoder: &Decoder) -> BTreeMap<String, Vec<f32>> {
    let all = names::to_named(decoder).unwrap().into_iter();
    all.map(|(name, values)| (name, values.try_into_vec().unwrap())).collect()
}

/// Trains in `folder`, and stops after `until` steps when it is given.
fn run(folder: &Path, (plan, config): &(Plan, DecoderConfig), until: Option<u64>) -> Result<Decoder> {
    let (stop, device, toy) = (AtomicBool::new(false), device(), Toy::new(plan));
    let mut watch = |event: &Event| {
        if let Event::Step(step) = event {
            stop.store(Some(step.step) == until, Ordering::Relaxed);
        }
    };
    let run = Run { folder, plan, objective: &toy, device: &device, data: DATA, stop: &stop };
    Ok(train(&run, || initial_model(&plan.recipe, config, &device), &mut watch)?.model)
}

const CASES: [(&str, &[&str]); 7] = [
    ("lora", &["adapter.kind=lora", "adapter.rank=4"]),
    ("dora", &["adapter.kind=dora", "adapter.rank=4", "adapter.targets=q_proj,down_proj"]),
    ("qlora", &["adapter.kind=lora", "adapter.rank=4", "adapter.base=nf4"]),
    ("prompt", &["adapter.kind=prompt", "adapter.tokens=3"]),
    ("last-layers", &["tune.part=last-layers", "tune.layers=1"]),
    ("head", &["tune.part=head", "tune.rate_decay=0.5"]),
    ("norms", &["tune.part=norms"]),
];

#[test]
fn only_what_is_trained_moves_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(&dir.path().join("base"), 1);
    for (name, settings) in CASES {
        let planned = planned(&base, settings).unwrap();
        let (plan, config) = &planned;
        let fresh = initial_model(&plan.recipe, config, &device()).unwrap();
        let (before, moving) = (weights(&fresh), trained(&fresh));
        let count: usize = moving.iter().map(|name| before[name].len()).sum();
        assert_eq!(plan.model.trained, count as u64, "{name}: the plan counts others than are trained");
        let model = run(&dir.path().join(name), &planned, None).unwrap();
        for (parameter, after) in weights(&model) {
            let moved = before[&parameter] != after;
            assert_eq!(moved, moving.contains(&parameter), "{name}: {parameter}");
        }
        let kept = checkpoint::latest(&dir.path().join(name).join("checkpoints"), |_, e| panic!("{e:#}")).unwrap().unwrap();
        let mut kept: Vec<String> = kept.model.into_iter().map(|tensor| tensor.name).collect();
        kept.sort();
        let mut moving = moving;
        moving.sort();
        assert_eq!(kept, moving, "{name}");
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(&dir.path().join("base"), 1);
    for (name, settings) in CASES {
        let planned = planned(&base, settings).unwrap();
        let (straight, stopped) = (dir.path().join(name), dir.path().join(format!("{name}-stopped")));
        run(&straight, &planned, None).unwrap();
        run(&stopped, &planned, Some(3)).unwrap();
        run(&stopped, &planned, None).unwrap();
        let last = |folder: &Path| {
            let files = ["model.safetensors", "optimizer.safetensors"];
            files.map(|file| fs::read(folder.join("checkpoints/step-00000008").join(file)).unwrap())
        };
        assert!(last(&straight) == last(&stopped), "{name}");
    }
}

#[test]
fn a_changed_base_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("base");
    let base_path = base(&folder, 1);
    let planned = planned(&base_path, &["adapter.kind=lora"]).unwrap();
    let runs = dir.path().join("run");
    run(&runs, &planned, Some(3)).unwrap();
    base(&folder, 2);
    let error = format!("{:#}", run(&runs, &planned, None).unwrap_err());
    assert!(error.contains("not those this run is about") && error.contains(&base_path), "{error}");
    base(&folder, 1);
    run(&runs, &planned, None).unwrap();
}

#[test]
fn what_does_not_fit_is_said_before_anything_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(&dir.path().join("base"), 1);
    let refused = |settings: &[&str], words: &[&str]| {
        let error = format!("{:#}", planned(&base, settings).map(|_| ()).unwrap_err());
        words.iter().for_each(|word| assert!(error.contains(word), "{settings:?}: {error} lacks {word:?}"));
    };
    refused(&["adapter.kind=lora", "adapter.targets=q_prj"], &["\"q_prj\" is no projection", "did you mean \"q_proj\""]);
    refused(&["tune.part=last-layers", "tune.layers=4"], &["3 layers"]);
    refused(&["tune.part=biases"], &["none of"]);
}

#[test]
fn layers_further_down_move_less() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(&dir.path().join("base"), 1);
    // The first steps of AdamW are as long as its rate, whatever the gradient.
    let settings = [
        "tune.rate_decay=0.5",
        "budget.steps=1",
        "optimizer.weight_decay=0",
        "optimizer.warmup=0",
        "optimizer.schedule=constant",
    ];
    let planned = planned(&base, &settings).unwrap();
    let before = weights(&initial_model(&planned.0.recipe, &planned.1, &device()).unwrap());
    let model = run(&dir.path().join("run"), &planned, None).unwrap();
    let after = weights(&model);
    let moved = |name: &str| before[name].iter().zip(&after[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    for (name, share) in [
        ("model.norm.weight", 1.0),
        ("model.layers.2.mlp.up_proj.weight", 0.5),
        ("model.layers.1.mlp.up_proj.weight", 0.25),
        ("model.layers.0.mlp.up_proj.weight", 0.125),
    ] {
        let (found, expected) = (moved(name), 0.01 * share);
        assert!((found / expected - 1.0).abs() < 0.01, "{name} moved by {found}, not {expected}");
    }
}
