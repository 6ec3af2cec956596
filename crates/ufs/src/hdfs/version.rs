// SPDX-License-Identifier: Apache-2.0
//! What a file status tells, and which versions can be trusted.
//!
//! A version is the time of the last change, in milliseconds of the name node's clock, and the
//! length. Two changes within one millisecond share a time. A status whose time is near our clock's
//! is therefore looked at again, when the name node's clock has surely moved on: if it is still the
//! same, no later change can share its time. If it never settles, it gets a tag that no read finds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdfs_native::client::FileStatus;
use types::{NodeKind, ObjectMeta, VersionTag};

use super::owners::{Named, Owners};

/// How long until the name node's clock has moved on by more than the millisecond it tells.
pub(crate) const GRAIN: Duration = Duration::from_millis(3);
/// How near a change must be to be looked at again. Clocks of a cluster differ by less.
const NEAR: Duration = Duration::from_secs(2);
/// How often a file that changes all the time is looked at.
pub(crate) const LOOKS: u32 = 3;

/// Returns whether a change after this status was told could still share its time.
pub(super) fn is_young(status: &FileStatus, now: SystemTime) -> bool {
    !status.isdir && is_near(status.modification_time, now)
}

/// Returns whether a name node's clock may still tell this time, in milliseconds.
pub(crate) fn is_near(changed: u64, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    now.abs_diff(Duration::from_millis(changed)) < NEAR
}

/// Returns milliseconds in nanoseconds.
pub(crate) fn nanoseconds(milliseconds: u64) -> i64 {
    let nanoseconds = u128::from(milliseconds) * 1_000_000;
    i64::try_from(nanoseconds).unwrap_or(i64::MAX)
}

/// Returns nanoseconds in milliseconds; HDFS has no times before 1970.
pub(crate) fn milliseconds(nanoseconds: i64) -> u64 {
    u64::try_from(nanoseconds / 1_000_000).unwrap_or(0)
}

/// Returns whether two statuses tell the same version.
pub(super) fn same(one: &FileStatus, other: &FileStatus) -> bool {
    one.isdir == other.isdir && tag_of(one) == tag_of(other)
}

/// Returns the version that a status tells.
pub(super) fn tag_of(status: &FileStatus) -> VersionTag {
    VersionTag {
        etag: None,
        mtime_ns: nanoseconds(status.modification_time),
        size: match status.isdir {
            true => 0,
            false => status.length as u64,
        },
    }
}

/// Returns the tag of a file that changed each time it was looked at.
pub(super) fn unsettled(status: &FileStatus) -> VersionTag {
    VersionTag {
        etag: Some("young".into()),
        ..tag_of(status)
    }
}

/// Returns what a status describes; its owners have been learnt.
pub(super) fn meta_of(status: &FileStatus, tag: VersionTag, owners: &Owners) -> ObjectMeta {
    ObjectMeta {
        kind: match status.isdir {
            true => NodeKind::Directory,
            false => NodeKind::File,
        },
        tag,
        owner: Some(owners.owner(&named(status))),
    }
}

/// Returns whose it is.
pub(super) fn named(status: &FileStatus) -> Named {
    Named {
        mode: status.permission.into(),
        owner: status.owner.clone(),
        group: status.group.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(modification_time: u64, isdir: bool) -> FileStatus {
        FileStatus {
            path: "/x".into(),
            length: 5,
            isdir,
            permission: 0o644,
            owner: String::new(),
            group: String::new(),
            modification_time,
            access_time: 0,
            replication: None,
            blocksize: None,
        }
    }

    #[test]
    fn a_change_near_the_clock_is_young_on_either_side() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        for (now, young) in [
            (10_000, true),
            (11_999, true),
            (8_001, true),
            (12_000, false),
            (8_000, false),
        ] {
            assert_eq!(is_young(&status(10_000, false), at(now)), young, "{now}");
        }
        assert!(
            !is_young(&status(10_000, true), at(10_000)),
            "a directory has no bytes"
        );
    }

    #[test]
    fn times_are_told_in_nanoseconds_and_directories_are_empty() {
        assert_eq!(tag_of(&status(1_500, false)).mtime_ns, 1_500_000_000);
        assert_eq!(tag_of(&status(u64::MAX, false)).mtime_ns, i64::MAX);
        assert_eq!((milliseconds(1_999_999), milliseconds(-1)), (1, 0));
        assert_eq!(tag_of(&status(1, true)).size, 0);
        assert!(!same(&status(1, false), &status(2, false)));
    }
}
