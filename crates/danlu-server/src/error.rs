use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use danlu_engine::serve::Refused;
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, in the form of OpenAI's API.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorDetail,
    /// How long a client that asks too much is to wait, in seconds.
    retry_after: u64,
}

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// What was wrong, and what to do.
    pub message: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The parameter that was wrong.
    pub param: Option<String>,
    pub code: Option<&'static str>,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let kind = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        Self { status, body: ErrorDetail { message: message.into(), kind, param: None, code: None }, retry_after: 1 }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The work on a request panicked, and said why on the standard error.
    pub fn lost(_: tokio::task::JoinError) -> Self {
        Self::internal("the request could not be worked on; the server's log says why")
    }

    #[must_use]
    pub fn param(mut self, param: &str) -> Self {
        self.body.param = Some(param.to_owned());
        self
    }

    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.body.code = Some(code);
        self
    }

    /// Sets how long the client is asked to wait, in seconds; without it, one.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = seconds;
        self
    }

    pub fn into_body(self) -> ErrorBody {
        ErrorBody { error: self.body }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::TooLong { .. } => Self::bad_request(message).code("context_length_exceeded"),
            Refused::Wrong(_) => Self::bad_request(message),
            Refused::Full { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, message).code("queue_full"),
            Refused::Stopped => Self::new(StatusCode::SERVICE_UNAVAILABLE, message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(self.into_body())).into_response();
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
