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
    /// Writes of bytes: of a whole object or of a part of one.
    pub put: AtomicU64,
    /// Copies inside the storage and changes of name.
    pub copy: AtomicU64,
    /// Removals.
    pub delete: AtomicU64,
    /// Beginnings and ends of uploads in parts.
    pub upload: AtomicU64,
    /// Requests of other kinds, such as those for credentials.
    pub other: AtomicU64,
    /// Requests that failed, whether they were sent again or not. An absent name is no failure.
    pub errors: AtomicU64,
    /// Requests sent again after a failure.
    pub retries: AtomicU64,
    /// Answers that asked us to slow down.
    pub throttled: AtomicU64,
    /// Requests that were given up because nothing came for long.
    pub unanswered: AtomicU64,
    /// Bytes of objects received.
    pub bytes_read: AtomicU64,
    /// Bytes of objects sent and acknowledged.
    pub bytes_written: AtomicU64,
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
    /// See [`Counters::put`].
    pub put: u64,
    /// See [`Counters::copy`].
    pub copy: u64,
    /// See [`Counters::delete`].
    pub delete: u64,
    /// See [`Counters::upload`].
    pub upload: u64,
    /// See [`Counters::other`].
    pub other: u64,
    /// See [`Counters::errors`].
    pub errors: u64,
    /// See [`Counters::retries`].
    pub retries: u64,
    /// See [`Counters::throttled`].
    pub throttled: u64,
    /// See [`Counters::unanswered`].
    pub unanswered: u64,
    /// See [`Counters::bytes_read`].
    pub bytes_read: u64,
    /// See [`Counters::bytes_written`].
    pub bytes_written: u64,
}

impl Counters {
    /// Returns the counts now. Each is exact; together they are not one instant.
    pub fn snapshot(&self) -> CountersSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            list: get(&self.list),
            head: get(&self.head),
            get: get(&self.get),
            put: get(&self.put),
            copy: get(&self.copy),
            delete: get(&self.delete),
            upload: get(&self.upload),
            other: get(&self.other),
            errors: get(&self.errors),
            retries: get(&self.retries),
            throttled: get(&self.throttled),
            unanswered: get(&self.unanswered),
            bytes_read: get(&self.bytes_read),
            bytes_written: get(&self.bytes_written),
        }
    }
}

impl CountersSnapshot {
    /// Returns how many requests were sent.
    pub fn requests(&self) -> u64 {
        let reading = self.list + self.head + self.get;
        let writing = self.put + self.copy + self.delete + self.upload;
        reading + writing + self.other
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
