// SPDX-License-Identifier: Apache-2.0
//! What a door was promised and may have to give back: that names stay absent, and that what it is
//! told is still true when it hears it.
//!
//! A kernel that is told for how long a name is absent keeps that under the name alone, so the names
//! are kept here too, to be taken back when a mount changes or is synced. They are bounded: at the
//! bound nothing more is promised. Each change begins a new age; an answer that was found in an
//! earlier one promises nothing, because whoever took the promises back could not know of it.
//!
//! One leaf lock, held for a few operations on the set.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use types::ObjectPath;

use crate::mounts::MountIndex;

/// Absent names kept; at about 100 bytes each, some 6 MiB.
const ABSENT_MAX: usize = 65_536;

/// The time between two changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(u64);

#[derive(Debug, Default)]
pub(crate) struct Promises {
    age: AtomicU64,
    absent: Mutex<Absent>,
}

#[derive(Debug, Default)]
struct Absent {
    paths: HashMap<MountIndex, BTreeSet<ObjectPath>>,
    count: usize,
    /// Some name could not be kept: from then on nothing is promised.
    has_overflown: bool,
}

impl Promises {
    /// Returns the age of now: to be asked before an answer is looked for.
    pub(crate) fn age(&self) -> Age {
        Age(self.age.load(Ordering::SeqCst))
    }

    /// Begins a new age: to be called when the change is made, and before promises are taken back.
    pub(crate) fn begin_age(&self) {
        self.age.fetch_add(1, Ordering::SeqCst);
    }

    /// Keeps a name that a door is told to be absent.
    pub(crate) fn absent(&self, mount: MountIndex, path: &ObjectPath) {
        let mut absent = self.absent.lock();
        if absent.count >= ABSENT_MAX {
            absent.has_overflown = true;
        } else if absent.paths.entry(mount).or_default().insert(path.clone()) {
            absent.count += 1;
        }
    }

    /// Returns whether a name that was just kept may be promised to stay absent.
    pub(crate) fn can_promise_absence(&self) -> bool {
        !self.absent.lock().has_overflown
    }

    /// Takes out the names below a directory of a mount that are absent as far as doors know.
    pub(crate) fn take_absent(&self, mount: MountIndex, dir: &ObjectPath) -> Vec<ObjectPath> {
        let mut absent = self.absent.lock();
        let Some(paths) = absent.paths.get_mut(&mount) else {
            return Vec::new();
        };
        let from = paths.range(dir.clone()..);
        let near = from.take_while(|path| path.as_bytes().starts_with(dir.as_bytes()));
        let taken: Vec<_> = near.filter(|path| path.is_below(dir)).cloned().collect();
        for path in &taken {
            paths.remove(path);
        }
        if paths.is_empty() {
            absent.paths.remove(&mount);
        }
        absent.count -= taken.len();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn absent_names_are_given_back_by_directory_and_at_the_bound_none_is_promised() {
        let promises = Promises::default();
        let mount = MountIndex::for_tests(0);
        for name in ["d/a", "d-e/a", "d/e/b", "x", "d/a"] {
            promises.absent(mount, &path(name));
        }
        let taken = promises.take_absent(mount, &path("d"));
        assert_eq!(taken, [path("d/a"), path("d/e/b")]);
        assert_eq!(promises.take_absent(mount, &path("d")), []);
        assert_eq!(promises.take_absent(mount, &path("")).len(), 2);
        assert_eq!(promises.absent.lock().count, 0);
        for index in 0..=ABSENT_MAX {
            assert!(promises.can_promise_absence());
            promises.absent(mount, &path(&index.to_string()));
        }
        assert!(!promises.can_promise_absence());
        assert_eq!(promises.absent.lock().count, ABSENT_MAX);
    }
}
