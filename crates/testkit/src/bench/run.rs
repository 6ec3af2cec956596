// SPDX-License-Identifier: Apache-2.0
//! The plan of a run: prepare, measure the baselines, mount, measure the same work on the mount.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use super::bounds;
use super::http::Connection;
use super::report::{Machine, Report, Row, Setting, Unit};
use super::workload::{self, DataSet, Item, Work};
use crate::sandbox::{Mount, Sandbox, drop_kernel_caches};
use crate::storage::{BUCKET, Storage};
use crate::wait;

/// Readers of an epoch: the workers of a usual data loader.
pub(super) const READERS: usize = 4;
/// Connections of the bare client: twice as many gave nothing more over this wire.
pub(super) const CONNECTIONS: usize = 32;
/// Bytes of one ranged GET of the bare client.
const RANGE: usize = 8 << 20;
/// Random reads of one measurement.
const RANDOM_READS: usize = 4_000;
/// Directories of the tree that is walked before anything of it is known, and files in each.
const TREE: (usize, usize) = (40, 100);
/// Shards of the length of the large file together.
const SHARDS: usize = 8;
/// Directories of the tree that is walked when all of it is known; each has as many files as there are
/// small ones, and the first of them is the directory that is listed.
const WIDE: usize = 10;

/// Runs everything; `say` is told what is being done.
pub fn run(setting: &Setting, mut say: impl FnMut(&str)) -> Result<Report> {
    say("preparing the data set");
    let storage = Storage::s3();
    let local = TempDir::new().context("directory for the local copy")?;
    let mut data = prepare(setting, &storage, local.path())?;
    let both = |name: &str, content: &[u8]| put(&storage, local.path(), name, content);
    data.add_shards((SHARDS, setting.large_bytes / SHARDS), both)?;
    for index in 0..TREE.0 * TREE.1 {
        let name = format!("tree/{:02}/{index:05}", index / TREE.1);
        storage.put_bytes(name, b"of no interest");
    }
    for index in 0..WIDE * setting.small_count {
        let name = format!("wide/{:02}/{index:06}", index / setting.small_count);
        both(&name, b"of no interest")?;
    }
    storage
        .relay()
        .set_latency(Duration::from_millis(setting.latency_ms));
    storage.relay().set_bandwidth(setting.bandwidth());

    let sandbox = Sandbox::new(&storage).with_hedging();
    let cache = 2 * setting.large_bytes + setting.small_count * setting.small_bytes;
    let cache_size = format!("{}MiB", (cache >> 20) * 2 + 256);
    let mount = sandbox.mount(&storage).cache_size(&cache_size).start();
    let bench = Bench {
        setting,
        storage: &storage,
        data: &data,
        local: local.path(),
        mount: &mount,
    };
    let mut rows = Vec::new();
    bench.cold(&mut rows, &mut say)?;
    bench.warm(&mut rows, &mut say)?;
    let machine = Machine::of(&mount);
    let daemon_memory_bytes = mount.memory("VmHWM");
    mount.unmount();
    let again = || sandbox.mount(&storage).cache_size(&cache_size).start();
    rows.push(restarted(&data, (setting, &storage, local.path()), again)?);
    let spared = sandbox.mount(&storage).cache_size(&cache_size);
    let spared = spared.switch("--read-only").switch("--spare-opens");
    let mount = spared.flag("--freshness", "immutable").start();
    let bench = Bench {
        setting,
        storage: &storage,
        data: &data,
        local: local.path(),
        mount: &mount,
    };
    bench.spared(&mut rows, &mut say)?;
    mount.unmount();
    bounds::run(setting, &storage, &data, &mut rows, &mut say)?;
    Ok(Report {
        machine,
        setting: setting.clone(),
        rows,
        daemon_memory_bytes,
    })
}

/// Puts the same files into the storage and into a local directory.
pub(super) fn prepare(setting: &Setting, storage: &Storage, local: &Path) -> Result<DataSet> {
    let data = DataSet::new(
        setting.large_bytes,
        setting.small_count,
        setting.small_bytes,
        |name, content| put(storage, local, name, content),
    )?;
    storage.let_everybody_read_and_list();
    Ok(data)
}

fn put(storage: &Storage, local: &Path, name: &str, content: &[u8]) -> Result<()> {
    storage.put_bytes(name, content);
    let path = local.join(name);
    fs::create_dir_all(path.parent().context("names have a directory")?)?;
    fs::write(path, content).context("local copy")
}

/// An epoch over the small files, each time right after the daemon was started anew.
fn restarted<'a>(
    data: &DataSet,
    (setting, storage, local): (&Setting, &Storage, &Path),
    mount: impl Fn() -> Mount<'a>,
) -> Result<Row> {
    let plan = Plan {
        work: "warm epoch after a restart",
        unit: Unit::Files,
        goal: 0.85,
    };
    let epoch = |root: &Path, turn: usize| {
        drop_kernel_caches();
        workload::epoch(root, &data.small, READERS, turn as u64 + 1)
    };
    let (base, done, requests) = by_turns(
        setting.repeats,
        storage,
        |turn| epoch(local, turn),
        |turn| {
            let mount = mount();
            let done = epoch(mount.point(), turn);
            mount.unmount();
            done
        },
    )?;
    Ok(plan.row(done, "local disk", base, requests))
}

/// Two ways to the same bytes.
#[derive(Clone, Copy)]
struct Bench<'a> {
    setting: &'a Setting,
    storage: &'a Storage,
    data: &'a DataSet,
    local: &'a Path,
    mount: &'a Mount<'a>,
}

impl Bench<'_> {
    /// First reads, which go over the wire.
    fn cold(self, rows: &mut Vec<Row>, say: &mut impl FnMut(&str)) -> Result<()> {
        let data = self.data;
        say("cold: bare client");
        let bare = Bare {
            storage: self.storage,
            data,
        };
        let bare_large = bare.large()?;
        let bare_small = bare.small(CONNECTIONS)?;
        let bare_readers = bare.small(READERS)?;
        let bare_lists = bare.lists()?;
        say("cold: forebay");
        let mut cold =
            |row: Plan, work: &dyn Fn() -> Result<Work>, bases: &[(&'static str, Work)]| {
                drop_kernel_caches();
                let asked = self.storage.requests();
                let done = work()?;
                let requests = self.storage.requests() - asked;
                for (baseline, base) in bases {
                    rows.push(row.row(done, baseline, *base, requests));
                }
                anyhow::Ok(())
            };
        let point = self.mount.point();
        cold(
            Plan {
                work: "first walk and stat",
                unit: Unit::Files,
                goal: 0.83,
            },
            &|| workload::walk(&point.join("tree"), TREE.0 * TREE.1),
            &[("bare LISTs of 1,000 names", bare_lists)],
        )?;
        cold(
            Plan {
                work: "cold sequential",
                unit: Unit::Megabytes,
                goal: 0.97,
            },
            &|| workload::sequential(point, &data.large),
            &[("bare ranged GETs, 32 connections", bare_large)],
        )?;
        cold(
            Plan {
                work: "cold, 8 shards, 4 readers",
                unit: Unit::Megabytes,
                goal: 0.97,
            },
            &|| workload::shards(point, &data.shards, READERS),
            &[("bare ranged GETs, 32 connections", bare_large)],
        )?;
        cold(
            Plan {
                work: "cold epoch, small files",
                unit: Unit::Files,
                goal: 0.80,
            },
            &|| workload::epoch(point, &data.small, READERS, 1),
            &[
                ("bare GETs, 32 connections", bare_small),
                ("bare GETs, 4 connections", bare_readers),
            ],
        )?;
        let total = 2 * data.large.len as u64 + data.small_bytes();
        wait::until("all is in the cache", || {
            self.mount.status().number("/cache/used_bytes") >= total
        });
        Ok(())
    }

    /// Later reads, which have to come from the local disk.
    fn warm(self, rows: &mut Vec<Row>, say: &mut impl FnMut(&str)) -> Result<()> {
        let (large, small) = (&self.data.large, &self.data.small);
        // The names must be known and the large file verified before the kernel may have it.
        workload::walk(&self.mount.path("images"), small.len())?;
        let mut warm = |plan: Plan, drop: bool, work: &dyn Fn(&Path, u64) -> Result<Work>| {
            say(plan.work);
            rows.push(self.beside_the_disk(plan, drop, work)?);
            anyhow::Ok(())
        };
        let plan = |work, unit, goal| Plan { work, unit, goal };
        warm(
            plan("warm sequential", Unit::Megabytes, 0.95),
            true,
            &|root, _| workload::sequential(root, large),
        )?;
        warm(
            plan("warm, 8 shards, 4 readers", Unit::Megabytes, 0.95),
            true,
            &|root, _| workload::shards(root, &self.data.shards, READERS),
        )?;
        warm(
            plan("warm epoch, small files", Unit::Files, 0.90),
            true,
            &|root, seed| workload::epoch(root, small, READERS, seed),
        )?;
        warm(
            plan("warm epoch, kernel caches kept", Unit::Files, 0.45),
            false,
            &|root, seed| workload::epoch(root, small, READERS, seed),
        )?;
        warm(
            plan("random reads of 4 KiB", Unit::Reads, 0.95),
            true,
            &|root, _| workload::random(root, large, 4 << 10, RANDOM_READS),
        )?;
        warm(
            plan("random reads of 128 KiB", Unit::Reads, 0.95),
            true,
            &|root, _| workload::random(root, large, 128 << 10, RANDOM_READS / 2),
        )?;
        warm(plan("walk and stat", Unit::Files, 1.2), true, &|root, _| {
            workload::walk(&root.join("images"), small.len())
        })?;
        let wide = WIDE * small.len();
        workload::walk(&self.mount.path("wide"), wide)?;
        warm(
            plan(
                "walk and stat of a tree ten times as large",
                Unit::Files,
                1.2,
            ),
            true,
            &|root, _| workload::walk(&root.join("wide"), wide),
        )?;
        warm(
            plan("list of a directory of as many names", Unit::Files, 0.60),
            true,
            &|root, _| workload::list(&root.join("wide/00"), small.len()),
        )
    }

    /// Later reads of a read-only mount whose kernel opens files by itself, right after a restart.
    fn spared(self, rows: &mut Vec<Row>, say: &mut impl FnMut(&str)) -> Result<()> {
        let small = &self.data.small;
        workload::walk(&self.mount.path("images"), small.len())?;
        for (work, drop, goal) in [
            ("warm epoch, opens spared", true, 0.90),
            ("warm epoch, opens spared, kernel caches kept", false, 0.75),
        ] {
            say(work);
            let plan = Plan {
                work,
                unit: Unit::Files,
                goal,
            };
            rows.push(self.beside_the_disk(plan, drop, &|root, seed| {
                workload::epoch(root, small, READERS, seed)
            })?);
        }
        Ok(())
    }

    /// Does some work on the local disk and on the mount, by turns.
    fn beside_the_disk(
        self,
        plan: Plan,
        drop: bool,
        work: &dyn Fn(&Path, u64) -> Result<Work>,
    ) -> Result<Row> {
        let at = |root: &Path, turn: usize| {
            if drop {
                drop_kernel_caches();
            }
            work(root, turn as u64 + 1)
        };
        let (local, point) = (self.local, self.mount.point());
        if !drop {
            work(local, 0)?;
            work(point, 0)?;
        }
        let (base, done, requests) = by_turns(
            self.setting.repeats,
            self.storage,
            |turn| at(local, turn),
            |turn| at(point, turn),
        )?;
        Ok(plan.row(done, "local disk", base, requests))
    }
}

/// Does two things a few times, by turns, so that both meet the machine as it is in the same minutes;
/// returns the runs of median time, and how many requests to the storage the second made in all.
pub(super) fn by_turns(
    repeats: usize,
    storage: &Storage,
    mut base: impl FnMut(usize) -> Result<Work>,
    mut work: impl FnMut(usize) -> Result<Work>,
) -> Result<(Work, Work, u64)> {
    let (mut bases, mut runs, mut requests) = (Vec::new(), Vec::new(), 0);
    for turn in 0..repeats {
        bases.push(base(turn)?);
        let asked = storage.requests();
        runs.push(work(turn)?);
        requests += storage.requests() - asked;
    }
    let middle = |runs: &mut Vec<Work>| {
        runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        runs[runs.len() / 2]
    };
    Ok((middle(&mut bases), middle(&mut runs), requests))
}

/// The bare client.
#[derive(Clone, Copy)]
pub(super) struct Bare<'a> {
    pub(super) storage: &'a Storage,
    pub(super) data: &'a DataSet,
}

impl Bare<'_> {
    /// Gets the large object in parallel ranges, as fast as the wire gives it.
    pub(super) fn large(self) -> Result<Work> {
        Ok(self.large_and_processor()?.0)
    }

    /// The same, with the seconds of the processors that it took.
    pub(super) fn large_and_processor(self) -> Result<(Work, f64)> {
        let Item {
            name, seed, len, ..
        } = &self.data.large;
        let path = format!("/{BUCKET}/{name}");
        let ranges: Vec<usize> = (0..len.div_ceil(RANGE)).collect();
        let endpoint = self.storage.relay().endpoint();
        let mut first = Vec::new();
        Connection::new(endpoint).get(&path, Some((0, 4096)), &mut first)?;
        ensure!(
            crate::data::check(*seed, 0, &first).is_ok(),
            "the bare client gets wrong bytes"
        );
        // The relay has threads in this process, too.
        let processor_ns = AtomicU64::new(0);
        let work = workload::timed(|| {
            let client = || (Connection::new(endpoint), Vec::new());
            workload::in_parallel(&ranges, CONNECTIONS, client, |(connection, body), index| {
                let start = index * RANGE;
                let part = RANGE.min(len - start);
                let before = clock_gettime(ClockId::ThreadCPUTime);
                connection.get(&path, Some((start as u64, part as u64)), body)?;
                let took = clock_gettime(ClockId::ThreadCPUTime) - before;
                let took =
                    u64::try_from(took.tv_nsec)? + 1_000_000_000 * u64::try_from(took.tv_sec)?;
                processor_ns.fetch_add(took, Ordering::Relaxed);
                ensure!(body.len() == part, "a short answer");
                // The sum is of no use for a part; it costs what it costs the other contestants.
                std::hint::black_box(workload::checksum(0, body));
                Ok(())
            })?;
            Ok((1, *len as u64))
        })?;
        Ok((work, processor_ns.into_inner() as f64 / 1e9))
    }

    /// Lists the tree that nobody knows yet, all levels at once.
    pub(super) fn lists(self) -> Result<Work> {
        let mut connection = Connection::new(self.storage.relay().endpoint());
        let first = format!("/{BUCKET}?list-type=2&prefix=tree%2F");
        let (mut path, mut body) = (first.clone(), Vec::new());
        workload::timed(|| {
            let mut names = 0;
            loop {
                connection.get(&path, None, &mut body)?;
                let page = String::from_utf8_lossy(&body);
                names += page.matches("<Key>").count();
                let (_, rest) = match page.split_once("<NextContinuationToken>") {
                    Some(split) => split,
                    None => break,
                };
                let token = rest.split('<').next().unwrap_or_default();
                let token = token
                    .replace('+', "%2B")
                    .replace('/', "%2F")
                    .replace('=', "%3D");
                path = format!("{first}&continuation-token={token}");
            }
            ensure!(
                names == TREE.0 * TREE.1,
                "the bare client lists {names} names"
            );
            Ok((names as u64, 0))
        })
    }

    /// Gets every small object.
    pub(super) fn small(self, connections: usize) -> Result<Work> {
        let items = &self.data.small;
        let order = crate::data::shuffled(1, items.len());
        let endpoint = self.storage.relay().endpoint();
        workload::timed(|| {
            let client = || (Connection::new(endpoint), Vec::new());
            workload::in_parallel(&order, connections, client, |(connection, body), index| {
                let item = &items[index];
                connection.get(&format!("/{BUCKET}/{}", item.name), None, body)?;
                ensure!(
                    workload::checksum(0, body) == item.sum,
                    "wrong bytes of {}",
                    item.name
                );
                Ok(())
            })?;
            Ok((items.len() as u64, self.data.small_bytes()))
        })
    }
}

/// What a row is about.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) work: &'static str,
    pub(super) unit: Unit,
    pub(super) goal: f64,
}

impl Plan {
    /// A row of which more is better.
    pub(super) fn row(self, done: Work, baseline: &'static str, base: Work, requests: u64) -> Row {
        let Plan { work, unit, goal } = self;
        let (forebay, baseline_value) = (unit.of(done), unit.of(base));
        let ratio = forebay / baseline_value;
        Row {
            work,
            unit,
            forebay,
            baseline,
            baseline_value,
            ratio,
            goal,
            requests,
        }
    }

    /// A row of which less is better.
    pub(super) fn less(self, done: Work, baseline: &'static str, base: Work, requests: u64) -> Row {
        let row = self.row(done, baseline, base, requests);
        Row {
            ratio: 1.0 / row.ratio,
            ..row
        }
    }
}
