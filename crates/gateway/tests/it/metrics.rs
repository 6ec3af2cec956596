// SPDX-License-Identifier: Apache-2.0
//! Metrics as Prometheus reads them, and their document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gateway::{metrics, wire};

use crate::{PATIENCE, Rig};

/// A text in the format of Prometheus.
#[derive(Debug, Default)]
struct Parsed {
    kinds: BTreeMap<String, String>,
    helps: BTreeSet<String>,
    /// By name and labels.
    series: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
    text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// Reads a text as strictly as the format is described.
fn parse(text: &str) -> Parsed {
    assert!(text.ends_with('\n'), "the last line ends too");
    let mut parsed = Parsed::default();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(
                !help.is_empty() && parsed.helps.insert(name.to_owned()),
                "{line}"
            );
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            let before = parsed.kinds.insert(name.to_owned(), kind.to_owned());
            assert_eq!(before, None, "{line}");
        } else {
            let (name, labels, value) = sample(line);
            assert!(
                parsed.kinds.contains_key(&name),
                "a type comes first: {line}"
            );
            let before = parsed.series.insert((name, labels), value.parse().unwrap());
            assert_eq!(before, None, "a series is there twice: {line}");
        }
    }
    parsed
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, &str) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(is_name(label), "{line}");
            let mut value = String::new();
            let mut letters = after.char_indices();
            let end = loop {
                match letters.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match letters.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('"' | '\\') => c,
                        c => panic!("escaped {c} in {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            assert_eq!(labels.insert(label.to_owned(), value), None, "{line}");
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    (name.to_owned(), labels, rest.strip_prefix(' ').unwrap())
}

fn status() -> wire::Status {
    let mut status = wire::Status {
        version: "1.2.3".into(),
        uptime_seconds: 7,
        ..wire::Status::default()
    };
    for at in ["/", "/odd \"name\\ of\na mount"] {
        let mut mount = wire::Mount {
            at: at.into(),
            ..wire::Mount::default()
        };
        mount.requests.get = 5;
        mount.requests.bytes_read = 1 << 53;
        status.mounts.push(mount);
    }
    status.cache.used_bytes = 99;
    status
}

#[test]
fn what_is_printed_is_read_as_prometheus_does() {
    let parsed = parse(&metrics::text(&status()));
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        parsed.series[&(name.to_owned(), labels.collect())]
    };
    assert_eq!(value("forebay_build_info", &[("version", "1.2.3")]), 1.0);
    assert_eq!(value("forebay_cache_used_bytes", &[]), 99.0);
    let odd = ("mount", "/odd \"name\\ of\na mount");
    let gets = [odd, ("kind", "get")];
    assert_eq!(value("forebay_storage_requests_total", &gets), 5.0);
    let read = value("forebay_storage_read_bytes_total", &[odd]);
    assert_eq!(read, (1_u64 << 53) as f64);
    assert!(parsed.helps.iter().eq(parsed.kinds.keys()));
    for (name, kind) in &parsed.kinds {
        assert!(name.starts_with("forebay_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        for (short, unit) in [("byte", "bytes"), ("second", "seconds")] {
            let has_unit = name.contains(unit) == name.contains(short);
            assert!(has_unit, "the unit of {name}");
        }
    }
}

#[test]
fn the_document_of_metrics_is_made_from_their_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
    let made = metrics::document();
    if std::env::var_os("FOREBAY_WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, made,
        "docs/METRICS.md is old: run this test with FOREBAY_WRITE_DOCS=1 to write it anew"
    );
}

#[tokio::test]
async fn the_admin_socket_answers_metrics_as_text() {
    let daemon = Rig::start(std::sync::Arc::default());
    let text = daemon.client().metrics(PATIENCE).await.unwrap();
    let parsed = parse(&text);
    let loads = ("forebay_loads_running".to_owned(), BTreeMap::new());
    assert_eq!(parsed.series[&loads], 1.0);
    let answer = daemon.bare("GET /metrics HTTP/1.0\r\n\r\n").await;
    assert!(
        answer
            .to_lowercase()
            .contains("content-type: text/plain; version=0.0.4"),
        "{answer}"
    );
}
