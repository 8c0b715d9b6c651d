//! Learning from preferences through the program: a recipe, pairs in a file, a small model in a folder. Beside it, a model that is asked and
//! learns nothing.

mod place;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use burn::tensor::Device;
use danlu_models::folder;
use place::{Place, measured};
use serde_json::{Value, json};

/// A recipe that learns from `source`, with `more` under its own headings.
fn recipe_for(place: &Place, name: &str, source: &str, more: &str) -> String {
    let text = format!(
        "name = {name:?}\n[data]\nsources = [{source:?}]\nheld_out = 0.25\n[model]\nfrom = {:?}\n[objective]\nkind = \"preference\"\n\
             [optimizer]\nrate = 3e-3\n[eval]\ntokens = 100000\nevery = 1000\n[checkpoint]\nevery = 4\n[sample]\ntokens = 4\n\
             [budget]\nsteps = 12\n{more}",
        place.path("base").display()
    );
    let path = place.path(&format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn weights(place: &Place, model: &str) -> Vec<u8> {
    fs::read(place.path("home/models").join(model).join("model.safetensors")).unwrap()
}

fn pairs(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|i| json!({"prompt": format!("is {i} nice?"), "chosen": format!("yes, {i} is very nice"), "rejected": format!("no, {i} is bad")}))
}

fn judged(count: usize) -> impl Iterator<Item = Value> {
    pairs(count).enumerate().map(|(i, pair)| {
        let good = i % 2 == 0;
        json!({"prompt": pair["prompt"], "completion": pair[if good { "chosen" } else { "rejected" }], "label": good})
    })
}

#[test]
fn a_recipe_makes_a_model_that_prefers_what_people_prefer() {
    let place = Place::new();
    let source = place.lines("pairs.jsonl", pairs(40));
    let recipe = recipe_for(&place, "dpo", &source, "");
    let plan = place.expect(0, &["plan", &recipe]);
    assert!(plan.contains("12 steps") && plan.contains("held out"), "{plan}");
    let events = place.events(&["train", &recipe, "--json"]);
    let (first, last) = measured(&events, "value");
    assert!(first == 0.5 && last > 0.9, "from {first} to {last}");
    let shown = events.iter().find(|event| event["event"] == "shown").unwrap();
    assert!(shown["documents"] == 2 && shown["with_loss"].as_u64() < shown["tokens"].as_u64(), "{shown}");
    let record = place.expect(0, &["models", "show", "dpo"]);
    assert!(record.contains("preference accuracy"), "{record}");
    place.expect(0, &["generate", "dpo", "--prompt", "is 3 nice?", "--max-tokens", "3"]);

    // kto learns from judged answers, and from pairs as two of them.
    let judged = place.lines("judged.jsonl", judged(40));
    for source in [&judged, &source] {
        let recipe = recipe_for(&place, &format!("kto-{}", source.len()), source, "[preference]\nloss = \"kto\"\n");
        let (first, last) = measured(&place.events(&["train", &recipe, "--json"]), "value");
        assert!(first == 0.5 && last > 0.7, "kto: from {first} to {last}");
    }
}

#[test]
fn a_set_of_pairs_measures_any_language_model() {
    let place = Place::new();
    // What the model cannot read at once is neither learned from nor an item.
    let long = |i: u32| json!({"prompt": format!("{i} {}", "is it nice? ".repeat(60)), "chosen": "yes", "rejected": "no"});
    let source = place.lines("pairs.jsonl", pairs(40).chain((0..12).map(long)));
    let recipe = recipe_for(&place, "dpo", &source, &format!("[gate]\nalso = [\"{source}:preference-accuracy\"]\n"));
    let text = place.expect(0, &["train", &recipe]);
    assert!(text.contains("12 longer than"), "{text}");
    let record: Value = serde_json::from_slice(&fs::read(place.path("home/models/dpo@1/danlu.json")).unwrap()).unwrap();
    let set = &record["sets"][0];
    assert_eq!((&set["unit"], &record["gate"]["passed"]), (&json!("preference_accuracy"), &json!(true)));
    assert!(set["value"].as_f64().unwrap() > 0.7, "{set}");
    assert!((2..30).contains(&set["items"].as_u64().unwrap()), "of the held-out part alone: {set}");
    let text = place.expect(0, &["eval", "dpo", "--sets", &recipe]);
    assert!(text.contains("preference accuracy"), "{text}");
    let wrong = recipe_for(&place, "wrong", &source, &format!("[gate]\nalso = [\"{source}:answer-bits-per-byte\"]\n"));
    assert!(place.expect(3, &["train", &wrong]).contains("pairs.jsonl"));
}

#[test]
fn a_recipe_makes_a_model_that_scores_answers() {
    let place = Place::new();
    let recipe = recipe_for(&place, "judge", &place.lines("pairs.jsonl", pairs(40)), "");
    let kind = ["--set", "objective.kind=reward"];
    let events = place.events(&["train", &recipe, "--json", kind[0], kind[1]]);
    let (_, last) = measured(&events, "value");
    assert!(last > 0.9, "{last}");
    let (before, after) = measured(&events, "brier");
    assert!(after < before && before > 0.2, "Brier from {before} to {after}");
    assert!(measured(&events, "calibration_error").1 < 0.5);
    let read = folder::load_reward(&place.path("home/models/judge@1"), &Device::flex()).unwrap().0;
    assert!(read.score(&[&[5, 6, 7]]).unwrap()[0].is_finite());

    let judged = recipe_for(&place, "none", &place.lines("judged.jsonl", judged(12)), "");
    let text = place.expect(3, &["train", &judged, kind[0], kind[1]]);
    assert!(text.contains("single answers") && text.contains("pairs of a better"), "{text}");
    // A language model is none, and a reward model writes nothing.
    let text = place.expect(3, &["generate", "judge", "--prompt", "is it?"]);
    assert!(text.contains("score.weight"), "{text}");
}

#[test]
fn an_interrupted_run_ends_in_the_same_weights() {
    let place = Place::new();
    let source = place.lines("pairs.jsonl", pairs(24));
    let recipe = recipe_for(&place, "dpo", &source, "");
    place.expect(0, &["train", &recipe, "--run", "whole"]);
    let mut child = place
        .command(&["train", &recipe, "--run", "parts", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"] == "step" && event["step"].as_u64() >= Some(6) {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    place.expect(0, &["train", "--resume", "parts"]);
    assert!(weights(&place, "whole@1") == weights(&place, "parts@1"), "the weights differ");
}

#[test]
fn what_cannot_be_learned_from_is_refused_before_the_first_step() {
    let place = Place::new();
    let good = place.lines("pairs.jsonl", pairs(12));
    let check = |source: &str, more: &[&str], parts: &[&str]| {
        let recipe = recipe_for(&place, "refused", source, "");
        let mut arguments = vec!["train", &recipe];
        more.iter().for_each(|set| arguments.extend(["--set", set]));
        let text = place.expect(3, &arguments);
        for part in parts {
            assert!(text.contains(part), "{source} {more:?} does not say {part:?}:\n{text}");
        }
        assert!(!place.path("home/runs/refused").exists(), "a run was begun");
    };
    let alike = || json!({"prompt": "is it?", "chosen": "yes", "rejected": " yes "});
    check(&place.lines("alike.jsonl", [alike(), alike()]), &[], &["alike.jsonl:1", "two answers that are equal"]);
    let talks = (0..12).map(|i| json!({"instruction": format!("is {i} nice?"), "output": "yes"}));
    check(&place.lines("talks.jsonl", talks), &[], &["talks.jsonl:1", "says nothing about preference", "chosen"]);
    check(&place.lines("judged.jsonl", judged(12)), &[], &["single answers", "kto"]);
    let mixed = pairs(12).chain(judged(3));
    check(&place.lines("mixed.jsonl", mixed), &[], &["3 of the 15 records", "kto"]);
    let all_good = judged(24).filter(|one| one["label"] == true);
    check(&place.lines("good.jsonl", all_good), &["preference.loss=kto"], &["judged good", "bad ones"]);
    check(&good, &["model.context=8"], &["none of 12 preferences", "model.context"]);
    check(&good, &["data.held_out=0.0005", "preference.loss=dop"], &["dop"]);
    check(&place.path("nothing.jsonl").display().to_string(), &[], &["nothing.jsonl"]);

    place.model("endless", Some("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"));
    let from = format!("model.from={}", place.path("endless").display());
    check(&good, &[&from], &["no token that ends the turn", "never learn to stop"]);

    // A pair that says nothing among many is left out and said.
    let recipe = recipe_for(&place, "some", &place.lines("some.jsonl", pairs(24).chain([alike()])), "");
    let text = place.expect(0, &["plan", &recipe]);
    assert!(text.contains("some.jsonl:25") && text.contains("two answers that are equal"), "{text}");
}

/// Labels and answers in context: each number of demonstrations that fits has a row, in the table, the record and the file of questions alike.
#[test]
fn a_model_is_asked_in_context() {
    let place = Place::new();
    let label = |i: usize| if i.is_multiple_of(2) { "good" } else { "bad" };
    let reviews = (0..100).map(|i| json!({"text": format!("is {i} nice?"), "label": label(i)}));
    let sums = (0..100).map(|i| json!({"prompt": format!("{i}+1="), "answer": i + 1}));
    let text = format!(
        "name = \"asked\"\nshots = [0, 2, 40]\ndraws = 2\nitems = 5\nheld_out = 0.2\ncalibrate = true\n\
         [[task]]\nname = \"reviews\"\nsource = {:?}\nprompt = \"say: {{text}}\"\n\
         [[task]]\nname = \"sums\"\nsource = {:?}\nprompt = \"{{text}}\"\nanswer = \"{{label}}\"\nbetween = \"\\n\"\nopen = true\n",
        place.lines("reviews.jsonl", reviews),
        place.lines("sums.jsonl", sums)
    );
    let file = place.path("tasks.toml");
    fs::write(&file, text).unwrap();
    let [file, base, picture, questions] =
        [file, place.path("base"), place.path("shots.png"), place.path("questions.jsonl")].map(|path| path.display().to_string());
    place.expect(0, &["models", "import", &base, "--name", "asked"]);

    let ask = ["eval", "asked", "--few-shot", &file, "--json", "--picture", &picture, "--questions", &questions];
    let output = place.command(&ask).output().unwrap();
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && notes.contains("reviews with 40 demonstrations is left out"), "{notes}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let told: Vec<(&str, u64, u64)> = rows
        .iter()
        .map(|row| (row["task"].as_str().unwrap(), row["shots"].as_u64().unwrap(), row["draws"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("reviews", 0, 1), ("reviews", 2, 2), ("sums", 0, 1), ("sums", 2, 2)]);
    for row in &rows {
        let right = |key: &str| row["right"][key].as_f64().unwrap();
        assert!(0.0 <= right("low") && right("low") <= right("value") && right("value") <= right("high"), "{row}");
        assert_eq!(row["calibrated"].is_object(), row["task"] == "reviews");
    }
    assert!(fs::metadata(&picture).unwrap().len() > 1000);

    // The questions say the same, and every demonstration of them is another one.
    let asked = fs::read_to_string(&questions).unwrap();
    let asked: Vec<Value> = asked.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(asked.len(), (5 + 3) * 3 + 5 * 3);
    for row in &rows {
        let mine =
            asked.iter().filter(|one| one["task"] == row["task"] && one["shots"] == row["shots"] && one["right"].is_string());
        let right = |one: &Value| {
            if row["task"] == "sums" {
                return one["greedy"][0] == true;
            }
            let log_probs: Vec<f64> = one["log_probs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            let best = usize::from(log_probs[1] > log_probs[0]);
            one["answers"][best].as_str().unwrap() == format!(" {}", one["right"].as_str().unwrap())
        };
        let judged: Vec<bool> = mine.map(right).collect();
        let share = judged.iter().filter(|right| **right).count() as f64 / judged.len() as f64;
        assert!((share - row["right"]["value"].as_f64().unwrap()).abs() < 1e-9, "{row}");
    }
    let with_two = asked.iter().find(|one| one["task"] == "reviews" && one["shots"] == 2).unwrap()["prompt"].as_str().unwrap();
    let parts: Vec<&str> = with_two.split("\n\n").collect();
    assert!(
        parts.len() == 3 && parts[0] != parts[1] && (parts[0].ends_with(" good") || parts[0].ends_with(" bad")),
        "{with_two}"
    );

    let shown = place.expect(0, &["models", "show", "asked"]);
    for part in ["reviews, 2 shots", "of answers right, calibrated", "sums, 0 shots"] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(place.expect(3, &["train", &file]).contains("danlu eval MODEL --few-shot"));
    let table = place.expect(0, &["eval", &base, "--few-shot", &file]);
    assert!(table.contains("MOST FREQUENT") && table.contains("sums"), "{table}");
}
