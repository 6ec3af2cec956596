// SPDX-License-Identifier: Apache-2.0
//! The cache directory of a daemon: made, sized, and removed again when the start fails.
//!
//! Without a size of the user's, a share of the free room is taken at the first start and
//! remembered in the directory, so that a full cache does not shrink at every restart.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use types::ByteSize;

use crate::places;
use crate::plan::{CACHE_MIN_BYTES, CachePlan};
use crate::usage;

/// Room for others on the disk: a cache of the whole of it would be in everybody's way.
const SHARE_PERCENT: u64 = 80;
/// Where the size chosen at the first start is remembered.
const SIZE_FILE: &str = "forebay.size";

/// A cache directory that is ready for use.
#[derive(Debug)]
pub(crate) struct CacheDir {
    pub(crate) path: PathBuf,
    pub(crate) size_bytes: u64,
    /// The topmost directory that did not exist before.
    made: Option<PathBuf>,
    /// Whether the size is one of ours, to be remembered.
    is_default: bool,
}

impl CacheDir {
    /// Makes the directory if it is missing and decides its size.
    pub(crate) fn prepare(plan: &CachePlan) -> Result<CacheDir> {
        let what = || format!("cache directory '{}'", plan.dir.display());
        check_is_directory(&plan.dir).map_err(usage::wrong)?;
        let made = places::topmost_missing(&plan.dir);
        let mut builder = std::fs::DirBuilder::new();
        let created = builder.recursive(true).mode(0o700).create(&plan.dir);
        created.with_context(|| {
            format!("{} cannot be made; choose another with --cache-dir", what())
        })?;
        let mut dir = CacheDir {
            path: plan.dir.clone(),
            size_bytes: 0,
            made,
            is_default: plan.size_bytes.is_none(),
        };
        match plan.size_bytes.map_or_else(|| dir.default_size(), Ok) {
            Ok(size) => dir.size_bytes = size,
            Err(error) => {
                dir.undo();
                return Err(error).with_context(what);
            }
        }
        Ok(dir)
    }

    /// Removes what did not exist before; for a start that failed.
    pub(crate) fn undo(&self) {
        let Some(made) = &self.made else { return };
        if let Err(error) = std::fs::remove_dir_all(made) {
            tracing::debug!("remove '{}': {error}", made.display());
        }
    }

    /// Remembers a size that was chosen here. Only once the directory is a cache: one that holds
    /// anything else is refused by the cache.
    pub(crate) fn remember(&self) {
        let file = self.path.join(SIZE_FILE);
        if self.is_default
            && let Err(error) = std::fs::write(&file, self.size_bytes.to_string())
        {
            tracing::warn!("write '{}': {error}", file.display());
        }
    }

    fn default_size(&self) -> Result<u64> {
        let remembered = std::fs::read_to_string(self.path.join(SIZE_FILE)).ok();
        if let Some(size) = remembered.and_then(|text| text.trim().parse().ok()) {
            return Ok(size);
        }
        let disk = rustix::fs::statvfs(&self.path).context("ask for the free room")?;
        share_of(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Returns the size of a cache on a disk with so much room.
fn share_of(free: u64) -> Result<u64> {
    let size = free / 100 * SHARE_PERCENT;
    if size < CACHE_MIN_BYTES {
        bail!(
            "its disk is full: {} are free, and {SHARE_PERCENT} % of that is less than the {} that \
             a cache needs; free some space, or choose another disk with --cache-dir",
            ByteSize(free),
            ByteSize(CACHE_MIN_BYTES)
        );
    }
    Ok(size)
}

/// Refuses what is there and no directory.
pub(crate) fn check_is_directory(dir: &Path) -> Result<(), String> {
    match dir.metadata() {
        Ok(found) if !found.is_dir() => Err(format!(
            "cache directory '{}' is a file: give a directory with --cache-dir",
            dir.display()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_start_leaves_no_directory_that_it_made() {
        let dir = tempfile::tempdir().unwrap();
        let plan = CachePlan {
            dir: dir.path().join("a/b/c"),
            size_bytes: Some(1 << 30),
        };
        let cache = CacheDir::prepare(&plan).unwrap();
        assert_eq!(cache.size_bytes, 1 << 30);
        std::fs::write(plan.dir.join("index"), b"x").unwrap();
        cache.undo();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failed_start_keeps_a_directory_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let plan = CachePlan {
            dir: dir.path().to_owned(),
            size_bytes: Some(1 << 30),
        };
        CacheDir::prepare(&plan).unwrap().undo();
        assert!(dir.path().try_exists().unwrap());
    }

    #[test]
    fn the_default_size_is_a_share_of_the_free_room_and_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let plan = CachePlan {
            dir: dir.path().to_owned(),
            size_bytes: None,
        };
        let mut first = CacheDir::prepare(&plan).unwrap();
        assert!(first.size_bytes > 0);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "no cache yet"
        );
        first.size_bytes = 12_345;
        first.remember();
        assert_eq!(CacheDir::prepare(&plan).unwrap().size_bytes, 12_345);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_with_a_fix() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"").unwrap();
        for (path, word) in [("file/cache", "cannot be made"), ("file", "is a file")] {
            let plan = CachePlan {
                dir: dir.path().join(path),
                size_bytes: None,
            };
            let error = format!("{:#}", CacheDir::prepare(&plan).unwrap_err());
            assert!(error.contains("--cache-dir"), "{error}");
            assert!(error.contains(word) && !error.contains("owner"), "{error}");
        }
    }

    #[test]
    fn a_disk_without_room_for_a_cache_is_named() {
        let error = share_of(10 << 20).unwrap_err().to_string();
        for word in ["disk is full", "10 MiB", "64 MiB", "--cache-dir"] {
            assert!(error.contains(word), "{word} in {error}");
        }
        assert_eq!(share_of(100 << 30).unwrap(), (100 << 30) / 100 * 80);
    }
}
