// SPDX-License-Identifier: Apache-2.0
//! The place of the cache: whether it can be written, how much fits, how fast it is.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use types::{ByteSize, Clock};

use super::Finding;

/// A cache is at least this large; with less than the second it holds little.
const ROOM_MIN: u64 = 64 << 20;
const ROOM_GOOD: u64 = 1 << 30;
/// Each cached object is a file.
const FILES_MIN: u64 = 1000;
/// What is written to measure, a piece at a time, and for how long at most.
const SAMPLE: u64 = 32 << 20;
const PIECE: usize = 1 << 20;
const SAMPLE_MAX: Duration = Duration::from_secs(3);
/// Bytes a second below which a cache is slower than most storages, and than most networks.
const SPEED_MIN: u64 = 20_000_000;
const SPEED_GOOD: u64 = 100_000_000;
/// File systems by the number that `statfs` tells.
const OVERLAY: i64 = 0x794c_7630;
const NFS: i64 = 0x6969;
const TMPFS: i64 = 0x0102_1994;

/// Looks at the place of a cache.
pub(super) fn findings(dir: &Path, clock: &dyn Clock) -> Vec<Finding> {
    const NAME: &str = "cache directory";
    let is_there = |dir: &&Path| dir.try_exists().unwrap_or(false);
    let Some(place) = dir.ancestors().find(is_there) else {
        return Vec::new();
    };
    let shown = dir.display();
    // With a name: what a file system does with one that has none tells little.
    let file = match tempfile::Builder::new()
        .prefix(".forebay-doctor-")
        .tempfile_in(place)
    {
        Ok(file) => file,
        Err(error) => {
            let fail = Finding::fail(NAME, format!("{shown} cannot be written: {error}"));
            return vec![fail.because(
                "what is read is kept there, and what is written goes through it",
                "choose another with --cache-dir, or free some space there",
            )];
        }
    };
    let mut found = vec![Finding::pass(NAME, format!("{shown} can be written"))];
    let room = room(place);
    let is_full = room
        .as_ref()
        .is_some_and(|room| room.verdict == super::Verdict::Fail);
    found.extend(file_system(place));
    found.extend(room);
    if !is_full {
        found.push(speed(file.as_file(), clock));
    }
    found
}

fn file_system(place: &Path) -> Option<Finding> {
    const NAME: &str = "file system of the cache";
    let kind = rustix::fs::statfs(place).ok()?.f_type;
    // The type differs between machines.
    #[allow(clippy::unnecessary_cast, reason = "the type differs between machines")]
    Some(match kind as i64 {
        OVERLAY => Finding::warn(NAME, "an overlay, as containers have").because(
            "the kernel cannot read cache files there by itself",
            "put the cache on a volume: --cache-dir",
        ),
        NFS => Finding::warn(NAME, "NFS").because(
            "a cache on a network is no nearer than the storage",
            "put the cache on a local disk: --cache-dir",
        ),
        TMPFS => Finding::warn(NAME, "tmpfs: memory").because(
            "it is gone when the machine starts again, and takes memory from jobs",
            "put the cache on a local disk: --cache-dir",
        ),
        _ => Finding::pass(NAME, "a local one"),
    })
}

fn room(place: &Path) -> Option<Finding> {
    const NAME: &str = "free space for the cache";
    const WHY: &str = "what does not fit is fetched each time it is read";
    let disk = rustix::fs::statvfs(place).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let fix = "free some space there, or choose another disk with --cache-dir";
    // Some file systems make inodes as they go, and tell none.
    if disk.f_files > 0 && disk.f_favail < FILES_MIN {
        let detail = format!("{} more files fit", disk.f_favail);
        return Some(Finding::fail(NAME, detail).because(WHY, fix));
    }
    let detail = ByteSize(free).to_string();
    Some(match free {
        free if free < ROOM_MIN => Finding::fail(NAME, detail).because(WHY, fix),
        free if free < ROOM_GOOD => Finding::warn(NAME, detail).because(WHY, fix),
        _ => Finding::pass(NAME, detail),
    })
}

fn speed(file: &File, clock: &dyn Clock) -> Finding {
    const NAME: &str = "speed of the cache disk";
    const WHY: &str = "what is fetched is written there, and read from there in later epochs";
    let fix = "choose a faster disk with --cache-dir, such as a local NVMe or SSD";
    match written(file, clock) {
        Err(error) => Finding::fail(NAME, error.to_string()).because(WHY, fix),
        Ok(rate) => {
            let detail = format!("{}/s written and synced", ByteSize(rate));
            match rate {
                rate if rate < SPEED_MIN => Finding::fail(NAME, detail).because(WHY, fix),
                rate if rate < SPEED_GOOD => Finding::warn(NAME, detail).because(WHY, fix),
                _ => Finding::pass(NAME, detail),
            }
        }
    }
}

/// Writes and syncs a piece after the other; returns the bytes a second.
fn written(mut file: &File, clock: &dyn Clock) -> std::io::Result<u64> {
    // What no disk compresses away.
    let mut state = 1u64;
    let piece: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(PIECE)
    .collect();
    let began = clock.now();
    let mut bytes = 0;
    loop {
        file.write_all(&piece)?;
        bytes += PIECE as u64;
        let passed = clock.now().saturating_duration_since(began);
        let is_enough = bytes >= SAMPLE || passed >= SAMPLE_MAX;
        // Each by itself on a slow disk, so that it ends in time; all at once on a fast one.
        if is_enough || passed >= SAMPLE_MAX / 8 {
            file.sync_data()?;
        }
        if is_enough {
            break;
        }
    }
    let passed = clock.now().saturating_duration_since(began);
    let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1);
    Ok(bytes.saturating_mul(1_000_000) / micros)
}

#[cfg(test)]
mod tests {
    use types::SystemClock;

    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let found = findings(&dir.path().join("a/b"), &SystemClock);
        let names: Vec<_> = found.iter().map(|one| one.name).collect();
        assert_eq!(names[0], "cache directory");
        assert!(names.contains(&"free space for the cache"), "{names:?}");
        assert!(found[0].detail.ends_with("a/b can be written"), "{found:?}");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nothing is left"
        );
        let found = findings(Path::new("/proc/forebay"), &SystemClock);
        assert_eq!(found.len(), 1);
        assert!(found[0].fix.is_some(), "{found:?}");
    }
}
