// SPDX-License-Identifier: Apache-2.0
//! A small persistent map that survives `kill -9` without a sync on the hot path.
//!
//! A write is appended to a journal with one `write(2)` and kept in memory; the page cache of the
//! kernel outlives the process, so nothing acknowledged is lost when the process dies. A background
//! thread moves the journal into redb every few seconds or MiB, which is where the syncs are.
//! A power cut may lose what is younger than that, never the older rest.
//!
//! Generations: `active` (being written, journal `seq`) and `frozen` (older journals, being
//! committed). redb records, in the same transaction, up to which journal it holds, so that a crash
//! between commit and unlink replays nothing twice and never goes back in time.
//!
//! Lock order: `checkpointing`, then `journal`, then `maps`, or what [`Room`] locks. Damage on disk
//! is cut off, counted and logged; the map then has fewer keys, and that is all that its users must
//! cope with.

mod base;
mod guard;
mod journal;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use types::{Error, ErrorKind, Result};

use base::Base;
pub use guard::catches_panics;
use journal::Journal;

/// How often the journal goes into redb: what a power cut may lose.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// Journal size that starts a checkpoint early: replaying it takes a few tens of milliseconds.
const ROTATE_BYTES: u64 = 8 << 20;
/// Writers wait when this many times the rotation size is pending: the disk is slower than they are.
const PENDING_ROTATIONS_MAX: u64 = 4;
/// A commit writes anew what it changes before it gives up the old: as much as there is at most, and so
/// much is set aside for it.
const COMMIT_MAX: u64 = 32 << 20;
/// Bytes that a byte of a change may take until it has settled.
const REDB_GROWTH: u64 = 4;
/// How long a writer waits for the disk before it is refused.
const WRITER_WAIT: Duration = Duration::from_secs(10);

/// A key and its new value; `None` deletes.
pub type Change = (Vec<u8>, Option<Vec<u8>>);
/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Changes by key; `None` deletes.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// How large the files of a map may grow.
pub(crate) struct Limits {
    /// Journal size that starts a checkpoint.
    pub(crate) rotate_bytes: u64,
    /// Asked for room; none where nobody counts it.
    pub(crate) room: Option<Box<dyn Room>>,
}

/// Who gives a map its room on the disk.
pub(crate) trait Room: Send + Sync {
    /// Returns whether the files may take so many bytes; asked before a write.
    fn grant(&self, bytes: u64) -> bool;

    /// Tells that the files take so many bytes after a checkpoint: all of what was granted besides is
    /// not needed now.
    fn settle(&self, bytes: u64);
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            rotate_bytes: ROTATE_BYTES,
            room: None,
        }
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("rotate_bytes", &self.rotate_bytes)
            .finish_non_exhaustive()
    }
}

/// A persistent, ordered map of bytes to bytes. Safe to share between threads.
#[derive(Debug)]
pub struct Kv {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    limits: Limits,
    base: Base,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    /// Where writes go. Held while one is granted room and written, so that journal and map have the
    /// same order.
    journal: Mutex<Journal>,
    maps: RwLock<Maps>,
    /// Bytes of all journals on disk.
    journal_bytes: AtomicU64,
    base_bytes: AtomicU64,
    damaged: AtomicU64,
    refused: AtomicBool,
    signal: Mutex<Signal>,
    wake: Condvar,
    done: Condvar,
}

/// What is not in redb yet. `active` is newer than `frozen`.
#[derive(Debug, Default)]
struct Maps {
    active: Changes,
    frozen: Option<Arc<Frozen>>,
}

#[derive(Debug)]
struct Frozen {
    changes: Changes,
    upto_seq: u64,
    files: Vec<PathBuf>,
}

#[derive(Debug, Default)]
struct Signal {
    stop: bool,
    asked: bool,
}

impl Kv {
    /// Opens or makes the map in the files `path.redb` and `path.journal-*`. `cache_bytes` is the
    /// memory that redb may use. Damaged files are cut or replaced by empty ones; see
    /// [`Kv::damaged`]. Fails when the files cannot be written or another process has them open.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Arc<Kv>> {
        Kv::open_with(path, cache_bytes, Limits::default())
    }

    /// As [`Kv::open`], with other limits.
    pub(crate) fn open_with(path: &Path, cache_bytes: usize, limits: Limits) -> Result<Arc<Kv>> {
        let (base, mut damaged) = Base::open(&with_suffix(path, ".redb"), cache_bytes)?;
        let applied = base.applied_seq()?;
        let recovered = journal::recover(path, applied)?;
        damaged += recovered.damaged;
        let journal = Journal::create(path, recovered.last_seq.max(applied) + 1)?;
        let frozen = (!recovered.files.is_empty()).then(|| {
            Arc::new(Frozen {
                changes: recovered.changes,
                upto_seq: recovered.last_seq,
                files: recovered.files,
            })
        });
        let asked = frozen.is_some();
        let shared = Arc::new(Shared {
            path: path.to_path_buf(),
            limits,
            base_bytes: AtomicU64::new(base.file_bytes()),
            base,
            checkpointing: Mutex::new(()),
            journal_bytes: AtomicU64::new(journal.len() + recovered.bytes),
            journal: Mutex::new(journal),
            maps: RwLock::new(Maps {
                active: Changes::new(),
                frozen,
            }),
            damaged: AtomicU64::new(damaged),
            refused: AtomicBool::new(false),
            signal: Mutex::new(Signal { stop: false, asked }),
            wake: Condvar::new(),
            done: Condvar::new(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("kv-checkpoint".into())
            .spawn(move || worker.run())
            .map_err(|e| Error::io("start the checkpoint thread", e))?;
        Ok(Arc::new(Kv {
            shared,
            thread: Some(thread),
        }))
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let maps = self.shared.maps.read();
        if let Some(value) = maps.active.get(key) {
            return Ok(value.clone());
        }
        if let Some(value) = maps
            .frozen
            .as_ref()
            .and_then(|frozen| frozen.changes.get(key))
        {
            return Ok(value.clone());
        }
        drop(maps);
        self.shared.base.get(key)
    }

    /// Writes all of `batch` or, after a crash, none of it; `None` deletes a key. Returns once the
    /// kernel has it. Waits when the disk cannot keep up, and fails when it does not catch up, or
    /// when the files have all the room that they may have.
    pub fn write(&self, batch: Vec<Change>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.shared.wait_for_room()?;
        let mut journal = self.shared.journal.lock();
        self.shared.ask_for_room(&batch)?;
        let written = journal.append(&batch)?;
        self.shared
            .journal_bytes
            .fetch_add(written, Ordering::Relaxed);
        let full = journal.len() >= self.shared.limits.rotate_bytes;
        let mut maps = self.shared.maps.write();
        maps.active.extend(batch);
        drop(maps);
        drop(journal);
        if full {
            self.shared.ask();
        }
        Ok(())
    }

    /// Returns the pairs with `from <= key < to`, in key order, as they were at one instant.
    pub fn scan(&self, from: &[u8], to: &[u8]) -> Result<Vec<Pair>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let mut overlay = Changes::new();
        let maps = self.shared.maps.read();
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let copy = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| (key.clone(), value.clone());
        if let Some(frozen) = &maps.frozen {
            overlay.extend(frozen.changes.range::<[u8], _>(bounds).map(copy));
        }
        overlay.extend(maps.active.range::<[u8], _>(bounds).map(copy));
        // The snapshot is taken under the lock: what leaves `frozen` later is in neither or in both.
        let snapshot = self.shared.base.snapshot();
        drop(maps);
        Ok(merge(self.shared.base.range(snapshot, from, to)?, overlay))
    }

    /// Moves everything written so far into redb and syncs it.
    pub fn checkpoint(&self) -> Result<()> {
        self.shared.checkpoint()
    }

    /// Returns how often damage was found on disk and cut off or thrown away since the open.
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed) + self.shared.base.damaged()
    }

    /// Returns whether a write would wait for the disk.
    pub(crate) fn is_behind(&self) -> bool {
        self.shared.is_behind()
    }

    /// Returns what the files may take before anybody looks again: journals up to where writers wait,
    /// and one commit.
    pub(crate) fn claimed_bytes(&self) -> u64 {
        let shared = &self.shared;
        let base = shared.base_bytes.load(Ordering::Relaxed);
        let journals = shared.journal_bytes.load(Ordering::Relaxed);
        base + base.min(COMMIT_MAX) + journals.max(shared.pending_max())
    }

    /// Returns what the files take, as far as known without asking the disk.
    pub fn disk_bytes(&self) -> u64 {
        let shared = &self.shared;
        shared.base_bytes.load(Ordering::Relaxed) + shared.journal_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Kv {
    /// Stops the thread. Nothing is moved or synced: the journal holds what redb does not.
    fn drop(&mut self) {
        self.shared.signal.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(
                "the checkpoint thread of {} panicked",
                self.shared.path.display()
            );
        }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut signal = self.signal.lock();
            if !signal.stop && !signal.asked {
                self.wake.wait_for(&mut signal, CHECKPOINT_EVERY);
            }
            if signal.stop {
                return;
            }
            signal.asked = false;
            drop(signal);
            match self.checkpoint() {
                Ok(()) => self.refused.store(false, Ordering::Relaxed),
                // Once per outage: the thread tries again every few seconds.
                Err(error) => {
                    if !self.refused.swap(true, Ordering::Relaxed) {
                        tracing::warn!("checkpoint of {} put off: {error}", self.path.display());
                    }
                }
            }
        }
    }

    fn ask(&self) {
        let mut signal = self.signal.lock();
        if !signal.asked {
            signal.asked = true;
            self.wake.notify_one();
        }
    }

    fn pending_max(&self) -> u64 {
        self.limits.rotate_bytes * PENDING_ROTATIONS_MAX
    }

    fn is_behind(&self) -> bool {
        self.journal_bytes.load(Ordering::Relaxed) > self.pending_max()
    }

    /// Has the room granted that a batch may take.
    fn ask_for_room(&self, batch: &[Change]) -> Result<()> {
        let Some(room) = &self.limits.room else {
            return Ok(());
        };
        let bytes = |(key, value): &Change| 16 + key.len() + value.as_ref().map_or(0, Vec::len);
        let batch: usize = batch.iter().map(bytes).sum();
        match room.grant(self.wanted(batch as u64)) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::OutOfSpace,
                format!("{}: has all the room it may have", self.path.display()),
            )),
        }
    }

    /// Returns what the files may come to take with `more` written: for some time a change is in the
    /// journal, and in old and new pages of redb's.
    fn wanted(&self, more: u64) -> u64 {
        let pending = self.journal_bytes.load(Ordering::Relaxed) + more;
        self.base_bytes.load(Ordering::Relaxed) + REDB_GROWTH * pending
    }

    /// Bounds what is pending in memory and on disk.
    fn wait_for_room(&self) -> Result<()> {
        if !self.is_behind() {
            return Ok(());
        }
        let mut signal = self.signal.lock();
        signal.asked = true;
        self.wake.notify_one();
        // While checkpoints fail, waiting would only slow the caller down.
        while self.is_behind() && !self.refused.load(Ordering::Relaxed) {
            if self.done.wait_for(&mut signal, WRITER_WAIT).timed_out() {
                break;
            }
        }
        drop(signal);
        match self.is_behind() {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{}: the disk does not take checkpoints",
                    self.path.display()
                ),
            )),
        }
    }

    fn checkpoint(&self) -> Result<()> {
        let _one_at_a_time = self.checkpointing.lock();
        let result = self.commit_frozen().and_then(|()| {
            if self.freeze()? {
                self.commit_frozen()
            } else {
                self.base.mend()
            }
        });
        self.base_bytes
            .store(self.base.file_bytes(), Ordering::Relaxed);
        if let Some(room) = &self.limits.room {
            // No write is between its grant and its count.
            let _journal = self.journal.lock();
            room.settle(self.wanted(0));
        }
        // Under the lock, so that a writer about to wait does not miss it.
        let _signal = self.signal.lock();
        self.done.notify_all();
        result
    }

    /// Makes what is active frozen, on a new journal. False when there was nothing.
    fn freeze(&self) -> Result<bool> {
        let mut journal = self.journal.lock();
        if journal.is_empty() {
            return Ok(false);
        }
        let next = Journal::create(&self.path, journal.seq() + 1)?;
        self.journal_bytes.fetch_add(next.len(), Ordering::Relaxed);
        let old = std::mem::replace(&mut *journal, next);
        let mut maps = self.maps.write();
        let changes = std::mem::take(&mut maps.active);
        let files = vec![old.path().to_path_buf()];
        maps.frozen = Some(Arc::new(Frozen {
            changes,
            upto_seq: old.seq(),
            files,
        }));
        Ok(true)
    }

    fn commit_frozen(&self) -> Result<()> {
        let Some(frozen) = self.maps.read().frozen.clone() else {
            return Ok(());
        };
        self.base.apply(&frozen.changes, frozen.upto_seq)?;
        self.maps.write().frozen = None;
        for file in &frozen.files {
            let bytes = std::fs::metadata(file).map_or(0, |meta| meta.len());
            // A file that stays is skipped and removed at the next open: redb knows its number.
            if let Err(error) = std::fs::remove_file(file) {
                tracing::debug!("remove {}: {error}", file.display());
            }
            self.journal_bytes
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                    Some(n.saturating_sub(bytes))
                })
                .ok();
        }
        Ok(())
    }
}

/// Lays the changes over the sorted pairs.
fn merge(base: Vec<Pair>, overlay: Changes) -> Vec<Pair> {
    if overlay.is_empty() {
        return base;
    }
    let mut merged = Vec::with_capacity(base.len() + overlay.len());
    let mut overlay = overlay.into_iter().peekable();
    for (key, value) in base {
        while let Some((newer, change)) = overlay.next_if(|(newer, _)| *newer < key) {
            merged.extend(change.map(|value| (newer, value)));
        }
        match overlay.next_if(|(newer, _)| *newer == key) {
            Some((_, change)) => merged.extend(change.map(|value| (key, value))),
            None => merged.push((key, value)),
        }
    }
    merged.extend(overlay.filter_map(|(key, change)| change.map(|value| (key, value))));
    merged
}

/// Returns `path` with `suffix` put after its last component.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(items: &[(&str, &str)]) -> Vec<Pair> {
        items
            .iter()
            .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn changes_are_laid_over_pairs_in_key_order() {
        let base = pairs(&[("b", "1"), ("d", "1"), ("f", "1")]);
        let change = |k: &str, v: Option<&str>| (k.as_bytes().to_vec(), v.map(|v| v.into()));
        let overlay = Changes::from([
            change("a", Some("2")),
            change("b", None),
            change("c", None),
            change("d", Some("2")),
            change("g", Some("2")),
        ]);
        let expected = pairs(&[("a", "2"), ("d", "2"), ("f", "1"), ("g", "2")]);
        assert_eq!(merge(base, overlay), expected);
    }
}
