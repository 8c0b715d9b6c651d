//! Instruction tuning: packing changes nothing, only answers are learned, and answers are learned.

use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use danlu_data::chat::{Conversation, Encoder, Message, Packed, Template, append};
use danlu_data::tokenizer::{Kind, TrainSpec, train as learn};
use danlu_models::{Batch, Decoder};
use danlu_train::{Event, Facts, Objective, Plan, Recipe, Run, Sft, auto, train};

/// Letters and their successors, as questions and answers.
fn talks() -> Vec<Conversation> {
    let letters = "abcdefghijklmnopqrstuvwxyz";
    let talk = |i: usize| {
        let (question, answer) = (&letters[i % 23..i % 23 + 1], &letters[i % 23 + 1..i % 23 + 4]);
        let mut messages = vec![Message::user(format!("after {question}?")), Message::assistant(answer)];
        if i.is_multiple_of(3) {
            messages.extend([Message::user("and before that?"), Message::assistant(format!("{question}, I think"))]);
        }
        Conversation::new(messages)
    };
    (0..69).map(talk).collect()
}

fn encoder() -> Encoder {
    let texts = talks().into_iter().flat_map(|t| t.messages).map(|message| Ok(message.text().to_string()));
    let spec = TrainSpec { kind: Kind::Bpe, vocab_size: 300, ..TrainSpec::default() };
    let tokenizer = learn(&spec, texts).unwrap();
    Encoder::new(Template::chatml().unwrap(), tokenizer).unwrap()
}

fn setup(settings: &[&str]) -> (Plan, Decoder, Encoder) {
    let text = "name = 'sft'\n[objective]\nkind = 'sft'\n[model]\nlayers = 2\nhidden = 32\nheads = 2\ncontext = 64\n[batch]\ntokens = 256\n\
                micro_tokens = 128\n[optimizer]\nrate = 0.01\n[budget]\nsteps = 40\n";
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    let recipe = Recipe::from_toml(text, "sft", &settings).unwrap();
    let encoder = encoder();
    let facts = Facts { vocabulary: encoder.tokenizer().vocab_size(), train_tokens: 10_000, gemm_rate: 1e11 };
    let (plan, config) = auto::resolve(&recipe, &facts).unwrap();
    let model = Decoder::new(&config, 3, &Device::flex().autodiff()).unwrap();
    (plan, model, encoder)
}

fn objective(plan: &Plan, encoder: &Encoder) -> Sft {
    let rows = |talks: &[Conversation]| talks.iter().map(|t| (t.clone(), encoder.encode(t).unwrap())).collect::<Vec<_>>();
    let (out, inside) = (rows(&talks()[..8]), rows(&talks()[8..]));
    let packed = Packed::new(inside.into_iter().map(|(_, row)| row).collect(), plan.row_len, encoder.turn_end(), 1).unwrap();
    Sft::new(plan, packed, out, encoder.clone())
}

#[test]
fn packed_and_unpacked_give_the_same_loss() {
    let (plan, model, encoder) = setup(&[]);
    let objective = objective(&plan, &encoder);
    let batch = objective.batch(0).unwrap();
    let packed = f64::from(objective.loss(&model, &batch).value.into_scalar::<f32>());
    // The same conversations, one at a time.
    let (mut sum, mut count) = (0.0, 0);
    for segment in batch.segments.iter() {
        let (ids, targets) = (batch.ids[segment.clone()].to_vec(), batch.targets[segment.clone()].to_vec());
        count += targets.iter().filter(|&&t| t != danlu_ops::IGNORE).count();
        let length = ids.len();
        sum += model.token_nll(&Batch::new(ids, targets, 1, length, vec![])).iter().map(|&x| f64::from(x)).sum::<f64>();
    }
    assert_eq!(count, objective.targets(&batch));
    assert!((packed - sum / count as f64).abs() < 1e-5, "{packed} and {}", sum / count as f64);
}

#[test]
fn only_answers_and_their_ends_are_learned() {
    let (plan, _, encoder) = setup(&[]);
    let shown = objective(&plan, &encoder).show(&objective(&plan, &encoder).batch(0).unwrap()).unwrap();
    let learned: String = shown.tokens.iter().filter(|token| token.2).map(|token| token.1.as_str()).collect();
    assert!(learned.contains("<|im_end|>") && !learned.contains("after") && !learned.contains("user"), "{learned}");
    let (mut ids, mut targets) = (vec![], vec![]);
    let one = encoder.encode(&talks()[1]).unwrap();
    append(&one, &mut ids, &mut targets);
    let answer: Vec<u32> = targets.into_iter().filter(|&t| t != danlu_ops::IGNORE).collect();
    assert_eq!(encoder.tokenizer().decode(&answer).unwrap(), "cde<|im_end|>");
}

#[test]
fn answers_are_learned_and_samples_end() {
    let (plan, model, encoder) = setup(&["sample.temperature=0", "eval.every=20"]);
    let objective = objective(&plan, &encoder);
    let (folder, device) = (tempfile::tempdir().unwrap(), Device::flex().autodiff());
    let stop = AtomicBool::new(false);
    let run = Run { folder: folder.path(), plan: &plan, objective: &objective, device: &device, data: "talks", stop: &stop };
    let (mut values, mut answers) = (vec![], vec![]);
    let mut watch = |event: &Event| match event {
        Event::Measured { measure, .. } => values.push(measure.value),
        Event::Sampled { samples, .. } => answers = samples.iter().map(|s| (s.prompt.clone(), s.text.clone())).collect(),
        _ => {}
    };
    train(&run, || Ok(model), &mut watch).unwrap();
    assert!(values.windows(2).all(|pair| pair[1] < pair[0]) && values[values.len() - 1] < 0.3 * values[0], "{values:?}");
    assert!(!answers.is_empty());
    for (prompt, answer) in answers {
        assert!(answer.len() < 20, "{prompt:?} is answered without an end: {answer:?}");
    }
}
