use axum::extract::State;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use danlu_engine::serve::Refused;
use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Body, check_known};
use crate::App;
use crate::document::Errors;
use crate::embedder::{Embedder, TextError, passes, to_length_1};
use crate::error::ApiError;
use crate::rates::Caller;

/// The most texts of a request, as in OpenAI's API.
const MOST: usize = 2048;

#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbeddingRequest {
    pub model: String,
    pub input: Input,
    pub encoding_format: Option<EncodingFormat>,
    /// Only the first so many numbers of each vector, scaled to length 1 again; at most as many as there are.
    #[schema(minimum = 1)]
    pub dimensions: Option<u32>,
    #[serde(flatten)]
    #[schema(ignore)]
    other: Map<String, Value>,
}

/// A text, several texts, or their tokens, to which nothing is added. At most 2,048 texts, none of them empty.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "input must be a text, a list of texts, a list of tokens, or a list of lists of tokens")]
pub enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    ManyTokens(Vec<Vec<u32>>),
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// Lists of numbers; the default.
    #[default]
    Float,
    /// 32-bit floats, little-endian, as base64.
    Base64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingList {
    pub object: &'static str,
    /// In the order of the texts.
    pub data: Vec<Embedding>,
    pub model: String,
    pub usage: EmbeddingUsage,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Embedding {
    pub object: &'static str,
    pub index: usize,
    pub embedding: Vector,
}

/// A vector of length 1.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingUsage {
    /// With those that stand around texts.
    pub prompt_tokens: usize,
    pub total_tokens: usize,
}

/// Makes vectors of texts, which are near each other when the texts mean alike. Encoders are made for it; of a decoder it is the mean of its
/// last states, which says less.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "embeddings", request_body = EmbeddingRequest,
    responses((status = 200, description = "The vectors", body = EmbeddingList), Errors)
)]
pub async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<EmbeddingRequest>,
) -> Result<Json<EmbeddingList>, ApiError> {
    let EmbeddingRequest { model, input, encoding_format, dimensions, other } = request;
    check_known(&other, &[])?;
    let model = app.model(&model)?;
    let embedder = model.embedder.clone();
    let (size, kept) = (embedder.size(), dimensions.map_or(embedder.size(), |kept| kept as usize));
    if !(1..=size).contains(&kept) {
        let message = format!("dimensions must be from 1 to {size}, which {}'s embeddings have; it is {kept}", model.id);
        return Err(ApiError::bad_request(message).param("dimensions"));
    }
    let _place = embedder.places.try_acquire().map_err(|_| Refused::Full { waiting: embedder.queue })?;
    let reader = embedder.clone();
    let texts = tokio::task::spawn_blocking(move || encode(&reader, input)).await.map_err(ApiError::lost)??;
    let tokens: usize = texts.iter().map(Vec::len).sum();
    caller.charge(tokens);
    let mut vectors = vec![];
    let _turn = embedder.turn.lock().await;
    // When the client goes away, this is dropped between two passes.
    for pass in passes(texts) {
        let embedder = embedder.clone();
        let made = tokio::task::spawn_blocking(move || embedder.embed(&pass)).await.map_err(ApiError::lost)?;
        vectors.extend(made.map_err(|error| ApiError::internal(format!("{error:#}")))?);
    }
    counter!("danlu_embedded_tokens_total", "model" => model.id.clone()).increment(tokens as u64);
    let vector = |mut vector: Vec<f32>| {
        if kept < size {
            vector.truncate(kept);
            to_length_1(&mut vector);
        }
        match encoding_format.unwrap_or_default() {
            EncodingFormat::Float => Vector::Float(vector),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        }
    };
    let data = vectors.into_iter().map(vector).enumerate();
    let data = data.map(|(index, embedding)| Embedding { object: "embedding", index, embedding }).collect();
    let usage = EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(Json(EmbeddingList { object: "list", data, model: model.id.clone(), usage }))
}

/// The tokens of each text.
fn encode(embedder: &Embedder, input: Input) -> Result<Vec<Vec<u32>>, ApiError> {
    let wrong = |message: String| ApiError::bad_request(message).param("input");
    let one = |(i, text): (usize, &String)| {
        if text.is_empty() {
            return Err(wrong(format!("text {i} is empty and has no embedding")));
        }
        embedder.encode(text).map_err(|error| wrong(format!("text {i} cannot be read: {error:#}")))
    };
    let count = match &input {
        Input::Text(_) | Input::Tokens(_) => 1,
        Input::Texts(texts) => texts.len(),
        Input::ManyTokens(texts) => texts.len(),
    };
    if !(1..=MOST).contains(&count) {
        return Err(wrong(format!("input must have 1 to {MOST} texts; it has {count}")));
    }
    let encoded: Vec<Vec<u32>> = match input {
        Input::Text(text) => vec![one((0, &text))?],
        Input::Texts(texts) => texts.iter().enumerate().map(one).collect::<Result<_, _>>()?,
        Input::Tokens(tokens) => vec![tokens],
        Input::ManyTokens(tokens) => tokens,
    };
    for (i, ids) in encoded.iter().enumerate() {
        embedder.check(ids).map_err(|error| match error {
            TextError::TooLong { tokens, context } => {
                let message = format!("text {i} has {tokens} tokens and the model reads at most {context}: shorten or split it");
                wrong(message).code("context_length_exceeded")
            }
            TextError::Wrong(message) => wrong(format!("text {i}: {message}")),
        })?;
    }
    Ok(encoded)
}
