// SPDX-License-Identifier: Apache-2.0
//! The plan of `make bench-namespace`: what a tree of ten million files costs the daemon, and whether
//! what is asked of it is answered as fast as in a small one.
//!
//! The storage is a local directory of empty files, so that the walks are not those of a network. A
//! tree of ten directories beside it is what the large one is compared with.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::report::Machine;
use super::workload::{self, Work};
use crate::sandbox::{Mount, Sandbox, drop_kernel_caches};
use crate::storage::Storage;

/// Files of each directory.
const FILES: usize = 1000;
/// Directories of the small tree, and those of the large one of which every other file is asked for.
const FEW: usize = 10;
/// Readings of each time; the median counts.
const REPEATS: usize = 5;
/// What the daemon may take, in MiB.
const MEMORY_MAX: u64 = 2048;

/// What was found out.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    files: usize,
    walk_files_per_s: f64,
    /// The most that the daemon took, and what it took at the end of the walk.
    memory_max_mib: u64,
    inodes_after_walk: u64,
    /// From the command to the mount that answers, of which everything is known.
    mount_s: f64,
    /// Files a second that are asked for by name in ten directories, kernel caches dropped: in the
    /// large tree, and in the small one.
    stat_large: f64,
    stat_small: f64,
    /// Requests to the storage of the readings in the large tree.
    requests: u64,
}

/// Makes a tree of `dirs` directories in a storage, walks it and asks for names.
pub fn run(dirs: usize, mut say: impl FnMut(&str)) -> Result<Report> {
    say("preparing the tree");
    let storage = Storage::local();
    for dir in 0..dirs {
        make(&storage.root().join("large"), dir)?;
    }
    for dir in 0..FEW {
        make(&storage.root().join("small"), dir)?;
    }
    let sandbox = Sandbox::new(&storage);
    // Names take at most a quarter of it.
    let mounting = || {
        let mounting = sandbox.mount(&storage).cache_size("16GiB");
        mounting.switch("--read-only")
    };
    let mount = mounting().flag("--freshness", "immutable").start();
    say("first walk");
    let walked = workload::timed(|| Ok((walk(&mount.path("large"))?, 0)))?;
    ensure!(
        walked.count == (dirs * FILES) as u64,
        "{} files",
        walked.count
    );
    walk(&mount.path("small"))?;
    let inodes = mount.status().number("/kernel/inodes");
    let memory_max = mount.memory("VmHWM");
    mount.unmount();
    say("mount of what is known");
    drop_kernel_caches();
    let mut mounted = None;
    let started = workload::timed(|| {
        mounted = Some(mounting().flag("--freshness", "immutable").start());
        Ok((1, 0))
    })?;
    let mount = mounted.context("it is mounted")?;
    let asked = mount.status().requests();
    let mut readings = [Vec::new(), Vec::new()];
    for turn in 0..REPEATS {
        say("names asked for");
        let step = dirs / FEW;
        readings[0].push(stat(&mount, "large", |dir| (dir * step + turn) % dirs)?);
        readings[1].push(stat(&mount, "small", |dir| dir)?);
    }
    let [large, small] = readings.map(median);
    let report = Report {
        machine: Machine::of(&mount),
        files: dirs * FILES,
        walk_files_per_s: walked.count as f64 / walked.seconds,
        memory_max_mib: memory_max.max(mount.memory("VmHWM")) >> 20,
        inodes_after_walk: inodes,
        mount_s: started.seconds,
        stat_large: large,
        stat_small: small,
        requests: mount.status().requests() - asked,
    };
    mount.unmount();
    Ok(report)
}

fn name(dir: usize, file: usize) -> String {
    format!("{dir:05}/image_{dir:05}_{file:06}.jpg")
}

fn make(tree: &Path, dir: usize) -> Result<()> {
    fs::create_dir_all(tree.join(format!("{dir:05}")))?;
    for file in 0..FILES {
        let path = tree.join(name(dir, file));
        File::create_new(&path).with_context(|| format!("make {}", path.display()))?;
    }
    Ok(())
}

/// Lists every directory and looks at every file; returns how many there are.
fn walk(tree: &Path) -> Result<u64> {
    let mut count = 0;
    for dir in fs::read_dir(tree)? {
        for entry in fs::read_dir(dir?.path())? {
            ensure!(entry?.metadata()?.is_file(), "something that is no file");
            count += 1;
        }
    }
    Ok(count)
}

/// Asks for every other file of a few directories.
fn stat(mount: &Mount<'_>, tree: &str, chosen: impl Fn(usize) -> usize) -> Result<Work> {
    drop_kernel_caches();
    workload::timed(|| {
        let mut count = 0;
        for dir in (0..FEW).map(chosen) {
            for file in (0..FILES).step_by(2) {
                let path = mount.path(format!("{tree}/{}", name(dir, file)));
                ensure!(fs::metadata(path)?.nlink() > 0, "a file without a name");
                count += 1;
            }
        }
        Ok((count, 0))
    })
}

fn median(mut readings: Vec<Work>) -> f64 {
    readings.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let middle = readings[readings.len() / 2];
    middle.count as f64 / middle.seconds
}

impl Report {
    /// Renders the report for people.
    pub fn table(&self) -> String {
        let machine = &self.machine;
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["what", "forebay", "goal"]);
        let stat = self.stat_large / self.stat_small;
        let rows = [
            (
                "first walk and stat, files/s",
                format!("{:.0}", self.walk_files_per_s),
                String::new(),
            ),
            (
                "memory of the daemon at most, MiB",
                self.memory_max_mib.to_string(),
                MEMORY_MAX.to_string(),
            ),
            (
                "inodes that the kernel knows after it",
                self.inodes_after_walk.to_string(),
                String::new(),
            ),
            (
                "mount of the tree that is known, s",
                format!("{:.2}", self.mount_s),
                "1".to_owned(),
            ),
            (
                "stat of known names, files/s",
                format!("{:.0}", self.stat_large),
                String::new(),
            ),
            (
                "the same in a tree of 10,000 files",
                format!("{:.0}", self.stat_small),
                String::new(),
            ),
            ("ratio of the two", format!("{stat:.2}"), "0.95".to_owned()),
            (
                "requests of these",
                self.requests.to_string(),
                "0".to_owned(),
            ),
        ];
        for (what, forebay, goal) in rows {
            table.add_row([what.to_owned(), forebay, goal]);
        }
        format!(
            "forebay {}, kernel {}, {} cores, {} GiB of memory\n\
             {} files in directories of {FILES}, in a local directory; median of {REPEATS} for names\n\n{table}",
            machine.version,
            machine.kernel,
            machine.cores,
            machine.memory_bytes >> 30,
            self.files,
        )
    }
}
