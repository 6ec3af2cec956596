// SPDX-License-Identifier: Apache-2.0
//! The listings used last, in memory.
//!
//! Bounded by names. What makes way is found by the clock algorithm: each listing in turn, but one
//! that was used since its last turn gets another. A listing that alone is over the bound is not
//! kept, rather than all others given up for it. One leaf lock, held for a few map operations.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::knowledge::Place;
use crate::meta::Listing;
use crate::records::Moment;

/// Listings by directory.
#[derive(Debug)]
pub(crate) struct Recent {
    names_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    dirs: HashMap<Place, Dir>,
    /// Turns of the clock; those of directories that are gone or were kept anew are void.
    turns: VecDeque<(u64, Place)>,
    next_turn: u64,
    names: usize,
}

#[derive(Debug)]
struct Dir {
    learnt: Moment,
    listing: Listing,
    turn: u64,
    is_used: bool,
}

/// What a directory counts: its names, and one for itself.
fn weight(listing: &Listing) -> usize {
    listing.len() + 1
}

impl Recent {
    pub(crate) fn new(names_max: usize) -> Self {
        Recent {
            names_max,
            kept: Mutex::default(),
        }
    }

    /// Returns a listing and when it was learnt.
    pub(crate) fn get(&self, place: &Place) -> Option<(Moment, Listing)> {
        let mut kept = self.kept.lock();
        let dir = kept.dirs.get_mut(place)?;
        dir.is_used = true;
        Some((dir.learnt, Listing::clone(&dir.listing)))
    }

    /// Keeps a listing in place of an older one of the same directory.
    pub(crate) fn keep(&self, place: &Place, learnt: Moment, listing: &Listing) {
        let mut kept = self.kept.lock();
        kept.take_out(place);
        if weight(listing) > self.names_max {
            return;
        }
        kept.names += weight(listing);
        while kept.names > self.names_max && kept.make_way() {}
        let turn = kept.next_turn;
        kept.next_turn += 1;
        kept.turns.push_back((turn, place.clone()));
        let dir = Dir {
            learnt,
            listing: Listing::clone(listing),
            turn,
            is_used: false,
        };
        kept.dirs.insert(place.clone(), dir);
        kept.clear_void_turns();
    }

    /// Drops the listing of a directory if it is no longer true.
    pub(crate) fn drop_unless(&self, place: &Place, is_true: impl FnOnce(&Listing) -> bool) {
        let mut kept = self.kept.lock();
        if kept
            .dirs
            .get(place)
            .is_some_and(|dir| !is_true(&dir.listing))
        {
            kept.take_out(place);
        }
    }
}

impl Kept {
    fn take_out(&mut self, place: &Place) {
        if let Some(dir) = self.dirs.remove(place) {
            self.names -= weight(&dir.listing);
        }
    }

    /// Drops the listing whose turn it is, unless it was used; false when there is none.
    fn make_way(&mut self) -> bool {
        let Some((turn, place)) = self.turns.pop_front() else {
            return false;
        };
        if let Some(dir) = self.dirs.get_mut(&place).filter(|dir| dir.turn == turn) {
            if std::mem::take(&mut dir.is_used) {
                self.turns.push_back((turn, place));
            } else {
                self.take_out(&place);
            }
        }
        true
    }

    fn clear_void_turns(&mut self) {
        if self.turns.len() > 2 * self.dirs.len() + 8 {
            let dirs = &self.dirs;
            self.turns
                .retain(|(turn, place)| dirs.get(place).is_some_and(|dir| dir.turn == *turn));
        }
    }
}

#[cfg(test)]
mod tests {
    use types::{MountId, Name, ObjectMeta, ObjectPath};
    use ufs::ListEntry;

    use super::*;

    fn place(name: &str) -> Place {
        (MountId(1), ObjectPath::parse(name.as_bytes()).unwrap())
    }

    fn listing(names: usize) -> Listing {
        let entry = |index: usize| ListEntry {
            name: Name::new(format!("{index:05}").as_bytes()).unwrap(),
            meta: ObjectMeta::implied_directory(),
        };
        (0..names).map(entry).collect()
    }

    #[test]
    fn what_is_used_stays_and_the_bound_holds() {
        let recent = Recent::new(100);
        for dir in 0..1000 {
            recent.keep(&place(&format!("d{dir}")), Moment(dir), &listing(9));
            assert!(recent.get(&place("d0")).is_some(), "{dir}");
            let kept = recent.kept.lock();
            assert!(kept.names <= 100 && kept.dirs.len() <= 10);
            assert!(kept.turns.len() <= 2 * kept.dirs.len() + 8);
        }
        assert!(recent.get(&place("d999")).is_some());
        assert!(recent.get(&place("d900")).is_none());
    }

    #[test]
    fn a_listing_over_the_bound_costs_the_others_nothing() {
        let recent = Recent::new(100);
        recent.keep(&place("small"), Moment(1), &listing(9));
        recent.keep(&place("large"), Moment(1), &listing(9));
        recent.keep(&place("large"), Moment(2), &listing(100));
        assert!(recent.get(&place("large")).is_none(), "an old one is worse");
        assert!(recent.get(&place("small")).is_some());
        assert_eq!(recent.kept.lock().names, 10);
    }

    #[test]
    fn a_listing_is_dropped_when_it_is_no_longer_true_and_only_then() {
        let recent = Recent::new(100);
        recent.keep(&place("d"), Moment(1), &listing(9));
        recent.drop_unless(&place("d"), |listing| listing.len() == 9);
        assert_eq!(recent.get(&place("d")).unwrap().0, Moment(1));
        recent.drop_unless(&place("d"), |_| false);
        assert!(recent.get(&place("d")).is_none());
    }
}
