// SPDX-License-Identifier: Apache-2.0
//! Pinning: an object that is pinned is not evicted, also after a restart.
//!
//! A pin is a record of its own beside those of the object, written before it counts and removed
//! with the object. Pinned objects are in no queue of the eviction policy: the policy drops them when
//! it comes upon them, and an object that is let go enters as a new one. They may not take all of the
//! room: what is staged and what is read once need some.

use types::{ByteSize, Error, ErrorKind, Result, VersionId};

use super::{Inner, Store};
use crate::evict::Item;
use crate::index::Entry;
use crate::pins::{Pin, weight};
use crate::record;

/// Pinned objects take at most this part of the room for objects.
const PINNED_PART: (u64, u64) = (4, 5);

impl Store {
    /// Keeps an object from being evicted, also after the next open; false when nothing of it is
    /// here. The version that was pinned at the same place is let go. Pinning again changes the wish.
    ///
    /// # Errors
    /// `OutOfSpace` when pinned objects would take more than their part of the capacity; else what
    /// the disk said.
    pub fn pin(&self, id: VersionId, pin: Pin) -> Result<bool> {
        let inner = &self.inner;
        if inner.is_out_of_service() {
            return Ok(false);
        }
        let displaced = {
            let _files = inner.index.lock_files(id);
            let Some(size) = inner.index.with(id, |entry| entry.size) else {
                return Ok(false);
            };
            inner.pin_known(id, size, pin)?
        };
        if let Some(old) = displaced.filter(|old| *old != id) {
            self.unpin(old)?;
        }
        Ok(true)
    }

    /// Lets an object be evicted again.
    ///
    /// # Errors
    /// What the disk said; then it stays pinned after the next open.
    pub fn unpin(&self, id: VersionId) -> Result<()> {
        let _files = self.inner.index.lock_files(id);
        self.inner.unpin_known(id)
    }

    /// Lets go all objects that are pinned by wishes that `pick` picks; returns how many.
    ///
    /// # Errors
    /// What the disk said.
    pub fn unpin_wishes(&self, pick: impl Fn(u64) -> bool) -> Result<u64> {
        let found = self.inner.pins.lock().of_wishes(pick);
        for (id, _) in &found {
            self.unpin(*id)?;
        }
        Ok(found.len() as u64)
    }

    /// Returns whether an object is pinned.
    pub fn is_pinned(&self, id: VersionId) -> bool {
        let pinned = self.inner.index.with(id, |entry| entry.pinned);
        pinned.unwrap_or(false)
    }

    /// Returns how many more bytes can be pinned; none when the directory is out of use.
    pub fn pin_room(&self) -> u64 {
        match self.inner.is_out_of_service() {
            true => 0,
            false => {
                let pinned = self.inner.pins.lock().bytes();
                self.inner.pinned_max().saturating_sub(pinned)
            }
        }
    }
}

impl Inner {
    /// Returns how much pinned objects may take.
    fn pinned_max(&self) -> u64 {
        self.room_for_objects() / PINNED_PART.1 * PINNED_PART.0
    }

    /// Pins an object that is in the index. The lock of its files must be held.
    fn pin_known(&self, id: VersionId, size: u64, pin: Pin) -> Result<Option<VersionId>> {
        let max = self.pinned_max();
        let mut pins = self.pins.lock();
        let known = pins.get(id);
        if known == Some(pin) {
            return Ok(None);
        }
        if known.is_none() && pins.bytes().saturating_add(weight(size)) > max {
            let message = format!(
                "what is pinned takes {} already, and may take {} of this cache: unpin something, or \
                 mount with a larger --cache-size",
                ByteSize(pins.bytes()),
                ByteSize(max)
            );
            return Err(Error::new(ErrorKind::OutOfSpace, message));
        }
        let displaced = pins.insert(id, size, pin);
        drop(pins);
        let noted = vec![(record::pin_key(id), Some(record::encode_pin(pin)))];
        if let Err(error) = self.kv.write(noted) {
            self.pins.lock().remove(id);
            return Err(error.context("note a pin"));
        }
        self.index.with(id, |entry| entry.pinned = true);
        Ok(displaced)
    }

    /// Lets an object go. The lock of its files must be held.
    pub(super) fn unpin_known(&self, id: VersionId) -> Result<()> {
        if !self.pins.lock().remove(id) {
            return Ok(());
        }
        let item = self.index.with(id, |entry| {
            entry.pinned = false;
            let is_queued = std::mem::replace(&mut entry.queued, true);
            let priority = self.rules.priority(entry.rule);
            (!is_queued).then(|| (item_of(id, entry), priority))
        });
        if let Some((item, priority)) = item.flatten() {
            let mut policy = self.policy.lock();
            policy.insert(priority, item, &mut |rank, item| {
                self.look_at(rank, item, id)
            });
        }
        let gone = self.kv.write(vec![(record::pin_key(id), None)]);
        gone.map_err(|error| error.context("note that something is not pinned any more"))
    }

    /// Lets objects go until the pinned ones fit into their part of a capacity that has shrunk.
    pub(super) fn fit_pins(&self) {
        let (before, max) = (self.pins.lock().bytes(), self.pinned_max());
        if before <= max {
            return;
        }
        let all = self.pins.lock().of_wishes(|_| true);
        for (id, _) in all {
            let _files = self.index.lock_files(id);
            if self.pins.lock().bytes() <= max {
                break;
            }
            if let Err(error) = self.unpin_known(id) {
                tracing::debug!("let {id} go: {error}");
            }
        }
        tracing::warn!(
            "cache directory {}: {} were pinned, and only {} may be: some can be evicted again",
            self.directory.path().display(),
            ByteSize(before),
            ByteSize(max)
        );
    }

    /// Forgets the pin of an object that is not in the index any more; returns what removes its
    /// record.
    pub(super) fn forget_pin(&self, id: VersionId) -> Option<crate::kv::Change> {
        let was_pinned = self.pins.lock().remove(id);
        was_pinned.then(|| (record::pin_key(id), None))
    }
}

/// Returns an object as the eviction policy knows it.
pub(super) fn item_of(id: VersionId, entry: &Entry) -> Item {
    Item {
        id,
        birth: entry.birth,
        weight: entry.size,
        entered: entry.last_use,
        spent: entry.uses,
    }
}
