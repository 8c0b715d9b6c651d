//! Reinforcement learning as its users meet it: a model of their own, questions of their own, `danlu train`, and answers kept by a reward.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

fn danlu(home: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_danlu"));
    let output = command.args(arguments).env("DANLU_HOME", home).stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "danlu {}\n{text}", arguments.join(" "));
    text
}

#[test]
fn a_model_of_ones_own_learns_from_rewards_and_its_good_answers_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let write = |name: &str, text: &str| {
        let path = home.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("danlu-data/src/tokenizer").display().to_string();
    let base = write(
        "base.toml",
        &format!(
            "name = \"base\"\n[data]\nsources = [{texts:?}]\nheld_out = 0.2\n[tokenizer]\nvocabulary = 400\n[model]\nlayers = 2\n\
             hidden = 32\ncontext = 64\n[batch]\ntokens = 512\n[budget]\nsteps = 20\n[eval]\ntokens = 1000\nfinal_tokens = 1000\n"
        ),
    );
    danlu(home, &["train", &base]);

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
