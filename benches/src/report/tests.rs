//! Medians, ratios and tables of made-up samples.

use super::*;
use crate::scenario::SCENARIOS;

fn row(name: &'static str, cpu: &[f64]) -> Row {
    Row {
        name,
        samples: cpu
            .iter()
            .map(|&cpu| Sample {
                cpu_us: Some(cpu),
                ..Sample::default()
            })
            .collect(),
    }
}

fn report(rows: Vec<Row>) -> Report {
    let mut report = Report::new("0", "1", "1", "http://127.0.0.1:1".to_owned());
    report.add(&SCENARIOS[0], rows);
    report
}

#[test]
fn a_median_stands_in_the_middle() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    assert_eq!(median(&[]), None);
}

#[test]
fn a_ratio_is_taken_round_by_round() {
    // The machine is twice as slow in the second round; the ratio is not.
    let rows = vec![
        row("floor", &[10.0, 20.0, 10.0]),
        row("tidegate", &[15.0, 30.0, 15.0]),
    ];
    let report = report(rows);
    let summary = &report.scenarios[0].summary;
    let cpu = summary
        .iter()
        .find(|s| s.contestant == "tidegate" && s.figure == "CPU us/request")
        .unwrap();
    assert_eq!(cpu.ratios, BTreeMap::from([("floor", 1.5)]));
    assert_eq!((cpu.median, cpu.min, cpu.max), (15.0, 15.0, 30.0));
}

#[test]
fn a_table_has_a_line_for_each_contestant_and_columns_line_up() {
    let mut rows = vec![row("floor", &[10.0]), row("nginx", &[123.4])];
    rows[1].samples[0].failures = 2;
    rows[1].samples[0].failed = vec!["status 502".to_owned()];
    let report = report(rows);
    let table = report.last_table();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("CPU us/request") && lines[0].contains("/floor"));
    assert_eq!(lines[1].find("10.0"), lines[1].find("10.0 [10.0 10.0]"));
    assert!(lines[2].contains("123 [123 123]") && lines[2].contains("12.34"));
    assert_eq!(lines[3], "nginx: 2 FAILED: status 502");
    assert_eq!(lines[0].len(), lines[1].len());
    assert_eq!(report.failures(), 2);
}

#[test]
fn a_division_by_nothing_is_no_ratio() {
    assert_eq!(ratio(&[Some(1.0)], &[Some(0.0)]), None);
    assert_eq!(ratio(&[Some(1.0), None], &[None, Some(1.0)]), None);
}
