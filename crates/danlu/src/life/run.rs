//! A run: its folder, its training, and what is made of it in the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use danlu_data::Progress;
use danlu_lab::{Machine, Measured, Prediction, Prices, calibrate, compare, predict};
use danlu_registry::runs::Held;
use danlu_registry::{GateRecord, ModelId, ModelRef, Registry, SetRecord, check_name};
use danlu_train::{Plan, Recipe, Run, Summary, train};
use serde::{Deserialize, Serialize};

use super::curves;
use super::export::Export;
use super::kinds::{DataRecord, Kind, Prepared};
use crate::interrupt;
use crate::views::{Curves, Watcher, picture, run::Kind as View};

const RECORD: &str = "run.json";
const RECIPE: &str = "recipe.toml";
/// The tokenizer in a run's folder.
pub const TOKENIZER: &str = "tokenizer.json";
const PICTURE: &str = "curve.png";
const RECORD_LIMIT: u64 = 1 << 20;
/// How often it is looked whether somebody asked a run to stop.
const GLANCE: Duration = Duration::from_millis(500);

/// `run.json`: what the run was begun with, and the model it ended in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The budget the user gave, before anything was taken off it.
    pub minutes: Option<f64>,
    /// What its model is to be called.
    pub model_name: String,
    pub data: Vec<DataRecord>,
    /// What was predicted when it first started.
    #[serde(default)]
    pub planned: Option<Planned>,
    /// The registered model, once there is one.
    pub model: Option<ModelId>,
}

/// What was predicted of a run, to be held against what it came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    pub steps: u64,
    pub tokens: u64,
    pub seconds: f64,
    pub tokens_per_second: f64,
    /// In bytes.
    pub memory: u64,
}

/// What a run came to.
pub struct Done {
    pub summary: Summary,
    pub curves: Curves,
    pub picture: Option<PathBuf>,
    /// The registered model; none when the run was stopped.
    pub model: Option<ModelId>,
    /// What it came to on the evaluation sets of its line, and whether it passed its gate.
    pub sets: Vec<SetRecord>,
    pub gate: Option<GateRecord>,
    pub sample: Option<(String, String)>,
    pub comparison: String,
    /// The command that tries the model; empty without one.
    pub usage: String,
}

pub fn folder(home: &Path, name: &str) -> PathBuf {
    home.join("runs").join(name)
}

/// The record of a run, when there is such a run.
pub fn record(home: &Path, name: &str) -> Option<RunRecord> {
    let text = danlu_files::read_text_bounded(&folder(home, name).join(RECORD), RECORD_LIMIT).ok()?;
    serde_json::from_str(&text).ok()
}

fn write_record(home: &Path, name: &str, record: &RunRecord) -> Result<()> {
    danlu_files::write_atomic_bytes(&folder(home, name).join(RECORD), serde_json::to_string_pretty(record)?.as_bytes())
}

/// Begins a run's folder.
///
/// # Errors
/// When there is a run of this name already, or the folder cannot be written.
pub fn begin(home: &Path, prepared: &Prepared, minutes: Option<f64>, model_name: &str) -> Result<()> {
    let recipe = &prepared.plan().recipe;
    let name = &recipe.name;
    check_name(name)?;
    check_name(model_name)?;
    let dir = folder(home, name);
    ensure!(
        !dir.join(RECIPE).exists(),
        "there is a run {name:?} already; go on with it by `danlu train --resume {name}`, or begin another with --run NAME"
    );
    if let Some(tokenizer) = prepared.tokenizer() {
        // With its configuration, since a tokenizer alone does not say which of its tokens ends a document.
        tokenizer.export(&dir, recipe.model.context.unwrap_or_default())?;
    }
    write_record(
        home,
        name,
        &RunRecord { minutes, model_name: model_name.into(), data: prepared.data(), planned: None, model: None },
    )?;
    danlu_files::write_atomic_bytes(&dir.join(RECIPE), recipe.to_toml()?.as_bytes())
}

/// Brings back what a run was begun with.
///
/// # Errors
/// When there is no such run, or its data or tokenizer is not what it was.
pub fn reopen(home: &Path, name: &str, progress: &mut dyn Progress) -> Result<Prepared> {
    check_name(name)?;
    let dir = folder(home, name);
    if !dir.join(RECIPE).exists() {
        bail!("there is no run {name:?}; {}", known(home));
    }
    let recipe = Recipe::load(&dir.join(RECIPE), &[])?;
    let record = record(home, name).with_context(|| format!("{} cannot be read", dir.join(RECORD).display()))?;
    let prepared = Prepared::new(home, &recipe, Some(&dir), progress)?;
    for (is, was) in prepared.data().iter().zip(&record.data) {
        ensure!(
            is == was,
            "{} has changed since the run {name:?} began; begin a new run, which can have the old one's recipe {}",
            was.name,
            dir.join(RECIPE).display()
        );
    }
    Ok(prepared)
}

fn known(home: &Path) -> String {
    let entries = fs::read_dir(home.join("runs")).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| !n.starts_with('.')).collect();
    names.sort();
    if names.is_empty() {
        "there are none yet; `danlu train RECIPE` begins one".into()
    } else {
        format!("there are: {}", names.join(", "))
    }
}

/// What the plan says of a prepared run on this machine.
pub fn prediction(home: &Path, prepared: &Prepared) -> (Prediction, Machine) {
    prediction_of(home, prepared.plan())
}

fn prediction_of(home: &Path, plan: &Plan) -> (Prediction, Machine) {
    let machine = Machine::here(home, &plan.model);
    (predict(plan, &machine, &Prices::default()), machine)
}

/// Trains the run in its folder, from its newest checkpoint when it has one. Finished, it is exported, checked and registered, and its
/// picture is drawn.
///
/// # Errors
/// The trainer's, or those of the export; checkpoints are kept.
pub fn execute(home: &Path, kind: &impl Kind, view: View) -> Result<Done> {
    let plan = kind.plan();
    let name = &plan.recipe.name;
    let dir = folder(home, name);
    let held = Held::take(&dir)?;
    let (planned, _) = prediction_of(home, plan);
    note_plan(home, name, &planned)?;
    let device = danlu_ops::device().autodiff();
    let (objective, identity, curve) = (kind.objective()?, kind.identity(), kind.curve());
    let mut watcher = Watcher::new(view, name, plan, curve)?;
    watcher.state.curves = curves::read(&dir, curve, plan.recipe.unit())?;
    let run = Run { folder: &dir, plan, objective: &objective, device: &device, data: &identity, stop: interrupt::flag() };
    let held = &held;
    let trained = thread::scope(|scope| {
        let (end, ended) = channel();
        scope.spawn(move || listen(held, &ended));
        let trained = train(&run, || kind.fresh(&device), &mut watcher);
        drop(end);
        trained
    });
    // The terminal is given back before anything is printed.
    let state = watcher.finish();
    let trained = trained?;
    let summary = trained.summary;

    let curves = curves::read(&dir, curve, plan.recipe.unit())?;
    let mut done = Done {
        summary,
        curves,
        picture: None,
        model: None,
        sets: vec![],
        gate: None,
        sample: state.sample,
        comparison: String::new(),
        usage: String::new(),
    };
    if !done.summary.finished {
        return Ok(done);
    }
    let mut record = record(home, name).with_context(|| format!("{} cannot be read", dir.join(RECORD).display()))?;
    let id = kind.keep(&Export { home, name: &record.model_name }, &trained.model, &done.summary)?;
    let lineage = Registry::open(home)?.show(&ModelRef { name: id.name.clone(), version: Some(id.version) })?.lineage;
    (done.sets, done.gate) = (lineage.sets, lineage.gate);
    record.model = Some(id.clone());
    write_record(home, name, &record)?;
    calibrate(home, name, &plan.model, done.summary.gemm_share)?;
    done.picture = Some(draw(&dir, &id, &done, &state.headline)?);
    done.usage = kind.usage(&id);
    done.model = Some(id);
    done.comparison = compare(
        &planned,
        &Measured {
            steps: done.summary.step,
            tokens: done.summary.tokens,
            seconds: done.summary.elapsed,
            tokens_per_second: done.summary.tokens_per_second,
            memory: state.peak_memory,
        },
    );
    Ok(done)
}

/// Keeps what was predicted when a run first starts.
fn note_plan(home: &Path, name: &str, planned: &Prediction) -> Result<()> {
    if let Some(mut record) = record(home, name)
        && record.planned.is_none()
    {
        let Prediction { steps, tokens, seconds, tokens_per_second, memory, .. } = planned;
        let (steps, tokens, seconds, tokens_per_second) = (*steps, *tokens, *seconds, *tokens_per_second);
        record.planned = Some(Planned { steps, tokens, seconds, tokens_per_second, memory: memory.total() });
        write_record(home, name, &record)?;
    }
    Ok(())
}

/// Passes on that somebody asked the run to stop from outside, as Ctrl-C does from inside, until the run has ended.
fn listen(held: &Held, ended: &Receiver<()>) {
    while ended.recv_timeout(GLANCE) == Err(RecvTimeoutError::Timeout) {
        // A second request would end the program at once.
        if held.asked_to_stop() && !interrupt::requested() {
            interrupt::request();
        }
    }
}

fn draw(dir: &Path, id: &ModelId, done: &Done, headline: &str) -> Result<PathBuf> {
    let path = dir.join(PICTURE);
    let minutes = format!("{headline} · {} minutes", (done.summary.elapsed / 6.0).round() / 10.0);
    picture::write(&path, &done.curves, &id.to_string(), &minutes)?;
    Ok(path)
}
