// SPDX-License-Identifier: Apache-2.0
//! Whom to evict.
//!
//! Training reads all of a data set once an epoch, in another order each time. When it does not fit,
//! every object is as hot as the next, and the best that can be done without knowing the order is to
//! keep a fixed part of it (Mohan et al., "Analyzing and Mitigating Data Stalls in DNN Training",
//! VLDB 2021); LRU and its kin keep exchanging equals. Other work has objects that are hot, and there
//! the queues of S3-FIFO do well (Yang et al., "FIFO Queues are All You Need for Cache Eviction",
//! SOSP 2023). `passes.rs` tells one from the other by what comes back, and there are two rules:
//!
//! - **In passes** an object enters the main queue while that has room, or in place of one that had
//!   no part in the last pass. All others pass through the small queue, first in first out, a
//!   four-hundredth of the capacity. So what this pass has not read yet does not make way for what it has.
//! - **Otherwise** as in S3-FIFO: all new ones enter the small queue, a tenth of the capacity. Those
//!   that were used twice in it, or come back soon, go on into the main one, which is a clock.
//!
//! `make bench-eviction` compares the outcome with textbook policies and with the optimum. Time is
//! counted in uses of objects. Nothing happens here on a hit: uses are noted in the index and asked
//! for when they matter.
//!
//! Pure bookkeeping, no I/O.

mod ghosts;
mod passes;

use std::collections::VecDeque;

use types::VersionId;

use ghosts::Ghosts;
#[cfg(feature = "testing")]
pub use model::EvictionModel;
use passes::{Due, Passes};

/// In passes the small queue has one part in so many of what fits, ...
const SMALL_PART_IN_PASSES: u64 = 400;
/// ... otherwise one in so many.
const SMALL_PART: u64 = 10;
/// One object weighs at most one part in so many of the capacity, however much it could hold.
const WEIGHT_PART: u64 = 4;
/// What fits is taken to be less by one part in so many at each eviction, until the queues show that
/// it is not: it takes several victims to make room for a large object.
const ROOM_PART: u64 = 4096;
/// Uses in the small queue that lead to the main one.
const USES_MIN: u16 = 2;
/// Uses that count: each spares an object of the main queue once.
const USES_MAX: u16 = 3;
/// Objects of the main queue looked at to find one that gives way. The queue turns, so that all have
/// their turn in the end.
const SAMPLE: usize = 32;
/// The same for one without uses.
const CLOCK_SAMPLE: usize = 1024;
/// Slack of bounds that follow the number of objects, so that they hardly ever bind on small caches.
const SLACK: usize = 1024;

/// A point in time, in uses of objects. Wraps after four billion.
pub(crate) type Tick = u32;

/// When an object was last used, and how often in all. The count wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uses {
    pub(crate) last: Tick,
    pub(crate) count: u16,
}

/// What the index says of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Removed, pinned, or another file by now: not for the policy any more.
    Gone,
    /// Must stay for now.
    Held,
    /// May go.
    Free(Uses),
}

/// An object in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) id: VersionId,
    pub(crate) birth: u64,
    /// Its length, at most the part of the capacity that one object may weigh.
    pub(crate) weight: u64,
    /// When it entered.
    pub(crate) entered: Tick,
    /// Uses that do not count any more.
    pub(crate) spent: u16,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    weight: u64,
}

/// The queues.
#[derive(Debug)]
pub(crate) struct Policy {
    capacity: u64,
    /// What the queues held when something had to go: less than the capacity, of which the index
    /// and the blocks of the file system take their part.
    room: u64,
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
    passes: Passes,
}

/// Asks the index for what it knows of a candidate.
pub(crate) type LookAt<'a> = &'a mut dyn FnMut(Item) -> Look;

impl Policy {
    /// Makes the policy of a cache of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        Policy {
            capacity,
            room: capacity,
            small: Queue::default(),
            main: Queue::default(),
            ghosts: Ghosts::default(),
            passes: Passes::new(),
        }
    }

    /// Takes note of a new object of `size` bytes, for which there is room already.
    pub(crate) fn insert(&mut self, mut item: Item, look: LookAt<'_>) {
        item.weight = item.weight.min(self.capacity / WEIGHT_PART);
        let back = self.ghosts.take(item.id);
        if let Some(back) = back {
            let (distance, objects) = (u64::from(back.distance), self.objects());
            self.passes
                .note_return(back.last_use, item.entered, distance, objects);
        }
        if !self.passes.are_believed() {
            let soon = back.is_some_and(|back| (back.distance as usize) < self.objects());
            let queue = if soon {
                &mut self.main
            } else {
                &mut self.small
            };
            queue.push(item);
            return;
        }
        if self.main.weight + item.weight <= self.room - self.small_share() {
            self.main.push(item);
            return;
        }
        let Some(out) = back.and_then(|_| self.needless(item.entered, look)) else {
            self.small.push(item);
            return;
        };
        // They change places: the one that gives way is the next to go.
        self.main.push(item);
        self.small.push_front(out);
    }

    /// Puts back a victim that could not be evicted.
    pub(crate) fn put_back(&mut self, item: Item) {
        self.small.push(item);
    }

    /// Picks an object and forgets it; none when all are held.
    pub(crate) fn victim(&mut self, now: Tick, look: LookAt<'_>) -> Option<Item> {
        let held = self.small.weight + self.main.weight;
        // Before the first eviction nothing is known of it.
        let less = match self.room == self.capacity {
            true => 0,
            false => self.room - self.room / ROOM_PART,
        };
        self.room = held.max(less);
        // Held ones go to the back, so that one round over each queue finds whoever can go.
        for _ in 0..self.small.items.len() {
            if self.small_is_little() {
                break;
            }
            let item = self.small.pop()?;
            match look(item) {
                Look::Gone => {}
                Look::Held => self.small.push(item),
                Look::Free(uses) => {
                    if let Some(out) = self.leave_small(item, uses, now, look) {
                        return Some(out);
                    }
                }
            }
        }
        let turned = match self.passes.are_believed() {
            true => None,
            false => self.turn(look),
        };
        turned
            .or_else(|| self.least_needed(now, look))
            .or_else(|| self.any(look))
    }

    /// Drops what is gone if it may be much; `objects` is how many there are.
    pub(crate) fn sweep(&mut self, objects: u64, alive: &mut dyn FnMut(Item) -> bool) {
        let objects = usize::try_from(objects).unwrap_or(usize::MAX);
        if self.objects() > objects.saturating_mul(2).saturating_add(SLACK) {
            self.small.retain(alive);
            self.main.retain(alive);
        }
    }

    /// Returns whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.objects() == 0
    }

    fn objects(&self) -> usize {
        self.small.items.len() + self.main.items.len()
    }

    /// Returns what the small queue may weigh.
    fn small_share(&self) -> u64 {
        match self.passes.are_believed() {
            true => self.room / SMALL_PART_IN_PASSES,
            false => self.room / SMALL_PART,
        }
    }

    /// Whether the next one has to come from the main queue. In passes that is put off: an object of
    /// odd size must not send one away that is needed.
    fn small_is_little(&self) -> bool {
        match self.passes.are_believed() {
            true => self.small.weight < self.small_share() / 2,
            false => self.small.weight < self.small_share() && !self.main.items.is_empty(),
        }
    }

    /// Has the first of the small queue leave it, for good or for the main one; returns who goes.
    fn leave_small(&mut self, item: Item, uses: Uses, now: Tick, look: LookAt<'_>) -> Option<Item> {
        if self.passes.are_believed() {
            let was_used = uses.last != item.entered;
            if let Some(out) = was_used.then(|| self.needless(now, look)).flatten() {
                self.main.push(item);
                return Some(out);
            }
        } else if item.counted(uses) >= USES_MIN {
            let spent = uses.count;
            self.main.push(Item { spent, ..item });
            return None;
        }
        self.remember(item, uses.last);
        Some(item)
    }

    /// Takes one out of the main queue that had no part in the last pass.
    fn needless(&mut self, now: Tick, look: LookAt<'_>) -> Option<Item> {
        let (item, last_use) = self.sample(now, look)?;
        if self.passes.due(last_use) == Due::Never {
            // Its use before does not count as one in the small queue.
            return Some(Item {
                entered: last_use,
                ..item
            });
        }
        self.main.push(item);
        None
    }

    /// Takes one out of the main queue that was not used since its last turn.
    fn turn(&mut self, look: LookAt<'_>) -> Option<Item> {
        for _ in 0..CLOCK_SAMPLE.min(self.main.items.len() * usize::from(USES_MAX + 1)) {
            let item = self.main.pop()?;
            match look(item) {
                Look::Gone => {}
                Look::Held => self.main.push(item),
                Look::Free(uses) => {
                    let left = item.counted(uses);
                    if left == 0 {
                        self.remember(item, uses.last);
                        return Some(item);
                    }
                    let spent = uses.count.wrapping_sub(left - 1);
                    self.main.push(Item { spent, ..item });
                }
            }
        }
        None
    }

    /// Takes the one out of the main queue whose loss costs least.
    fn least_needed(&mut self, now: Tick, look: LookAt<'_>) -> Option<Item> {
        let (item, last_use) = self.sample(now, look)?;
        self.remember(item, last_use);
        Some(item)
    }

    /// Takes the one out of a sample of the main queue that is due last, and of several such the one
    /// that was idle for longest.
    fn sample(&mut self, now: Tick, look: LookAt<'_>) -> Option<(Item, Tick)> {
        let mut found: Option<(Item, Tick)> = None;
        for _ in 0..SAMPLE.min(self.main.items.len()) {
            let item = self.main.pop()?;
            let last_use = match look(item) {
                Look::Gone => continue,
                Look::Held => {
                    self.main.push(item);
                    continue;
                }
                Look::Free(uses) => uses.last,
            };
            let rank = |last_use: Tick| (self.passes.due(last_use), now.wrapping_sub(last_use));
            let is_better = found.is_none_or(|(_, best)| rank(last_use) > rank(best));
            let worse = match is_better {
                true => found.replace((item, last_use)).map(|(worse, _)| worse),
                false => Some(item),
            };
            if let Some(worse) = worse {
                self.main.push(worse);
            }
        }
        found
    }

    /// Takes the first one of all that is free.
    fn any(&mut self, look: LookAt<'_>) -> Option<Item> {
        for queue in [&mut self.small, &mut self.main] {
            for _ in 0..queue.items.len() {
                let item = queue.pop()?;
                match look(item) {
                    Look::Gone => {}
                    Look::Held => queue.push(item),
                    Look::Free(_) => return Some(item),
                }
            }
        }
        None
    }

    fn remember(&mut self, item: Item, last_use: Tick) {
        self.ghosts.remember(item.id, last_use, self.objects());
    }
}

impl Item {
    /// Returns how many uses count.
    fn counted(&self, uses: Uses) -> u16 {
        uses.count.wrapping_sub(self.spent).min(USES_MAX)
    }
}

impl Queue {
    fn push(&mut self, item: Item) {
        self.weight += item.weight;
        self.items.push_back(item);
    }

    fn push_front(&mut self, item: Item) {
        self.weight += item.weight;
        self.items.push_front(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.weight -= item.weight;
        Some(item)
    }

    fn retain(&mut self, alive: &mut dyn FnMut(Item) -> bool) {
        self.items.retain(|item| alive(*item));
        self.weight = self.items.iter().map(|item| item.weight).sum();
    }
}

#[cfg(any(test, feature = "testing"))]
mod model;
#[cfg(test)]
mod tests;
