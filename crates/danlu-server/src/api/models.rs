use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::cannot_write;
use crate::App;
use crate::document::Errors;
use crate::error::ApiError;
use crate::model::Model;
use crate::writer::Writer;

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    pub object: &'static str,
    pub data: Vec<ModelObject>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelObject {
    pub id: String,
    pub object: &'static str,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    pub owned_by: &'static str,
    /// The longest text, prompt and answer together, in tokens; not in OpenAI's API.
    pub context: usize,
    /// Whether it can talk, and not only go on with a text; not in OpenAI's API.
    pub chat: bool,
    /// Whether it writes; an encoder only embeds; not in OpenAI's API.
    pub completions: bool,
    /// How many numbers its embeddings have; not in OpenAI's API.
    pub embedding_size: usize,
}

fn object(app: &App, model: &Model) -> ModelObject {
    let writer = model.writer.as_ref();
    ModelObject {
        id: model.id.clone(),
        object: "model",
        created: app.started,
        owned_by: "danlu",
        context: model.context(),
        chat: writer.is_some_and(|writer| writer.talker().is_ok()),
        completions: writer.is_some(),
        embedding_size: model.embedder.size(),
    }
}

/// The models that are served.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, body = ModelList), Errors))]
pub async fn list(State(app): State<App>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: app.models.iter().map(|model| object(&app, model)).collect() })
}

/// One of them.
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "models", params(("model" = String, Path, description = "What it is called")),
    responses((status = 200, body = ModelObject), Errors)
)]
pub async fn show(State(app): State<App>, name: Result<Path<String>, PathRejection>) -> Result<Json<ModelObject>, ApiError> {
    let Path(name) = name.map_err(|rejection| ApiError::bad_request(rejection.body_text()).param("model"))?;
    app.model(&name).map(|model| Json(object(&app, &model)))
}

impl App {
    /// # Errors
    /// When no model is called so; the message names those there are.
    pub fn model(&self, name: &str) -> Result<Arc<Model>, ApiError> {
        self.models.iter().find(|model| model.is_called(name)).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.models.iter().map(|model| model.id.as_str()).collect();
            let message = format!("there is no model {name:?} here; there is {}", known.join(", "));
            ApiError::new(StatusCode::NOT_FOUND, message).param("model").code("model_not_found")
        })
    }

    /// # Errors
    /// When no model is called so, or the one that is writes nothing.
    pub fn writer(&self, name: &str) -> Result<Arc<Writer>, ApiError> {
        let model = self.model(name)?;
        model.writer.clone().ok_or_else(|| cannot_write(&model.id))
    }
}
