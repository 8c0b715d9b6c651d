//! A home for the program, a small model in a folder beside it, and files.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use burn::tensor::Device;
use danlu_data::tokenizer::{TrainSpec, train};
use danlu_models::{Decoder, DecoderConfig, LlamaConfig, folder};
use serde_json::Value;
use tempfile::TempDir;

const CONTEXT: usize = 96;

/// A home, and beside it a model that was never trained and files.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.model("base", None);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn model(&self, name: &str, template: Option<&str>) {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        let texts = (0..40).map(|i| Ok(format!("is {i} nice? yes, {i} is very nice. no, {i} is bad")));
        let tokenizer = train(&TrainSpec { vocab_size: 320, ..TrainSpec::default() }, texts).unwrap();
        let shape = LlamaConfig { tie_word_embeddings: true, ..LlamaConfig::new(tokenizer.vocab_size(), 32, 2, 8, CONTEXT) };
        let config = DecoderConfig::Llama(shape);
        folder::save(&Decoder::new(&config, 3, &Device::flex()).unwrap(), &config, &dir).unwrap();
        tokenizer.export(&dir, CONTEXT).unwrap();
        if let Some(template) = template {
            fs::write(dir.join("chat_template.jinja"), template).unwrap();
        }
    }

    pub fn lines(&self, name: &str, rows: impl IntoIterator<Item = Value>) -> String {
        let mut text = String::new();
        rows.into_iter().for_each(|row| writeln!(text, "{row}").unwrap());
        fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_danlu"));
        command.args(arguments).env("DANLU_HOME", self.path("home")).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        command
    }

    /// Runs it, expects `code`, and gives what it printed.
    #[track_caller]
    pub fn expect(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "danlu {}\n{text}", arguments.join(" "));
        text
    }

    /// The events of a run that ends well.
    #[track_caller]
    pub fn events(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What was measured first and last, by itself or beside it.
pub fn measured(events: &[Value], key: &str) -> (f64, f64) {
    let one = |event: &Value| {
        let mut others = event["others"].as_array().into_iter().flatten();
        let beside = others.find(|other| other[0] == key).map_or(&Value::Null, |other| &other[1]);
        event[key].as_f64().or(beside.as_f64()).unwrap()
    };
    let all: Vec<f64> = events.iter().filter(|event| event["event"] == "measured").map(one).collect();
    (all[0], all[all.len() - 1])
}
