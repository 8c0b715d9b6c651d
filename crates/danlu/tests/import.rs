//! A GGUF file becomes a registered model, or is refused with its reason.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use burn::tensor::Device;
use danlu_models::gguf::{self, Entry};
use danlu_models::{Decoder, DecoderConfig, LlamaConfig};
use danlu_ops::quantized::Format;

fn danlu(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_danlu"));
    command.args(arguments).env("DANLU_HOME", home).env_remove("RUST_BACKTRACE").stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn expect(home: &Path, code: i32, arguments: &[&str], parts: &[&str]) {
    let output = danlu(home, arguments);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "danlu {}\n{text}", arguments.join(" "));
    for part in parts {
        assert!(text.contains(part), "danlu {} does not say {part:?}:\n{text}", arguments.join(" "));
    }
}

/// A vocabulary of the 256 bytes, spelt in the letters that stand for them, and a token that ends a text.
fn tokenizer() -> Vec<(String, Entry)> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut codes: Vec<u32> = (0..256).filter(printable).collect();
    codes.extend(256..256 + 256 - codes.len() as u32);
    let mut tokens: Vec<String> = codes.into_iter().filter_map(char::from_u32).map(String::from).collect();
    tokens.push("<|im_end|>".into());
    let types = (0..257).map(|id| if id == 256 { 3 } else { 1 }).collect();
    let entries = [
        ("tokenizer.ggml.model", Entry::String("gpt2".into())),
        ("tokenizer.ggml.pre", Entry::String("smollm".into())),
        ("tokenizer.ggml.tokens", Entry::Strings(tokens)),
        ("tokenizer.ggml.token_type", Entry::I32s(types)),
        ("tokenizer.ggml.merges", Entry::Strings(vec![])),
        ("tokenizer.ggml.eos_token_id", Entry::U32(256)),
        ("tokenizer.chat_template", Entry::String("{{ messages }}".into())),
        ("general.license", Entry::String("apache-2.0".into())),
    ];
    entries.map(|(key, entry)| (key.to_string(), entry)).to_vec()
}

/// Rows of 256, which blocks of every format divide; large weights, so that a wrong one would be seen in the logits.
#[test]
fn a_model_is_quantized_measured_and_run() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let path = dir.path().join("tiny.gguf");
    let file = path.display().to_string();
    let shape = LlamaConfig { intermediate_size: 256, initializer_range: 0.05, ..LlamaConfig::new(257, 256, 1, 64, 128) };
    let config = DecoderConfig::Llama(shape);
    let decoder = Decoder::new(&config, 5, &Device::flex()).unwrap();
    gguf::save(&decoder, &config, &tokenizer(), Format::F32, &path).unwrap();
    expect(&home, 0, &["models", "import", &file], &["tiny@1 is registered"]);
    assert!(!home.join("models/tiny@1/model.gguf").exists(), "floats are kept once");
    let text = dir.path().join("text.txt");
    fs::write(&text, "The fire is lit in the evening.\n\nBy morning the furnace is warm, and the work can begin.\n".repeat(20))
        .unwrap();
    let text = text.display().to_string();

    // Without a text, and from floats whose tokenizer is a file.
    expect(
        &home,
        0,
        &["models", "quantize", "tiny", "--to", "q8_0"],
        &["Q8_0 100 %", "measured    on nothing", "tiny-q8_0@1 is registered"],
    );
    for to in ["q4_k", "q6_k", "q4_0", "q4_1"] {
        let quantize = ["models", "quantize", "tiny", "--to", to, "--data", &text, "--bytes", "300"];
        expect(&home, 0, &quantize, &[&format!("{} 100 %", to.to_uppercase()), "bits per byte before", "300 bytes"]);
        let name = format!("tiny-{to}");
        let kept = home.join(format!("models/{name}@1"));
        assert!(kept.join("model.gguf").exists() && !kept.join("model.safetensors").exists());
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(size(&kept.join("model.gguf")) < size(&home.join("models/tiny@1/model.safetensors")) / 4);
        expect(&home, 0, &["models", "show", &name], &["parent      tiny@1", "measured    bits per byte", "gguf"]);
        expect(&home, 0, &["generate", &name, "--prompt", "fire", "--max-tokens", "4", "--json"], &["prompt_tokens"]);
    }
    // The file says what its source said, so that it is a model wherever GGUF is read; and what is in blocks can be put in others.
    let made = home.join("models/tiny-q4_k@1/model.gguf").display().to_string();
    expect(&home, 0, &["models", "import", &made, "--name", "again"], &["again@1 is registered"]);
    let template = |model: &str| fs::read_to_string(home.join(format!("models/{model}@1/chat_template.jinja"))).unwrap();
    assert_eq!(template("again"), template("tiny"));
    expect(&home, 0, &["models", "quantize", "again", "--to", "q4_0"], &["Q4_0 100 %"]);
    expect(&home, 2, &["models", "quantize", "tiny", "--to", "q5_k"], &["q8_0, q4_0, q4_1, q4_k, q6_k"]);
    expect(&home, 3, &["models", "quantize", "nobody", "--to", "q8_0"], &["there is no model nobody"]);
}

#[test]
fn a_gguf_file_becomes_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let path = dir.path().join("tiny.gguf");
    let file = path.display().to_string();
    let config = DecoderConfig::Llama(LlamaConfig::new(257, 32, 2, 8, 128));
    let decoder = Decoder::new(&config, 5, &Device::flex()).unwrap();
    gguf::save(&decoder, &config, &tokenizer(), Format::Q8_0, &path).unwrap();

    expect(&home, 0, &["models", "import", &file], &["tiny@1 is registered"]);
    let show = ["imported", "tiny.gguf (licence: apache-2.0)", "weights were Q8_0", "level       L0", "chat_template.jinja"];
    expect(&home, 0, &["models", "show", "tiny"], &show);
    expect(&home, 0, &["models", "verify", "tiny"], &["all as registered"]);
    assert_eq!(fs::read(home.join("models/tiny@1/model.gguf")).unwrap(), fs::read(&path).unwrap(), "it runs from its blocks");
    expect(&home, 0, &["generate", "tiny", "--prompt", "fire", "--max-tokens", "4", "--json"], &["prompt_tokens"]);
    assert!(fs::read_dir(home.join("cache/imports")).unwrap().next().is_none(), "nothing is left over");
    expect(&home, 0, &["models", "list", "--remote"], &["smollm2", "Apache-2.0"]);
    expect(&home, 3, &["models", "pull", "nobody"], &["no model \"nobody\"", "smollm2"]);

    // Cut off, another kind of file, and a tokenizer that cannot be rebuilt: nothing is registered.
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    expect(&home, 3, &["models", "import", &file], &["tiny.gguf", "cut off or damaged"]);
    fs::write(&path, b"PK\x03\x04").unwrap();
    expect(&home, 3, &["models", "import", &file], &["no GGUF file"]);
    let mut other = tokenizer();
    other[1].1 = Entry::String("tekken".into());
    gguf::save(&decoder, &config, &other, Format::F32, &path).unwrap();
    expect(&home, 3, &["models", "import", &file], &["\"tekken\"", "not known here"]);
    expect(&home, 3, &["models", "import", "nothing.gguf"], &["there is no"]);
    expect(&home, 3, &["models", "show", "tiny@2"], &["there is no model tiny@2"]);
}
