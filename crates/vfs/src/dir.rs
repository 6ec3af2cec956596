// SPDX-License-Identifier: Apache-2.0
//! Listing directories: a handle is a snapshot, so cookies stay good and nothing is shown twice.
//!
//! The snapshot shares the worker's listing; entries are not copied, and inode numbers are hashed
//! on the fly from the directory's state. In order: `.`, `..`, the mount points and directories
//! leading to them, then what the storage has, less what mount points hide. The cookie of an entry
//! is its position, so a reader can go back to any.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use types::{Error, ErrorKind, Name, NodeKind, ObjectMeta, Result};
use worker::{Learnt, ListEntry, Listing};

use crate::bindings::Bound;
use crate::handles::HandleId;
use crate::ino::{Ino, InoHasher};
use crate::lookup::Entry;
use crate::mounts::{MountTable, Place};
use crate::namespace::Node;
use crate::promises::Age;
use crate::reply::Reply;
use crate::vfs::{Vfs, unknown};

/// One name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: Ino,
    /// Where the entry after this one starts.
    pub next_cookie: u64,
    /// Directory, file or symbolic link.
    pub kind: NodeKind,
    /// The name.
    pub name: &'a [u8],
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct DirHandle {
    node: Arc<Node>,
    /// The mounts as they were then: positions count them.
    table: Arc<MountTable>,
    parent: Ino,
    hasher: InoHasher,
    listing: Listing,
    /// Names that this node wrote or renamed, with the numbers they keep.
    bound: BTreeMap<Name, Bound>,
    /// When the storage told the listing.
    learnt: Instant,
    /// When it was asked for.
    age: Age,
}

/// What lies at a position of a listing.
enum Item<'a> {
    Dot(Ino, &'static [u8]),
    Point(&'a Place, &'a [u8]),
    Listed(&'a ListEntry),
    /// Under a mount point.
    Hidden,
}

impl Vfs {
    /// Opens a directory: takes a snapshot of its names.
    ///
    /// # Errors
    /// `NotADirectory`, `Stale` when `ino` is not known; else what the storage said.
    pub fn open_dir(self: &Arc<Self>, ino: Ino) -> Reply<HandleId> {
        let node = match self.node(ino) {
            Ok(node) if node.meta.kind == NodeKind::Directory => node,
            Ok(_) => {
                let error = Error::new(ErrorKind::NotADirectory, "list a file");
                return Reply::Ready(Err(error));
            }
            Err(error) => return Reply::Ready(Err(error)),
        };
        let (age, here) = (self.promises.age(), self.bindings.in_dir(&node.place));
        let table = self.mount_table();
        let Some(mount) = node.place.mount else {
            return Reply::Ready(match table.is_implied(&node.place) {
                true => self.opened_dir(ino, (age, here), nothing()),
                false => Err(Error::new(ErrorKind::NotFound, "it led to removed mounts")),
            });
        };
        let spec = match table.live_spec(mount, ErrorKind::NotFound) {
            Ok(spec) => spec,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let path = &node.place.path;
        if let Some(known) = self.worker.known_list(spec.id, path, spec.freshness) {
            self.worker.listed(spec.id, path, spec.freshness, None);
            return Reply::Ready(self.opened_dir(ino, (age, here), known));
        }
        let asked = self
            .worker
            .list(spec.id, path.clone(), spec.freshness, self.deadline());
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                match asked.await {
                    Ok(listed) => vfs.opened_dir(ino, (age, here), listed),
                    Err(error) if vfs.only_leads_to_mounts(&node, &error) => {
                        vfs.opened_dir(ino, (age, here), nothing())
                    }
                    Err(error) => {
                        vfs.errors.note(ino, &error);
                        Err(error)
                    }
                }
            }
            .boxed(),
        )
    }

    /// Gives the names from a position on to `sink` until it refuses one or there are no more.
    /// Position 0 is the start; others come from entries of this handle.
    ///
    /// # Errors
    /// `Stale` when the handle is not open.
    pub fn read_dir(
        &self,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let dir = self.dirs.get(handle)?;
        self.walk(&dir, cookie, &mut |entry, _| sink(entry));
        Ok(())
    }

    /// Does the same with what a lookup of each name would give. Counts one reference for each
    /// entry that the sink takes, except `.` and `..`.
    ///
    /// # Errors
    /// `Stale` when the handle is not open.
    pub fn read_dir_plus(
        &self,
        handle: HandleId,
        cookie: u64,
        sink: &mut dyn FnMut(DirEntry<'_>, Entry) -> bool,
    ) -> Result<()> {
        let dir = self.dirs.get(handle)?;
        let age = self.clock.now().saturating_duration_since(dir.learnt);
        self.walk(&dir, cookie, &mut |shown, item| {
            let entry = match item {
                Item::Dot(ino, _) => return sink(shown, self.dot(*ino)),
                Item::Point(place, _) => self.enter_point(&dir.table, place),
                Item::Listed(listed) => self.promised(dir.age, self.listed(&dir, listed, age)),
                Item::Hidden => return true,
            };
            // The number may differ from the hashed one after a collision.
            let taken = sink(
                DirEntry {
                    ino: entry.ino,
                    ..shown
                },
                entry,
            );
            if !taken {
                self.forget(entry.ino, 1);
            }
            taken
        });
        Ok(())
    }

    /// Adds a reference to a name that was listed when the directory was opened.
    fn listed(&self, dir: &DirHandle, listed: &ListEntry, age: Duration) -> Entry {
        let mount = dir.node.place.mount;
        let path = dir.node.place.path.join(&listed.name);
        let place = Place { mount, path };
        if let Some(entry) = self.enter_here(&place) {
            return entry;
        }
        let value = listed.meta.clone();
        let (then, now) = (dir.bound.get(&listed.name), self.bindings.get(&place));
        if then.is_none_or(|bound| !bound.is_here) && then.copied() == now {
            return self.enter(place, Learnt { value, age });
        }
        // This node has stored, renamed or removed it since: what was listed is not what is there.
        match self.known_child(&dir.node, &listed.name) {
            Some(known) => self.enter(place, known),
            None => self.enter_unpromised(place, value),
        }
    }

    /// Ends a handle on a directory.
    pub fn release_dir(&self, handle: HandleId) {
        if let Some(dir) = self.dirs.remove(handle) {
            self.namespace.let_go(dir.node.ino);
        }
    }

    fn walk(
        &self,
        dir: &DirHandle,
        cookie: u64,
        sink: &mut dyn FnMut(DirEntry<'_>, &Item<'_>) -> bool,
    ) {
        let mut position = usize::try_from(cookie).unwrap_or(usize::MAX);
        while let Some(item) = Self::item(dir, position) {
            position += 1;
            let (ino, kind, name) = match item {
                Item::Dot(ino, name) => (ino, NodeKind::Directory, name),
                Item::Point(place, name) => {
                    (dir.table.directory_ino(place), NodeKind::Directory, name)
                }
                Item::Listed(entry) => {
                    let bound = dir.bound.get(&entry.name).map(|bound| bound.ino);
                    let ino = bound.unwrap_or_else(|| {
                        let state = dir.hasher.child(&dir.node.place.path, &entry.name);
                        state.finish(entry.meta.kind, &entry.meta.tag)
                    });
                    (ino, entry.meta.kind, entry.name.as_bytes())
                }
                Item::Hidden => continue,
            };
            if !sink(
                DirEntry {
                    ino,
                    next_cookie: position as u64,
                    kind,
                    name,
                },
                &item,
            ) {
                return;
            }
        }
    }

    fn item<'a>(dir: &'a DirHandle, position: usize) -> Option<Item<'a>> {
        let points = dir.table.children(&dir.node.place);
        match position {
            0 => Some(Item::Dot(dir.node.ino, b".")),
            1 => Some(Item::Dot(dir.parent, b"..")),
            _ if position - 2 < points.len() => {
                let (name, point) = &points[position - 2];
                Some(Item::Point(dir.table.place(*point), name.as_bytes()))
            }
            _ => {
                let entry = dir.listing.get(position - 2 - points.len())?;
                let hides = |(name, _): &(Name, _)| name.cmp(&entry.name);
                let hidden = !points.is_empty() && points.binary_search_by(hides).is_ok();
                Some(if hidden {
                    Item::Hidden
                } else {
                    Item::Listed(entry)
                })
            }
        }
    }

    /// `.` and `..` carry no reference; doors show their number and kind at most.
    fn dot(&self, ino: Ino) -> Entry {
        let implied = || Node {
            ino,
            place: self.mount_table().root().clone(),
            meta: ObjectMeta::implied_directory(),
            cell: Arc::default(),
        };
        let attributes = match self.namespace.get(ino) {
            Some(node) => self.attributes_of(&node),
            None => self.attributes_of(&implied()),
        };
        Entry {
            ino,
            attributes,
            entry_ttl: Duration::ZERO,
            attr_ttl: Duration::ZERO,
        }
    }

    /// Opens a directory of which `here` was bound before it was listed.
    fn opened_dir(
        &self,
        ino: Ino,
        (age, here): (Age, BTreeMap<Name, Bound>),
        listed: Learnt<Listing>,
    ) -> Result<HandleId> {
        let node = self.namespace.hold(ino).ok_or_else(|| unknown(ino))?;
        let now = self.clock.now();
        let table = self.mount_table();
        let bound = self.bindings.in_dir(&node.place);
        Ok(self.dirs.insert(DirHandle {
            parent: table.parent_ino(&node.place),
            hasher: table.hasher(&node.place),
            table,
            listing: self.with_staged(&node, listed.value, (here, &bound)),
            bound,
            age,
            learnt: now.checked_sub(listed.age).unwrap_or(now),
            node,
        }))
    }

    /// Adds the files that the storage did not have yet when it listed the directory. One that was stored
    /// since is known.
    fn with_staged(
        &self,
        node: &Node,
        listing: Listing,
        (before, bound): (BTreeMap<Name, Bound>, &BTreeMap<Name, Bound>),
    ) -> Listing {
        let is_here = |(_, bound): &(&Name, &Bound)| bound.is_here;
        let mut staged: BTreeMap<Name, ObjectMeta> = (bound.iter().filter(is_here))
            .filter_map(|(name, bound)| {
                Some((name.clone(), self.namespace.get(bound.ino)?.meta.clone()))
            })
            .collect();
        for (name, then) in before.iter().filter(is_here) {
            let is_same = bound.get(name).is_some_and(|now| now.ino == then.ino);
            let meta = match is_same {
                true => self.namespace.get(then.ino).map(|node| node.meta.clone()),
                false => None,
            };
            let meta = meta.or_else(|| Some(self.known_child(node, name)?.value));
            if let Some(meta) = meta {
                staged.entry(name.clone()).or_insert(meta);
            }
        }
        if staged.is_empty() {
            return listing;
        }
        let is_other = |entry: &&ListEntry| !staged.contains_key(&entry.name);
        let mut all: Vec<_> = listing.iter().filter(is_other).cloned().collect();
        all.extend(
            staged
                .into_iter()
                .map(|(name, meta)| ListEntry { name, meta }),
        );
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.into()
    }

    /// Returns what is known of a name in a directory.
    fn known_child(&self, node: &Node, name: &Name) -> Option<Learnt<ObjectMeta>> {
        let (table, mount) = (self.mount_table(), node.place.mount?);
        let spec = table.live_spec(mount, ErrorKind::NotFound).ok()?;
        let path = node.place.path.join(name);
        let known = self.worker.known(spec.id, &path, spec.freshness)?;
        known.ok()
    }

    /// A directory on the way to a mount point exists even where the storage around has none.
    fn only_leads_to_mounts(&self, node: &Node, error: &Error) -> bool {
        self.mount_table().is_implied(&node.place)
            && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
    }
}

fn nothing() -> Learnt<Listing> {
    Learnt {
        value: Arc::new([]),
        age: Duration::ZERO,
    }
}
