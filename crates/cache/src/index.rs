// SPDX-License-Identifier: Apache-2.0
//! What the store knows of each object, in memory: 256 shards by the first byte of the id.
//!
//! Each shard has two locks. `entries` is a leaf, held for a few lines and never over I/O. `writing`
//! is held while files of the shard are written, checked or removed, so that what the index says of
//! a file and the file itself change together; it is taken first.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use types::{PageRange, VersionId, page_count};

use crate::evict::Tick;
use crate::files::{Stamp, prefix};
use crate::keepsakes::Kept;
use crate::pages::PageSet;
use crate::record::page_len;
use crate::rules::{NO_RULE, Slot};
use crate::space::{Lease, overhead, page_charge};

/// One cached object. Bytes are good if their pages are in `present` and not in `unchecked`, and the
/// file still has the stamp.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    /// Another file of the same object has another one.
    pub(crate) birth: u64,
    pub(crate) stamp: Stamp,
    pub(crate) present: PageSet,
    /// Pages whose checksums must be compared before they are used.
    pub(crate) unchecked: PageSet,
    /// An open file, if it is one of the few that are kept open.
    pub(crate) file: Option<Arc<File>>,
    /// What a door left here, if the object is one of those that may have such a thing.
    pub(crate) kept: Option<Box<Kept>>,
    pub(crate) lease: Weak<Lease>,
    /// When it was last used, for the eviction policy, and in seconds since the store was opened.
    pub(crate) last_use: Tick,
    pub(crate) last_use_seconds: u32,
    /// How often it was used, for the eviction policy; wraps.
    pub(crate) uses: u16,
    /// What is stored of it calls for more checks than are needed by now.
    pub(crate) unsaved: bool,
    /// It must not be evicted.
    pub(crate) pinned: bool,
    /// The eviction policy knows it.
    pub(crate) queued: bool,
    /// Which rule it follows.
    pub(crate) rule: Slot,
}

impl Entry {
    pub(crate) fn new(size: u64, birth: u64, stamp: Stamp) -> Self {
        let pages = page_count(size);
        Entry {
            size,
            birth,
            stamp,
            present: PageSet::empty(pages),
            unchecked: PageSet::empty(pages),
            file: None,
            kept: None,
            lease: Weak::new(),
            last_use: 0,
            last_use_seconds: 0,
            uses: 0,
            unsaved: false,
            pinned: false,
            queued: true,
            rule: NO_RULE,
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.present.len() == page_count(self.size)
    }

    /// Returns how many bytes of the object are here.
    pub(crate) fn len(&self) -> u64 {
        let last = page_count(self.size).saturating_sub(1);
        let has_last = self.present.has(last);
        let tail = if has_last {
            page_len(self.size, last)
        } else {
            0
        };
        (self.present.len() - u64::from(has_last)) * types::PAGE_SIZE + tail
    }

    /// Returns what it is charged.
    pub(crate) fn charge(&self) -> u64 {
        let last = page_count(self.size).saturating_sub(1);
        let full = self.present.len() - u64::from(self.present.has(last));
        let tail = if self.present.has(last) {
            page_charge(self.size, last)
        } else {
            0
        };
        overhead(self.size) + full * types::PAGE_SIZE + tail
    }

    pub(crate) fn all_pages(&self) -> PageRange {
        PageRange {
            first: 0,
            end: page_count(self.size),
        }
    }

    pub(crate) fn is_leased(&self) -> bool {
        self.lease.strong_count() > 0
    }
}

#[derive(Debug, Default)]
struct Shard {
    writing: Mutex<()>,
    entries: Mutex<HashMap<VersionId, Entry>>,
}

/// All objects.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Box<[Shard]>,
}

impl Index {
    pub(crate) const SHARDS: u16 = 256;

    pub(crate) fn new() -> Self {
        Index {
            shards: (0..Self::SHARDS).map(|_| Shard::default()).collect(),
        }
    }

    /// Runs `look` on the entry of an object, under its lock.
    pub(crate) fn with<T>(&self, id: VersionId, look: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.shard(id).entries.lock().get_mut(&id).map(look)
    }

    /// As [`Index::with`], if it is still the same file of the object.
    pub(crate) fn with_birth<T>(
        &self,
        id: VersionId,
        birth: u64,
        look: impl FnOnce(&mut Entry) -> T,
    ) -> Option<T> {
        self.shard(id)
            .entries
            .lock()
            .get_mut(&id)
            .filter(|e| e.birth == birth)
            .map(look)
    }

    pub(crate) fn insert(&self, id: VersionId, entry: Entry) {
        self.shard(id).entries.lock().insert(id, entry);
    }

    /// Takes an object out if `agree` says so.
    pub(crate) fn remove_if(
        &self,
        id: VersionId,
        agree: impl FnOnce(&Entry) -> bool,
    ) -> Option<Entry> {
        let mut entries = self.shard(id).entries.lock();
        entries
            .get(&id)
            .is_some_and(agree)
            .then(|| entries.remove(&id))?
    }

    /// Locks the files of the shard that an object is in.
    pub(crate) fn lock_files(&self, id: VersionId) -> MutexGuard<'_, ()> {
        self.shard(id).writing.lock()
    }

    /// As [`Index::lock_files`], of two objects.
    pub(crate) fn lock_files_of_both(
        &self,
        one: VersionId,
        other: VersionId,
    ) -> (MutexGuard<'_, ()>, Option<MutexGuard<'_, ()>>) {
        let (low, high) = match prefix(one) <= prefix(other) {
            true => (one, other),
            false => (other, one),
        };
        let first = self.lock_files(low);
        let second = (prefix(low) != prefix(high)).then(|| self.lock_files(high));
        (first, second)
    }

    /// As [`Index::lock_files`], if nobody holds it.
    pub(crate) fn try_lock_files(&self, id: VersionId) -> Option<MutexGuard<'_, ()>> {
        self.shard(id).writing.try_lock()
    }

    /// Waits until whoever writes files now is done.
    pub(crate) fn wait_for_writers(&self) {
        for shard in &self.shards {
            drop(shard.writing.lock());
        }
    }

    /// Returns the ids whose first byte is `prefix` and that `pick` picks.
    pub(crate) fn ids(&self, prefix: u8, pick: impl Fn(&Entry) -> bool) -> Vec<VersionId> {
        let entries = self.shards[usize::from(prefix)].entries.lock();
        entries
            .iter()
            .filter(|(_, entry)| pick(entry))
            .map(|(id, _)| *id)
            .collect()
    }

    fn shard(&self, id: VersionId) -> &Shard {
        &self.shards[usize::from(prefix(id))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::PAGE_SIZE;

    #[test]
    fn an_object_is_charged_for_the_pages_it_has() {
        let mut entry = Entry::new(2 * PAGE_SIZE + 5000, 1, Stamp(0));
        assert_eq!(entry.charge(), overhead(entry.size));
        entry.present.insert(2);
        assert_eq!(entry.charge(), overhead(entry.size) + 8192);
        entry.present.insert(0);
        assert_eq!(entry.charge(), overhead(entry.size) + 8192 + PAGE_SIZE);
        assert!(!entry.is_whole());
        entry.present.insert(1);
        assert!(entry.is_whole());
    }

    #[test]
    fn an_entry_is_compact() {
        // With the key and the load of the table 150 to 300 bytes an object.
        assert!(size_of::<Entry>() <= 112, "{}", size_of::<Entry>());
    }
}
