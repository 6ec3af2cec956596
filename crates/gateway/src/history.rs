// SPDX-License-Identifier: Apache-2.0
//! What a daemon did lately: its counters, kept for an hour.
//!
//! Somebody who opens the dashboard wants to see what was, and not only what comes. One sample is
//! taken every few seconds from a status, which is answered from memory; nothing is counted for it on
//! the way of a read.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::wire;

/// How often the counters are kept.
pub const STEP: Duration = Duration::from_secs(5);

/// Samples of an hour.
const KEPT_MAX: usize = 720;

/// Requests of the kernel that it sends by itself, long after: nobody waits for them.
pub const SILENT: [&str; 3] = ["forget", "release", "releasedir"];

/// The counters of the last hour.
#[derive(Debug, Default)]
pub struct History {
    /// Held for one push or one copy.
    kept: Mutex<VecDeque<wire::Sample>>,
}

impl History {
    /// Keeps the counters of a status. What is older than an hour goes.
    pub fn keep(&self, status: &wire::Status, now: SystemTime) {
        let mut kept = self.kept.lock();
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(sample(status, now));
    }

    /// Returns what was kept, and how the counters stand now.
    pub fn with_now(&self, status: &wire::Status, now: SystemTime) -> wire::History {
        let mut samples: Vec<_> = self.kept.lock().iter().copied().collect();
        samples.push(sample(status, now));
        wire::History {
            mount_point: status.mount_point.clone(),
            samples,
        }
    }
}

fn sample(status: &wire::Status, now: SystemTime) -> wire::Sample {
    let operations = status.kernel.requests.iter();
    let waited_for = operations.filter(|(kind, _)| !SILENT.contains(&kind.as_str()));
    let mounts = || status.mounts.iter().map(|mount| mount.requests);
    wire::Sample {
        unix_milliseconds: unix_milliseconds(now),
        served_bytes: status.cache.served_bytes,
        fetched_bytes: status.cache.fetched_bytes,
        hits: status.cache.hits,
        misses: status.cache.misses,
        operations: waited_for.map(|(_, count)| *count).sum(),
        storage_requests: mounts().map(|requests| requests.sum()).sum(),
        storage_errors: mounts().map(|requests| requests.errors).sum(),
    }
}

/// Returns a time as it goes over the wire.
pub fn unix_milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(served_bytes: u64) -> wire::Status {
        let mut status = wire::Status::default();
        status.cache.served_bytes = served_bytes;
        status.kernel.requests.insert("read".into(), 3);
        status.kernel.requests.insert("forget".into(), 1000);
        status
    }

    #[test]
    fn an_hour_is_kept_and_the_last_sample_is_of_now() {
        let history = History::default();
        for count in 0..KEPT_MAX as u64 + 10 {
            history.keep(&status(count), UNIX_EPOCH + STEP);
        }
        let told = history.with_now(&status(7), UNIX_EPOCH + STEP * 2);
        assert_eq!(told.samples.len(), KEPT_MAX + 1);
        assert_eq!(told.samples[0].served_bytes, 10);
        let now = told.samples[KEPT_MAX];
        assert_eq!((now.unix_milliseconds, now.served_bytes), (10_000, 7));
        assert_eq!(now.operations, 3);
    }
}
