//! Form of OpenAI's and Anthropic's requests and responses, and nothing
//! about who may send them or where they go.
//!
//! Owns every field name of these APIs that the gateway reads or writes:
//!
//! - [`api`]: which paths are served, and how vLLM spells them;
//! - [`request`]: the model and the limits of a request, found in one pass that
//!   borrows the body;
//! - [`form`]: the same of a request that is a form, as audio comes in;
//! - [`media`]: what a request has an engine fetch or run, and whether it may;
//! - [`splice`]: the few edits that a body may need, all other bytes kept;
//! - [`rules`]: parameters that a name sets, bounds or takes out, as such edits;
//! - [`usage`]: token counts, read as a JSON response passes;
//! - [`sse`]: events, the end and the token counts of a stream as it passes;
//! - [`realtime`]: the events of a WebSocket;
//! - [`foreign`]: errors of servers that are not quite like these, read;
//! - [`error`], [`models`]: the JSON that the gateway itself answers with.
//!
//! All of it is pure: bytes in, facts and bytes out. No I/O, no clock, no task,
//! no status codes. It stands on the path of every request, so nothing here
//! builds a document tree, and bytes are copied only where they change.

pub mod api;
pub mod error;
pub mod foreign;
pub mod form;
pub mod keep;
pub mod media;
pub mod models;
pub mod realtime;
pub mod request;
pub mod rules;
pub mod splice;
pub mod sse;
pub mod usage;

#[cfg(test)]
mod fuzz;
mod json;
