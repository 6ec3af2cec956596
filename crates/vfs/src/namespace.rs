// SPDX-License-Identifier: Apache-2.0
//! The inode table: the nodes that the kernel or a handle knows, and no others.
//!
//! A node enters with its first reference and leaves with its last: references are counted as the
//! kernel counts them (one per successful lookup or entry of a "plus" listing, given back by
//! `forget`), and open handles hold one more. What is known of names beyond that lives in `worker`;
//! so this table is bounded by what the kernel keeps, and [`crate::surplus`] bounds that.
//!
//! Numbers come from [`crate::ino`]. When one is taken by something else, the next free one is used.
//! Should the first owner leave before, the same thing may get two numbers at once; that is as
//! harmless as a hard link, and about once in a million runs of ten million files.
//!
//! Locks: one leaf mutex a shard, held for one map operation.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use types::{Name, NodeKind, ObjectMeta, ObjectPath};

use crate::ino::{Ino, same_inode};
use crate::mounts::{MountIndex, Place};
use crate::written::Cell;

/// What an inode number stands for. A directory's node is replaced when the storage tells new
/// attributes, a file's only when that is owner or mode: its bytes never change. What this node
/// itself writes, renames and removes changes all of it; its number stays.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) ino: Ino,
    pub(crate) place: Place,
    pub(crate) meta: ObjectMeta,
    /// What this node's writers did that the storage does not tell; shared with open handles.
    pub(crate) cell: Arc<Cell>,
}

impl Node {
    fn is(&self, place: &Place, meta: &ObjectMeta) -> bool {
        self.meta.kind == meta.kind
            && self.place == *place
            && (meta.kind == NodeKind::Directory || same_inode(&self.meta.tag, &meta.tag))
            // Kernels keep what a link points to for as long as they know its inode.
            && self.meta.link() == meta.link()
    }
}

#[derive(Debug)]
struct Known {
    node: Arc<Node>,
    /// References of the kernel.
    lookups: u64,
    /// Open handles.
    handles: u32,
    /// It was asked for since [`Namespace::surplus`] last looked at it.
    used: bool,
}

impl Known {
    fn new(node: Arc<Node>) -> Self {
        Known {
            node,
            lookups: 1,
            handles: 0,
            used: true,
        }
    }

    /// Whether nothing is lost when the kernel forgets it: no handle, and no bytes that are here only.
    /// A program may be in a directory.
    fn is_spare(&self) -> bool {
        self.handles == 0
            && self.node.meta.kind != NodeKind::Directory
            && !self.node.cell.has_bytes()
    }
}

/// The nodes in use, by number.
#[derive(Debug)]
pub(crate) struct Namespace {
    shards: Vec<Mutex<HashMap<Ino, Known>>>,
    /// The shard at which [`Namespace::surplus`] goes on.
    hand: AtomicUsize,
}

/// Enough that the threads of a door seldom meet; a power of two.
const SHARDS: usize = 64;

impl Namespace {
    /// Makes a table that holds the root, which is never forgotten.
    pub(crate) fn new(root: Place) -> Self {
        let namespace = Namespace {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            hand: AtomicUsize::new(0),
        };
        let node = Arc::new(Node {
            ino: Ino::ROOT,
            place: root,
            meta: ObjectMeta::implied_directory(),
            cell: Arc::default(),
        });
        let mut shard = namespace.shard(Ino::ROOT).lock();
        shard.insert(Ino::ROOT, Known::new(node));
        drop(shard);
        namespace
    }

    /// The upper bits choose the shard: numbers are positive hashes, so 63 bits are spread.
    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, Known>> {
        &self.shards[(ino.0 >> 57) as usize % SHARDS]
    }

    /// Returns the node of a thing with one more reference, starting the search at number `ino`.
    pub(crate) fn acquire(&self, mut ino: Ino, place: Place, meta: ObjectMeta) -> Arc<Node> {
        loop {
            match self.shard(ino).lock().entry(ino) {
                Slot::Vacant(slot) => {
                    let cell = Arc::default();
                    let node = Arc::new(Node {
                        ino,
                        place,
                        meta,
                        cell,
                    });
                    slot.insert(Known::new(Arc::clone(&node)));
                    return node;
                }
                Slot::Occupied(mut slot) if slot.get().node.is(&place, &meta) => {
                    let known = slot.get_mut();
                    known.lookups += 1;
                    known.used = true;
                    let has_changed = match meta.kind {
                        NodeKind::Directory => known.node.meta != meta,
                        NodeKind::File | NodeKind::Symlink => {
                            known.node.meta.owner != meta.owner
                                || known.node.meta.extras != meta.extras
                        }
                    };
                    if has_changed {
                        let cell = Arc::clone(&known.node.cell);
                        known.node = Arc::new(Node {
                            ino,
                            place,
                            meta,
                            cell,
                        });
                    }
                    return Arc::clone(&known.node);
                }
                Slot::Occupied(_) => {}
            }
            ino = ino.next_probe();
        }
    }

    /// Returns the node of a number that is in use.
    pub(crate) fn get(&self, ino: Ino) -> Option<Arc<Node>> {
        let mut shard = self.shard(ino).lock();
        let known = shard.get_mut(&ino)?;
        known.used = true;
        Some(Arc::clone(&known.node))
    }

    /// Tells a directory that is in use what the storage says of it now.
    pub(crate) fn renew(&self, ino: Ino, meta: &ObjectMeta) {
        if let Some(known) = self.shard(ino).lock().get_mut(&ino)
            && known.node.meta.kind == NodeKind::Directory
            && known.node.meta != *meta
        {
            let meta = meta.clone();
            known.node = Arc::new(Node {
                meta,
                ..(*known.node).clone()
            });
        }
    }

    /// Adds what this node made, under a number that nothing has, with one reference.
    pub(crate) fn insert(&self, mut ino: Ino, place: Place, meta: ObjectMeta) -> Arc<Node> {
        loop {
            if let Slot::Vacant(slot) = self.shard(ino).lock().entry(ino) {
                let cell = Arc::default();
                let node = Arc::new(Node {
                    ino,
                    place,
                    meta,
                    cell,
                });
                slot.insert(Known::new(Arc::clone(&node)));
                return node;
            }
            ino = ino.next_probe();
        }
    }

    /// Adds a reference to a number that is in use, if its node is what is wanted.
    pub(crate) fn acquire_if(
        &self,
        ino: Ino,
        is_wanted: impl FnOnce(&Node) -> bool,
    ) -> Option<Arc<Node>> {
        let mut shard = self.shard(ino).lock();
        let known = shard.get_mut(&ino).filter(|known| is_wanted(&known.node))?;
        known.lookups += 1;
        Some(Arc::clone(&known.node))
    }

    /// Returns the node of a thing if it is in use; `ino` is where to look first.
    pub(crate) fn find(&self, mut ino: Ino, place: &Place, meta: &ObjectMeta) -> Option<Arc<Node>> {
        while let Some(node) = self.get(ino) {
            if node.is(place, meta) {
                return Some(node);
            }
            ino = ino.next_probe();
        }
        None
    }

    /// Changes what a number stands for, if it is in use; returns what it stands for then.
    pub(crate) fn change(&self, ino: Ino, change: impl FnOnce(&mut Node)) -> Option<Arc<Node>> {
        let mut shard = self.shard(ino).lock();
        let known = shard.get_mut(&ino)?;
        let mut node = (*known.node).clone();
        change(&mut node);
        known.node = Arc::new(node);
        Some(Arc::clone(&known.node))
    }

    /// Changes what a number stands for and takes a handle away, if that is the only one left and
    /// `may` agrees.
    pub(crate) fn change_last(
        &self,
        ino: Ino,
        may: impl FnOnce(&Node) -> bool,
        change: impl FnOnce(&mut Node),
    ) -> Option<Arc<Node>> {
        let mut shard = self.shard(ino).lock();
        let is_last = |known: &&mut Known| known.handles == 1 && may(&known.node);
        let known = shard.get_mut(&ino).filter(is_last)?;
        let mut node = (*known.node).clone();
        change(&mut node);
        known.node = Arc::new(node);
        let node = Arc::clone(&known.node);
        known.handles = 0;
        if known.lookups == 0 {
            shard.remove(&ino);
        }
        Some(node)
    }

    /// Returns how many handles are open on a number.
    pub(crate) fn handles(&self, ino: Ino) -> u64 {
        let shard = self.shard(ino).lock();
        shard.get(&ino).map_or(0, |known| known.handles.into())
    }

    /// Gives everything in use below a directory of a mount, and what is `renamed`, its place after a
    /// rename. Other versions that somebody still has open under the old name stay what they are.
    /// Returns numbers and new places.
    pub(crate) fn move_tree(
        &self,
        mount: MountIndex,
        (from, to): (&ObjectPath, &ObjectPath),
        renamed: Option<Ino>,
    ) -> Vec<(Ino, Place)> {
        let mut moved = Vec::new();
        for shard in &self.shards {
            for known in shard.lock().values_mut() {
                let place = &known.node.place;
                let is_other = place.path == *from && Some(known.node.ino) != renamed;
                if place.mount != Some(mount) || is_other {
                    continue;
                }
                if let Some(path) = place.path.moved(from, to) {
                    let place = Place {
                        mount: Some(mount),
                        path,
                    };
                    moved.push((known.node.ino, place.clone()));
                    known.node = Arc::new(Node {
                        place,
                        ..(*known.node).clone()
                    });
                }
            }
        }
        moved
    }

    /// Gives back `count` references of the kernel. Returns the node when that was the last.
    pub(crate) fn forget(&self, ino: Ino, count: u64) -> Option<Arc<Node>> {
        self.drop_from(ino, |known| {
            known.lookups = known.lookups.saturating_sub(count)
        })
    }

    /// Adds an open handle, if the number is in use.
    pub(crate) fn hold(&self, ino: Ino) -> Option<Arc<Node>> {
        let mut shard = self.shard(ino).lock();
        let known = shard.get_mut(&ino)?;
        known.handles += 1;
        Some(Arc::clone(&known.node))
    }

    /// Takes an open handle away. Returns the node when nobody knows it any more.
    pub(crate) fn let_go(&self, ino: Ino) -> Option<Arc<Node>> {
        self.drop_from(ino, |known| known.handles = known.handles.saturating_sub(1))
    }

    fn drop_from(&self, ino: Ino, change: impl FnOnce(&mut Known)) -> Option<Arc<Node>> {
        let mut shard = self.shard(ino).lock();
        let Slot::Occupied(mut slot) = shard.entry(ino) else {
            return None;
        };
        change(slot.get_mut());
        let is_unknown = slot.get().lookups == 0 && slot.get().handles == 0 && ino != Ino::ROOT;
        is_unknown.then(|| slot.remove().node)
    }

    /// Gives the root another place: what hangs there was added or removed.
    pub(crate) fn set_root(&self, place: Place) {
        let meta = ObjectMeta::implied_directory();
        let ino = Ino::ROOT;
        if let Some(known) = self.shard(ino).lock().get_mut(&ino) {
            let cell = Arc::clone(&known.node.cell);
            known.node = Arc::new(Node {
                ino,
                place,
                meta,
                cell,
            });
        }
    }

    /// Returns the number under which a directory is known, if it is; `ino` is where to look first.
    pub(crate) fn known_directory(&self, mut ino: Ino, place: &Place) -> Option<Ino> {
        let meta = ObjectMeta::implied_directory();
        while let Some(node) = self.get(ino) {
            if node.is(place, &meta) {
                return Some(ino);
            }
            ino = ino.next_probe();
        }
        None
    }

    /// Returns the known names of a mount with their directories, in no order; its root has none.
    pub(crate) fn names_of(&self, mount: MountIndex) -> Vec<(ObjectPath, Name)> {
        let name = |known: &Known| match &known.node.place {
            place if place.mount == Some(mount) => place.path.split(),
            _ => None,
        };
        let shards = self.shards.iter();
        shards
            .flat_map(|shard| shard.lock().values().filter_map(name).collect::<Vec<_>>())
            .collect()
    }

    /// Returns up to `count` names of things that can be forgotten and that nobody has asked for lately
    /// (the clock algorithm: what was asked for since the last time is passed over, once).
    pub(crate) fn surplus(&self, count: usize) -> Vec<(MountIndex, ObjectPath, Name)> {
        let mut found = Vec::new();
        // Twice around: in the first all may have been asked for.
        for _ in 0..2 * SHARDS {
            if found.len() >= count {
                break;
            }
            let next = self.hand.fetch_add(1, Relaxed) % SHARDS;
            let mut shard = self.shards[next].lock();
            let spare = shard.values_mut().filter(|known| known.is_spare());
            let idle = spare.filter_map(|known| match known.used {
                true => {
                    known.used = false;
                    None
                }
                false => {
                    // Not twice in one go.
                    known.used = true;
                    let place = &known.node.place;
                    let (dir, name) = place.path.split()?;
                    Some((place.mount?, dir, name))
                }
            });
            found.extend(idle.take(count - found.len()));
        }
        found
    }

    /// Returns how many nodes are in use, the root among them.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use types::VersionTag;

    use super::*;

    fn place(text: &str) -> Place {
        Place {
            mount: None,
            path: ObjectPath::parse(text.as_bytes()).unwrap(),
        }
    }

    fn file(etag: &str) -> ObjectMeta {
        let tag = VersionTag {
            etag: Some(etag.into()),
            mtime_ns: 0,
            size: 1,
        };
        ObjectMeta {
            kind: NodeKind::File,
            tag,
            owner: None,
            extras: None,
        }
    }

    #[test]
    fn a_node_lives_from_its_first_reference_to_its_last() {
        let namespace = Namespace::new(place(""));
        let ino = namespace.acquire(Ino(50), place("a"), file("x")).ino;
        assert_eq!(namespace.acquire(Ino(50), place("a"), file("x")).ino, ino);
        namespace.forget(ino, 1);
        assert!(namespace.get(ino).is_some());
        assert!(namespace.hold(ino).is_some());
        namespace.forget(ino, 1);
        assert!(namespace.get(ino).is_some(), "a handle is open");
        namespace.let_go(ino);
        assert!(namespace.get(ino).is_none());
        assert!(namespace.hold(ino).is_none());
        assert_eq!(namespace.len(), 1);
    }

    #[test]
    fn the_root_is_never_forgotten_and_surplus_forgets_do_no_harm() {
        let namespace = Namespace::new(place(""));
        namespace.forget(Ino::ROOT, u64::MAX);
        namespace.forget(Ino(99), 3);
        assert!(namespace.get(Ino::ROOT).is_some());
    }

    #[test]
    fn different_things_with_one_hash_get_different_numbers() {
        let namespace = Namespace::new(place(""));
        let first = namespace.acquire(Ino(50), place("a"), file("x")).ino;
        let second = namespace.acquire(Ino(50), place("a"), file("y")).ino;
        let third = namespace.acquire(Ino(50), place("b"), file("x")).ino;
        assert_eq!((first, second, third), (Ino(50), Ino(51), Ino(52)));
        assert_eq!(namespace.acquire(Ino(50), place("b"), file("x")).ino, third);
        assert_eq!(namespace.get(second).unwrap().meta, file("y"));
    }

    #[test]
    fn what_is_idle_is_surplus_and_nothing_that_would_be_lost() {
        let mut root = place("");
        root.mount = Some(MountIndex::for_tests(0));
        let at = |text: &str| Place {
            mount: Some(MountIndex::for_tests(0)),
            ..place(text)
        };
        let namespace = Namespace::new(root);
        let names = ["other", "held", "idle"];
        for (ino, name) in (50..).zip(names) {
            namespace.acquire(Ino(ino), at(name), file("x"));
        }
        namespace.acquire(Ino(60), at("dir"), ObjectMeta::implied_directory());
        namespace.hold(Ino(51));
        // All were used: the second round finds them, and each once.
        let surplus = namespace.surplus(9).into_iter();
        let mut found: Vec<_> = surplus.map(|(_, _, name)| name.to_string()).collect();
        found.sort();
        assert_eq!(found, ["idle", "other"]);
        assert_eq!(namespace.surplus(1).len(), 1);
    }

    #[test]
    fn a_directory_keeps_its_number_when_its_time_changes() {
        let namespace = Namespace::new(place(""));
        let mut meta = ObjectMeta::implied_directory();
        let ino = namespace.acquire(Ino(50), place("d"), meta.clone()).ino;
        meta.tag.mtime_ns = 9;
        assert_eq!(namespace.acquire(Ino(50), place("d"), meta).ino, ino);
        assert_eq!(namespace.get(ino).unwrap().meta.tag.mtime_ns, 9);
    }
}
