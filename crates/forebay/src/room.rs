// SPDX-License-Identifier: Apache-2.0
//! The room that the disk really has for the cache, as opposed to what the cache was promised.
//!
//! A capacity is a limit and reserves nothing: others may fill the disk. That is told at the start
//! when it can be seen then, and once in the log when it happens later.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use types::ByteSize;

/// Pause between two looks at the disk.
const PAUSE: Duration = Duration::from_secs(5);

/// The cache and its disk.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) store: Arc<cache::Store>,
    pub(crate) dir: PathBuf,
}

impl Room {
    /// Returns what to tell the user when the disk has less room than the cache was promised.
    pub(crate) fn notice(&self) -> Option<String> {
        let (left, disk) = (self.left(), self.disk_free()?);
        let capacity = ByteSize(self.store.stats().capacity);
        (left > disk).then(|| {
            format!(
                "the cache may take {capacity}, but the disk of '{}' has {} free: it takes {} more \
                 and then displaces what was used longest ago",
                self.dir.display(),
                ByteSize(disk),
                ByteSize(self.store.free()),
            )
        })
    }

    /// Returns why nothing more fits although the capacity is not used up.
    fn fault(&self) -> Option<String> {
        let is_well = self.store.stats().retired.is_some() || self.store.free() > 0;
        (!is_well && self.left() > self.disk_free()?).then(|| {
            format!(
                "the disk of the cache '{}' is full: new data displaces old, and what finds no \
                 room comes from the storage each time; free some space there",
                self.dir.display()
            )
        })
    }

    /// Tells once in the log that the disk is full.
    pub(crate) async fn watch(self) {
        loop {
            let room = self.clone();
            match tokio::task::spawn_blocking(move || room.fault()).await {
                Ok(None) => tokio::time::sleep(PAUSE).await,
                Ok(Some(fault)) => {
                    tracing::warn!("{fault}");
                    return;
                }
                // The runtime ends.
                Err(_) => return,
            }
        }
    }

    /// Returns what the capacity still allows.
    fn left(&self) -> u64 {
        let stats = self.store.stats();
        stats.capacity.saturating_sub(stats.used)
    }

    fn disk_free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use types::SystemClock;

    use super::*;

    fn room(dir: &std::path::Path, capacity: u64) -> Room {
        let settings = cache::Settings {
            dir: dir.to_owned(),
            capacity: ByteSize(capacity),
        };
        let store = cache::Store::open(&settings, Arc::new(SystemClock)).unwrap();
        let dir = dir.to_owned();
        Room { store, dir }
    }

    #[test]
    fn a_promise_that_the_disk_cannot_keep_is_told_with_both_sizes() {
        let dir = tempfile::tempdir().unwrap();
        let small = room(dir.path(), 64 << 20);
        assert_eq!((small.notice(), small.fault()), (None, None));
        drop(small);
        let said = room(dir.path(), 1 << 60).notice().unwrap();
        assert!(said.contains("may take") && said.contains("free"), "{said}");
    }
}
