//! Who may ask, and how often.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::App;
use crate::error::ApiError;
use crate::keys::Keys;
use crate::rates::{Caller, Passed};

/// With keys, only who has one may ask, and only as often as it may. Without, only who calls this machine by its own name: another site's
/// page, whose name was made to lead here, may not. Looking around is not counted.
pub async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let caller = check(app.keys.as_ref().as_ref(), request.headers(), request.method() == Method::POST)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn check(keys: Option<&Keys>, headers: &HeaderMap, counts: bool) -> Result<Caller, ApiError> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(keys) = keys else {
        let host = header(header::HOST).unwrap_or_default();
        if is_here(host) {
            return Ok(Caller::default());
        }
        let message = format!("without API keys only this machine is answered, as localhost; {host:?} was asked for");
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    };
    let key = header(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
    let message = match key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
        Some((_, key)) => match keys.find(key.trim()) {
            Some(key) => {
                if counts {
                    key.allowance.take(Instant::now()).map_err(|passed| too_often(&key.name, &passed))?;
                }
                return Ok(Caller { name: key.name.clone(), allowance: Some(key.allowance.clone()) });
            }
            None => "this API key is not known here",
        },
        None => "an API key is needed: Authorization: Bearer KEY",
    };
    Err(ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"))
}

fn too_often(name: &str, passed: &Passed) -> ApiError {
    let seconds = (passed.wait.as_secs_f64().ceil() as u64).max(1);
    let message = format!("the key {name} may ask for {} a minute; try again in {seconds} s", passed.rate);
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, message).code("rate_limit_exceeded").retry_after(seconds)
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
