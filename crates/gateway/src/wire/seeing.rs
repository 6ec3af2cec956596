// SPDX-License-Identifier: Apache-2.0
//! The words of what people look at: usage by name, the last hour, health, slow requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What there is at one name, and what of it is cached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UsageOfName {
    /// The name; of a mount its path in the tree.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Files that the storages list.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of them that are cached whole.
    pub cached_files: u64,
    /// Bytes of them that are cached.
    pub cached_bytes: u64,
    /// Those of them that are pinned.
    pub pinned_bytes: u64,
}

/// The answer to `GET /v1/history`: what a daemon did lately, as its counters stood.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct History {
    /// Where the tree hangs.
    pub mount_point: String,
    /// The counters, oldest first; the last are those of now.
    pub samples: Vec<Sample>,
}

/// Counters at one time. They only grow while a daemon lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub unix_milliseconds: u64,
    /// Bytes given to readers.
    pub served_bytes: u64,
    /// Bytes of data fetched from the storages.
    pub fetched_bytes: u64,
    /// Opens and reads that needed no request.
    pub hits: u64,
    /// Opens and reads that waited for the storage.
    pub misses: u64,
    /// Requests of the kernel that a program waited for.
    pub operations: u64,
    /// Requests to the storages.
    pub storage_requests: u64,
    /// Those that failed for good.
    pub storage_errors: u64,
}

/// The answer to `GET /v1/health`: what is not well, by what the daemon knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Health {
    /// Where the tree hangs.
    pub mount_point: String,
    /// `pass`, `warn` or `fail`: that of the worst finding.
    pub state: String,
    /// What is not well, the worst first.
    pub findings: Vec<Finding>,
}

/// Something that is not well.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Finding {
    /// `fail` when programs get errors or may, `warn` when it is slower or less than it could be.
    pub state: String,
    /// What is not well.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What mends it: a command, or what to do.
    pub fix: String,
}

/// A request of the kernel that took long.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SlowRequest {
    /// Milliseconds since 1970, when it was answered.
    pub unix_milliseconds: u64,
    /// Its kind.
    pub operation: String,
    /// Path in the tree.
    pub path: String,
    /// How long a program waited for it.
    pub milliseconds: u64,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What became of the traces of a daemon that sends them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Traces {
    /// Where they are sent.
    pub collector: String,
    /// Which part of them is sent, from 0 to 1, besides the requests that are slow or fail.
    pub ratio: f64,
    /// Spans that the collector took.
    pub exported_spans: u64,
    /// Spans that it did not take, or that found no place to wait.
    pub dropped_spans: u64,
    /// Why the latest were not taken; none when they were.
    pub fault: Option<String>,
}
