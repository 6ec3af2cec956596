// SPDX-License-Identifier: Apache-2.0
//! A collector of traces: the receiver of the OpenTelemetry collector, which checks and decodes what
//! comes as every collector does, with a file behind it (`rigs/collector`).
//!
//! Built from the Go module proxy, which takes a minute once: `scripts/setup test` does it before the
//! tests.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::installed::go_program_of;
use super::server::Server;

/// The version is that of the receiver, and how often `rigs/collector` was changed since.
const PROGRAM: &str = "otel-collector@0.165.0-1";

/// A running collector; ends when dropped.
#[derive(Debug)]
pub struct Collector {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    file: PathBuf,
    _server: Server,
}

/// A span that a collector was sent.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace: String,
    /// Its number in the trace.
    pub id: String,
    /// The number of its parent; empty for the root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its attributes, and those of the process as `resource.NAME`; numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// The numbers of the spans that it is linked to.
    pub links: Vec<String>,
    /// Why it failed; none when it did not.
    pub error: Option<String>,
    /// When it began and ended, in nanoseconds since 1970.
    pub time: (u64, u64),
}

impl Span {
    /// Returns an attribute.
    ///
    /// # Panics
    /// When it has none of this name.
    #[track_caller]
    pub fn attribute(&self, name: &str) -> &str {
        let value = self.attributes.get(name);
        value.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

impl Collector {
    /// Starts a collector that keeps what it is sent, and its log, in `dir`.
    ///
    /// # Errors
    /// When it cannot be built, or does not answer.
    pub fn start(dir: &Path) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("rigs/collector");
        let binary = go_program_of(&source, PROGRAM)?;
        let file = dir.join("spans.json");
        let server = Server::start("otel-collector", dir, |address: SocketAddr| {
            let mut command = Command::new(&binary);
            command.arg(address.to_string()).arg(&file);
            Ok(command)
        })?;
        Ok(Collector {
            endpoint: format!("http://{}", server.address),
            file,
            _server: server,
        })
    }

    /// Returns all spans that came so far.
    ///
    /// # Errors
    /// When the file of the collector cannot be read.
    pub fn spans(&self) -> Result<Vec<Span>> {
        let text = fs::read_to_string(&self.file).context("spans of the collector")?;
        let mut spans = Vec::new();
        // The last line may be on its way.
        for line in text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
        {
            let batch: Value = serde_json::from_str(line)?;
            for resource in each(&batch, "resourceSpans") {
                let of_process = attributes(&resource["resource"], "resource.");
                for scope in each(resource, "scopeSpans") {
                    let told = each(scope, "spans").map(|span| read(span, &of_process));
                    spans.extend(told);
                }
            }
        }
        Ok(spans)
    }
}

fn read(span: &Value, of_process: &BTreeMap<String, String>) -> Span {
    let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| span[key].as_str().and_then(|text| text.parse().ok());
    let link = |link: &Value| link["spanId"].as_str().unwrap_or_default().to_owned();
    let mut attributes = attributes(span, "");
    attributes.extend(of_process.clone());
    // 2 is that of a failure.
    let has_failed = span["status"]["code"] == 2;
    let message = span["status"]["message"].as_str().unwrap_or_default();
    Span {
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        name: text("name"),
        attributes,
        links: each(span, "links").map(link).collect(),
        error: has_failed.then(|| message.to_owned()),
        time: (
            number("startTimeUnixNano").unwrap_or(0),
            number("endTimeUnixNano").unwrap_or(0),
        ),
    }
}

fn each<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().into_iter().flatten()
}

fn attributes(of: &Value, before: &str) -> BTreeMap<String, String> {
    let all = each(of, "attributes").filter_map(|one| {
        let value = one["value"].as_object()?.values().next()?;
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some((format!("{before}{}", one["key"].as_str()?), value))
    });
    all.collect()
}
