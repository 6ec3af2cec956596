// SPDX-License-Identifier: Apache-2.0
//! A map of small records beside the objects, within the same capacity.
//!
//! Room is granted to it in steps, before it writes: objects give way, up to a quarter of the
//! capacity, and then its writes are refused. What a checkpoint shows not to be needed goes back. A
//! map that is nearly as large at the open starts empty, for its file never shrinks: what it holds
//! can be asked again.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use types::{Error, Result};

use super::recover::{NOBODY, rotate_bytes};
use super::{Inner, Store};
use crate::kv::{Kv, Limits, Room};

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
        let limits = Limits {
            rotate_bytes: rotate_bytes(inner.capacity),
            room: Some(Box::new(MapRoom(Arc::downgrade(inner)))),
        };
        let map = Kv::open_with(&path, cache_bytes, limits)?;
        inner.grant(map.disk_bytes());
        Ok(map)
    }
}

/// The room of a map in the capacity of a store.
struct MapRoom(Weak<Inner>);

impl Room for MapRoom {
    fn grant(&self, bytes: u64) -> bool {
        self.0.upgrade().is_some_and(|inner| inner.grant(bytes))
    }

    fn settle(&self, bytes: u64) {
        if let Some(inner) = self.0.upgrade() {
            inner.take_back(bytes);
        }
    }
}

impl Inner {
    /// Takes back what was granted to the map beyond `bytes`.
    fn take_back(&self, bytes: u64) {
        let _one_at_a_time = self.granting.lock();
        let needed = bytes.next_multiple_of(rotate_bytes(self.capacity));
        self.granted.fetch_min(needed, Ordering::Relaxed);
    }

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
