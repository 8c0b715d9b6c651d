//! OpenAI's API, as its clients speak it.

pub mod answering;
pub mod chat;
pub mod completions;
pub mod models;
pub mod settings;

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
const IGNORED: [&str; 7] =
    ["user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"];

/// Reads the body of a request. Only what calls itself JSON is read: a browser then asks first when another site's page sends it.
pub fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.trim_start().starts_with("application/json") {
        let message = format!("the body must be JSON with the content type application/json; it is {kind:?}");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let body = body.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| ApiError::bad_request(format!("the body is not a request: {error}")))
}

/// Refuses parameters that would not be followed.
pub fn check_known(other: &Map<String, Value>) -> Result<(), ApiError> {
    match other.iter().find(|(key, value)| !value.is_null() && !IGNORED.contains(&key.as_str())) {
        Some((key, _)) => {
            let message = match key.as_str() {
                "tools" | "tool_choice" | "functions" | "function_call" => format!("{key} is not supported yet"),
                _ => format!("unknown parameter: {key}"),
            };
            Err(ApiError::bad_request(message).param(key).code("unknown_parameter"))
        }
        None => Ok(()),
    }
}

/// An identifier that no other answer has.
pub fn identifier(prefix: &str) -> String {
    format!("{prefix}-{:032x}", rand::random::<u128>())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
