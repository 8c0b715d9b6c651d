use std::collections::VecDeque;
use std::sync::Arc;

use danlu_data::tokenizer::Tokenizer;
use danlu_models::{Decoder, Sequence};
use danlu_ops::KvFormat;
use danlu_ops::kernels::PAGE;
use danlu_ops::kernels::threads::for_each_chunk;

use super::prefixes::Prefixes;
use super::writing::Writing;
use super::{Draft, Event, Request};
use crate::Generator;

/// A prompt's last part has at least so many tokens, where the prompt has. With fewer, attention takes the path for single tokens, whose
/// sums are in another order, and what a request gets would depend on where its prompt was cut.
const TAIL: usize = 8;

/// How much is done at once, which changes nothing of what a request gets, and how precisely.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most continuations that are written at the same time.
    pub width: usize,
    /// The most tokens that a step reads, so that a long prompt delays the others by little; at least 40 for prompts.
    pub rows: usize,
    /// The most tokens whose keys and values are kept after use, for prompts that begin alike; 0 keeps none.
    pub kept_tokens: usize,
    /// The most requests that wait.
    pub queue: usize,
    /// Who guesses what continuations will say.
    pub draft: Draft,
    /// How keys and values are kept; as the generator keeps them where it is not said.
    pub kv: Option<KvFormat>,
}

impl Default for Options {
    fn default() -> Self {
        Self { width: 16, rows: 256, kept_tokens: 8_192, queue: 64, draft: Draft::Off, kv: None }
    }
}

/// Decides what is read in each step: a token of every continuation that is being written, with guesses of the next, and of prompts as much as there is room for.
pub struct Scheduler {
    decoder: Arc<Decoder>,
    tokenizer: Tokenizer,
    ends: Vec<u32>,
    kv: KvFormat,
    options: Options,
    waiting: VecDeque<Waiting>,
    reading: Vec<Reading>,
    writing: Vec<Writing>,
    prefixes: Prefixes,
}

/// A request, with whatever is given back when it need not wait any longer.
struct Waiting {
    request: Request,
    _place: Box<dyn Send>,
}

struct Reading {
    request: Request,
    sequence: Sequence,
    cached: usize,
}

impl Reading {
    fn len(&self) -> usize {
        self.request.prompt.len()
    }

    /// How many tokens to read next, at most `room` of at least a page.
    fn part(&self, room: usize) -> usize {
        let (at, len) = (self.sequence.len(), self.len());
        if len - at <= room { len - at } else { (room / PAGE * PAGE).min(tail(len).saturating_sub(at)) }
    }
}

/// Where the last part of a prompt of `len` tokens may begin at the latest.
pub(crate) fn tail(len: usize) -> usize {
    len.saturating_sub(TAIL) / PAGE * PAGE
}

impl Scheduler {
    pub fn new(generator: &Generator, options: Options) -> Self {
        Self {
            decoder: generator.shared_decoder(),
            tokenizer: generator.tokenizer().clone(),
            ends: generator.ends().to_vec(),
            kv: options.kv.unwrap_or(generator.kv()),
            waiting: VecDeque::new(),
            reading: vec![],
            writing: vec![],
            prefixes: Prefixes::new(options.kept_tokens),
            options,
        }
    }

    /// Takes a request that the engine has checked; it begins when there is room.
    pub fn push(&mut self, request: Request) {
        self.push_with(request, Box::new(()));
    }

    pub(super) fn push_with(&mut self, request: Request, place: Box<dyn Send>) {
        self.waiting.push_back(Waiting { request, _place: place });
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.reading.is_empty() && self.writing.is_empty()
    }

    /// Continuations that are being written, or whose prompt is being read.
    pub fn running(&self) -> usize {
        self.writing.len() + self.reading.iter().map(|one| one.request.samples).sum::<usize>()
    }

    /// Tokens whose keys and values are kept for prompts to come.
    pub fn kept_tokens(&self) -> usize {
        self.prefixes.tokens()
    }

    /// Forgets what is kept for prompts to come.
    pub fn forget(&mut self) {
        self.prefixes.clear();
    }

    /// Drops what nobody waits for, begins what there is room for, and reads and draws once. How many tokens of prompts were read, and how
    /// many were drawn.
    ///
    /// # Panics
    /// When a request is not right.
    pub fn step(&mut self) -> (usize, usize) {
        self.waiting.retain(|one| !one.request.sink.is_closed());
        self.reading.retain(|one| !one.request.sink.is_closed());
        self.writing.retain(|one| !one.sink.is_closed());
        self.admit();
        if self.running() == 0 {
            return (0, 0);
        }
        self.options.draft.guess(&mut self.writing);
        let continued: usize = self.writing.iter().map(|one| one.next.len()).sum();
        let parts = self.parts(continued);
        let read = parts.iter().sum();
        let mut logits = self.read(&parts);
        let vocabulary = logits.len() / (continued + parts.len());
        let (first, of_prompts) = logits.split_at_mut(continued * vocabulary);
        draw(&mut self.writing, first, vocabulary);
        let mut begun = self.begin(&parts, of_prompts.chunks_exact(vocabulary));
        self.writing.append(&mut begun);
        let drawn = self.writing.iter().map(Writing::drawn).sum();
        self.writing.retain_mut(|one| one.deliver(&self.ends));
        (read, drawn)
    }

    fn admit(&mut self) {
        while let Some(next) = self.waiting.front()
            && self.running() + next.request.samples <= self.options.width
            && let Some(Waiting { request, .. }) = self.waiting.pop_front()
        {
            let kept = self.prefixes.longest(&request.prompt, tail(request.prompt.len()));
            // All have room for the whole context, since another request may go on from what this one read.
            let sequence = kept.unwrap_or_else(|| Sequence::holding(&self.decoder, self.decoder.context(), self.kv));
            self.reading.push(Reading { cached: sequence.len(), request, sequence });
        }
    }

    /// How many tokens of each prompt are read in this step, beside `continued` of continuations: of the first ones, as many as there is room
    /// for.
    fn parts(&self, continued: usize) -> Vec<usize> {
        // However many are written, the longest last part finds room, or its prompt would never be read.
        let mut room = self.options.rows.saturating_sub(continued).max(PAGE + TAIL);
        let parts = self.reading.iter().map_while(|one| {
            let part = if room < PAGE { 0 } else { one.part(room) };
            room = room.saturating_sub(part);
            (part > 0).then_some(part)
        });
        parts.collect()
    }

    /// The logits that follow each token of continuations, and then each prompt's part.
    fn read(&mut self, parts: &[usize]) -> Vec<f32> {
        let (mut ids, mut wanted, mut sequences): (Vec<&[u32]>, _, Vec<&mut Sequence>) = (vec![], vec![], vec![]);
        for Writing { next, sequence, .. } in &mut self.writing {
            ids.push(next);
            wanted.push(next.len());
            sequences.push(sequence);
        }
        for (Reading { request, sequence, .. }, part) in self.reading.iter_mut().zip(parts) {
            let at = sequence.len();
            ids.push(&request.prompt[at..at + part]);
            wanted.push(1);
            sequences.push(sequence);
        }
        self.decoder.step_many_after(&ids, &wanted, &mut sequences)
    }

    /// Begins the continuations of the prompts that have been read to their end, each with its first token drawn.
    fn begin<'a>(&mut self, parts: &[usize], logits: impl Iterator<Item = &'a [f32]>) -> Vec<Writing> {
        let (mut begun, mut rows) = (vec![], vec![]);
        let mut logits = logits.take(parts.len());
        let context = self.decoder.context();
        for one in std::mem::take(&mut self.reading) {
            let row = logits.next();
            let Some(row) = row.filter(|_| one.sequence.len() == one.len()) else {
                self.reading.push(one);
                continue;
            };
            let Reading { request, sequence, cached } = one;
            self.prefixes.keep(&request.prompt[..tail(request.prompt.len())], &sequence);
            request.sink.send(Event::Read { cached });
            for sample in 0..request.samples {
                let draft = self.options.draft.sequence();
                match Writing::new(&request, sample, sequence.clone(), draft, self.tokenizer.stream(), context) {
                    Ok(writing) => {
                        begun.push(writing);
                        rows.extend_from_slice(row);
                    }
                    Err(error) => request.sink.send(Event::Failed(format!("{error:#}"))),
                }
            }
        }
        let vocabulary = rows.len() / begun.len().max(1);
        draw(&mut begun, &mut rows, vocabulary);
        begun
    }
}

/// Draws the next tokens of each from its rows of logits: one, and one for each token that it was read ahead.
fn draw(writing: &mut [Writing], logits: &mut [f32], vocabulary: usize) {
    let mut rest = logits;
    let rows = writing.iter_mut().map(|one| {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(one.next.len().max(1) * vocabulary);
        rest = others;
        (one, own)
    });
    let mut rows: Vec<(&mut Writing, &mut [f32])> = rows.collect();
    for_each_chunk(&mut rows, 1, |_, row| {
        let (one, logits) = &mut row[0];
        one.draw(logits, vocabulary);
    });
}
