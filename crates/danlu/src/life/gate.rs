//! The gate before a model is registered: it and its parent are measured on the same items of the sets that its recipe names. Better at its
//! target by more than chance, and not worse in general by more than the tolerance, or it is kept as a candidate with the reasons.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use danlu_data::chat::{self, Conversation, Encoder};
use danlu_data::corpus::Split;
use danlu_data::preference::{self, EncodedPair, Pair};
use danlu_data::tokenizer::Tokenizer;
use danlu_data::{Progress, catalogue};
use danlu_eval::{Better, EvalSet, Items, Metric, Scores, Subject};
use danlu_models::{Decoder, folder};
use danlu_registry::{ChangeRecord, GateRecord, Measure, ModelId, ModelRef, Registry, Role, SetRecord};
use danlu_train::Recipe;
use danlu_train::recipe::GateSpec;
use serde::{Deserialize, Serialize};

use super::corpora::{self, Wanted};
use super::kinds::sft;

/// Of a document, its beginning is measured; of conversations, those not longer than this.
const TEXT_BYTES: usize = 1_000;
const CONVERSATION_BYTES: usize = 4_000;
/// What templates that read the clock are told, so that a model measures the same on every day.
const DAY: &str = "2026-01-01";
/// A file of scores has a line for each item.
const SCORES_LIMIT: u64 = 64 << 20;

/// What came of measuring a model that is about to be registered.
pub struct Judged {
    pub sets: Vec<SetRecord>,
    pub gate: GateRecord,
}

/// A set with the reason why it is measured.
pub struct Wished {
    pub role: Role,
    pub set: EvalSet,
}

/// The evaluation sets of a recipe.
///
/// # Errors
/// When a source cannot be had or holds nothing of the kind that its measure needs.
pub fn sets(home: &Path, recipe: &Recipe, progress: &mut dyn Progress) -> Result<Vec<Wished>> {
    let spec = &recipe.gate;
    let roles = [(Role::Target, &spec.target), (Role::General, &spec.general), (Role::Also, &spec.also)];
    let named = roles.into_iter().flat_map(|(role, names)| names.iter().map(move |name| (role, name)));
    let one = |(role, name): (Role, &String)| {
        let set = set(home, recipe, name, progress).with_context(|| format!("`gate` names {name:?}, which cannot be used"))?;
        Ok(Wished { role, set })
    };
    named.map(one).collect()
}

fn set(home: &Path, recipe: &Recipe, name: &str, progress: &mut dyn Progress) -> Result<EvalSet> {
    let (source, metric) = GateSpec::split(name)?;
    let entry = catalogue::entries()?.into_iter().find(|entry| entry.name == source);
    let chat = entry.as_ref().is_some_and(|entry| entry.kind == catalogue::Kind::Chat);
    let metric = metric.unwrap_or(if chat { Metric::AnswerBitsPerByte } else { Metric::BitsPerByte });
    let items = if metric == Metric::BitsPerByte {
        let wanted = Wanted { source, held_out: recipe.data.held_out, seed: recipe.seed };
        let corpus = corpora::corpus(home, &wanted, progress)?;
        let texts = corpus.documents(Split::HeldOut).map(|document| -> Result<String> {
            let mut text = document?.text;
            text.truncate(text.floor_char_boundary(TEXT_BYTES));
            Ok(text)
        });
        Items::Texts(spread(texts.collect::<Result<Vec<_>>>()?, recipe.gate.items))
    } else {
        let files = [sft::conversations(home, source, progress)?];
        let room = Room::of(recipe);
        // What any model of the line may have been trained on is measured on its held-out part; another file is for measuring.
        let shared = entry.is_some() || trained_on(home, recipe, source)?;
        if metric == Metric::PreferenceAccuracy {
            let all = preference::pairs(&preference::read(&files)?.records);
            let out = preference::held_out(all.iter().map(|pair| &pair.prompt), recipe.data.held_out, sft::SPLIT);
            let kept = all.into_iter().zip(out).filter(|(_, out)| !shared || *out).map(|(pair, _)| pair);
            let fits = |pair: &Pair| room.as_ref().is_none_or(|room| room.holds_pair(pair));
            Items::Pairs(spread(kept.filter(fits).collect(), recipe.gate.items))
        } else {
            Items::Conversations(conversations(chat::read(&files)?.records, shared, room.as_ref(), recipe))
        }
    };
    let count = match &items {
        Items::Texts(texts) => texts.len(),
        Items::Conversations(conversations) => conversations.len(),
        Items::Pairs(pairs) => pairs.len(),
    };
    ensure!(
        count > 1,
        "{source} has {count} held-out items that are not too long, and two are needed to tell a change from chance"
    );
    Ok(EvalSet { name: source.to_owned(), metric, answer_tokens: recipe.gate.answer_tokens, items })
}

/// Of all conversations those that are measured.
fn conversations(all: Vec<Conversation>, shared: bool, room: Option<&Room>, recipe: &Recipe) -> Vec<Conversation> {
    let out = chat::held_out(&all, recipe.data.held_out, sft::SPLIT);
    let short = |one: &Conversation| one.messages.iter().map(|m| m.text().len()).sum::<usize>() <= CONVERSATION_BYTES;
    let mut kept: Vec<_> =
        all.into_iter().zip(out).filter(|(one, out)| (!shared || *out) && short(one)).map(|(one, _)| one).collect();
    kept.retain(|one| one.split_last().is_some() && room.is_none_or(|room| room.holds(one)));
    spread(kept, recipe.gate.items)
}

/// What the model that a recipe starts from can read at once: its children read with the same tokenizer and no further.
struct Room {
    encoder: Encoder,
    context: usize,
}

impl Room {
    /// Nothing when the recipe names no such model, or it is not here.
    fn of(recipe: &Recipe) -> Option<Self> {
        let from = Path::new(recipe.model.from.as_deref()?);
        Some(Self { encoder: encoder(from).ok()??, context: folder::load_config(from).ok()?.context() })
    }

    /// What the template refuses is not too long, and an error when it is measured.
    fn holds(&self, one: &Conversation) -> bool {
        !self.encoder.rows(one).is_ok_and(|rows| rows.iter().any(|row| row.ids.len() > self.context))
    }

    fn holds_pair(&self, pair: &Pair) -> bool {
        let longest = |pair: EncodedPair| pair.chosen.ids.len().max(pair.rejected.ids.len());
        !EncodedPair::new(&self.encoder, pair).is_ok_and(|pair| longest(pair) > self.context)
    }
}

/// How the model in `folder` holds conversations, where it can.
fn encoder(folder: &Path) -> Result<Option<Encoder>> {
    let encoder = sft::encoder(folder).ok();
    let encoder = encoder.map(|encoder| {
        let template = encoder.template().clone().on(DAY)?;
        Encoder::new(template, encoder.tokenizer().clone())
    });
    encoder.transpose()
}

/// About `count` of all, evenly.
pub fn spread<T>(all: Vec<T>, count: usize) -> Vec<T> {
    let total = all.len();
    // The i-th is taken where i·count/total changes.
    let taken = |i: &usize| total <= count || (i * count / total) != ((i + 1) * count / total);
    all.into_iter().enumerate().filter(|(i, _)| taken(i)).map(|(_, one)| one).collect()
}

/// Whether this recipe, or one that an ancestor of its model was made by, reads the source.
fn trained_on(home: &Path, recipe: &Recipe, source: &str) -> Result<bool> {
    let data = &recipe.data;
    if data.sources.iter().chain(&data.replay).any(|one| one == source) {
        return Ok(true);
    }
    let registry = Registry::open(home)?;
    let mut next = super::prepare::parent(home, recipe);
    let mut seen = Vec::new();
    while let Some(id) = next.take().filter(|id| !seen.contains(id)) {
        let Ok(record) = registry.show(&ModelRef { name: id.name.clone(), version: Some(id.version) }) else { break };
        if record.lineage.data.iter().any(|data| data.name == source) {
            return Ok(true);
        }
        next = record.lineage.parent.clone();
        seen.push(id);
    }
    Ok(false)
}

/// Measures the model in `stage` and its parent on the recipe's sets; nothing when it names none.
///
/// # Errors
/// When a set or a model cannot be read or measured.
pub fn judge(home: &Path, recipe: &Recipe, stage: &Path, parent: Option<&ModelId>) -> Result<Option<Judged>> {
    if recipe.gate.is_empty() {
        return Ok(None);
    }
    let wished = sets(home, recipe, &mut ())?;
    let registry = Registry::open(home)?;
    let mut records = Vec::new();
    let child = measure(home, &wished, stage)?;
    let before =
        parent.map(|parent| Ok::<_, anyhow::Error>((parent, measure(home, &wished, &registry.folder(parent))?))).transpose()?;
    for (i, (one, scores)) in wished.iter().zip(&child).enumerate() {
        let change = before.as_ref().map(|(parent, before)| {
            let change = scores.change_from(&before[i]);
            ChangeRecord {
                from: (*parent).clone(),
                was: before[i].value(),
                value: change.value,
                low: change.low,
                high: change.high,
            }
        });
        records.push(SetRecord { change, ..record(one, scores)? });
    }
    if let Some((parent, before)) = &before {
        let sets = wished.iter().zip(before).map(|(one, scores)| record(one, scores)).collect::<Result<Vec<_>>>()?;
        registry.note_sets(parent, &sets)?;
    }
    let tolerance = recipe.gate.tolerance;
    let reasons: Vec<String> = records.iter().filter_map(|set| objection(set, tolerance)).collect();
    Ok(Some(Judged { sets: records, gate: GateRecord { passed: reasons.is_empty(), reasons, tolerance } }))
}

/// What the model in `folder` comes to on the recipe's sets.
///
/// # Errors
/// As [`judge`], and when the recipe names no set.
pub fn records(home: &Path, recipe: &Recipe, folder: &Path) -> Result<Vec<SetRecord>> {
    ensure!(!recipe.gate.is_empty(), "the recipe has no [gate] that names evaluation sets");
    let wished = sets(home, recipe, &mut ())?;
    let scores = measure(home, &wished, folder)?;
    wished.iter().zip(&scores).map(|(one, scores)| record(one, scores)).collect()
}

/// Why a set keeps a model from passing.
fn objection(set: &SetRecord, tolerance: f64) -> Option<String> {
    let change = set.change.as_ref()?;
    let better = if set.higher_is_better { Better::Higher } else { Better::Lower };
    let paired = danlu_eval::Change { value: change.value, low: change.low, high: change.high };
    let numbers = format!(
        "{:.4} after {:.4}, a change of {:+.4} (95 % interval {:+.4} to {:+.4})",
        set.measure.value, change.was, change.value, change.low, change.high
    );
    match set.role {
        Role::Target if !paired.is_gain(better) => {
            Some(format!("{} ({}) is not better by more than chance: {numbers}", set.set, set.label))
        }
        Role::General if paired.worst_loss(better) > tolerance * change.was.abs() => {
            let share = 100.0 * paired.worst_loss(better) / change.was.abs().max(f64::MIN_POSITIVE);
            Some(format!(
                "{} ({}) may have lost {share:.1} %, and {:.1} % is the tolerance: {numbers}",
                set.set,
                set.label,
                100.0 * tolerance
            ))
        }
        _ => None,
    }
}

fn record(one: &Wished, scores: &Scores) -> Result<SetRecord> {
    let measure = scores.measure();
    let finite = |x: f64| x.is_finite().then_some(x);
    Ok(SetRecord {
        set: one.set.name.clone(),
        unit: measure.unit.name.into(),
        label: measure.unit.label.into(),
        higher_is_better: measure.unit.better == Better::Higher,
        role: one.role,
        measure: Measure { value: measure.value, low: finite(measure.low), high: finite(measure.high) },
        items: measure.items,
        hash: one.set.hash()?,
        change: None,
    })
}

/// Measures the model in `folder` on each set. What was measured before on the same weights and items is not measured again.
///
/// # Errors
/// When the model cannot be read or a set cannot be measured with it.
pub fn measure(home: &Path, wished: &[Wished], folder: &Path) -> Result<Vec<Scores>> {
    let weights = identity(folder)?;
    let mut model: Option<Loaded> = None;
    let mut all = Vec::new();
    for Wished { set, .. } in wished {
        let key = danlu_files::hash_bytes(format!("{weights} {}", set.hash()?).as_bytes());
        let path = home.join("cache").join("evaluations").join(format!("{}.json", &key[..32]));
        if let Some(scores) = kept(&path, set) {
            all.push(scores);
            continue;
        }
        let model = match &mut model {
            Some(model) => model,
            none => none.insert(Loaded::open(folder)?),
        };
        let scores = set.scores(&model.subject())?;
        eprintln!("  {} on {}: {}", folder.file_name().unwrap_or_default().to_string_lossy(), set.name, scores.measure());
        let kept = Kept { items: scores.items.clone(), tokens: scores.tokens, bytes: scores.bytes, seconds: scores.seconds };
        danlu_files::write_atomic_bytes(&path, &serde_json::to_vec(&kept)?)?;
        all.push(scores);
    }
    Ok(all)
}

/// Scores in the cache.
#[derive(Serialize, Deserialize)]
struct Kept {
    items: Vec<(f64, f64)>,
    tokens: u64,
    bytes: u64,
    seconds: f64,
}

fn kept(path: &Path, set: &EvalSet) -> Option<Scores> {
    let text = danlu_files::read_text_bounded(path, SCORES_LIMIT).ok()?;
    let Kept { items, tokens, bytes, seconds } = serde_json::from_str(&text).ok()?;
    Some(Scores { unit: set.metric.unit(), items, tokens, bytes, seconds })
}

/// A model that is measured.
struct Loaded {
    decoder: Decoder,
    tokenizer: Tokenizer,
    encoder: Option<Encoder>,
}

impl Loaded {
    fn open(folder: &Path) -> Result<Self> {
        let (decoder, _) = folder::load(folder, &danlu_ops::device()).context("a gate measures language models")?;
        Ok(Self { decoder, tokenizer: Tokenizer::load(folder)?, encoder: encoder(folder)? })
    }

    fn subject(&self) -> Subject<'_> {
        Subject { decoder: &self.decoder, tokenizer: &self.tokenizer, encoder: self.encoder.as_ref() }
    }
}

/// The hash of all that decides what a model says: weights (of an adapter, also its base's), configuration, tokenizer, template.
fn identity(folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".jinja") || (name.ends_with(".json") && name != "danlu.json")
    });
    files.sort();
    let mut text = folder::weights_hash(folder)?;
    for file in files {
        text.push_str(&danlu_files::hash_file(&file)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(role: Role, higher: bool, was: f64, low: f64, high: f64) -> SetRecord {
        let value = (low + high) / 2.0;
        SetRecord {
            set: "s".into(),
            unit: "u".into(),
            label: "units".into(),
            higher_is_better: higher,
            role,
            measure: Measure { value: was + value, low: None, high: None },
            items: 10,
            hash: String::new(),
            change: Some(ChangeRecord { from: "a@1".parse().unwrap(), was, value, low, high }),
        }
    }

    #[test]
    fn a_target_must_gain_and_a_general_set_may_lose_a_little() {
        let check = |set: SetRecord, objects: Option<&str>| {
            let found = objection(&set, 0.03);
            assert!(
                match (&found, objects) {
                    (None, None) => true,
                    (Some(found), Some(part)) => found.contains(part),
                    _ => false,
                },
                "{found:?}"
            );
        };
        check(changed(Role::Target, false, 2.0, -0.2, -0.1), None);
        check(changed(Role::Target, false, 2.0, -0.2, 0.01), Some("not better by more than chance"));
        check(changed(Role::Target, true, 0.2, -0.2, -0.1), Some("not better"));
        check(changed(Role::General, false, 2.0, 0.0, 0.05), None);
        check(changed(Role::General, false, 2.0, 0.0, 0.07), Some("may have lost 3.5 %"));
        check(changed(Role::General, true, 0.5, -0.02, 0.1), Some("may have lost 4.0 %"));
        check(changed(Role::General, true, 0.5, 0.1, 0.2), None);
        check(changed(Role::Also, true, 0.5, -0.4, -0.3), None);
        check(SetRecord { change: None, ..changed(Role::Target, true, 1.0, 0.0, 0.0) }, None);
    }

    #[test]
    fn items_are_taken_evenly() {
        assert_eq!(spread((0..10).collect(), 5), [1, 3, 5, 7, 9]);
        assert_eq!(spread((0..3).collect(), 5), [0, 1, 2]);
        assert_eq!(spread((0..1000).collect::<Vec<_>>(), 7).len(), 7);
    }
}
