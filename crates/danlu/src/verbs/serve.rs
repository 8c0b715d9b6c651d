use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::{Args as _, FromArgMatches};
use danlu_engine::serve::{Draft, Options};
use danlu_ops::KvFormat;
use danlu_server::{Keys, Model, Rates, Server, Studio};

use super::{Context, generate};
use crate::exit::{Outcome, bad_input};
use crate::{human, interrupt};

/// Let others talk to models: OpenAI's API, and a page to chat on.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  danlu serve smollm2\n  danlu serve smollm2 minilm --port 9000\n  danlu serve --api-key-file keys --new-api-key ann --tokens-per-minute 20000\n  danlu serve smollm2 --host 0.0.0.0 --api-key-file keys"
)]
pub struct Args {
    /// The models, each as NAME or NAME@VERSION, or a folder that transformers could load. Decoders write and embed, encoders (minilm) embed.
    #[arg(required_unless_present = "new_api_key")]
    pub models: Vec<String>,
    /// The address to listen on; one that other machines reach needs API keys.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// The port to listen on; 0 takes one that is free.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Let in only who has a key whose hash is in this file.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Make a key of this name, add its hash to the file, show the key once, and leave.
    #[arg(long, value_name = "NAME", requires = "api_key_file")]
    pub new_api_key: Option<String>,
    /// Let the new key ask at most this often in a minute.
    #[arg(long, value_name = "N", requires = "new_api_key", value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_minute: Option<u32>,
    /// Let the new key have at most this many tokens read and written in a minute.
    #[arg(long, value_name = "N", requires = "new_api_key", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens_per_minute: Option<u32>,
    /// Serve the API alone, without the page.
    #[arg(long)]
    pub no_studio: bool,
    /// Let who has the key of this name also see runs, data and models on the page, and stop runs; without keys, whoever is let in does.
    #[arg(long, value_name = "NAME", requires = "api_key_file", conflicts_with = "no_studio")]
    pub owner: Option<String>,
    /// Write at most this many answers of a model at the same time.
    #[arg(long, value_name = "N", default_value_t = Options::default().width)]
    pub width: usize,
    /// Let at most this many requests wait for a model; more are told to come back later.
    #[arg(long, value_name = "N", default_value_t = Options::default().queue)]
    pub queue: usize,
    /// Keep what was computed for this many tokens of prompts, for prompts that begin alike.
    #[arg(long, value_name = "N", default_value_t = Options::default().kept_tokens)]
    pub kept_tokens: usize,
    /// Guess what answers will say and read the guesses at once, so that they come sooner and are the same: `lookup` guesses from the text so
    /// far, a smaller MODEL with the same tokenizer from what it would say.
    #[arg(long, value_name = "lookup|MODEL")]
    pub draft: Option<String>,
    /// Keep keys and values of texts as 32-bit floats or as halves, which take half the memory and are read sooner; without it, models in
    /// blocks keep halves and others floats.
    #[arg(long, value_name = "f32|f16")]
    pub kv: Option<KvFormat>,
    /// Take requests of at most this many bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    pub body_limit: usize,
}

pub fn run(context: &Context, args: Args) -> Outcome {
    if let (Some(file), Some(name)) = (&args.api_key_file, &args.new_api_key) {
        let rates = Rates { requests: args.requests_per_minute, tokens: args.tokens_per_minute };
        println!("{}", Keys::create(file, name, rates).map_err(bad_input)?);
        return Ok(());
    }
    serve(context, args, || Ok(interrupt::install()?), |_| {})
}

/// Serves the models to this machine with all settings at their defaults, and opens the page in a browser where there is a screen. Ctrl-C, which the
/// caller listens for, ends it.
///
/// # Errors
/// As for `danlu serve`.
pub fn page(context: &Context, models: &[String]) -> Outcome {
    let command = Args::augment_args(clap::Command::new("serve").no_binary_name(true));
    let matches = command.try_get_matches_from(models)?;
    let mut args = Args::from_arg_matches(&matches)?;
    if TcpListener::bind((args.host, args.port)).is_err() {
        // Another server is there, which may be one of danlu.
        args.port = 0;
    }
    serve(context, args, || Ok(()), open)
}

/// Opens the address in a browser, where there may be one; it has been printed anyway.
fn open(address: SocketAddr) {
    let screen = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if screen {
        "xdg-open"
    } else {
        return;
    };
    let mut command = Command::new(program);
    command.arg(format!("http://{address}")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut child) = command.spawn() {
        // Its end is waited for, so that the system can forget it.
        std::thread::spawn(move || child.wait());
    }
}

/// `listen` makes Ctrl-C a request to stop, once the models are loaded; `told` is given the address.
fn serve(context: &Context, args: Args, listen: impl Fn() -> Outcome, told: impl Fn(SocketAddr)) -> Outcome {
    let keys = args.api_key_file.as_deref().map(Keys::read).transpose().map_err(bad_input)?;
    // The program itself goes on with runs that are asked for.
    let program = std::env::current_exe().ok();
    let studio = (!args.no_studio).then(|| Studio::open(&context.home, program, args.owner)).transpose();
    let studio = studio.map_err(|error| bad_input(error.context("without the page it can be served: --no-studio")))?;
    let mut server = Server { models: vec![], keys, studio, body_limit: args.body_limit };
    // Before the models are loaded, which takes its time, so that a wrong address is told of at once.
    let listener = server.bind(SocketAddr::new(args.host, args.port)).map_err(bad_input)?;
    let draft = match args.draft.as_deref() {
        None => Draft::Off,
        Some("lookup") => Draft::Lookup,
        Some(model) => Draft::Model(generate::open(context, model)?.into()),
    };
    let (width, queue, kept_tokens, kv) = (args.width, args.queue, args.kept_tokens, args.kv);
    let options = Options { width, queue, kept_tokens, draft, kv, ..Options::default() };
    for name in &args.models {
        let began = Instant::now();
        let folder = generate::folder(context, name)?;
        // A registered model's folder has its version in the name.
        let full = folder.canonicalize()?.file_name().map(|name| name.to_string_lossy().into_owned());
        let id = if Path::new(name).is_dir() { full.as_deref().unwrap_or(name) } else { name };
        let model = Model::load(id, full.clone(), &folder, options.clone()).map_err(bad_input)?;
        println!("{} is loaded ({}, context {})", model.id, human::seconds(began.elapsed().as_secs_f64()), model.context());
        server.models.push(model);
    }
    listen()?;
    let address = listener.local_addr()?;
    let page = if server.studio.is_some() { ", page at /" } else { "" };
    println!("listening on http://{address}  (API at /v1{page}; Ctrl-C finishes what is being written and leaves)");
    told(address);
    server.run(listener, interrupt::requested)?;
    println!("stopped");
    Ok(())
}
