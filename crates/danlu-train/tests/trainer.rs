//! The trainer's promises on a tiny model: how an update is cut does not matter, stopping does not matter, gates close.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::module::Module;
use common::{Toy, fresh, plan, run};
use danlu_models::{Batch, to_named};
use danlu_train::checkpoint::{self, NamedTensor};
use danlu_train::metrics::read_metrics;
use danlu_train::{Event, Gradients, Objective, Plan};

static NEVER: AtomicBool = AtomicBool::new(false);

fn weights(folder: &Path) -> Vec<NamedTensor> {
    checkpoint::latest(&folder.join("checkpoints"), |_, e| panic!("{e:#}")).unwrap().unwrap().model
}

fn trained(plan: &Plan) -> Vec<NamedTensor> {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), plan, &Toy::new(plan), &NEVER, |_| ()).unwrap();
    weights(dir.path())
}

/// The largest difference of two models, relative to the largest weight.
fn difference(a: &[NamedTensor], b: &[NamedTensor]) -> f32 {
    assert_eq!(a.iter().map(|t| &t.name).collect::<Vec<_>>(), b.iter().map(|t| &t.name).collect::<Vec<_>>());
    let pairs = a.iter().zip(b).flat_map(|(a, b)| a.floats().unwrap().iter().zip(b.floats().unwrap()));
    let largest = a.iter().flat_map(|t| t.floats().unwrap()).fold(0.0f32, |m, x| m.max(x.abs()));
    pairs.fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn training_lowers_the_held_out_measure_and_logs_it() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(&["budget.steps=60", "optimizer.warmup=0.1", "eval.every=20"]);
    let mut values = vec![];
    run(dir.path(), &plan, &Toy::new(&plan), &NEVER, |event| {
        if let Event::Measured { measure, .. } = event {
            values.push(measure.value);
        }
    })
    .unwrap();
    assert_eq!(values.len(), 4, "at 0, 20, 40 and the end: {values:?}");
    assert!(values.windows(2).all(|pair| pair[1] < pair[0]) && values[3] < 0.8 * values[0], "{values:?}");
    let rows = read_metrics(&dir.path().join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = rows.iter().filter(|row| row["kind"] == "train").map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=60).collect::<Vec<_>>());
    assert_eq!(rows.last().unwrap()["kind"], "final");
}

/// A run says how long it waited for its data, step by step and as a share of all.
#[test]
fn a_run_that_waits_for_its_data_says_so() {
    // Nothing between the steps, in which data could be made.
    let plan = plan(&["budget.steps=8", "checkpoint.every=1000000", "eval.every=1000000"]);
    let shares = [0, 25].map(|milliseconds| {
        let dir = tempfile::tempdir().unwrap();
        let toy = Toy { slow: Duration::from_millis(milliseconds), ..Toy::new(&plan) };
        let share = run(dir.path(), &plan, &toy, &NEVER, |_| ()).unwrap().summary.data_wait_share;
        let rows = read_metrics(&dir.path().join("metrics.jsonl")).unwrap();
        let sum = |key: &str| rows.iter().filter(|row| row["kind"] == "train").map(|row| row[key].as_f64().unwrap()).sum::<f64>();
        let (waited, stepped) = (sum("data_wait"), sum("seconds"));
        assert!((waited / (waited + stepped) - share).abs() < 1e-3, "{waited} {stepped} {share}");
        share
    });
    // Four pieces of 25 ms for each update of a tiny model.
    assert!(shares[0] < shares[1] && shares[1] > 0.3, "{shares:?}");
}

/// One update's gradient, however it is cut, is that of the whole batch: pieces are weighed by their targets, which differ here.
#[test]
fn accumulated_pieces_give_the_gradient_of_the_whole() {
    let whole = plan(&["batch.micro_tokens=128"]);
    let toy = Toy::new(&whole);
    let model = fresh(&whole).unwrap();
    let gradient = |rows: usize| {
        let cut = Toy { micro_rows: rows, ..Toy::new(&whole) };
        let pieces: Vec<Batch> = (0..8).step_by(rows).map(|at| cut.batch(at).unwrap()).collect();
        let total: usize = pieces.iter().map(|piece| cut.targets(piece)).sum();
        let mut gradients = Gradients::new();
        for piece in &pieces {
            let weight = cut.targets(piece) as f64 / total as f64;
            gradients.add(&model, cut.loss(&model, piece).value * weight).unwrap();
        }
        let (names, squares): (Vec<_>, Vec<_>) = gradients.squares(&model).into_iter().unzip();
        names.into_iter().zip(danlu_ops::read_scalars(squares)).collect::<Vec<_>>()
    };
    assert_eq!(toy.micro_rows, 8);
    for rows in [1, 2, 4] {
        for ((name, cut), (_, whole)) in gradient(rows).iter().zip(gradient(8)) {
            assert!((cut - whole).abs() <= 1e-4 * whole.max(1e-12), "{name} in pieces of {rows}: {cut} for {whole}");
        }
    }
}

#[test]
fn how_an_update_is_cut_does_not_change_the_weights() {
    for kind in ["adamw", "muon"] {
        // Few steps: Adam divides by the gradient's size, so that rounding grows from step to step.
        let settings = |micro: &'static str| {
            [format!("optimizer.kind={kind}"), micro.to_string(), "budget.steps=4".into(), "optimizer.epsilon=1e-6".into()]
        };
        let of = |micro| trained(&plan(&settings(micro).iter().map(String::as_str).collect::<Vec<_>>()));
        let whole = of("batch.micro_tokens=128");
        for micro in ["batch.micro_tokens=16", "batch.micro_tokens=32", "batch.micro_tokens=64"] {
            let far = difference(&of(micro), &whole);
            assert!(far < 2e-3, "{kind} {micro}: {far}");
        }
    }
}

#[test]
fn stopped_and_resumed_is_the_same_bit_for_bit() {
    for (kind, moments) in [("adamw", "f32"), ("muon", "f32"), ("adamw", "int8"), ("muon", "int8")] {
        // As wide as it takes for matrices to have moments in eight bits.
        let hidden = if moments == "int8" { "model.hidden=64" } else { "model.hidden=32" };
        let (optimizer, moments) = (format!("optimizer.kind={kind}"), format!("optimizer.moments={moments}"));
        let plan = plan(&[hidden, &optimizer, &moments, "checkpoint.keep=9"]);
        let straight = trained(&plan);
        let dir = tempfile::tempdir().unwrap();
        let mut sessions = 0;
        loop {
            let stop = AtomicBool::new(false);
            let mut here = 0;
            let trained = run(dir.path(), &plan, &Toy::new(&plan), &stop, |event| {
                if let Event::Step(_) = event {
                    here += 1;
                    stop.store(here == 5, Ordering::Relaxed);
                }
            })
            .unwrap();
            sessions += 1;
            if trained.summary.finished {
                break;
            }
        }
        assert_eq!(sessions, 5);
        assert_eq!(weights(dir.path()), straight, "{kind}, {moments}");
        let rows = read_metrics(&dir.path().join("metrics.jsonl")).unwrap();
        assert_eq!(rows.iter().filter(|row| row["kind"] == "train").count(), 24);
    }
}

#[test]
fn a_damaged_checkpoint_costs_only_its_steps() {
    let plan = plan(&[]);
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &plan, &Toy::new(&plan), &NEVER, |_| ()).unwrap();
    let straight = weights(dir.path());
    let checkpoints = checkpoint::list(&dir.path().join("checkpoints")).unwrap();
    let newest = &checkpoints.last().unwrap().1;
    let mut bytes = std::fs::read(newest.join("model.safetensors")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(newest.join("model.safetensors"), bytes).unwrap();
    let (mut notes, mut resumed) = (vec![], None);
    run(dir.path(), &plan, &Toy::new(&plan), &NEVER, |event| match event {
        Event::Note(note) => notes.push(note.to_string()),
        Event::Begin { resumed: at, .. } => resumed = *at,
        _ => {}
    })
    .unwrap();
    assert_eq!(resumed, Some(21));
    assert!(notes.len() == 1 && notes[0].contains("checksum"), "{notes:?}");
    assert_eq!(weights(dir.path()), straight);
}

#[test]
fn another_recipe_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (plan(&["budget.steps=3"]), plan(&["budget.steps=3", "optimizer.clip=2"]));
    run(dir.path(), &first, &Toy::new(&first), &NEVER, |_| ()).unwrap();
    let error = run(dir.path(), &second, &Toy::new(&second), &NEVER, |_| ()).err().unwrap();
    assert!(error.to_string().contains("another recipe"), "{error}");
}

#[test]
fn a_spike_stops_the_run_and_keeps_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(&["budget.steps=100", "checkpoint.every=10", "optimizer.clip=0", "optimizer.rate=0.01"]);
    let toy = Toy { broken: Some(75 * plan.rows as u64), ..Toy::new(&plan) };
    let error = run(dir.path(), &plan, &toy, &NEVER, |_| ()).err().expect("the spike must be noticed").to_string();
    assert!(error.contains("step 76") && error.contains("jumped"), "{error}");
    let kept = checkpoint::latest(&dir.path().join("checkpoints"), |_, e| panic!("{e:#}")).unwrap().unwrap();
    assert_eq!(kept.state.step, 70);
}

#[test]
fn a_parameter_without_a_gradient_is_named() {
    let plan = plan(&[]);
    let model = fresh(&plan).unwrap();
    let other = fresh(&plan).unwrap();
    let loss = Toy::new(&plan).loss(&other, &Toy::new(&plan).batch(0).unwrap());
    let error = Gradients::new().add(&model, loss.value).unwrap_err().to_string();
    assert!(error.contains("model.embed_tokens.weight received no gradient"), "{error}");
}

#[test]
fn minutes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(&["budget.minutes=0.05", "checkpoint.every=1000000"]);
    let trained = run(dir.path(), &plan, &Toy::new(&plan), &NEVER, |_| ()).unwrap();
    assert!(trained.summary.finished);
    // Three seconds; wide bounds, since the test machine is shared.
    assert!((1.5..6.0).contains(&trained.summary.elapsed), "{:?}", trained.summary);
    let state = checkpoint::latest(&dir.path().join("checkpoints"), |_, e| panic!("{e:#}")).unwrap().unwrap().state;
    assert!(state.frozen && state.step == state.total, "{state:?}");
    assert_eq!(to_named(&trained.model.valid()).unwrap().len(), weights(dir.path()).len());
}
