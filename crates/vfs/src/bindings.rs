// SPDX-License-Identifier: Apache-2.0
//! Names that this node wrote or renamed, and the inode numbers they keep.
//!
//! A number follows from path and version ([`crate::ino`]); what is written or renamed while a
//! kernel knows it changes both and keeps its number, so the number is noted here for as long as
//! anybody knows the inode. A name that is *here* is true whatever the storage says: its file is
//! staged. Another holds for as long as the storage has the same version.
//!
//! Empty on mounts that are only read, and then asked with one load. One lock, a leaf.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use types::{Name, ObjectPath};

use crate::ino::Ino;
use crate::mounts::{MountIndex, Place};

/// What a name is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    /// The number of the name's inode.
    pub(crate) ino: Ino,
    /// The name is true whatever the storage says.
    pub(crate) is_here: bool,
}

type Dir = (MountIndex, ObjectPath);

#[derive(Debug, Default)]
pub(crate) struct Bindings {
    /// How many names are bound.
    count: AtomicUsize,
    dirs: RwLock<HashMap<Dir, BTreeMap<Name, Bound>>>,
}

impl Bindings {
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Returns what a place is bound to.
    pub(crate) fn get(&self, place: &Place) -> Option<Bound> {
        if self.is_empty() {
            return None;
        }
        let (dir, name) = key(place)?;
        self.dirs.read().get(&dir)?.get(&name).copied()
    }

    /// Binds a place, whatever it was bound to.
    pub(crate) fn set(&self, place: &Place, bound: Bound) {
        let Some((dir, name)) = key(place) else {
            return;
        };
        let mut dirs = self.dirs.write();
        if dirs.entry(dir).or_default().insert(name, bound).is_none() {
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    /// Binds a place that is free or bound to `from`; false when it is bound to another number.
    pub(crate) fn rebind(&self, place: &Place, from: Ino, bound: Bound) -> bool {
        let Some((dir, name)) = key(place) else {
            return false;
        };
        let mut dirs = self.dirs.write();
        let now = dirs.get(&dir).and_then(|names| names.get(&name));
        if now.is_some_and(|now| now.ino != from) {
            return false;
        }
        if dirs.entry(dir).or_default().insert(name, bound).is_none() {
            self.count.fetch_add(1, Ordering::Release);
        }
        true
    }

    /// Frees a place if it is bound to this number.
    pub(crate) fn remove(&self, place: &Place, ino: Ino) {
        let Some((dir, name)) = key(place).filter(|_| !self.is_empty()) else {
            return;
        };
        let mut dirs = self.dirs.write();
        let Some(names) = dirs.get_mut(&dir) else {
            return;
        };
        if names.get(&name).is_some_and(|bound| bound.ino == ino) {
            names.remove(&name);
            self.count.fetch_sub(1, Ordering::Release);
            if names.is_empty() {
                dirs.remove(&dir);
            }
        }
    }

    /// Returns the names bound in a directory.
    pub(crate) fn in_dir(&self, dir: &Place) -> BTreeMap<Name, Bound> {
        let Some(mount) = dir.mount.filter(|_| !self.is_empty()) else {
            return BTreeMap::new();
        };
        let dirs = self.dirs.read();
        dirs.get(&(mount, dir.path.clone()))
            .cloned()
            .unwrap_or_default()
    }

    /// Returns the numbers of what is here below a directory.
    pub(crate) fn here_below(&self, mount: MountIndex, dir: &ObjectPath) -> Vec<Ino> {
        let dirs = self.dirs.read();
        let below = dirs
            .iter()
            .filter(|((found, path), _)| *found == mount && (path == dir || path.is_below(dir)));
        let names = below.flat_map(|(_, names)| names.values());
        names
            .filter(|bound| bound.is_here)
            .map(|bound| bound.ino)
            .collect()
    }

    /// Frees what is bound below a directory.
    pub(crate) fn remove_below(&self, mount: MountIndex, dir: &ObjectPath) {
        let mut freed = 0;
        self.dirs.write().retain(|(found, path), names| {
            let is_below = *found == mount && (path == dir || path.is_below(dir));
            freed += if is_below { names.len() } else { 0 };
            !is_below
        });
        self.count.fetch_sub(freed, Ordering::Release);
    }
}

fn key(place: &Place) -> Option<(Dir, Name)> {
    let (dir, name) = place.path.split()?;
    Some(((place.mount?, dir), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place {
            mount: Some(MountIndex::for_tests(0)),
            path: ObjectPath::parse(text.as_bytes()).unwrap(),
        }
    }

    #[test]
    fn a_place_is_bound_to_the_last_number_and_only_that_one_frees_it() {
        let bindings = Bindings::default();
        assert!(bindings.is_empty() && bindings.get(&place("d/a")).is_none());
        let bound = |ino, is_here| Bound {
            ino: Ino(ino),
            is_here,
        };
        bindings.set(&place("d/a"), bound(5, true));
        assert!(!bindings.rebind(&place("d/a"), Ino(4), bound(6, false)));
        assert!(bindings.rebind(&place("d/a"), Ino(5), bound(6, false)));
        bindings.set(&place("d/e/b"), bound(7, true));
        bindings.remove(&place("d/a"), Ino(5));
        assert_eq!(bindings.get(&place("d/a")), Some(bound(6, false)));
        assert_eq!(bindings.in_dir(&place("d")).len(), 1);
        let mount = MountIndex::for_tests(0);
        assert_eq!(bindings.here_below(mount, &place("d").path), [Ino(7)]);
        bindings.remove(&place("d/a"), Ino(6));
        bindings.remove_below(mount, &place("d").path);
        assert!(bindings.is_empty() && bindings.in_dir(&place("d/e")).is_empty());
    }
}
