//! The client of a tunnel.

use std::sync::Arc;

use http::HeaderMap;

use crate::auth::Principal;
use crate::gateway::Gateway;
use crate::gateway::route::table::Table;

/// Client that opens a WebSocket, and what it may use.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) gateway: Arc<Gateway>,
    pub(super) table: Arc<Table>,
    pub(super) principal: Arc<Principal>,
    pub(super) route: Option<String>,
    /// The headers of the opening.
    pub(super) headers: HeaderMap,
}

/// True if a header lists this token.
pub(super) fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}
