//! What was made on this machine: models with their families and measures, and the reports of data.

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use danlu_data::corpus;
use danlu_data::report::Report;
use danlu_registry::{Record, Registry, Standing};
use serde::Serialize;
use serde_json::{Value, json};

use super::Visit;
use crate::error::ApiError;

#[derive(Debug, Serialize)]
pub struct ModelRow {
    id: String,
    standing: Standing,
    level: Option<&'static str>,
    parent: Option<String>,
    created: String,
    bytes: u64,
    /// What it came to on evaluation sets: name, measure, interval, and the change from its parent told from chance.
    sets: Vec<Value>,
    gate: Option<Value>,
}

#[derive(Debug, Serialize)]
pub struct CorpusRow {
    name: String,
    hash: String,
    /// None where it was lost.
    report: Option<Report>,
}

fn failed(error: anyhow::Error) -> ApiError {
    ApiError::internal(format!("{error:#}"))
}

/// All models, and what they came to.
pub async fn models(Visit { desk, caller, .. }: Visit) -> Result<Json<Vec<ModelRow>>, ApiError> {
    desk.home(&caller, |studio| {
        let registry = Registry::open(&studio.home).map_err(failed)?;
        let records = registry.list().map_err(failed)?;
        let standings = registry.standings(&records).map_err(failed)?;
        Ok(Json(records.iter().zip(standings).map(|(record, standing)| row(record, standing)).collect()))
    })
    .await
}

fn row(record: &Record, standing: Standing) -> ModelRow {
    let lineage = &record.lineage;
    let sets = lineage.sets.iter().map(|set| {
        let verdict = set.verdict().map(|verdict| format!("{verdict:?}").to_lowercase());
        json!({
            "set": set.set, "label": set.label, "higher_is_better": set.higher_is_better, "value": set.measure.value,
            "low": set.measure.low, "high": set.measure.high, "items": set.items, "change": set.change, "verdict": verdict,
        })
    });
    ModelRow {
        id: record.id().to_string(),
        standing,
        level: lineage.level.map(danlu_registry::Level::as_str),
        parent: lineage.parent.as_ref().map(ToString::to_string),
        created: record.created.clone(),
        bytes: record.bytes(),
        sets: sets.collect(),
        gate: lineage.gate.as_ref().map(|gate| json!({"passed": gate.passed, "reasons": gate.reasons})),
    }
}

/// The family of a model as a picture.
pub async fn lineage(Visit { desk, caller, place: name }: Visit<String>) -> Result<Response, ApiError> {
    let picture = desk.home(&caller, move |studio| {
        let wanted = name.parse().map_err(|error| ApiError::bad_request(format!("{error:#}")).param("name"))?;
        let registry = Registry::open(&studio.home).map_err(failed)?;
        let missing = |error: anyhow::Error| ApiError::new(axum::http::StatusCode::NOT_FOUND, format!("{error:#}"));
        registry.lineage_svg(&wanted).map_err(missing)
    });
    // Opened by itself it may run nothing, whatever stands in a model's record.
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, picture.await?).into_response())
}

/// What became of every document of every corpus.
pub async fn data(Visit { desk, caller, .. }: Visit) -> Result<Json<Vec<CorpusRow>>, ApiError> {
    desk.home(&caller, |studio| {
        let corpora = corpus::list(&studio.home).map_err(failed)?;
        let row = |corpus: danlu_data::Corpus| {
            let report = corpus.report().ok();
            CorpusRow { name: corpus.manifest.name, hash: corpus.manifest.hash, report }
        };
        Ok(Json(corpora.into_iter().map(row).collect()))
    })
    .await
}
