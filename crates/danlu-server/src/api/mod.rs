//! OpenAI's API, as its clients speak it.

pub mod answering;
pub mod chat;
pub mod completions;
pub mod embeddings;
pub mod messages;
pub mod models;
pub mod responses;
pub mod settings;
mod strict;
pub mod tools;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use self::strict::Strict;
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

/// The body of a request, a JSON object. Only what calls itself JSON is read: a browser then asks first when another site's page sends it.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            let message = format!("the body must be JSON with the content type application/json; it is {kind:?}");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
        let Strict(mut body) = serde_json::from_slice(&body).map_err(not_a_request)?;
        if !body.is_object() {
            // A list would be taken for an object whose keys are left out.
            return Err(ApiError::bad_request("the body is not a request: it is no JSON object"));
        }
        make_whole(&mut body);
        of_value(body).map(Self)
    }
}

/// A request of the object that its body held.
pub fn of_value<T: DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    serde_json::from_value(body).map_err(not_a_request)
}

fn not_a_request(error: serde_json::Error) -> ApiError {
    ApiError::bad_request(format!("the body is not a request: {error}"))
}

/// Whole numbers that are written as `2.0`, as some languages do, are integers: JSON Schema says so, and Rust's types do not.
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            // 2^63 is no `i64`, and -2^63 stands for smaller numbers too, which are read as the nearest float.
            let whole = number.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < TWO_TO_63);
            if let Some(x) = whole {
                *value = Value::from(x as i64);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_whole),
        Value::Object(object) => object.values_mut().for_each(make_whole),
        _ => {}
    }
}

const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

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

/// What an answer and each of its pieces begin with.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Envelope {
    /// The same in all pieces of an answer.
    pub id: String,
    pub object: &'static str,
    /// In seconds since 1970.
    pub created: u64,
    pub model: String,
}

impl Envelope {
    /// An answer that begins now.
    pub fn new(prefix: &str, object: &'static str, model: &str) -> Self {
        Self { id: identifier(prefix), object, created: now(), model: model.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_are_integers_however_they_are_written() {
        let mut value = json!({"n": 2.0, "seed": -3.0, "prompt": [7.0, 8], "temperature": 0.5, "large": 1e300, "text": "2.0"});
        make_whole(&mut value);
        assert_eq!(value, json!({"n": 2, "seed": -3, "prompt": [7, 8], "temperature": 0.5, "large": 1e300, "text": "2.0"}));
        let mut edges: Value =
            serde_json::from_str("[9223372036854775808.0, -9223372036854775809, -9223372036854775808, 4611686018427387904.0]")
                .unwrap();
        make_whole(&mut edges);
        assert!(edges[0].is_f64() && edges[1].is_f64());
        assert_eq!((&edges[2], &edges[3]), (&json!(i64::MIN), &json!(1i64 << 62)));
    }
}
