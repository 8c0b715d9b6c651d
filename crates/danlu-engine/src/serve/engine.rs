use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

use super::{Options, Request, Scheduler};
use crate::Generator;

/// A thread that owns a decoder and answers requests until the engine is dropped; what has begun, it finishes.
pub struct Engine {
    /// Absent once the engine is being dropped.
    requests: Option<Sender<Arrived>>,
    thread: Option<JoinHandle<()>>,
    stats: Arc<Stats>,
    options: Options,
    context: usize,
    vocabulary: usize,
}

/// Counts of what an engine has done and is doing.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests that wait for their turn.
    pub waiting: AtomicUsize,
    /// Continuations that are being written, or whose prompt is being read.
    pub running: AtomicUsize,
    /// Tokens of prompts whose keys and values are kept.
    pub kept_tokens: AtomicUsize,
    /// Tokens of prompts that were read.
    pub read_tokens: AtomicU64,
    /// Tokens that were drawn.
    pub drawn_tokens: AtomicU64,
}

/// Why a request was not taken.
#[derive(Debug)]
pub enum Refused {
    /// The prompt leaves no room for a token.
    TooLong { tokens: usize, context: usize },
    /// It asks for what cannot be done.
    Wrong(String),
    /// As many wait as may.
    Full { waiting: usize },
    /// The engine has failed; its last words are on the standard error.
    Stopped,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::TooLong { tokens, context } => write!(
                f,
                "the prompt has {tokens} tokens and the model's context {context}: shorten the prompt to at most {} tokens",
                context - 1
            ),
            Self::Wrong(message) => f.write_str(message),
            Self::Full { waiting } => write!(f, "{waiting} requests are waiting already; try again later"),
            Self::Stopped => f.write_str("the model has failed and answers no more; restart the server"),
        }
    }
}

impl std::error::Error for Refused {}

struct Arrived {
    request: Request,
    place: Place,
}

/// A place among those that wait, given back when dropped.
struct Place(Arc<Stats>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Engine {
    /// # Errors
    /// When the decoder has a tuned prompt, which only [`Generator`] reads, an option is zero, or the system gives no thread.
    pub fn start(generator: &Generator, options: Options) -> Result<Self> {
        ensure!(
            generator.decoder().prompt_len() == 0,
            "a model with a tuned prompt writes one text at a time and cannot be served; merge or remove the prompt"
        );
        ensure!(options.width > 0 && options.rows > 0, "an engine needs room for at least one continuation and one token");
        let (requests, arriving) = channel();
        let stats = Arc::new(Stats::default());
        let scheduler = Scheduler::new(generator, options.clone());
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn({
                let stats = stats.clone();
                move || work(scheduler, &arriving, &stats)
            })
            .context("the system gives no thread for the model")?;
        let (context, vocabulary) = (generator.decoder().context(), generator.decoder().vocabulary());
        Ok(Self { requests: Some(requests), thread: Some(thread), stats, options, context, vocabulary })
    }

    /// Puts the request among those that wait.
    ///
    /// # Errors
    /// When it is not right, as many wait as may, or the engine has failed.
    pub fn submit(&self, request: Request) -> Result<(), Refused> {
        self.check(&request)?;
        let most = self.options.queue;
        let taken = self.stats.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < most).then_some(n + 1));
        let place = match taken {
            Ok(_) => Place(self.stats.clone()),
            Err(waiting) => return Err(Refused::Full { waiting }),
        };
        let requests = self.requests.as_ref().ok_or(Refused::Stopped)?;
        requests.send(Arrived { request, place }).map_err(|_| Refused::Stopped)
    }

    fn check(&self, request: &Request) -> Result<(), Refused> {
        let (tokens, context) = (request.prompt.len(), self.context);
        if tokens >= context {
            return Err(Refused::TooLong { tokens, context });
        }
        let check = || {
            request.sampling.validate()?;
            ensure!(tokens > 0, "there is nothing to go on from: the prompt has no token");
            ensure!(request.sampling.max_tokens > 0, "at least one token must be asked for");
            let width = self.options.width;
            ensure!((1..=width).contains(&request.samples), "n must be from 1 to {width}; it is {}", request.samples);
            let all = request.prompt.iter().chain(request.sampling.logit_bias.keys());
            if let Some(token) = all.into_iter().find(|token| **token as usize >= self.vocabulary) {
                anyhow::bail!("token {token} is outside the model's vocabulary of {}", self.vocabulary);
            }
            Ok(())
        };
        check().map_err(|error| Refused::Wrong(error.to_string()))
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The longest text, prompt and answer together, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Whether it still answers.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(mut scheduler: Scheduler, arriving: &Receiver<Arrived>, stats: &Stats) {
    loop {
        if scheduler.is_idle() {
            let Ok(Arrived { request, place }) = arriving.recv() else { return };
            scheduler.push_with(request, Box::new(place));
        }
        for Arrived { request, place } in arriving.try_iter() {
            scheduler.push_with(request, Box::new(place));
        }
        let (read, drawn) = scheduler.step();
        stats.read_tokens.fetch_add(read as u64, Ordering::Relaxed);
        stats.drawn_tokens.fetch_add(drawn as u64, Ordering::Relaxed);
        stats.running.store(scheduler.running(), Ordering::Relaxed);
        stats.kept_tokens.store(scheduler.kept_tokens(), Ordering::Relaxed);
    }
}
