// SPDX-License-Identifier: Apache-2.0
//! The part of the capacity that staged files take: cached objects give way to them.

use super::recover::NOBODY;
use super::{Inner, Store};
use crate::staged::Room;
use types::{Error, ErrorKind, Result};

/// Objects evicted to make room on a disk that is full of other things, at most.
const EVICTIONS_MAX: usize = 1024;

impl Store {
    /// Takes room for `bytes` of staged files, evicting objects. Fails with OutOfSpace when what is
    /// left is staged or in use.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        let inner = &self.inner;
        if inner.is_out_of_service() {
            // There is nothing to share with: the disk alone bounds what is staged.
            inner.space.charge(bytes);
            return Ok(());
        }
        loop {
            if let Some(mut taken) = inner.space.take(bytes, inner.room_for_objects()) {
                taken.keep(bytes);
                inner.make_room_on_disk(bytes);
                return Ok(());
            }
            if !inner.evict_one(NOBODY) {
                return Err(Error::new(
                    ErrorKind::OutOfSpace,
                    "the cache is full of what is staged or in use: wait until some of it is \
                     persisted, or give the cache more capacity",
                ));
            }
        }
    }

    /// Counts staged bytes that are on the disk already; objects give way as far as they can.
    pub(crate) fn charge_staged(&self, bytes: u64) {
        let inner = &self.inner;
        inner.space.charge(bytes);
        while inner.space.used() > inner.room_for_objects() && inner.evict_one(NOBODY) {}
    }

    pub(crate) fn give_back_staged(&self, bytes: u64) {
        self.inner.space.give_back(bytes);
    }

    /// Returns how much can be staged when `staged` bytes are, on a disk with so much room.
    pub(crate) fn room_for_staged(&self, staged: u64, disk: Room) -> Room {
        let inner = &self.inner;
        if inner.is_out_of_service() {
            return disk;
        }
        let cached = inner.space.used().saturating_sub(staged);
        let room = inner.room_for_objects();
        Room {
            total: inner.capacity.min(disk.total),
            free: room
                .saturating_sub(staged)
                .min(disk.free.saturating_add(cached)),
        }
    }
}

impl Inner {
    /// Evicts objects while the disk has less left than they leave to others.
    fn make_room_on_disk(&self, bytes: u64) {
        for _ in 0..EVICTIONS_MAX {
            if !matches!(self.disk_has_room(bytes), Ok(false)) || !self.evict_one(NOBODY) {
                return;
            }
        }
    }
}
