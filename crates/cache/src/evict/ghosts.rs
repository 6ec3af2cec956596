// SPDX-License-Identifier: Apache-2.0
//! What was evicted lately: a fingerprint of each object, and when it went.

use std::collections::{HashMap, VecDeque};

use types::VersionId;

use super::Tick;

/// Ghosts remembered for each object.
const GHOSTS_PER_OBJECT: usize = 2;
/// And so many more, so that the bound hardly ever binds on small caches.
const SLACK: usize = 1024;

/// The objects that were evicted lately.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    /// Fingerprints, oldest first, with the number of the eviction.
    queue: VecDeque<(u64, u32)>,
    known: HashMap<u64, Ghost>,
    /// Evictions so far. Wraps after four billion.
    evictions: u32,
}

#[derive(Debug, Clone, Copy)]
struct Ghost {
    last_use: Tick,
    eviction: u32,
}

/// An object that was evicted and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Back {
    /// When it was last used.
    pub(super) last_use: Tick,
    /// How many were evicted since it was.
    pub(super) distance: u32,
}

impl Ghosts {
    /// Takes note of an eviction, `objects` being how many are left.
    pub(super) fn remember(&mut self, id: VersionId, last_use: Tick, objects: usize) {
        self.evictions = self.evictions.wrapping_add(1);
        let (ghost, eviction) = (fingerprint(id), self.evictions);
        self.queue.push_back((ghost, eviction));
        self.known.insert(ghost, Ghost { last_use, eviction });
        while self.queue.len() > objects * GHOSTS_PER_OBJECT + SLACK {
            let Some((oldest, eviction)) = self.queue.pop_front() else {
                return;
            };
            // One that came back and went again has a younger ghost.
            if self
                .known
                .get(&oldest)
                .is_some_and(|ghost| ghost.eviction == eviction)
            {
                self.known.remove(&oldest);
            }
        }
    }

    /// Forgets an object that comes back, and tells what was known of it.
    pub(super) fn take(&mut self, id: VersionId) -> Option<Back> {
        let ghost = self.known.remove(&fingerprint(id))?;
        Some(Back {
            last_use: ghost.last_use,
            distance: self.evictions.wrapping_sub(ghost.eviction),
        })
    }
}

/// Ids are hashes, so that a part of one will do.
#[allow(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
fn fingerprint(id: VersionId) -> u64 {
    id.0 as u64 ^ (id.0 >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_known_once_and_the_oldest_are_forgotten() {
        let mut ghosts = Ghosts::default();
        for n in 0..2000 {
            ghosts.remember(VersionId(n), 7, 0);
        }
        assert_eq!(ghosts.take(VersionId(900)), None);
        let back = Back {
            last_use: 7,
            distance: 0,
        };
        assert_eq!(ghosts.take(VersionId(1999)), Some(back));
        assert_eq!(ghosts.take(VersionId(1999)), None);
        assert!(ghosts.known.len() <= SLACK && ghosts.queue.len() == SLACK);
    }
}
