// SPDX-License-Identifier: Apache-2.0
//! The reads of the benchmark on other file systems over the same storage and wire.
//!
//! [`run`] mounts one contestant after the other, each with an empty cache directory of its own, and
//! has all do what `workload.rs` does. A contestant that is not installed, does not mount or fails at
//! some work is said so in its column. [`programs`] knows how each is started; [`plot`] draws.
//! The local disk and a bare client, as in `run.rs`, stand beside them.

pub mod plot;
pub mod programs;
pub mod report;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::report::{Machine, Setting, Unit};
use super::run::{self, Bare, READERS};
use super::workload::{self, DataSet, Work};
use crate::sandbox::{Sandbox, drop_kernel_caches};
use crate::storage::Storage;
use crate::wait;
use programs::{Mounted, Peer, Place};
use report::{Figure, Report, Row};

/// How long a contestant may go on writing to its cache after a cold read.
const SETTLE: Duration = Duration::from_secs(30);
/// Random reads of one measurement.
const RANDOM_READS: usize = 2_000;

/// A piece of work that all do.
struct Plan {
    work: &'static str,
    unit: Unit,
    /// Kernel caches are dropped before.
    drops: bool,
    /// Only the first time counts.
    is_cold: bool,
    does: fn(&Path, &DataSet, u64) -> Result<Work>,
}

const PLANS: [Plan; 8] = [
    Plan {
        work: "cold sequential",
        unit: Unit::Megabytes,
        drops: true,
        is_cold: true,
        does: |root, data, _| workload::sequential(root, &data.large),
    },
    Plan {
        work: "cold epoch, small files",
        unit: Unit::Files,
        drops: true,
        is_cold: true,
        does: |root, data, _| workload::epoch(root, &data.small, READERS, 1),
    },
    Plan {
        work: "warm sequential",
        unit: Unit::Megabytes,
        drops: true,
        is_cold: false,
        does: |root, data, _| workload::sequential(root, &data.large),
    },
    Plan {
        work: "warm epoch, small files",
        unit: Unit::Files,
        drops: true,
        is_cold: false,
        does: |root, data, seed| workload::epoch(root, &data.small, READERS, seed),
    },
    Plan {
        work: "warm epoch, kernel caches kept",
        unit: Unit::Files,
        drops: false,
        is_cold: false,
        does: |root, data, seed| workload::epoch(root, &data.small, READERS, seed),
    },
    Plan {
        work: "random reads of 4 KiB",
        unit: Unit::Reads,
        drops: true,
        is_cold: false,
        does: |root, data, _| workload::random(root, &data.large, 4 << 10, RANDOM_READS),
    },
    Plan {
        work: "random reads of 128 KiB",
        unit: Unit::Reads,
        drops: true,
        is_cold: false,
        does: |root, data, _| workload::random(root, &data.large, 128 << 10, RANDOM_READS / 2),
    },
    Plan {
        work: "walk and stat",
        unit: Unit::Files,
        drops: true,
        is_cold: false,
        does: |root, data, _| workload::walk(&root.join("images"), data.small.len()),
    },
];

/// Runs everything; `say` is told what is being done.
pub fn run(setting: &Setting, mut say: impl FnMut(&str)) -> Result<Report> {
    say("preparing the data set");
    let storage = Storage::s3();
    let local = TempDir::new().context("directory for the local copy")?;
    let data = run::prepare(setting, &storage, local.path())?;
    let mut report = Report::new(Machine::here("several".into()), setting.clone());
    let peers = Peer::ALL.map(|peer| (peer, peer.prepare(&storage, local.path())));
    let relay = storage.relay();
    relay.set_latency(Duration::from_millis(setting.latency_ms));
    relay.set_bandwidth(setting.bandwidth());

    say("bare client and local disk");
    let bare = Bare {
        storage: &storage,
        data: &data,
    };
    report.contestant(
        "bare client",
        "",
        "GETs over 32 connections, ranges of 8 MiB",
    );
    let cold = [bare.large()?, bare.small(run::CONNECTIONS)?];
    for (plan, work) in PLANS.iter().zip(cold) {
        figure(
            &mut report,
            plan,
            "bare client",
            Figure::Value(plan.unit.of(work)),
        );
    }
    report.contestant("local disk", "", "the disk of all the caches");
    let bench = Bench {
        setting,
        data: &data,
    };
    bench.work(&mut report, "local disk", local.path(), |_| (), &PLANS[2..]);

    say("forebay");
    forebay(&bench, &storage, &mut report);
    for (peer, prepared) in peers {
        say(peer.name());
        let started = prepared.and_then(|prepared| Place::new(&storage, prepared)?.mount(peer));
        match started {
            Ok(mounted) => peer_works(&bench, peer, &mounted, &mut report),
            Err(error) => report.absent(peer.name(), &format!("{error:#}")),
        }
    }
    Ok(report)
}

fn forebay(bench: &Bench<'_>, storage: &Storage, report: &mut Report) {
    let sandbox = Sandbox::new(storage).with_hedging();
    let total = bench.data.large.len as u64 + bench.data.small_bytes();
    let size = format!("{}MiB", (total >> 20) * 2 + 256);
    let mounting = sandbox.mount(storage).cache_size(&size);
    let mount = mounting.flag("--preset", "training").start();
    let version = mount.status().0["version"].to_string();
    let command = format!(
        "forebay mount s3://data MNT --endpoint ENDPOINT --cache-size {size} --preset training"
    );
    report.contestant("forebay", version.trim_matches('"'), &command);
    let settled = |_: &Path| {
        let all_is_cached = || mount.status().number("/cache/used_bytes") >= total;
        wait::holds_within(SETTLE, all_is_cached);
    };
    bench.work(report, "forebay", mount.point(), settled, &PLANS);
    mount.unmount();
}

fn peer_works(bench: &Bench<'_>, peer: Peer, mounted: &Mounted, report: &mut Report) {
    report.contestant(peer.name(), &mounted.version, &mounted.command);
    let settled = |_: &Path| {
        let (mut before, mut looks) = (0, 0);
        wait::holds_within(SETTLE, || {
            let now = mounted.cached_bytes();
            looks = if now == before { looks + 1 } else { 0 };
            before = now;
            looks >= 50
        });
    };
    bench.work(report, peer.name(), mounted.root(), settled, &PLANS);
}

struct Bench<'a> {
    setting: &'a Setting,
    data: &'a DataSet,
}

impl Bench<'_> {
    /// Has a contestant do all the work; `settled` waits for what it still does after cold reads.
    fn work(
        &self,
        report: &mut Report,
        contestant: &'static str,
        root: &Path,
        settled: impl Fn(&Path),
        plans: &[Plan],
    ) {
        for plan in plans {
            let done = match plan.is_cold {
                true => {
                    drop_kernel_caches();
                    (plan.does)(root, self.data, 1)
                }
                false => self.median(plan, root),
            };
            let outcome = match done {
                Ok(work) => Figure::Value(plan.unit.of(work)),
                Err(error) => Figure::Failed(format!("{error:#}")),
            };
            figure(report, plan, contestant, outcome);
            if plan.is_cold {
                settled(root);
            }
        }
    }

    fn median(&self, plan: &Plan, root: &Path) -> Result<Work> {
        if !plan.drops {
            (plan.does)(root, self.data, 0)?;
        }
        let mut runs = Vec::new();
        for repeat in 1..=self.setting.repeats {
            if plan.drops {
                drop_kernel_caches();
            }
            runs.push((plan.does)(root, self.data, repeat as u64)?);
        }
        runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        Ok(runs[runs.len() / 2])
    }
}

fn figure(report: &mut Report, plan: &Plan, contestant: &str, figure: Figure) {
    let place = report.rows.iter().position(|row| row.work == plan.work);
    let place = place.unwrap_or_else(|| {
        report.rows.push(Row::new(plan.work, plan.unit));
        report.rows.len() - 1
    });
    report.rows[place]
        .figures
        .insert(contestant.to_owned(), figure);
}

/// Returns what the files below a directory take on the disk.
fn disk_usage(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_usage(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests;
