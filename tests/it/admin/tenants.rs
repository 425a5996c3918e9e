//! Two tenants with equal names: who reaches what, role by role and call by call.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::bench::{Gate, instance, json_of};

const NOTHING: String = String::new();

/// Instances with the workspace and project that they belong to.
const TARGETS: [(&str, Option<&str>, Option<&str>); 6] = [
    ("shared", None, Some("research")),
    ("shared-hidden", None, Some("hidden")),
    ("acme-own", Some("acme"), Some("research")),
    ("acme-hidden", Some("acme"), Some("hidden")),
    ("acme-bare", Some("acme"), None),
    ("other-own", Some("other"), Some("research")),
];

/// Callers by workspace and role, each with the project `research`; all of one name.
const CALLERS: [(&str, &str); 7] = [
    ("acme", "user"),
    ("acme", "operator"),
    ("acme", "workspace-admin"),
    ("other", "user"),
    ("other", "operator"),
    ("other", "workspace-admin"),
    ("acme", "admin"),
];

fn file(name: &str, workspace: Option<&str>, project: Option<&str>) -> String {
    let text = instance(name, project.unwrap_or("none"));
    let text = match project {
        Some(_) => text,
        None => text.replace("project = \"none\"\n", ""),
    };
    match workspace {
        Some(workspace) => text.replacen(
            "[instance]\n",
            &format!("[instance]\nworkspace = \"{workspace}\"\n"),
            1,
        ),
        None => text,
    }
}

async fn gate() -> Gate {
    let names: Vec<String> = TARGETS.iter().map(|t| format!("{}.toml", t.0)).collect();
    let files = TARGETS.iter().zip(&names);
    let files: Vec<(&str, String)> = files
        .map(|((name, workspace, project), path)| (path.as_str(), file(name, *workspace, *project)))
        .collect();
    Gate::with_files(&files).await
}

/// Rights to work on targets, written out: callers as in [`CALLERS`], targets as in [`TARGETS`].
fn works_on(caller: (&str, &str), target: &str) -> bool {
    let own: &[&str] = match caller {
        ("acme", "operator") => &["shared", "acme-own"],
        ("acme", "workspace-admin") => &["shared", "acme-own", "acme-hidden", "acme-bare"],
        ("other", "operator" | "workspace-admin") => &["shared", "other-own"],
        (_, "admin") => return true,
        _ => &[],
    };
    own.contains(&target)
}

/// Rights to send requests to targets.
fn uses(caller: (&str, &str), target: &str) -> bool {
    match caller {
        ("acme", "user") => ["shared", "acme-own"].contains(&target),
        ("other", "user") => ["shared", "other-own"].contains(&target),
        _ => works_on(caller, target),
    }
}

fn strings(list: &Value, key: &str) -> BTreeSet<String> {
    let all = list.as_array().unwrap().iter();
    all.filter_map(|entry| entry[key].as_str().map(str::to_owned))
        .collect()
}

/// Calls that reach for one instance, or its route.
fn calls(target: &str, text: String) -> Vec<(Method, String, String)> {
    let (get, post) = (Method::GET, Method::POST);
    let of = |end: &str| format!("instances/{target}{end}");
    let series = format!("series?scope=route:{target}&metric=requests");
    let marks = format!("marks?scope=instance:{target}");
    vec![
        (get.clone(), of(""), NOTHING),
        (get.clone(), of("/events"), NOTHING),
        (get.clone(), of("/export"), NOTHING),
        (get.clone(), of("/explain"), NOTHING),
        (get.clone(), of("/logs?tail=1"), NOTHING),
        (get.clone(), of("/series?metric=requests"), NOTHING),
        (Method::PUT, of("?dry_run=1"), text),
        (post.clone(), of("/offload"), NOTHING),
        (get.clone(), series, NOTHING),
        (get, marks, NOTHING),
        (post, format!("routes/{target}/test"), "{}".to_owned()),
    ]
}

#[tokio::test]
async fn each_role_of_each_workspace_reaches_its_own_with_every_call() {
    let gate = gate().await;
    let mut tried = 0;
    for caller in CALLERS {
        let token = gate
            .token_of(caller.0, "user:ana", caller.1, &["research"])
            .await;
        for (target, workspace, project) in TARGETS {
            let calls = calls(target, file(target, workspace, project));
            for (method, path, body) in calls {
                let answer = gate.with(&token, method.clone(), &path, body).await;
                let may = answer.status() != StatusCode::FORBIDDEN;
                assert_eq!(
                    may,
                    works_on(caller, target),
                    "{caller:?} {method} {path}: {} {:?}",
                    answer.status(),
                    answer.body()
                );
                tried += 1;
            }
        }
        let expected = |who: fn((&str, &str), &str) -> bool| -> BTreeSet<String> {
            let targets = TARGETS.iter().map(|target| target.0);
            targets
                .filter(|target| who(caller, target))
                .map(str::to_owned)
                .collect()
        };
        let listed = gate.ask_models(&token).await;
        let models = expected(uses)
            .into_iter()
            .map(|name| format!("{name}-model"));
        assert_eq!(
            strings(&listed["data"], "id"),
            models.collect(),
            "{caller:?}"
        );
        if caller.1 == "user" {
            continue;
        }
        for (path, key) in [
            ("instances", "name"),
            ("routes", "name"),
            ("endpoints", "route"),
        ] {
            let listed = gate.with(&token, Method::GET, path, NOTHING).await;
            assert_eq!(
                strings(&json_of(&listed), key),
                expected(works_on),
                "{caller:?} {path}"
            );
        }
    }
    assert_eq!(tried, CALLERS.len() * TARGETS.len() * 11);
}

/// Belongings of an operator `user:ana` in each of two workspaces: workspace and token; ids of
/// a token that they made, of their session, and of their link to a plot.
type Tenant = (&'static str, String, String, String, String);

/// Two of them, and the id of a token of `acme` that an admin of their name made.
async fn tenants(gate: &Gate) -> (Vec<Tenant>, String) {
    let mut known = Vec::new();
    for workspace in ["acme", "other"] {
        let token = gate
            .token_of(workspace, "user:ana", "operator", &["research"])
            .await;
        let (cookie, csrf) = gate.log_in(&token).await;
        let asked = json!({"workspace": workspace, "projects": ["research"], "ttl": "1h",
            "label": "nightly", "subject": "user:bob"});
        let made = gate
            .with(&token, Method::POST, "tokens", asked.to_string())
            .await;
        assert_eq!(made.status(), StatusCode::OK, "{:?}", made.body());
        let jti = json_of(&made)["record"]["jti"].as_str().unwrap().to_owned();
        let embed = json!({"scope": "host", "metrics": ["cpu"]}).to_string();
        let made = gate.with(&token, Method::POST, "embeds", embed).await;
        let embed = json_of(&made)["id"].as_str().unwrap().to_owned();
        let session = [("cookie", cookie.as_str()), ("x-csrf-token", csrf.as_str())];
        let shown = gate.https(Method::GET, "session", &session, NOTHING).await;
        let session = json_of(&shown)["id"].as_str().unwrap().to_owned();
        known.push((workspace, token, jti, session, embed));
    }
    // Made by one who has the name of an operator of another tenant.
    let admin = gate.token_of("other", "user:ana", "admin", &[]).await;
    let asked = json!({"workspace": "acme", "projects": ["hidden"], "ttl": "1h"}).to_string();
    let made = gate.with(&admin, Method::POST, "tokens", asked).await;
    let by_admin = json_of(&made)["record"]["jti"].as_str().unwrap().to_owned();
    (known, by_admin)
}

#[tokio::test]
async fn tokens_sessions_and_deeds_of_two_tenants_of_equal_names_are_disjoint() {
    let gate = gate().await;
    let (known, by_admin) = tenants(&gate).await;
    for (at, (workspace, token, jti, session, embed)) in known.iter().enumerate() {
        let (_, _, their_jti, their_session, their_embed) = &known[1 - at];
        let page = json_of(&gate.with(token, Method::GET, "tokens", NOTHING).await);
        assert_eq!(
            strings(&page["tokens"], "workspace"),
            [(*workspace).to_owned()].into()
        );
        assert!(strings(&page["tokens"], "jti").contains(jti));
        assert!(
            !strings(&page["tokens"], "jti").contains(&by_admin),
            "{workspace}"
        );
        let sessions = json_of(&gate.with(token, Method::GET, "sessions", NOTHING).await);
        assert_eq!(strings(&sessions, "id"), [session.clone()].into());
        let embeds = json_of(&gate.with(token, Method::GET, "embeds", NOTHING).await);
        assert_eq!(strings(&embeds, "id"), [embed.clone()].into());
        let audit = json_of(&gate.with(token, Method::GET, "audit", NOTHING).await);
        assert_eq!(
            strings(&audit["events"], "workspace"),
            [(*workspace).to_owned()].into()
        );
        for (path, refused) in [
            (format!("tokens/{their_jti}"), StatusCode::FORBIDDEN),
            (format!("tokens/{by_admin}"), StatusCode::FORBIDDEN),
            (format!("sessions/{their_session}"), StatusCode::NOT_FOUND),
            (format!("embeds/{their_embed}"), StatusCode::FORBIDDEN),
        ] {
            let answer = gate.with(token, Method::DELETE, &path, NOTHING).await;
            assert_eq!(answer.status(), refused, "{workspace} {path}");
        }
    }
}

#[tokio::test]
async fn an_admin_of_a_workspace_ends_what_is_its_and_nothing_of_another_or_above() {
    let gate = gate().await;
    let (known, by_admin) = tenants(&gate).await;
    let ruler = gate
        .token_of("acme", "user:eve", "workspace-admin", &[])
        .await;
    // An admin of a workspace reaches all of it, and none of the other, nor who is above.
    let (_, _, jti, session, embed) = &known[0];
    let (_, _, their_jti, their_session, their_embed) = &known[1];
    let above = gate
        .log_in(&gate.token_of("acme", "user:root", "admin", &[]).await)
        .await;
    let above = gate
        .https(Method::GET, "session", &[("cookie", &above.0)], NOTHING)
        .await;
    let above = json_of(&above)["id"].as_str().unwrap().to_owned();
    for (path, status) in [
        (format!("tokens/{their_jti}"), StatusCode::FORBIDDEN),
        (format!("sessions/{their_session}"), StatusCode::NOT_FOUND),
        (format!("sessions/{above}"), StatusCode::NOT_FOUND),
        (format!("embeds/{their_embed}"), StatusCode::FORBIDDEN),
        (format!("tokens/{jti}"), StatusCode::OK),
        (format!("tokens/{by_admin}"), StatusCode::OK),
        (format!("sessions/{session}"), StatusCode::NO_CONTENT),
        (format!("embeds/{embed}"), StatusCode::NO_CONTENT),
    ] {
        let answer = gate.with(&ruler, Method::DELETE, &path, NOTHING).await;
        assert_eq!(answer.status(), status, "{path}: {:?}", answer.body());
    }
}

#[tokio::test]
async fn a_link_ends_with_the_right_of_who_made_it() {
    let gate = gate().await;
    let link = async |token: &str| {
        let asked = json!({"scope": "instance:acme-own", "metrics": ["requests"], "ttl": "30d"});
        let made = gate
            .with(token, Method::POST, "embeds", asked.to_string())
            .await;
        assert_eq!(made.status(), StatusCode::OK, "{:?}", made.body());
        let made = json_of(&made);
        let page = made["page_url"]
            .as_str()
            .unwrap()
            .split_once("/embed/")
            .unwrap()
            .1
            .to_owned();
        let lives = made["expires"].as_u64().unwrap() - made["created"].as_u64().unwrap();
        assert!(lives <= 3_600, "not longer than its maker's token: {lives}");
        format!("/embed/{page}/data.json")
    };
    let shown = async |path: &str| gate.https(Method::GET, path, &[], NOTHING).await.status();
    let operator = gate
        .token_of("acme", "user:ana", "operator", &["research"])
        .await;
    let ruler = gate
        .token_of("acme", "user:eve", "workspace-admin", &[])
        .await;
    let (hers, eves) = (link(&operator).await, link(&ruler).await);
    assert_eq!(shown(&hers).await, StatusCode::OK);
    // The instance goes to another project, which hers is not.
    let moved = file("acme-own", Some("acme"), Some("hidden"));
    let put = gate
        .with(&ruler, Method::PUT, "instances/acme-own", moved)
        .await;
    assert_eq!(put.status(), StatusCode::OK, "{:?}", put.body());
    assert_eq!(shown(&hers).await, StatusCode::NOT_FOUND);
    assert_eq!(shown(&eves).await, StatusCode::OK);
    let cut = json!({"workspace": "acme", "subject": "user:eve"});
    gate.socket(Method::POST, "tokens/cut-off", cut).await;
    assert_eq!(shown(&eves).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn whoever_is_of_a_workspace_launches_and_gives_away_within_it() {
    let gate = gate().await;
    let operator = gate
        .token_of("acme", "user:ana", "operator", &["research"])
        .await;
    let ruler = gate
        .token_of("acme", "user:eve", "workspace-admin", &[])
        .await;
    let theirs = gate
        .token_of("other", "user:ana", "operator", &["research"])
        .await;
    // A file that names no workspace is the launcher's, and keeps its comments.
    let text = format!("# mine\n{}", instance("mine", "research"));
    for _ in 0..2 {
        let made = gate
            .with(&operator, Method::POST, "instances", text.clone())
            .await;
        assert_eq!(made.status(), StatusCode::OK, "{:?}", made.body());
    }
    let written = std::fs::read_to_string(gate.dir.path().join("routes.d/mine.toml")).unwrap();
    assert!(written.starts_with("# mine\n[instance]\n"), "{written}");
    assert!(written.contains("\nworkspace = \"acme\"\n"), "{written}");
    let put = gate
        .with(&operator, Method::PUT, "instances/mine", text.clone())
        .await;
    assert_eq!(put.status(), StatusCode::OK, "{:?}", put.body());
    let other = gate
        .with(&theirs, Method::GET, "instances/mine", NOTHING)
        .await;
    assert_eq!(other.status(), StatusCode::FORBIDDEN);
    for (who, body, status) in [
        (
            &theirs,
            file("mine", Some("other"), Some("research")),
            StatusCode::FORBIDDEN,
        ),
        (
            &operator,
            file("new", Some("other"), Some("research")),
            StatusCode::FORBIDDEN,
        ),
        (
            &operator,
            file("new", None, Some("hidden")),
            StatusCode::FORBIDDEN,
        ),
        (&ruler, file("new", None, Some("hidden")), StatusCode::OK),
        (&ruler, file("bare", None, None), StatusCode::OK),
    ] {
        let answer = gate
            .with(who, Method::POST, "instances", body.clone())
            .await;
        assert_eq!(answer.status(), status, "{body}: {:?}", answer.body());
    }
}

#[tokio::test]
async fn what_all_share_an_admin_of_a_workspace_does_not_give_away() {
    let gate = gate().await;
    let ruler = gate
        .token_of("acme", "user:eve", "workspace-admin", &[])
        .await;
    for (body, status) in [
        (
            json!({"workspace": "acme", "role": "user", "projects": ["private"]}),
            StatusCode::OK,
        ),
        (
            json!({"workspace": "acme", "role": "operator", "projects": ["private"]}),
            StatusCode::OK,
        ),
        (
            json!({"workspace": "acme", "role": "workspace-admin"}),
            StatusCode::OK,
        ),
        (
            json!({"workspace": "acme", "role": "admin"}),
            StatusCode::FORBIDDEN,
        ),
        (
            json!({"workspace": "other", "role": "user", "projects": ["private"]}),
            StatusCode::FORBIDDEN,
        ),
        (
            json!({"workspace": "acme", "role": "user", "projects": ["research"]}),
            StatusCode::FORBIDDEN,
        ),
        (
            json!({"workspace": "acme", "role": "user", "endpoints": ["shared"]}),
            StatusCode::FORBIDDEN,
        ),
    ] {
        let mut asked = body.clone();
        asked["ttl"] = json!("1h");
        let answer = gate
            .with(&ruler, Method::POST, "tokens", asked.to_string())
            .await;
        assert_eq!(answer.status(), status, "{body}: {:?}", answer.body());
    }
    for path in ["tokens/cut-off", "tokens/rotate-key", "login-links"] {
        let body = json!({"workspace": "acme"}).to_string();
        let answer = gate.with(&ruler, Method::POST, path, body).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
    }
}
