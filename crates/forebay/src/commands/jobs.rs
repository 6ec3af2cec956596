// SPDX-License-Identifier: Apache-2.0
//! `forebay jobs`: the loads of the running daemons.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use futures::future::join_all;
use gateway::{Client, wire};
use serde::Serialize;
use types::ByteSize;

use super::mounts::{block_on, daemons};
use crate::cli::JobsArgs;

/// What is known is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report {
    daemons: Vec<wire::JobList>,
}

/// Lists the loads.
pub(crate) fn run(args: &JobsArgs, run_dir: Option<&Path>) -> Result<()> {
    let daemons = daemons(&args.daemon, run_dir)?;
    let asked = daemons.iter().map(|daemon| async move {
        let client = Client::new(&daemon.socket);
        client.jobs(PATIENCE).await
    });
    let lists = block_on(join_all(asked))?;
    let report = Report {
        daemons: lists.into_iter().collect::<types::Result<_>>()?,
    };
    match args.json {
        true => {
            let text = serde_json::to_string_pretty(&report).context("write JSON")?;
            super::answer(text + "\n")
        }
        false => super::answer(table(&report)),
    }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    for list in &report.daemons {
        if list.jobs.is_empty() {
            writeln!(text, "{}: no load runs or ran", list.mount_point).ok();
            continue;
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["LOAD", "STATE", "FILES", "BYTES", "FETCHED", "MISSING"]);
        for job in &list.jobs {
            let missing = match job.state.as_str() {
                "running" => format!("{} failed so far", job.failed_files),
                "stopped" => "-".to_owned(),
                _ => job.missing_count.to_string(),
            };
            table.add_row([
                format!("{}{}", list.mount_point, job.path.trim_end_matches('/')),
                state(job),
                format!("{} of {}", job.cached_files, job.found_files),
                format!(
                    "{} of {}",
                    ByteSize(job.cached_bytes),
                    ByteSize(job.found_bytes)
                ),
                ByteSize(job.fetched_bytes).to_string(),
                missing,
            ]);
        }
        writeln!(text, "{table}").ok();
    }
    text
}

fn state(job: &wire::Job) -> String {
    match job.state.as_str() {
        "running" => format!("{}, for {}s", job.step, job.elapsed_seconds),
        state => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_what_runs_and_how_the_rest_ended() {
        let running = wire::Job {
            path: "/".into(),
            state: "running".into(),
            step: "fetching".into(),
            elapsed_seconds: 7,
            found_files: 9,
            ..wire::Job::default()
        };
        let ended = wire::Job {
            path: "/train".into(),
            state: "incomplete".into(),
            missing_count: 31,
            ..wire::Job::default()
        };
        let report = Report {
            daemons: vec![wire::JobList {
                mount_point: "/mnt/data".into(),
                jobs: vec![running, ended],
            }],
        };
        let text = table(&report);
        for part in [
            "/mnt/data ",
            "fetching, for 7s",
            "0 of 9",
            "/mnt/data/train",
            "31",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
