// SPDX-License-Identifier: Apache-2.0
//! What the kernel door has done, for `status` and the metrics.
//!
//! One relaxed counter per kind of request: a request costs two system calls, so nothing finer is
//! worth its cost. All numbers start at zero with the mount.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use types::{ByteSize, ErrorKind};

use crate::access::SlowRecord;
use crate::errors::ErrorRecord;

/// Whether the kernel may read complete cache files itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passthrough {
    /// It may.
    On,
    /// It may not; reads are copied through the daemon.
    Off {
        /// Why, in words for the user.
        reason: String,
    },
}

/// A moment's view of one mount.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Requests of the kernel since the mount, by kind.
    pub requests: Vec<(&'static str, u64)>,
    /// Requests that were answered later, because they waited for a storage or a disk.
    pub waits: u64,
    /// How long those waited together.
    pub waited: Duration,
    /// Requests that were denied: EACCES, EPERM, EROFS.
    pub denied: u64,
    /// The latest requests that took half a second or longer, oldest first.
    pub slow: Vec<SlowRecord>,
    /// Files open now that the kernel reads itself.
    pub open_passthrough: u64,
    /// Files open now that are read through the daemon.
    pub open_cached: u64,
    /// Cache files handed to the kernel since the mount; it is told of each once, not at each open.
    pub handed: u64,
    /// Whether new opens may be of the first sort.
    pub passthrough: Passthrough,
    /// Why requests come from `/dev/fuse`; nothing when they come over io_uring.
    pub without_rings: Option<String>,
    /// The kernel's read-ahead, when it let us set it.
    pub read_ahead: Option<ByteSize>,
    /// Errors answered since the mount, by kind, without those of absent names.
    pub errors: Vec<(ErrorKind, u64)>,
    /// The latest of these errors, oldest first.
    pub recent_errors: Vec<ErrorRecord>,
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Lookup,
    Forget,
    GetAttr,
    ReadLink,
    Open,
    Read,
    Release,
    OpenDir,
    ReadDir,
    ReadDirPlus,
    ReleaseDir,
    StatFs,
    GetXattr,
    ListXattr,
    OpenWrite,
    Create,
    Write,
    Flush,
    Fsync,
    SetAttr,
    MakeDir,
    MakeLink,
    Remove,
    Rename,
    Other,
}

impl Operation {
    const ALL: [Operation; 25] = [
        Operation::Lookup,
        Operation::Forget,
        Operation::GetAttr,
        Operation::ReadLink,
        Operation::Open,
        Operation::Read,
        Operation::Release,
        Operation::OpenDir,
        Operation::ReadDir,
        Operation::ReadDirPlus,
        Operation::ReleaseDir,
        Operation::StatFs,
        Operation::GetXattr,
        Operation::ListXattr,
        Operation::OpenWrite,
        Operation::Create,
        Operation::Write,
        Operation::Flush,
        Operation::Fsync,
        Operation::SetAttr,
        Operation::MakeDir,
        Operation::MakeLink,
        Operation::Remove,
        Operation::Rename,
        Operation::Other,
    ];

    /// Returns the name in statistics and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Lookup => "lookup",
            Operation::Forget => "forget",
            Operation::GetAttr => "getattr",
            Operation::ReadLink => "readlink",
            Operation::Open => "open",
            Operation::Read => "read",
            Operation::Release => "release",
            Operation::OpenDir => "opendir",
            Operation::ReadDir => "readdir",
            Operation::ReadDirPlus => "readdirplus",
            Operation::ReleaseDir => "releasedir",
            Operation::StatFs => "statfs",
            Operation::GetXattr => "getxattr",
            Operation::ListXattr => "listxattr",
            Operation::OpenWrite => "open for writing",
            Operation::Create => "create",
            Operation::Write => "write",
            Operation::Flush => "close",
            Operation::Fsync => "fsync",
            Operation::SetAttr => "setattr",
            Operation::MakeDir => "mkdir",
            Operation::MakeLink => "symlink",
            Operation::Remove => "remove",
            Operation::Rename => "rename",
            Operation::Other => "other",
        }
    }
}

/// Counts requests that had to wait, and for how long. A hit costs no look at the clock.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Waits {
    pub(crate) fn add(&self, waited: Duration) {
        self.count.fetch_add(1, Relaxed);
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn get(&self) -> (u64, Duration) {
        let nanos = self.nanos.load(Relaxed);
        (self.count.load(Relaxed), Duration::from_nanos(nanos))
    }
}

/// Counts requests.
#[derive(Debug, Default)]
pub(crate) struct Requests([AtomicU64; Operation::ALL.len()]);

impl Requests {
    /// Counts one.
    pub(crate) fn count(&self, operation: Operation) {
        self.0[operation as usize].fetch_add(1, Relaxed);
    }

    /// Returns all counts with their names.
    pub(crate) fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Relaxed));
        Operation::ALL
            .into_iter()
            .map(Operation::name)
            .zip(counts)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_request_has_its_own_counter() {
        let requests = Requests::default();
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            for _ in 0..=index {
                requests.count(operation);
            }
        }
        for (index, (name, count)) in requests.snapshot().into_iter().enumerate() {
            assert_eq!(count, index as u64 + 1, "{name}");
            assert_eq!(name, Operation::ALL[index].name());
        }
    }
}
