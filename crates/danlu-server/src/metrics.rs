//! What Prometheus reads.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, anyhow};
use axum::extract::State;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::App;
use crate::document::Errors;

/// Bounds of the times, in seconds: from a token of a small model to a long answer of a large one.
const SECONDS: [f64; 12] = [0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 300.0];

/// The program has one recorder, whatever the number of servers.
///
/// # Errors
/// When something else in the program has installed one.
pub fn recorder() -> Result<PrometheusHandle> {
    static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let install = || {
        let handle = PrometheusBuilder::new().set_buckets(&SECONDS).and_then(PrometheusBuilder::install_recorder);
        describe();
        handle.map_err(|error| error.to_string())
    };
    RECORDER.get_or_init(install).clone().map_err(|error| anyhow!(error)).context("measures cannot be kept")
}

fn describe() {
    describe_histogram!("danlu_first_token_seconds", "From the request to the first token of its answer");
    describe_histogram!("danlu_answer_seconds", "From the request to the end of its answer");
    describe_counter!("danlu_answers_total", "Requests that were answered to the end");
    describe_counter!("danlu_cancelled_total", "Requests whose client went away");
    describe_counter!("danlu_failures_total", "Requests that failed in the model");
    describe_counter!("danlu_read_tokens_total", "Tokens of prompts that were read; those kept from before are not read again");
    describe_counter!("danlu_drawn_tokens_total", "Tokens that were drawn");
    describe_counter!("danlu_embedded_tokens_total", "Tokens of texts that were made into vectors");
    describe_gauge!("danlu_waiting", "Requests that wait for their turn");
    describe_gauge!("danlu_running", "Texts that are being written, or whose prompt is being read");
    describe_gauge!("danlu_kept_tokens", "Tokens of prompts whose keys and values are kept");
    describe_gauge!("danlu_pages", "Pages of 32 tokens and one layer that hold keys and values, of all models");
    describe_gauge!("danlu_page_bytes", "Bytes of these pages");
}

/// Measures of the server, in Prometheus' text form.
#[utoipa::path(get, path = "/metrics", tag = "server", responses((status = 200, content_type = "text/plain", body = String), Errors))]
pub async fn show(State(app): State<App>) -> String {
    for writer in app.models.iter().filter_map(|model| model.writer.as_ref()) {
        let (stats, label) = (writer.engine.stats(), || writer.id.clone());
        counter!("danlu_read_tokens_total", "model" => label()).absolute(stats.read_tokens.load(Ordering::Relaxed));
        counter!("danlu_drawn_tokens_total", "model" => label()).absolute(stats.drawn_tokens.load(Ordering::Relaxed));
        gauge!("danlu_waiting", "model" => label()).set(stats.waiting.load(Ordering::Relaxed) as f64);
        gauge!("danlu_running", "model" => label()).set(stats.running.load(Ordering::Relaxed) as f64);
        gauge!("danlu_kept_tokens", "model" => label()).set(stats.kept_tokens.load(Ordering::Relaxed) as f64);
    }
    gauge!("danlu_pages").set(danlu_ops::live_pages() as f64);
    gauge!("danlu_page_bytes").set(danlu_ops::live_page_bytes() as f64);
    app.metrics.run_upkeep();
    app.metrics.render()
}
