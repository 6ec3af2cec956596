// SPDX-License-Identifier: Apache-2.0
//! A map of small records beside the objects, within the same capacity.
//!
//! Room is granted to it in steps, before it writes: objects give way, up to a quarter of the
//! capacity, and then its writes are refused. A map that is nearly as large at the open starts
//! empty, for its file never shrinks: what it holds can be asked again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use types::{Error, Result};

use super::recover::{NOBODY, rotate_bytes};
use super::{Inner, Store};
use crate::kv::{Kv, Limits};

/// The part of the capacity that a map may take.
const MAP_PART: u64 = 4;

impl Store {
    /// Opens the map in the files `name.*` of the directory; at most one for each store. What it
    /// takes is part of the capacity. `cache_bytes` is the memory that it may use.
    pub fn open_map(&self, name: &str, cache_bytes: usize) -> Result<Arc<Kv>> {
        let inner = &self.inner;
        let path = inner.directory.path().join(name);
        let limit = inner.capacity / MAP_PART;
        forget_large(&path.with_extension("redb"), limit - limit / 4)?;
        let owner = Arc::downgrade(inner);
        let limits = Limits {
            rotate_bytes: rotate_bytes(inner.capacity),
            grant: Some(Box::new(move |bytes| {
                owner.upgrade().is_some_and(|inner| inner.grant(bytes))
            })),
        };
        let map = Kv::open_with(&path, cache_bytes, limits)?;
        inner.grant(map.disk_bytes());
        Ok(map)
    }
}

impl Inner {
    /// Sees to it that the map may take `bytes`; false when it may not.
    fn grant(&self, bytes: u64) -> bool {
        let _one_at_a_time = self.granting.lock();
        let before = self.granted.load(Ordering::Relaxed);
        if bytes <= before {
            return true;
        }
        let limit = self.capacity / MAP_PART;
        if bytes > limit || self.is_out_of_service() {
            return false;
        }
        let step = rotate_bytes(self.capacity);
        // From here on fills leave this room.
        self.granted
            .store(bytes.next_multiple_of(step).min(limit), Ordering::Relaxed);
        while self.space.used() > self.room_for_objects() {
            if !self.evict_one(NOBODY) {
                self.granted.store(before, Ordering::Relaxed);
                return false;
            }
        }
        true
    }
}

/// Removes the file of a map that is larger than `most`.
fn forget_large(file: &Path, most: u64) -> Result<()> {
    let too_large = std::fs::metadata(file).is_ok_and(|found| found.len() > most);
    if !too_large {
        return Ok(());
    }
    tracing::info!("{} has no room to grow and starts empty", file.display());
    std::fs::remove_file(file).map_err(|e| Error::io(format!("remove {}", file.display()), e))
}
