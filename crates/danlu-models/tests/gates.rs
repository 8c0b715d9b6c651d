//! What must hold for every architecture before anything is trained or generated with it.

mod common;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use common::{configs, tokens};
use danlu_models::{Batch, Cache, Decoder, load_named, names_and_shapes, to_named};
use danlu_ops::IGNORE;

fn logits(decoder: &Decoder, batch: &Batch) -> Vec<f32> {
    decoder.logits(batch).into_data().try_into_vec().unwrap()
}

fn gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Initial biases are zero and scales one, which would hide mistakes with them; this moves every value a little.
fn shaken(config: &danlu_models::DecoderConfig, device: &Device) -> Decoder {
    let decoder = Decoder::new(config, 7, device).unwrap();
    let mut state = 1u32;
    let named = to_named(&decoder).unwrap().into_iter().map(|(name, data)| {
        let shape = data.shape().to_vec();
        let values: Vec<f32> = data.try_into_vec::<f32>().unwrap();
        let moved = values.into_iter().map(|value| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            value + 0.2 * ((state >> 8) as f32 / (1 << 24) as f32 - 0.5)
        });
        (name, TensorData::new(moved.collect::<Vec<_>>(), shape))
    });
    let named = named.collect();
    load_named(decoder, named).unwrap()
}

#[test]
fn packed_documents_have_the_logits_they_have_alone() {
    for (name, config) in configs() {
        let decoder = shaken(&config, &Device::flex());
        let vocabulary = config.vocab_size();
        // Two rows of 10 with documents of 3, 4, 3 and 6, 4 tokens.
        let all = tokens(20, vocabulary);
        let packed = Batch::new(all.clone(), vec![IGNORE; 20], 2, 10, vec![3, 7, 16]);
        let packed = logits(&decoder, &packed);
        for (start, end) in [(0, 3), (3, 7), (7, 10), (10, 16), (16, 20)] {
            let alone = logits(&decoder, &Batch::document(&all[start..end]));
            let gap = gap(&alone, &packed[start * vocabulary..end * vocabulary]);
            assert!(gap < 1e-5, "{name}, tokens {start} to {end}: {gap}");
        }
    }
}

#[test]
fn packed_documents_have_the_loss_they_have_alone() {
    for (name, config) in configs() {
        let decoder = shaken(&config, &Device::flex());
        let all = tokens(13, config.vocab_size());
        let mut targets: Vec<u32> = all[1..].to_vec();
        targets[4] = IGNORE;
        let packed = Batch::new(all[..12].to_vec(), targets.clone(), 1, 12, vec![5]);
        let nll = decoder.token_nll(&packed);
        let alone = |from: usize, to: usize| {
            decoder.token_nll(&Batch::new(all[from..to].to_vec(), targets[from..to].to_vec(), 1, to - from, vec![]))
        };
        assert!(gap(&nll, &[alone(0, 5), alone(5, 12)].concat()) < 1e-5, "{name}");
        assert_eq!(nll[4], 0.0, "{name}: an ignored target");
        let mean = nll.iter().sum::<f32>() / 11.0;
        let loss: f32 = decoder.loss(&packed).into_scalar();
        assert!((loss - mean).abs() < 1e-5, "{name}: the loss is {loss}, the mean {mean}");
    }
}

#[test]
fn stepping_with_a_cache_gives_the_logits_of_a_full_pass() {
    for (name, config) in configs() {
        let decoder = shaken(&config, &Device::flex());
        let all = tokens(20, config.vocab_size());
        let full = logits(&decoder, &Batch::document(&all));
        let last = |count: usize| &full[(count - 1) * config.vocab_size()..count * config.vocab_size()];
        let mut cache = Cache::new(&decoder, 20);
        let check = |count: usize, logits: &[f32]| {
            let gap = gap(logits, last(count));
            assert!(gap < 1e-4, "{name}: after {count} tokens the logits differ by {gap}");
        };
        check(5, &decoder.step(&all[..5], &mut cache));
        for count in 6..=12 {
            check(count, &decoder.step(&all[count - 1..count], &mut cache));
        }
        check(20, &decoder.step(&all[12..], &mut cache));
        assert_eq!(cache.len(), 20);
        // Going back and reading something else gives the same as never having read on.
        cache.truncate(7);
        check(8, &decoder.step(&all[7..8], &mut cache));
    }
}

#[test]
fn greedy_tokens_are_the_same_with_and_without_a_cache() {
    for (name, config) in configs() {
        let decoder = shaken(&config, &Device::flex());
        let best = |logits: &[f32]| (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
        let prompt = tokens(4, config.vocab_size());
        let (mut cached, mut whole) = (prompt.clone(), prompt.clone());
        let mut cache = Cache::new(&decoder, 32);
        let mut next = best(&decoder.step(&prompt, &mut cache));
        for _ in 0..20 {
            cached.push(next);
            next = best(&decoder.step(&[next], &mut cache));
            let full = logits(&decoder, &Batch::document(&whole));
            whole.push(best(&full[full.len() - config.vocab_size()..]));
        }
        assert_eq!(cached, whole, "{name}");
    }
}

/// The gradient of every parameter, by name; missing ones are None.
fn gradients(decoder: &Decoder, gradients: &Gradients) -> Vec<Option<Vec<f32>>> {
    struct Collect<'a>(&'a Gradients, Vec<Option<Vec<f32>>>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push(param.val().grad(self.0).map(|gradient| gradient.into_data().try_into_vec().unwrap()));
        }
    }
    let mut collect = Collect(gradients, vec![]);
    decoder.visit(&mut collect);
    collect.1
}

fn training_batch(vocabulary: usize) -> Batch {
    let all = tokens(17, vocabulary);
    let mut targets = all[1..].to_vec();
    targets[3] = IGNORE;
    Batch::new(all[..16].to_vec(), targets, 2, 8, vec![3, 12])
}

/// The loss's change along each parameter's gradient, and along a direction that has nothing to do with it, is what the gradient says.
#[test]
fn gradients_are_those_of_finite_differences() {
    let device = Device::flex().autodiff();
    for (name, config) in configs() {
        let decoder = shaken(&config, &device);
        let batch = training_batch(config.vocab_size());
        let gradients = gradients(&decoder, &decoder.loss(&batch).backward());
        let values: Vec<(String, TensorData)> = to_named(&decoder).unwrap();
        let plain = decoder.valid();
        for (index, (parameter, data)) in values.iter().enumerate() {
            let gradient = gradients[index].as_ref().unwrap_or_else(|| panic!("{name}: {parameter} has no gradient"));
            let other: Vec<f32> = (0..gradient.len()).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
            for direction in [gradient, &other] {
                let length = direction.iter().map(|d| d * d).sum::<f32>().sqrt();
                assert!(length > 1e-6, "{name}: the gradient of {parameter} is zero");
                let at = |step: f32| {
                    let start: Vec<f32> = data.clone().try_into_vec().unwrap();
                    let moved: Vec<f32> = start.iter().zip(direction).map(|(v, d)| v + step * d / length).collect();
                    let mut named = values.clone();
                    named[index].1 = TensorData::new(moved, data.shape().to_vec());
                    let nll = load_named(plain.clone(), named).unwrap().token_nll(&batch);
                    nll.iter().map(|nll| f64::from(*nll)).sum::<f64>() / 15.0
                };
                let step = 1e-2;
                let measured = (at(step) - at(-step)) / f64::from(2.0 * step);
                let claimed = f64::from(gradient.iter().zip(direction).map(|(g, d)| g * d).sum::<f32>() / length);
                let slack = 2e-3 + 2e-2 * claimed.abs();
                assert!(
                    (measured - claimed).abs() < slack,
                    "{name}: {parameter} changes the loss by {measured}; its gradient says {claimed}"
                );
            }
        }
    }
}

/// A tied embedding's gradient is the sum of what an untied embedding and output projection would get.
#[test]
fn a_tied_embedding_collects_both_gradients() {
    let device = Device::flex().autodiff();
    let untied_of = |config: &danlu_models::DecoderConfig| match config.clone() {
        danlu_models::DecoderConfig::Llama(mut c) => {
            c.tie_word_embeddings = false;
            danlu_models::DecoderConfig::Llama(c)
        }
        danlu_models::DecoderConfig::Gpt2(mut c) => {
            c.tie_word_embeddings = false;
            danlu_models::DecoderConfig::Gpt2(c)
        }
        qwen3 => qwen3,
    };
    for (name, config) in configs().into_iter().filter(|(_, config)| config.tied()) {
        let tied = shaken(&config, &device);
        let mut named = to_named(&tied).unwrap();
        let embedding =
            named.iter().find(|(name, _)| name.ends_with("embed_tokens.weight") || name.ends_with("wte.weight")).unwrap();
        named.push(("lm_head.weight".to_string(), embedding.1.clone()));
        let untied = load_named(Decoder::new(&untied_of(&config), 0, &device).unwrap(), named).unwrap();
        let batch = training_batch(config.vocab_size());
        let of_tied = gradients(&tied, &tied.loss(&batch).backward());
        let of_untied = gradients(&untied, &untied.loss(&batch).backward());
        let head = of_untied.last().unwrap().as_ref().unwrap();
        let sum: Vec<f32> = of_untied[0].as_ref().unwrap().iter().zip(head).map(|(a, b)| a + b).collect();
        assert!(gap(&sum, of_tied[0].as_ref().unwrap()) < 1e-5, "{name}");
        assert!(gap(&sum, head) > 1e-3, "{name}: looking up alone has a gradient too");
    }
}

#[test]
fn recomputed_layers_have_the_same_loss_and_gradients() {
    let device = Device::flex().autodiff();
    for (name, config) in configs() {
        let decoder = shaken(&config, &device);
        let batch = training_batch(config.vocab_size());
        let (kept, again) = (decoder.loss(&batch), decoder.loss_recomputed(&batch));
        assert_eq!(kept.clone().into_scalar::<f32>(), again.clone().into_scalar::<f32>(), "{name}");
        let (kept, again) = (gradients(&decoder, &kept.backward()), gradients(&decoder, &again.backward()));
        assert_eq!(kept, again, "{name}");
    }
}

#[test]
fn weights_are_a_function_of_the_seed() {
    for (name, config) in configs() {
        let values = |seed| {
            let named = to_named(&Decoder::new(&config, seed, &Device::flex()).unwrap()).unwrap();
            named.into_iter().map(|(name, data)| (name, data.try_into_vec::<f32>().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(values(1), values(1), "{name}");
        assert_ne!(values(1), values(2), "{name}");
    }
}

#[test]
fn counts_agree_with_the_model() {
    for (name, config) in configs() {
        let shapes = names_and_shapes(&Decoder::new(&config, 0, &Device::flex()).unwrap());
        let count: usize = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(config.parameters(), count as u64, "{name}");
        let looked_up = ["embed_tokens.weight", "wte.weight", "wpe.weight"];
        let matrices: usize = shapes
            .iter()
            .filter(|(name, shape)| shape.len() == 2 && !looked_up.iter().any(|end| name.ends_with(end)))
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum();
        let head = if config.tied() { config.vocab_size() * config.hidden_size() } else { 0 };
        assert_eq!(config.flops_per_token(0), 6.0 * (matrices + head) as f64, "{name}");
    }
    let (_, gpt2) = configs().remove(3);
    // Two layers of queries, keys, values and sums over 32 positions of 12 channels, half of them masked, three passes.
    assert_eq!(gpt2.flops_per_token(32) - gpt2.flops_per_token(0), 2.0 * 6.0 * 12.0 * 32.0);
    assert_eq!(gpt2.kv_bytes_per_token(), 2 * 2 * 12 * 4);
}

#[test]
fn names_are_those_of_transformers() {
    let check = |index: usize, expected: &[&str]| {
        let (name, config) = configs().remove(index);
        let names = names_and_shapes(&Decoder::new(&config, 0, &Device::flex()).unwrap());
        for expected in expected {
            assert!(names.iter().any(|(name, _)| name == expected), "{name} has no {expected}: {names:?}");
        }
    };
    check(0, &["model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight", "model.norm.weight", "lm_head.weight"]);
    check(2, &["model.layers.0.self_attn.q_norm.weight", "model.layers.0.mlp.gate_proj.weight"]);
    check(3, &["transformer.wpe.weight", "transformer.h.1.attn.c_attn.bias", "transformer.ln_f.bias"]);
}

/// Answers to one question, whose tokens are computed once, in both ways of keeping what the backward pass needs.
#[test]
fn what_documents_have_in_common_is_computed_once_with_the_same_loss_and_gradients() {
    let device = Device::flex().autodiff();
    for (name, config) in configs() {
        let decoder = shaken(&config, &device);
        let question = tokens(7, config.vocab_size());
        let mut ids = vec![];
        for answer in [[3, 4, 5], [3, 4, 9], [8, 1, 2]] {
            ids.extend(question.iter().copied().chain(answer));
        }
        let targets: Vec<u32> = (0..30).map(|i| if i % 10 < 6 || i % 10 == 9 { IGNORE } else { ids[i + 1] }).collect();
        let each = Batch::new(ids, targets, 1, 30, vec![10, 20]);
        let once = each.clone().sharing();
        assert!(gap(&logits(&decoder, &each), &logits(&decoder, &once)) < 1e-5, "{name}");
        let of_each = gradients(&decoder, &decoder.loss(&each).backward());
        for loss in [decoder.loss(&once), decoder.loss_recomputed(&once)] {
            for (each, once) in of_each.iter().zip(gradients(&decoder, &loss.backward())) {
                let (each, once) = (each.as_deref().unwrap_or_default(), once.unwrap_or_default());
                assert!(gap(each, &once) < 1e-5, "{name}: {}", gap(each, &once));
            }
        }
    }
}
