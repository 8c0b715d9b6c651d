//! Who may ask.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::App;
use crate::error::ApiError;
use crate::keys::Keys;

/// With keys, only who has one may ask. Without, only who calls this machine by its own name: another site's page, whose name was made to
/// lead here, may not.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Result<Response, ApiError> {
    check(app.keys.as_ref().as_ref(), request.headers())?;
    Ok(next.run(request).await)
}

fn check(keys: Option<&Keys>, headers: &HeaderMap) -> Result<(), ApiError> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(keys) = keys else {
        let host = header(header::HOST).unwrap_or_default();
        if is_here(host) {
            return Ok(());
        }
        let message = format!("without API keys only this machine is answered, as localhost; {host:?} was asked for");
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    };
    let key = header(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
    let message = match key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        Some((_, key)) if keys.name_of(key.trim()).is_some() => return Ok(()),
        Some(_) => "this API key is not known here",
        None => "an API key is needed: Authorization: Bearer KEY",
    };
    Err(ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"))
}

/// Whether a `Host` header names this machine from inside.
fn is_here(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_here;

    #[test]
    fn only_this_machine_is_here() {
        for here in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.0.0.2", "[::1]:8080", "[::1]"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in
            ["", "example.com", "localhost.example.com:80", "10.0.0.1:8080", "127.0.0.1.example.com", "[2001:db8::1]:80"]
        {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }
}
