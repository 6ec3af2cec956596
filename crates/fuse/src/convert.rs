// SPDX-License-Identifier: Apache-2.0
//! From the words of `vfs` to those of the kernel.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use types::NodeKind;
use vfs::{Attributes, Ino};

/// What `stat` advises as the size of a read.
const BLOCK_SIZE: u32 = 4096;

/// Returns the kernel's description of a node.
pub(crate) fn attributes(attributes: &Attributes) -> FileAttr {
    let time = time(attributes.mtime_ns);
    FileAttr {
        ino: INodeNo(attributes.ino.0),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
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
