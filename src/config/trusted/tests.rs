//! Keys and values that the tables of other issuers may have.

use std::path::Path;

use super::super::gateway::parse;
use super::*;

fn errors(text: &str) -> Vec<String> {
    let (_, errors) = parse(Path::new("tidegate.toml"), text.as_bytes());
    errors
        .iter()
        .map(|error| format!("{}: {}", error.key, error.message))
        .collect()
}

const GOOD: &str = r#"
[tokens]
previous_keys = ["old.key"]
[tokens.hs256]
issuer = "portal"
secret_file = "hs256.secret"
[[tokens.trusted]]
issuer = "https://idp.example.org"
audience = "tidegate"
jwks = "https://idp.example.org/jwks.json"
ca = "idp-ca.pem"
workspace_claim = "org"
projects = ["shared"]
projects_claim = "groups"
label_claim = "email"
role = "user"
[[tokens.trusted]]
issuer = "ci"
audience = "tidegate"
public_key = "ci.pem"
algorithm = "ES256"
workspace = "acme"
"#;

#[test]
fn issuers_and_secrets_are_read_with_paths_beside_the_file() {
    let (settings, errors) = parse(Path::new("/etc/tidegate/tidegate.toml"), GOOD.as_bytes());
    assert_eq!(errors, []);
    let sources = settings.tokens.key_sources();
    let path = |name: &str| Path::new("/etc/tidegate").join(name);
    assert_eq!(sources.previous_keys, Some(vec![path("old.key")]));
    assert_eq!(
        sources.shared_secret,
        Some(SharedSecret {
            issuer: "portal".to_owned(),
            kid: "hs256".to_owned(),
            role_max: Role::User,
            source: SecretSource::File(path("hs256.secret")),
        })
    );
    let [idp, ci] = &sources.trusted[..] else {
        panic!("{:?}", sources.trusted);
    };
    assert_eq!(
        idp.keys,
        TrustedKeys::JwksUrl {
            url: "https://idp.example.org/jwks.json".parse().unwrap(),
            ca: Some(path("idp-ca.pem")),
        }
    );
    assert_eq!(idp.terms.workspace, WorkspaceFrom::Claim("org".to_owned()));
    assert_eq!(idp.terms.projects, [Project::new("shared").unwrap()]);
    assert_eq!(idp.terms.projects_claim.as_deref(), Some("groups"));
    assert_eq!(idp.terms.label_claim.as_deref(), Some("email"));
    assert_eq!(
        ci.keys,
        TrustedKeys::PublicKey {
            file: path("ci.pem"),
            algorithm: Algorithm::Es256,
        }
    );
    let acme = Workspace::new("acme").unwrap();
    assert_eq!(ci.terms.workspace, WorkspaceFrom::Fixed(acme));
    assert!(ci.terms.projects.is_empty() && ci.terms.projects_claim.is_none());
    assert_eq!(ci.terms.label_claim, None);
}

#[test]
fn what_would_trust_too_much_or_nothing_is_an_error() {
    for (from, to, expected) in [
        (
            "workspace = \"acme\"",
            "",
            "tokens.trusted.workspace: this is missing",
        ),
        (
            "workspace = \"acme\"",
            "workspace = \"acme\"\nworkspace_claim = \"w\"",
            "not both",
        ),
        (
            "role = \"user\"",
            "role = \"admin\"",
            "tokens.trusted.role: write \"user\"",
        ),
        (
            "\"https://idp.example.org/jwks.json\"",
            "\"http://idp.example.org/\"",
            "write an https://",
        ),
        ("algorithm = \"ES256\"", "", "name the algorithm"),
        ("\"ES256\"", "\"HS256\"", "tokens.trusted.algorithm"),
        (
            "\"ES256\"",
            "\"ES256\"\nca = \"ca.pem\"",
            "https:// address",
        ),
        (
            "issuer = \"ci\"",
            "issuer = \"tidegate\"",
            "stands here twice",
        ),
        (
            "issuer = \"ci\"",
            "issuer = \"portal\"",
            "stands here twice",
        ),
        (
            "issuer = \"portal\"",
            "issuer = \"tidegate\"",
            "tokens.hs256.issuer",
        ),
        (
            "secret_file = \"hs256.secret\"",
            "",
            "tokens.hs256.secret_file: this is missing",
        ),
        ("secret_file", "secret_env = \"S\"\nsecret_file", "not both"),
        (
            "secret_file",
            "role_max = \"root\"\nsecret_file",
            "tokens.hs256.role_max",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let errors = errors(&GOOD.replacen(from, to, 1));
        assert!(
            errors.iter().any(|error| error.contains(expected)),
            "{from} -> {to}: {errors:?}"
        );
    }
}
