// SPDX-License-Identifier: Apache-2.0
//! What reads cost beside their time: bytes that nobody wanted, processors, memory.

use anyhow::{Result, ensure};
use types::PAGE_SIZE;

use super::operate::of_the_daemon;
use super::report::{Row, Setting, Unit};
use super::run::{Bare, Plan};
use super::workload::{self, DataSet, Work};
use crate::data;
use crate::sandbox::{Mount, Sandbox, drop_kernel_caches};
use crate::storage::Storage;

/// Random reads of a cold file.
const READS: usize = 1000;
/// Bytes of one of them.
const BLOCK: usize = 4 << 10;
/// Readers of as many files, and the memory that they may take and need not care for.
const CROWD: usize = 64;
const MEMORY: [&str; 2] = ["200MiB", "4GiB"];
/// The first of these.
const MEMORY_MAX: u64 = 200 << 20;

/// Measures all of it on mounts with empty caches.
pub(super) fn run(
    setting: &Setting,
    storage: &Storage,
    data: &DataSet,
    rows: &mut Vec<Row>,
    say: &mut impl FnMut(&str),
) -> Result<()> {
    let bench = Bench {
        setting,
        storage,
        data,
    };
    say("what random reads fetch");
    rows.push(bench.fetched()?);
    say("what the processors do");
    bench.processors(rows)?;
    say("many readers with little memory");
    rows.push(bench.crowd()?);
    Ok(())
}

struct Bench<'a> {
    setting: &'a Setting,
    storage: &'a Storage,
    data: &'a DataSet,
}

impl Bench<'_> {
    fn mount<'s>(&self, sandbox: &'s Sandbox, memory: &str) -> Mount<'s> {
        let mounting = sandbox.mount(self.storage).flag("--memory", memory);
        let cache = format!("{}MiB", (self.setting.large_bytes >> 19) + 512);
        mounting.cache_size(&cache).start()
    }

    /// Bytes that come for random reads of a cold file, beside those of the pages that they lie in.
    fn fetched(&self) -> Result<Row> {
        let large = &self.data.large;
        let page = |index| {
            let block = data::pick(BLOCK as u64, index as u64, large.len / BLOCK);
            (block * BLOCK) as u64 / PAGE_SIZE
        };
        let pages: std::collections::HashSet<u64> = (0..READS).map(page).collect();
        let exact = Work {
            seconds: 1.0,
            bytes: pages.len() as u64 * PAGE_SIZE,
            count: 1,
        };
        let sandbox = Sandbox::new(self.storage).with_hedging();
        let mount = self.mount(&sandbox, MEMORY[0]);
        let asked = self.storage.requests();
        drop_kernel_caches();
        let done = workload::random(mount.point(), large, BLOCK, READS)?;
        let bytes = mount.status().number("/mounts/0/requests/bytes_read");
        let requests = self.storage.requests() - asked;
        mount.unmount();
        let plan = Plan {
            work: "1,000 random reads of 4 KiB, cold: fetched",
            unit: Unit::Total,
            goal: 0.80,
        };
        Ok(plan.less(
            Work { bytes, ..done },
            "the pages that they are in",
            exact,
            requests,
        ))
    }

    /// What a cold and a warm pass over the large file take of the processors.
    fn processors(&self, rows: &mut Vec<Row>) -> Result<()> {
        let bare = Bare {
            storage: self.storage,
            data: self.data,
        };
        let (_, bare) = bare.large_and_processor()?;
        let sandbox = Sandbox::new(self.storage).with_hedging();
        let mount = self.mount(&sandbox, MEMORY[0]);
        let pass = || {
            drop_kernel_caches();
            of_the_daemon(&mount, || {
                workload::sequential(mount.point(), &self.data.large).map(drop)
            })
        };
        let passes = [
            (pass()?, "processors, cold pass over the large file", 0.67),
            (pass()?, "the same when it is cached", 10.0),
        ];
        mount.unmount();
        let work = |seconds: f64| Work {
            seconds,
            bytes: 0,
            count: 1,
        };
        for (seconds, name, goal) in passes {
            let plan = Plan {
                work: name,
                unit: Unit::Milliseconds,
                goal,
            };
            let seconds = seconds.max(1e-3);
            rows.push(plan.less(work(seconds), "bare ranged GETs, cold", work(bare), 0));
        }
        Ok(())
    }

    /// Many sequential readers, with little memory and with much.
    fn crowd(&self) -> Result<Row> {
        let (mut done, mut highest, mut requests) = (Vec::new(), Vec::new(), 0);
        for memory in MEMORY {
            let sandbox = Sandbox::new(self.storage).with_hedging();
            let mount = self.mount(&sandbox, memory);
            drop_kernel_caches();
            requests = self.storage.requests();
            done.push(workload::parts(mount.point(), &self.data.large, CROWD)?);
            requests = self.storage.requests() - requests;
            highest.push(mount.memory("VmHWM"));
            mount.unmount();
        }
        ensure!(highest[0] <= MEMORY_MAX, "{} bytes of memory", highest[0]);
        let plan = Plan {
            work: "64 readers of cold parts, 200 MiB of memory",
            unit: Unit::Megabytes,
            goal: 0.90,
        };
        Ok(plan.row(done[0], "the same, 4 GiB of memory", done[1], requests))
    }
}
