// SPDX-License-Identifier: Apache-2.0
//! The result of a run: rows of figures with their baselines, as a table and as JSON.

use std::fs;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::workload::Work;
use crate::sandbox::Mount;

/// Everything that a run found out, with what somebody needs to compare it with another run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What it ran on.
    pub machine: Machine,
    /// What was read.
    pub setting: Setting,
    /// The figures.
    pub rows: Vec<Row>,
    /// The most memory that the daemon took, in bytes.
    pub daemon_memory_bytes: u64,
}

/// What a run ran on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Processors.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Version of the binary.
    pub version: String,
}

/// What was read, and over which wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setting {
    /// Time until the storage begins to answer.
    pub latency_ms: u64,
    /// Bytes a second over all connections; zero where nothing bounds them.
    pub bandwidth_bytes: u64,
    /// Length of the large file.
    pub large_bytes: usize,
    /// Number of small files.
    pub small_count: usize,
    /// Length of each small file.
    pub small_bytes: usize,
    /// Times that a warm measurement is repeated; the median counts.
    pub repeats: usize,
}

impl Setting {
    /// Returns how many bytes a second the storage may give.
    pub(super) fn bandwidth(&self) -> Option<u64> {
        Some(self.bandwidth_bytes).filter(|bytes| *bytes > 0)
    }

    /// Says it in a line, for people.
    pub(super) fn told(&self) -> String {
        let bandwidth = match self.bandwidth() {
            Some(bytes) => format!("and {} MB/s", bytes / 1_000_000),
            None => "without a limit".to_owned(),
        };
        format!(
            "storage at {} ms {bandwidth}; one file of {} MiB, {} files of {} KiB; median of {} where warm",
            self.latency_ms,
            self.large_bytes >> 20,
            self.small_count,
            self.small_bytes >> 10,
            self.repeats,
        )
    }
}

/// In what a row is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Megabytes a second.
    #[serde(rename = "MB/s")]
    Megabytes,
    /// Files a second.
    #[serde(rename = "files/s")]
    Files,
    /// Reads a second.
    #[serde(rename = "reads/s")]
    Reads,
    /// Milliseconds, of which less is better.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Megabytes in all, of which less is better.
    #[serde(rename = "MB")]
    Total,
}

/// One piece of work, by the product and by its baseline.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub work: &'static str,
    /// In what it is measured.
    pub unit: Unit,
    /// The product.
    pub forebay: f64,
    /// What it is compared with.
    pub baseline: &'static str,
    /// The baseline's figure, in the same unit.
    pub baseline_value: f64,
    /// The product's figure over the baseline's.
    pub ratio: f64,
    /// The ratio that the design asks for.
    pub goal: f64,
    /// Requests that reached the storage meanwhile.
    pub requests: u64,
}

impl Unit {
    /// Returns the figure of some work in this unit.
    pub fn of(self, work: Work) -> f64 {
        match self {
            Unit::Megabytes => work.bytes as f64 / 1e6 / work.seconds,
            Unit::Files | Unit::Reads => work.count as f64 / work.seconds,
            Unit::Milliseconds => work.seconds * 1e3 / work.count as f64,
            Unit::Total => work.bytes as f64 / 1e6,
        }
    }

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Megabytes => "MB/s",
            Unit::Files => "files/s",
            Unit::Reads => "reads/s",
            Unit::Milliseconds => "ms",
            Unit::Total => "MB",
        }
    }
}

impl Machine {
    /// Looks at this machine.
    pub fn here(version: String) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let meminfo = read("/proc/meminfo");
        let total = meminfo
            .split_ascii_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse::<u64>().ok());
        Machine {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: total.unwrap_or(0) * 1024,
            version,
        }
    }
}

impl Machine {
    /// Looks at this machine, and at what the daemon of a mount says of itself.
    pub(super) fn of(mount: &Mount<'_>) -> Self {
        let status = mount.status().0;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("unknown").to_owned();
        let transport = text(&status["kernel"]["transport"]);
        Machine::here(format!("{} over {transport}", text(&status["version"])))
    }
}

impl Report {
    /// Renders the report for people.
    pub fn table(&self) -> String {
        let machine = &self.machine;
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "work", "unit", "forebay", "baseline", "", "ratio", "goal", "requests",
        ]);
        for row in &self.rows {
            let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
            table.add_row([
                Cell::new(row.work),
                Cell::new(row.unit.name()),
                number(format!("{:.0}", row.forebay)),
                Cell::new(row.baseline),
                number(format!("{:.0}", row.baseline_value)),
                number(format!("{:.2}", row.ratio)),
                number(format!("{:.2}", row.goal)),
                number(row.requests.to_string()),
            ]);
        }
        format!(
            "forebay {}, kernel {}, {} cores, {} GiB of memory\n\
             {}\n\n{table}\n\ndaemon: {} MiB of memory at most",
            machine.version,
            machine.kernel,
            machine.cores,
            machine.memory_bytes >> 30,
            self.setting.told(),
            self.daemon_memory_bytes >> 20,
        )
    }
}
