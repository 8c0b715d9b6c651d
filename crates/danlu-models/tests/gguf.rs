//! GGUF files: what another implementation wrote, what is written here, and what is damaged.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use common::{configs, tokens};
use danlu_models::gguf::{self, Entry, Gguf, Header, Value};
use danlu_models::{
    AdapterSpec, Batch, Decoder, DecoderConfig, Gpt2Config, LlamaConfig, LoraSpec, RopeScaling, Sequence, folder, to_named,
};
use danlu_ops::quantized::Format;
use proptest::prelude::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(name)
}

fn values(decoder: &Decoder) -> Vec<(String, Vec<f32>)> {
    to_named(decoder).unwrap().into_iter().map(|(name, data)| (name, data.try_into_vec().unwrap())).collect()
}

fn logits(decoder: &Decoder, tokens: &[u32]) -> Vec<f32> {
    decoder.logits(&Batch::document(tokens)).into_data().try_into_vec().unwrap()
}

/// Every type of tensor becomes the floats that the package of llama.cpp's authors makes of it, bit for bit.
#[test]
fn tensors_are_dequantized_as_elsewhere() {
    let file = Gguf::open(&fixture("kinds.gguf")).unwrap();
    let expected = fs::read(fixture("kinds.f32")).unwrap();
    let expected: Vec<u32> = expected.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let names: Vec<&str> = file.tensor_names().collect();
    assert_eq!(names, ["bf16", "f16", "f32", "q4_0", "q4_1", "q4_k", "q6_k", "q8_0"]);
    for (name, expected) in names.iter().zip(expected.chunks(512)) {
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.shape(), [2, 256]);
        assert_eq!(tensor.format().name().to_lowercase(), *name);
        let found: Vec<u32> = tensor.dequantize().into_iter().map(f32::to_bits).collect();
        assert_eq!(found, expected, "{name}");
        let swapped = tensor.reordered(|row| 1 - row).dequantize();
        assert_eq!(swapped[..256].iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected[256..], "{name}");
    }
}

#[test]
fn every_kind_of_value_is_read() {
    let file = Gguf::open(&fixture("kinds.gguf")).unwrap();
    let get = |key: &str| file.get(&format!("test.{key}"));
    for (key, expected) in [
        ("uint8", Value::U8(200)),
        ("int8", Value::I8(-100)),
        ("uint16", Value::U16(60_000)),
        ("int16", Value::I16(-30_000)),
        ("uint32", Value::U32(4_000_000_000)),
        ("int32", Value::I32(-2_000_000_000)),
        ("uint64", Value::U64(1 << 63)),
        ("int64", Value::I64(-(1 << 62))),
        ("float32", Value::F32(1e-5)),
        ("float64", Value::F64(1e-300)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("丹炉")),
    ] {
        assert_eq!(get(key), Some(expected), "{key}");
    }
    // The number people wrote, not its neighbour in 64 bits.
    assert_eq!(get("float32").and_then(Value::as_f64), Some(1e-5));
    let array = |key: &str| get(key).and_then(Value::as_array).unwrap();
    assert_eq!(array("strings").strings().unwrap().collect::<Vec<_>>(), ["", "a", "Ġb c"]);
    assert_eq!(array("numbers").values().filter_map(Value::as_i64).collect::<Vec<_>>(), [1, -2, 3]);
    assert_eq!(array("flags").values().filter_map(Value::as_bool).collect::<Vec<_>>(), [true, false]);
    assert!(array("numbers").strings().is_none() && get("nothing").is_none());
}

#[test]
fn what_is_written_is_read_back() {
    let scaled = LlamaConfig {
        rope_scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 16,
        },
        ..LlamaConfig::new(29, 32, 2, 8, 32)
    };
    let ends = LlamaConfig { bos_token_id: Some(1), eos_token_id: vec![2], ..scaled.clone() };
    let more = [("llama, scaled", DecoderConfig::Llama(scaled)), ("llama, with ends", DecoderConfig::Llama(ends))];
    for (name, config) in configs().into_iter().chain(more) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let decoder = Decoder::new(&config, 3, &Device::flex()).unwrap();
        let tokens = tokens(12, config.vocab_size());
        let expected = logits(&decoder, &tokens);
        let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let mut metadata = vec![("general.name".to_string(), Entry::String(name.into()))];
        for (key, id) in [("bos", config.bos_token_id()), ("eos", config.eos_token_id().first().copied())] {
            metadata.extend(id.map(|id| (format!("tokenizer.ggml.{key}_token_id"), Entry::U32(id))));
        }
        for (format, bound) in
            [(Format::F32, 0.0), (Format::F16, 0.02), (Format::Bf16, 0.15), (Format::Q8_0, 0.05), (Format::Q6K, 0.05)]
        {
            gguf::save(&decoder, &config, &metadata, format, &path).unwrap();
            let (read, found) = gguf::load(&path, &Device::flex()).unwrap();
            match (&config, &found) {
                // What is not in the file, since only training asks for it.
                (DecoderConfig::Gpt2(a), DecoderConfig::Gpt2(b)) => assert_eq!(a.n_inner, b.n_inner, "{name}"),
                (DecoderConfig::Llama(a), DecoderConfig::Llama(b)) | (DecoderConfig::Qwen3(a), DecoderConfig::Qwen3(b)) => {
                    assert_eq!(&LlamaConfig { initializer_range: a.initializer_range, ..b.clone() }, a, "{name}");
                }
                other => panic!("{name}: {other:?}"),
            }
            if format == Format::F32 {
                assert_eq!(values(&read), values(&decoder), "{name}");
            }
            let gap = logits(&read, &tokens).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap <= bound * largest, "{name} in {}: {gap} of {largest}", format.name());
        }
    }
}

/// Models of rows that are whole blocks, with weights like those of trained ones: large enough that every part shows in the logits, and too
/// small for attention that sees one token alone.
fn wide() -> Vec<(&'static str, DecoderConfig)> {
    let llama = LlamaConfig {
        intermediate_size: 96,
        num_key_value_heads: 2,
        initializer_range: 0.1,
        ..LlamaConfig::new(61, 64, 2, 16, 64)
    };
    let gpt2 = Gpt2Config { n_head: 4, n_inner: 96, initializer_range: 0.1, ..Gpt2Config::new(61, 64, 2, 64) };
    vec![
        ("llama", DecoderConfig::Llama(llama.clone())),
        ("llama, tied", DecoderConfig::Llama(LlamaConfig { tie_word_embeddings: true, ..llama.clone() })),
        ("qwen3", DecoderConfig::Qwen3(llama)),
        ("gpt2", DecoderConfig::Gpt2(gpt2)),
    ]
}

fn saved(decoder: &Decoder, config: &DecoderConfig, format: Format, dir: &Path) -> PathBuf {
    let path = dir.join(folder::GGUF);
    gguf::save(decoder, config, &[], format, &path).unwrap();
    path
}

/// Inputs in eight bits have an error of about half a hundredth of their length in each of some ten products on the way to the logits.
#[test]
fn a_model_runs_from_its_blocks_as_from_the_floats_they_stand_for() {
    for (name, config) in wide() {
        let decoder = Decoder::new(&config, 3, &Device::flex()).unwrap();
        let tokens = tokens(20, config.vocab_size());
        for format in [Format::Q8_0, Format::Q4_0, Format::Q4_1] {
            let dir = tempfile::tempdir().unwrap();
            let file = Gguf::open(&saved(&decoder, &config, format, dir.path())).unwrap();
            let (floats, _) = gguf::decoder(&file, &Device::flex()).unwrap();
            let (blocks, _) = gguf::decoder_in_blocks(&file).unwrap();
            assert!(file.has_blocks() && blocks.is_in_blocks() && !floats.is_in_blocks());
            assert_eq!(blocks.vocabulary(), config.vocab_size());
            let (expected, found) = (logits(&floats, &tokens), logits(&blocks, &tokens));
            let square = |x: f32| f64::from(x).powi(2);
            let gap: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
            let size: f64 = expected.iter().map(|x| square(*x)).sum();
            let gap = (gap / size).sqrt();
            assert!(gap > 0.0 && gap < 0.05, "{name} in {}: {gap}", format.name());
        }
    }
}

/// Whatever is read with it, to the bit, however many there are.
#[test]
fn a_sequence_from_blocks_gets_the_same_alone_and_in_company() {
    for (name, config) in wide() {
        let dir = tempfile::tempdir().unwrap();
        let decoder = Decoder::new(&config, 3, &Device::flex()).unwrap();
        let file = Gguf::open(&saved(&decoder, &config, Format::Q4_1, dir.path())).unwrap();
        let (blocks, _) = gguf::decoder_in_blocks(&file).unwrap();
        let tokens = tokens(20, config.vocab_size());
        let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let mut alone = Sequence::new(&blocks, 32);
        let mut many = [(); 3].map(|()| Sequence::new(&blocks, 32));
        for [before, part, after] in [[&tokens[..5], &tokens[5..14], &tokens[..1]], [&tokens[1..2], &tokens[2..3], &tokens[3..4]]]
        {
            let one = blocks.step_many(&[part], &mut [&mut alone]);
            let all = blocks.step_many(&[before, part, after], &mut many.each_mut());
            assert_eq!(bits(&all[one.len()..2 * one.len()]), bits(&one), "{name}");
        }
    }
}

#[test]
fn a_folder_may_hold_a_gguf_file_beside_its_weights_or_in_their_place() {
    let device = Device::flex();
    for (name, config) in wide() {
        let dir = tempfile::tempdir().unwrap();
        let decoder = Decoder::new(&config, 3, &device).unwrap();
        folder::save(&decoder, &config, dir.path()).unwrap();
        let path = saved(&decoder, &config, Format::Q8_0, dir.path());
        // Both: floats to train, blocks to run.
        assert_eq!(values(&folder::load(dir.path(), &device).unwrap().0), values(&decoder), "{name}");
        let (running, found) = folder::load_to_run(dir.path(), &device).unwrap();
        assert!(running.is_in_blocks() && found == folder::load_config(dir.path()).unwrap(), "{name}");
        let hash = folder::weights_hash(dir.path()).unwrap();

        fs::remove_file(dir.path().join("model.safetensors")).unwrap();
        let expected = values(&gguf::load(&path, &device).unwrap().0);
        assert_eq!(values(&folder::load(dir.path(), &device).unwrap().0), expected, "{name}");
        assert!(folder::load_to_run(dir.path(), &device).unwrap().0.is_in_blocks());
        assert!(folder::load_nf4(dir.path(), &device).unwrap().0.is_quantized());
        assert_ne!(folder::weights_hash(dir.path()).unwrap(), hash, "other weights");

        // What runs is not trained or written.
        let lora = AdapterSpec::Lora(LoraSpec::default());
        let refused = [
            running.with_adapter(&lora, 0).map(drop).unwrap_err(),
            folder::save(&running, &config, dir.path()).unwrap_err(),
            gguf::save(&running, &config, &[], Format::Q8_0, &path).unwrap_err(),
        ];
        for error in refused {
            let message = error.to_string();
            assert!(message.contains("floats") || message.contains("whole weights"), "{message}");
        }

        let whole = fs::read(&path).unwrap();
        let check = |expected: &str| {
            for error in [folder::load(dir.path(), &device), folder::load_to_run(dir.path(), &device)] {
                let message = format!("{:#}", error.unwrap_err());
                assert!(message.contains("model.gguf") && message.contains(expected), "{message}");
            }
        };
        fs::write(&path, &whole[..whole.len() - 100]).unwrap();
        check("cut off or damaged");
        let (_, other) = configs().remove(0);
        saved(&Decoder::new(&other, 3, &device).unwrap(), &other, Format::F16, dir.path());
        check("another model");
    }
}

/// A file with the parts that a check is about, each of which can be wrong.
struct Made {
    metadata: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    counts: Option<(u64, u64)>,
    data: usize,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn pair(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(key)[..], &kind.to_le_bytes(), value].concat()
}

fn tensor(name: &str, shape: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((shape.len() as u32).to_le_bytes());
    shape.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

impl Made {
    fn new() -> Self {
        let text = pair("general.architecture", 8, &string("llama"));
        Self {
            metadata: vec![text],
            tensors: vec![tensor("a", &[8], 0, 0), tensor("b", &[32, 2], 8, 32)],
            counts: None,
            data: 128,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let (tensors, metadata) = self.counts.unwrap_or((self.tensors.len() as u64, self.metadata.len() as u64));
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &tensors.to_le_bytes(), &metadata.to_le_bytes()].concat();
        self.metadata.iter().chain(&self.tensors).for_each(|part| bytes.extend(part));
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
        bytes
    }
}

#[test]
fn a_damaged_file_is_refused_with_its_reason() {
    fn check(change: impl FnOnce(&mut Made), expected: &str) {
        let mut made = Made::new();
        change(&mut made);
        let message = format!("{:#}", Header::parse(&made.bytes()).unwrap_err());
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    }
    Header::parse(&Made::new().bytes()).unwrap();
    check(|made| made.counts = Some((u64::MAX, 1)), "tensors are announced at byte 8");
    check(|made| made.counts = Some((2, 1 << 40)), "values of metadata are announced at byte 16");
    check(|made| made.metadata.push(pair("x", 8, &u64::MAX.to_le_bytes())), "bytes are announced");
    check(
        |made| made.metadata.push(pair("x", 9, &[&4u32.to_le_bytes()[..], &(1u64 << 62).to_le_bytes()].concat())),
        "cannot hold them",
    );
    check(
        |made| made.metadata.push(pair("x", 9, &[&8u32.to_le_bytes()[..], &3u64.to_le_bytes()].concat())),
        "in the value of `x`",
    );
    check(|made| made.metadata.push(pair("x", 13, &[])), "of kind 13");
    check(|made| made.metadata.push(pair("x", 7, &[2])), "should be 0 or 1");
    check(|made| made.metadata.push(pair("general.architecture", 7, &[1])), "is there twice");
    check(|made| made.metadata.push(pair("general.alignment", 4, &[0; 4])), "a power of two");
    check(|made| made.metadata.push(pair("general.alignment", 4, &24u32.to_le_bytes())), "a power of two");
    check(|made| made.metadata.push(pair("x", 8, &[&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat())), "is not UTF-8");
    let deep = [9u32.to_le_bytes(), 1u32.to_le_bytes(), 0u32.to_le_bytes()].concat().repeat(8);
    check(|made| made.metadata.push(pair("x", 9, &deep)), "arrays lie in arrays");
    check(|made| made.tensors[1] = tensor("b", &[32, 2], 8, 33), "no multiple of the alignment 32");
    check(|made| made.tensors[1] = tensor("b", &[32, 2], 8, 0), "the tensors a and b overlap");
    check(|made| made.tensors[1] = tensor("a", &[32, 2], 8, 32), "the tensor a is there twice");
    check(|made| made.tensors[1] = tensor("b", &[31, 2], 8, 32), "do not divide");
    check(|made| made.tensors[1] = tensor("b", &[32, 0], 8, 32), "one of its dimensions is 0");
    check(|made| made.tensors[1] = tensor("b", &[1 << 40, 1 << 40], 0, 32), "more values than there are numbers");
    check(|made| made.tensors[1] = tensor("b", &[1 << 40], 0, 32), "it is cut off or damaged");
    check(|made| made.tensors[1] = tensor("b", &[32], 0, u64::MAX - 31), "it is cut off or damaged");
    check(|made| made.tensors[1] = tensor("b", &[2; 5], 0, 32), "5 dimensions");
    check(|made| made.tensors[1] = tensor("b", &[32], 99, 32), "which ggml has not");
    check(|made| made.tensors[1] = tensor("", &[32], 0, 32), "has 0 bytes");
    check(|made| made.data = 90, "the tensor b has 68 bytes at 32");
    check(|made| made.data = 0, "cut off");
    for (bytes, expected) in [
        (&b""[..], "too short"),
        (b"PK\x03\x04", "no GGUF file"),
        (b"GGUF\x01\0\0\0", "version 1"),
        (b"GGUF\0\0\0\x03", "big-endian"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "8 bytes are announced"),
    ] {
        let message = format!("{:#}", Header::parse(bytes).unwrap_err());
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let whole = fs::read(fixture("kinds.gguf")).unwrap();
    // The last tensor's padding is the only part that can be missing.
    for length in (0..whole.len() - 32).step_by(7) {
        assert!(Header::parse(&whole[..length]).is_err(), "{length} of {}", whole.len());
    }
}

/// What the metadata asks for must be in the file, before anything of its size is made.
#[test]
fn a_model_that_does_not_agree_with_its_metadata_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let (_, config) = configs().remove(0);
    let decoder = Decoder::new(&config, 3, &Device::flex()).unwrap();
    gguf::save(&decoder, &config, &[], Format::F32, &path).unwrap();
    let whole = fs::read(&path).unwrap();
    let check = |key: &str, value: u32, expected: &str| {
        let at = whole.windows(key.len()).position(|part| part == key.as_bytes()).unwrap() + key.len() + 4;
        let mut changed = whole.clone();
        changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
        fs::write(&path, changed).unwrap();
        let message = format!("{:#}", gguf::load(&path, &Device::flex()).unwrap_err());
        assert!(message.contains(expected), "{message:?} does not say {expected:?}");
    };
    check("llama.block_count", 4000, "there is no tensor blk.3999");
    check("llama.block_count", 1, "has no blk.1.");
    check("llama.block_count", u32::MAX, "`num_hidden_layers` must be from 1 to");
    check("llama.context_length", 1 << 20 | 1, "`max_position_embeddings` must be from 1 to");
    check("llama.embedding_length", 1 << 17, "blk.0.attn_q.weight has the shape");
    check("llama.feed_forward_length", 1 << 19, "the metadata makes it");
    check("llama.attention.head_count", 3, "blk.0.attn_q.weight has the shape");
    check("llama.attention.key_length", 0, "`llama.attention.value_length` is 6");
    check("llama.rope.dimension_count", 4, "rope of a part of them");
    fs::write(&path, &whole).unwrap();
    gguf::load(&path, &Device::flex()).unwrap();
}

proptest! {
    /// Whatever bits are flipped, reading ends in a model or a reason.
    #[test]
    fn flipped_bits_end_in_a_header_or_a_reason(flips in prop::collection::vec((0usize..2048, 0u8..8), 1..6), cut in 2048usize..7000) {
        let mut bytes = fs::read(fixture("kinds.gguf")).unwrap();
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        bytes.truncate(cut.min(bytes.len()));
        if let Ok(header) = Header::parse(&bytes) {
            let all = header.keys().filter_map(|key| header.get(&bytes, key));
            let counted: usize = all.map(|value| value.as_array().map_or(1, |array| array.values().count())).sum();
            prop_assert!(counted <= bytes.len());
        }
    }
}
