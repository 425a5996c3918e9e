//! Shapes of the process, of sessions and of what was changed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET status`: how the process stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// The version that runs.
    pub version: String,
    /// Process id of the gateway.
    pub pid: u32,
    /// Start of the process, in seconds since 1970.
    pub started: u64,
    /// Now, seconds since 1970, by the clock of the server.
    pub now: u64,
    /// Seconds that the server's clock on the wall is ahead of UTC: engines write
    /// their lines by it.
    #[serde(default)]
    pub utc_offset_seconds: i32,
    /// Directory that the process runs in.
    pub directory: String,
    /// Listeners for clients, as `https://127.0.0.1:8443`.
    pub listen: Vec<String>,
    /// URL of dashboard and API, if they are on.
    pub admin: Option<String>,
    /// URL for Prometheus, if it may read.
    pub metrics: Option<String>,
    /// Routes that are served.
    pub routes: usize,
    /// Errors of files whose present text is not in effect.
    pub config_errors: Vec<FileErrorView>,
    /// Warnings that a person must know and act on, in words: a full disk, a lost device.
    /// Shown on every page.
    pub warnings: Vec<String>,
    /// Failures among the things that the caller sees, by their harm. Shown on every page.
    #[serde(default)]
    pub problems: Vec<ProblemView>,
    /// Wall that keeps workers from what is the gateway's own; none where nothing does,
    /// which is a warning.
    #[serde(default)]
    pub isolation: Option<String>,
}

/// A model or a server that does not serve though it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemView {
    /// `deployment` or `server`, which fail; `waiting`: a deployment that requests wait
    /// for, and that has no room.
    pub kind: String,
    /// A deployment's id, or a server's address.
    pub name: String,
    /// The instance of the deployment, or the route of the server.
    pub of: String,
    /// Reason, in words.
    pub why: Option<String>,
    /// Start of the failure, in seconds since 1970, where that is known.
    pub since: Option<u64>,
}

/// One thing wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileErrorView {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: Option<usize>,
    /// Dotted key: `route.timeouts.idle`.
    pub key: String,
    /// The error, and the right thing to write.
    pub message: String,
    /// The text of that line as it stands in the file, cut to 200 characters.
    #[serde(default)]
    pub text: Option<String>,
}

/// `GET session`: who asks.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    /// `user:ana`.
    pub subject: String,
    /// Name that people gave the token.
    #[serde(default)]
    pub label: Option<String>,
    /// Maker of the one-time link that was opened.
    #[serde(default)]
    pub link_by: Option<String>,
    /// The tenant; none on the socket and of a one-time link.
    pub workspace: Option<String>,
    /// `operator`, `workspace-admin` or `admin`.
    pub role: String,
    /// Projects that an operator works on. An admin works on all.
    pub projects: Vec<String>,
    /// Way in which the caller came in: `session`, `token` or `socket`.
    pub via: String,
    /// Id of the session, as in `GET sessions`.
    pub id: Option<String>,
    /// End of the session, in seconds since 1970.
    pub expires: Option<u64>,
    /// Send it as `x-csrf-token` with every call that changes something; only
    /// a session has one, and only a session needs one.
    pub csrf: Option<String>,
}

/// `POST session`: one of the two.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// A token with the role `operator` or `admin`.
    #[serde(default)]
    pub token: Option<String>,
    /// The code of a one-time link.
    #[serde(default)]
    pub code: Option<String>,
}

/// `POST login-links`: a link that logs in once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoginLinkView {
    /// URL to open in a browser, once.
    pub url: String,
    /// End of the link, in seconds since 1970.
    pub expires: u64,
}

/// One session of `GET sessions`: one's own; an admin sees all.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionEntry {
    /// Its id.
    pub id: String,
    /// Person who logged in.
    pub subject: String,
    /// Name that people gave the token.
    #[serde(default)]
    pub label: Option<String>,
    /// Maker of the one-time link that was opened.
    #[serde(default)]
    pub link_by: Option<String>,
    /// Their tenant; none of a one-time link.
    pub workspace: Option<String>,
    /// Role of the person.
    pub role: String,
    /// True if it is the one that asks.
    pub current: bool,
    /// Start of the session, in seconds since 1970.
    pub created: u64,
    /// Last use, in seconds since 1970.
    pub last_used: u64,
    /// Latest end of the session, in seconds since 1970.
    pub expires: u64,
    /// Name that the browser gives itself, cut.
    pub agent: String,
    /// Address that the login came from.
    pub address: String,
}

/// One page of `GET audit`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The newest first.
    pub events: Vec<AuditView>,
    /// Ask for `audit?before=` this for older ones.
    pub next: Option<u64>,
}

/// A deed or a try, the person who did it, and the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Counts up.
    pub id: u64,
    /// Seconds since 1970.
    pub at: u64,
    /// `user:ana`, `admin socket`, or `-` for someone unknown.
    pub who: String,
    /// Their tenant; none on the socket, of a one-time link, and of someone unknown.
    pub workspace: Option<String>,
    /// `session`, `token`, `socket`, or `none`.
    pub via: String,
    /// Address of the client, where there is one.
    pub peer: Option<String>,
    /// Maker of the one-time link that they came by.
    #[serde(default)]
    pub link_by: Option<String>,
    /// `launch`, `change`, `delete`, `start`, `stop`, `offload`, `wake`, `clone`,
    /// `token.create`, `token.revoke`, `login`, `logout`, …
    pub action: String,
    /// Target of the deed: `instance:NAME`, `route:NAME`, `token:JTI`, …
    pub target: String,
    /// `done`, `refused` or `failed`.
    pub outcome: String,
    /// Reason for which it was refused or failed; the things that changed.
    pub detail: String,
    /// True if the file's text was kept: `GET audit/{id}/text`.
    #[serde(default)]
    pub has_text: bool,
}

/// `GET audit/{id}/text`: a file as it was before a change and after it, without its
/// secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditText {
    /// Target of the change: `instance:NAME`, `route:NAME`.
    pub target: String,
    /// Before; none of what was new.
    pub before: Option<String>,
    /// After; none of what was deleted.
    pub after: Option<String>,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorView {
    /// The error.
    pub error: ErrorText,
}

/// An error, in words for a person.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorText {
    /// The error, and the right thing to do.
    pub message: String,
}

/// The answer to `POST state/set-back-clock`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ClockView {
    /// Seconds by which the newest time was ahead of the wall clock.
    pub set_back_seconds: u64,
}
