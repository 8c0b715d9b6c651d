//! Adapters in PEFT's folders: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AdapterSpec, LoraSpec};
use crate::folder::read::Weights;
use crate::folder::write::header;
use crate::folder::{self, write_json};
use crate::{Decoder, DecoderConfig, names, names_and_shapes};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of a wrapped model.
const PREFIX: &str = "base_model.model.";
/// Our notes of which base an adapter is for, and that it was held in four bits; PEFT passes over them.
const BASE_HASH: &str = "danlu_base_blake3";
const BASE_FORM: &str = "danlu_base_form";
const NF4: &str = "nf4";
/// Holds the tokens that end a text, where they are others than the base's.
const GENERATION: &str = "generation_config.json";
/// A configuration is small; what is larger is something else.
const LIMIT: u64 = 16 << 20;

/// An adapter that was read, on its base.
#[derive(Debug)]
pub struct Adapter {
    pub decoder: Decoder,
    pub spec: AdapterSpec,
    /// What its folder calls the base: a name or a path.
    pub base: Option<String>,
}

/// The part of PEFT's configuration that changes what an adapter computes.
#[derive(Deserialize)]
struct Config {
    peft_type: String,
    base_model_name_or_path: Option<String>,
    r: Option<usize>,
    lora_alpha: Option<f64>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    num_virtual_tokens: Option<usize>,
    num_transformer_submodules: Option<usize>,
    #[serde(flatten)]
    rest: HashMap<String, Value>,
}

/// Keys whose setting, other than these, would make the adapter compute something else than is computed here.
fn refused() -> [(&'static str, Vec<Value>); 8] {
    let nothing = || vec![Value::Null, json!({}), json!([]), json!(false)];
    [
        ("bias", vec![json!("none")]),
        ("lora_bias", nothing()),
        ("modules_to_save", nothing()),
        ("rank_pattern", nothing()),
        ("alpha_pattern", nothing()),
        ("use_qalora", nothing()),
        ("alora_invocation_tokens", nothing()),
        ("target_parameters", nothing()),
    ]
}

/// Writes a decoder's adapter to `dir` as PEFT does, with the hash of its base. `base` is the name or path PEFT is to find the base under.
///
/// # Errors
/// When the decoder has no adapter or another than `spec`, or a file cannot be written.
pub fn save(decoder: &Decoder, spec: &AdapterSpec, config: &DecoderConfig, base: &str, dir: &Path) -> Result<()> {
    ensure!(decoder.is_adapted(), "there is no adapter to save");
    let value = match spec {
        AdapterSpec::Lora(spec) => lora_config(decoder, spec, config, base),
        AdapterSpec::Prompt { tokens } => prompt_config(*tokens, config, base),
    };
    let mut handle = decoder.clone();
    let is_prompt = handle.prompt().is_some();
    ensure!(
        matches!(spec, AdapterSpec::Prompt { .. }) == is_prompt,
        "the decoder's adapter is not of the kind that is to be saved"
    );
    let bytes = file(decoder, &decoder.weights_hash()?)?;
    danlu_files::write_atomic_bytes(&dir.join(WEIGHTS), &bytes)?;
    write_json(&dir.join(GENERATION), &json!({ "bos_token_id": config.bos_token_id(), "eos_token_id": config.eos_token_id() }))?;
    write_json(&dir.join(CONFIG), &value)
}

/// The folder of the base, when `dir` holds an adapter and no model: where the adapter says it is, or beside the adapter under the same name.
///
/// # Errors
/// When there is no such folder, or the configuration cannot be read.
pub fn base_of(dir: &Path) -> Result<Option<PathBuf>> {
    let Some(named) = named_base(dir)? else { return Ok(None) };
    let base = Path::new(&named);
    let beside = dir.parent().zip(base.file_name()).map(|(parent, name)| parent.join(name));
    let found = [Some(base.to_path_buf()), beside].into_iter().flatten().find(|base| base.join("config.json").exists());
    let found = found.with_context(|| {
        format!(
            "{} is an adapter for {named:?}, which is no model's folder here; `danlu models import` takes it with --base",
            dir.display()
        )
    })?;
    Ok(Some(found))
}

/// Makes the adapter in `dir` one for the base in the folder `base`, which is written down and not looked into.
///
/// # Errors
/// When its configuration cannot be read or written.
pub fn set_base(dir: &Path, base: &Path) -> Result<()> {
    let path = dir.join(CONFIG);
    let text = danlu_files::read_text_bounded(&path, LIMIT)?;
    let mut config: Value = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
    ensure!(config.is_object(), "{} is not PEFT's configuration", path.display());
    config["base_model_name_or_path"] = json!(base.display().to_string());
    write_json(&path, &config)
}

/// Whether `dir` is a folder of PEFT's, and the base its configuration names, as it stands there.
///
/// # Errors
/// When it is one and its configuration cannot be read.
pub fn named_base(dir: &Path) -> Result<Option<String>> {
    let path = dir.join(CONFIG);
    if dir.join("config.json").exists() || !path.exists() {
        return Ok(None);
    }
    let named = read_config(&path)?.base_model_name_or_path;
    named.map(Some).with_context(|| format!("{} does not say which model it is for", path.display()))
}

/// The adapter in `dir` on its base, which is held as it was when the adapter was trained.
pub(crate) fn load_on_base(dir: &Path, base: &Path, device: &Device) -> Result<Decoder> {
    let weights = Weights::open_files(&[dir.join(WEIGHTS)])?;
    let nf4 = weights.metadata.get(BASE_FORM).is_some_and(|form| form == NF4);
    let (base, _) = if nf4 { folder::load_nf4(base, device)? } else { folder::load(base, device)? };
    Ok(load(dir, &base)?.decoder)
}

/// The tokens that end a text, where the adapter's folder says so.
pub(crate) fn ends(dir: &Path) -> Option<Vec<u32>> {
    let text = danlu_files::read_text_bounded(&dir.join(GENERATION), LIMIT).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    let ends = value.get("eos_token_id")?;
    let all = ends.as_array().cloned().unwrap_or_else(|| vec![ends.clone()]);
    all.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}

fn read_config(path: &Path) -> Result<Config> {
    let text = danlu_files::read_text_bounded(path, LIMIT)?;
    serde_json::from_str(&text).with_context(|| format!("{} is not PEFT's configuration", path.display()))
}

/// Puts the adapter in `dir`, whoever wrote it, on a base.
///
/// # Errors
/// When a file is missing or damaged, the adapter is of a kind not computed here, or it is for another base: of other projections or
/// shapes, or with the hash of other weights.
pub fn load(dir: &Path, base: &Decoder) -> Result<Adapter> {
    let path = dir.join(CONFIG);
    let config = read_config(&path)?;
    for (key, harmless) in refused() {
        if let Some(value) = config.rest.get(key).filter(|value| !harmless.contains(value)) {
            bail!("{}: `{key}` is {value}, which danlu does not compute; only {} works", path.display(), harmless[0]);
        }
    }
    let weights = Weights::open_files(&[dir.join(WEIGHTS)])?;
    let spec = match config.peft_type.as_str() {
        "LORA" => lora_spec(&config, &weights, &path)?,
        "PROMPT_TUNING" => {
            ensure!(
                config.num_transformer_submodules.unwrap_or(1) == 1,
                "{}: prompts of encoders and decoders both",
                path.display()
            );
            let tokens =
                config.num_virtual_tokens.with_context(|| format!("{}: `num_virtual_tokens` is missing", path.display()))?;
            AdapterSpec::Prompt { tokens }
        }
        other => bail!("{}: `peft_type` is {other:?}; danlu reads LORA and PROMPT_TUNING", path.display()),
    };
    let named = config.base_model_name_or_path.as_deref().unwrap_or("a base it does not name");
    let other = || format!("{} is an adapter for another base than this one: it was made for {named}", dir.display());
    if let Some(expected) = weights.metadata.get(BASE_HASH) {
        let found = base.weights_hash()?;
        ensure!(*expected == found, "{}, whose weights have the hash {expected:.12}; these have {found:.12}", other());
    }
    let decoder = base.base().with_adapter(&spec, 0).with_context(other)?;
    let wanted: Vec<(String, Vec<usize>)> = adapted(&decoder).into_iter().map(|(name, shape)| (in_file(&name), shape)).collect();
    weights.check(&wanted, false).with_context(other)?;
    let mine: BTreeSet<String> = wanted.into_iter().map(|(name, _)| name).collect();
    let decoder = names::fill_some(decoder, |name, shape| {
        let name = in_file(name);
        if mine.contains(&name) { weights.values(&name, shape).map(Some) } else { Ok(None) }
    })?;
    Ok(Adapter { decoder, spec, base: config.base_model_name_or_path })
}

fn lora_spec(config: &Config, weights: &Weights, path: &Path) -> Result<AdapterSpec> {
    let key = |key: &str| format!("{}: `{key}` is missing", path.display());
    let mut targets = BTreeSet::new();
    for name in weights.names() {
        let module = name.strip_prefix(PREFIX).and_then(|name| name.split_once(".lora_")).map(|(module, _)| module);
        let module = module.with_context(|| {
            format!("{name} in {WEIGHTS} is no adapter of a projection; danlu adapts the projections inside layers")
        })?;
        targets.insert(module.to_string());
    }
    ensure!(!targets.is_empty(), "{WEIGHTS} beside {} holds no adapter", path.display());
    Ok(AdapterSpec::Lora(LoraSpec {
        rank: config.r.with_context(|| key("r"))?,
        alpha: config.lora_alpha.with_context(|| key("lora_alpha"))?,
        targets: targets.into_iter().collect(),
        rank_stabilized: config.use_rslora,
        dora: config.use_dora,
    }))
}

/// The names and shapes of the adapter's parameters alone.
fn adapted(decoder: &Decoder) -> Vec<(String, Vec<usize>)> {
    let of_base: BTreeSet<String> = names_and_shapes(&decoder.base()).into_iter().map(|(name, _)| name).collect();
    names_and_shapes(decoder).into_iter().filter(|(name, _)| !of_base.contains(name)).collect()
}

/// Learned vectors stand in the file under their bare name.
fn in_file(name: &str) -> String {
    if name == "prompt_embeddings" { name.to_string() } else { format!("{PREFIX}{name}") }
}

/// The safetensors file, in memory: adapters are small.
fn file(decoder: &Decoder, base_hash: &str) -> Result<Vec<u8>> {
    let mut tensors = vec![];
    let mut end = 0;
    for (name, shape) in adapted(decoder) {
        let start = end;
        end += shape.iter().product::<usize>() * size_of::<f32>();
        tensors.push((in_file(&name), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) }));
    }
    let known: BTreeSet<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
    let mut about = BTreeMap::from([(BASE_HASH, base_hash)]);
    if decoder.is_quantized() {
        about.insert(BASE_FORM, NF4);
    }
    let mut bytes = header(about, tensors)?;
    names::for_each(decoder, |name, values| {
        if known.contains(&in_file(name)) {
            let values = values.try_into_vec::<f32>().map_err(|error| anyhow::anyhow!("{name}: {error:?}"))?;
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Ok(())
    })?;
    Ok(bytes)
}

/// The adapted projections as PEFT is to find them: by their last names when these select the same ones, else by whole names.
fn target_modules(decoder: &Decoder) -> Vec<String> {
    let mut handle = decoder.clone();
    let linears = handle.linears();
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_string();
    let (yes, no): (Vec<_>, Vec<_>) = linears.iter().partition(|(_, linear)| linear.lora_A.is_some());
    let short: BTreeSet<String> = yes.iter().map(|(name, _)| last(name)).collect();
    if no.iter().any(|(name, _)| short.contains(&last(name))) {
        return yes.iter().map(|(name, _)| name.clone()).collect();
    }
    short.into_iter().collect()
}

fn lora_config(decoder: &Decoder, spec: &LoraSpec, config: &DecoderConfig, base: &str) -> Value {
    let alpha = if spec.alpha.fract() == 0.0 { json!(spec.alpha as i64) } else { json!(spec.alpha) };
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": true,
        "r": spec.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": target_modules(decoder),
        "bias": "none",
        // Says that GPT-2's projections lie the other way in its files.
        "fan_in_fan_out": matches!(config, DecoderConfig::Gpt2(_)),
        "use_rslora": spec.rank_stabilized,
        "use_dora": spec.dora,
        "init_lora_weights": true,
        "modules_to_save": null,
        "rank_pattern": {},
        "alpha_pattern": {},
    })
}

fn prompt_config(tokens: usize, config: &DecoderConfig, base: &str) -> Value {
    let (width, heads) = match config {
        DecoderConfig::Llama(c) | DecoderConfig::Qwen3(c) => (c.hidden_size, c.num_attention_heads),
        DecoderConfig::Gpt2(c) => (c.n_embd, c.n_head),
    };
    json!({
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": true,
        "num_virtual_tokens": tokens,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_attention_heads": heads,
        "num_layers": config.layers(),
        "prompt_tuning_init": "RANDOM",
    })
}
