// SPDX-License-Identifier: Apache-2.0
//! Who opens, reads and writes what, counted only while somebody watches.
//!
//! Nobody watching costs one relaxed load for each open, read and write. Whoever watches asks again
//! and again, and when nobody has asked for a while, all is forgotten. What is kept has a bound: a job
//! that opens a million files leaves the latest of them here. Bytes of files that the kernel reads
//! itself are seen by nobody; their opens are.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use types::Clock;
use vfs::{Ino, Vfs};

use crate::writers::process_of;

/// Files and processes that are told apart; twice as many are kept in all.
const KEPT_MAX: usize = 1000;

/// What somebody did, or what was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Opens.
    pub opens: u64,
    /// Those of them after which the kernel reads the file itself, and nothing of it is seen here.
    pub kernel_opens: u64,
    /// Reads.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
}

/// What happened since somebody began to watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// For how long.
    pub watched: Duration,
    /// By path in the tree.
    pub files: Vec<(String, Counts)>,
    /// By process, with its name.
    pub processes: Vec<(u32, String, Counts)>,
}

/// Counts for whoever watches.
#[derive(Debug)]
pub(crate) struct Watch {
    clock: Arc<dyn Clock>,
    is_on: AtomicBool,
    seen: Mutex<Seen>,
}

/// The latest of many, with a name and counts for each.
#[derive(Debug)]
struct Latest<K> {
    now: HashMap<K, (String, Counts)>,
    before: HashMap<K, (String, Counts)>,
}

#[derive(Debug, Default)]
struct Seen {
    since: Option<Instant>,
    until: Option<Instant>,
    files: Latest<u64>,
    processes: Latest<u32>,
    /// Which process a thread is of.
    threads: HashMap<u32, u32>,
}

impl<K> Default for Latest<K> {
    fn default() -> Self {
        Latest {
            now: HashMap::new(),
            before: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash + Copy> Latest<K> {
    /// Returns the counts of one of them, which has a name when it is new.
    fn of(&mut self, key: K, name: impl FnOnce() -> String) -> &mut Counts {
        if self.now.len() >= KEPT_MAX && !self.now.contains_key(&key) {
            self.before = std::mem::take(&mut self.now);
        }
        let before = &mut self.before;
        let entry = self.now.entry(key);
        let (_, counts) = entry.or_insert_with(|| {
            let older = before.remove(&key);
            older.unwrap_or_else(|| (name(), Counts::default()))
        });
        counts
    }

    fn all(&self) -> impl Iterator<Item = (&K, &(String, Counts))> {
        self.now.iter().chain(&self.before)
    }
}

impl Watch {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Watch {
            clock,
            is_on: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// Takes note of an open, if somebody watches.
    pub(crate) fn opened(&self, vfs: &Vfs, thread: u32, ino: u64, by_kernel: bool) {
        self.note(vfs, thread, ino, |counts| {
            counts.opens += 1;
            counts.kernel_opens += u64::from(by_kernel);
        });
    }

    /// Takes note of a read, if somebody watches.
    pub(crate) fn read(&self, vfs: &Vfs, thread: u32, ino: u64, bytes: usize) {
        self.note(vfs, thread, ino, |counts| {
            counts.reads += 1;
            counts.read_bytes += bytes as u64;
        });
    }

    /// Takes note of a write, if somebody watches.
    pub(crate) fn written(&self, vfs: &Vfs, thread: u32, ino: u64, bytes: usize) {
        self.note(vfs, thread, ino, |counts| {
            counts.writes += 1;
            counts.written_bytes += bytes as u64;
        });
    }

    fn note(&self, vfs: &Vfs, thread: u32, ino: u64, count: impl Fn(&mut Counts)) {
        // What is missed as somebody begins is not missed by anybody.
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let name = || {
            vfs.path_of(Ino(ino))
                .unwrap_or_else(|| format!("inode {ino}"))
        };
        self.note_named(thread, ino, name, count);
    }

    fn note_named(
        &self,
        thread: u32,
        ino: u64,
        name: impl FnOnce() -> String,
        count: impl Fn(&mut Counts),
    ) {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        if seen.until.is_none_or(|until| now > until) {
            self.is_on.store(false, Ordering::Relaxed);
            *seen = Seen::default();
            return;
        }
        count(seen.files.of(ino, name));
        if seen.threads.len() >= 2 * KEPT_MAX {
            seen.threads.clear();
        }
        let process = *seen
            .threads
            .entry(thread)
            .or_insert_with(|| process(thread));
        count(seen.processes.of(process, || command(process)));
    }

    /// Counts from now on for so long, and returns what was counted since somebody began.
    pub(crate) fn look(&self, patience: Duration) -> Traffic {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        if seen.until.is_none_or(|until| now > until) {
            *seen = Seen::default();
        }
        let since = *seen.since.get_or_insert(now);
        seen.until = Some(self.clock.deadline(patience).instant());
        self.is_on.store(true, Ordering::Relaxed);
        let files = seen.files.all();
        let processes = seen.processes.all();
        Traffic {
            watched: now.saturating_duration_since(since),
            files: files
                .map(|(_, (path, counts))| (path.clone(), *counts))
                .collect(),
            processes: processes
                .map(|(pid, (name, counts))| (*pid, name.clone(), *counts))
                .collect(),
        }
    }
}

/// Returns the process that a thread is of; the kernel's own reads have none.
pub(crate) fn process(thread: u32) -> u32 {
    process_of(thread).unwrap_or(thread)
}

pub(crate) fn command(process: u32) -> String {
    if process == 0 {
        return "(kernel)".to_owned();
    }
    match std::fs::read_to_string(format!("/proc/{process}/comm")) {
        Ok(name) => name.trim().to_owned(),
        Err(_) => "(ended)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use types::ManualClock;

    use super::*;

    fn read(watch: &Watch, thread: u32, ino: u64, bytes: u64) {
        if watch.is_on.load(Ordering::Relaxed) {
            watch.note_named(
                thread,
                ino,
                || format!("/{ino}"),
                |counts| {
                    counts.reads += 1;
                    counts.read_bytes += bytes;
                },
            );
        }
    }

    #[test]
    fn it_is_counted_from_the_first_look_until_nobody_has_looked_for_a_while() {
        let clock = Arc::new(ManualClock::default());
        let watch = Watch::new(Arc::clone(&clock) as _);
        let own = std::process::id();
        read(&watch, own, 1, 100);
        let patience = Duration::from_secs(5);
        assert_eq!(watch.look(patience), Traffic::default());
        clock.advance(Duration::from_secs(2));
        read(&watch, own, 1, 100);
        read(&watch, own, 2, 10);
        let seen = watch.look(patience);
        assert_eq!(seen.watched, Duration::from_secs(2));
        let mut files = seen.files;
        files.sort_by(|one, other| one.0.cmp(&other.0));
        let sums: Vec<_> = files
            .iter()
            .map(|(path, counts)| (&**path, counts.read_bytes))
            .collect();
        assert_eq!(sums, [("/1", 100), ("/2", 10)]);
        let [(pid, name, counts)] = &seen.processes[..] else {
            panic!("{:?}", seen.processes)
        };
        assert_eq!((*pid, counts.reads), (own, 2));
        assert!(!name.is_empty() && !name.starts_with('('), "{name}");
        clock.advance(Duration::from_secs(6));
        read(&watch, own, 1, 100);
        assert!(!watch.is_on.load(Ordering::Relaxed));
        assert_eq!(watch.look(patience), Traffic::default());
    }

    #[test]
    fn a_thread_counts_for_its_process_and_so_do_many_files_with_a_bound() {
        let watch = Watch::new(Arc::new(ManualClock::default()));
        watch.look(Duration::from_secs(5));
        let thread = std::thread::spawn(|| {
            let id = rustix::thread::gettid()
                .as_raw_nonzero()
                .get()
                .unsigned_abs();
            (id, process(id))
        });
        let (thread, process) = thread.join().unwrap();
        assert_eq!(process, std::process::id());
        for ino in 0..10_000 {
            read(&watch, thread, ino, 1);
            // Used again and again, it stays.
            read(&watch, thread, 99_999, 1);
        }
        let seen = watch.look(Duration::from_secs(5));
        assert!(seen.files.len() <= 2 * KEPT_MAX, "{}", seen.files.len());
        let (_, often) = seen
            .files
            .iter()
            .find(|(path, _)| path == "/99999")
            .unwrap();
        assert_eq!(often.reads, 10_000);
        assert!(seen.files.iter().any(|(path, _)| path == "/9999"));
    }
}
