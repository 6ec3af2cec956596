// SPDX-License-Identifier: Apache-2.0
//! Whom to evict: S3-FIFO over whole objects (Yang et al., "FIFO Queues are All You Need for Cache
//! Eviction", SOSP 2023).
//!
//! New objects enter a small queue (a tenth of the bytes) and move to the main one only if they are
//! used again; a scan therefore passes through the small queue and leaves the main one alone. Ids
//! thrown out lately are remembered, and enter the main queue when they come back. Nothing happens
//! here on a hit: uses are counted in the index and asked for when a victim is needed.
//!
//! Pure bookkeeping, no I/O. Not the last word for shuffled epochs, where keeping a fixed part of
//! the data set is best.

use std::collections::{HashSet, VecDeque};

use types::VersionId;

/// The small queue is evicted from while it holds more than this part of all bytes.
const SMALL_PART: u64 = 10;
/// Objects removed otherwise are swept out when there are this many more items than objects.
const SWEEP_SLACK: usize = 1024;

/// What the index says of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Removed, or another file by now.
    Gone,
    /// Must stay for now.
    Held,
    /// Used since the last look, which is forgotten by looking.
    Used,
    /// Not used.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) id: VersionId,
    pub(crate) birth: u64,
    /// Length of the object: its weight in the queues.
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: u64,
}

/// The queues.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    small: Queue,
    main: Queue,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
}

impl Policy {
    /// Takes note of a new object.
    pub(crate) fn insert(&mut self, item: Item) {
        match self.ghost_set.remove(&fingerprint(item.id)) {
            true => self.main.push(item),
            false => self.small.push(item),
        }
    }

    /// Takes note of an object that was there before the store was opened.
    pub(crate) fn insert_known(&mut self, item: Item) {
        self.main.push(item);
    }

    /// Puts back a victim that could not be evicted.
    pub(crate) fn put_back(&mut self, item: Item) {
        self.main.push(item);
    }

    /// Picks an object and forgets it; none when all are held.
    pub(crate) fn victim(&mut self, look: &mut dyn FnMut(Item) -> Look) -> Option<Item> {
        // Uses are forgotten by looking, so that two rounds over everything find whoever can go.
        let mut looks = 4 * (self.small.items.len() + self.main.items.len());
        while looks > 0 {
            looks -= 1;
            let total = self.small.bytes + self.main.bytes;
            let small = self.small.bytes.saturating_mul(SMALL_PART) >= total;
            if (small || self.main.items.is_empty()) && !self.small.items.is_empty() {
                let item = self.small.pop()?;
                match look(item) {
                    Look::Gone => {}
                    Look::Held | Look::Used => self.main.push(item),
                    Look::Idle => {
                        self.remember(item);
                        return Some(item);
                    }
                }
            } else {
                let item = self.main.pop()?;
                match look(item) {
                    Look::Gone => {}
                    Look::Held | Look::Used => self.main.push(item),
                    Look::Idle => return Some(item),
                }
            }
        }
        None
    }

    /// Drops what is gone, if it may be much; `objects` is how many there are.
    pub(crate) fn sweep(&mut self, objects: u64, look: &mut dyn FnMut(Item) -> bool) {
        let items = self.small.items.len() + self.main.items.len();
        let bound = usize::try_from(objects)
            .unwrap_or(usize::MAX)
            .saturating_mul(2);
        if items > bound.saturating_add(SWEEP_SLACK) {
            self.small.retain(look);
            self.main.retain(look);
        }
    }

    /// Remembers as many evicted ids as there are objects.
    fn remember(&mut self, item: Item) {
        let ghost = fingerprint(item.id);
        if self.ghost_set.insert(ghost) {
            self.ghosts.push_back(ghost);
        }
        while self.ghosts.len() > self.small.items.len() + self.main.items.len() {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.ghost_set.remove(&oldest);
            }
        }
    }
}

impl Queue {
    fn push(&mut self, item: Item) {
        self.bytes += item.bytes;
        self.items.push_back(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.bytes;
        Some(item)
    }

    fn retain(&mut self, look: &mut dyn FnMut(Item) -> bool) {
        self.items.retain(|item| look(*item));
        self.bytes = self.items.iter().map(|item| item.bytes).sum();
    }
}

/// Ids are hashes, so that a part of one will do.
#[allow(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
fn fingerprint(id: VersionId) -> u64 {
    id.0 as u64 ^ (id.0 >> 64) as u64
}

#[cfg(test)]
mod tests;
