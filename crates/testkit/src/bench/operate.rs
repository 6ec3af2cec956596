// SPDX-License-Identifier: Apache-2.0
//! The plan of `make bench-operate`: what it costs to look, how fast the answer comes, and how fast
//! a load is.
//!
//! A load is compared with the bare client that gets the same objects over the same wire. What it
//! costs that `forebay stats` and a scraper of metrics look each second is told as processor time: it
//! is far below what a throughput differs by from one reading to the next. At last `forebay status`
//! is run while readers keep the wire and both doors busy; its time is that of the whole command.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use types::{Clock, SystemClock};

use super::http::Connection;
use super::report::{Machine, Report, Row, Setting, Unit};
use super::run::{Bare, CONNECTIONS, Plan, READERS, by_turns, prepare};
use super::workload::{self, DataSet, Work};
use crate::sandbox::{Mount, Mounting, Sandbox};
use crate::storage::Storage;
use crate::wait;

/// For how long it is measured what looking costs.
const LOOKED: Duration = Duration::from_secs(10);
/// How often a scraper asks. Prometheus does every 15 s or more.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What looking may take of each second, in milliseconds.
const LOOK_MAX: f64 = 10.0;
/// How often `forebay status` is run under load.
const ASKED: usize = 50;
/// What `forebay status` may take, in milliseconds.
const STATUS_MAX: f64 = 50.0;

/// Runs everything; `say` is told what is being done.
pub fn run(setting: &Setting, mut say: impl FnMut(&str)) -> Result<Report> {
    say("preparing the data set");
    let storage = Storage::s3();
    let local = TempDir::new().context("directory for the local copy")?;
    let data = prepare(setting, &storage, local.path())?;
    let relay = storage.relay();
    relay.set_latency(Duration::from_millis(setting.latency_ms));
    relay.set_bandwidth(setting.bandwidth());
    let bench = Bench {
        setting,
        storage: &storage,
        data: &data,
    };
    say("load");
    let mut rows = vec![bench.load()?];
    say("what looking costs");
    let sandbox = Sandbox::new(&storage).with_hedging();
    let listening = bench.mounting(&sandbox);
    let listening = listening.flag("--metrics-listen", "127.0.0.1:0");
    let told = listening.run().success();
    let mount = Mount::of(&sandbox, sandbox.point());
    let address = told.split_once("http://").and_then(|(_, rest)| {
        let (address, _) = rest.split_once("/metrics")?;
        Some(address)
    });
    let address = address.context("where metrics are is not told")?;
    rows.push(bench.looking(&sandbox, &mount, address)?);
    say("status under load");
    rows.push(bench.status(&sandbox, &mount)?);
    let machine = Machine::of(&mount);
    let daemon_memory_bytes = mount.memory("VmHWM");
    mount.unmount();
    Ok(Report {
        machine,
        setting: setting.clone(),
        rows,
        daemon_memory_bytes,
    })
}

struct Bench<'a> {
    setting: &'a Setting,
    storage: &'a Storage,
    data: &'a DataSet,
}

impl Bench<'_> {
    /// A mount with room for the small files, and so little more that the large one is never cached
    /// whole: to read it keeps the wire busy.
    fn mounting<'s>(&self, sandbox: &'s Sandbox) -> Mounting<'s> {
        let small = self.data.small_bytes();
        let cache = format!("{}MiB", (small >> 20) + (small >> 23) + 128);
        sandbox.mount(self.storage).cache_size(&cache)
    }

    /// Each turn with a cache that is empty.
    fn load(&self) -> Result<Row> {
        let bare = Bare {
            storage: self.storage,
            data: self.data,
        };
        let (base, done, requests) = by_turns(
            self.setting.repeats,
            self.storage,
            |_| bare.small(CONNECTIONS),
            |_| {
                let sandbox = Sandbox::new(self.storage).with_hedging();
                let mount = self.mounting(&sandbox).start();
                let path = mount.path("images");
                let done = workload::timed(|| {
                    sandbox.run(&["load".as_ref(), path.as_os_str()]).success();
                    Ok((self.data.small.len() as u64, self.data.small_bytes()))
                })?;
                let cached = mount.status().number("/cache/used_bytes");
                ensure!(cached >= self.data.small_bytes(), "not all is loaded");
                mount.unmount();
                Ok(done)
            },
        )?;
        let plan = Plan {
            work: "load of all small files",
            unit: Unit::Files,
            goal: 0.90,
        };
        Ok(plan.row(done, "bare GETs, 32 connections", base, requests))
    }

    /// Seconds of the processors that a second of looking takes: of the daemon, beyond what it takes
    /// while nobody looks, and of `forebay stats`.
    fn looking(&self, sandbox: &Sandbox, mount: &Mount<'_>, address: &str) -> Result<Row> {
        let images = mount.path("images");
        sandbox
            .run(&["load".as_ref(), images.as_os_str()])
            .success();
        // The daemon knows all of them.
        workload::epoch(mount.point(), &self.data.small, READERS, 1)?;
        let idle = of_the_daemon(mount, || {
            wait::holds_within(LOOKED, || false);
            Ok(())
        })?;
        let mut stats = 0.0;
        let looked = of_the_daemon(mount, || {
            stats = looked_at(sandbox, mount, address)?;
            Ok(())
        })?;
        let taken = (looked - idle).max(0.0) + stats;
        let each = 1e3 * taken / LOOKED.as_secs_f64();
        Ok(Row {
            work: "processor time of stats and metrics, each second",
            unit: Unit::Milliseconds,
            forebay: each,
            baseline: "1 % of a core",
            baseline_value: LOOK_MAX,
            ratio: LOOK_MAX / each,
            goal: 1.0,
            requests: 0,
        })
    }

    /// `forebay status` while everything is busy.
    fn status(&self, sandbox: &Sandbox, mount: &Mount<'_>) -> Result<Row> {
        let done = AtomicBool::new(false);
        let busy = |work: &(dyn Fn() -> Result<Work> + Sync)| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                work()?;
            }
            Ok(())
        };
        let point = mount.point();
        let asked = self.storage.requests();
        let mut times = std::thread::scope(|scope| {
            let warm = || workload::epoch(point, &self.data.small, READERS, 1);
            let cold = || workload::sequential(point, &self.data.large);
            let readers = [
                scope.spawn(move || busy(&warm)),
                scope.spawn(move || busy(&cold)),
            ];
            let times = (0..ASKED).map(|_| {
                let one = workload::timed(|| {
                    let words = ["status".as_ref(), point.as_os_str()];
                    ensure!(sandbox.run(&words).status.success(), "status fails");
                    Ok((1, 0))
                });
                Ok(one?.seconds * 1e3)
            });
            let times = times.collect::<Result<Vec<f64>>>();
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                reader.join().expect("readers do not panic")?;
            }
            times
        })?;
        let requests = self.storage.requests() - asked;
        ensure!(requests > 0, "the wire was not busy");
        times.sort_by(f64::total_cmp);
        let most = times[times.len() * 95 / 100];
        Ok(Row {
            work: "status under load, 95 of 100",
            unit: Unit::Milliseconds,
            forebay: most,
            baseline: "at most",
            baseline_value: STATUS_MAX,
            ratio: STATUS_MAX / most,
            goal: 1.0,
            requests,
        })
    }
}

/// Returns the processor time that the daemon takes meanwhile.
pub(super) fn of_the_daemon(
    mount: &Mount<'_>,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<f64> {
    let before = processor_seconds(mount.pid())?;
    meanwhile()?;
    Ok(processor_seconds(mount.pid())? - before)
}

/// Returns the processor time that a process has taken, of all its threads: in nanoseconds, where the
/// usual counters have ticks of ten milliseconds.
fn processor_seconds(pid: i32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_ascii_whitespace().next();
        let taken: f64 = first.context("an empty schedstat")?.parse()?;
        nanoseconds += taken;
    }
    Ok(nanoseconds / 1e9)
}

/// Has `forebay stats` run for a while, and metrics scraped; returns the processor time of the first.
fn looked_at(sandbox: &Sandbox, mount: &Mount<'_>, address: &str) -> Result<f64> {
    let shown = sandbox.dir().join("stats");
    let mut stats = Stats::start(sandbox, mount, &shown)?;
    let (mut connection, mut body) = (Connection::new(address), Vec::new());
    let begun = SystemClock.now();
    while SystemClock.now() - begun < LOOKED {
        connection.get("/metrics", None, &mut body)?;
        wait::holds_within(LOOK_EVERY, || false);
    }
    let pid = i32::try_from(stats.0.id()).context("process ids are small")?;
    let taken = processor_seconds(pid)?;
    stats.end()?;
    let lines = fs::read_to_string(&shown)?.lines().count();
    ensure!(lines > 2, "stats showed nothing");
    Ok(taken)
}

/// `forebay stats` in the background; ended when it is dropped.
struct Stats(Child);

impl Stats {
    fn start(sandbox: &Sandbox, mount: &Mount<'_>, shown: &Path) -> Result<Stats> {
        let mut command = sandbox.command();
        command.arg("stats").arg(mount.point());
        command.stdout(fs::File::create(shown)?);
        command.stderr(Stdio::null());
        Ok(Stats(command.spawn().context("forebay stats")?))
    }

    fn end(&mut self) -> Result<()> {
        self.0.kill().context("end forebay stats")?;
        self.0.wait().context("end forebay stats")?;
        Ok(())
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        // After a failure; else it is gone already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
