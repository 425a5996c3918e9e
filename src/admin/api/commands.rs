//! Starting, stopping, unloading, offloading and waking.

use axum::Json;
use axum::extract::{Path, Query, State};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::error::{Answer, ApiError};
use crate::admin::scope::{self, Which};
use crate::admin::view::{Accepted, ErrorView};
use crate::lifecycle::Command;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(command))
}

/// Tell an instance to start, stop, unload, offload or wake. Answers once that has begun.
#[utoipa::path(post, path = "/instances/{name}/{command}", tag = "instances",
    params(("name" = String, Path, description = "The instance, or INSTANCE%2FMODEL"),
        ("command" = String, Path, description = "start, stop, unload, offload or wake"), Which),
    responses((status = 200, body = Accepted),
        (status = 403, description = "Of another project", body = ErrorView),
        (status = 404, body = ErrorView),
        (status = 409, description = "It can't be done as it stands", body = ErrorView)))]
async fn command(
    State(admin): State<Admin>,
    caller: Caller,
    Path((name, command)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Answer<Accepted> {
    let (word, command) = match command.as_str() {
        "start" => ("start", Command::Start),
        "stop" => ("stop", Command::Stop),
        "unload" => ("unload", Command::Unload),
        "offload" => ("offload", Command::Offload),
        "wake" => ("wake", Command::Wake),
        _ => {
            return Err(ApiError::not_found(
                "there is no such command: use start, stop, unload, offload, wake or clone",
            ));
        }
    };
    let target = format!("instance:{name}");
    let handles = match scope::deployments(&admin, &caller, &name, &which) {
        Ok(handles) => handles,
        Err(error) => {
            if error.code.is_refusal() {
                admin
                    .audit
                    .refused(&caller, word, &target, &error.message)
                    .await;
            }
            return Err(error);
        }
    };
    let mut accepted = Vec::new();
    for handle in handles {
        if let Err(error) = admin.lifecycle.command(&handle.id, command).await {
            let message = format!("{}: {error}", handle.id);
            admin.audit.failed(&caller, word, &target, &message).await;
            return Err(ApiError::conflict(message));
        }
        accepted.push(handle.id.to_string());
    }
    admin
        .audit
        .done(&caller, word, &target, &accepted.join(", "))
        .await;
    Ok(Json(Accepted { accepted }))
}
