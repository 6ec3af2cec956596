// SPDX-License-Identifier: Apache-2.0
//! The alerts and the dashboard of `deploy/prometheus`: they ask for metrics that there are, and fire
//! when they should.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap().to_owned()
}

/// Returns the words of a text that name a metric of ours.
fn metrics(text: &str) -> BTreeSet<&str> {
    let is_of_names = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_of_names(c));
    words.filter(|word| word.starts_with("forebay_")).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let known = fs::read_to_string(root().join("docs/METRICS.md")).unwrap();
    let known = metrics(&known);
    for name in ["alerts.yml", "alerts.test.yml", "dashboard.json"] {
        let text = fs::read_to_string(root().join("deploy/prometheus").join(name)).unwrap();
        let asked = metrics(&text);
        assert!(asked.len() >= 9, "{name}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&known).collect();
        assert!(unknown.is_empty(), "{name} asks for {unknown:?}");
    }
}

#[test]
fn alerts_fire_when_they_should_and_not_before() {
    let dir = root().join("deploy/prometheus");
    for words in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let mut promtool = Command::new("promtool");
        let output = promtool.args(words).current_dir(&dir).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{words:?}: {said:?}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_reads() {
    let text = fs::read_to_string(root().join("deploy/prometheus/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = &panel["gridPos"];
        let [x, y, width] = ["x", "y", "w"].map(|name| place[name].as_u64().unwrap());
        assert!(x + width <= 24 && places.insert((x, y)), "{panel}");
        assert!(!panel["title"].as_str().unwrap().is_empty(), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let asked = target["expr"].as_str().unwrap();
            assert!(asked.contains("$instance"), "{asked}");
            let open = asked.matches(['(', '{']).count();
            assert_eq!(open, asked.matches([')', '}']).count(), "{asked}");
        }
    }
    assert!(panels.len() >= 10);
}
