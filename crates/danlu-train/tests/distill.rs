//! A student learns more from a teacher than from the data alone, and is measured as one without a teacher is.

mod common;

use std::sync::atomic::AtomicBool;

use burn::module::Module;
use common::{Toy, device, fresh, plan};
use danlu_models::Decoder;
use danlu_train::auto::resolve;
use danlu_train::{Distill, Objective, Plan, Recipe, Trained};

fn learn<O: Objective<Model = Decoder>>(plan: &Plan, objective: &O) -> Trained<Decoder> {
    let dir = tempfile::tempdir().unwrap();
    common::run(dir.path(), plan, objective, &AtomicBool::new(false), |_| ()).unwrap()
}

fn held_out(trained: &Trained<Decoder>) -> f64 {
    trained.summary.measure.as_ref().unwrap().value
}

#[test]
fn a_student_with_a_teacher_is_better_on_the_same_budget() {
    let taught = plan(&["model.layers=3", "model.hidden=64", "budget.steps=200", "checkpoint.every=1000"]);
    let teacher = learn(&taught, &Toy::new(&taught));
    let student = |settings: &[&str]| plan(&[&["model.layers=1", "budget.steps=60", "checkpoint.every=1000"], settings].concat());
    let alone = learn(&student(&[]), &Toy::new(&student(&[])));
    assert!(held_out(&teacher) < held_out(&alone));
    for settings in [
        &["distill.hard=0.2"][..],
        &["distill.hard=0.2", "distill.temperature=2"],
        &["distill.hard=0.2", "distill.divergence=reverse"],
        &["distill.hard=0", "distill.divergence=jensen-shannon"],
    ] {
        let plan = student(settings);
        let with = learn(&plan, &Distill::new(&plan, Toy::new(&plan), Some(teacher.model.valid())).unwrap());
        println!("{settings:?}: {} with a teacher of {}, {} alone", held_out(&with), held_out(&teacher), held_out(&alone));
        assert!(held_out(&with) < held_out(&alone), "{settings:?}");
    }
    // All of the loss hard, a teacher changes nothing.
    let plan = student(&["distill.hard=1"]);
    let same = learn(&plan, &Distill::new(&plan, Toy::new(&plan), Some(teacher.model.valid())).unwrap());
    assert!((held_out(&same) - held_out(&alone)).abs() < 1e-3);
}

#[test]
fn the_loss_is_reported_in_its_parts() {
    let plan = plan(&["distill.hard=0.25"]);
    let (model, teacher) = (fresh(&plan).unwrap(), fresh(&plan).unwrap().valid());
    let of = |teacher| {
        let objective = Distill::new(&plan, Toy::new(&plan), teacher).unwrap();
        let loss = objective.loss(&model, &objective.batch(0).unwrap());
        (f64::from(loss.value.inner().into_scalar::<f32>()), loss.report)
    };
    // Its own twin as the teacher is no distance away.
    let (loss, report) = of(Some(teacher));
    assert_eq!(report.iter().map(|part| part.0).collect::<Vec<_>>(), ["nll", "divergence"]);
    assert!(report[1].1.abs() < 1e-5 && (loss - 0.25 * report[0].1).abs() < 1e-5, "{loss} {report:?}");
    let (alone, report) = of(None);
    assert!((alone - 4.0 * loss).abs() < 1e-4 && report == [("nll", alone)]);
}

#[test]
fn a_teacher_that_reads_otherwise_is_refused() {
    let plan = plan(&[]);
    let other = |settings: &[&str], vocabulary: usize| {
        let recipe = Recipe { name: "other".into(), ..common::plan(settings).recipe };
        let recipe = Recipe { tokenizer: Default::default(), ..recipe };
        let (_, config) = resolve(&recipe, &danlu_train::Facts { vocabulary, ..plan.facts }).unwrap();
        let error = Distill::new(&plan, Toy::new(&plan), Some(Decoder::new(&config, 1, &device()).unwrap().valid())).err();
        error.unwrap().to_string()
    };
    let error = other(&[], 70);
    assert!(error.contains("70 entries") && error.contains("same tokenizer"), "{error}");
    let error = other(&["model.context=8"], common::VOCABULARY);
    assert!(error.contains("model.context"), "{error}");
}
