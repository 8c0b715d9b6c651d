//! Reinforcement learning as its users meet it: a model of their own, questions of their own, `danlu train`, and answers kept by a reward.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs it, expects `code`, and gives what it printed.
#[track_caller]
fn expect(code: i32, home: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_danlu"));
    let output = command.args(arguments).env("DANLU_HOME", home).stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "danlu {}\n{text}", arguments.join(" "));
    text
}

#[track_caller]
fn danlu(home: &Path, arguments: &[&str]) -> String {
    expect(0, home, arguments)
}

/// A home for the program that also holds recipes and questions.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file and gives its path, as an argument.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// A recipe for a very small model of the sources that every checkout has.
fn base(name: &str, vocabulary: usize, steps: usize) -> String {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("danlu-data/src/tokenizer").display().to_string();
    format!(
        "name = {name:?}\n[data]\nsources = [{texts:?}]\nheld_out = 0.2\n[tokenizer]\nvocabulary = {vocabulary}\n[model]\nlayers = 2\n\
         hidden = 32\ncontext = 64\n[batch]\ntokens = 512\n[budget]\nsteps = {steps}\n[eval]\ntokens = 1000\nfinal_tokens = 1000\n"
    )
}

#[test]
fn a_model_of_ones_own_learns_from_rewards_and_its_good_answers_are_kept() {
    let place = Home::new();
    let (home, write) = (place.0.path(), |name: &str, text: &str| place.write(name, text));
    danlu(home, &["train", &write("base.toml", &base("base", 400, 20))]);

    let questions: Vec<String> = (0..60).map(|i| format!("{{\"prompt\": \"let x{i} = \", \"answer\": \"{i}\"}}")).collect();
    let questions = write("questions.jsonl", &questions.join("\n"));
    let grpo = write(
        "grpo.toml",
        &format!(
            "name = \"spaces\"\n[data]\nsources = [{questions:?}]\nheld_out = 0.3\n[model]\nfrom = \"base\"\n[objective]\nkind = \"grpo\"\n\
             [rewards.regex]\npattern = \" \"\n[rewards.length]\nweight = 0.1\n[rl]\nsamples = 4\nmax_tokens = 4\n[batch]\n\
             examples = 32\n[optimizer]\nrate = 0.003\n[budget]\nsteps = 12\n"
        ),
    );
    let text = danlu(home, &["train", &grpo]);
    for part in ["60 records", "held-out reward", "⟨what the model answers⟩", "spaces@1 is registered"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let log = fs::read_to_string(home.join("runs/spaces/metrics.jsonl")).unwrap();
    let rows: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "train").collect();
    assert_eq!(steps.len(), 12);
    for key in ["reward", "regex", "length", "kl", "gap", "entropy", "ended", "answer_tokens"] {
        assert!(steps.iter().all(|row| row[key].is_number()), "{key} is not logged");
    }

    let ppo = ["train", &grpo, "--run", "expected", "--set", "objective.kind=ppo", "--set", "budget.steps=2"];
    assert!(danlu(home, &ppo).contains("expected@1 is registered"));

    let out = home.join("kept.jsonl");
    let kept = out.display().to_string();
    let sample = [
        "sample",
        "spaces",
        &questions,
        "--reward",
        "regex= ",
        "--least",
        "1",
        "--best-of",
        "3",
        "--max-tokens",
        "4",
        "--out",
        &kept,
        "--json",
    ];
    let told: Value = serde_json::from_str(danlu(home, &sample).lines().collect::<Vec<_>>().join("\n").as_str()).unwrap();
    let lines = fs::read_to_string(&out).unwrap();
    assert_eq!(told["kept"].as_u64().unwrap() as usize, lines.lines().filter(|line| !line.is_empty()).count());
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(record["messages"][1]["content"].as_str().unwrap().contains(' ') && record["reward"] == 1.0, "{line}");
    }
}

#[test]
fn a_reward_model_judges_answers_and_is_pinned() {
    let place = Home::new();
    let (home, write) = (place.0.path(), |name: &str, text: &str| place.write(name, text));
    let pair = |i: u32| format!("{{\"prompt\": \"let x{i} = \", \"chosen\": \"a {i} b\", \"rejected\": \"none\"}}\n");
    let pairs = write("pairs.jsonl", &(0..24).map(pair).collect::<String>());
    // Two models with two tokenizers, and a reward model from each.
    for (name, vocabulary) in [("base", 400), ("other", 420)] {
        danlu(home, &["train", &write(&format!("{name}.toml"), &base(name, vocabulary, 2))]);
        let reward = format!(
            "name = \"judge-{name}\"\n[data]\nsources = [{pairs:?}]\nheld_out = 0.25\n[model]\nfrom = {name:?}\n[objective]\n\
             kind = \"reward\"\n[budget]\nsteps = 2\n"
        );
        danlu(home, &["train", &write(&format!("judge-{name}.toml"), &reward)]);
    }
    let questions: String = (0..40).map(|i| format!("{{\"prompt\": \"let x{i} = \"}}\n")).collect();
    let questions = write("questions.jsonl", &questions);
    let grpo = format!(
        "name = \"judged\"\n[data]\nsources = [{questions:?}]\nheld_out = 0.2\n[model]\nfrom = \"base\"\n[objective]\nkind = \"grpo\"\n\
         [rewards.model]\nfrom = \"judge-base\"\n[rewards.length]\nweight = 0.1\n[rl]\ntemplate = \"chat\"\nsamples = 2\nmax_tokens = 4\n\
         [batch]\nexamples = 8\n[budget]\nsteps = 2\n"
    );
    let grpo = write("grpo.toml", &grpo);

    for (set, parts) in [
        ("rewards.model.from=base", &["holds no reward model", "rewards.model.from"][..]),
        ("rewards.model.from=judge-other", &["another tokenizer", "420", "400"][..]),
        ("rewards.model.from=nobody", &["nobody"][..]),
        ("rewards.model.hash=00ff", &["BLAKE3", "00ff"][..]),
        ("rl.template=plain", &["plain text", "rl.template"][..]),
        ("rl.max_tokens=60", &["the reward model reads 64 tokens"][..]),
    ] {
        let text = expect(3, home, &["train", &grpo, "--set", set]);
        assert!(parts.iter().all(|part| text.contains(part)), "{set} does not say {parts:?}:\n{text}");
        assert!(!home.join("runs/judged").exists(), "a run was begun");
    }

    danlu(home, &["train", &grpo]);
    let log = fs::read_to_string(home.join("runs/judged/metrics.jsonl")).unwrap();
    let rows: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let worths: Vec<f64> = rows.iter().filter(|row| row["kind"] == "train").map(|row| row["model"].as_f64().unwrap()).collect();
    assert!(worths.len() == 2 && worths.iter().all(|worth| (0.0..=1.0).contains(worth)), "{worths:?}");
    // The run and the model say which weights judged.
    let pinned = |text: &str| text.split("[rewards.model]").nth(1).is_some_and(|table| table.contains("hash = \""));
    assert!(pinned(&fs::read_to_string(home.join("runs/judged/recipe.toml")).unwrap()));
    let record: Value = serde_json::from_slice(&fs::read(home.join("models/judged@1/danlu.json")).unwrap()).unwrap();
    assert!(pinned(record["recipe"]["text"].as_str().unwrap()));

    let out = home.join("kept.jsonl").display().to_string();
    let sample =
        ["sample", "judged", &questions, "--reward", "model=judge-base", "--best-of", "2", "--max-tokens", "4", "--limit", "8"];
    let output = danlu(home, &[&sample[..], &["--out", &out, "--json"][..]].concat());
    let told: Value = serde_json::from_str(&output).unwrap();
    assert!((0.0..=1.0).contains(&told["rules"]["model"].as_f64().unwrap()), "{told}");
}
