// SPDX-License-Identifier: Apache-2.0
//! `make bench`: measures the release build and prints a table; `--json FILE` keeps the figures.
//! `--writes`, as `make bench-writes` says, measures writing in place of reading.
//!
//! `--quick` runs the same plan on a small data set, to see that it works; its figures mean nothing.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the command line"
)]

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use testkit::bench::report::Setting;
use testkit::bench::{run, writes};

fn main() -> Result<()> {
    let mut setting = Setting {
        latency_ms: 15,
        bandwidth_bytes: 200_000_000,
        large_bytes: 1 << 30,
        small_count: 4_000,
        small_bytes: 110 << 10,
        repeats: 3,
    };
    let mut json: Option<PathBuf> = None;
    let mut is_of_writes = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = Some(arguments.next().context("--json needs a file")?.into()),
            "--writes" => {
                is_of_writes = true;
                (setting.small_count, setting.small_bytes) = (1_000, 100 << 10);
            }
            "--quick" => {
                (setting.large_bytes, setting.small_count, setting.repeats) = (64 << 20, 200, 1);
            }
            other => bail!("'{other}' is not known: bench [--writes] [--quick] [--json FILE]"),
        }
    }
    if cfg!(debug_assertions) {
        eprintln!("this is not the release build: the figures mean little");
    }
    let say = |what: &str| eprintln!("{what}");
    let report = match is_of_writes {
        true => writes::run(&setting, say)?,
        false => run::run(&setting, say)?,
    };
    println!("{}", report.table());
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report).context("JSON")?;
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}
