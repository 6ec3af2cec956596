// SPDX-License-Identifier: Apache-2.0
//! How much of the capacity is used: room is taken before anything is written.
//!
//! An object is charged what its pages allocate, in blocks, and what the file system keeps of it
//! besides. The index is charged its files as they are, and room for them to grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use types::PAGE_SIZE;

use crate::record::page_len;

/// The usual allocation unit of file systems.
const BLOCK: u64 = 4096;
/// What an inode and its directory entry take of the room for files, where they take any: those of
/// XFS have so much, ext4 has its inodes set aside.
const INODE: u64 = 512;
/// Pages up to which an inode knows by itself where they lie, however they came.
const INLINE_PAGES: u64 = 4;

/// The room for objects.
#[derive(Debug)]
pub(crate) struct Space {
    used: AtomicU64,
}

/// Room that was taken and goes back unless it is kept.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    space: &'a Space,
    pub(crate) bytes: u64,
}

/// As long as one lives, the blocks of a file stay allocated.
#[derive(Debug)]
pub(crate) struct Lease {
    space: Arc<Space>,
    /// What goes back when the lease ends: set when the object was removed meanwhile.
    owed: AtomicU64,
}

/// Returns what a page costs.
pub(crate) fn page_charge(size: u64, page: u64) -> u64 {
    blocks(page_len(size, page))
}

/// Returns what an object costs besides its pages: one whose pages may lie in many places has a block
/// that says where.
pub(crate) fn overhead(size: u64) -> u64 {
    match size <= INLINE_PAGES * PAGE_SIZE {
        true => INODE,
        false => INODE + BLOCK,
    }
}

/// Returns what so many bytes cost.
pub(crate) fn blocks(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

impl Space {
    pub(crate) fn new() -> Self {
        Space {
            used: AtomicU64::new(0),
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes room if as much is left below `limit`.
    pub(crate) fn take(&self, bytes: u64, limit: u64) -> Option<Taken<'_>> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= limit)
            })
            .ok()
            .map(|_| Taken { space: self, bytes })
    }

    /// Charges what is on the disk already.
    pub(crate) fn charge(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Taken<'_> {
    /// Keeps `bytes` of it for good; the rest goes back at the end.
    pub(crate) fn keep(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.bytes, "more kept than taken");
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.space.give_back(self.bytes);
    }
}

impl Lease {
    pub(crate) fn new(space: &Arc<Space>) -> Arc<Lease> {
        Arc::new(Lease {
            space: Arc::clone(space),
            owed: AtomicU64::new(0),
        })
    }

    /// Leaves it to the lease to give back `bytes`.
    pub(crate) fn owe(&self, bytes: u64) {
        self.owed.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.space.give_back(*self.owed.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_back_unless_kept() {
        let space = Space::new();
        let mut taken = space.take(100, 150).unwrap();
        assert!(space.take(51, 150).is_none());
        taken.keep(30);
        drop(taken);
        assert_eq!(space.used(), 30);
        assert!(space.take(u64::MAX, u64::MAX).is_none());
    }

    #[test]
    fn a_removed_object_is_charged_until_its_lease_ends() {
        let space = Arc::new(Space::new());
        space.charge(10);
        let lease = Lease::new(&space);
        lease.owe(10);
        assert_eq!(space.used(), 10);
        drop(lease);
        assert_eq!(space.used(), 0);
    }

    #[test]
    fn the_last_page_costs_the_blocks_it_has() {
        assert_eq!(page_charge(PAGE_SIZE + 1, 0), PAGE_SIZE);
        assert_eq!(page_charge(PAGE_SIZE + 1, 1), BLOCK);
        assert_eq!(page_charge(PAGE_SIZE + 1, 2), 0);
    }
}
