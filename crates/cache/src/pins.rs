// SPDX-License-Identifier: Apache-2.0
//! Which objects must stay because somebody asked for it, and how much of the capacity that takes.
//!
//! A pin is of an object version, and says at which place that stands and by whose wish. Of a place
//! one version is pinned at a time: the next one takes over, so that replaced objects do not fill
//! the cache for ever. What places and wishes are is the caller's business; here they are numbers.
//!
//! Pure bookkeeping, no I/O.

use std::collections::HashMap;

use types::VersionId;

use crate::space::{blocks, overhead};

/// Why an object stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin {
    /// The place that the object stands at: a hash of its name.
    pub place: u64,
    /// The wish that it follows from: what takes that back takes back all of its pins.
    pub wish: u64,
}

/// All pins.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    by_id: HashMap<VersionId, (Pin, u64)>,
    by_place: HashMap<u64, VersionId>,
    bytes: u64,
}

impl Pins {
    /// Notes a pin of an object of `size` bytes. Returns the version that stood at its place and is
    /// to be let go.
    pub(crate) fn insert(&mut self, id: VersionId, size: u64, pin: Pin) -> Option<VersionId> {
        self.remove(id);
        let weight = weight(size);
        self.bytes += weight;
        self.by_id.insert(id, (pin, weight));
        self.by_place.insert(pin.place, id)
    }

    /// Forgets the pin of an object; false when there was none.
    pub(crate) fn remove(&mut self, id: VersionId) -> bool {
        let Some((pin, weight)) = self.by_id.remove(&id) else {
            return false;
        };
        self.bytes -= weight;
        if self.by_place.get(&pin.place) == Some(&id) {
            self.by_place.remove(&pin.place);
        }
        true
    }

    pub(crate) fn get(&self, id: VersionId) -> Option<Pin> {
        self.by_id.get(&id).map(|(pin, _)| *pin)
    }

    /// Returns the pinned objects whose wish is picked, with their pins.
    pub(crate) fn of_wishes(&self, pick: impl Fn(u64) -> bool) -> Vec<(VersionId, Pin)> {
        let all = self.by_id.iter().map(|(id, (pin, _))| (*id, *pin));
        all.filter(|(_, pin)| pick(pin.wish)).collect()
    }

    /// Returns how much pinned objects take when they are whole.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn count(&self) -> u64 {
        self.by_id.len() as u64
    }
}

/// Returns what a whole object takes.
pub(crate) fn weight(size: u64) -> u64 {
    overhead(size).saturating_add(blocks(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(place: u64, wish: u64) -> Pin {
        Pin { place, wish }
    }

    #[test]
    fn the_next_version_of_a_place_displaces_the_last_and_the_sum_is_of_what_is_pinned() {
        let (old, new) = (VersionId(1), VersionId(2));
        let mut pins = Pins::default();
        assert_eq!(pins.insert(old, 10, pin(7, 1)), None);
        assert_eq!(pins.insert(new, 5000, pin(7, 1)), Some(old));
        assert!(pins.remove(old));
        assert_eq!((pins.bytes(), pins.count()), (weight(5000), 1));
        // What was let go late does not take the place from its successor.
        assert_eq!(pins.insert(VersionId(3), 1, pin(7, 2)), Some(new));
        assert!(pins.remove(new) && !pins.remove(new));
        assert_eq!(pins.of_wishes(|wish| wish == 2).len(), 1);
        assert!(pins.remove(VersionId(3)));
        assert_eq!((pins.bytes(), pins.count()), (0, 0));
    }

    #[test]
    fn a_pin_that_is_noted_twice_counts_once() {
        let mut pins = Pins::default();
        pins.insert(VersionId(1), 10, pin(7, 1));
        assert_eq!(pins.insert(VersionId(1), 10, pin(7, 2)), None);
        assert_eq!(pins.get(VersionId(1)), Some(pin(7, 2)));
        assert_eq!((pins.bytes(), pins.count()), (weight(10), 1));
    }
}
