//! OpenAI's API, as its clients speak it.

pub mod answering;
pub mod chat;
pub mod completions;
pub mod embeddings;
pub mod messages;
pub mod models;
pub mod responses;
pub mod settings;
pub mod tools;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::error::ApiError;

/// Tokens that were read and written.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// Without the tokens that end texts.
    pub completion_tokens: usize,
    pub total_tokens: usize,
    pub prompt_tokens_details: PromptTokensDetails,
}

#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Tokens whose keys and values were there already.
    pub cached_tokens: usize,
}

/// Parameters of OpenAI's API that say nothing about the answer; they are taken and not looked at.
pub const IGNORED: [&str; 7] =
    ["user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"];

/// Reads the body of a request. Only what calls itself JSON is read: a browser then asks first when another site's page sends it.
pub fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let message = format!("the body must be JSON with the content type application/json; it is {kind:?}");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let body = body.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| ApiError::bad_request(format!("the body is not a request: {error}")))
}

/// Refuses parameters that would not be followed; those in `more` are taken and not looked at, besides those that always are.
pub fn check_known(other: &Map<String, Value>, more: &[&str]) -> Result<(), ApiError> {
    let taken = |key: &str| IGNORED.contains(&key) || more.contains(&key);
    match other.iter().find(|(key, value)| !value.is_null() && !taken(key)) {
        Some((key, _)) => {
            let message = match key.as_str() {
                "functions" | "function_call" => format!("{key} is not supported; use tools and tool_choice"),
                _ => format!("unknown parameter: {key}"),
            };
            Err(ApiError::bad_request(message).param(key).code("unknown_parameter"))
        }
        None => Ok(()),
    }
}

/// Why a model that was asked to write cannot.
pub fn cannot_write(id: &str) -> ApiError {
    ApiError::bad_request(format!("{id} is an encoder and writes nothing; use /v1/embeddings")).param("model")
}

/// An identifier that nothing else has.
pub fn identifier(prefix: &str) -> String {
    format!("{prefix}{:032x}", rand::random::<u128>())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
