// SPDX-License-Identifier: Apache-2.0
//! The result: one row a piece of work, one column a contestant, who is missing and why.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::bench::report::{Machine, Setting, Unit};

/// Everything that a run found out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// What it ran on.
    pub machine: Machine,
    /// What was read.
    pub setting: Setting,
    /// Who took part, in the order of the columns.
    pub contestants: Vec<Contestant>,
    /// Who did not.
    pub absent: Vec<Absent>,
    /// The figures.
    pub rows: Vec<Row>,
}

/// Who took part.
#[derive(Debug, Serialize, Deserialize)]
pub struct Contestant {
    /// Its name.
    pub name: String,
    /// What it says of its version.
    pub version: String,
    /// How it was started, with names in place of paths and addresses.
    pub command: String,
}

/// Who could not take part.
#[derive(Debug, Serialize, Deserialize)]
pub struct Absent {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// One piece of work, by all.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub work: String,
    /// In what it is measured.
    pub unit: Unit,
    /// What each contestant reached.
    pub figures: BTreeMap<String, Figure>,
}

/// What a contestant reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// So much.
    Value(f64),
    /// It did not get to the end, or had wrong bytes.
    Failed(String),
}

impl Row {
    /// Makes a row without figures.
    pub fn new(work: &str, unit: Unit) -> Self {
        Row {
            work: work.to_owned(),
            unit,
            figures: BTreeMap::new(),
        }
    }
}

impl Report {
    /// Makes a report of nobody.
    pub fn new(machine: Machine, setting: Setting) -> Self {
        Report {
            machine,
            setting,
            contestants: Vec::new(),
            absent: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a column.
    pub fn contestant(&mut self, name: &str, version: &str, command: &str) {
        self.contestants.push(Contestant {
            name: name.to_owned(),
            version: version.to_owned(),
            command: command.to_owned(),
        });
    }

    /// Says that somebody is missing.
    pub fn absent(&mut self, name: &str, reason: &str) {
        self.absent.push(Absent {
            name: name.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Renders the report for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let names = self.contestants.iter().map(|one| one.name.as_str());
        table.set_header(["work", "unit"].into_iter().chain(names));
        let mut notes = Vec::new();
        for row in &self.rows {
            let mut cells = vec![Cell::new(&row.work), Cell::new(row.unit.name())];
            for contestant in &self.contestants {
                let text = match row.figures.get(&contestant.name) {
                    Some(Figure::Value(value)) => format!("{value:.0}"),
                    Some(Figure::Failed(why)) => {
                        notes.push(format!("{}, {}: {why}", contestant.name, row.work));
                        "failed".into()
                    }
                    None => "-".into(),
                };
                cells.push(Cell::new(text).set_alignment(CellAlignment::Right));
            }
            table.add_row(cells);
        }
        let commands = self
            .contestants
            .iter()
            .map(|one| match one.version.as_str() {
                "" => format!("{}: {}", one.name, one.command),
                version => format!("{} ({version}): {}", one.name, one.command),
            });
        let absent = self
            .absent
            .iter()
            .map(|one| format!("{} is not in it: {}", one.name, one.reason));
        let lines: Vec<String> = commands.chain(absent).chain(notes).collect();
        format!(
            "kernel {}, {} cores, {} GiB of memory\n\
             {}\n\n{table}\n\n{}",
            self.machine.kernel,
            self.machine.cores,
            self.machine.memory_bytes >> 30,
            self.setting.told(),
            lines.join("\n"),
        )
    }
}
