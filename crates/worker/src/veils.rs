// SPDX-License-Identifier: Apache-2.0
//! Names that a rename under way keeps from being seen.
//!
//! Where a storage has no rename, a directory is copied object by object and then removed. Who looks
//! meanwhile, on this node, sees the old names until all copies are there, and then the new ones: the
//! half that is not true yet, or not any more, is left out of answers and listings. Asked with one
//! load while nothing is renamed. One lock, a leaf.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use types::{MountId, ObjectPath};

use crate::meta::Listing;

/// The renames under way.
#[derive(Debug, Default)]
pub(crate) struct Veils {
    count: AtomicUsize,
    /// How often what shows has changed.
    turns: AtomicU64,
    all: RwLock<Vec<Arc<RwLock<Hidden>>>>,
}

/// What of a rename shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The old names alone.
    Old,
    /// The old names, and the empty directory that is replaced.
    OldAndEmpty,
    /// The old names, and the file that is replaced: the one that is there is one or the other.
    OldAndReplaced,
    /// The new names alone.
    New,
}

#[derive(Debug)]
struct Hidden {
    mount: MountId,
    from: ObjectPath,
    to: ObjectPath,
    shown: Shown,
}

/// A rename under way; ends when dropped.
#[derive(Debug)]
pub(crate) struct Veil<'a> {
    veils: &'a Veils,
    hidden: Arc<RwLock<Hidden>>,
}

impl Hidden {
    fn hides(&self, mount: MountId, path: &ObjectPath) -> bool {
        if mount != self.mount {
            return false;
        }
        match self.shown {
            Shown::Old => *path == self.to || path.is_below(&self.to),
            Shown::OldAndEmpty => path.is_below(&self.to),
            Shown::OldAndReplaced => false,
            Shown::New => *path == self.from || path.is_below(&self.from),
        }
    }
}

impl Veils {
    /// Begins a rename; everything shows at first.
    pub(crate) fn veil(&self, mount: MountId, from: &ObjectPath, to: &ObjectPath) -> Veil<'_> {
        let hidden = Arc::new(RwLock::new(Hidden {
            mount,
            from: from.clone(),
            to: to.clone(),
            shown: Shown::OldAndReplaced,
        }));
        self.all.write().push(Arc::clone(&hidden));
        self.count.fetch_add(1, Ordering::Release);
        Veil {
            veils: self,
            hidden,
        }
    }

    /// Returns a number that changes with what shows: an answer of the storage that was asked for
    /// before a change counts no more.
    pub(crate) fn turn(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }

    /// Returns whether a name must not be seen.
    pub(crate) fn hides(&self, mount: MountId, path: &ObjectPath) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let all = self.all.read();
        all.iter().any(|one| one.read().hides(mount, path))
    }

    /// Leaves out of a listing what must not be seen.
    pub(crate) fn thin(&self, mount: MountId, dir: &ObjectPath, listing: Listing) -> Listing {
        if self.count.load(Ordering::Acquire) == 0 {
            return listing;
        }
        let hides = |name| self.hides(mount, &dir.join(name));
        match listing.iter().any(|entry| hides(&entry.name)) {
            false => listing,
            true => {
                let left = listing.iter().filter(|entry| !hides(&entry.name));
                left.cloned().collect()
            }
        }
    }
}

impl Veil<'_> {
    /// Changes what shows, in one step.
    pub(crate) fn show(&self, shown: Shown) {
        let mut hidden = self.hidden.write();
        hidden.shown = shown;
        self.veils.turns.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Veil<'_> {
    fn drop(&mut self) {
        let mut all = self.veils.all.write();
        all.retain(|one| !Arc::ptr_eq(one, &self.hidden));
        self.veils.turns.fetch_add(1, Ordering::SeqCst);
        self.veils.count.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNT: MountId = MountId(3);

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_old_names_show_and_then_the_new_ones_and_never_both() {
        let veils = Veils::default();
        assert!(!veils.hides(MOUNT, &path("new/x")));
        let veil = veils.veil(MOUNT, &path("old"), &path("new"));
        let seen = |name: &str| !veils.hides(MOUNT, &path(name));
        veil.show(Shown::Old);
        assert!(seen("old/x") && seen("newer") && !seen("new") && !seen("new/x"));
        veil.show(Shown::OldAndEmpty);
        assert!(seen("old") && seen("new") && !seen("new/x"));
        veil.show(Shown::New);
        assert!(!seen("old") && !seen("old/x") && seen("new/x") && seen("older"));
        assert!(!veils.hides(MountId(4), &path("old")));
        drop(veil);
        assert!(!veils.hides(MOUNT, &path("old")));
    }
}
