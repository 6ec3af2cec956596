// SPDX-License-Identifier: Apache-2.0
//! What the eviction policy is worth: traces replayed against other policies and the optimum.
//!
//! [`run`] replays all of [`traces`] or a file of the user's against all of [`policies`], and has the
//! page store itself do shuffled epochs. Only what is hit counts here, not how fast.

pub mod policies;
mod store;
pub mod traces;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use policies::{Kind, Policy};
use traces::Trace;

/// Everything that a run found out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One for each trace.
    pub rows: Vec<Row>,
    /// Epochs through the page store, with files on a disk.
    pub store: Vec<StoreRow>,
}

/// What the policies made of a trace.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub trace: String,
    /// How many objects there are in it.
    pub objects: usize,
    /// How many reads.
    pub reads: usize,
    /// How many bytes were cached at most.
    pub capacity_bytes: u64,
    /// The best that can be reached without knowing what comes, where that is known.
    pub best: Option<f64>,
    /// What each policy reached.
    pub outcomes: Vec<Outcome>,
}

/// What a policy made of a trace, from the read on that counts.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Outcome {
    /// Its name.
    pub policy: &'static str,
    /// The share of reads that were hits.
    pub hits: f64,
    /// The share of bytes that were hits.
    pub bytes: f64,
}

/// What the page store made of three shuffled epochs.
#[derive(Debug, Serialize)]
pub struct StoreRow {
    /// The share of the data set that fits.
    pub fits: f64,
    /// Objects of the data set.
    pub objects: usize,
    /// The share of reads that were hits, from the second epoch on.
    pub hits: f64,
}

/// Replays the traces that are known here, over about `objects` objects each; `say` is told what is
/// being done.
pub fn run(objects: usize, mut say: impl FnMut(&str)) -> Result<Report> {
    let mut rows = Vec::new();
    for trace in traces::all(objects) {
        say(&trace.name);
        rows.push(replay_all(&trace));
    }
    say("epochs through the page store");
    let store = [(1, 2), (3, 4)].map(store::epochs);
    Ok(Report {
        rows,
        store: store.into_iter().collect::<Result<_>>()?,
    })
}

/// Replays one trace.
pub fn run_one(trace: &Trace) -> Report {
    Report {
        rows: vec![replay_all(trace)],
        store: Vec::new(),
    }
}

fn replay_all(trace: &Trace) -> Row {
    Row {
        trace: trace.name.clone(),
        objects: trace.sizes.len(),
        reads: trace.reads.len(),
        capacity_bytes: trace.capacity,
        best: trace.best,
        outcomes: Kind::ALL.map(|kind| replay(kind, trace)).into(),
    }
}

/// Replays a trace against a policy.
pub fn replay(kind: Kind, trace: &Trace) -> Outcome {
    let mut policy: Box<dyn Policy> = kind.start(trace);
    let (mut hits, mut hit_bytes, mut bytes) = (0_u64, 0, 0);
    for (at, object) in trace.reads.iter().enumerate() {
        let hit = policy.read(at);
        if at < trace.counted_from {
            continue;
        }
        let size = trace.sizes[*object];
        bytes += size;
        if hit {
            hits += 1;
            hit_bytes += size;
        }
    }
    let reads = trace.reads.len() - trace.counted_from;
    Outcome {
        policy: kind.name(),
        hits: hits as f64 / reads.max(1) as f64,
        bytes: hit_bytes as f64 / bytes.max(1) as f64,
    }
}

impl Report {
    /// Renders the report for people.
    pub fn table(&self) -> String {
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let share = |share: f64| number(format!("{share:.3}"));
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let names = Kind::ALL.map(Kind::name);
        table.set_header([&["bytes hit of bytes read"], &names[..], &["best"]].concat());
        for row in &self.rows {
            let best = row.best.map_or_else(|| number(String::new()), share);
            let outcomes = row.outcomes.iter().map(|outcome| share(outcome.bytes));
            table.add_row(
                [Cell::new(&row.trace)]
                    .into_iter()
                    .chain(outcomes)
                    .chain([best]),
            );
        }
        let mut text = table.to_string();
        if !self.store.is_empty() {
            let mut table = Table::new();
            table.load_style(presets::ASCII_MARKDOWN);
            table.set_header([
                "three shuffled epochs through the page store",
                "objects",
                "hits",
            ]);
            for row in &self.store {
                let name = format!("{} of the data set fit", row.fits);
                let objects = number(row.objects.to_string());
                table.add_row([Cell::new(name), objects, share(row.hits)]);
            }
            text = format!("{text}\n\n{table}");
        }
        text
    }
}

#[cfg(test)]
mod tests;
