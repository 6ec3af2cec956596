// SPDX-License-Identifier: Apache-2.0
//! What a worker counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) hit_bytes: Counter,
    pub(crate) misses: Counter,
    pub(crate) miss_bytes: Counter,
    pub(crate) memory_hits: Counter,
    pub(crate) fetched_bytes: Counter,
    pub(crate) fills_dropped: Counter,
    pub(crate) fills_late: Counter,
    pub(crate) stale_served: Counter,
    pub(crate) neighbours: Counter,
    pub(crate) names_unshowable: Counter,
}

/// A snapshot of the counters, since the worker was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads and opens served from the cache, with no request.
    pub hits: u64,
    /// Bytes of those reads; an open that is handed to the kernel counts none.
    pub hit_bytes: u64,
    /// Reads and opens that had to wait for the storage.
    pub misses: u64,
    /// Bytes of those.
    pub miss_bytes: u64,
    /// Reads served from memory: fetched ahead of the reader, not yet in the cache.
    pub memory_hits: u64,
    /// Bytes of data fetched from all storages.
    pub fetched_bytes: u64,
    /// Pieces that were served but not cached, since the cache was slow, full or broken.
    pub fills_dropped: u64,
    /// Those of them that were cached after all, when the cache was idle again.
    pub fills_late: u64,
    /// Answers about names given from old knowledge because the storage did not answer.
    pub stale_served: u64,
    /// Files fetched ahead of a job that reads the files around them.
    pub neighbours: u64,
    /// Names in listings that a file system cannot show, which were left out; again at each listing.
    pub names_unshowable: u64,
    /// Bytes of the memory budget in use.
    pub memory_used: u64,
    /// The memory budget.
    pub memory_total: u64,
}
