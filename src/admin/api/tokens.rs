//! Tokens: made, listed, revoked; and what they were used for.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::Admin;
use crate::admin::access::Caller;
use crate::admin::error::{Answer, ApiError, Code, on_disk};
use crate::admin::view::{
    CutOff, CutOffRequest, ErrorView, KeyRotated, LabelUse, TokenMade, TokenRequest, TokenRevoked,
    TokenUsage, TokenView, TokensView,
};
use crate::auth::keys::{Rotated, rotate};
use crate::auth::{Role, TokenRecord};
use crate::config::Catalog;
use crate::names::{Belonging, Project, Workspace};
use crate::store::refusals::Refused;

/// Records of one page.
const PAGE: usize = 200;

pub(super) fn router() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(usage))
        .routes(routes!(revoke))
        .routes(routes!(cut_off))
        .routes(routes!(rotate_key))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct TokensQuery {
    /// The tenant whose tokens are listed; all where it is left out.
    #[param(value_type = Option<String>)]
    workspace: Option<Workspace>,
    /// [`TokensView::next`] of the page before.
    before: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct UsageQuery {
    /// The tenant whose use is listed; all where it is left out.
    #[param(value_type = Option<String>)]
    workspace: Option<Workspace>,
    /// Most labels; default 200, at most 10,000.
    limit: Option<usize>,
}

/// Brings who was just seen into the store, so that they are listed. Where it can't be
/// written, what it has is listed.
fn note_seen(admin: &Admin) {
    if let Err(error) = admin.store.note_seen(admin.keys.verifier().holders()) {
        tracing::debug!(error = %error, "who showed tokens can't be kept now");
    }
}

/// True if a token is one that the caller rules; for an operator, one of their
/// workspace that they made, or could have made.
fn is_theirs(caller: &Caller, record: &TokenRecord) -> bool {
    let workspace = Some(&record.workspace);
    if caller.rules(workspace, record.role) {
        return true;
    }
    if caller.role != Role::Operator || caller.workspace() != workspace {
        return false;
    }
    let maker = record.created_by_workspace.as_ref();
    let made = record.created_by.as_deref();
    let own = |project| caller.projects.contains(project);
    made.is_some_and(|made| caller.is(maker, made))
        || record.role == Role::User
            && !record.projects.is_empty()
            && record.projects.iter().all(own)
}

/// Tokens that were issued, the newest first, and who showed tokens of other issuers,
/// with what they were used for. An operator sees those of their projects. A page may
/// be short and have a next one.
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(TokensQuery), responses(
    (status = 200, body = TokensView), (status = 401, body = ErrorView)))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<TokensQuery>,
) -> Answer<TokensView> {
    on_disk(move || {
        let store = &admin.store;
        note_seen(&admin);
        let page = store.tokens(query.workspace.as_ref(), query.before.as_deref(), PAGE)?;
        let mut records = page.records;
        records.retain(|record| is_theirs(&caller, record));
        let ids: Vec<&str> = records.iter().map(|record| record.jti.as_str()).collect();
        let used = store.usage_of(&ids)?;
        let now = admin.verifier.now();
        let tokens = records.into_iter().zip(used);
        let tokens = tokens.map(|(record, kept)| {
            let pending = admin.ledger.pending(&record.jti);
            let used = match kept {
                Some(kept) => Some(kept.plus(pending)),
                None => (pending.requests > 0).then_some(pending),
            };
            TokenView::new(record, used, now)
        });
        Ok(Json(TokensView {
            tokens: tokens.collect(),
            next: page.next,
        }))
    })
    .await?
}

/// Use by the label of the tokens that made it, also of those that other
/// issuers made. An operator sees those of their projects.
#[utoipa::path(get, path = "/tokens/usage", tag = "tokens", params(UsageQuery), responses(
    (status = 200, body = TokenUsage), (status = 401, body = ErrorView)))]
async fn usage(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<UsageQuery>,
) -> Answer<TokenUsage> {
    on_disk(move || {
        let store = &admin.store;
        note_seen(&admin);
        let counts = |record: Option<&TokenRecord>| match (record, &query.workspace) {
            (Some(record), Some(asked)) => *asked == record.workspace && is_theirs(&caller, record),
            (Some(record), None) => is_theirs(&caller, record),
            // No one can tell whose it was.
            (None, asked) => asked.is_none() && caller.is_admin(),
        };
        let mut uses = store.usage_by_owner(&admin.ledger.all_pending(), counts)?;
        let limit = query.limit.unwrap_or(PAGE).clamp(1, TokenUsage::LABELS_MAX);
        let left_out = uses.len().saturating_sub(limit);
        uses.truncate(limit);
        Ok(Json(TokenUsage {
            usage: uses.into_iter().map(LabelUse::from).collect(),
            left_out,
        }))
    })
    .await?
}

/// Make a token. It is shown this once.
#[utoipa::path(post, path = "/tokens", tag = "tokens", request_body = TokenRequest, responses(
    (status = 200, body = TokenMade), (status = 400, body = ErrorView),
    (status = 403, description = "More than the caller may give", body = ErrorView)))]
async fn create(
    State(admin): State<Admin>,
    caller: Caller,
    Json(request): Json<TokenRequest>,
) -> Answer<TokenMade> {
    if let Err(error) = may_give(&admin.catalog.load(), &caller, &request) {
        let target = format!("workspace:{}", request.workspace);
        admin
            .audit
            .refused(&caller, "token.create", &target, &error.message)
            .await;
        return Err(error);
    }
    let made = admin
        .issuer
        .issue(request.spec(), admin.revocations.clock().now())
        .map_err(|error| ApiError::bad(&error))?;
    let (token, mut record) = made;
    record.created_by = Some(caller.name.to_string());
    record.created_by_workspace = caller.workspace().cloned();
    let (store, kept) = (admin.store.clone(), record.clone());
    on_disk(move || store.put_token(&kept)).await??;
    let target = format!("token:{}", record.jti);
    let detail = format!(
        "{} of {} for {}{}",
        record.role.as_str(),
        record.workspace,
        record.subject,
        if record.may_load {
            ", may load models"
        } else {
            ""
        }
    );
    admin
        .audit
        .done(&caller, "token.create", &target, &detail)
        .await;
    Ok(Json(TokenMade { token, record }))
}

/// An operator gives out users of their own projects, and nothing beyond; an admin of
/// a workspace also operators and admins of it, for any project that is its own. A list
/// of endpoints alone would enter any project, so it takes a project too.
fn may_give(catalog: &Catalog, caller: &Caller, request: &TokenRequest) -> Result<(), ApiError> {
    if caller.is_admin() {
        return Ok(());
    }
    if request.may_load {
        return Err(ApiError::forbidden(&format!(
            "{} makes no tokens that load models, which could be of others too: ask an admin",
            person(caller)
        )));
    }
    if caller.workspace() != Some(&request.workspace) {
        return Err(ApiError::forbidden(&format!(
            "{} makes tokens of their own workspace only: ask an admin for others",
            person(caller)
        )));
    }
    let rules = caller.rules(caller.workspace(), request.role);
    if !rules && request.role != Role::User {
        return Err(ApiError::forbidden(&format!(
            "{} makes no tokens with the role {}: ask an admin for others",
            person(caller),
            request.role.as_str()
        )));
    }
    if request.projects.is_empty() && (!rules || !request.endpoints.is_empty()) {
        return Err(ApiError::forbidden(
            "name a project of yours: without one a token's endpoints could be of any project",
        ));
    }
    let own = |project: &Project| {
        caller.projects.contains(project) || (rules && !is_shared(catalog, project))
    };
    match request.projects.iter().find(|project| !own(project)) {
        None => Ok(()),
        Some(project) => Err(crate::admin::scope::not_yours(project)),
    }
}

fn person(caller: &Caller) -> &'static str {
    match caller.role {
        Role::WorkspaceAdmin => "an admin of a workspace",
        _ => "an operator",
    }
}

/// True if a token of any workspace enters something by this project. That is not an
/// admin's of one workspace to give away.
fn is_shared(catalog: &Catalog, project: &Project) -> bool {
    let shared = |of: Belonging<'_>| {
        of.workspace.is_none() && of.project.is_some_and(|name| name == project)
    };
    catalog.routes.iter().any(|route| shared(route.belonging()))
        || catalog
            .instances
            .iter()
            .any(|instance| shared(instance.belonging()))
}

/// Revoke a token: it is refused from its next request on.
#[utoipa::path(delete, path = "/tokens/{jti}", tag = "tokens",
    params(("jti" = String, Path, description = "Its id")), responses(
    (status = 200, body = TokenRevoked), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView)))]
async fn revoke(
    State(admin): State<Admin>,
    caller: Caller,
    Path(jti): Path<String>,
) -> Answer<TokenRevoked> {
    let target = format!("token:{jti}");
    let (store, id) = (admin.store.clone(), jti.clone());
    // An admin revokes whatever it is, also while the store can't be read.
    let theirs = caller.is_admin() || {
        let record = on_disk(move || store.token(&id)).await??;
        record.is_some_and(|record| is_theirs(&caller, &record))
    };
    if !theirs {
        let error = ApiError::forbidden("this is not a token of a project that you work on");
        admin
            .audit
            .refused(&caller, "token.revoke", &target, &error.message)
            .await;
        return Err(error);
    }
    let (store, id) = (admin.store.clone(), jti.clone());
    let now = admin.verifier.now();
    let refused = on_disk(move || store.revoke_token(&id, now)).await??;
    // Kept first, then in effect: a crash between the two forgets nothing.
    admin.revocations.add(&jti);
    let detail = held(refused);
    admin
        .audit
        .done(&caller, "token.revoke", &target, detail)
        .await;
    heard(refused)?;
    Ok(Json(TokenRevoked {
        revoked: jti,
        since: refused.moment,
        kept: refused.kept,
    }))
}

/// Words of the audit for a change that is in effect and not in the store yet.
fn held(refused: Refused) -> &'static str {
    if refused.kept {
        ""
    } else {
        "held in memory until the store can be written"
    }
}

/// An error where a change is in effect here, and a gateway that gave way to this one may
/// not hear of it.
fn heard(refused: Refused) -> Result<(), ApiError> {
    if refused.told {
        return Ok(());
    }
    Err(ApiError::new(
        Code::Internal,
        "this is refused here from now on, but a gateway that gave way to this one, and still ends its last requests, can't be told: make the state directory writable and ask again, or end that process",
    ))
}

/// Refuse every token of a tenant, or of one subject of it, that was issued up to
/// now: also those of other issuers. For an admin.
#[utoipa::path(post, path = "/tokens/cut-off", tag = "tokens", request_body = CutOffRequest,
    responses((status = 200, body = CutOff), (status = 400, body = ErrorView),
    (status = 403, body = ErrorView)))]
async fn cut_off(
    State(admin): State<Admin>,
    caller: Caller,
    Json(request): Json<CutOffRequest>,
) -> Answer<CutOff> {
    let CutOffRequest { workspace, subject } = request;
    let target = match &subject {
        Some(subject) => format!("workspace:{workspace} subject:{subject}"),
        None => format!("workspace:{workspace}"),
    };
    admins_only(&admin, &caller, "token.cut_off", &target).await?;
    let (store, whose, who) = (admin.store.clone(), workspace.clone(), subject.clone());
    let now = admin.verifier.now();
    let cut = move || store.cut_off(&whose, who.as_deref(), now);
    let refused = on_disk(cut).await??;
    let before = refused.moment;
    // Kept first, then in effect: a crash between the two forgets nothing.
    match &subject {
        Some(subject) => admin
            .revocations
            .cut_off_subject(&workspace, subject, before),
        None => admin.revocations.cut_off_workspace(&workspace, before),
    }
    admin
        .audit
        .done(&caller, "token.cut_off", &target, held(refused))
        .await;
    heard(refused)?;
    Ok(Json(CutOff {
        before,
        kept: refused.kept,
    }))
}

/// Sign with a new key from now on. Tokens of the old one stay valid until they end,
/// and both stand at `/.well-known/jwks.json`. For an admin.
#[utoipa::path(post, path = "/tokens/rotate-key", tag = "tokens", responses(
    (status = 200, body = KeyRotated), (status = 403, body = ErrorView),
    (status = 409, description = "The keys are kept by hand", body = ErrorView)))]
async fn rotate_key(State(admin): State<Admin>, caller: Caller) -> Answer<KeyRotated> {
    admins_only(&admin, &caller, "token.rotate_key", "key").await?;
    let tokens = &admin.settings.tokens;
    let previous = tokens
        .kept_keys()
        .map_err(|message| ApiError::conflict(message.to_owned()))?;
    let (signing, keys) = (
        tokens.signing_key.clone(),
        std::sync::Arc::clone(&admin.keys),
    );
    let turned = on_disk(move || {
        let rotated = rotate(&signing, &previous);
        // In effect at once, not only when the files are looked at again.
        let loaded = keys.reload();
        rotated.map(|rotated| (rotated, loaded))
    })
    .await?;
    let (rotated, loaded) = turned.map_err(|error| ApiError::internal(&error))?;
    loaded.map_err(|error| ApiError::internal(&error))?;
    admin
        .audit
        .done(&caller, "token.rotate_key", "key", &rotated.kid)
        .await;
    Ok(Json(KeyRotated::from(rotated)))
}

impl From<Rotated> for KeyRotated {
    fn from(rotated: Rotated) -> Self {
        Self {
            kid: rotated.kid,
            previous_kid: rotated.previous_kid,
            previous_file: rotated.previous.display().to_string(),
            dropped: rotated.dropped,
        }
    }
}

async fn admins_only(
    admin: &Admin,
    caller: &Caller,
    action: &'static str,
    target: &str,
) -> Result<(), ApiError> {
    if caller.is_admin() {
        return Ok(());
    }
    let error =
        ApiError::forbidden("this reaches beyond the projects of an operator: ask an admin");
    admin
        .audit
        .refused(caller, action, target, &error.message)
        .await;
    Err(error)
}
