// SPDX-License-Identifier: Apache-2.0
//! What a door leaves with a cached object between two uses of its file.
//!
//! A door may have made something of a cache file that is worth more than the file itself, such as
//! the number under which the kernel reads it. It leaves that here when nobody uses it any more, and
//! finds it at the next use. It is dropped at once when the object goes, before its file is removed,
//! so it never holds room that the capacity counts as free; and when somebody touched the file.
//!
//! Bounded by objects. In shuffled epochs no object is more worth than another, so who has a place
//! keeps it, unless it was not used for a while.

use std::any::Any;
use std::collections::VecDeque;

use parking_lot::Mutex;
use types::VersionId;

use crate::files::Stamp;
use crate::index::{Entry, Index};

/// What may be left with an object.
pub type Keepsake = Box<dyn Any + Send + Sync>;

/// Objects that may have something left with them: each may hold an inode in the kernel's memory.
pub(crate) const KEEPSAKES_MAX: usize = 10_000;
/// Places looked at for one that can be given to another object.
const TURNS: usize = 4;
/// Who was not used for so long gives its place up.
const IDLE_SECONDS: u32 = 300;

/// The place that an object has, and what is left there now.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    left: Option<(Stamp, Keepsake)>,
}

impl Kept {
    /// Takes what was left for a use of the file with this stamp; what is of another is dropped.
    pub(crate) fn take(&mut self, stamp: Stamp) -> Option<Keepsake> {
        let (of, keepsake) = self.left.take()?;
        (of == stamp).then_some(keepsake)
    }

    /// Takes what was left, whatever became of the file since.
    pub(crate) fn clear(&mut self) -> Option<Keepsake> {
        Some(self.left.take()?.1)
    }
}

/// Who has a place. Its lock is taken before that of an entry.
#[derive(Debug)]
pub(crate) struct Keepsakes {
    places_max: usize,
    /// Each object with a place, once; those that are gone leave theirs at their turn.
    places: Mutex<VecDeque<(VersionId, u64)>>,
}

impl Keepsakes {
    pub(crate) fn new(places_max: usize) -> Self {
        Keepsakes {
            places_max,
            places: Mutex::default(),
        }
    }

    /// Leaves something with an object that is still the file with this stamp, if it has a place or
    /// gets one; else it comes back. So does what was left there by somebody else.
    pub(crate) fn leave(
        &self,
        index: &Index,
        (id, birth, stamp): (VersionId, u64, Stamp),
        now: u32,
        keepsake: Keepsake,
    ) -> Option<Keepsake> {
        let is_same = |entry: &Entry| entry.stamp == stamp;
        let has_place = index.with_birth(id, birth, |entry| {
            is_same(entry).then_some(entry.kept.is_some())
        });
        let Some(Some(has_place)) = has_place else {
            return Some(keepsake);
        };
        if !has_place && !self.give_place(index, (id, birth), now) {
            return Some(keepsake);
        }
        let mut keepsake = Some(keepsake);
        let before = index.with_birth(id, birth, |entry| {
            let kept = entry.kept.as_mut().filter(|_| entry.stamp == stamp)?;
            let left = keepsake.take().map(|keepsake| (stamp, keepsake));
            std::mem::replace(&mut kept.left, left)
        });
        keepsake.or_else(|| Some(before??.1))
    }

    /// Gives an object a place; false when all have theirs and use it.
    fn give_place(&self, index: &Index, (id, birth): (VersionId, u64), now: u32) -> bool {
        let mut dropped = Vec::new();
        let mut places = self.places.lock();
        let mut turns = TURNS;
        while places.len() >= self.places_max && turns > 0 {
            turns -= 1;
            let Some(other) = places.pop_front() else {
                break;
            };
            let given_up = index.with_birth(other.0, other.1, |entry| {
                let idle = now.saturating_sub(entry.last_use_seconds) > IDLE_SECONDS;
                idle.then(|| entry.kept.take())
            });
            match given_up {
                Some(None) => places.push_back(other),
                Some(Some(kept)) => dropped.push(kept),
                None => {}
            }
        }
        if places.len() >= self.places_max {
            return false;
        }
        let is_new = index.with_birth(id, birth, |entry| {
            let is_new = entry.kept.is_none();
            entry.kept.get_or_insert_default();
            is_new
        });
        if is_new == Some(true) {
            places.push_back((id, birth));
        }
        drop(places);
        is_new.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const STAMP: Stamp = Stamp(7);

    fn index(objects: u128) -> Index {
        let index = Index::new();
        for id in 0..objects {
            index.insert(VersionId(id), Entry::new(1, 1, STAMP));
        }
        index
    }

    fn leave(keepsakes: &Keepsakes, index: &Index, id: u128, now: u32) -> (Arc<()>, bool) {
        let thing = Arc::new(());
        let keepsake: Keepsake = Box::new(Arc::clone(&thing));
        let back = keepsakes.leave(index, (VersionId(id), 1, STAMP), now, keepsake);
        (thing, back.is_none())
    }

    fn take(index: &Index, id: u128, stamp: Stamp) -> bool {
        let taken = index.with(VersionId(id), |entry| entry.kept.as_mut()?.take(stamp));
        taken.flatten().is_some()
    }

    #[test]
    fn what_was_left_is_found_once_and_only_for_the_same_file() {
        let (keepsakes, index) = (Keepsakes::new(10), index(2));
        assert!(leave(&keepsakes, &index, 0, 0).1);
        assert!(take(&index, 0, STAMP));
        assert!(!take(&index, 0, STAMP));
        let (thing, left) = leave(&keepsakes, &index, 0, 0);
        assert!(left && !take(&index, 0, Stamp(8)));
        assert_eq!(Arc::strong_count(&thing), 1, "it is of no use to anybody");
        index.with(VersionId(1), |entry| entry.stamp = Stamp(9));
        assert!(!leave(&keepsakes, &index, 1, 0).1, "the file was touched");
    }

    #[test]
    fn what_is_left_goes_with_its_object() {
        let (keepsakes, index) = (Keepsakes::new(10), index(1));
        let (thing, _) = leave(&keepsakes, &index, 0, 0);
        assert_eq!(Arc::strong_count(&thing), 2);
        drop(index.remove_if(VersionId(0), |_| true));
        assert_eq!(Arc::strong_count(&thing), 1);
        assert!(!leave(&keepsakes, &index, 0, 0).1);
    }

    #[test]
    fn places_are_bounded_and_stay_with_those_who_use_them() {
        let (keepsakes, index) = (Keepsakes::new(3), index(100));
        for round in 0..3 {
            for id in 0..100 {
                assert_eq!(leave(&keepsakes, &index, id, 10).1, id < 3, "{round} {id}");
                take(&index, id, STAMP);
            }
        }
        assert_eq!(keepsakes.places.lock().len(), 3);
        let late = IDLE_SECONDS + 1;
        index.with(VersionId(1), |entry| entry.last_use_seconds = late);
        assert!(leave(&keepsakes, &index, 50, late).1, "of 0, long unused");
        assert!(leave(&keepsakes, &index, 1, late).1, "it has its place");
        drop(index.remove_if(VersionId(2), |_| true));
        assert!(leave(&keepsakes, &index, 51, 0).1, "of 2, which is gone");
        assert!(!leave(&keepsakes, &index, 52, 0).1);
    }
}
