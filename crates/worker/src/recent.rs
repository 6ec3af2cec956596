// SPDX-License-Identifier: Apache-2.0
//! The listings used last, in memory.
//!
//! Bounded by names. What makes way is found by the clock algorithm: each listing in turn, but one
//! that was used since its last turn gets another. A listing that alone is over the bound is not
//! kept, rather than all others given up for it. One leaf lock, held for a few map operations.
//!
//! A directory in which a job writes changes with each file: changes lie beside the listing, and
//! are worked into it when it is next asked for as a whole.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::Mutex;
use types::{Name, ObjectMeta};
use ufs::ListEntry;

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
    /// What became of names since; absent when `None`.
    changes: BTreeMap<Name, Option<ObjectMeta>>,
    turn: u64,
    is_used: bool,
}

/// What a listing counts: its names, and one for itself.
fn weight(listing: &Listing) -> usize {
    listing.len() + 1
}

impl Dir {
    fn weight(&self) -> usize {
        weight(&self.listing) + self.changes.len()
    }

    fn find(&self, name: &Name) -> Option<&ObjectMeta> {
        match self.changes.get(name) {
            Some(changed) => changed.as_ref(),
            None => find(&self.listing, name),
        }
    }

    fn work_in(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let mut changes = std::mem::take(&mut self.changes).into_iter().peekable();
        let mut entries = Vec::with_capacity(self.listing.len() + changes.len());
        let shown =
            |(name, meta): (Name, Option<ObjectMeta>)| meta.map(|meta| ListEntry { name, meta });
        for entry in self.listing.iter() {
            while let Some(change) = changes.next_if(|(name, _)| *name < entry.name) {
                entries.extend(shown(change));
            }
            match changes.next_if(|(name, _)| *name == entry.name) {
                Some(change) => entries.extend(shown(change)),
                None => entries.push(entry.clone()),
            }
        }
        entries.extend(changes.filter_map(shown));
        self.listing = entries.into();
    }
}

/// Looks for a name in a listing, which is sorted.
pub(crate) fn find<'a>(listing: &'a Listing, name: &Name) -> Option<&'a ObjectMeta> {
    let index = listing
        .binary_search_by(|entry| entry.name.cmp(name))
        .ok()?;
    Some(&listing[index].meta)
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
        let kept = &mut *kept;
        let dir = kept.dirs.get_mut(place)?;
        dir.is_used = true;
        kept.names -= dir.weight();
        dir.work_in();
        kept.names += dir.weight();
        Some((dir.learnt, Listing::clone(&dir.listing)))
    }

    /// Returns when a listing was learnt.
    pub(crate) fn learnt(&self, place: &Place) -> Option<Moment> {
        self.kept.lock().dirs.get(place).map(|dir| dir.learnt)
    }

    /// Returns what a listing says of a name, and when it was learnt.
    pub(crate) fn find(&self, place: &Place, name: &Name) -> Option<(Moment, Option<ObjectMeta>)> {
        let mut kept = self.kept.lock();
        let dir = kept.dirs.get_mut(place)?;
        dir.is_used = true;
        Some((dir.learnt, dir.find(name).cloned()))
    }

    /// Changes one name of a listing.
    pub(crate) fn change(&self, place: &Place, name: &Name, meta: Option<&ObjectMeta>) {
        let mut kept = self.kept.lock();
        let Some(dir) = kept.dirs.get_mut(place) else {
            return;
        };
        if dir.find(name) == meta {
            return;
        }
        let is_new = dir.changes.insert(name.clone(), meta.cloned()).is_none();
        kept.names += usize::from(is_new);
        while kept.names > self.names_max && kept.make_way() {}
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
            changes: BTreeMap::new(),
            turn,
            is_used: false,
        };
        kept.dirs.insert(place.clone(), dir);
        kept.clear_void_turns();
    }

    /// Drops the listing of a directory.
    pub(crate) fn drop_listing(&self, place: &Place) {
        self.kept.lock().take_out(place);
    }
}

impl Kept {
    fn take_out(&mut self, place: &Place) {
        if let Some(dir) = self.dirs.remove(place) {
            self.names -= dir.weight();
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
    fn changes_show_at_once_and_the_bound_counts_them() {
        let recent = Recent::new(30);
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let dir = place("d");
        let meta = ObjectMeta::implied_directory();
        recent.change(&dir, &name("x"), Some(&meta));
        assert!(recent.find(&dir, &name("x")).is_none(), "never listed");
        recent.keep(&dir, Moment(1), &listing(9));
        recent.change(&dir, &name("00004"), None);
        recent.change(&dir, &name("0000a"), Some(&meta));
        recent.change(&dir, &name("x"), Some(&meta));
        recent.change(&dir, &name("y"), None);
        assert_eq!(recent.find(&dir, &name("00004")), Some((Moment(1), None)));
        assert_eq!(recent.find(&dir, &name("x")), Some((Moment(1), Some(meta))));
        assert_eq!(recent.kept.lock().names, 13, "what was absent stays so");
        let (_, names) = recent.get(&dir).unwrap();
        let names: Vec<_> = names.iter().map(|entry| entry.name.to_string()).collect();
        let left = [
            "00000", "00001", "00002", "00003", "00005", "00006", "00007",
        ];
        assert_eq!(names[..7], left);
        assert_eq!(names[7..], ["00008", "0000a", "x"]);
        assert_eq!(recent.kept.lock().names, 11);
        for many in 0..1000 {
            recent.change(
                &dir,
                &name(&format!("new{many}")),
                Some(&ObjectMeta::implied_directory()),
            );
            assert!(recent.kept.lock().names <= 30);
        }
        recent.keep(&dir, Moment(2), &listing(9));
        recent.drop_listing(&dir);
        assert!(recent.get(&dir).is_none());
        assert_eq!(recent.kept.lock().names, 0);
    }
}
