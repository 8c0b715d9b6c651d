//! A small model learns from a larger one through the program; beside it, one that translates.

mod place;
mod translate;

use std::fs;
use std::path::Path;

use danlu_models::folder;
use place::{Place, measured};
use serde_json::{Value, json};

const TALKS: usize = 48;

fn talks() -> impl Iterator<Item = Value> {
    (0..TALKS).map(|i| json!({"instruction": format!("is {i} nice?"), "output": format!("yes, {i} is very nice")}))
}

/// A place with a model that answers, and the file that it learned from.
fn with_teacher() -> (Place, String) {
    let place = Place::new();
    let source = place.lines("talks.jsonl", talks());
    let text = format!(
        "name = \"teacher\"\n[data]\nsources = [{source:?}]\nheld_out = 0.1\n[model]\nfrom = {:?}\n[objective]\nkind = \"sft\"\n[optimizer]\n\
         rate = 1e-2\n[batch]\ntokens = 256\n[sample]\ntokens = 4\n[budget]\nsteps = 80\n",
        place.path("base").display()
    );
    fs::write(place.path("teacher.toml"), text).unwrap();
    place.expect(0, &["train", &place.path("teacher.toml").display().to_string()]);
    (place, source)
}

fn recipe_for(place: &Place, name: &str, source: &str, on: &str, more: &str) -> String {
    let text = format!(
        "name = {name:?}\n[data]\nsources = [{source:?}]\nheld_out = 0.1\n[objective]\nkind = \"distill\"\n[batch]\ntokens = 256\n[eval]\n\
         every = 1000\ntokens = 2000\nfinal_tokens = 4000\n[sample]\ntokens = 4\n[budget]\nsteps = 12\n[distill]\nteacher = \"teacher\"\non = {on:?}\n{more}"
    );
    let path = place.path(&format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn students_of_every_kind() {
    let (place, source) = with_teacher();
    let train = |recipe: &str, sets: &[&str]| {
        let mut arguments = vec!["train", recipe, "--json"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        place.events(&arguments)
    };
    let part = |events: &[Value], name: &str| {
        let last = events.iter().rfind(|event| event["event"] == "step").unwrap();
        last["report"][name].as_f64()
    };
    // Some of the teacher's layers, on conversations.
    let fewer = recipe_for(&place, "fewer", &source, "conversations", "layers = 1\n");
    let events = train(&fewer, &[]);
    let (first, last) = measured(&events, "value");
    assert!(last < first && part(&events, "divergence").is_some(), "from {first} to {last}");
    let config = folder::load_config(&place.path("home/models/fewer@1")).unwrap();
    assert_eq!((config.layers(), config.hidden_size()), (1, 32));
    let lineage = place.expect(0, &["models", "lineage", "fewer"]);
    assert!(lineage.contains("teacher@1"), "{lineage}");
    place.expect(0, &["generate", "fewer", "--prompt", "is 3 nice?", "--max-tokens", "3"]);

    // A shape of its own, on what the teacher answers; its answers are written once.
    let answers = recipe_for(&place, "answers", &source, "answers", "hard = 1.0\nanswer_tokens = 24\n");
    let sets = ["model.layers=1", "model.hidden=24", "model.kind=llama"];
    let events = train(&answers, &sets);
    assert!(part(&events, "nll").is_some() && part(&events, "divergence").is_none());
    let files: Vec<_> = fs::read_dir(place.path("home/answers")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let text = fs::read_to_string(&files[0]).unwrap();
    assert!(text.lines().count() > TALKS / 2 && text.contains("yes"), "{text}");
    let again = place.expect(0, &["plan", &answers, "--set", sets[0], "--set", sets[1], "--set", sets[2]]);
    assert!(!again.contains("the teacher answered"), "{again}");

    // On documents, from the beginning, reading with the teacher's tokenizer.
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("danlu-data/src").display().to_string();
    let text = recipe_for(&place, "text", &texts, "text", "temperature = 2.0\n");
    let events = train(&text, &["model.layers=1", "model.hidden=24", "model.context=64"]);
    let (first, last) = measured(&events, "value");
    assert!(last < first, "from {first} to {last} bits per byte");
}

#[test]
fn what_cannot_teach_is_refused() {
    let (place, source) = with_teacher();
    let check = |name: &str, more: &str, sets: &[&str], part: &str| {
        let recipe = recipe_for(&place, name, &source, "conversations", more);
        let mut arguments = vec!["train", &recipe];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let text = place.expect(3, &arguments);
        assert!(text.contains(part), "{name} does not say {part:?}:\n{text}");
        assert!(!place.path("home/runs").join(name).exists(), "{name}: a run was begun");
    };
    check("none", "", &["distill.teacher=nobody"], "distill.teacher");
    check("many", "layers = 3\n", &[], "the teacher has 2");
    let base = format!("model.from={}", place.path("base").display());
    check("both", "layers = 1\n", &[&base], "keep one of them");
    // A teacher that was never trained ends nothing.
    let untrained = format!("distill.teacher={}", place.path("base").display());
    check("endless", "layers = 1\nanswer_tokens = 2\n", &[&untrained, "distill.on=answers"], "ended none of its answers");
    let error = place.expect(3, &["train", &recipe_for(&place, "bare", &source, "text", ""), "--set", "distill.teecher=x"]);
    assert!(error.contains("distill.teacher"), "{error}");
}
