//! The state of the gateway: backed up, and its clock set back. On the Unix socket only,
//! as a backup holds what no session should carry away.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tokio::sync::mpsc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::access::{Caller, Via};
use crate::admin::error::{Answer, ApiError, on_disk};
use crate::admin::view::{ClockView, ErrorView};

/// Pieces that wait for a reader who is slow.
const PIECES_MAX: usize = 16;
/// Bytes of a piece, about.
const PIECE_BYTES: usize = 64 << 10;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(export))
        .routes(routes!(set_back))
}

/// The store as lines of JSON, for `tidegate state export`. On the Unix socket only.
#[utoipa::path(get, path = "/state/export", tag = "status", responses(
    (status = 200, description = "Lines of JSON", body = String, content_type = "application/jsonl"),
    (status = 403, body = ErrorView)))]
async fn export(State(admin): State<Admin>, caller: Caller) -> Result<Response, ApiError> {
    here_only(&admin, &caller, "state.export").await?;
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    let store = admin.store.clone();
    let work = move || {
        let mut piece = Vec::new();
        let done = store.export(|row| {
            let is_last = matches!(row, crate::store::export::Row::End(_));
            let written = serde_json::to_writer(&mut piece, row);
            piece.push(b'\n');
            let is_full = is_last || piece.len() >= PIECE_BYTES;
            let mut sent = || pieces.blocking_send(Bytes::from(std::mem::take(&mut piece)));
            written.is_ok() && (!is_full || sent().is_ok())
        });
        if let Err(error) = done {
            // The reader sees that the end is missing.
            tracing::error!(error = %error, "a backup of the store broke off");
        }
    };
    // Detached: it ends with the body.
    drop(tokio::task::spawn_blocking(work));
    admin.audit.done(&caller, "state.export", "store", "").await;
    let head = [("content-type", "application/jsonl")];
    Ok((head, Body::new(Pieces(body))).into_response())
}

/// Hold tokens against the wall clock again, though a newer time was known: because that
/// was wrong. On the Unix socket only.
#[utoipa::path(post, path = "/state/set-back-clock", tag = "status", responses(
    (status = 200, body = ClockView), (status = 403, body = ErrorView)))]
async fn set_back(State(admin): State<Admin>, caller: Caller) -> Answer<ClockView> {
    here_only(&admin, &caller, "state.set_back_clock").await?;
    let store = admin.store.clone();
    let behind = on_disk(move || store.set_back_clock()).await??;
    let detail = format!("by {behind} s");
    admin
        .audit
        .done(&caller, "state.set_back_clock", "clock", &detail)
        .await;
    Ok(Json(ClockView {
        set_back_seconds: behind,
    }))
}

async fn here_only(admin: &Admin, caller: &Caller, action: &str) -> Result<(), ApiError> {
    if matches!(caller.via, Via::Socket) {
        return Ok(());
    }
    let error = ApiError::forbidden("this is done on the machine of the gateway, over its socket");
    admin
        .audit
        .refused(caller, action, "state", &error.message)
        .await;
    Err(error)
}

/// A body of the pieces of a channel.
struct Pieces(mpsc::Receiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
