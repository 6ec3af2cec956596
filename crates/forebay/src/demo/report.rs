// SPDX-License-Identifier: Apache-2.0
//! The table of the demo, and the two sentences that sum it up.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};

/// What one epoch took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) requests: u64,
    pub(super) storage_bytes: u64,
}

impl Measured {
    fn files_per_second(&self) -> f64 {
        self.files as f64 / self.seconds
    }

    fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }

    /// Returns the percentage that did not come from the storage in this epoch.
    fn cached_percent(&self) -> f64 {
        100.0 * (1.0 - self.storage_bytes as f64 / self.bytes as f64).max(0.0)
    }
}

/// All epochs, in the order in which they ran.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<(String, String, Measured)>,
}

impl Report {
    /// Adds an epoch over files of a kind.
    pub(super) fn add(&mut self, kind: &str, name: &str, measured: Measured) {
        self.rows.push((kind.to_owned(), name.to_owned(), measured));
    }

    fn table(&self) -> Table {
        let mut rows: Vec<_> = self.rows.iter().collect();
        // Kinds together, each in the order in which it ran.
        rows.sort_by_key(|(kind, ..)| kind.as_str());
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "files",
            "read from",
            "files/s",
            "MB/s",
            "requests",
            "from storage",
            "from cache",
        ]);
        for (kind, name, measured) in rows {
            let cached = match name.starts_with("forebay") {
                true => format!("{:.1} %", measured.cached_percent()),
                false => "-".to_owned(),
            };
            table.add_row([
                kind.clone(),
                name.clone(),
                format!("{:.0}", measured.files_per_second()),
                format!("{:.0}", measured.megabytes_per_second()),
                measured.requests.to_string(),
                format!("{:.0} MB", measured.storage_bytes as f64 / 1e6),
                cached,
            ]);
        }
        for column in 2..7 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    fn speed_up(&self) -> Option<f64> {
        let find = |name: &str| {
            self.rows
                .iter()
                .find(|row| row.1 == name)
                .map(|row| row.2.seconds)
        };
        Some(find("storage, no cache")? / find("forebay, warm")?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.table())?;
        let files: u64 = self.rows.iter().map(|row| row.2.files).sum();
        write!(f, "{files} files read, the checksum of each was right.")?;
        match self.speed_up() {
            Some(times) => write!(
                f,
                " A warm epoch of images took 1/{times:.0} of the time without a cache."
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_what_came_from_the_cache() {
        let measured = |seconds, requests, storage_bytes| Measured {
            files: 100,
            bytes: 10_000_000,
            seconds,
            requests,
            storage_bytes,
        };
        let mut report = Report::default();
        report.add(
            "images",
            "storage, no cache",
            measured(10.0, 100, 10_000_000),
        );
        report.add("images", "forebay, warm", measured(0.5, 0, 0));
        let text = report.to_string();
        for part in ["200", "100.0 %", "10 MB", "1/20", "200 files read"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
