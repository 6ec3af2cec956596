// SPDX-License-Identifier: Apache-2.0
//! The plan of `make bench-writes`: files that are written, durable when the call returns.
//!
//! What a mount in `through` does is compared with a bare client that uploads the same bytes over the
//! same wire; what one in `back` does, with the local disk that holds the staged files. Each file is
//! synced, and what the storage has in the end is compared with what was written. The server keeps its
//! objects in memory, so that it takes nothing of the disk that the mount writes to.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::http::Connection;
use super::multipart::Uploader;
use super::report::{Machine, Report, Row, Setting, Unit};
use super::run::{Plan, by_turns};
use super::workload::{self, Work};
use crate::data;
use crate::sandbox::{Mount, Sandbox, drop_kernel_caches};
use crate::storage::{BUCKET, Storage};

/// Bytes of one part of the bare client.
const PART: usize = 8 << 20;
/// Parts of the bare client at a time: as many as the product sends of one file.
const PARTS_AT_ONCE: usize = 8;
/// What a copying tool writes at a time.
const PIECE: usize = 1 << 20;
/// Bytes a second that are uploaded while it is measured how fast something is acknowledged.
const SLOW: u64 = 20_000_000;
/// Files of the tree that is cloned.
const CLONED: usize = 2_000;
/// Files that are written at once to see how much memory that takes, their length, and the memory
/// that the daemon may take for data.
const CROWD: (usize, usize, &str) = (32, 64 << 20, "200MiB");

/// Runs everything; `say` is told what is being done.
pub fn run(setting: &Setting, mut say: impl FnMut(&str)) -> Result<Report> {
    let storage = Storage::s3_in_memory();
    storage.let_everybody_write();
    let relay = storage.relay();
    relay.set_upload_bandwidth(setting.bandwidth());
    relay.set_bandwidth(setting.bandwidth());
    relay.set_latency(Duration::from_millis(setting.latency_ms));
    let local = TempDir::new().context("directory for the local copies")?;
    let bench = Bench {
        setting,
        storage: &storage,
        large: data::bytes(1, setting.large_bytes),
        small: data::bytes(2, setting.small_bytes),
    };
    let mut rows = Vec::new();
    let (through, back) = (Sandbox::new(&storage), Sandbox::new(&storage));
    let mount = |sandbox, mode| {
        let sandbox: &Sandbox = sandbox;
        let mounting = sandbox.mount(&storage).flag("--write-mode", mode);
        mounting.cache_size("8GiB").start()
    };
    say("through");
    let mounted = mount(&through, "through");
    bench.through(&mounted, &mut rows)?;
    let machine = Machine::of(&mounted);
    mounted.unmount();
    say("back");
    let mounted = mount(&back, "back");
    bench.back((&back, &mounted), local.path(), &mut rows)?;
    relay.set_upload_bandwidth(setting.bandwidth());
    mounted.unmount();
    say("many writers");
    let daemon_memory_bytes = bench.crowd(&mut rows)?;
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
    large: Vec<u8>,
    small: Vec<u8>,
}

impl Bench<'_> {
    /// Durable in the storage.
    fn through(&self, mount: &Mount<'_>, rows: &mut Vec<Row>) -> Result<()> {
        let (large, small) = (&self.large, &self.small);
        let point = mount.point();
        let uploader = Uploader::new(self.storage)?;
        let (base, done, requests) = self.medians(
            |turn| self.bare_large(&uploader, &format!("bare-{turn}")),
            |turn| write_large(point, &format!("large-{turn}"), large),
        )?;
        let plan = Plan {
            work: "one large file, through",
            unit: Unit::Megabytes,
            goal: 0.95,
        };
        rows.push(plan.row(
            done,
            "bare multipart upload, 8 parts at once",
            base,
            requests,
        ));
        let stored = fs::read(self.storage.root().join("large-0")).context("the object")?;
        ensure!(stored == *large, "the storage has other bytes");
        for (writers, work, baseline) in [
            (
                4,
                "small files, 4 writers, through",
                "bare PUTs, 4 connections",
            ),
            (
                16,
                "small files, 16 writers, through",
                "bare PUTs, 16 connections",
            ),
        ] {
            let dir = |who: &str, turn: usize| format!("{who}-{writers}-{turn}");
            let (base, done, requests) = self.medians(
                |turn| self.bare_small(&dir("bare", turn), writers),
                |turn| self.write_small(point, &dir("small", turn), writers),
            )?;
            let plan = Plan {
                work,
                unit: Unit::Files,
                goal: 0.90,
            };
            rows.push(plan.row(done, baseline, base, requests));
            let stored = fs::read(self.storage.root().join(dir("small", 0)).join("00007"));
            ensure!(stored? == *small, "the storage has other bytes");
        }
        let read = |path: &Path| {
            drop_kernel_caches();
            workload::timed(|| {
                let bytes = fs::read(path)?;
                ensure!(bytes == *large, "other bytes are read back");
                Ok((1, bytes.len() as u64))
            })
        };
        let base = read(&self.storage.root().join("large-0"))?;
        let asked = self.storage.requests();
        let done = read(&mount.path("large-0"))?;
        let plan = Plan {
            work: "what was written, read back",
            unit: Unit::Megabytes,
            goal: 0.95,
        };
        rows.push(plan.row(done, "local disk", base, self.storage.requests() - asked));
        Ok(())
    }

    /// Durable on the local disk.
    fn back(
        &self,
        (sandbox, mount): (&Sandbox, &Mount<'_>),
        local: &Path,
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        let point = mount.point();
        let relay = self.storage.relay();
        let mut compare = |plan: Plan, work: &dyn Fn(&Path, usize) -> Result<Work>| {
            let (base, done, _) = self.medians(
                |turn| work(local, turn),
                |turn| {
                    // The server is not to take the cores meanwhile.
                    relay.set_upload_bandwidth(Some(SLOW));
                    let done = work(point, turn);
                    relay.set_upload_bandwidth(None);
                    let point = point.to_string_lossy();
                    sandbox.run(&["sync", &point, "--wait"]).success();
                    done
                },
            )?;
            rows.push(plan.row(done, "local disk", base, 0));
            anyhow::Ok(())
        };
        compare(
            Plan {
                work: "one large file, back",
                unit: Unit::Megabytes,
                goal: 0.80,
            },
            &|root, turn| write_large(root, &format!("back-{turn}"), &self.large),
        )?;
        for (writers, work) in [
            (4, "small files, 4 writers, back"),
            (16, "small files, 16 writers, back"),
        ] {
            let plan = Plan {
                work,
                unit: Unit::Files,
                goal: 0.50,
            };
            compare(plan, &|root, turn| {
                self.write_small(root, &format!("back-{writers}-{turn}"), writers)
            })?;
        }
        let origin = TempDir::new().context("directory of the tree to clone")?;
        make_repository(origin.path())?;
        compare(
            Plan {
                work: "git clone of 2,000 files, back",
                unit: Unit::Files,
                goal: 0.33,
            },
            &|root, turn| clone(origin.path(), &root.join(format!("clone-{turn}"))),
        )
    }

    /// Writes many large files at once and returns how much memory the daemon took at most.
    fn crowd(&self, rows: &mut Vec<Row>) -> Result<u64> {
        let (writers, len, memory) = CROWD;
        let len = len.min(self.large.len());
        let sandbox = Sandbox::new(self.storage);
        let mounting = sandbox.mount(self.storage).flag("--memory", memory);
        let mount = mounting.cache_size("8GiB").start();
        let all: Vec<usize> = (0..writers).collect();
        let (point, content) = (mount.point(), &self.large[..len]);
        let done = workload::timed(|| {
            workload::in_parallel(
                &all,
                writers,
                || (),
                |(), index| {
                    let name = format!("crowd-{index}");
                    write_large(point, &name, content)?;
                    Ok(())
                },
            )?;
            Ok((writers as u64, (writers * len) as u64))
        })?;
        let base = Work {
            seconds: done.bytes as f64 / self.setting.bandwidth_bytes as f64,
            ..done
        };
        let plan = Plan {
            work: "32 large files at once, through, 200 MiB of memory",
            unit: Unit::Megabytes,
            goal: 0.90,
        };
        rows.push(plan.row(done, "the wire", base, 0));
        let most = mount.memory("VmHWM");
        mount.unmount();
        Ok(most)
    }

    fn medians(
        &self,
        base: impl FnMut(usize) -> Result<Work>,
        work: impl FnMut(usize) -> Result<Work>,
    ) -> Result<(Work, Work, u64)> {
        by_turns(self.setting.repeats, self.storage, base, work)
    }

    /// Makes small files, each synced, by several writers.
    fn write_small(&self, root: &Path, dir: &str, writers: usize) -> Result<Work> {
        let (root, small) = (root.join(dir), &self.small);
        fs::create_dir(&root)?;
        let order: Vec<usize> = (0..self.setting.small_count).collect();
        workload::timed(|| {
            workload::in_parallel(
                &order,
                writers,
                || (),
                |(), index| {
                    let mut file = File::create(root.join(format!("{index:05}")))?;
                    file.write_all(small)?;
                    file.sync_all().context("sync a small file")
                },
            )?;
            Ok((order.len() as u64, (order.len() * self.small.len()) as u64))
        })
    }

    fn bare_small(&self, dir: &str, connections: usize) -> Result<Work> {
        let order: Vec<usize> = (0..self.setting.small_count).collect();
        let (endpoint, small) = (self.storage.relay().endpoint(), &self.small);
        workload::timed(|| {
            let client = || (Connection::new(endpoint), Vec::new());
            workload::in_parallel(&order, connections, client, |(connection, body), index| {
                let path = format!("/{BUCKET}/{dir}/{index:05}");
                connection.send("PUT", &path, small, body)?;
                Ok(())
            })?;
            Ok((order.len() as u64, (order.len() * self.small.len()) as u64))
        })
    }

    fn bare_large(&self, uploader: &Uploader, name: &str) -> Result<Work> {
        let path = format!("/{BUCKET}/{name}");
        workload::timed(|| {
            uploader.upload(&path, &self.large, PART, PARTS_AT_ONCE)?;
            Ok((1, self.large.len() as u64))
        })
    }
}

/// Writes a file from its start to its end, and syncs it.
fn write_large(root: &Path, name: &str, content: &[u8]) -> Result<Work> {
    let path = root.join(name);
    workload::timed(|| {
        let mut file = File::create(&path)?;
        for piece in content.chunks(PIECE) {
            file.write_all(piece)?;
        }
        file.sync_all().with_context(|| format!("sync {name}"))?;
        Ok((1, content.len() as u64))
    })
}

fn git(dir: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("git");
    command.current_dir(dir).args(arguments).env("HOME", dir);
    let done = command.output().context("git")?;
    ensure!(done.status.success(), "git {arguments:?}: {done:?}");
    Ok(())
}

/// Makes a repository with some thousand files of a few kilobytes.
fn make_repository(dir: &Path) -> Result<()> {
    git(dir, &["init", "--quiet"])?;
    for index in 0..CLONED {
        let folder = dir.join(format!("d{}/e{}", index % 20, index % 7));
        fs::create_dir_all(&folder)?;
        let len = 500 + index * 37 % 12_000;
        fs::write(
            folder.join(format!("{index}.rs")),
            data::bytes(index as u64, len),
        )?;
    }
    git(dir, &["add", "."])?;
    let who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"];
    git(
        dir,
        &[&who[..], &["commit", "--quiet", "-m", "all"]].concat(),
    )
}

fn clone(origin: &Path, to: &Path) -> Result<Work> {
    let (from, to) = (origin.to_string_lossy(), to.to_string_lossy());
    workload::timed(|| {
        git(origin, &["clone", "--quiet", "--no-local", &from, &to])?;
        Ok((CLONED as u64, 0))
    })
}
