//! Models that others can talk to: OpenAI's API over HTTP, and the studio, a page with its own routes.
//!
//! [`Model`] is one with its engine, or an encoder, [`Server`] answers for several. A handler turns a request into tokens, hands them to the model's engine
//! and passes on what comes back; when its client goes away it is dropped, and with it the request.

mod api;
mod document;
mod embedder;
mod error;
mod guard;
mod keys;
mod metrics;
mod model;
mod page;
mod rates;
mod server;
mod studio;
mod writer;

pub use keys::Keys;
pub use model::Model;
pub use rates::Rates;
pub(crate) use server::App;
pub use server::Server;
pub use studio::Studio;
