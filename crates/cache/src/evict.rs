// SPDX-License-Identifier: Apache-2.0
//! Whom to evict: two queues and ghosts as in S3-FIFO (Yang et al., "FIFO Queues are All You Need for
//! Cache Eviction", SOSP 2023), with another rule for who may enter the main queue.
//!
//! Training reads all of a data set once an epoch, in another order each time. When it does not fit,
//! every object is as hot as the next, and the best that can be done is to keep a fixed part of it
//! (Mohan et al., "Analyzing and Mitigating Data Stalls in DNN Training", VLDB 2021); LRU and S3-FIFO
//! keep exchanging equals. So an object enters the main queue only
//! - while that has room, or
//! - when it comes back, in place of one that was idle for twice as long as the newcomer was away, and
//!   twice as long as newcomers are on average. In shuffled epochs no gap is longer than two epochs;
//!   what is idle for longer is dead.
//!
//! All others pass through the small queue, first in first out, a tenth of the capacity, which serves
//! short-lived reuse and takes scans. Time is counted in uses of objects. Nothing happens here on a
//! hit: the last use is noted in the index and asked for when it matters.
//!
//! Pure bookkeeping, no I/O.

use std::collections::{HashMap, VecDeque};

use types::VersionId;

/// The small queue has one part in so many of the capacity.
const SMALL_PART: u64 = 10;
/// One object weighs at most one part in so many of the capacity, however much it could hold.
const WEIGHT_PART: u64 = 4;
/// An object of the main queue gives way when it was idle this many times as long as the newcomer.
const IDLE_TIMES: u32 = 2;
/// The mean is over about so many that came back.
const MEAN_OVER: Tick = 32;
/// Objects of the main queue looked at to find one that gives way. The queue turns, so that all have
/// their turn in the end.
const SAMPLE: usize = 32;
/// Ghosts remembered for each object.
const GHOSTS_PER_OBJECT: usize = 2;
/// Slack of bounds that follow the number of objects, so that they hardly ever bind on small caches.
const SLACK: usize = 1024;

/// A point in time, in uses of objects. Wraps after four billion.
pub(crate) type Tick = u32;

/// What the index says of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Removed, or another file by now.
    Gone,
    /// Must stay for now.
    Held,
    /// May go; when it was last used.
    Free(Tick),
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
    small: Queue,
    main: Queue,
    /// Fingerprints of what was evicted, oldest first, and when it was last used.
    ghosts: VecDeque<(u64, Tick)>,
    ghost_uses: HashMap<u64, Tick>,
    /// Running mean of how long what comes back was away.
    mean_away: Tick,
}

/// Asks the index for what it knows of a candidate.
pub(crate) type LookAt<'a> = &'a mut dyn FnMut(Item) -> Look;

impl Policy {
    /// Makes the policy of a cache of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        Policy {
            capacity,
            small: Queue::default(),
            main: Queue::default(),
            ghosts: VecDeque::new(),
            ghost_uses: HashMap::new(),
            mean_away: 0,
        }
    }

    /// Takes note of a new object of `size` bytes, for which there is room already.
    pub(crate) fn insert(&mut self, mut item: Item, look: LookAt<'_>) {
        item.weight = item.weight.min(self.capacity / WEIGHT_PART);
        let ghost = self.ghost_uses.remove(&fingerprint(item.id));
        let main_max = self.capacity - self.capacity / SMALL_PART;
        if self.main.weight + item.weight <= main_max {
            self.main.push(item);
            return;
        }
        let away = ghost.map(|last_use| item.entered.wrapping_sub(last_use));
        let Some(out) = away.and_then(|away| self.find_idle(away, item.entered, look)) else {
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
        // Held ones go to the back, so that one round over each queue finds whoever can go.
        for _ in 0..self.small.items.len() {
            let small_is_little = self.small.weight.saturating_mul(SMALL_PART) < self.capacity;
            if small_is_little && self.main.weight > self.small.weight {
                break;
            }
            let item = self.small.pop()?;
            match look(item) {
                Look::Gone => {}
                Look::Held => self.small.push(item),
                Look::Free(last_use) => {
                    if let Some(out) = self.promote(item, (last_use, now), look) {
                        return Some(out);
                    }
                    self.remember(item, last_use);
                    return Some(item);
                }
            }
        }
        self.idlest(now, look).or_else(|| self.any(look))
    }

    /// Drops what is gone if it may be much; `objects` is how many there are.
    pub(crate) fn sweep(&mut self, objects: u64, alive: &mut dyn FnMut(Item) -> bool) {
        let items = self.small.items.len() + self.main.items.len();
        let objects = usize::try_from(objects).unwrap_or(usize::MAX);
        if items > objects.saturating_mul(2).saturating_add(SLACK) {
            self.small.retain(alive);
            self.main.retain(alive);
        }
    }

    /// Moves an object that was used again while in the small queue to the main one, and returns
    /// the one that gives way.
    fn promote(
        &mut self,
        item: Item,
        (last_use, now): (Tick, Tick),
        look: LookAt<'_>,
    ) -> Option<Item> {
        let away = last_use.wrapping_sub(item.entered);
        let out = (away > 0).then(|| self.find_idle(away, now, look))??;
        self.main.push(item);
        Some(out)
    }

    /// Takes one out of the main queue that may give way to one that was `away` for so long.
    fn find_idle(&mut self, away: Tick, now: Tick, look: LookAt<'_>) -> Option<Item> {
        self.mean_away = match self.mean_away {
            0 => away,
            mean => mean - mean / MEAN_OVER + away / MEAN_OVER,
        };
        let idle_min = away.max(self.mean_away).saturating_mul(IDLE_TIMES);
        for _ in 0..SAMPLE.min(self.main.items.len()) {
            let item = self.main.pop()?;
            match look(item) {
                Look::Gone => {}
                Look::Free(last_use) if now.wrapping_sub(last_use) > idle_min => {
                    // Its use before does not count as one in the small queue.
                    return Some(Item {
                        entered: last_use,
                        ..item
                    });
                }
                Look::Held | Look::Free(_) => self.main.push(item),
            }
        }
        None
    }

    /// Takes the one out of a sample of the main queue that was idle for longest.
    fn idlest(&mut self, now: Tick, look: LookAt<'_>) -> Option<Item> {
        let mut found: Option<(Item, Tick)> = None;
        for _ in 0..SAMPLE.min(self.main.items.len()) {
            let item = self.main.pop()?;
            let last_use = match look(item) {
                Look::Gone => continue,
                Look::Held => {
                    self.main.push(item);
                    continue;
                }
                Look::Free(last_use) => last_use,
            };
            let idle = |last_use: Tick| now.wrapping_sub(last_use);
            match found.take() {
                Some((best, best_use)) if idle(best_use) >= idle(last_use) => {
                    self.main.push(item);
                    found = Some((best, best_use));
                }
                worse => {
                    if let Some((worse, _)) = worse {
                        self.main.push(worse);
                    }
                    found = Some((item, last_use));
                }
            }
        }
        let (item, last_use) = found?;
        self.remember(item, last_use);
        Some(item)
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
        let ghost = fingerprint(item.id);
        self.ghosts.push_back((ghost, last_use));
        self.ghost_uses.insert(ghost, last_use);
        let objects = self.small.items.len() + self.main.items.len();
        while self.ghosts.len() > objects * GHOSTS_PER_OBJECT + SLACK {
            let Some((oldest, then)) = self.ghosts.pop_front() else {
                return;
            };
            // One that came back and went again has a younger ghost.
            if self.ghost_uses.get(&oldest) == Some(&then) {
                self.ghost_uses.remove(&oldest);
            }
        }
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

/// Ids are hashes, so that a part of one will do.
#[allow(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
fn fingerprint(id: VersionId) -> u64 {
    id.0 as u64 ^ (id.0 >> 64) as u64
}

#[cfg(test)]
mod tests;
