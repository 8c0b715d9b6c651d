use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{chat, completions, embeddings, models, now, responses};
use crate::document::{Served, document};
use crate::error::ApiError;
use crate::guard::guard;
use crate::keys::Keys;
use crate::model::Model;
use crate::studio::{self, Studio};
use crate::{metrics, page};

/// How often it is looked whether the server is to stop.
const GLANCE: Duration = Duration::from_millis(50);
/// How often measures are counted.
const COUNTED: Duration = Duration::from_secs(5);

/// What is served, and to whom.
pub struct Server {
    pub models: Vec<Model>,
    /// Without keys, only this machine is answered.
    pub keys: Option<Keys>,
    /// What the page works on; without it there is the API alone.
    pub studio: Option<Studio>,
    /// The largest body of a request, in bytes.
    pub body_limit: usize,
}

/// What every handler sees.
#[derive(Clone)]
pub struct App {
    pub models: Arc<[Arc<Model>]>,
    pub keys: Arc<Option<Keys>>,
    pub metrics: PrometheusHandle,
    /// The API's description, as JSON.
    pub document: Bytes,
    /// In seconds since 1970.
    pub started: u64,
}

impl Server {
    /// Takes the address; port 0 is any that is free.
    ///
    /// # Errors
    /// When it is not this machine's alone and there are no keys, or the system does not give it.
    pub fn bind(&self, address: SocketAddr) -> Result<TcpListener> {
        ensure!(
            address.ip().is_loopback() || self.keys.is_some(),
            "{} can be reached from other machines, so API keys are needed: --api-key-file FILE; make one with \
             `danlu serve --api-key-file FILE --new-api-key NAME`",
            address.ip()
        );
        let listener = TcpListener::bind(address).with_context(|| format!("{address} cannot be listened on"))?;
        listener.set_nonblocking(true)?;
        // Its clock compares itself with the system's, for up to 200 ms where the machine is busy: enough time, while models are loaded.
        std::thread::spawn(metrics::recorder);
        Ok(listener)
    }

    /// Answers until `stop` says so; then finishes what has begun and takes nothing new.
    ///
    /// # Errors
    /// When the system fails.
    pub fn run(self, listener: TcpListener, stop: impl Fn() -> bool + Send + 'static) -> Result<()> {
        // Who makes tokens of a long prompt takes a hundred bytes for each of its own: many at once would take all memory, and be no sooner done.
        let at_once = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(at_once).enable_all().build()?;
        let measures = metrics::recorder()?;
        runtime.spawn(async move {
            // Times are kept one by one until they are counted, which reading them does; but nobody may read them.
            loop {
                tokio::time::sleep(COUNTED).await;
                measures.run_upkeep();
            }
        });
        let stopping = async move {
            while !stop() {
                tokio::time::sleep(GLANCE).await;
            }
        };
        let router = self.router()?;
        runtime.block_on(async move { serve(tokio::net::TcpListener::from_std(listener)?, router, stopping).await })
    }

    fn router(self) -> Result<Router> {
        let most = |of: fn(&Model) -> usize| self.models.iter().map(of).max().unwrap_or(0);
        let served = Served {
            names: self.models.iter().flat_map(|model| [Some(model.id.clone()), model.alias.clone()]).flatten().collect(),
            vocabulary: most(|model| model.embedder.vocabulary()),
            embedding_size: most(|model| model.embedder.size()),
        };
        let document = serde_json::to_vec(&document(self.keys.is_some(), &served))?.into();
        let app = App {
            document,
            models: self.models.into_iter().map(Arc::new).collect(),
            keys: Arc::new(self.keys),
            metrics: metrics::recorder()?,
            started: now(),
        };
        let mut router = Router::new()
            .route("/v1/chat/completions", post(chat::complete))
            .route("/v1/completions", post(completions::complete))
            .route("/v1/responses", post(responses::create))
            .route("/v1/embeddings", post(embeddings::create))
            .route("/v1/models", get(models::list))
            .route("/v1/models/{model}", get(models::show))
            .route("/metrics", get(metrics::show))
            .route_layer(middleware::from_fn_with_state(app.clone(), guard))
            .route("/health", get(health))
            .route("/openapi.json", get(openapi));
        if let Some(studio) = self.studio {
            router =
                router.route("/", get(page::index)).route("/web/{name}", get(page::asset)).merge(studio::router(&app, studio));
        }
        Ok(router
            .fallback(|| async {
                ApiError::new(StatusCode::NOT_FOUND, "there is nothing here; /openapi.json says what there is")
            })
            .method_not_allowed_fallback(|| async {
                ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this is asked for with another method")
            })
            .layer(DefaultBodyLimit::max(self.body_limit))
            .with_state(app))
    }
}

async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    stopping: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stopping).await.context("the server has failed")
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    status: &'static str,
}

/// Whether all models answer.
#[utoipa::path(get, path = "/health", tag = "server", responses((status = 200, body = Health), (status = 503, body = Health)))]
pub async fn health(State(app): State<App>) -> (StatusCode, Json<Health>) {
    if app.models.iter().all(|model| model.is_alive()) {
        (StatusCode::OK, Json(Health { status: "ok" }))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "a model has failed" }))
    }
}

async fn openapi(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.document).into_response()
}
