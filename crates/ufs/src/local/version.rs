// SPDX-License-Identifier: Apache-2.0
//! What a `stat` tells: kinds, owners, and versions that can be trusted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};
use types::meta::Owner;
use types::{NodeKind, ObjectMeta, VersionTag};

/// The coarsest tick of kernels in use (100 Hz), doubled.
pub(super) const GRAIN: Duration = Duration::from_millis(20);

/// Returns what a stat, begun at `now` or later, describes; `None` for special files, which cannot
/// be shown. A file whose version is still young gets a tag that no read finds, so that reads are
/// stale until it is looked at again.
pub(super) fn meta_of(stat: &Stat, now: SystemTime) -> Option<ObjectMeta> {
    let (kind, tag) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if is_young(stat, now) => {
            let etag = tag_of(stat).etag.map(|etag| etag + "-young");
            (
                NodeKind::File,
                VersionTag {
                    etag,
                    ..tag_of(stat)
                },
            )
        }
        FileType::RegularFile => (NodeKind::File, tag_of(stat)),
        FileType::Symlink => (NodeKind::Symlink, tag_of(stat)),
        FileType::Directory => (
            NodeKind::Directory,
            VersionTag {
                etag: None,
                size: 0,
                ..tag_of(stat)
            },
        ),
        _ => return None,
    };
    let owner = Owner {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    };
    Some(ObjectMeta {
        kind,
        tag,
        owner: Some(owner),
        extras: None,
    })
}

/// Returns what a stat describes right after our own change: its version is believed at once.
pub(super) fn meta_of_own(stat: &Stat) -> Option<ObjectMeta> {
    // Whatever changed, it was not in 1970.
    meta_of(stat, UNIX_EPOCH)
}

/// Returns the version that the stat tells.
pub(super) fn tag_of(stat: &Stat) -> VersionTag {
    let (ino, changed) = (stat.st_ino, nanoseconds(stat.st_ctime, stat.st_ctime_nsec));
    VersionTag {
        etag: Some(format!("{ino:x}-{changed:x}")),
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        size: u64::try_from(stat.st_size).unwrap_or(0),
    }
}

/// Returns whether a change after this stat of a file could still share its change time. A time
/// that lies in the future by more than the grain is another machine's: waiting would not help.
pub(super) fn is_young(stat: &Stat, now: SystemTime) -> bool {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return false;
    }
    let now = now
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let grain = i64::try_from(GRAIN.as_nanos()).unwrap_or(i64::MAX);
    now.saturating_sub(nanoseconds(stat.st_ctime, stat.st_ctime_nsec))
        .saturating_abs()
        < grain
}

fn nanoseconds(seconds: i64, nanoseconds: u64) -> i64 {
    let nanoseconds = i64::try_from(nanoseconds).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_young_for_one_grain() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let changed = nanoseconds(stat.st_ctime, stat.st_ctime_nsec);
        let changed = UNIX_EPOCH + Duration::from_nanos(changed.unsigned_abs());
        assert!(is_young(&stat, changed));
        assert!(is_young(&stat, changed + GRAIN / 2));
        assert!(!is_young(&stat, changed + GRAIN));
        assert!(!is_young(&stat, changed - Duration::from_secs(60)));
    }
}
