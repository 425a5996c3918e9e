//! Shapes of the API's answers and bodies, which the command line reads back.
//!
//! They are what `/api/v1/openapi.json` describes. A field is added, never taken
//! away; what is new has a default, so that an older server can be read.

mod entrance;
mod explain;
mod gpu;
mod instance;
mod plan;
mod plots;
mod status;
mod token;

pub use entrance::*;
pub use explain::*;
pub use gpu::*;
pub use instance::*;
pub use plan::*;
pub use plots::*;
pub use status::*;
pub use token::*;

pub use crate::gateway::upstream::servers::UpstreamView;

impl From<&crate::config::FileError> for FileErrorView {
    fn from(error: &crate::config::FileError) -> Self {
        Self {
            file: error.file.display().to_string(),
            line: error.line,
            key: error.key.clone(),
            message: error.message.clone(),
            text: None,
        }
    }
}

impl From<crate::telemetry::history::Live> for LiveView {
    fn from(live: crate::telemetry::history::Live) -> Self {
        Self {
            requests_per_second: live.requests,
            prompt_tokens_per_second: live.prompt_tokens,
            completion_tokens_per_second: live.completion_tokens,
        }
    }
}
