// SPDX-License-Identifier: Apache-2.0
//! The page store of one directory.
//!
//! Here: what others call, opening and closing, and what all parts share. `read.rs` is the hit path
//! and the check of what is in doubt, `local.rs` gives whole objects out as files, `fill.rs` writes
//! and makes room, `recover.rs` loads the index and tidies the directory, `background.rs` is the
//! thread, `map.rs` and `reserve.rs` are what shares the capacity, `pin.rs` keeps objects from being
//! evicted, `rule.rs` carries out TTL, quota and priority, `adopt.rs` takes in files without a fetch, `scrub.rs` compares all with its checksums.
//!
//! A broken cache is a miss: no read here fails. A directory whose disk fails is retired: all reads
//! miss and all fills are refused until the store is opened again.
//!
//! Lock order: `granting`, then files of a shard (`Index::lock_files`), then the policy, then entries of a shard. The
//! pins are a leaf of their own.

mod adopt;
mod background;
mod fill;
mod local;
mod map;
mod pin;
mod read;
mod recover;
mod reserve;
mod rule;
mod scrub;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use types::{ByteRange, ByteSize, Clock, Error, ErrorKind, PageRange, Result, VersionId};

use crate::dir::Directory;
use crate::evict::Tick;
use crate::files::Files;
use crate::index::Index;
use crate::keepsakes::Keepsakes;
use crate::kv::Kv;
use crate::pins::Pins;
use crate::record::Runs;
use crate::rules::{Ranks, Rules};
use crate::space::Space;
use background::Background;

pub use local::LocalFile;
pub use rule::Expired;
pub use scrub::{Scrub, ScrubCounts};

/// Below this a cache is of no use: the index and a few large objects need as much.
const CAPACITY_MIN: u64 = 64 << 20;
/// Memory of redb for the index; the map is read once at the open and hardly after.
const KV_CACHE_BYTES: usize = 8 << 20;
/// Checks that fail are logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Where a store lies and how large it may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The directory, which may exist; it must be empty or hold a cache.
    pub dir: PathBuf,
    /// The most that files below `dir` may take. At least 64 MiB.
    pub capacity: ByteSize,
}

/// Counters since the store was opened, and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// The most that may be used, in bytes.
    pub capacity: u64,
    /// Bytes in use, index and room of the map included.
    pub used: u64,
    /// Objects of which at least one page is cached.
    pub objects: u64,
    /// Cached pages.
    pub pages: u64,
    /// Reads served.
    pub hits: u64,
    /// Reads not served.
    pub misses: u64,
    /// Pages written.
    pub fills: u64,
    /// Objects that are pinned.
    pub pinned_objects: u64,
    /// What they take when they are whole.
    pub pinned_bytes: u64,
    /// Objects evicted to make room.
    pub evictions: u64,
    /// Objects dropped because their time was over.
    pub expired: u64,
    /// Pages thrown away because their checksum failed.
    pub corrupt: u64,
    /// Times that somebody else was found to have touched a cache file.
    pub touched: u64,
    /// Why the directory is out of use, if it is.
    pub retired: Option<String>,
}

/// A store of pages. All methods may be called from many threads at once, also for one object.
#[derive(Debug)]
pub struct Store {
    inner: Arc<Inner>,
    background: Background,
}

#[derive(Debug)]
struct Inner {
    capacity: u64,
    clock: Arc<dyn Clock>,
    opened_at: Instant,
    kv: Arc<Kv>,
    index: Index,
    files: Files,
    space: Arc<Space>,
    /// Room that the map beside the objects has; only grows, with the lock held.
    granted: AtomicU64,
    granting: Mutex<()>,
    policy: Mutex<Ranks>,
    rules: Rules,
    pins: Mutex<Pins>,
    /// Objects whose files are kept open, oldest first.
    open_files: Mutex<VecDeque<(VersionId, u64)>>,
    keepsakes: Keepsakes,
    runs: Runs,
    next_birth: AtomicU64,
    /// Uses of objects so far: the clock of the eviction policy.
    ticks: AtomicU32,
    counters: Counters,
    retired: OnceLock<String>,
    closed: AtomicBool,
    last_log: Mutex<Option<Instant>>,
    queue: background::Queue,
    /// Last, so that it is given up after everything else.
    directory: Directory,
}

#[derive(Debug, Default)]
struct Counters {
    objects: AtomicU64,
    pages: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    fills: AtomicU64,
    evictions: AtomicU64,
    expired: AtomicU64,
    corrupt: AtomicU64,
    touched: AtomicU64,
}

impl Store {
    /// Opens the store of a directory, making it if need be. Fails with Busy while another process
    /// holds it, with Invalid when the capacity is too small or the directory is no cache, with
    /// OutOfSpace when its disk is full.
    pub fn open(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Arc<Store>> {
        if settings.capacity.0 < CAPACITY_MIN {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "cache directory {}: a capacity of {} is too small, give it {} or more",
                    settings.dir.display(),
                    settings.capacity,
                    ByteSize(CAPACITY_MIN)
                ),
            ));
        }
        let inner = Arc::new(Inner::open(settings, clock).map_err(|error| {
            let full = error.kind() == ErrorKind::OutOfSpace;
            let error = if full {
                error.context("free some space, or use another disk")
            } else {
                error
            };
            error.context(format!("open the cache in {}", settings.dir.display()))
        })?);
        let background = Background::start(&inner)?;
        Ok(Arc::new(Store { inner, background }))
    }

    /// Appends all of `range`, which must lie within the object, to `buf`; false, with `buf` as it
    /// was, when that cannot be done from here. The caller then fetches, whatever
    /// [`Store::present`] says.
    pub fn read(&self, id: VersionId, range: ByteRange, buf: &mut Vec<u8>) -> bool {
        let hit = self.inner.read(id, range, buf);
        let counter = if hit {
            &self.inner.counters.hits
        } else {
            &self.inner.counters.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        hit
    }

    /// Returns which of the pages need no fetch.
    pub fn present(&self, id: VersionId, pages: PageRange) -> Vec<bool> {
        let absent = || vec![false; usize::try_from(pages.count()).unwrap_or(0)];
        if self.inner.is_out_of_service() {
            return absent();
        }
        let look = |page| move |present: &crate::pages::PageSet| present.has(page);
        let found = self.inner.index.with(id, |entry| {
            pages
                .into_iter()
                .map(|page| look(page)(&entry.present))
                .collect()
        });
        found.unwrap_or_else(absent)
    }

    /// Caches `bytes`: whole pages of an object of `size` bytes from `first_page` on, the last page
    /// of the object as short as it is. Makes room first. Pages that are there already stay. Fails
    /// when there is no room or the disk fails; the caller goes on without the cache.
    pub fn fill(&self, id: VersionId, size: u64, first_page: u64, bytes: &[u8]) -> Result<()> {
        self.inner.fill((id, size), first_page, bytes, None)
    }

    /// As [`Store::fill`], of an object that follows a rule: what is more than its quotas makes way
    /// first, and where it cannot, this fails.
    pub fn fill_under(
        &self,
        rule: Option<u64>,
        (id, size): (VersionId, u64),
        first_page: u64,
        bytes: &[u8],
    ) -> Result<()> {
        self.inner.fill((id, size), first_page, bytes, Some(rule))
    }

    /// Returns the object as a file, if it is complete and checked. Up to 4 MiB are checked on the
    /// spot; the check of a larger object is left to the background and the answer is `None`.
    pub fn local_file(&self, id: VersionId) -> Option<LocalFile> {
        self.inner.local_file(id)
    }

    /// Returns whether all pages of an object are here.
    pub fn contains_whole(&self, id: VersionId) -> bool {
        !self.inner.is_out_of_service()
            && self
                .inner
                .index
                .with(id, |entry| entry.is_whole())
                .unwrap_or(false)
    }

    /// Returns how many bytes of an object are here.
    pub fn cached_len(&self, id: VersionId) -> u64 {
        match self.inner.is_out_of_service() {
            true => 0,
            false => self.inner.index.with(id, |entry| entry.len()).unwrap_or(0),
        }
    }

    /// Returns how many bytes can be filled before something must be evicted; none when the
    /// directory is out of use.
    pub fn free(&self) -> u64 {
        self.inner.free()
    }

    /// Throws an object away. Its blocks stay allocated while somebody has it open.
    pub fn remove(&self, id: VersionId) {
        self.inner.remove(id);
    }

    /// Returns counters and what is held.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Stops cleanly: what is cached is believed at the next open without being checked again.
    /// After it reads miss and fills are refused. Never needed for correctness.
    pub fn close(&self) {
        self.background.stop();
        self.inner.close();
    }
}

impl Inner {
    fn is_out_of_service(&self) -> bool {
        self.closed.load(Ordering::Relaxed) || self.retired.get().is_some()
    }

    /// Takes the directory out of use after an error that means the disk is gone.
    fn retire(&self, what: &str, error: &dyn std::fmt::Display) {
        let dir = self.directory.path().display();
        let reason = format!("{what}: {error}");
        if self.retired.set(reason).is_ok() {
            tracing::warn!(
                "cache directory {dir} is out of use until the next start, reads go on without it: \
                 {what}: {error}"
            );
        }
    }

    /// Counts a use of an object.
    fn next_tick(&self) -> Tick {
        self.ticks.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Seconds since the open: uses that follow closely count as one.
    fn seconds(&self) -> u32 {
        let passed = self
            .clock
            .now()
            .saturating_duration_since(self.opened_at)
            .as_secs();
        u32::try_from(passed).unwrap_or(u32::MAX)
    }

    fn warn_once_a_minute(&self, message: impl FnOnce() -> String) {
        let now = self.clock.now();
        let mut last = self.last_log.lock();
        if last.is_none_or(|last| now.saturating_duration_since(last) >= LOG_EVERY) {
            *last = Some(now);
            drop(last);
            tracing::warn!(
                "cache directory {}: {}",
                self.directory.path().display(),
                message()
            );
        }
    }

    fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let pins = self.pins.lock();
        Stats {
            capacity: self.capacity,
            used: self.space.used() + self.kv.disk_bytes() + get(&self.granted),
            objects: get(&counters.objects),
            pages: get(&counters.pages),
            hits: get(&counters.hits),
            misses: get(&counters.misses),
            fills: get(&counters.fills),
            pinned_objects: pins.count(),
            pinned_bytes: pins.bytes(),
            evictions: get(&counters.evictions),
            expired: get(&counters.expired),
            corrupt: get(&counters.corrupt),
            touched: get(&counters.touched),
            retired: self.retired.get().cloned(),
        }
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) || self.retired.get().is_some() {
            return;
        }
        self.index.wait_for_writers();
        let saved = self.save_checked().and_then(|()| self.kv.checkpoint());
        let marked = saved.and_then(|()| {
            let synced = self
                .files
                .sync()
                .and_then(|()| self.directory.mark_clean(self.runs.run));
            synced.map_err(|e| Error::io("sync", e))
        });
        if let Err(error) = marked {
            tracing::warn!(
                "cache directory {} could not be closed cleanly and will be checked: {error}",
                self.directory.path().display()
            );
        }
    }
}
