//! A dashboard for Grafana, and alert rules for Prometheus, made of the names of
//! our metrics: a query of a name that is not ours can't be written here.

use serde_json::{Value, json};

use super::metrics::names as n;

/// A panel: heading, unit, and queries with their legends.
struct Panel {
    title: &'static str,
    unit: &'static str,
    queries: Vec<(String, &'static str)>,
}

/// The selector of what the viewer chose.
const CHOSEN: &str = "route=~\"$route\",deployment=~\"$deployment\"";

const DEPLOYMENT: &str = "deployment=~\"$deployment\"";
const OF_DEPLOYMENT: &str = "{{deployment}}";

impl Panel {
    fn new(title: &'static str, unit: &'static str, query: String, legend: &'static str) -> Self {
        Self {
            title,
            unit,
            queries: vec![(query, legend)],
        }
    }

    fn and(mut self, query: String, legend: &'static str) -> Self {
        self.queries.push((query, legend));
        self
    }

    /// The median and the slow ones of a histogram of seconds.
    fn times(title: &'static str, name: &str) -> Self {
        let quantile = |share: &str| {
            format!(
                "histogram_quantile({share}, sum by (le) (rate({name}_bucket{{{CHOSEN}}}[$__rate_interval])))"
            )
        };
        Self::new(title, "s", quantile("0.5"), "p50")
            .and(quantile("0.95"), "p95")
            .and(quantile("0.99"), "p99")
    }
}

fn rate(name: &str, by: &str) -> String {
    format!("sum by ({by}) (rate({name}{{{CHOSEN}}}[$__rate_interval]))")
}

fn tokens(kind: &str) -> String {
    format!(
        "sum by (deployment) (rate({}{{{DEPLOYMENT},kind=\"{kind}\"}}[$__rate_interval]))",
        n::TOKENS
    )
}

fn now(name: &str) -> String {
    format!("sum by (deployment) ({name}{{{CHOSEN}}})")
}

/// Panels of traffic as clients see it.
fn traffic() -> Vec<Panel> {
    vec![
        Panel::new(
            "Requests by outcome",
            "reqps",
            rate(n::REQUESTS, "outcome"),
            "{{outcome}}",
        ),
        Panel::new(
            "Requests by deployment",
            "reqps",
            rate(n::REQUESTS, "deployment"),
            OF_DEPLOYMENT,
        ),
        Panel::times("Latency", n::DURATION),
        Panel::times("Time to first token", n::FIRST_TOKEN),
        Panel::new(
            "Completion tokens per second",
            "short",
            tokens("completion"),
            OF_DEPLOYMENT,
        ),
        Panel::new(
            "Prompt tokens per second",
            "short",
            tokens("prompt"),
            OF_DEPLOYMENT,
        )
        .and(tokens("cached"), "{{deployment}} cached"),
        Panel::new(
            "In flight and waiting",
            "short",
            now(n::IN_FLIGHT),
            "{{deployment}} in flight",
        )
        .and(now(n::QUEUED), "{{deployment}} waiting"),
        Panel::times("Wait for a place or a worker", n::QUEUE_WAIT),
        Panel::times("Time between tokens", n::INTER_TOKEN),
        Panel::times("Time that the gateway itself took", n::OVERHEAD),
    ]
}

/// Panels of the state of deployments and of the gateway.
fn standing() -> Vec<Panel> {
    let status = format!(
        "max by (deployment, status) ({}{{{DEPLOYMENT}}}) > 0",
        n::STATUS
    );
    let idle = format!(
        "time() - max by (deployment) ({}{{{DEPLOYMENT}}})",
        n::LAST_ACTIVITY
    );
    let starts = format!(
        "sum by (deployment) (increase({}_count{{{DEPLOYMENT},to=\"gpu\"}}[1h]))",
        n::TRANSITION
    );
    let memory = format!("sum by (gpu, state) ({})", n::GPU_MEMORY);
    vec![
        Panel::new("Status", "short", status, "{{deployment}} {{status}}"),
        Panel::new("Idle time", "s", idle, OF_DEPLOYMENT),
        Panel::new("Starts and wakes, per hour", "short", starts, OF_DEPLOYMENT),
        Panel::new("GPU memory", "bytes", memory, "GPU {{gpu}} {{state}}"),
        Panel::new(
            "Client connections",
            "short",
            n::CONNECTIONS.to_owned(),
            "open",
        ),
        Panel::new(
            "Errors in route files",
            "short",
            n::CONFIG_ERRORS.to_owned(),
            "errors",
        ),
    ]
}

/// The dashboard, to be imported into Grafana.
pub fn dashboard() -> Value {
    let panels = traffic().into_iter().chain(standing());
    let panels: Vec<Value> = panels
        .zip(0_u32..)
        .map(|(panel, place)| {
            let targets: Vec<Value> = panel
                .queries
                .into_iter()
                .zip('A'..)
                .map(|((expr, legend), id)| {
                    json!({"refId": id, "expr": expr, "legendFormat": legend, "datasource": source()})
                })
                .collect();
            json!({
                "id": place + 1,
                "type": "timeseries",
                "title": panel.title,
                "datasource": source(),
                "gridPos": {"h": 8, "w": 12, "x": place % 2 * 12, "y": place / 2 * 8},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                    "tooltip": {"mode": "multi", "sort": "desc"}},
                "targets": targets,
            })
        })
        .collect();
    json!({
        "__inputs": [{"name": "DS_PROMETHEUS", "label": "Prometheus", "type": "datasource",
            "pluginId": "prometheus", "pluginName": "Prometheus"}],
        "title": "Tidegate",
        "uid": "tidegate",
        "tags": ["tidegate", "vllm", "llm"],
        "schemaVersion": 39,
        "editable": true,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            variable("route", "Route", &format!("label_values({}, route)", n::REQUESTS)),
            variable("deployment", "Deployment", &format!("label_values({}, deployment)", n::REQUESTS)),
        ]},
        "panels": panels,
    })
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${DS_PROMETHEUS}"})
}

fn variable(name: &str, label: &str, query: &str) -> Value {
    json!({
        "name": name, "label": label, "type": "query", "datasource": source(),
        "query": {"query": query, "refId": name}, "definition": query, "refresh": 2,
        "includeAll": true, "multi": true, "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    })
}

/// One alert: name, expression, how long it must hold, severity, what to do.
struct Alert {
    name: &'static str,
    expr: String,
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
    description: &'static str,
}

/// Alerts of harm that clients feel.
fn felt() -> Vec<Alert> {
    let ours = "upstream_error|upstream_timeout|upstream_truncated|unavailable";
    vec![
        Alert {
            name: "TidegateDown",
            expr: format!("absent({})", n::BUILD_INFO),
            lasts: "2m",
            severity: "critical",
            summary: "No tidegate answers Prometheus.",
            description: "Look at the process and at [metrics] listen.",
        },
        Alert {
            name: "TidegateErrors",
            expr: format!(
                "sum by (deployment) (rate({r}{{outcome=~\"{ours}\"}}[5m])) / sum by (deployment) (rate({r}[5m])) > 0.05",
                r = n::REQUESTS
            ),
            lasts: "5m",
            severity: "critical",
            summary: "More than 5 % of the requests to {{ $labels.deployment }} fail.",
            description: "See `tidegate events` and `tidegate logs` of it.",
        },
        Alert {
            name: "TidegateDeploymentFailed",
            expr: format!("{}{{status=\"failed\"}} == 1", n::STATUS),
            lasts: "1m",
            severity: "critical",
            summary: "{{ $labels.deployment }} has failed.",
            description: "`tidegate ps` shows the reason; `tidegate start` tries again.",
        },
        Alert {
            name: "TidegateLoadingLong",
            expr: format!("{}{{status=\"loading\"}} == 1", n::STATUS),
            lasts: "30m",
            severity: "warning",
            summary: "{{ $labels.deployment }} has been loading for half an hour.",
            description: "See its console: `tidegate logs`. It may wait for room: `tidegate events`.",
        },
        Alert {
            name: "TidegateQueueing",
            expr: format!(
                "histogram_quantile(0.95, sum by (deployment, le) (rate({}_bucket[5m]))) > 30",
                n::QUEUE_WAIT
            ),
            lasts: "10m",
            severity: "warning",
            summary: "Requests to {{ $labels.deployment }} wait for half a minute.",
            description: "Raise max_concurrent_requests, give it more GPUs, or let fewer clients in.",
        },
    ]
}

/// Alerts that someone should see to before clients feel it.
fn foreseen() -> Vec<Alert> {
    vec![
        Alert {
            name: "TidegateRefusals",
            expr: format!(
                "sum by (route) (rate({}{{outcome=\"limited\"}}[5m])) > 1",
                n::REQUESTS
            ),
            lasts: "15m",
            severity: "info",
            summary: "The route {{ $labels.route }} refuses more than one request a second.",
            description: "Its limits or its tokens' are reached.",
        },
        Alert {
            name: "TidegateConfigErrors",
            expr: format!("{} > 0", n::CONFIG_ERRORS),
            lasts: "5m",
            severity: "warning",
            summary: "A route file is wrong, and its last good state serves.",
            description: "`tidegate check` shows what to write instead.",
        },
        Alert {
            name: "TidegateHistoryNotWritten",
            expr: format!("{} == 1", n::HISTORY_DEGRADED),
            lasts: "5m",
            severity: "warning",
            summary: "The history of the plots is not written.",
            description: "See to the disk of gateway.state; serving goes on.",
        },
    ]
}

/// Alerts of data that is not kept, or not known any more.
fn kept() -> Vec<Alert> {
    vec![
        Alert {
            name: "TidegateStoreNotWritten",
            expr: format!("{} == 1", n::STORE_DEGRADED),
            lasts: "1m",
            severity: "critical",
            summary: "The store of tokens is not written: revocations are held in memory.",
            description: "See to the disk of gateway.state, and do not restart before; `tidegate ps` says why.",
        },
        Alert {
            name: "TidegateStoreLost",
            expr: format!("{} > time() - 86400", n::STORE_LOST),
            lasts: "0m",
            severity: "critical",
            summary: "The store of tokens was lost, or put back from an older copy.",
            description: "`tidegate ps` says what becomes of tokens that were issued before.",
        },
        Alert {
            name: "TidegateClockBehind",
            expr: format!("{} > 0", n::CLOCK_BEHIND),
            lasts: "1m",
            severity: "warning",
            summary: "The clock of the machine is behind the newest time that was known.",
            description: "Set it right; `tidegate ps` says how far it is.",
        },
    ]
}

/// The rules, as a file for `rule_files` of Prometheus.
pub fn rules() -> String {
    use std::fmt::Write;
    let mut text = String::from("groups:\n  - name: tidegate\n    rules:\n");
    for alert in felt().into_iter().chain(foreseen()).chain(kept()) {
        // JSON strings are YAML strings; writing to a text does not fail.
        let quoted = |text: &str| Value::from(text).to_string();
        let _ok = write!(
            text,
            "      - alert: {}\n        expr: {}\n        for: {}\n        labels:\n          severity: {}\n        \
             annotations:\n          summary: {}\n          description: {}\n",
            alert.name,
            quoted(&alert.expr),
            alert.lasts,
            alert.severity,
            quoted(alert.summary),
            quoted(alert.description)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboard_has_two_columns_of_panels_with_ids_of_their_own() {
        let dashboard = dashboard();
        let panels = dashboard["panels"].as_array().unwrap();
        assert!(panels.len() > 10);
        let ids: std::collections::HashSet<_> = panels.iter().map(|p| p["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len());
        assert!(
            panels
                .iter()
                .all(|p| !p["targets"].as_array().unwrap().is_empty())
        );
    }

    #[test]
    fn every_rule_has_an_expression_and_says_what_to_do() {
        let rules = rules();
        assert_eq!(
            rules.matches("- alert:").count(),
            felt().len() + foreseen().len() + kept().len()
        );
        assert_eq!(
            rules.matches("description:").count(),
            felt().len() + foreseen().len() + kept().len()
        );
    }
}
