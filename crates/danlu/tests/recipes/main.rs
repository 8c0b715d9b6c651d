//! Every recipe of this repository at a tiny size: trained without a break; trained again, interrupted, killed and gone on with; and the weights
//! of both compared, byte for byte. `table.rs` says how each is made small, and `data.rs` makes what they read. A recipe without a row fails.
#![cfg(unix)]

mod data;
#[path = "../place/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod place;
mod table;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;

use danlu_train::Recipe;
use place::Place;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use table::{ALL, ROWS, Row};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../recipes")
}

impl Row {
    fn path(&self) -> PathBuf {
        folder().join(self.recipe).with_extension("toml")
    }

    /// What the recipe calls its model, under which the recipes that follow start from it.
    fn name(&self) -> String {
        Recipe::load(&self.path(), &[]).unwrap().name
    }

    /// The steps of the run: what is said last of them holds.
    fn steps(&self) -> u64 {
        let sets = ALL.split(' ').chain(self.sets.split(' '));
        sets.filter_map(|set| set.strip_prefix("budget.steps=")).next_back().unwrap().parse().unwrap()
    }

    fn begin(&self, more: &[&str]) -> Vec<String> {
        let path = self.path().display().to_string();
        let sets = ALL.split(' ').chain(self.sets.split(' ')).flat_map(|set| ["--set", set]);
        ["train", &path].into_iter().chain(sets).chain(more.iter().copied()).map(str::to_owned).collect()
    }
}

/// Runs it until the event of a step that is far enough, and then sends the signal; without one, until it ends. An error unless it ends as it
/// then should, with an event in every line that it prints.
fn run(place: &Place, arguments: &[String], stop: Option<(u64, Signal)>) -> Result<(), String> {
    let said = format!("danlu {}", arguments.join(" "));
    let errors = place.path(&format!("errors-{:?}", thread::current().id()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--json", "--threads", "1"]).collect();
    let mut command = place.command(&arguments);
    command.current_dir(place.path("")).stdout(Stdio::piped()).stderr(File::create(&errors).unwrap());
    let mut child = command.spawn().unwrap();
    let (mut sent, mut wrong) = (false, None);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // A line that was begun when the signal came may be cut.
        let (Ok(line), false) = (line, sent) else { continue };
        let Ok(event) = serde_json::from_str::<Value>(&line) else {
            wrong.get_or_insert(line);
            continue;
        };
        if let Some((step, signal)) = stop
            && event["event"] == "step"
            && event["step"].as_u64() >= Some(step)
        {
            kill_process(Pid::from_child(&child), signal).unwrap();
            sent = true;
        }
    }
    let ended = child.wait().unwrap();
    let (code, killed_by) = match stop {
        None => (Some(0), None),
        Some((_, signal)) if signal == Signal::KILL => (None, Some(signal.as_raw())),
        Some(_) => (Some(130), None),
    };
    if let Some(line) = wrong {
        return Err(format!("{said}\nprints a line that is no event: {line:?}"));
    }
    if stop.is_some() && ended.success() {
        return Err(format!("{said}\nended before it could be stopped; give it more steps"));
    }
    if (ended.code(), ended.signal()) != (code, killed_by) {
        return Err(format!("{said}\nended with {ended}:\n{}", fs::read_to_string(&errors).unwrap_or_default()));
    }
    Ok(())
}

/// The run without a break, whose model other recipes start from.
fn whole(place: &Place, row: &Row) -> Result<(), String> {
    run(place, &row.begin(&[]), None)
}

/// The run that is interrupted early, killed later and goes on, and whether it comes to the same weights.
fn broken(place: &Place, row: &Row) -> Result<(), String> {
    let (name, steps) = (row.name(), row.steps());
    let parts = format!("{name}-parts");
    let resume = ["train", "--resume", &parts].map(str::to_owned);
    run(place, &row.begin(&["--run", &parts]), Some((steps / 8, Signal::INT)))?;
    run(place, &resume, Some((steps / 3, Signal::KILL)))?;
    run(place, &resume, None)?;
    let (one, other) = (weights(place, &name), weights(place, &parts));
    if one.is_empty() || one != other {
        return Err(format!("{}: the weights of {name}@1 and {parts}@1 differ", row.recipe));
    }
    Ok(())
}

/// The files of weights of a model, by name, with their bytes.
fn weights(place: &Place, model: &str) -> Vec<(String, Vec<u8>)> {
    let files =
        fs::read_dir(place.path(&format!("home/models/{model}@1"))).into_iter().flatten().flatten().map(|file| file.path());
    let files: BTreeSet<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect();
    files.into_iter().map(|path| (path.file_name().unwrap().display().to_string(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_recipe_has_a_row() {
    let files = fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "toml"));
    let files: BTreeSet<String> = files.map(|path| path.file_stem().unwrap().display().to_string()).collect();
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.recipe.to_owned()).collect();
    let (without, stale) = (files.difference(&rows), rows.difference(&files));
    assert_eq!(
        (without.collect::<Vec<_>>(), stale.collect::<Vec<_>>()),
        (vec![], vec![]),
        "recipes without a row, rows without a recipe"
    );
    assert_eq!(rows.len(), ROWS.len(), "a recipe has two rows");
}

#[test]
fn every_recipe_ends_in_the_same_weights_interrupted_killed_and_gone_on_with() {
    let place = Place::new();
    data::write(&place);
    // While one is trained without a break, the one before it is broken off: each computes on one thread.
    let failures: Vec<String> = thread::scope(|scope| {
        let (send, trained) = channel::<&Row>();
        let breaker = scope.spawn(|| trained.into_iter().filter_map(|row| broken(&place, row).err()).collect::<Vec<_>>());
        let mut failures = vec![];
        for row in ROWS {
            match whole(&place, row) {
                Ok(()) => send.send(row).unwrap(),
                Err(error) => failures.push(error),
            }
        }
        drop(send);
        failures.extend(breaker.join().unwrap());
        failures
    });
    assert!(failures.is_empty(), "{} of {} recipes:\n{}", failures.len(), ROWS.len(), failures.join("\n\n"));
}
