//! Cold starts: what the first request to a worker that is not running waits for.
//!
//! Owns the cycle of bringing the stand-in to rest over Tidegate's command line and sending
//! one request. The figure is that request's time less the time of the same request to the
//! running worker, so it is what starting or waking adds, the stand-in's own start included.
//! Does not start processes itself.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::error::BenchError;
use crate::load::LoadReport;
use crate::peers::Site;
use crate::report::{Row, Sample};
use crate::scenario::Scenario;

/// Longest that the worker may take to come to rest.
const REST_MAX: Duration = Duration::from_secs(20);

/// The ways to rest: the command, the phase it ends in, the row's name. A stop
/// that an operator asks for lasts, so the idle time limit of 1 s brings it about.
const RESTS: [(Option<&str>, &str, &str); 2] = [
    (None, "stopped", "from stopped"),
    (Some("offload"), "offloaded", "from sleep"),
];

/// Measures `rounds` starts of each kind; `request` sends one request.
pub(crate) fn measure(
    site: &Site,
    rounds: u32,
    scenario: &Scenario,
    request: impl Fn() -> Result<LoadReport, BenchError>,
) -> Result<Vec<Row>, BenchError> {
    // Starts the worker for the first time.
    answered(&request()?)?;
    let mut rows = Vec::new();
    for (command, phase, name) in RESTS {
        let mut row = Row::new(name);
        for _ in 0..rounds {
            let warm = request()?;
            answered(&warm)?;
            if let Some(command) = command {
                site.tidegate_here(&[command, "cold"])?;
            }
            wait_for(site, phase)?;
            let first = request()?;
            answered(&first)?;
            let mut sample = Sample::new(scenario.figure, Duration::ZERO, None, &first);
            sample.compare(Some(&warm));
            row.push(sample);
        }
        rows.push(row);
    }
    // Workers outlive the gateway: this one is ended while there is one to do it.
    site.tidegate_here(&["stop", "cold"])?;
    wait_for(site, "stopped")?;
    Ok(rows)
}

fn answered(report: &LoadReport) -> Result<(), BenchError> {
    if report.failures == 0 && report.requests == 1 {
        return Ok(());
    }
    Err(BenchError::said(format!(
        "the stand-in did not answer: {}",
        report.failed.join("; ")
    )))
}

fn wait_for(site: &Site, wanted: &str) -> Result<(), BenchError> {
    let asked = Instant::now();
    loop {
        let printed = site.tidegate_here(&["ps", "--json"])?;
        let listed: Value = serde_json::from_str(&printed)?;
        let phase = phase_of(&listed, "cold");
        if phase == Some(wanted) {
            return Ok(());
        }
        if asked.elapsed() > REST_MAX {
            return Err(BenchError::said(format!(
                "the stand-in is {} after {} s, not {wanted}",
                phase.unwrap_or("not listed"),
                REST_MAX.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The `phase` of the innermost object that bears a name, or of one in it.
fn phase_of<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    match value {
        Value::Array(items) => items.iter().find_map(|item| phase_of(item, name)),
        Value::Object(fields) => {
            let inner = fields.values().find_map(|field| phase_of(field, name));
            let named = fields.values().any(|field| field.as_str() == Some(name));
            let own = fields.get("phase").and_then(Value::as_str);
            inner.or_else(|| own.filter(|_| named))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_of_a_deployment_is_found_at_any_depth() {
        let listed = serde_json::json!({"instances": [
            {"name": "other", "phase": "ready", "deployments": [{"model": "x", "phase": "starting"}]},
            {"name": "cold", "deployments": [{"endpoint": "cold", "phase": "stopped"}]},
        ]});
        assert_eq!(phase_of(&listed, "cold"), Some("stopped"));
        assert_eq!(phase_of(&listed, "other"), Some("ready"));
        assert_eq!(phase_of(&listed, "none"), None);
    }
}
