//! The studio: what the page at `/` keeps and asks for, under `/studio`.
//!
//! These routes belong to the page and change with it, so they are left out of `/openapi.json` on purpose. They have the same guard as the
//! API, and another: only the page itself may use them (see [`own_page`]). Conversations belong to the key they were made with.
//!
//! Runs live in their own processes. The studio reads their folders and leaves requests there (`danlu_registry::runs`).

mod answers;
mod conversations;
mod messages;
mod preferences;
mod runs;
mod store;
mod templates;
mod votes;
mod workshop;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::{self, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use rusqlite::Connection;
use serde::de::DeserializeOwned;

use crate::App;
use crate::error::ApiError;
use crate::guard::guard;
use crate::rates::Caller;
use store::Store;

/// The header that requests which change something must have: a page of another site cannot send it without asking first, and is not
/// allowed to.
const MARK: &str = "x-danlu-studio";

/// What the page works on.
pub struct Studio {
    store: Store,
    /// danlu's home, with its runs, data and models.
    home: PathBuf,
    /// The program that goes on with a run; none where nobody may start one.
    program: Option<PathBuf>,
    /// The key that may look at runs, data and models, where keys are needed.
    owner: Option<String>,
}

impl Studio {
    /// Opens `studio/` in danlu's home. `program` is danlu, for runs that are gone on with; `owner` names the key whose holder may also see
    /// runs, data and models and stop runs. Without keys whoever is let in may.
    ///
    /// # Errors
    /// When the folder or the file in it cannot be written.
    pub fn open(home: &Path, program: Option<PathBuf>, owner: Option<String>) -> Result<Self> {
        let folder = home.join("studio");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        Ok(Self { store: Store::open(&folder.join("studio.sqlite"))?, home: home.to_path_buf(), program, owner })
    }

    /// Where the preferences are, for `danlu train`.
    fn preferences(&self) -> PathBuf {
        self.home.join("studio").join("preferences.jsonl")
    }
}

/// What the studio's handlers see.
#[derive(Clone)]
struct Desk {
    app: App,
    studio: Arc<Studio>,
}

impl Desk {
    /// Works on the store, away from the threads that answer.
    async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let studio = self.studio.clone();
        tokio::task::spawn_blocking(move || work(&mut studio.store.db())).await.map_err(ApiError::lost)?
    }

    /// Works on danlu's home, for callers who may.
    async fn home<T: Send + 'static>(
        &self,
        caller: &Caller,
        work: impl FnOnce(&Studio) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        if self.app.keys.is_some() && self.studio.owner.as_deref() != Some(caller.name.as_str()) {
            let message = "runs, data and models are shown to one key only: danlu serve --owner NAME";
            return Err(ApiError::new(StatusCode::FORBIDDEN, message).code("not_owner"));
        }
        let studio = self.studio.clone();
        tokio::task::spawn_blocking(move || work(&studio)).await.map_err(ApiError::lost)?
    }
}

/// What every handler is given.
struct Visit<P = ()> {
    desk: Desk,
    caller: Caller,
    /// What stands in the address.
    place: P,
}

impl<P: DeserializeOwned + Send> FromRequestParts<Desk> for Visit<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Self, ApiError> {
        let place = extract::Path::from_request_parts(parts, desk).await;
        let extract::Path(place) = place.map_err(|rejection| ApiError::new(rejection.status(), rejection.body_text()))?;
        // The guard let the request in, and wrote down whose it is.
        let caller = Extension::from_request_parts(parts, desk).await;
        let Extension(caller) = caller.map_err(|rejection| ApiError::internal(rejection.body_text()))?;
        Ok(Self { desk: desk.clone(), caller, place })
    }
}

pub fn router(app: &App, studio: Studio) -> Router<App> {
    let desk = Desk { app: app.clone(), studio: Arc::new(studio) };
    Router::new()
        .route("/studio/conversations", get(conversations::list).post(conversations::create))
        .route("/studio/conversations/{id}", get(conversations::show).put(conversations::change).delete(conversations::remove))
        .route("/studio/conversations/{id}/messages", post(messages::ask))
        .route("/studio/conversations/{id}/answers", post(answers::answer))
        .route("/studio/messages/{id}/thumb", put(votes::thumb))
        .route("/studio/votes", get(votes::tally).post(votes::vote))
        .route("/studio/templates", get(templates::list).post(templates::create))
        .route("/studio/templates/{id}", put(templates::change).delete(templates::remove))
        .route("/studio/templates/{id}/use", post(templates::apply))
        .route("/studio/runs", get(runs::list))
        .route("/studio/runs/{name}", get(runs::show))
        .route("/studio/runs/{name}/stop", post(runs::stop))
        .route("/studio/runs/{name}/resume", post(runs::resume))
        .route("/studio/models", get(workshop::models))
        .route("/studio/models/{name}/lineage.svg", get(workshop::lineage))
        .route("/studio/data", get(workshop::data))
        .route_layer(from_fn(own_page))
        .route_layer(from_fn_with_state(app.clone(), guard))
        .with_state(desk)
}

/// Lets only this server's own page through. A browser says where a request is from; where it does not, what changes something must have a
/// header that other sites' pages may not send, since no CORS request is ever allowed here.
async fn own_page(request: Request, next: Next) -> Result<Response, ApiError> {
    check_own(request.method(), request.headers())?;
    Ok(next.run(request).await)
}

fn check_own(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let header = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let refuse =
        |why: &str| Err(ApiError::new(StatusCode::FORBIDDEN, format!("only the studio's own page may ask for this: {why}")));
    match headers.get("sec-fetch-site").map(|site| site.to_str().unwrap_or("?")) {
        None | Some("same-origin" | "none") => {}
        Some(site) => return refuse(&format!("the request is {site}")),
    }
    if let Some(origin) = header(header::ORIGIN) {
        let host = header(header::HOST).unwrap_or_default();
        if origin.split_once("://").is_none_or(|(_, from)| !from.eq_ignore_ascii_case(host)) {
            return refuse(&format!("it is from {origin:?}"));
        }
    }
    if ![Method::GET, Method::HEAD].contains(method) && !headers.contains_key(MARK) {
        return refuse(&format!("the header {MARK} is missing"));
    }
    Ok(())
}

fn missing(what: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {what} here; it may have been removed"))
}

/// Of what people write short texts for: titles, names.
fn check_short(text: &str, what: &str) -> Result<(), ApiError> {
    let length = text.chars().count();
    if length > 200 {
        return Err(ApiError::bad_request(format!("{what} has {length} characters; at most 200 are taken")).param(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_page_is_let_through() {
        let check = |method: Method, given: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = given.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            check_own(&method, &headers).is_ok()
        };
        let host = ("host", "127.0.0.1:8080");
        assert!(check(Method::GET, &[host]));
        assert!(check(Method::GET, &[host, ("sec-fetch-site", "same-origin")]));
        assert!(check(Method::POST, &[host, ("origin", "http://127.0.0.1:8080"), (MARK, "1")]));
        for refused in [
            vec![host, ("sec-fetch-site", "cross-site")],
            vec![host, ("sec-fetch-site", "same-site")],
            vec![host, ("origin", "http://evil.example")],
            vec![host, ("origin", "http://127.0.0.1:8081")],
            vec![host, ("origin", "null")],
        ] {
            assert!(!check(Method::GET, &refused), "{refused:?}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert!(!check(method.clone(), &[host, ("sec-fetch-site", "same-origin")]), "{method} without the mark");
        }
    }
}
