//! Plans of small recipes on a machine that is made up, so that every number can be checked by hand.

use danlu_lab::{Machine, Measured, Prices, compare, predict, refusal};
use danlu_train::{Facts, Plan, Recipe, auto};

fn recipe(overrides: &[&str]) -> Recipe {
    let text = "[model]\nlayers = 4\nhidden = 128\ncontext = 128\n[batch]\ntokens = 4096\nmicro_tokens = 2048\n[budget]\ntokens = 4096000\n[eval]\nshare = 0.0\n";
    let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_string()).collect();
    Recipe::from_toml(text, "test", &overrides).unwrap()
}

fn plan(overrides: &[&str]) -> Plan {
    auto::resolve(&recipe(overrides), &Facts { vocabulary: 1000, train_tokens: 1_000_000, gemm_rate: 1e11 }).unwrap().0
}

fn machine(available: Option<u64>) -> Machine {
    Machine { threads: 2, gemm_rate: 1e11, efficiency: 0.5, measured_in: None, available }
}

#[test]
fn time_energy_and_cost_follow_from_the_flops() {
    let plan = plan(&[]);
    let prices = Prices { watts: Some(100.0), per_kwh: Some(0.4), per_hour: Some(2.0) };
    let prediction = predict(&plan, &machine(None), &prices);
    assert_eq!((prediction.steps, prediction.tokens), (1000, 4_096_000));
    assert!((prediction.epochs - 4.096).abs() < 1e-9);
    let seconds = prediction.flops / 0.5e11;
    assert!((prediction.seconds - seconds).abs() < 1e-6 * seconds);
    let energy = 100.0 * seconds / 3.6e6;
    assert!((prediction.energy.unwrap() - energy).abs() < 1e-9);
    assert!((prediction.cost.unwrap() - (energy * 0.4 + seconds / 1800.0)).abs() < 1e-9);
    assert_eq!(predict(&plan, &machine(None), &Prices::default()).cost, None);
}

#[test]
fn a_budget_in_minutes_takes_that_long() {
    let prediction = predict(&plan(&["budget.minutes=3"]), &machine(None), &Prices::default());
    assert_eq!(prediction.seconds, 180.0);
    let trained = prediction.tokens as f64 / prediction.tokens_per_second;
    assert!((trained - 180.0).abs() < 5.0, "{trained} s of steps");
}

#[test]
fn memory_grows_with_what_it_should() {
    let total = |overrides: &[&str]| predict(&plan(overrides), &machine(None), &Prices::default()).memory;
    let base = total(&[]);
    assert_eq!(base.weights, 4 * plan(&[]).model.parameters);
    let head = 4 * plan(&[]).model.embeddings;
    assert_eq!(base.gradients, base.weights + head, "two pieces add to one gradient, beside which there is the head's");
    assert_eq!(total(&["batch.micro_tokens=4096"]).gradients, base.weights);
    assert!(total(&["batch.micro_tokens=4096"]).activations == 2 * base.activations);
    assert_eq!(total(&["optimizer.kind=adamw"]).optimizer, 2 * base.weights);
    assert!(base.optimizer < 2 * base.weights, "Muon keeps one moment of a hidden matrix");
    let int8 = total(&["optimizer.kind=adamw", "optimizer.moments=int8"]).optimizer;
    let parameters = base.weights / 4;
    assert_eq!(int8, 2 * (parameters + 4 * parameters.div_ceil(256)), "two bytes, and a scale for each 256 of either");
    assert!(total(&["batch.recompute=true"]).activations < base.activations / 2);
}

/// What does not fit is refused with a change that makes it fit.
#[test]
fn advice_helps() {
    let check = |overrides: &[&str], available: u64| {
        let refuse = |overrides: &[&str]| {
            let plan = plan(overrides);
            let machine = machine(Some(available));
            refusal(&predict(&plan, &machine, &Prices::default()), &plan, &recipe(overrides), &machine)
        };
        let text = refuse(overrides).expect("it does not fit");
        let advice = text.rsplit("--set ").next().unwrap().trim_end_matches('.');
        let with: Vec<&str> = overrides.iter().copied().chain([advice]).collect();
        assert_eq!(refuse(&with), None, "{text}");
    };
    check(&[], 120_000_000);
    check(&["model.hidden=1024", "model.layers=8"], 1_600_000_000);
    let fits = plan(&[]);
    assert_eq!(
        refusal(&predict(&fits, &machine(None), &Prices::default()), &fits, &recipe(&[]), &machine(None)),
        None,
        "unknown memory refuses nothing"
    );
}

#[test]
fn the_table_compares() {
    let plan = plan(&[]);
    let planned = predict(&plan, &machine(None), &Prices::default());
    let measured = Measured { steps: 500, tokens: 2_048_000, seconds: planned.seconds, tokens_per_second: 1.0, memory: None };
    let table = compare(&planned, &measured);
    let row =
        |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().last().unwrap().to_string();
    assert_eq!((row("steps"), row("minutes")), ("0.50".into(), "1.00".into()), "\n{table}");
    assert!(!table.contains("memory"));
}

#[test]
fn word_vectors_need_their_tables_and_little_else() {
    let recipe = Recipe::from_toml("[objective]\nkind = 'word2vec'\n[budget]\nepochs = 1.0\n", "test", &[]).unwrap();
    let facts = Facts { vocabulary: 20_000, train_tokens: 1_000_000, gemm_rate: 1e11 };
    let memory = predict(&auto::resolve_words(&recipe, &facts, 0.6).unwrap(), &machine(None), &Prices::default()).memory;
    assert_eq!((memory.weights, memory.gradients, memory.optimizer), (16_000_000, 0, 0));
    assert!(memory.total() < 3 * memory.weights + (64 << 20), "{memory:?}");
}
