//! The admin API and the dashboard: what people see and steer with.
//!
//! ```text
//!  browser, curl ── HTTPS listener ── door (token or session, origin) ─┐
//!                      │                                               ├─► api ─► conductor, store, routes.d
//!  command line ──── Unix socket ── its file's permissions ────────────┘
//!                      └ login, dashboard pages, embedded plots
//! ```
//!
//! JSON stands under `/api/v1` ([`api`] lists the calls, [`view`] their shapes).
//! Every call has an [`access::Caller`], and looks at whether what it is about
//! belongs to a project of theirs. Every change is an event of the [`audit`].
//! Nothing here decides what a worker does; it asks the conductor.

pub mod access;
pub mod api;
pub mod audit;
mod change;
pub mod chart;
mod cookie;
pub mod dashboard;
mod door;
mod drain;
pub mod embed;
mod embeds;
pub mod error;
pub mod exchange;
mod finish;
mod latencies;
pub mod listener;
mod login;
mod review;
mod revisions;
mod scope;
mod sent;
pub mod session;
mod sight;
mod slim;
pub mod socket;
mod state;
pub mod touched;
pub mod view;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::post;

use access::Caller;
use finish::Finish;
pub use state::{Admin, Front, Parts, shown_host};

use crate::tasks::Tasks;

/// Router of the Unix socket: the API, for every process that may open the socket.
/// What changes something becomes one of `tasks`.
pub fn socket_router(admin: Admin, tasks: &Tasks) -> Router {
    api::router()
        .layer(from_fn_with_state(Finish::new(tasks), finish::changes))
        .layer(axum::Extension(Caller::socket()))
        .layer(from_fn(drain::rest))
        .with_state(admin)
}

/// Router of the HTTPS listener: the API behind the door, the login, the pages.
/// What changes something becomes one of `tasks`.
pub fn https_router(admin: Admin, tasks: &Tasks) -> Router {
    let guarded_api = api::router()
        .layer(from_fn_with_state(Finish::new(tasks), finish::changes))
        .layer(from_fn_with_state(admin.clone(), slim::answers))
        .layer(from_fn_with_state(admin.clone(), door::api));
    let guarded_pages = dashboard::router().layer(from_fn_with_state(admin.clone(), door::pages));
    // Whoever may not come in yet takes no place of those who have.
    let log_in = Router::new()
        .route("/api/v1/session", post(login::login_json))
        .merge(login::router())
        .layer(from_fn_with_state(Finish::new(tasks), finish::changes));
    Router::new()
        .merge(log_in)
        .merge(guarded_api)
        .merge(embed::router())
        .merge(dashboard::open())
        .merge(guarded_pages)
        .layer(axum::extract::DefaultBodyLimit::max(api::BODY_BYTES_MAX))
        .layer(from_fn(door::headers))
        .layer(from_fn(drain::rest))
        .with_state(admin)
}
