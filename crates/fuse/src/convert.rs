// SPDX-License-Identifier: Apache-2.0
//! From the words of `vfs` to those of the kernel.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use types::{Clock, NodeKind, SystemClock};
use vfs::{Attributes, Ino};

/// What `stat` advises as the size of a read.
const BLOCK_SIZE: u32 = 4096;

/// Returns the kernel's description of a node.
pub(crate) fn attributes(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino.0),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: time(attributes.atime_ns),
        mtime: time(attributes.mtime_ns),
        ctime: time(attributes.ctime_ns),
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(attributes.kind),
        perm: (attributes.mode & 0o7777) as u16,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Returns the description of a name that nothing has.
pub(crate) fn absent() -> FileAttr {
    let nothing = Attributes {
        ino: Ino(0),
        kind: NodeKind::File,
        size: 0,
        mtime_ns: 0,
        ctime_ns: 0,
        atime_ns: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        nlink: 0,
    };
    attributes(&nothing)
}

/// Returns the kernel's word for a kind of node.
pub(crate) fn kind(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::Directory => FileType::Directory,
        NodeKind::File => FileType::RegularFile,
        NodeKind::Symlink => FileType::Symlink,
    }
}

/// Returns the time that a program wants a file to have, in nanoseconds since 1970.
pub(crate) fn wanted_time(time: TimeOrNow) -> i64 {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemClock.wall(),
    };
    let ns = |distance: Duration| i64::try_from(distance.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => ns(since),
        Err(before) => -ns(before.duration()),
    }
}

/// Returns a time given in nanoseconds since 1970, before it when negative.
fn time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    let time = match ns < 0 {
        true => SystemTime::UNIX_EPOCH.checked_sub(distance),
        false => SystemTime::UNIX_EPOCH.checked_add(distance),
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970_are_kept_to_the_nanosecond() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(time(0), epoch);
        assert_eq!(time(1_500_000_001), epoch + Duration::new(1, 500_000_001));
        assert_eq!(time(-1), epoch - Duration::from_nanos(1));
        for far in [i64::MIN, i64::MAX] {
            assert_ne!(time(far), epoch);
        }
    }
}
