// SPDX-License-Identifier: Apache-2.0
//! Who opens, reads and writes what, for whoever watches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What somebody did, or what was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counts {
    /// Opens.
    pub opens: u64,
    /// Those of them after which the kernel reads the file itself: its bytes are counted nowhere.
    pub kernel_opens: u64,
    /// Reads that came to the daemon.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
}

/// What a file was used for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FileTraffic {
    /// Path in the tree.
    pub path: String,
    /// What was done to it.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What a process did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProcessTraffic {
    /// Its number; 0 is the kernel.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// What it did.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The answer to `GET /v1/traffic`: what happened since somebody began to watch. Nothing is counted
/// while nobody asks; whoever asks again within five seconds goes on watching. Of many files and
/// processes the latest are told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Traffic {
    /// For how long somebody has watched.
    pub watched_milliseconds: u64,
    /// By file.
    pub files: Vec<FileTraffic>,
    /// By process.
    pub processes: Vec<ProcessTraffic>,
}
