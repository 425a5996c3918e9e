//! The bounds of what a token may hold.

use serde_json::json;

use super::*;

type Change = fn(&mut TokenSpec);

const NOW: Duration = Duration::from_secs(1_800_000_001);

/// Issues the least token, changed by `change`.
fn issue(change: impl FnOnce(&mut TokenSpec)) -> Result<(String, TokenRecord), IssueError> {
    let mut spec = TokenSpec {
        workspace: Workspace::new("acme").unwrap(),
        subject: None,
        role: Role::User,
        projects: Vec::new(),
        endpoints: Vec::new(),
        label: None,
        ttl: Duration::from_secs(1),
        metadata: None,
        limits: TokenLimits::default(),
        may_load: false,
    };
    change(&mut spec);
    Issuer::new(SigningKey::ephemeral().unwrap(), "tidegate", "here").issue(spec, NOW)
}

fn metadata_of(bytes: usize) -> Value {
    json!({ "k": "x".repeat(bytes - r#"{"k":""}"#.len()) })
}

fn projects(count: usize) -> Vec<Project> {
    (0..count)
        .map(|n| Project::new(&format!("p{n}")).unwrap())
        .collect()
}

fn patterns(text: &str, count: usize) -> Vec<Pattern> {
    vec![Pattern::new(text).unwrap(); count]
}

#[test]
fn a_token_at_its_bounds_is_issued() {
    let cases: [Change; 6] = [
        |spec| spec.ttl = TTL_MAX,
        |spec| spec.label = Some("é".repeat(LABEL_CHARS_MAX)),
        |spec| spec.subject = Some("s".repeat(SUBJECT_CHARS_MAX)),
        |spec| spec.metadata = Some(metadata_of(METADATA_BYTES_MAX)),
        |spec| spec.projects = projects(PROJECTS_MAX),
        |spec| spec.endpoints = patterns("*", ENDPOINTS_MAX),
    ];
    for change in cases {
        let (token, _) = issue(change).unwrap();
        assert!(token.len() <= TOKEN_BYTES_MAX, "{}", token.len());
    }
}

#[test]
fn a_token_out_of_bounds_is_refused_with_the_reason() {
    let cases: [(Change, IssueError); 12] = [
        (|spec| spec.ttl = Duration::ZERO, IssueError::Ttl),
        (
            |spec| spec.ttl = TTL_MAX + Duration::from_secs(1),
            IssueError::Ttl,
        ),
        (|spec| spec.label = Some("x".repeat(201)), IssueError::Label),
        (
            |spec| spec.label = Some("a\u{7}".to_owned()),
            IssueError::Label,
        ),
        (|spec| spec.label = Some(String::new()), IssueError::Label),
        (
            |spec| spec.subject = Some("a b".to_owned()),
            IssueError::Subject,
        ),
        (
            |spec| spec.metadata = Some(json!([1])),
            IssueError::MetadataShape,
        ),
        (
            |spec| spec.metadata = Some(metadata_of(1025)),
            IssueError::MetadataSize(1025),
        ),
        (
            |spec| spec.projects = projects(65),
            IssueError::Projects(65),
        ),
        (
            |spec| spec.endpoints = patterns("*", 257),
            IssueError::Endpoints(257),
        ),
        (
            |spec| spec.limits.conc = Some(0),
            IssueError::ZeroLimit("conc"),
        ),
        (
            |spec| {
                spec.endpoints = patterns("*", 1);
                spec.role = Role::Admin;
            },
            IssueError::EndpointRole,
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(issue(change).unwrap_err(), expected);
    }
    let too_large = issue(|spec| spec.endpoints = patterns(&"m".repeat(200), 20)).unwrap_err();
    assert!(matches!(too_large, IssueError::TokenSize(n) if n > TOKEN_BYTES_MAX));
}

#[test]
fn a_record_does_not_hold_the_token() {
    let (token, record) = issue(|_| {}).unwrap();
    let signature = token.rsplit('.').next().unwrap();
    assert!(!serde_json::to_string(&record).unwrap().contains(signature));
    assert_eq!(record.subject, format!("token:{}", record.jti));
}
