use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::App;
use crate::error::{ApiError, ErrorBody};
use crate::model::Model;

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
}

fn object(app: &App, model: &Model) -> ModelObject {
    let (id, context, chat) = (model.id.clone(), model.engine.context(), model.encoder().is_ok());
    ModelObject { id, object: "model", created: app.started, owned_by: "danlu", context, chat }
}

/// The models that are served.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, body = ModelList)))]
pub async fn list(State(app): State<App>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: app.models.iter().map(|model| object(&app, model)).collect() })
}

/// One of them.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "models", responses((status = 200, body = ModelObject), (status = 404, body = ErrorBody)))]
pub async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Json<ModelObject>, ApiError> {
    app.model(&name).map(|model| Json(object(&app, &model)))
}

impl App {
    /// # Errors
    /// When no model is called so; the message names those there are.
    pub fn model(&self, name: &str) -> Result<std::sync::Arc<Model>, ApiError> {
        self.models.iter().find(|model| model.is_called(name)).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.models.iter().map(|model| model.id.as_str()).collect();
            let message = format!("there is no model {name:?} here; there is {}", known.join(", "));
            ApiError::new(StatusCode::NOT_FOUND, message).param("model").code("model_not_found")
        })
    }
}
