// SPDX-License-Identifier: Apache-2.0
//! `forebay staged`: what was written and the storages do not have yet.
//!
//! It waits on the local disk and is tried again by itself; here it is shown, and given up where its
//! owner says so: when a storage will never take it.

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
use crate::cli::{StagedCommand, StagedDropArgs, StagedListArgs};
use crate::places;
use crate::records;
use crate::usage;

/// What waits is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// An upload that is under way ends first, within its deadline.
const DROP_MAX: Duration = Duration::from_secs(180);

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report {
    daemons: Vec<wire::StagedList>,
}

/// Carries a command out.
pub(crate) fn run(command: &StagedCommand, run_dir: Option<&Path>) -> Result<()> {
    match command {
        StagedCommand::List(args) => list(args, run_dir),
        StagedCommand::Drop(args) => give_up(args, run_dir),
    }
}

fn list(args: &StagedListArgs, run_dir: Option<&Path>) -> Result<()> {
    let daemons = daemons(&args.daemon, run_dir)?;
    let asked = daemons.iter().map(|daemon| async move {
        let client = Client::new(&daemon.socket);
        client.staged(PATIENCE).await
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
        if list.files.is_empty() {
            writeln!(text, "{}: the storages have everything", list.mount_point).ok();
            continue;
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["WAITS", "SIZE", "FOR", "WHY"]);
        for file in &list.files {
            let error = file.error.as_deref();
            table.add_row([
                format!("{}{}", list.mount_point, file.path),
                ByteSize(file.bytes).to_string(),
                format!("{}s", file.age_seconds),
                error.unwrap_or("is on its way").to_owned(),
            ]);
        }
        writeln!(text, "{table}").ok();
    }
    text
}

fn give_up(args: &StagedDropArgs, run_dir: Option<&Path>) -> Result<()> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let (daemon, path) = super::sync::choose(live, &args.path)?;
    let client = Client::new(&daemon.socket);
    let request = wire::DropStaged { path };
    let dropped = block_on(client.drop_staged(&request, DROP_MAX))?;
    let dropped = dropped.map_err(usage::if_invalid)?;
    super::tell(format_args!(
        "gave up what was not stored of {}{}: {}\n",
        daemon.mount_point.display(),
        dropped.path,
        ByteSize(dropped.bytes)
    ));
    for notice in &dropped.notices {
        super::tell(format_args!("  note: {notice}\n"));
    }
    Ok(())
}
