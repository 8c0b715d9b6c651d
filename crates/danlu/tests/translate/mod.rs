//! A model that translates is made, kept and asked through the program.

use std::fs;

use serde_json::{Value, json};

use crate::place::{Place, measured};

fn pairs() -> impl Iterator<Item = Value> {
    const WORDS: [[(&str, &str); 4]; 3] = [
        [("red", "红"), ("old", "旧"), ("small", "小"), ("quiet", "静")],
        [("car", "汽车"), ("house", "房子"), ("river", "河流"), ("garden", "花园")],
        [("waits", "等待"), ("sleeps", "睡觉"), ("sings", "唱歌"), ("changes", "变化")],
    ];
    (0..64).map(|i| {
        let [adjective, noun, verb] = [WORDS[0][i % 4], WORDS[1][i / 4 % 4], WORDS[2][i / 16]];
        json!({
            "en": format!("the {} {} {}", adjective.0, noun.0, verb.0),
            "zh": format!("{}的{}{}", adjective.1, noun.1, verb.1),
        })
    })
}

#[test]
fn a_model_that_translates() {
    let place = Place::new();
    // One is not translated, and is left out.
    let source = place.lines("pairs.jsonl", pairs().chain([json!({"en": "=SUM(A1)", "zh": "=SUM(A1)"})]));
    let text = format!(
        "name = \"words\"\n[data]\nsources = [{source:?}]\nheld_out = 0.15\n[tokenizer]\nvocabulary = 320\n[model]\nhidden = 32\nlayers = 1\n\
         context = 64\n[objective]\nkind = \"translate\"\n[translate]\nbeam = 2\n[batch]\nexamples = 16\n[optimizer]\nschedule = \"inverse-sqrt\"\n\
         warmup = 0.3\nrate = 5e-3\n[eval]\nevery = 1000\n[budget]\nsteps = 100\n"
    );
    fs::write(place.path("words.toml"), text).unwrap();
    let recipe = place.path("words.toml").display().to_string();
    let plan = place.expect(0, &["plan", &recipe]);
    assert!(
        plan.contains("marian with ") && plan.contains("64 paragraphs in both en and zh; left out 1 not translated"),
        "{plan}"
    );
    let (first, last) = measured(&place.events(&["train", &recipe, "--json"]), "value");
    assert!(last < 0.8 * first, "from {first} to {last}");

    let folder = place.path("home/models/words@1");
    let config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["model_type"], &config["d_model"]), (&json!("marian"), &json!(32)));
    let shown = place.expect(0, &["models", "show", "words"]);
    assert!(shown.contains("bleu") && shown.contains("chrf"), "{shown}");
    let said = place.expect(0, &["translate", "words", "the red car waits", "the old house sings", "--json"]);
    let lines: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.len() == 2 && lines[0]["text"] == "the red car waits" && lines[0]["translation"].is_string(), "{said}");

    let refused = |sets: &[&str], part: &str| {
        let mut arguments = vec!["train", &recipe, "--run", "other"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let text = place.expect(3, &arguments);
        assert!(text.contains(part), "{sets:?} does not say {part:?}:\n{text}");
    };
    refused(&["translate.to=de"], "65 of 65 records cannot be used");
    refused(&["model.size=1M"], "`model.size`");
    refused(&["batch.recompute=true"], "not for translation");
    place.expect(3, &["translate", "base-that-is-not-there", "x"]);
}
