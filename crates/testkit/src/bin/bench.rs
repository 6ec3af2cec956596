// SPDX-License-Identifier: Apache-2.0
//! `make bench`: measures the release build and prints a table; `--json FILE` keeps the figures.
//! `--writes`, as `make bench-writes` says, measures writing in place of reading; `--operate`, as
//! `make bench-operate` says, loading and looking. `--namespace`, as `make bench-namespace` says, what
//! ten million files cost. `--peers`, as `make bench-peers` says, has other file systems do the reads. `--eviction`, as
//! `make bench-eviction` says, replays traces against eviction policies, or with `--trace` a file of
//! one `path size` a line; `--capacity` says how much of it is cached, half when it is not given.
//!
//! `--latency` and `--bandwidth` make the storage another one: in milliseconds, and in megabytes a
//! second, zero for no limit.
//!
//! `--quick` runs the same plan on a small data set, to see that it works; its figures mean nothing.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the command line"
)]

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use testkit::bench::eviction::traces::Trace;
use testkit::bench::report::Setting;
use testkit::bench::{eviction, namespace, operate, peers, run, writes};
use types::ByteSize;

/// Objects of a trace; more change nothing but the time it takes.
const OBJECTS: usize = 20_000;
/// Directories of a thousand files each.
const DIRECTORIES: usize = 10_000;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Reads,
    Writes,
    Operate,
    Namespace,
    Eviction,
    Peers,
}

struct Arguments {
    subject: Subject,
    is_quick: bool,
    trace: Option<PathBuf>,
    capacity: Option<ByteSize>,
    json: Option<PathBuf>,
    /// Of the storage, where it is to be another than usual.
    latency_ms: Option<u64>,
    /// Megabytes a second; zero for no limit.
    bandwidth: Option<u64>,
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    if cfg!(debug_assertions) {
        eprintln!("this is not the release build: the figures mean little");
    }
    let setting = setting(&arguments);
    let (table, json) = match arguments.subject {
        Subject::Reads => rendered(&run::run(&setting, say)?)?,
        Subject::Writes => rendered(&writes::run(&setting, say)?)?,
        Subject::Operate => rendered(&operate::run(&setting, say)?)?,
        Subject::Namespace => {
            let dirs = match arguments.is_quick {
                true => DIRECTORIES / 500,
                false => DIRECTORIES,
            };
            let report = namespace::run(dirs, say)?;
            (report.table(), serde_json::to_string_pretty(&report)?)
        }
        Subject::Eviction => {
            let report = evictions(&arguments)?;
            (report.table(), serde_json::to_string_pretty(&report)?)
        }
        Subject::Peers => {
            let report = peers::run(&setting, say)?;
            if let Some(json) = &arguments.json {
                let file = json.with_extension("svg");
                let picture = peers::plot::svg(&report);
                fs::write(&file, picture).with_context(|| format!("write {}", file.display()))?;
            }
            (report.table(), serde_json::to_string_pretty(&report)?)
        }
    };
    println!("{table}");
    if let Some(file) = arguments.json {
        fs::write(&file, json).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

fn say(what: &str) {
    eprintln!("{what}");
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments {
        subject: Subject::Reads,
        is_quick: false,
        trace: None,
        capacity: None,
        json: None,
        latency_ms: None,
        bandwidth: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let value = arguments.next();
            value.with_context(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--json" => found.json = Some(value()?.into()),
            "--latency" => found.latency_ms = Some(value()?.parse()?),
            "--bandwidth" => found.bandwidth = Some(value()?.parse()?),
            "--trace" => found.trace = Some(value()?.into()),
            "--capacity" => found.capacity = Some(value()?.parse()?),
            "--writes" => found.subject = Subject::Writes,
            "--operate" => found.subject = Subject::Operate,
            "--namespace" => found.subject = Subject::Namespace,
            "--eviction" => found.subject = Subject::Eviction,
            "--peers" => found.subject = Subject::Peers,
            "--quick" => found.is_quick = true,
            other => bail!(
                "'{other}' is not known: bench [--writes | --operate | --namespace | --peers | --eviction \
                 [--trace FILE] [--capacity SIZE]] [--latency MS] [--bandwidth MB/S] [--quick] \
                 [--json FILE]"
            ),
        }
    }
    if found.subject == Subject::Writes && found.bandwidth == Some(0) {
        bail!("--writes compares with the wire: give a --bandwidth above zero");
    }
    Ok(found)
}

fn setting(arguments: &Arguments) -> Setting {
    let mut setting = Setting {
        latency_ms: 15,
        bandwidth_bytes: 200_000_000,
        large_bytes: 1 << 30,
        small_count: 10_000,
        small_bytes: 110 << 10,
        repeats: 3,
    };
    if arguments.subject == Subject::Writes {
        (setting.small_count, setting.small_bytes) = (1_000, 100 << 10);
    }
    if let Some(latency) = arguments.latency_ms {
        setting.latency_ms = latency;
    }
    if let Some(bandwidth) = arguments.bandwidth {
        setting.bandwidth_bytes = bandwidth * 1_000_000;
    }
    if arguments.subject == Subject::Peers {
        (setting.large_bytes, setting.small_count) = (512 << 20, 2_000);
    }
    if arguments.is_quick {
        (setting.large_bytes, setting.small_count, setting.repeats) = (64 << 20, 200, 1);
    }
    setting
}

fn rendered(report: &testkit::bench::report::Report) -> Result<(String, String)> {
    Ok((report.table(), serde_json::to_string_pretty(report)?))
}

fn evictions(arguments: &Arguments) -> Result<eviction::Report> {
    let objects = if arguments.is_quick {
        OBJECTS / 10
    } else {
        OBJECTS
    };
    match &arguments.trace {
        None => eviction::run(objects, say),
        Some(file) => Ok(eviction::run_one(&trace(file, arguments.capacity)?)),
    }
}

fn trace(file: &Path, capacity: Option<ByteSize>) -> Result<Trace> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let name = file.display().to_string();
    Trace::parse(&name, &text, capacity.map(|size| size.0))
}
