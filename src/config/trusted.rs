//! `[[tokens.trusted]]` and `[tokens.hs256]`: others whose tokens are accepted.

use std::path::PathBuf;
use std::sync::Arc;

use super::reader::{Found, Reader};
use crate::auth::foreign::{Terms, WorkspaceFrom};
use crate::auth::keeper::{SecretSource, SharedSecret, TrustedIssuer, TrustedKeys};
use crate::auth::{Algorithm, Role};
use crate::names::{Project, Workspace};

/// The key id of tokens signed with a shared secret, unless the settings say another.
const HS256_KID: &str = "hs256";

/// Reads one trusted issuer; `None` when something was wrong and noted.
pub(super) fn read(mut table: Reader<'_>) -> Option<TrustedIssuer> {
    let issuer = table.required_words("issuer");
    let audience = table.required_words("audience");
    let keys = keys(&mut table);
    let workspace = workspace(&mut table);
    let projects = table.parsed_list::<Project>("projects");
    let projects_claim = table.words("projects_claim");
    let label_claim = table.words("label_claim");
    if let Some(role) = table.text("role")
        && role.value != "user"
    {
        let message = "write \"user\", or leave the key out: tokens for operators and admins are \
                       issued by tidegate itself";
        table.wrong(role.line, "role", message);
    }
    table.finish();
    Some(TrustedIssuer {
        terms: Terms {
            issuer: Arc::from(issuer?.value),
            audience: Arc::from(audience?.value),
            workspace: workspace?,
            projects: projects.map(|list| list.value).unwrap_or_default(),
            projects_claim: projects_claim.map(|claim| claim.value),
            label_claim: label_claim.map(|claim| claim.value),
        },
        keys: keys?,
    })
}

fn workspace(table: &mut Reader<'_>) -> Option<WorkspaceFrom> {
    let fixed = table.parsed::<Workspace>("workspace");
    let claim = table.words("workspace_claim");
    match (fixed, claim) {
        (Some(fixed), None) => Some(WorkspaceFrom::Fixed(fixed.value)),
        (None, Some(claim)) => Some(WorkspaceFrom::Claim(claim.value)),
        (Some(_), Some(claim)) => {
            let message = "write workspace or workspace_claim, not both";
            table.wrong(claim.line, "workspace_claim", message);
            None
        }
        (None, None) => {
            table.missing(
                "workspace",
                "the workspace of this issuer's tokens, or workspace_claim",
            );
            None
        }
    }
}

fn keys(table: &mut Reader<'_>) -> Option<TrustedKeys> {
    let jwks = table.words("jwks");
    let public_key = table.words("public_key");
    let algorithm = table.choice("algorithm", &Algorithm::PUBLIC);
    let ca = table.words("ca");
    if let Some(algorithm) = &algorithm
        && public_key.is_none()
    {
        let message = "this goes with public_key only: the keys of a JWKS name theirs";
        table.wrong(algorithm.line, "algorithm", message);
    }
    let is_https = |jwks: &Found<String>| jwks.value.starts_with("https://");
    if let Some(ca) = &ca
        && !jwks.as_ref().is_some_and(is_https)
    {
        let message = "this goes with an https:// address in jwks only";
        table.wrong(ca.line, "ca", message);
    }
    match (jwks, public_key) {
        (Some(jwks), None) if jwks.value.contains("://") => match jwks.value.parse() {
            Ok(url) => Some(TrustedKeys::JwksUrl {
                url,
                ca: ca.map(|ca| PathBuf::from(ca.value)),
            }),
            Err(error) => {
                let message = format!("{error}, or the path of a file");
                table.wrong(jwks.line, "jwks", message);
                None
            }
        },
        (Some(jwks), None) => Some(TrustedKeys::JwksFile(PathBuf::from(jwks.value))),
        (None, Some(file)) => {
            if algorithm.is_none() {
                let message = "this is missing: name the algorithm of the public key, as \"EdDSA\"";
                table.wrong(file.line, "algorithm", message);
            }
            algorithm.map(|algorithm| TrustedKeys::PublicKey {
                file: PathBuf::from(file.value),
                algorithm: algorithm.value,
            })
        }
        (Some(jwks), Some(_)) => {
            table.wrong(jwks.line, "jwks", "write jwks or public_key, not both");
            None
        }
        (None, None) => {
            let message = "this is missing: write jwks or public_key";
            table.wrong(table.line, "jwks", message);
            None
        }
    }
}

/// Reads `[tokens.hs256]`; `None` when something was wrong and noted.
pub(super) fn read_hs256(mut table: Reader<'_>) -> Option<SharedSecret> {
    let issuer = table.required_words("issuer");
    let kid = table.words("kid");
    let roles = Role::ALL.map(|role| (role.as_str(), role));
    let role = table.choice("role_max", &roles);
    let file = table.words("secret_file");
    let env = table.words("secret_env");
    let source = match (file, env) {
        (Some(file), None) => Some(SecretSource::File(PathBuf::from(file.value))),
        (None, Some(env)) => Some(SecretSource::Env(env.value)),
        (Some(_), Some(env)) => {
            let message = "write secret_file or secret_env, not both";
            table.wrong(env.line, "secret_env", message);
            None
        }
        (None, None) => {
            table.missing("secret_file", "the path of a file, or secret_env");
            None
        }
    };
    table.finish();
    Some(SharedSecret {
        issuer: issuer?.value,
        kid: kid.map_or_else(|| HS256_KID.to_owned(), |kid| kid.value),
        role_max: role.map_or(Role::User, |role| role.value),
        source: source?,
    })
}

#[cfg(test)]
mod tests;
