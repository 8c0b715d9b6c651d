//! `danlu up` as a newcomer meets it: one command for a whole life, on conversations and pairs of their own, which can be stopped anywhere.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A home for the program, with files in it.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn lines(&self, name: &str, rows: impl Iterator<Item = Value>) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, rows.map(|row| format!("{row}\n")).collect::<String>()).unwrap();
        path.display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_danlu"));
        command.args(arguments).env("DANLU_HOME", self.0.path()).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        command
    }

    /// Runs it, expects `code`, and gives what it printed.
    #[track_caller]
    fn expect(&self, code: i32, arguments: &[&str]) -> String {
        said(self.command(arguments), code)
    }
}

#[track_caller]
fn said(mut command: Command, code: i32) -> String {
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    text
}

/// Real text that every checkout has: the sources of the crate that reads text.
fn texts() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("danlu-data/src").display().to_string()
}

fn talks(home: &Home) -> String {
    let one = |i: u32| json!({"instruction": format!("is {i} nice?"), "output": format!("yes, {i} is nice")});
    // What no model of minutes can read is left out.
    let long = |i: u32| json!({"instruction": format!("tell tale {i}"), "output": "once upon a time ".repeat(900)});
    home.lines("talks.jsonl", (0..60).map(one).chain((0..10).map(long)))
}

fn pairs(home: &Home) -> String {
    let one = |i: u32| json!({"prompt": format!("is {i} nice?"), "chosen": format!("yes, {i} is nice"), "rejected": format!("no, {i} is bad")});
    home.lines("pairs.jsonl", (0..40).map(one))
}

/// The records of all models, in the order of the stages.
fn records(home: &Home) -> Vec<Value> {
    let listed = fs::read_dir(home.0.path().join("models")).unwrap().map(|entry| entry.unwrap().path().join("danlu.json"));
    let mut all: Vec<Value> =
        listed.filter(|path| path.exists()).map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect();
    let stage = |record: &Value| {
        let name = record["name"].as_str().unwrap();
        ["-chat", "-aligned"].iter().position(|end| name.ends_with(end)).map_or(0, |place| place + 1)
    };
    all.sort_by_key(|record| (stage(record), record["version"].as_u64()));
    all
}

fn id(record: &Value) -> String {
    format!("{}@{}", record["name"].as_str().unwrap(), record["version"])
}

/// The hash of the items that a model was measured on.
fn items<'a>(record: &'a Value, unit: &str) -> &'a Value {
    let sets = record["sets"].as_array().into_iter().flatten();
    sets.into_iter().find(|set| set["unit"] == unit).map_or(&Value::Null, |set| &set["hash"])
}

#[test]
fn a_whole_life_goes_on_where_it_was() {
    let home = Home::new();
    let (texts, talks, pairs) = (texts(), talks(&home), pairs(&home));
    let pretrained = ["up", "--data", &texts, "--minutes", "0.1", "--no-prompt"];
    // Without a package source there are no conversations, and the pretrained model is the last.
    let mut offline = home.command(&pretrained);
    offline.env("PATH", "/nowhere");
    let text = said(offline, 0);
    for part in ["alpaca-en cannot be had", "the pretrained model is the last", "[5/5] pretraining", "@1 is registered"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(records(&home).len(), 1);

    let whole = [&pretrained[..], &["--talks", &talks, "--pairs", &pairs][..]].concat();
    let text = home.expect(0, &whole);
    for part in [
        "@1 is there already",
        "[6/8] instruction tuning",
        "too long or without an answer",
        "[7/8] alignment",
        "[8/8] evaluation",
        "preference accuracy",
        "is asked: ",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("; 0 too long"), "the long ones are counted:\n{text}");
    let family = records(&home);
    let [base, chat, aligned] = &family[..] else { panic!("{} models", family.len()) };
    assert_eq!((&chat["parent"], &aligned["parent"]), (&json!(id(base)), &json!(id(chat))));
    assert_eq!([&base["level"], &chat["level"], &aligned["level"]], ["L0", "L1", "L1"]);
    for unit in ["bits_per_byte", "answer_bits_per_byte", "preference_accuracy"] {
        assert!(items(base, unit).is_string(), "{unit} is not measured: {base}");
        assert!([chat, aligned].iter().all(|one| items(one, unit) == items(base, unit)), "{unit} is of other items");
    }
    // What is measured decides nothing.
    assert!([chat, aligned].iter().all(|one| one["gate"]["passed"] == true));
    let answers = chat["sets"].as_array().unwrap().iter().find(|set| set["unit"] == "answer_bits_per_byte").unwrap();
    assert!(answers["change"]["value"].as_f64().unwrap() < 0.0, "tuning made answers no likelier: {answers}");
    let tree = home.expect(0, &["models", "lineage", &id(aligned)]);
    assert!(family.iter().all(|one| tree.contains(&id(one))), "{tree}");

    let again = home.expect(0, &whole);
    assert_eq!(again.matches("is there already").count(), 3, "{again}");
    assert!(!again.contains("planned") && !again.contains("the whole took"), "{again}");
    assert_eq!(records(&home).len(), 3);

    // A tuned model is of its parent: with another there is another.
    let anew = [&whole[..], &["--fresh", "--until", "tune"][..]].concat();
    let text = home.expect(0, &anew);
    assert!(text.contains("[7/7] evaluation"), "{text}");
    let newest = records(&home);
    assert_eq!(newest.len(), 5);
    assert_eq!(newest[3]["parent"], json!(id(&newest[1])), "the second chat model is of the second pretrained one");
}

#[test]
fn what_is_asked_for_and_is_not_there_is_said_at_once() {
    let home = Home::new();
    let texts = texts();
    let up = ["up", "--data", &texts, "--minutes", "0.1", "--no-prompt"];
    let pairs = pairs(&home);
    for (more, part) in [
        (["--talks", "/no/such/talks.jsonl"], "/no/such/talks.jsonl"),
        (["--talks", "no-such-entry"], "no-such-entry"),
        (["--talks", &pairs], "pairs.jsonl"),
    ] {
        let text = home.expect(3, &[&up[..], &more[..]].concat());
        assert!(text.contains(part), "{more:?} does not say {part:?}:\n{text}");
        assert!(!text.contains("pretraining"), "{text}");
    }
    home.expect(2, &[&up[..], &["--until", "serve"][..]].concat());
}

/// Runs it until the run of that name has done `step` steps, then sends the signal. The exit code, or -9 for none.
fn stop_in(mut command: Command, run_ends: &str, step: u64, signal: &str) -> i32 {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut inside = false;
    for line in lines.by_ref() {
        // What is said between the runs is no JSON.
        let Ok(event) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
        if event["event"] == "begin" {
            inside = event["run"].as_str().unwrap().ends_with(run_ends);
        }
        if inside && event["event"] == "step" && event["step"].as_u64() >= Some(step) {
            break;
        }
    }
    assert!(inside, "there was no run …{run_ends}");
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    lines.for_each(drop);
    child.wait().unwrap().code().unwrap_or(-9)
}

#[test]
fn stopped_or_killed_in_any_stage_it_goes_on() {
    let home = Home::new();
    let (texts, talks, pairs) = (texts(), talks(&home), pairs(&home));
    let up = ["up", "--data", &texts, "--minutes", "0.2", "--talks", &talks, "--pairs", &pairs, "--no-prompt", "--view", "json"];
    assert_eq!(stop_in(home.command(&up), "m", 1, "-INT"), 130);
    // A busy machine makes few steps in this time: the first that follows is killed.
    assert_eq!(stop_in(home.command(&up), "m", 1, "-KILL"), -9);
    assert_eq!(stop_in(home.command(&up), "m-chat", 1, "-INT"), 130);
    assert_eq!(stop_in(home.command(&up), "m-aligned", 1, "-INT"), 130);
    let text = home.expect(0, &up);
    assert!(text.contains("is there already"), "{text}");
    let family = records(&home);
    assert_eq!(family.iter().map(|one| one["version"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 1, 1], "a stage was repeated");
    assert_eq!((&family[1]["parent"], &family[2]["parent"]), (&json!(id(&family[0])), &json!(id(&family[1]))));
}
