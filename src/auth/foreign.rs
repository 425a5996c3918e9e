//! Tokens of other issuers: what an OIDC provider says, as a [`Principal`] here.
//!
//! The workspace and projects that such a token stands for are decided by the settings
//! of its issuer; its role is always the least, as only our own tokens give more.
//! A claim that the settings name and that is missing, or of another type, makes
//! the token invalid or gives nothing; it never gives more.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::claims::{Role, TokenKind, TokenLimits};
use super::principal::Principal;
use super::token::{KID_BYTES_MAX, PROJECTS_MAX, hash8, is_id, is_label};
use crate::names::{Project, Workspace};

/// Source of the workspace of an issuer's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkspaceFrom {
    /// All of them belong to this one.
    Fixed(Workspace),
    /// This claim names it; without it a token is not valid.
    Claim(String),
}

/// Terms of an issuer: what its tokens must say, and what they are worth here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The `iss` claim, letter by letter.
    pub issuer: Arc<str>,
    /// Text that the `aud` claim is, or has among its texts.
    pub audience: Arc<str>,
    /// The tenant.
    pub workspace: WorkspaceFrom,
    /// Projects that every token of this issuer may read.
    pub projects: Vec<Project>,
    /// A claim with further projects, a text or a list of texts. What is no
    /// project's name is passed over, as is a claim that is absent.
    pub projects_claim: Option<String>,
    /// A claim with a name for people, as `email`. Where it is no short text, there is
    /// none.
    pub label_claim: Option<String>,
}

/// Header fields that would change what a signature means, or bring a key along.
const REFUSED_FIELDS: [&str; 7] = ["crit", "b64", "zip", "jku", "jwk", "x5u", "x5c"];

/// `typ` of tokens that are not ours; absent is good too.
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// Header that is not trusted yet.
#[derive(Debug)]
pub(super) struct ForeignHeader {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
}

impl ForeignHeader {
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let Object(fields) = serde_json::from_slice(json).ok()?;
        if REFUSED_FIELDS
            .iter()
            .any(|field| fields.contains_key(*field))
        {
            return None;
        }
        if let Some(typ) = fields.get("typ") {
            let typ = typ.as_str()?;
            TYPES.iter().find(|known| typ.eq_ignore_ascii_case(known))?;
        }
        let alg = fields.get("alg")?.as_str()?.to_owned();
        let kid = match fields.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str()?.to_owned()),
        };
        let short = kid.as_ref().is_none_or(|kid| kid.len() <= KID_BYTES_MAX);
        short.then_some(Self { alg, kid })
    }
}

/// The claims of a token, without a repeated one at the top.
pub(super) fn claims(json: &[u8]) -> Option<Map<String, Value>> {
    let Object(claims) = serde_json::from_slice(json).ok()?;
    Some(claims)
}

/// Principal of a token by these terms, and from when on it is valid, where it says so. Its
/// signature is right; its times and revocation are not looked at.
pub(super) fn principal(
    terms: &Terms,
    claims: &Map<String, Value>,
    token: &str,
) -> Option<(Principal, Option<u64>)> {
    let text = |name: &str| claims.get(name)?.as_str();
    let is_for_us = match claims.get("aud")? {
        Value::String(audience) => **audience == *terms.audience,
        Value::Array(all) => {
            all.iter().all(Value::is_string)
                && all.iter().any(|one| one.as_str() == Some(&terms.audience))
        }
        _ => false,
    };
    let subject = text("sub").filter(|subject| is_id(subject))?;
    if text("iss")? != &*terms.issuer || !is_for_us {
        return None;
    }
    let (workspace, named) = match &terms.workspace {
        WorkspaceFrom::Fixed(workspace) => (workspace.clone(), None),
        WorkspaceFrom::Claim(name) => {
            let named = text(name)?;
            (Workspace::new(named).ok()?, Some(named))
        }
    };
    let issued_at = optional_moment(claims, "iat")?;
    let not_before = optional_moment(claims, "nbf")?;
    let principal = Principal {
        workspace,
        subject: Arc::from(subject),
        token_id: token_id(&terms.issuer, named, subject),
        kind: TokenKind::User,
        role: Role::User,
        projects: projects(terms, claims)?,
        endpoints: Vec::new(),
        limits: TokenLimits::default(),
        may_load: false,
        label: label(terms, claims),
        metadata: None,
        issued_at: issued_at.unwrap_or(0),
        expires_at: moment(claims.get("exp")?)?,
        issuer: Arc::clone(&terms.issuer),
        hash8: hash8(token),
    };
    Some((principal, not_before))
}

/// Stands for all tokens of one subject of one issuer, in the workspace that they name
/// if they do. They live for minutes, so limits, usage and revocations by token id go
/// by who holds them; and an id that the issuer chose could be one of ours.
fn token_id(issuer: &str, workspace: Option<&str>, subject: &str) -> Arc<str> {
    let mut context = Context::new(&SHA256);
    context.update(issuer.as_bytes());
    context.update(&[0]);
    // Neither a name nor a subject has a zero byte in it.
    if let Some(workspace) = workspace {
        context.update(workspace.as_bytes());
        context.update(&[0]);
    }
    context.update(subject.as_bytes());
    let hash = context.finish();
    let half = hash.as_ref().get(..16).unwrap_or_default();
    Arc::from(format!("sub-{}", URL_SAFE_NO_PAD.encode(half)))
}

/// The name for people that a token brings along.
fn label(terms: &Terms, claims: &Map<String, Value>) -> Option<Arc<str>> {
    let label = claims.get(terms.label_claim.as_ref()?)?.as_str()?;
    is_label(label).then(|| Arc::from(label))
}

/// `None` when the claim is neither a text nor a list of texts.
fn projects(terms: &Terms, claims: &Map<String, Value>) -> Option<Vec<Project>> {
    let claimed = match terms
        .projects_claim
        .as_ref()
        .and_then(|name| claims.get(name))
    {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(all)) => all.iter().map(Value::as_str).collect::<Option<_>>()?,
        Some(_) => return None,
    };
    // Keycloak writes a group as a path.
    let named = claimed
        .into_iter()
        .filter_map(|name| Project::new(name.strip_prefix('/').unwrap_or(name)).ok());
    let mut seen = HashSet::new();
    let all = terms.projects.iter().cloned().chain(named);
    let projects: Vec<_> = all.filter(|project| seen.insert(project.clone())).collect();
    (projects.len() <= PROJECTS_MAX + terms.projects.len()).then_some(projects)
}

/// An absent moment is `Some(None)`; one that is none is `None`.
#[expect(
    clippy::option_option,
    reason = "the outer is the verdict, the inner the claim"
)]
fn optional_moment(claims: &Map<String, Value>, name: &str) -> Option<Option<u64>> {
    claims
        .get(name)
        .map_or(Some(None), |value| moment(value).map(Some))
}

/// Seconds since 1970; RFC 7519 allows a fraction.
fn moment(value: &Value) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within bounds"
    )]
    let whole = |seconds: f64| (0.0..1e15).contains(&seconds).then_some(seconds as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}

/// A JSON object in which no key stands twice.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Map::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if object.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key stands twice"));
                    }
                }
                Ok(Object(object))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
