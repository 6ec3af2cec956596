// SPDX-License-Identifier: Apache-2.0
//! Counts of what a storage was asked and what it answered.
//!
//! Each request that leaves for the storage counts once, a retry again. The local driver counts
//! the operation that would have been a request.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one storage since it was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pages of listings asked for, and looks whether a directory exists.
    pub list: AtomicU64,
    /// Questions about one object.
    pub head: AtomicU64,
    /// Reads of bytes.
    pub get: AtomicU64,
    /// Requests of other kinds, such as those for credentials.
    pub other: AtomicU64,
    /// Requests that failed, whether they were sent again or not. An absent name is no failure.
    pub errors: AtomicU64,
    /// Requests sent again after a failure.
    pub retries: AtomicU64,
    /// Answers that asked us to slow down.
    pub throttled: AtomicU64,
    /// Bytes of objects received.
    pub bytes_read: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// See [`Counters::list`].
    pub list: u64,
    /// See [`Counters::head`].
    pub head: u64,
    /// See [`Counters::get`].
    pub get: u64,
    /// See [`Counters::other`].
    pub other: u64,
    /// See [`Counters::errors`].
    pub errors: u64,
    /// See [`Counters::retries`].
    pub retries: u64,
    /// See [`Counters::throttled`].
    pub throttled: u64,
    /// See [`Counters::bytes_read`].
    pub bytes_read: u64,
}

impl Counters {
    /// Returns the counts now. Each is exact; together they are not one instant.
    pub fn snapshot(&self) -> CountersSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            list: get(&self.list),
            head: get(&self.head),
            get: get(&self.get),
            other: get(&self.other),
            errors: get(&self.errors),
            retries: get(&self.retries),
            throttled: get(&self.throttled),
            bytes_read: get(&self.bytes_read),
        }
    }
}

impl CountersSnapshot {
    /// Returns how many requests were sent.
    pub fn requests(&self) -> u64 {
        self.list + self.head + self.get + self.other
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
