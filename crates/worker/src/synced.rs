// SPDX-License-Identifier: Apache-2.0
//! Since when knowledge counts: what was learnt of a place before it was synced is not believed.
//!
//! A sync of a directory holds for all that lies below, however much that is: nothing is looked for
//! and deleted, but each piece of knowledge is compared with the latest sync of its place when it is
//! used. The marks are few, since a sync of a directory takes the place of those below it, and they are
//! written into the metadata map, so that no restart brings back what was forgotten.

use std::collections::{HashMap, HashSet};

use parking_lot::RwLock;
use types::{MountId, ObjectPath};

use crate::records::Moment;

/// Marks kept of one mount; with more, the whole mount counts as synced.
const MARKS_MAX: usize = 1000;

/// When which places were synced.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    mounts: RwLock<HashMap<MountId, Marks>>,
}

type Marks = HashMap<Vec<u8>, Moment>;

/// How a mark changes what is written down.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The place that has a mark now.
    pub(crate) marked: Vec<u8>,
    /// Those that have none any more.
    pub(crate) gone: Vec<Vec<u8>>,
}

impl Synced {
    /// Returns the moment after which something must have been learnt of a place to be believed.
    pub(crate) fn since(&self, mount: MountId, path: &ObjectPath) -> Moment {
        let mounts = self.mounts.read();
        let Some(marks) = mounts.get(&mount).filter(|marks| !marks.is_empty()) else {
            return Moment::default();
        };
        let mark = |place: &[u8]| marks.get(place).copied();
        let path = path.as_bytes();
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let above = slashes.filter_map(|(at, _)| mark(&path[..at]));
        let ends = [mark(b""), mark(path)].into_iter().flatten();
        above.chain(ends).max().unwrap_or_default()
    }

    /// Says that a place, with all that lies below it, was synced.
    pub(crate) fn mark(&self, mount: MountId, path: &ObjectPath, at: Moment) -> Change {
        let mut mounts = self.mounts.write();
        let marks = mounts.entry(mount).or_default();
        let is_full = marks.len() >= MARKS_MAX;
        let place = if is_full { b"" } else { path.as_bytes() };
        let within = |other: &[u8]| {
            let rest = other.strip_prefix(place);
            rest.is_some_and(|rest| place.is_empty() || rest.is_empty() || rest[0] == b'/')
        };
        let gone = marks.keys().filter(|other| within(other)).cloned();
        let mut gone: HashSet<_> = gone.collect();
        let latest = gone.iter().filter_map(|other| marks.remove(other)).max();
        marks.insert(place.to_vec(), latest.map_or(at, |latest| latest.max(at)));
        gone.remove(place);
        Change {
            marked: place.to_vec(),
            gone: gone.into_iter().collect(),
        }
    }

    /// Takes over what was written down of a mount, unless it is known. Returns the latest.
    pub(crate) fn restore(&self, mount: MountId, marks: Vec<(Vec<u8>, Moment)>) -> Moment {
        let mut mounts = self.mounts.write();
        let known = mounts
            .entry(mount)
            .or_insert_with(|| marks.into_iter().collect());
        known.values().copied().max().unwrap_or_default()
    }

    /// Returns whether anything is known of a mount.
    pub(crate) fn knows(&self, mount: MountId) -> bool {
        self.mounts.read().contains_key(&mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNT: MountId = MountId(7);

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_mark_holds_for_its_place_and_below_and_for_no_other() {
        let synced = Synced::default();
        assert_eq!(synced.since(MOUNT, &path("a")), Moment(0));
        synced.mark(MOUNT, &path("a/b"), Moment(5));
        for (place, at) in [("a", 0), ("a/b", 5), ("a/b/c/d", 5), ("a/b-c", 0), ("", 0)] {
            assert_eq!(synced.since(MOUNT, &path(place)), Moment(at), "{place}");
        }
        assert_eq!(synced.since(MountId(8), &path("a/b")), Moment(0));
        let change = synced.mark(MOUNT, &path("a"), Moment(6));
        assert_eq!(change.gone, [b"a/b".to_vec()]);
        assert_eq!(synced.since(MOUNT, &path("a/b/c")), Moment(6));
        synced.mark(MOUNT, &path(""), Moment(7));
        assert_eq!(synced.since(MOUNT, &path("x")), Moment(7));
    }

    #[test]
    fn too_many_marks_become_one_of_the_whole_mount() {
        let synced = Synced::default();
        for index in 0..MARKS_MAX {
            synced.mark(MOUNT, &path(&format!("d{index}")), Moment(index as u64));
        }
        assert_eq!(synced.since(MOUNT, &path("other")), Moment(0));
        let change = synced.mark(MOUNT, &path("one-more"), Moment(5000));
        assert_eq!((change.marked.len(), change.gone.len()), (0, MARKS_MAX));
        assert_eq!(synced.since(MOUNT, &path("other")), Moment(5000));
    }
}
