//! A line of models from general to one task: measured on the same items, let through or kept as candidates, and shown as a family.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Home {
    dir: TempDir,
}

impl Home {
    #[track_caller]
    fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_danlu"));
        command.args(arguments).env("DANLU_HOME", self.dir.path()).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "danlu {}\n{text}", arguments.join(" "));
        text
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn record(&self, id: &str) -> Value {
        serde_json::from_slice(&fs::read(self.dir.path().join("models").join(id).join("danlu.json")).unwrap()).unwrap()
    }
}

/// Sources of one crate, as text.
fn sources(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name).join("src").display().to_string()
}

/// A recipe for a very small model on the sources of the crate that reads text; `more` goes into its sections.
fn recipe(name: &str, data: &str, model: &str, rest: &str) -> String {
    format!(
        "name = {name:?}\n[data]\nheld_out = 0.1\n{data}\n[tokenizer]\nvocabulary = 400\n[model]\ncontext = 64\n{model}\n[batch]\ntokens = 1024\n\
         [eval]\ntokens = 1000\nfinal_tokens = 2000\n[sample]\ntokens = 4\n{rest}\n"
    )
}

#[test]
fn a_line_of_models_passes_its_gates_or_waits() {
    let home = Home { dir: tempfile::tempdir().unwrap() };
    let (data, other) = (sources("danlu-data"), sources("danlu-ops"));
    let from_scratch = "layers = 2\nhidden = 32";
    let base = home.write("base.toml", &recipe("base", &format!("sources = [{data:?}]"), from_scratch, "[budget]\nsteps = 40"));
    home.expect(0, &["train", &base]);

    // Another text is learned, with some of the first among it: better at the new one, no worse at the old one than it may be.
    let gate = format!("[gate]\ntarget = [{other:?}]\ngeneral = [{data:?}]\nitems = 20\ntolerance = 0.1");
    let text = format!("sources = [{other:?}]\nreplay = [{data:?}]\nreplay_share = 0.3");
    let l1 = home.write("l1.toml", &recipe("line", &text, "from = \"base\"", &format!("{gate}\n[budget]\nsteps = 40")));
    let said = home.expect(0, &["train", &l1]);
    assert!(said.contains("line@1 is registered") && said.contains("better"), "{said}");
    let record = home.record("line@1");
    assert_eq!(record["gate"]["passed"], true);
    assert_eq!(record["sets"][0]["role"], "target");
    assert_eq!(record["sets"][0]["change"]["from"], "base@1");
    assert!(record["sets"][0]["change"]["high"].as_f64().unwrap() < 0.0, "{record}");
    let parent = home.record("base@1");
    assert_eq!(parent["sets"][0]["hash"], record["sets"][0]["hash"], "both are measured on the same items");
    assert_eq!(parent["sets"][0]["value"], record["sets"][0]["change"]["was"]);

    // Steps of no length: nothing is learned, and it stays a candidate.
    let rate = "[optimizer]\nkind = \"adamw\"\nrate = 0.0";
    let idle =
        home.write("idle.toml", &recipe("idle", &text, "from = \"base\"", &format!("{gate}\n{rate}\n[budget]\nsteps = 6")));
    let said = home.expect(0, &["train", &idle, "--model", "line"]);
    assert!(said.contains("line@2 is kept as a candidate") && said.contains("not better by more than chance"), "{said}");
    let shown = home.expect(0, &["models", "show", "line"]);
    assert!(
        shown.starts_with("line@1\n") && shown.contains("standing    current"),
        "the name means the one that passed:\n{shown}"
    );
    let shown = home.expect(0, &["models", "show", "line@2"]);
    assert!(shown.contains("standing    candidate") && shown.contains("not passed"), "{shown}");
    home.expect(3, &["models", "rollback", "line"]);
    home.expect(0, &["models", "promote", "line@2"]);
    assert!(home.expect(0, &["models", "show", "line"]).starts_with("line@2\n"));
    let said = home.expect(0, &["models", "rollback", "line"]);
    assert!(said.contains("line means line@1 again"), "{said}");
    let listed = home.expect(0, &["models", "list"]);
    assert!(listed.contains("withdrawn") && listed.contains("line@2"), "nothing is deleted:\n{listed}");

    // A task: conversations, with others read again, in its own shares.
    let talk = |n: usize, verb: &str| {
        let one = |i: usize| format!("{{\"question\":\"{verb} {i}?\",\"answer\":\"{verb} {} is {i}.\"}}\n", i + 1);
        (0..n).map(one).collect::<String>()
    };
    let (talks, others) = (home.write("talks.jsonl", &talk(80, "add")), home.write("others.jsonl", &talk(40, "name")));
    let data = format!("sources = [{talks:?}]\nreplay = [{others:?}]\nreplay_share = 0.25");
    let gate = format!(
        "[gate]\ntarget = [\"{talks}:answer-bits-per-byte\"]\nalso = [\"{talks}:chrf\", {other:?}]\nitems = 8\nanswer_tokens = 8"
    );
    let rest = format!("[objective]\nkind = \"sft\"\n[optimizer]\nrate = 3e-3\n{gate}\n[budget]\nsteps = 12");
    let l2 = home.write("l2.toml", &recipe("task", &data, "from = \"line\"", &rest));
    let said = home.expect(0, &["train", &l2]);
    assert!(said.contains("task@1 is registered"), "{said}");
    let tree = home.expect(0, &["models", "lineage", "task"]);
    for part in ["base@1", "└─ task@1 *", "line@2", "withdrawn", "current", "better", "chrF"] {
        assert!(tree.contains(part), "{part}\n{tree}");
    }
    let again = home.record("line@1");
    assert_eq!(again["sets"][0]["change"], record["sets"][0]["change"], "what its gate measured stays:\n{again}");
    let picture = home.dir.path().join("family.svg");
    home.expect(0, &["models", "lineage", "base", "--svg", &picture.display().to_string()]);
    let svg = fs::read_to_string(picture).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    for id in ["base@1", "line@1", "line@2", "task@1"] {
        assert!(svg.contains(&format!(">{id}</text>")), "{id} is not drawn");
    }

    // What cannot be measured is said before anything is trained.
    let wrong = home.write(
        "wrong.toml",
        &recipe("wrong", &text, "from = \"base\"", "[gate]\ntarget = [\"talks:rouge\"]\n[budget]\nsteps = 1"),
    );
    assert!(home.expect(3, &["train", &wrong]).contains("rouge-l"));
    let wrong = home.write(
        "wrong.toml",
        &recipe("wrong", &text, "from = \"base\"", "[gate]\ntarget = [\"/no/such/text\"]\n[budget]\nsteps = 1"),
    );
    assert!(home.expect(3, &["train", &wrong]).contains("/no/such/text"));
}

#[test]
fn a_child_reads_as_its_parent_and_keeps_the_day() {
    let home = Home { dir: tempfile::tempdir().unwrap() };
    let data = sources("danlu-registry");
    let base = recipe("base", &format!("sources = [{data:?}]"), "layers = 1\nhidden = 32", "[budget]\nsteps = 2");
    home.expect(0, &["train", &home.write("base.toml", &base)]);
    // A folder from elsewhere: its texts begin with another token than they end with, and its template tells the day.
    let folder = home.dir.path().join("theirs");
    home.expect(0, &["models", "export", "base", &folder.display().to_string()]);
    let config = r#"{"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}"#;
    fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    let template = "<|im_start|>system\n{{ strftime_now('%Y-%m-%d') }}<|im_end|>\n{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    fs::write(folder.join("chat_template.jinja"), template).unwrap();
    let talks: String = (0..40).map(|i| format!("{{\"question\":\"add {i}?\",\"answer\":\"it is {i}.\"}}\n")).collect();
    let talks = home.write("talks.jsonl", &talks);
    let rest = "[objective]\nkind = \"sft\"\n[budget]\nsteps = 2";
    let child = recipe(
        "child",
        &format!("sources = [{talks:?}]\ndate = \"2026-02-03\""),
        &format!("from = {:?}", folder.display().to_string()),
        rest,
    );
    let said = home.expect(0, &["train", &home.write("child.toml", &child)]);
    assert!(said.contains("2026-02-03"), "the day is in what the model sees:\n{said}");
    let copied = fs::read_to_string(home.dir.path().join("models/child@1/tokenizer_config.json")).unwrap();
    assert_eq!(copied, config);
    // Without a day of its own, a run keeps that of its first step for when it goes on.
    let free = child.replace("date = \"2026-02-03\"", "").replace("\"child\"", "\"free\"");
    home.expect(0, &["train", &home.write("free.toml", &free)]);
    let kept = fs::read_to_string(home.dir.path().join("runs/free/recipe.toml")).unwrap();
    assert!(kept.contains("date = \"20"), "{kept}");
}
