//! A server on a free port with tiny models of random weights, and a client that speaks plain HTTP.

#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use burn::tensor::Device;
use danlu_data::chat::Template;
use danlu_data::tokenizer::{TrainSpec, train};
use danlu_engine::serve::Options;
use danlu_models::{Decoder, DecoderConfig, LlamaConfig, folder};
use danlu_server::{Keys, Model, Server, Studio};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const CONTEXT: usize = 8192;

/// The folder of a model that can talk.
pub fn model() -> &'static Path {
    static DIR: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let texts = ["the cat sat on the mat and the dog sat on the log", "中文也要完整地出现"];
        let spec = TrainSpec { vocab_size: 280, ..TrainSpec::default() };
        let tokenizer = train(&spec, texts.into_iter().map(|text| Ok(text.to_string()))).unwrap();
        let config = LlamaConfig { initializer_range: 0.3, ..LlamaConfig::new(tokenizer.vocab_size(), 64, 4, 16, CONTEXT) };
        let config = DecoderConfig::Llama(config);
        folder::save(&Decoder::new(&config, 5, &Device::flex()).unwrap(), &config, dir.path()).unwrap();
        tokenizer.export(dir.path(), CONTEXT).unwrap();
        Template::chatml().unwrap().save(dir.path()).unwrap();
        dir
    };
    DIR.get_or_init(make).path()
}

pub struct Running {
    pub address: SocketAddr,
    pub stop: Arc<AtomicBool>,
    pub thread: Option<JoinHandle<()>>,
    pub key: Option<String>,
    /// danlu's home, for the studio.
    pub home: TempDir,
}

/// Serves the model under `id`, which measures are told apart by.
pub fn start(id: &str, options: Options, keys: Option<Keys>) -> Running {
    serve(vec![load(id, options)], keys)
}

/// The model, called `id`.
pub fn load(id: &str, options: Options) -> Model {
    Model::load(id, Some(format!("{id}@1")), model(), options).unwrap()
}

/// Serves models, with the studio of an empty home.
pub fn serve(models: Vec<Model>, keys: Option<Keys>) -> Running {
    serve_home(models, keys, tempfile::tempdir().unwrap(), None)
}

/// Serves models with the studio of this home, whose runs and models the key of the owner's name may look at.
pub fn serve_home(models: Vec<Model>, keys: Option<Keys>, home: TempDir, owner: Option<&str>) -> Running {
    let studio = Studio::open(home.path(), None, owner.map(str::to_owned)).unwrap();
    let server = Server { models, keys, studio: Some(studio), body_limit: 100_000 };
    let listener = server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let thread = std::thread::spawn(move || server.run(listener, move || stopping.load(Ordering::Acquire)).unwrap());
    Running { address, stop, thread: Some(thread), key: None, home }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// What an error says.
    #[track_caller]
    pub fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        let error = &self.json()["error"];
        assert!(error["type"].is_string() && error.get("param").is_some() && error.get("code").is_some(), "{error}");
        error["message"].as_str().unwrap().to_owned()
    }

    /// The pieces of a stream, and whether it was ended.
    pub fn events(&self) -> (Vec<Value>, bool) {
        let data: Vec<&str> = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let done = data.last() == Some(&"[DONE]");
        (data.iter().filter(|data| **data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect(), done)
    }
}

impl Running {
    /// Sends a request and leaves the connection open.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        if let Some(key) = &self.key {
            head += &format!("authorization: Bearer {key}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        BufReader::new(stream)
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = self.open(method, path, headers, body);
        let mut bytes = vec![];
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (headers, body) = text.split_once("\r\n\r\n").unwrap();
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        let headers = headers.to_lowercase();
        let body = if headers.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
        Answer { status, headers, body }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], &body.to_string())
    }

    /// Asks as the studio's page does.
    pub fn page(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("x-danlu-studio", "1"), ("sec-fetch-site", "same-origin")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &headers, &body)
    }

    /// A measure of the model, as Prometheus reads it.
    pub fn measure(&self, name: &str, id: &str) -> f64 {
        let body = self.get("/metrics").body;
        let line = body.lines().find(|line| line.starts_with(&format!("{name}{{model=\"{id}\"}}")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    whole
}

pub fn chat(id: &str, more: Value) -> Value {
    let mut request =
        json!({"model": id, "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 12, "temperature": 0});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}
