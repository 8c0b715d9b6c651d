//! `danlu serve` and `danlu chat` as their users meet them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use burn::tensor::Device;
use danlu_data::chat::Template;
use danlu_data::tokenizer::{TrainSpec, train};
use danlu_models::{Decoder, DecoderConfig, LlamaConfig, folder};

fn danlu(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_danlu"));
    command.args(arguments).env("DANLU_HOME", home).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

#[track_caller]
fn expect(code: i32, output: &Output, parts: &[&str]) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    text
}

/// A model with random weights, that can talk or not.
fn write_model(dir: &Path, talks: bool) {
    let spec = TrainSpec { vocab_size: 280, ..TrainSpec::default() };
    let tokenizer = train(&spec, ["the cat sat on the mat"].into_iter().map(|text| Ok(text.to_string()))).unwrap();
    let config =
        DecoderConfig::Llama(LlamaConfig { initializer_range: 0.4, ..LlamaConfig::new(tokenizer.vocab_size(), 32, 2, 8, 256) });
    folder::save(&Decoder::new(&config, 5, &Device::flex()).unwrap(), &config, dir).unwrap();
    tokenizer.export(dir, 256).unwrap();
    if talks {
        Template::chatml().unwrap().save(dir).unwrap();
    }
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| danlu(dir.path(), arguments).output().unwrap();
    expect(2, &run(&["serve"]), &["MODELS"]);
    expect(3, &run(&["serve", "nobody", "--port", "0"]), &["there is no model nobody"]);
    expect(3, &run(&["serve", "nobody", "--port", "0", "--host", "0.0.0.0"]), &["API keys are needed", "--new-api-key"]);
    expect(3, &run(&["serve", "nobody", "--port", "0", "--api-key-file", "/no/such/file"]), &["/no/such/file"]);
    let file = dir.path().join("keys").display().to_string();
    let new = ["serve", "--api-key-file", &file, "--new-api-key", "ann"];
    let key = expect(0, &run(&new), &["sk-danlu-"]);
    assert!(!std::fs::read_to_string(&file).unwrap().contains(key.trim()));
    expect(3, &run(&new), &["has a key ann already"]);
}

#[test]
fn a_model_is_served_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("tiny");
    write_model(&model, true);
    let mut server =
        danlu(dir.path(), &["serve", model.to_str().unwrap(), "--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("tiny is loaded"));
    let listening = lines.next().unwrap();
    let address = listening.split(['/', ' ']).find(|part| part.starts_with("127.0.0.1:")).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET /v1/models HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"id\":\"tiny\""), "{answer}");
    Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap();
    assert_eq!(lines.last().as_deref(), Some("stopped"));
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn a_conversation_goes_on_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (talks, writes) = (dir.path().join("talks"), dir.path().join("writes"));
    write_model(&talks, true);
    write_model(&writes, false);
    let says = |lines: &str| {
        let arguments = ["chat", talks.to_str().unwrap(), "--temperature", "0", "--max-tokens", "8", "--repetition", "1"];
        let mut child = danlu(dir.path(), &arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split("> ").skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let said = says("the cat\nthe cat\n/reset\nthe cat\n/system sit\n/reset\nthe cat\n/what\n");
    assert_eq!(said[0], said[3], "after /reset nothing is left of what was before");
    assert_ne!(said[0], said[1], "the second question is asked after the first");
    assert_ne!(said[0], said[6], "the system message is heard");
    assert!(said[7].contains("/what is not known"), "{said:?}");
    let output = danlu(dir.path(), &["chat", writes.to_str().unwrap()]).output().unwrap();
    expect(3, &output, &["has no chat template", "danlu generate"]);
}
