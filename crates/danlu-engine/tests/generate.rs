//! Generation as a whole, on a tiny model with random weights and a tokenizer of bytes.

use std::ops::ControlFlow;

use burn::tensor::Device;
use danlu_data::tokenizer::{Tokenizer, TrainSpec, train};
use danlu_engine::{Finish, Generator, Reason, Sampling, Search, Translator};
use danlu_models::{Batch, Decoder, DecoderConfig, LlamaConfig, Marian, MarianConfig, Pairs};

fn tokenizer() -> Tokenizer {
    let texts = ["the cat sat on the mat and the dog sat on the log", "中文也要完整地出现"];
    let spec = TrainSpec { vocab_size: 280, ..TrainSpec::default() };
    train(&spec, texts.into_iter().map(|text| Ok(text.to_string()))).unwrap()
}

fn config(context: usize) -> LlamaConfig {
    let vocabulary = tokenizer().vocab_size();
    LlamaConfig { initializer_range: 0.4, ..LlamaConfig::new(vocabulary, 16, 2, 8, context) }
}

fn generator(context: usize) -> Generator {
    let decoder = Decoder::new(&DecoderConfig::Llama(config(context)), 5, &Device::flex()).unwrap();
    Generator::new(decoder, tokenizer())
}

fn run(generator: &Generator, prompt: &str, sampling: &Sampling) -> (String, Finish) {
    let mut text = String::new();
    let finish = generator.generate(prompt, sampling, |piece| {
        text.push_str(piece);
        ControlFlow::Continue(())
    });
    (text, finish.unwrap())
}

/// The greedy text by whole passes over a growing document, without cache, stream or sampler.
#[test]
fn greedy_text_is_that_of_whole_passes() {
    let generator = generator(64);
    let (text, finish) = run(&generator, "the cat", &Sampling { max_tokens: 20, ..Sampling::greedy() });
    let mut ids = vec![generator.tokenizer().end_of_text()];
    ids.extend(generator.tokenizer().encode("the cat").unwrap());
    let prompt = ids.len();
    for _ in 0..20 {
        let logits: Vec<f32> = generator.decoder().logits(&Batch::document(&ids)).into_data().try_into_vec().unwrap();
        let last = &logits[logits.len() - generator.tokenizer().vocab_size()..];
        let best = (0..last.len()).max_by(|a, b| last[*a].total_cmp(&last[*b]).then(b.cmp(a))).unwrap() as u32;
        if best == generator.tokenizer().end_of_text() {
            break;
        }
        ids.push(best);
    }
    assert_eq!(text, generator.tokenizer().decode_text(&ids[prompt..]).unwrap());
    assert_eq!((finish.tokens, finish.prompt_tokens), (ids.len() - prompt, prompt));
    assert!(finish.tokens > 5, "the model ended at once, so this shows little");
}

#[test]
fn the_seed_decides_the_text() {
    let generator = generator(64);
    let sampling = |seed| Sampling { seed, max_tokens: 24, temperature: 1.0, ..Sampling::default() };
    assert_eq!(run(&generator, "dog", &sampling(1)).0, run(&generator, "dog", &sampling(1)).0);
    assert_ne!(run(&generator, "dog", &sampling(1)).0, run(&generator, "dog", &sampling(2)).0);
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_with_both_counts() {
    let generator = generator(8);
    let prompt = "the cat sat on the mat and the dog sat on the log";
    let tokens = generator.tokenizer().encode(prompt).unwrap().len() + 1;
    let mut called = false;
    let error = generator.generate(prompt, &Sampling::greedy(), |_| {
        called = true;
        ControlFlow::Continue(())
    });
    let message = error.unwrap_err().to_string();
    assert!(message.contains(&format!("{tokens} tokens")) && message.contains("context 8"), "{message}");
    assert!(!called);
}

#[test]
fn the_context_ends_the_text() {
    let generator = generator(12);
    let sampling = Sampling { max_tokens: 500, ..Sampling::greedy() };
    let (_, finish) = run(&generator, "the", &sampling);
    if finish.reason != Reason::EndOfText {
        assert_eq!(finish.reason, Reason::Context);
        assert_eq!(finish.tokens + finish.prompt_tokens, 12);
    }
    // A prompt that leaves room for one token gets one.
    let ids = vec![5; 11];
    let finish = generator.generate_from(&ids, &sampling, |_| ControlFlow::Continue(())).unwrap();
    assert!(finish.tokens <= 1 && matches!(finish.reason, Reason::Context | Reason::EndOfText), "{finish:?}");
    assert!(generator.generate_from(&[], &sampling, |_| ControlFlow::Continue(())).is_err());
    assert!(generator.generate_from(&[9999], &sampling, |_| ControlFlow::Continue(())).is_err());
}

#[test]
fn max_tokens_and_the_callback_end_the_text() {
    let generator = generator(64);
    let sampling = Sampling { max_tokens: 3, temperature: 1.0, ..Sampling::default() };
    let (_, finish) = run(&generator, "the", &sampling);
    assert!(finish.tokens == 3 && finish.reason == Reason::MaxTokens || finish.reason == Reason::EndOfText, "{finish:?}");
    let (text, finish) = run(&generator, "the", &Sampling { max_tokens: 0, ..sampling });
    assert_eq!((text.as_str(), finish.tokens, finish.reason), ("", 0, Reason::MaxTokens));

    let mut pieces = 0;
    let long = Sampling { max_tokens: 40, ..Sampling::greedy() };
    let finish = generator.generate("the", &long, |_| {
        pieces += 1;
        if pieces == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((pieces, finish.unwrap().reason), (2, Reason::Cancelled));
}

/// Every part of the greedy text taken as a stop string ends the text exactly before its first occurrence.
#[test]
fn a_stop_string_ends_the_text_before_it() {
    let generator = generator(64);
    let greedy = Sampling { max_tokens: 24, ..Sampling::greedy() };
    let (whole, _) = run(&generator, "the cat", &greedy);
    let characters: Vec<char> = whole.chars().collect();
    assert!(characters.len() >= 8, "{whole:?} is too short to show anything");
    for start in 1..characters.len() - 3 {
        let stop: String = characters[start..start + 3].iter().collect();
        let (text, finish) = run(&generator, "the cat", &Sampling { stop: vec![stop.clone()], ..greedy.clone() });
        assert_eq!(text, whole[..whole.find(&stop).unwrap()], "stop {stop:?}");
        assert_eq!(finish.reason, Reason::StopString(stop));
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let sampling = Sampling { temperature: -0.5, ..Sampling::default() };
    let error = generator(16).generate("the", &sampling, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("temperature"), "{error}");
}

/// A decoder that is being trained generates the same text, and its gradients are left alone.
#[test]
fn a_decoder_in_training_generates_too() {
    let config = DecoderConfig::Llama(config(64));
    let training = Decoder::new(&config, 5, &Device::flex().autodiff()).unwrap();
    let greedy = Sampling { max_tokens: 10, ..Sampling::greedy() };
    assert_eq!(run(&Generator::new(training, tokenizer()), "dog", &greedy).0, run(&generator(64), "dog", &greedy).0);
}

/// A search with a beam of one takes the likeliest token of whole passes; scores are the probabilities that whole passes give; and what is
/// searched for together is what is searched for alone.
#[test]
fn translations_are_those_of_whole_passes() {
    let tokenizer = tokenizer();
    let (end, vocabulary) = (tokenizer.end_of_text(), tokenizer.vocab_size());
    let config = MarianConfig { attention_heads: 2, eos_token_id: end, ..MarianConfig::new(vocabulary, 16, 2, 40) };
    let model = || Marian::new(&config, 5, &Device::flex()).unwrap();
    let texts = ["the cat", "中文也要", "the dog sat on the log", ""];
    let sources: Vec<Vec<u32>> = texts.iter().map(|text| tokenizer.encode(text).unwrap()).collect();
    let sources: Vec<&[u32]> = sources.iter().map(Vec::as_slice).collect();
    let length = |tokens: usize, penalty: f64| ((5.0 + tokens as f64) / 6.0).powf(penalty);
    for search in [Search { beam: 1, length_penalty: 0.0 }, Search::default(), Search { beam: 3, length_penalty: 1.0 }] {
        let translator = Translator::new(model(), tokenizer.clone(), search);
        let found = translator.search(&sources).unwrap();
        assert!(found[3].tokens.is_empty(), "nothing says nothing");
        for (source, found) in sources.iter().zip(&found[..3]) {
            let nll = model().token_nll(&Pairs::new([(*source, &found.tokens[..])], end));
            let total = |count: usize| -nll[..count].iter().map(|&nats| f64::from(nats)).sum::<f64>();
            let count = found.tokens.len();
            let ended = total(count + 1) / length(count + 1, search.length_penalty);
            let cut = total(count) / length(count, search.length_penalty);
            assert!((found.score - ended).abs() < 1e-3 || (found.score - cut).abs() < 1e-3, "{} {ended} {cut}", found.score);
            assert_eq!(&translator.search(&[*source]).unwrap()[0].tokens, &found.tokens);
            if search.beam > 1 {
                continue;
            }
            let logits = model().logits(&Pairs::new([(*source, &found.tokens[..])], end));
            let logits = logits.into_data().try_into_vec::<f32>().unwrap();
            for (row, &token) in logits.chunks(vocabulary).zip(&found.tokens) {
                let allowed = |id: &usize| *id as u32 == end || !tokenizer.is_special(*id as u32);
                let best = (0..vocabulary).filter(allowed).max_by(|a, b| row[*a].total_cmp(&row[*b]).then(b.cmp(a)));
                assert_eq!(best, Some(token as usize));
            }
        }
    }
    let translator = Translator::new(model(), tokenizer.clone(), Search::default());
    assert_eq!(translator.translate(&["the cat", " "]).unwrap()[1], "");
    let error = translator.search(&[&[5; 40]]).unwrap_err().to_string();
    assert!(error.contains("40 tokens") && error.contains("39"), "{error}");
}
