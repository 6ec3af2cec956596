// SPDX-License-Identifier: Apache-2.0
//! What a file status tells, and which versions can be trusted.
//!
//! A version is the time of the last change, in milliseconds of the name node's clock, and the
//! length. Two changes within one millisecond share a time. A status whose time is near our clock's
//! is therefore looked at again, when the name node's clock has surely moved on: if it is still the
//! same, no later change can share its time. If it never settles, it gets a tag that no read finds.
//! Should the clocks differ, the latest change that the name node told of is looked at again too: its
//! clock is past all others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdfs_native::client::FileStatus;
use types::{NodeKind, ObjectMeta, VersionTag};

use super::owners::{Named, Owners};

/// How long until the name node's clock has moved on by more than the millisecond it tells.
pub(crate) const GRAIN: Duration = Duration::from_millis(3);
/// How near a change must be to be looked at again. Clocks of a cluster differ by less.
const NEAR: Duration = Duration::from_secs(2);
/// How near where no later change is known. A clock that differs by more is found wrong by everybody.
const NEAR_AND_LATEST: Duration = Duration::from_secs(86_400);
/// How often a file that changes all the time is looked at.
pub(crate) const LOOKS: u32 = 3;

/// The latest change that a name node told of, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Latest(AtomicU64);

impl Latest {
    /// Takes the time of a change that was told.
    pub(crate) fn learn(&self, changed: u64) {
        self.0.fetch_max(changed, Ordering::Relaxed);
    }

    /// Returns whether the name node's clock may still tell this time, which has been learnt.
    pub(crate) fn may_come_again(&self, changed: u64, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let away = now.abs_diff(Duration::from_millis(changed));
        away < NEAR || (away < NEAR_AND_LATEST && changed >= self.0.load(Ordering::Relaxed))
    }
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
        extras: None,
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
        let latest = Latest::default();
        latest.learn(10_001);
        for (now, young) in [
            (10_000, true),
            (11_999, true),
            (8_001, true),
            (12_000, false),
            (8_000, false),
        ] {
            assert_eq!(latest.may_come_again(10_000, at(now)), young, "{now}");
        }
    }

    #[test]
    fn the_latest_change_is_young_also_where_clocks_differ() {
        let day = 86_400_000;
        let (latest, changed) = (Latest::default(), 3 * day);
        latest.learn(changed);
        for (now, young) in [
            (changed - day, false),
            (changed - day + 1, true),
            (changed + day - 1, true),
            (changed + day, false),
        ] {
            let now = UNIX_EPOCH + Duration::from_millis(now);
            assert_eq!(latest.may_come_again(changed, now), young, "{now:?}");
        }
        latest.learn(changed + 1);
        latest.learn(5);
        let hour_later = UNIX_EPOCH + Duration::from_millis(changed + 3_600_000);
        assert!(!latest.may_come_again(changed, hour_later));
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
