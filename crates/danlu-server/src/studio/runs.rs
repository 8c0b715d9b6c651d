//! Runs as they are on the disk. A run goes on in its own process, whatever becomes of this one; it is asked to stop by a file in its folder.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use danlu_registry::runs::{Rows, Run, RunState, Runs};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Visit;
use crate::error::ApiError;

/// What a run that is gone on with prints, in its folder.
const CONSOLE: &str = "console.txt";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// Where the log was read to, as the last answer said.
    #[serde(default)]
    from: u64,
}

#[derive(Debug, Serialize)]
pub struct Shown {
    run: Run,
    recipe: Option<String>,
    /// `run.json`: what it was begun with, what was planned, and the model it ended in.
    record: Value,
    #[serde(flatten)]
    rows: Rows,
    /// Whether it can be gone on with from here.
    resumable: bool,
}

fn missing(error: anyhow::Error) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("{error:#}"))
}

fn failed(error: anyhow::Error) -> ApiError {
    ApiError::internal(format!("{error:#}"))
}

/// All runs, what was written last first.
pub async fn list(Visit { desk, caller, .. }: Visit) -> Result<Json<Vec<Run>>, ApiError> {
    desk.home(&caller, |studio| Runs::of(&studio.home).list().map(Json).map_err(failed)).await
}

/// A run, and its log from some place on.
pub async fn show(
    Visit { desk, caller, place: name }: Visit<String>,
    query: Result<Query<From>, QueryRejection>,
) -> Result<Json<Shown>, ApiError> {
    let Query(From { from }) = query.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    desk.home(&caller, move |studio| {
        let runs = Runs::of(&studio.home);
        let run = runs.show(&name).map_err(missing)?;
        let rows = runs.rows(&name, from).map_err(failed)?;
        let resumable = studio.program.is_some() && run.state == RunState::Stopped;
        let (recipe, record) = (runs.recipe(&name).ok(), runs.record(&name).unwrap_or(Value::Null));
        Ok(Json(Shown { run, recipe, record, rows, resumable }))
    })
    .await
}

/// Asks a run to save and stop, as Ctrl-C does.
pub async fn stop(Visit { desk, caller, place: name }: Visit<String>) -> Result<Json<Run>, ApiError> {
    desk.home(&caller, move |studio| {
        let runs = Runs::of(&studio.home);
        let run = runs.show(&name).map_err(missing)?;
        if !matches!(run.state, RunState::Running | RunState::Stopping) {
            return Err(ApiError::new(StatusCode::CONFLICT, format!("the run {name} is not going on")));
        }
        runs.ask_to_stop(&name).map_err(failed)?;
        runs.show(&name).map(Json).map_err(missing)
    })
    .await
}

/// Goes on with a run that was stopped, in a process of its own.
pub async fn resume(Visit { desk, caller, place: name }: Visit<String>) -> Result<Json<Value>, ApiError> {
    desk.home(&caller, move |studio| {
        let runs = Runs::of(&studio.home);
        let run = runs.show(&name).map_err(missing)?;
        let conflict = |why: &str| Err(ApiError::new(StatusCode::CONFLICT, format!("the run {name} {why}")));
        let Some(program) = &studio.program else { return conflict("cannot be gone on with from here") };
        match run.state {
            RunState::Stopped => {}
            RunState::Finished => return conflict("is finished"),
            RunState::Running | RunState::Stopping => return conflict("is going on already"),
        }
        let folder = runs.folder(&name).map_err(missing)?;
        start(program, &studio.home, &folder, &name).map_err(failed)?;
        Ok(Json(json!({"resumed": name, "console": folder.join(CONSOLE)})))
    })
    .await
}

/// Starts `danlu train --resume` apart from this process: Ctrl-C here does not reach it, and it goes on when this ends.
fn start(program: &Path, home: &Path, folder: &Path, name: &str) -> Result<()> {
    let path = folder.join(CONSOLE);
    let console = OpenOptions::new().create(true).append(true).open(&path);
    let console = console.with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new(program);
    command.args(["train", "--view", "plain", "--resume", name]).env("DANLU_HOME", home);
    command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    // Its end is waited for, so that the system can forget it.
    std::thread::spawn(move || child.wait());
    Ok(())
}
