//! Adapters through the program: trained from a recipe, kept as PEFT's folders, used, merged, taken out and in, and refused with a reason.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use burn::tensor::Device;
use danlu_models::gguf::{self, Entry};
use danlu_models::{Decoder, DecoderConfig, LlamaConfig};
use danlu_ops::quantized::Format;
use serde_json::Value;
use tempfile::TempDir;

struct Home(TempDir);

impl Home {
    /// With a model "tiny", a model "other" of the same shape, and conversations.
    fn new() -> Self {
        let home = Home(tempfile::tempdir().unwrap());
        for (name, seed) in [("tiny", 5), ("other", 6)] {
            home.model(name, seed, TEMPLATE);
        }
        let talk = |i: usize| {
            let letter = char::from(b'a' + (i % 26) as u8);
            format!("{{\"instruction\": \"say {letter}\", \"output\": \"{letter}{letter}\"}}\n")
        };
        fs::write(home.path("talks.jsonl"), (0..60).map(talk).collect::<String>()).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn model(&self, name: &str, seed: u64, template: &str) {
        let config = DecoderConfig::Llama(LlamaConfig::new(258, 32, 2, 8, 128));
        let decoder = Decoder::new(&config, seed, &Device::flex()).unwrap();
        let file = self.path(&format!("{name}.gguf"));
        gguf::save(&decoder, &config, &vocabulary(template), Format::F32, &file).unwrap();
        self.expect(0, &["models", "import", &file.display().to_string()], &[&format!("{name}@1 is registered")]);
    }

    fn recipe(&self, name: &str, more: &str) -> String {
        let (path, talks) = (self.path(&format!("{name}.toml")), self.path("talks.jsonl"));
        let text = format!(
            "name = {name:?}\n[data]\nsources = [{talks:?}]\nheld_out = 0.1\n[model]\nfrom = \"tiny\"\n[objective]\nkind = \"sft\"\n\
             [batch]\ntokens = 256\n[optimizer]\nrate = 0.02\n[budget]\nsteps = 12\n[sample]\ntokens = 8\n[checkpoint]\nevery = 4\n{more}"
        );
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs the program, expects `code` and every one of `parts` in what it prints.
    #[track_caller]
    fn expect(&self, code: i32, arguments: &[&str], parts: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_danlu"));
        command.args(arguments).env("DANLU_HOME", self.path("home")).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "danlu {}\n{text}", arguments.join(" "));
        for part in parts {
            assert!(text.contains(part), "danlu {} does not say {part:?}:\n{text}", arguments.join(" "));
        }
        text
    }

    fn written(&self, model: &str) -> Value {
        let text =
            self.expect(0, &["generate", model, "--prompt", "say", "--max-tokens", "12", "--temperature", "0", "--json"], &[]);
        serde_json::from_str::<Value>(&text).unwrap()["text"].clone()
    }

    fn kept(&self, model: &str) -> PathBuf {
        self.path("home/models").join(model)
    }
}

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The 256 bytes, spelt in the letters that stand for them, and the two tokens of ChatML.
fn vocabulary(template: &str) -> Vec<(String, Entry)> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut codes: Vec<u32> = (0..256).filter(printable).collect();
    codes.extend(256..256 + 256 - codes.len() as u32);
    let mut tokens: Vec<String> = codes.into_iter().filter_map(char::from_u32).map(String::from).collect();
    tokens.extend(["<|im_start|>".into(), "<|im_end|>".into()]);
    let types = (0..258).map(|id| if id >= 256 { 3 } else { 1 }).collect();
    let entries = [
        ("tokenizer.ggml.model", Entry::String("gpt2".into())),
        ("tokenizer.ggml.pre", Entry::String("smollm".into())),
        ("tokenizer.ggml.tokens", Entry::Strings(tokens)),
        ("tokenizer.ggml.token_type", Entry::I32s(types)),
        ("tokenizer.ggml.merges", Entry::Strings(vec![])),
        ("tokenizer.ggml.eos_token_id", Entry::U32(257)),
        ("tokenizer.chat_template", Entry::String(template.into())),
    ];
    entries.map(|(key, entry)| (key.to_string(), entry)).to_vec()
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn an_adapter_is_trained_kept_used_merged_and_carried() {
    let home = Home::new();
    let recipe = home.recipe("lora", "[adapter]\nkind = \"lora\"\nrank = 4\n");
    home.expect(0, &["train", &recipe], &["lora@1 is registered"]);
    let (kept, base) = (home.kept("lora@1"), home.kept("tiny@1"));
    assert!(!kept.join("model.safetensors").exists() && !kept.join("config.json").exists());
    let config: Value = serde_json::from_str(&fs::read_to_string(kept.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&config["base_model_name_or_path"], &config["r"]), (&Value::from(base.display().to_string()), &Value::from(4)));
    let checkpoint = home.path("home/runs/lora/checkpoints/step-00000012/model.safetensors");
    assert!(size(&checkpoint) < size(&base.join("model.safetensors")) / 3, "a checkpoint holds only what is trained");
    home.expect(0, &["models", "lineage", "lora"], &["tiny@1", "└─ lora@1 *"]);
    home.expect(0, &["models", "verify", "lora"], &["all as registered"]);
    assert_ne!(home.written("lora"), home.written("tiny"), "the adapter does nothing");

    home.expect(0, &["models", "merge", "lora", "--name", "whole"], &["its logits differ by at most", "whole@1 is registered"]);
    assert_eq!(home.written("whole"), home.written("lora"));
    home.expect(0, &["models", "show", "whole"], &["parent      lora@1", "merge error"]);
    home.expect(3, &["models", "merge", "tiny"], &["tiny@1 is a whole model already"]);

    let out = home.path("out").display().to_string();
    home.expect(0, &["models", "export", "lora", &out], &[]);
    home.expect(0, &["models", "import", &out, "--name", "back"], &["back@1 is registered"]);
    assert_eq!(home.written("back"), home.written("lora"));
    home.expect(3, &["models", "import", &out, "--name", "wrong", "--base", "other"], &["for another base", "tiny@1"]);
    home.expect(
        3,
        &["models", "import", &out, "--name", "wrong", "--base", "nobody"],
        &["say with --base", "there is no model nobody"],
    );
    home.expect(3, &["models", "import", &base.display().to_string(), "--base", "other"], &["holds no adapter"]);

    // What goes on from an adapter goes on from the two together.
    let more = home.recipe("more", "[tune]\npart = \"norms\"\n");
    home.expect(0, &["train", &more, "--set", "model.from=lora"], &["more@1 is registered"]);
    let twice = home.recipe("twice", "[adapter]\nkind = \"lora\"\n");
    home.expect(3, &["train", &twice, "--set", "model.from=lora"], &["an adapter itself", "danlu models merge"]);
}

#[test]
fn a_base_in_four_bits_is_one_when_it_is_used_and_says_what_merging_loses() {
    let home = Home::new();
    let recipe = home.recipe("qlora", "[adapter]\nkind = \"lora\"\nrank = 4\nbase = \"nf4\"\n");
    home.expect(0, &["train", &recipe], &["qlora@1 is registered"]);
    home.expect(0, &["models", "merge", "qlora"], &["four bits", "% of their length", "qlora-merged@1"]);
    assert_eq!(home.written("qlora-merged"), home.written("qlora"));
}

#[test]
fn what_is_wrong_is_said_before_the_first_step() {
    let home = Home::new();
    let recipe = home.recipe("bad", "[adapter]\nkind = \"lora\"\n");
    home.expect(
        3,
        &["train", &recipe, "--set", "adapter.targets=qproj"],
        &["\"qproj\" is no projection", "did you mean \"q_proj\"?"],
    );
    // The end of the assistant's turn is no token that could carry loss.
    home.model(
        "endless",
        5,
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}",
    );
    home.expect(3, &["train", &recipe, "--set", "model.from=endless"], &["never learn to stop"]);
    fs::write(home.path("talks.jsonl"), "{\"messages\": [{\"role\": \"user\", \"content\": \"only asks\"}]}\n".repeat(20))
        .unwrap();
    home.expect(3, &["train", &recipe], &["no answer"]);
    assert!(!home.path("home/runs/bad").exists(), "no run was begun");
}
