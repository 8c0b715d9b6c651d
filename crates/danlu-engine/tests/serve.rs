//! Requests that come and go, held to the plain generator and to themselves in other company, on a tiny model with random weights.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use danlu_data::tokenizer::{Tokenizer, TrainSpec, train};
use danlu_engine::serve::{Draft, Engine, Event, Options, Refused, Request, Scheduler, Sink};
use danlu_engine::{Generator, Grammars, Reason, Sampling};
use danlu_models::gguf::{self, Gguf};
use danlu_models::{Batch, Decoder, DecoderConfig, LlamaConfig, Sequence};
use danlu_ops::quantized::Format;
use danlu_ops::{KvFormat, live_page_bytes, live_pages};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CONTEXT: usize = 160;

/// Pages are counted for the whole program, so tests that hold some take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tokenizer() -> Tokenizer {
    let texts = ["the cat sat on the mat and the dog sat on the log", "中文也要完整地出现"];
    let spec = TrainSpec { vocab_size: 280, ..TrainSpec::default() };
    train(&spec, texts.into_iter().map(|text| Ok(text.to_string()))).unwrap()
}

fn generator() -> Generator {
    let config = LlamaConfig { initializer_range: 0.4, ..LlamaConfig::new(tokenizer().vocab_size(), 16, 2, 8, CONTEXT) };
    Generator::new(Decoder::new(&DecoderConfig::Llama(config), 5, &Device::flex()).unwrap(), tokenizer())
}

/// Whoever may guess; the model guesses rightly for itself.
fn drafts() -> [Draft; 3] {
    [Draft::Off, Draft::Lookup, Draft::Model(Arc::new(generator()))]
}

/// The same with weights in blocks, wide enough for them.
fn in_blocks() -> Generator {
    let config = LlamaConfig {
        initializer_range: 0.3,
        intermediate_size: 64,
        ..LlamaConfig::new(tokenizer().vocab_size(), 32, 2, 8, CONTEXT)
    };
    let config = DecoderConfig::Llama(config);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let floats = Decoder::new(&config, 5, &Device::flex()).unwrap();
    gguf::save(&floats, &config, &[], Format::Q4_1, &path).unwrap();
    let (decoder, _) = gguf::decoder_in_blocks(&Gguf::open(&path).unwrap()).unwrap();
    assert!(decoder.is_in_blocks());
    Generator::new(decoder, tokenizer())
}

/// Keeps what comes, until it is closed.
#[derive(Default)]
struct Kept {
    events: Mutex<Vec<Event>>,
    closed: AtomicBool,
}

impl Kept {
    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Text, reason and number of tokens of a sample, once it is finished.
    fn finished(&self, wanted: usize) -> Option<(String, Reason, usize)> {
        let mut whole = String::new();
        for event in self.events() {
            match event {
                Event::Token { sample, text, .. } if sample == wanted => whole.push_str(&text),
                Event::Finished { sample, text, reason, tokens } if sample == wanted => {
                    return Some((whole + &text, reason, tokens));
                }
                _ => {}
            }
        }
        None
    }
}

impl Sink for Kept {
    fn send(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// Stops the engine at its first event, as long as it is shut.
#[derive(Default)]
struct Gate {
    shut: Mutex<()>,
}

impl Sink for Gate {
    fn send(&self, _: Event) {
        drop(self.shut.lock().unwrap());
    }

    fn is_closed(&self) -> bool {
        false
    }
}

fn request(prompt: &[u32], sampling: &Sampling) -> (Request, Arc<Kept>) {
    let sink = Arc::new(Kept::default());
    let request = Request {
        prompt: prompt.to_vec(),
        samples: 1,
        sampling: sampling.clone(),
        log_probs: None,
        grammar: None,
        sink: sink.clone(),
    };
    (request, sink)
}

fn run(scheduler: &mut Scheduler) {
    while !scheduler.is_idle() {
        scheduler.step();
    }
}

/// A prompt of `len` tokens; those of the same family begin alike.
fn prompt(family: u32, len: usize, end: u32) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..len as u32).map(|i| (i * 7 + i * i % 11 + family * 13) % 256).collect();
    *ids.last_mut().unwrap() = end % 256;
    ids
}

type Answer = (String, Reason, usize);

fn plain(generator: &Generator, prompt: &[u32], sampling: &Sampling) -> Answer {
    let mut text = String::new();
    let finish = generator.generate_from(prompt, sampling, |piece| {
        text.push_str(piece);
        ControlFlow::Continue(())
    });
    let finish = finish.unwrap();
    (text, finish.reason, finish.tokens)
}

#[test]
fn whatever_comes_and_goes_greedy_texts_are_the_plain_generator_s_and_no_page_is_left() {
    let _turn = turn();
    let [finished, cancelled, cached] = come_and_go(&generator(), 40);
    assert!(finished > 300 && cancelled > 50 && cached > 20, "{finished} finished, {cancelled} cancelled, {cached} cached");
}

#[test]
fn in_blocks_too_whatever_comes_and_goes_greedy_texts_are_the_plain_generator_s() {
    let _turn = turn();
    let [finished, cancelled, cached] = come_and_go(&in_blocks(), 10);
    assert!(finished > 50 && cancelled > 5 && cached > 2, "{finished} finished, {cancelled} cancelled, {cached} cached");
}

/// Models in blocks keep halves unless something else is asked for, models in floats floats.
#[test]
fn and_however_keys_and_values_are_kept() {
    let _turn = turn();
    for generator in [generator().with_kv(KvFormat::F16), in_blocks().with_kv(KvFormat::F32)] {
        let [finished, cancelled, cached] = come_and_go(&generator, 10);
        assert!(finished > 50 && cancelled > 5 && cached > 2, "{finished} finished, {cancelled} cancelled, {cached} cached");
    }
}

/// How many texts were finished, how many given up, and how many prompts began with something known.
fn come_and_go(generator: &Generator, seeds: u64) -> [usize; 3] {
    let mut known: HashMap<(Vec<u32>, usize), Answer> = HashMap::new();
    let (mut finished, mut cancelled, mut cached) = (0, 0, 0);
    for seed in 0..seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let options = Options {
            width: rng.random_range(1..7),
            rows: rng.random_range(32..120),
            kept_tokens: if rng.random() { 512 } else { 0 },
            queue: 64,
            draft: drafts()[seed as usize % 3].clone(),
            kv: None,
        };
        let mut scheduler = Scheduler::new(generator, options.clone());
        let mut running = vec![];
        let mut to_come = 10;
        while to_come > 0 || !scheduler.is_idle() {
            if to_come > 0 && (scheduler.is_idle() || rng.random_range(0..4) == 0) {
                to_come -= 1;
                let ids = prompt(rng.random_range(0..3), [1, 5, 33, 40, 70, 110, 150][rng.random_range(0..7)], rng.random());
                let sampling = Sampling { max_tokens: rng.random_range(1..30), ..Sampling::greedy() };
                let (mut request, sink) = request(&ids, &sampling);
                request.samples = rng.random_range(1..=options.width.min(3));
                running.push((ids, sampling, request.samples, sink.clone()));
                scheduler.push(request);
            }
            if rng.random_range(0..12) == 0 && !running.is_empty() {
                running[rng.random_range(0..running.len())].3.close();
            }
            scheduler.step();
            let waiting_for_nobody = running.iter().all(|(.., sink)| sink.is_closed());
            if waiting_for_nobody && to_come == 0 {
                scheduler.step();
                assert!(scheduler.is_idle(), "what nobody waits for is dropped at once");
            }
        }
        for (ids, sampling, samples, sink) in running {
            let want =
                known.entry((ids.clone(), sampling.max_tokens)).or_insert_with(|| plain(generator, &ids, &sampling)).clone();
            for sample in 0..samples {
                match sink.finished(sample) {
                    Some(got) => {
                        assert_eq!(got, want, "seed {seed}, a prompt of {} tokens, {options:?}", ids.len());
                        finished += 1;
                    }
                    None => {
                        assert!(sink.is_closed(), "seed {seed}: a request was forgotten");
                        cancelled += 1;
                    }
                }
            }
            cached += sink.events().iter().filter(|e| matches!(e, Event::Read { cached } if *cached > 0)).count();
        }
        assert_eq!(live_pages() > 0, scheduler.kept_tokens() > 0);
        scheduler.forget();
        assert_eq!(live_pages(), 0, "seed {seed} left pages");
    }
    [finished, cancelled, cached]
}

/// Sampled tokens, their log-probabilities and texts, to the bit, whatever runs beside it, however its prompt is cut, and whether its beginning
/// was read before.
#[test]
fn an_answer_does_not_depend_on_its_company() {
    let _turn = turn();
    in_any_company(&generator(), &[3, 8, 32, 39, 40, 41, 64, 71, 72, 100, 139]);
}

#[test]
fn an_answer_from_blocks_does_not_depend_on_its_company() {
    let _turn = turn();
    in_any_company(&in_blocks(), &[1, 8, 41, 100]);
}

#[test]
fn an_answer_from_halves_does_not_depend_on_its_company() {
    let _turn = turn();
    in_any_company(&generator().with_kv(KvFormat::F16), &[3, 39, 40, 72, 139]);
}

#[test]
fn halves_take_half_the_memory() {
    let _turn = turn();
    let bytes_of_a_page = |generator: &Generator, kv: Option<KvFormat>| {
        let mut scheduler = Scheduler::new(generator, Options { kv, ..Options::default() });
        scheduler.push(request(&prompt(0, 70, 3), &Sampling { max_tokens: 2, ..Sampling::greedy() }).0);
        run(&mut scheduler);
        assert!(live_pages() > 0, "the beginning of the prompt is kept");
        live_page_bytes() / live_pages()
    };
    let (floats, blocks) = (generator(), in_blocks());
    assert_eq!((floats.kv(), blocks.kv()), (KvFormat::F32, KvFormat::F16));
    assert_eq!(bytes_of_a_page(&floats, None), 2 * bytes_of_a_page(&floats, Some(KvFormat::F16)));
    assert_eq!(bytes_of_a_page(&blocks, Some(KvFormat::F32)), 2 * bytes_of_a_page(&blocks, None));
    assert_eq!((live_pages(), live_page_bytes()), (0, 0));
}

#[test]
fn halves_move_logits_by_little() {
    let _turn = turn();
    let generator = generator();
    let ids = prompt(2, 140, 5);
    let logits = |kv: KvFormat| {
        let mut sequence = Sequence::holding(generator.decoder(), CONTEXT, kv);
        let mut all = generator.decoder().step_many(&[&ids[..100]], &mut [&mut sequence]);
        for id in &ids[100..] {
            all.extend(generator.decoder().step_many(&[&[*id]], &mut [&mut sequence]));
        }
        all
    };
    let (floats, halves) = (logits(KvFormat::F32), logits(KvFormat::F16));
    let furthest = floats.iter().zip(&halves).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest > 0.0 && furthest < 0.05, "{furthest}");
}

#[test]
fn right_guesses_save_steps() {
    let _turn = turn();
    let generator = generator();
    let sampling = Sampling { max_tokens: 60, ..Sampling::greedy() };
    let steps = |draft: Draft, streams: u32| {
        let mut scheduler = Scheduler::new(&generator, Options { draft, kept_tokens: 0, ..Options::default() });
        (0..streams).for_each(|i| scheduler.push(request(&prompt(i, 20, 3), &sampling).0));
        (1usize..).find(|_| {
            scheduler.step();
            scheduler.is_idle()
        })
    };
    let [off, _, model] = drafts();
    let (alone, drafted) = (steps(off.clone(), 1).unwrap(), steps(model.clone(), 1).unwrap());
    assert!(drafted <= alone.div_ceil(6), "{drafted} steps with guesses that are all right, {alone} without");
    assert_eq!(steps(model, 9), steps(off, 9), "where many are written nothing is guessed");
}

fn in_any_company(generator: &Generator, prompts: &[usize]) {
    let sampling = Sampling { temperature: 1.0, max_tokens: 20, seed: 9, ..Sampling::default() };
    let ask = |len: usize| {
        let (mut request, sink) = request(&prompt(1, len, 3), &sampling);
        (request.log_probs, request.samples) = (Some(3), 2);
        (request, sink)
    };
    let answer = |sink: &Kept| {
        let mut events = sink.events();
        events.retain(|event| !matches!(event, Event::Read { .. }));
        // Samples may be told of in any order.
        events.sort_by_key(|event| match event {
            Event::Token { sample, .. } | Event::Finished { sample, .. } => *sample,
            _ => 0,
        });
        events
    };
    for &len in prompts {
        let (one, alone) = ask(len);
        let mut scheduler = Scheduler::new(generator, Options { kept_tokens: 0, rows: 1000, ..Options::default() });
        scheduler.push(one);
        run(&mut scheduler);
        for (i, rows) in [32, 50, 77, 128].into_iter().enumerate() {
            let draft = drafts()[i % 3].clone();
            let mut scheduler = Scheduler::new(generator, Options { rows, draft, ..Options::default() });
            for i in 0..4 {
                scheduler.push(request(&prompt(1, 60 + 25 * i, 99), &sampling).0);
                scheduler.step();
            }
            let (one, beside) = ask(len);
            scheduler.push(one);
            scheduler.push(request(&prompt(2, 90, 1), &sampling).0);
            run(&mut scheduler);
            assert_eq!(answer(&beside), answer(&alone), "a prompt of {len} tokens, {rows} rows");
            let (one, again) = ask(len);
            scheduler.push(one);
            run(&mut scheduler);
            let cached = match again.events()[0] {
                Event::Read { cached } => cached,
                _ => panic!("the prompt is read first"),
            };
            assert_eq!(cached, if len < 40 { 0 } else { (len - 8) / 32 * 32 }, "a prompt of {len} tokens");
            assert_eq!(answer(&again), answer(&alone), "a prompt of {len} tokens, {cached} of them read before");
        }
        let second = Sampling { seed: sampling.seed + 1, ..sampling.clone() };
        let (one, sink) = request(&prompt(1, len, 3), &second);
        scheduler.push(one);
        run(&mut scheduler);
        assert_eq!(sink.finished(0), alone.finished(1), "the second sample is that of the next seed");
    }
}

#[test]
fn log_probabilities_are_those_of_whole_passes() {
    let _turn = turn();
    let generator = generator();
    let ids = prompt(0, 45, 8);
    let sampling = Sampling { temperature: 0.7, presence_penalty: 0.5, max_tokens: 12, ..Sampling::default() };
    let (mut one, sink) = request(&ids, &sampling);
    one.log_probs = Some(4);
    let mut scheduler = Scheduler::new(&generator, Options::default());
    scheduler.push(one);
    run(&mut scheduler);
    let mut text = ids.clone();
    let vocabulary = generator.tokenizer().vocab_size();
    let mut seen = 0;
    for event in sink.events() {
        let Event::Token { token, log_probs, .. } = event else { continue };
        let logits: Vec<f32> = generator.decoder().logits(&Batch::document(&text)).into_data().try_into_vec().unwrap();
        let row = &logits[logits.len() - vocabulary..];
        let total = row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        let log_probs = log_probs.unwrap();
        let check = |token: u32, got: f32| assert!((f64::from(row[token as usize]) - total - f64::from(got)).abs() < 1e-4);
        check(token, log_probs.token);
        log_probs.top.iter().for_each(|(token, got)| check(*token, *got));
        assert!(log_probs.top.is_sorted_by(|a, b| a.1 >= b.1) && log_probs.top.len() == 4);
        assert_eq!(row.iter().filter(|x| **x > row[log_probs.top[3].0 as usize]).count(), 3);
        text.push(token);
        seen += 1;
    }
    assert!(seen > 3);
}

#[test]
fn a_stop_string_and_a_bias_work_as_alone() {
    let _turn = turn();
    let generator = generator();
    let ids = prompt(0, 20, 8);
    let greedy = Sampling { max_tokens: 24, ..Sampling::greedy() };
    let (whole, ..) = plain(&generator, &ids, &greedy);
    let stop: String = whole.chars().skip(4).take(2).collect();
    let wanted = 104;
    let mut scheduler = Scheduler::new(&generator, Options::default());
    let (one, stopped) = request(&ids, &Sampling { stop: vec![stop.clone()], ..greedy.clone() });
    let (two, biased) = request(&ids, &Sampling { logit_bias: [(wanted, 100.0)].into(), ..greedy });
    scheduler.push(one);
    scheduler.push(two);
    run(&mut scheduler);
    let (text, reason, _) = stopped.finished(0).unwrap();
    assert_eq!((text.as_str(), reason), (&whole[..whole.find(&stop).unwrap()], Reason::StopString(stop)));
    let drawn = biased.events().into_iter().filter_map(|event| match event {
        Event::Token { token, .. } => Some(token),
        _ => None,
    });
    assert!(drawn.eq([wanted; 24]));
}

#[test]
fn a_grammar_holds_whatever_the_model_would_write() {
    let _turn = turn();
    let generator = generator();
    let grammars = Grammars::new(generator.tokenizer(), generator.ends(), generator.tokenizer().vocab_size()).unwrap();
    let schema = serde_json::json!({
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "size": {"type": "integer", "minimum": 10, "maximum": 99}},
        "required": ["colour", "size"],
        "additionalProperties": false,
    });
    let mut scheduler = Scheduler::new(&generator, Options::default());
    let mut asked = vec![];
    for seed in 0..8 {
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, max_tokens: 120, seed, ..Sampling::default() };
        let (mut as_json, json) = request(&prompt(0, 12, 3), &sampling);
        as_json.grammar = Some(grammars.json_schema(schema.clone()).unwrap());
        let (mut as_date, date) = request(&prompt(0, 12, 3), &sampling);
        as_date.grammar = Some(grammars.regex("[0-9]{4}-[01][0-9]").unwrap());
        scheduler.push(as_json);
        scheduler.push(as_date);
        asked.push((json, date));
    }
    run(&mut scheduler);
    for (json, date) in asked {
        let (text, reason, _) = json.finished(0).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(reason == Reason::EndOfText && (value["colour"] == "red" || value["colour"] == "green"), "{text}");
        assert!((10..100).contains(&value["size"].as_i64().unwrap()) && value.as_object().unwrap().len() == 2, "{text}");
        let (text, reason, _) = date.finished(0).unwrap();
        let (year, month) = text.split_once('-').unwrap();
        assert!(reason == Reason::EndOfText && year.len() == 4 && month.len() == 2, "{text:?}");
        assert!(year.parse::<u32>().is_ok() && month.parse::<u32>().is_ok_and(|m| m < 20), "{text:?}");
    }
    let message = grammars.regex("(").err().unwrap().to_string();
    assert!(!message.is_empty());
    assert!(grammars.json_schema(serde_json::json!({"type": "what"})).is_err());
}

/// Whole passes over the text so far, the grammar's mask, the likeliest token: what constrained texts are, whoever guesses ahead and whatever else
/// is being written.
#[test]
fn constrained_greedy_texts_are_those_of_whole_passes() {
    let _turn = turn();
    let generator = generator();
    let vocabulary = generator.tokenizer().vocab_size();
    let grammars = Grammars::new(generator.tokenizer(), generator.ends(), vocabulary).unwrap();
    let patterns = ["[a-z]{3,9}( [a-z]{2,7}){2,4}\\.", "(the|a) (cat|dog|mat) [0-9]{2,6}!", "[0-9]{1,3}(, [0-9]{1,3}){3,7}"];
    let asked: Vec<(Vec<u32>, &str)> = patterns
        .iter()
        .zip(0..)
        .flat_map(|(pattern, i)| [3, 40, 75, 100].map(|len| (prompt(i, len, 3 * i + 1), *pattern)))
        .collect();
    let whole = |ids: &[u32], pattern: &str| {
        let (mut text, mut grammar) = (ids.to_vec(), grammars.regex(pattern).unwrap());
        while text.len() < CONTEXT {
            let mut logits: Vec<f32> = generator.decoder().logits(&Batch::document(&text)).into_data().try_into_vec().unwrap();
            let row = logits.split_off((text.len() - 1) * vocabulary);
            let mut row = row[..vocabulary].to_vec();
            grammar.mask(&mut row).unwrap();
            let token = (0..vocabulary).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap() as u32;
            if generator.ends().contains(&token) {
                break;
            }
            grammar.accept(token).unwrap();
            text.push(token);
        }
        text.split_off(ids.len())
    };
    let wanted: Vec<Vec<u32>> = asked.iter().map(|(ids, pattern)| whole(ids, pattern)).collect();
    assert!(wanted.iter().all(|tokens| tokens.len() > 4), "{wanted:?}");
    for (i, draft) in drafts().into_iter().enumerate() {
        let options =
            Options { width: [12, 3, 2][i], rows: [32, 64, 120][i], kept_tokens: [0, 512, 512][i], draft, ..Options::default() };
        let mut scheduler = Scheduler::new(&generator, options.clone());
        let sinks: Vec<Arc<Kept>> = asked
            .iter()
            .map(|(ids, pattern)| {
                let (mut one, sink) = request(ids, &Sampling { max_tokens: CONTEXT, ..Sampling::greedy() });
                one.grammar = Some(grammars.regex(pattern).unwrap());
                scheduler.push(one);
                scheduler.step();
                sink
            })
            .collect();
        run(&mut scheduler);
        for ((sink, wanted), (ids, pattern)) in sinks.iter().zip(&wanted).zip(&asked) {
            let events = sink.events();
            let got: Vec<u32> =
                events.iter().filter_map(|e| if let Event::Token { token, .. } = e { Some(*token) } else { None }).collect();
            assert_eq!(&got, wanted, "{pattern} after {} tokens, {options:?}", ids.len());
        }
        scheduler.forget();
        assert_eq!(live_pages(), 0);
    }
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_engine_takes_what_is_right_refuses_the_rest_and_frees_at_once() {
    let _turn = turn();
    let generator = generator();
    let options = Options { width: 1, queue: 2, kept_tokens: 0, ..Options::default() };
    let engine = Engine::start(&generator, options).unwrap();
    let greedy = Sampling { max_tokens: 5, ..Sampling::greedy() };
    let refusal = |prompt: &[u32], sampling: &Sampling, samples: usize| {
        let (mut request, _) = request(prompt, sampling);
        request.samples = samples;
        engine.submit(request).unwrap_err().to_string()
    };
    let too_long = refusal(&vec![1; CONTEXT], &greedy, 1);
    assert!(
        too_long.contains("160 tokens") && too_long.contains("context 160") && too_long.contains("at most 159"),
        "{too_long}"
    );
    assert!(refusal(&[], &greedy, 1).contains("no token"));
    assert!(refusal(&[9999], &greedy, 1).contains("token 9999"));
    assert!(refusal(&[1], &greedy, 2).contains("n must be from 1 to 1"));
    assert!(refusal(&[1], &Sampling { top_p: 2.0, ..greedy.clone() }, 1).contains("top_p"));
    assert!(refusal(&[1], &Sampling { max_tokens: 0, ..greedy.clone() }, 1).contains("at least one"));

    // While the only place is held two may wait, and a third may not.
    let gate = Arc::new(Gate::default());
    let held = gate.shut.lock().unwrap();
    let (mut first, _) = request(&prompt(0, 2, 1), &greedy);
    first.sink = gate.clone();
    engine.submit(first).unwrap();
    let waiting = || engine.stats().waiting.load(Ordering::Acquire);
    wait_for("the first begins", || waiting() == 0);
    let sinks = [(); 2].map(|()| {
        let (request, sink) = request(&prompt(0, 2, 1), &greedy);
        engine.submit(request).unwrap();
        sink
    });
    let refused = engine.submit(request(&[1], &greedy).0);
    assert!(matches!(refused, Err(Refused::Full { waiting: 2 })), "{refused:?}");
    sinks.iter().for_each(|sink| sink.close());
    drop(held);
    wait_for("their places are free again", || waiting() == 0);
    assert!(sinks.iter().all(|sink| sink.events().is_empty()), "nothing was done for those who left");
    let (last, sink) = request(&prompt(0, 2, 1), &greedy);
    engine.submit(last).unwrap();
    // Dropping it finishes what has begun.
    drop(engine);
    assert_eq!(sink.finished(0).unwrap(), plain(&generator, &prompt(0, 2, 1), &greedy));
    assert_eq!(live_pages(), 0);
}
