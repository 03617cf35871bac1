//! What operators are given fits the program: alert rules, dashboard and the page of metrics name what `/metrics` has.

use std::collections::BTreeSet;
use std::path::Path;

use tests::events::{self, Random, of_user};
use tests::faults::{self, SOON, Timed};
use tests::rivulet::{Options, Rivulet};

/// With it every metric has a sample.
const ALL_LABELS: &str = r#"
[[keys]]
name = "web"
key = "wk_dev"
kind = "public"
privacy = { gpc = "drop" }
[[keys]]
name = "server"
key = "sk_dev"
kind = "secret"
"#;

/// What Prometheus appends to the name of a histogram.
const HISTOGRAM_SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Every word of a text that is a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("rivulet_gateway_") || word.starts_with("rivulet_processor_"))
        .map(|word| {
            let stem = HISTOGRAM_SUFFIXES.iter().find_map(|suffix| word.strip_suffix(suffix));
            stem.unwrap_or(word).to_owned()
        })
        .collect()
}

/// The names that samples have, without comments.
fn samples(exposition: &str) -> BTreeSet<String> {
    let lines: Vec<&str> = exposition.lines().filter(|line| !line.starts_with('#')).collect();
    metrics_in(&lines.join("\n"))
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alert_rules_dashboard_and_page_name_the_metrics_that_the_program_has() {
    let _timed = Timed::new("operators: metrics");
    let rivulet = Rivulet::with(Options { config: Some(ALL_LABELS.to_owned()), ..Options::default() }).await;
    rivulet
        .secret()
        .post("/v1/kill", &[], r#"{"name":"none","action":"drop","source":"none"}"#)
        .await
        .unwrap();
    rivulet.client().send_with(&[("content-type", "application/json"), ("sec-gpc", "1")], "{}").await;
    let event = events::page_view(&mut Random::new(3), &of_user("operator"));
    rivulet.client().send(event.to_string()).await;
    let exposed = faults::eventually("the event is processed", SOON, async || {
        let text = rivulet.metrics().await;
        text.contains(r#"rivulet_processor_records_total{kind="applied"} 1"#).then_some(text)
    });
    let exposed = samples(&exposed.await);
    assert!(exposed.len() > 20, "{exposed:?}");
    let documented = metrics_in(&file("docs/telemetry.md"));
    assert_eq!(documented, exposed, "docs/telemetry.md and /metrics");
    for name in ["integrations/grafana/rivulet-alerts.yaml", "integrations/grafana/rivulet-dashboard.json"] {
        let named = metrics_in(&file(name));
        assert!(named.len() > 8, "{name}: {named:?}");
        let unknown: Vec<_> = named.difference(&exposed).collect();
        assert!(unknown.is_empty(), "{name} names metrics that nobody has: {unknown:?}");
    }
}

#[test]
fn every_alert_names_a_section_of_the_operations_page_that_is_there() {
    let anchors: BTreeSet<String> = file("docs/operations.md")
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| {
            let kept = title.to_lowercase().replace(' ', "-");
            kept.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
        })
        .collect();
    let rules = file("integrations/grafana/rivulet-alerts.yaml");
    let runbooks: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: docs/operations.md#")).collect();
    assert_eq!(runbooks.len(), rules.matches("- alert: ").count(), "an alert without a runbook");
    for runbook in runbooks {
        assert!(anchors.contains(runbook), "`{runbook}` is none of {anchors:?}");
    }
}
