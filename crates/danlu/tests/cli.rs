//! The program as its users meet it: the real binary, a home of its own, real text.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_danlu"));
        command.args(arguments).env("DANLU_HOME", self.dir.path()).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, expects `code`, and gives what it printed.
    #[track_caller]
    fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "danlu {}\n{text}", arguments.join(" "));
        text
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn weights(&self, model: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("models").join(model).join("model.safetensors")).unwrap()
    }
}

/// Real text that every checkout has: the sources of the crate that reads text.
fn texts() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("danlu-data/src").display().to_string()
}

/// A recipe of a very small model for `steps` steps.
fn recipe(steps: u32) -> String {
    format!(
        "name = \"small\"\n[data]\nsources = [{:?}]\nheld_out = 0.1\n[tokenizer]\nvocabulary = 400\n[model]\nlayers = 2\nhidden = 32\ncontext = 64\n[batch]\ntokens = 512\n[budget]\nsteps = {steps}\n[eval]\ntokens = 2000\nfinal_tokens = 4000\n[sample]\ntokens = 8\n",
        texts()
    )
}

#[test]
fn exit_codes_say_whose_fault_it_was() {
    let home = Home::new();
    let check = |code, arguments: &[&str], part: &str| {
        let text = home.expect(code, arguments);
        assert!(text.contains(part), "{arguments:?} does not say {part:?}:\n{text}");
    };
    check(0, &["--help"], "danlu up");
    check(0, &["--version"], "danlu");
    check(0, &["help", "recipe"], "[budget]");
    check(0, &["models", "list"], "no models yet");
    check(0, &["data", "list"], "wiki-leads");
    check(2, &[], "Usage");
    check(2, &["trian"], "train");
    check(2, &["train"], "--resume");
    check(3, &["models", "show", "nobody"], "there is no model nobody");
    check(2, &["models", "show", "../x"], "cannot be a name");
    check(3, &["generate", "nobody", "--prompt", "a"], "nobody");
    check(3, &["train", "--resume", "nothing"], "there is no run");
    check(3, &["train", "missing.toml"], "missing.toml");
    check(3, &["up", "--data", "/no/such/text", "--no-prompt"], "/no/such/text");
    check(3, &["up", "--minutes", "0"], "positive");

    let wrong = home.write("wrong.toml", "name = \"a\"\n[model]\nlayer = 2\n");
    check(3, &["plan", &wrong], "wrong.toml:3");
    check(3, &["plan", &wrong], "model.layers");
    let path = home.write("small.toml", &recipe(10));
    check(3, &["plan", &path, "--set", "model.hiden=64"], "model.hidden");
    check(3, &["train", &path, "--run", "../out"], "cannot be a name");
}

#[test]
fn a_plan_says_what_it_takes_and_refuses_what_does_not_fit() {
    let home = Home::new();
    let path = home.write("small.toml", &recipe(10));
    let text = home.expect(0, &["plan", &path]);
    for part in ["parameters", "10 steps of 512 tokens", "memory", "tokens/s", "optimizer"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let plan = home.json(&["plan", &path, "--json", "--watts", "60", "--per-kwh", "0.5"]);
    assert_eq!(plan["plan"]["tokens"], 5120);
    assert_eq!(plan["fits"], true);
    let (energy, cost) = (plan["plan"]["energy"].as_f64().unwrap(), plan["plan"]["cost"].as_f64().unwrap());
    assert!(energy > 0.0 && (cost - energy * 0.5).abs() < 1e-9);
    let text = home.expect(4, &["plan", &path, "--set", "model.layers=128", "--set", "model.hidden=16384"]);
    assert!(text.contains("memory") && text.contains("--set"), "{text}");
}

#[test]
fn a_whole_life_in_seconds() {
    let home = Home::new();
    let (texts, minutes) = (texts(), "0.15");
    let up = ["up", "--data", &texts, "--minutes", minutes, "--until", "pretrain", "--no-prompt"];
    let first = home.expect(0, &up);
    for part in
        ["[1/5] text", "[5/5] pretraining", "bits per byte", "is registered", "planned", "the first row as the model sees it"]
    {
        assert!(first.contains(part), "{part}\n{first}");
    }
    let models = home.json(&["models", "list", "--json"]);
    let name = format!("{}@1", models[0]["name"].as_str().unwrap());
    let measured = models[0]["metrics"]["bits_per_byte"]["value"].as_f64().unwrap();
    assert!((0.5..8.0).contains(&measured), "{measured} bits per byte");
    let run = models[0]["run"].as_str().unwrap();
    let picture = fs::read(home.dir.path().join("runs").join(run).join("curve.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));

    let again = home.expect(0, &up);
    assert!(again.contains("is there already"), "{again}");
    assert_eq!(home.json(&["models", "list", "--json"]).as_array().unwrap().len(), 1);

    let generate =
        |seed: &str| home.json(&["generate", &name, "--prompt", "pub fn ", "--max-tokens", "12", "--seed", seed, "--json"]);
    assert_eq!(generate("1")["text"], generate("1")["text"]);
    assert_ne!(generate("1")["text"], generate("2")["text"]);

    // The interactive prompt is the same over a pipe, and ends with it.
    let mut child = home
        .command(&["generate", &name, "--interactive", "--max-tokens", "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"let x\nfn main\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("fn main"));

    // The whole of the same held-out text, so that the registered weights are the ones that were measured.
    let evaluated = home.json(&["eval", &name, "--json"]);
    let value = evaluated[0]["bits_per_byte"]["value"].as_f64().unwrap();
    assert!((value - measured).abs() < 1e-3 * measured, "{value} for {measured}");
    home.expect(0, &["models", "verify", &name]);
    assert!(home.expect(0, &["models", "lineage", &name]).contains("bits_per_byte"));
    let out = home.dir.path().join("out");
    home.expect(0, &["models", "export", &name, out.to_str().unwrap()]);
    for file in ["config.json", "model.safetensors", "tokenizer.json", "README.md", "danlu.json", "generation_config.json"] {
        assert!(out.join(file).exists(), "{file}");
    }
    home.expect(0, &["models", "import", out.to_str().unwrap(), "--name", "back", "--licence", "MIT"]);
    assert_eq!(home.weights("back@1"), home.weights(&name));
    assert!(home.expect(0, &["tokenizer", "show", &name]).contains("Chinese"));
}

/// Reads a run's events until `step` steps are done, then sends the signal.
fn interrupt_at(mut command: Command, step: u64, signal: &str) -> i32 {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.by_ref() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"] == "step" && event["step"].as_u64() >= Some(step) {
            break;
        }
    }
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    lines.for_each(drop);
    child.wait().unwrap().code().unwrap_or(-9)
}

#[test]
fn interrupted_or_killed_a_run_ends_in_the_same_weights() {
    let home = Home::new();
    let path = home.write("small.toml", &recipe(40));
    let set = ["--set", "checkpoint.every=5"];
    home.expect(0, &["train", &path, "--run", "whole", set[0], set[1]]);

    let name = "parts";
    let begin = home.command(&["train", &path, "--run", name, set[0], set[1], "--json"]);
    assert_eq!(interrupt_at(begin, 7, "-INT"), 130);
    let stopped: PathBuf = home.dir.path().join("runs").join(name);
    assert!(stopped.join("checkpoints").exists());
    let text = home.expect(3, &["train", &path, "--run", name]);
    assert!(text.contains("--resume parts"), "{text}");
    assert_eq!(interrupt_at(home.command(&["train", "--resume", name, "--json"]), 23, "-KILL"), -9);
    home.expect(0, &["train", "--resume", name]);
    assert!(home.expect(0, &["train", "--resume", name]).contains("is finished"));
    assert!(home.weights("whole@1") == home.weights("parts@1"), "the weights differ");
}

#[test]
fn words_become_vectors_that_are_looked_at_and_exchanged() {
    let home = Home::new();
    let text = format!(
        "name = \"words\"\n[data]\nsources = [{:?}]\nheld_out = 0.1\n[tokenizer]\nvocabulary = 2000\nleast = 3\n[model]\nhidden = 16\n[objective]\nkind = \"word2vec\"\n[word2vec]\nvectors = \"binary\"\n[batch]\ntokens = 2048\n[budget]\nsteps = 3000\n[checkpoint]\nevery = 200\n",
        texts()
    );
    let path = home.write("words.toml", &text);
    let plan = home.expect(0, &["plan", &path]);
    for part in ["word2vec", "3,000 steps of 2,048 words", "memory"] {
        assert!(plan.contains(part), "{part}\n{plan}");
    }
    home.expect(0, &["train", &path, "--run", "whole"]);
    // Steps take a millisecond or less, so there are many of them.
    assert_eq!(interrupt_at(home.command(&["train", &path, "--run", "parts", "--json"]), 7, "-INT"), 130);
    assert_eq!(interrupt_at(home.command(&["train", "--resume", "parts", "--json"]), 1000, "-KILL"), -9);
    let end = home.expect(0, &["train", "--resume", "parts"]);
    assert!(end.contains("nats per prediction") && end.contains("danlu embed near"), "{end}");
    assert!(home.weights("whole@1") == home.weights("parts@1"), "the weights differ");

    let near = |of: [&str; 2]| home.json(&["embed", "near", "Let", of[0], of[1], "--count", "3", "--json"]);
    let found = near(["--model", "whole"]);
    assert_eq!(found.as_array().unwrap().len(), 3);
    let cosine = found[0]["cosine"].as_f64().unwrap();
    assert!((0.0..=1.001).contains(&cosine) && found[0]["word"] != "let", "{found}");
    for name in ["vectors.txt", "vectors.bin"] {
        let file = home.dir.path().join(name).display().to_string();
        home.expect(0, &["embed", "export", &file, "--model", "whole"]);
        assert_eq!(near(["--vectors", &file]), found, "{name}");
    }
    let kept = fs::read(home.dir.path().join("models/whole@1/vectors.bin")).unwrap();
    assert!(kept == fs::read(home.dir.path().join("vectors.bin")).unwrap(), "the file kept with the model is another");
    let answer = home.json(&["embed", "analogy", "fn", "let", "pub", "--model", "whole", "--json"]);
    assert_eq!(answer.as_array().unwrap().len(), 5);
    assert!(home.expect(0, &["embed", "analogies", "--model", "whole"]).contains("capital-country"));

    let check = |arguments: &[&str], part: &str| {
        let text = home.expect(3, arguments);
        assert!(text.contains(part), "{arguments:?} does not say {part:?}:\n{text}");
    };
    check(&["embed", "near", "let"], "recipes/2013-word2vec.toml");
    check(&["embed", "near", "xyzzyplugh", "--model", "whole"], "xyzzyplugh");
    check(&["embed", "near", "let", "--vectors", &path], "no word vectors");
    check(&["train", &path, "--run", "a", "--set", "model.from=whole"], "model.from");
    check(&["generate", "whole", "--prompt", "a"], "word2vec");
}

/// Dark and light pictures, and one that is none.
fn pictures(home: &Home) -> PathBuf {
    let dir = home.dir.path().join("pictures");
    for (class, level) in [("dark", 40u8), ("light", 190)] {
        fs::create_dir_all(dir.join(class)).unwrap();
        for i in 0..30u32 {
            let value = |x: u32, y: u32| image::Luma([level + ((x * 7 + y * 13 + i * 29) % 50) as u8]);
            let picture = image::GrayImage::from_fn(16, 16, value);
            picture.save(dir.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    fs::write(dir.join("dark/broken.png"), "not a picture").unwrap();
    dir
}

/// A folder for each class: planned, learned, killed and gone on with, kept, and asked about a file.
#[test]
fn pictures_are_learned_and_named() {
    let home = Home::new();
    let dir = pictures(&home);
    let recipe = format!(
        "name = \"pictures\"\n[data]\nsources = [{dir:?}]\nheld_out = 0.2\n[model]\nkind = \"lenet\"\n[lenet]\nchannels = [4, 6]\n\
         hidden = [12]\n[objective]\nkind = \"image-classify\"\n[image]\nshift = 1\n[batch]\nexamples = 8\n[optimizer]\nrate = 0.01\n\
         [checkpoint]\nevery = 50\n[eval]\nevery = 100000\n[sample]\nevery = 0\n[budget]\nsteps = 1500\n"
    );
    let path = home.write("pictures.toml", &recipe);
    let plan = home.expect(0, &["plan", &path]);
    assert!(plan.contains("lenet") && plan.contains("channels, 2 classes\n") && plan.contains("pictures/s"), "{plan}");
    assert!(!plan.contains("tokens") && !plan.contains("vocabulary") && !plan.contains("context"), "{plan}");
    let text = home.expect(0, &["train", &path, "--run", "whole"]);
    for part in ["16×16", "2 classes", "1 set aside", "of pictures named right", "danlu classify whole@1"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let listed = fs::read_to_string(home.dir.path().join("cache/set-aside/whole.jsonl")).unwrap();
    assert!(listed.contains("broken.png") && listed.contains("no picture in PNG or JPEG"), "{listed}");

    let begin = home.command(&["train", &path, "--run", "parts", "--json"]);
    assert_eq!(interrupt_at(begin, 30, "-INT"), 130);
    assert_eq!(interrupt_at(home.command(&["train", "--resume", "parts", "--json"]), 90, "-KILL"), -9);
    home.expect(0, &["train", "--resume", "parts"]);
    assert!(home.weights("whole@1") == home.weights("parts@1"), "the weights differ");

    let light = dir.join("light/3.png").display().to_string();
    assert!(home.expect(0, &["classify", "whole", &light]).starts_with("light"));
    assert!(home.expect(3, &["classify", "whole", "nowhere.png"]).contains("nowhere.png"));
    assert!(home.expect(3, &["train", &path, "--set", "model.kind=llama"]).contains("model.kind"));
}

/// A classifier judges what a generator learns to draw: planned, learned with sheets along the way, killed and gone on with, kept, drawn from
/// and trained further.
#[test]
fn pictures_are_drawn_and_judged() {
    let home = Home::new();
    let dir = home.dir.path().join("pictures");
    for (class, level) in [("dark", 40u8), ("light", 190)] {
        fs::create_dir_all(dir.join(class)).unwrap();
        for i in 0..40u32 {
            let value = |x: u32, y: u32| image::Luma([level + ((x * 7 + y * 13 + i * 29) % 50) as u8]);
            let picture = image::GrayImage::from_fn(16, 16, value);
            picture.save(dir.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    let data = format!(
        "[data]\nsources = [{dir:?}]\nheld_out = 0.3\n[batch]\nexamples = 8\n[checkpoint]\nevery = 50\n[eval]\nevery = 100000\n"
    );
    let judge = home.write(
        "judge.toml",
        &format!(
            "name = \"judge\"\n{data}[model]\nkind = \"lenet\"\n[lenet]\nchannels = [4, 6]\nhidden = [12]\n[objective]\n\
             kind = \"image-classify\"\n[sample]\nevery = 0\n[budget]\nsteps = 60\n"
        ),
    );
    let recipe = home.write(
        "drawn.toml",
        &format!(
            "name = \"drawn\"\n{data}[model]\nkind = \"dcgan\"\n[gan]\nlatent = 8\nwidths = [8, 4]\njudge = \"judge\"\n\
             loss = \"hinge\"\nspectral_norm = true\n[objective]\nkind = \"gan\"\n[optimizer]\nclip = 0.0\nweight_decay = 0.0\n\
             beta1 = 0.5\n[sample]\nevery = 500\n[budget]\nsteps = 1500\n"
        ),
    );
    assert!(home.expect(3, &["train", &recipe, "--run", "whole"]).contains("1998-lenet5.toml"));
    home.expect(0, &["train", &judge]);
    assert!(home.expect(0, &["plan", &recipe]).contains("gan with"));
    let text = home.expect(0, &["train", &recipe, "--run", "whole"]);
    for part in ["16×16", "of Fréchet distance", "recall", "danlu generate whole@1 --out"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let sheet = |run: &str, step: u32| fs::read(home.dir.path().join(format!("runs/{run}/samples/step-{step:08}.png"))).unwrap();
    let size = |png: &[u8]| image::load_from_memory(png).unwrap().to_luma8().dimensions();
    assert_eq!(size(&sheet("whole", 500)), (8 * 17 - 1, 8 * 17 - 1));

    let begin = home.command(&["train", &recipe, "--run", "parts", "--json"]);
    assert_eq!(interrupt_at(begin, 30, "-INT"), 130);
    assert_eq!(interrupt_at(home.command(&["train", "--resume", "parts", "--json"]), 90, "-KILL"), -9);
    home.expect(0, &["train", "--resume", "parts"]);
    assert!(home.weights("whole@1") == home.weights("parts@1"), "the weights differ");
    assert!(sheet("whole", 1500) == sheet("parts", 1500), "the sheets differ");

    let card = fs::read_to_string(home.dir.path().join("models/whole@1/README.md")).unwrap();
    assert!(card.contains("danlu generate whole@1 --out") && !card.contains("AutoModel"), "{card}");

    let png = home.dir.path().join("ten.png").display().to_string();
    let draw = |seed: &str| {
        assert!(
            home.expect(0, &["generate", "whole", "--out", &png, "--pictures", "10", "--seed", seed]).contains("10 pictures")
        );
        fs::read(&png).unwrap()
    };
    let first = draw("1");
    assert_eq!(size(&first), (4 * 17 - 1, 3 * 17 - 1));
    assert!(draw("1") == first && draw("2") != first);
    assert!(home.expect(3, &["generate", "whole", "--prompt", "a"]).contains("--out"));
    assert!(home.expect(3, &["generate", "judge", "--out", &png]).contains("draws none"));
    home.expect(0, &["train", &recipe, "--run", "further", "--set", "model.from=whole", "--set", "budget.steps=5"]);
    assert!(
        home.expect(3, &["train", &recipe, "--run", "bad", "--set", "model.from=whole", "--set", "model.kind=gan"])
            .contains("form")
    );
}

/// Every way of using an encoder of pictures, in one table; what is kept reads a picture as it was taught to.
#[test]
fn ways_of_using_an_encoder_of_pictures_are_compared() {
    let home = Home::new();
    let dir = pictures(&home);
    let common = format!(
        "[data]\nsources = [{dir:?}]\nheld_out = 0.2\n[model]\nkind = \"vit\"\nlayers = 2\nhidden = 32\nheads = 2\nintermediate = 64\n\
         [batch]\nexamples = 8\n[eval]\nevery = 100000\n[sample]\nevery = 0\n[budget]\nsteps = 40\n"
    );
    let mae =
        home.write("mae.toml", &format!("name = \"mae\"\n{common}[mae]\nlayers = 1\n[objective]\nkind = \"masked-image\"\n"));
    home.expect(0, &["train", &mae]);
    let recipe = format!(
        "name = \"ways\"\n{common}[image]\nflip = true\nlimit = 40\n[adapter]\nkind = \"lora\"\nrank = 2\n[vit]\nkeep = 0.75\n[objective]\n\
         kind = \"image-classify\"\n"
    );
    let path = home.write("ways.toml", &recipe.replace("[model]\n", "[model]\nfrom = \"mae\"\n"));
    let text = home.expect(0, &["compare", &path]);
    for part in ["40 pictures to train on", "transfer", "macro-F1", "trained"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let rows = fs::read(home.dir.path().join("compare/ways/compare.json")).unwrap();
    let rows: Value = serde_json::from_slice(&rows).unwrap();
    let trained = |way: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["way"] == way).unwrap();
        assert!(row["low"].as_f64() <= row["value"].as_f64() && row["value"].as_f64() <= row["high"].as_f64(), "{row}");
        row["trained_parameters"].as_u64().unwrap()
    };
    // Of 4×4 cells nine blocks of 36 numbers, and their brightness; two classes and a bias for each.
    let of_features = (9 * 36 + 2 + 16 + 1) * 2;
    let head = (32 + 1) * 2;
    assert_eq!((trained("linear"), trained("transfer")), (of_features, head));
    assert_eq!((trained("fine-tune"), trained("features")), (trained("scratch"), trained("scratch") + of_features));
    // In each of two layers four projections of 32 by 32 and two of 64 by 32, at rank 2.
    assert_eq!(trained("lora"), head + 2 * 2 * (4 * 64 + 2 * 96));
    // What is finished is not trained again.
    home.expect(0, &["compare", &path, "--ways", "linear,transfer"]);
    assert!(!home.dir.path().join("models/ways-linear@2").exists());

    let light = dir.join("light/3.png").display().to_string();
    for way in ["linear", "features", "lora"] {
        let model = format!("ways-{way}");
        let said = home.expect(0, &["classify", &model, &light]);
        if way == "linear" {
            assert!(said.starts_with("light"), "{said}");
        }
        let folder = home.dir.path().join(format!("models/{model}@1")).display().to_string();
        home.expect(0, &["models", "import", &folder, "--name", &format!("again-{way}")]);
        assert_eq!(home.expect(0, &["classify", &format!("again-{way}"), &light]), said);
    }
    fs::remove_file(home.dir.path().join("models/again-features@1/features.json")).unwrap();
    assert!(home.expect(3, &["classify", "again-features", &light]).contains("features.json"));

    let refused = |set: &[&str], part: &str| {
        let path = home.write("other.toml", &recipe.replace("[adapter]\nkind = \"lora\"\nrank = 2\n", ""));
        let set = set.iter().flat_map(|one| ["--set", one]);
        let text = home.expect(3, &["train", &path, "--run", "other"].into_iter().chain(set).collect::<Vec<_>>());
        assert!(text.contains(part), "no {part:?} in {text}");
    };
    refused(&["classify.way=transfer"], "model.from");
    refused(&["classify.way=linear", "features.cell=12"], "features.cell");
    refused(&["model.from=mae", "adapter.kind=lora"], "classify.way");
    refused(&["model.from=mae", "classify.way=lora", "adapter.kind=prompt"], "decoders");
    refused(&["model.from=mae", "classify.way=lora", "model.kind=lenet"], "convolutions");
}

/// An encoder learns without labels, a classifier starts from it, and its folder is taken in again.
#[test]
fn a_vision_transformer_starts_from_a_masked_autoencoder() {
    let home = Home::new();
    let dir = pictures(&home);
    let common = format!(
        "[data]\nsources = [{dir:?}]\nheld_out = 0.2\n[image]\nflip = true\nshift = 1\n[model]\nkind = \"vit\"\n[batch]\nexamples = 8\n\
         [optimizer]\nrate = 0.003\n[eval]\nevery = 100000\n[sample]\nevery = 0\n"
    );
    let shape = "model.layers=2 model.hidden=32 model.heads=2 model.intermediate=64";
    let given = |more: &str| -> Vec<String> { format!("{shape} {more}").split(' ').map(String::from).collect() };
    let train = |path: &str, code: i32, more: &str| {
        let given = given(more);
        let set = given.iter().flat_map(|one| ["--set", one.as_str()]);
        home.expect(code, &["train", path].into_iter().chain(set).collect::<Vec<_>>())
    };
    let mae =
        home.write("mae.toml", &format!("name = \"mae\"\n{common}[objective]\nkind = \"masked-image\"\n[budget]\nsteps = 40\n"));
    let text = train(&mae, 0, "mae.layers=1");
    for part in ["16×16", "squared error of hidden values", "model.from=mae@1"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let vit = home.write(
        "vit.toml",
        &format!("name = \"vit\"\n{common}[vit]\nkeep = 0.75\n[objective]\nkind = \"image-classify\"\n[budget]\nsteps = 150\n"),
    );
    let text = train(&vit, 0, "model.from=mae");
    for part in ["12 of 16 patches seen", "of pictures named right", "danlu classify vit@1"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let light = dir.join("light/3.png").display().to_string();
    assert!(home.expect(0, &["classify", "vit", &light]).starts_with("light"));
    let folder = home.dir.path().join("models/vit@1").display().to_string();
    home.expect(0, &["models", "import", &folder, "--name", "again"]);
    assert_eq!(home.expect(0, &["classify", "again", &light]), home.expect(0, &["classify", "vit", &light]));
    assert!(home.expect(3, &["classify", "mae", &light]).contains("model.from"));
    assert!(train(&vit, 3, "model.from=mae model.kind=lenet").contains("lenet"));
    assert!(train(&mae, 3, "mae.mask=0.99").contains("mask_ratio"));
}

/// Stamps are learned as identities, stopped and gone on with, kept, and pictures compared by what was learned; a run on folders of pictures
/// starts from it.
#[test]
fn identities_are_learned_and_recognized() {
    let home = Home::new();
    let dir = home.dir.path().join("stamps");
    fs::create_dir(&dir).unwrap();
    for i in 0..24u32 {
        let inside = |x: u32, y: u32| x.abs_diff(8) + y.abs_diff(8) < 8 + i % 4;
        let color = |x, y| image::Rgba([(10 * i) as u8, 120, (250 - 10 * i) as u8, if inside(x, y) { 255 } else { 0 }]);
        // As large as they are learned: larger ones would be halved, and too little be left of them.
        image::RgbaImage::from_fn(16, 16, color).save(dir.join(format!("{i}.png"))).unwrap();
    }
    let people = home.dir.path().join("people");
    for i in 0..8u32 {
        fs::create_dir_all(people.join(format!("who-{i}"))).unwrap();
        for n in 0..4u32 {
            let color = |x: u32, y: u32| image::Rgb([(30 * i) as u8, (20 * n + x) as u8, (5 * y) as u8]);
            image::RgbImage::from_fn(16, 16, color).save(people.join(format!("who-{i}/{n}.png"))).unwrap();
        }
    }
    let recipe = format!(
        "name = \"faces\"\n[data]\nsources = [{dir:?}]\nheld_out = 0.3\n[image]\nsize = [16, 16]\n[embed]\nidentity = \"stamp\"\n\
         size = 8\nmargin = 0.2\nscale = 4.0\n[model]\nkind = \"vit\"\nlayers = 1\nhidden = 32\nheads = 2\nintermediate = 64\n\
         [objective]\nkind = \"image-embed\"\n[batch]\nexamples = 32\n[optimizer]\nrate = 0.003\n[checkpoint]\nevery = 50\n[eval]\n\
         every = 100000\ntokens = 400\nfinal_tokens = 2000\n[sample]\nevery = 0\n[budget]\nsteps = 500\n"
    );
    let path = home.write("faces.toml", &recipe);
    assert!(home.expect(0, &["plan", &path]).contains("pictures/s"));
    let text = home.expect(0, &["train", &path, "--run", "whole"]);
    for part in ["identities to learn", "16×16", "area under the ROC curve", "tar at far 0.01", "danlu embed alike"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let begin = home.command(&["train", &path, "--run", "parts", "--json"]);
    assert_eq!(interrupt_at(begin, 30, "-INT"), 130);
    home.expect(0, &["train", "--resume", "parts"]);
    assert!(home.weights("whole@1") == home.weights("parts@1"), "the weights differ");

    let [a, b] = ["0", "20"].map(|name| dir.join(format!("{name}.png")).display().to_string());
    let compared = home.expect(0, &["embed", "alike", &a, &b, &a, "--model", "whole"]);
    let lines: Vec<&str> = compared.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("1.000") && lines[1].ends_with("20.png"), "{compared}");
    let alone = home.json(&["embed", "alike", &a, "--model", "whole@1", "--json"]);
    assert_eq!(alone[0]["vector"].as_array().map(Vec::len), Some(8));
    assert!(home.expect(3, &["embed", "alike", &a, "nowhere.png", "--model", "whole"]).contains("nowhere.png"));
    assert!(home.expect(3, &["classify", "whole", &a]).contains("embed alike"));
    let folder = home.dir.path().join("models/whole@1").display().to_string();
    assert!(fs::read_to_string(format!("{folder}/README.md")).unwrap().contains("embed alike one.png other.png --model whole@1"));
    home.expect(0, &["models", "import", &folder, "--name", "again"]);
    assert_eq!(home.expect(0, &["embed", "alike", &a, &b, "--model", "again"]), format!("{}\n", lines[1]));

    let sources = format!("data.sources={}", people.display());
    let further = ["--set", &sources, "--set", "embed.identity=folder", "--set", "model.from=whole", "--set", "budget.steps=5"];
    let further: Vec<&str> = ["train", &path, "--run", "people"].into_iter().chain(further).collect();
    assert!(home.expect(0, &further).contains("4 identities to learn, 4 others held out"));
    assert!(
        home.expect(3, &["train", &path, "--run", "bad", "--set", "embed.identity=folder"]).contains("no folder with pictures")
    );
    assert!(home.expect(3, &["train", &path, "--run", "bad", "--set", "model.kind=lenet"]).contains("model.kind"));
}

/// Scenes of a folder of stamps: what is where is learned, killed and gone on with, drawn along the way, kept, taken in again and asked about a
/// file; another head stands on the same encoder, and a folder in COCO's format is read, or refused with its place.
#[test]
fn things_in_scenes_are_found() {
    let home = Home::new();
    let stamps = home.dir.path().join("stamps");
    for (class, red) in [("cold", 20u8), ("warm", 230)] {
        fs::create_dir_all(stamps.join(class)).unwrap();
        for i in 0..6u32 {
            let inside = |x: u32, y: u32| x.abs_diff(12) + y.abs_diff(12) < 7 + i;
            let pixel = |x: u32, y: u32| image::Rgba([red, (x * 9) as u8, (40 * i) as u8, if inside(x, y) { 255 } else { 0 }]);
            image::RgbaImage::from_fn(24, 24, pixel).save(stamps.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    let recipe = |name: &str, kind: &str, things: &str| {
        let text = format!(
            "name = \"{name}\"\n[data]\nsources = [{stamps:?}]\n[scene]\nthings = {things}\nsize = [0.5, 0.8]\nheld_out = 20\n[image]\nsize = [32, 32]\n\
             [model]\nkind = \"vit\"\nlayers = 2\nhidden = 32\n[vit]\npatch = 8\n[objective]\nkind = \"{kind}\"\n[batch]\nexamples = 8\n\
             [optimizer]\nrate = 0.003\n[checkpoint]\nevery = 10\n[eval]\nevery = 100000\n[sample]\nevery = 200\n[budget]\nsteps = 400\n"
        );
        home.write(&format!("{name}.toml"), &text)
    };
    let detect = recipe("detect", "detect", "[1, 2]");
    assert!(home.expect(0, &["plan", &detect]).contains("vit_detect"));
    let text = home.expect(0, &["train", &detect]);
    for part in ["32×32 an epoch", "2 classes", "average precision of boxes", "danlu classify detect@1"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(fs::read(home.dir.path().join("runs/detect/samples/step-00000200.png")).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(interrupt_at(home.command(&["train", &detect, "--run", "parts", "--json"]), 25, "-KILL"), -9);
    home.expect(0, &["train", "--resume", "parts"]);
    assert!(home.weights("detect@1") == home.weights("parts@1"), "the weights differ");

    let coco = home.dir.path().join("coco");
    let (coco_name, sheet) = (coco.display().to_string(), home.dir.path().join("seen.png").display().to_string());
    let stamps_name = stamps.display().to_string();
    home.expect(0, &["data", "scenes", &stamps_name, "--size", "40", "--count", "12", "--coco", &coco_name, "--sheet", &sheet]);
    let picture = coco.join("images/00000003.png").display().to_string();
    let asked: Value = home.json(&["classify", "detect", &picture, "--json", "--sheet", &sheet]);
    assert!(asked["found"].is_array() && fs::read(&sheet).unwrap().starts_with(b"\x89PNG"), "{asked}");
    let folder = home.dir.path().join("models/detect@1").display().to_string();
    home.expect(0, &["models", "import", &folder, "--name", "again"]);
    assert_eq!(home.json(&["classify", "again", &picture, "--json"]), asked);

    let segment = recipe("segment", "segment", "[1, 2]");
    let source = format!("data.sources=[{coco_name:?}]");
    let text = home.expect(0, &["train", &segment, "--set", "model.from=detect", "--set", &source]);
    assert!(text.contains("mean IoU of pixels") && text.contains("to train on"), "{text}");
    // A head of another kind has its own stride.
    let config = fs::read(home.dir.path().join("models/segment@1/config.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&config).unwrap()["stride"], 1);
    let pose = recipe("pose", "pose", "[1, 1]");
    assert!(home.expect(0, &["train", &pose, "--set", "model.from=segment"]).contains("PCK"));
    let asked: Value = home.json(&["classify", "pose", &picture, "--json"]);
    assert_eq!(asked["found"][0]["keypoints"].as_object().unwrap().len(), 4, "{asked}");
    assert!(home.expect(3, &["train", &pose, "--run", "two", "--set", "scene.things=[1,2]"]).contains("scene.things = [1, 1]"));
    assert!(home.expect(3, &["train", &detect, "--run", "flip", "--set", "image.flip=true"]).contains("only `size`"));
    fs::write(coco.join("instances.json"), "{\"images\": [").unwrap();
    let text = home.expect(3, &["train", &segment, "--run", "bad", "--set", &source]);
    assert!(text.contains("instances.json") && text.contains("COCO"), "{text}");
}
