// SPDX-License-Identifier: Apache-2.0
//! From a name to an inode, and back to nothing when the kernel forgets it.
//!
//! Mount points come first, then what the worker knows, then the storage. How long the answer may
//! be kept is what is left of the mount's freshness.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use types::{Error, ErrorKind, Freshness, Name, NodeKind, ObjectMeta, Result};
use worker::Learnt;

use crate::attributes::Attributes;
use crate::ino::Ino;
use crate::mounts::{MountIndex, MountTable, Place};
use crate::namespace::Node;
use crate::promises::Age;
use crate::reply::Reply;
use crate::vfs::Vfs;
use crate::write::same_bytes;

/// What a name stands for. It counts as one reference until it is given to [`Vfs::forget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The inode.
    pub ino: Ino,
    /// Its attributes.
    pub attributes: Attributes,
    /// How long the name stands for this inode.
    pub entry_ttl: Duration,
    /// How long the attributes stay true.
    pub attr_ttl: Duration,
}

/// How long the kernel may take a directory for one on a mount that always asks: it then asks once
/// for each open of a file, not once for each component of the path. What is in the directory is
/// asked for all the same.
const DIRECTORY_TTL: Duration = Duration::from_secs(1);

impl Vfs {
    /// Finds a name in a directory. Success counts one reference of the kernel.
    ///
    /// # Errors
    /// `NotFound` only if the storage said so, `NotADirectory`, `Stale` when `parent` is not known;
    /// else what the storage said.
    pub fn lookup(self: &Arc<Self>, parent: Ino, name: &[u8]) -> Reply<Entry> {
        self.counters.lookups.add(1);
        let found = self.look_up_virtual(parent, name);
        found.unwrap_or_else(|| self.look_up_stored(parent, name, self.settings.deadline))
    }

    /// Finds a name that is no virtual one, and waits no longer than `patience` for a storage.
    pub(crate) fn look_up_stored(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        patience: Duration,
    ) -> Reply<Entry> {
        let (dir, name) = match self.parent_and_name(parent, name) {
            Ok(both) => both,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let table = self.mount_table();
        if let Some(place) = table.enter(&dir.place, name.as_bytes()) {
            return Reply::Ready(Ok(self.enter_point(&table, place)));
        }
        let Some(mount) = dir.place.mount else {
            return Reply::Ready(Err(absent(&name)));
        };
        let place = Place {
            mount: Some(mount),
            path: dir.place.path.join(&name),
        };
        let spec = match table.live_spec(mount, ErrorKind::NotFound) {
            Ok(spec) => spec,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let (id, freshness) = (spec.id, spec.freshness);
        if let Some(entry) = self.enter_here(&place) {
            return Reply::Ready(Ok(entry));
        }
        let age = self.promises.age();
        if let Some(known) = self.worker.known(id, &place.path, freshness)
            && let Some(answer) = self.answer(age, mount, &place, known)
        {
            return Reply::Ready(answer);
        }
        self.counters.lookups_pending.add(1);
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                let deadline = vfs.clock.deadline(patience);
                loop {
                    let age = vfs.promises.age();
                    let path = place.path.clone();
                    let asked = vfs.worker.stat(id, path, freshness, deadline).await;
                    if let Err(error) = &asked
                        && error.kind() != ErrorKind::NotFound
                    {
                        vfs.errors.note(parent, error);
                    }
                    if let Some(answer) = vfs.answer(age, mount, &place, asked) {
                        return answer;
                    }
                }
            }
            .boxed(),
        )
    }

    /// Makes an answer of what was learnt in an age; none when the name was absent then, which would
    /// be promised, and another age has begun.
    fn answer(
        &self,
        age: Age,
        mount: MountIndex,
        place: &Place,
        learnt: Result<Learnt<ObjectMeta>>,
    ) -> Option<Result<Entry>> {
        match learnt {
            Ok(learnt) => {
                let entry = self.enter(place.clone(), learnt);
                Some(Ok(self.promised(age, entry)))
            }
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && self.freshness(Some(mount)) == Freshness::Immutable =>
            {
                self.promises.absent(mount, &place.path);
                (self.promises.age() == age).then_some(Err(error))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Promises nothing of an entry when another age has begun since it was looked for: it may not
    /// have been known yet to whoever took the promises of the old one back.
    pub(crate) fn promised(&self, age: Age, entry: Entry) -> Entry {
        match self.promises.age() == age {
            true => entry,
            false => Entry {
                entry_ttl: Duration::ZERO,
                attr_ttl: Duration::ZERO,
                ..entry
            },
        }
    }

    /// Gives back `count` references of the kernel.
    pub fn forget(&self, ino: Ino, count: u64) {
        let forgotten = self.namespace.forget(ino, count);
        self.counters.forgotten.add(forgotten.is_some().into());
        self.unbind(forgotten);
    }

    /// Returns where a symbolic link points to.
    ///
    /// # Errors
    /// `Invalid` for what is no link; else what the storage said.
    pub fn read_link(self: &Arc<Self>, ino: Ino) -> Reply<Vec<u8>> {
        let node = match self.node(ino) {
            Ok(node) => node,
            Err(error) => return Reply::Ready(Err(error)),
        };
        if let Some(link) = node.meta.link() {
            return Reply::Ready(Ok(link.to_vec()));
        }
        let object = match node.meta.kind {
            NodeKind::Symlink => self.object(&node),
            NodeKind::File | NodeKind::Directory => {
                Err(Error::new(ErrorKind::Invalid, "not a symbolic link"))
            }
        };
        match object {
            Ok(object) => Reply::Pending(self.worker.read_link(
                object.mount,
                object.path,
                self.deadline(),
            )),
            Err(error) => Reply::Ready(Err(error)),
        }
    }

    fn parent_and_name(&self, parent: Ino, name: &[u8]) -> Result<(Arc<Node>, Name)> {
        let dir = self.node(parent)?;
        if dir.meta.kind != NodeKind::Directory {
            return Err(Error::new(
                ErrorKind::NotADirectory,
                "look up a name in a file",
            ));
        }
        // A name that no storage can show does not exist in any.
        let name = Name::new(name).map_err(|fault| {
            Error::new(
                ErrorKind::NotFound,
                format!("look up '{}'", name.escape_ascii()),
            )
            .with_source(fault)
        })?;
        Ok((dir, name))
    }

    /// Adds a reference to what the worker knows at a place.
    pub(crate) fn enter(&self, place: Place, learnt: Learnt<ObjectMeta>) -> Entry {
        let Learnt { value: meta, age } = learnt;
        let ttl = match self.freshness(place.mount) {
            // A listing that did not tell all promises nothing: the next look-up asks.
            _ if self.is_half_told(&place, &meta) => Duration::ZERO,
            Freshness::Always if meta.kind == NodeKind::Directory => DIRECTORY_TTL,
            freshness => freshness.left(age).unwrap_or_default(),
        };
        if let Some(entry) = self.enter_here(&place) {
            return entry;
        }
        let node = match self.bindings.get(&place) {
            Some(bound) => self.enter_bound(bound.ino, place, meta),
            None => {
                let hasher = self.mount_table().hasher(&place);
                let ino = hasher.finish(meta.kind, &meta.tag);
                self.namespace.acquire(ino, place, meta)
            }
        };
        self.entry(&node, ttl, age)
    }

    fn is_half_told(&self, place: &Place, meta: &ObjectMeta) -> bool {
        meta.kind == NodeKind::Symlink
            && (place.mount).is_some_and(|mount| {
                let id = self.mount_table().spec(mount).id;
                self.worker.is_half_told(id, meta)
            })
    }

    /// Adds a reference to what was at a place and may be something else by now: the kernel asks again
    /// before it uses it.
    pub(crate) fn enter_unpromised(&self, place: Place, meta: ObjectMeta) -> Entry {
        let hasher = self.mount_table().hasher(&place);
        let ino = hasher.finish(meta.kind, &meta.tag);
        let node = self.namespace.acquire(ino, place, meta);
        Entry {
            attr_ttl: Duration::ZERO,
            ..self.entry(&node, Duration::ZERO, Duration::ZERO)
        }
    }

    /// Adds a reference to what is true whatever the storage says.
    pub(crate) fn enter_here(&self, place: &Place) -> Option<Entry> {
        let bound = self.bindings.get(place).filter(|bound| bound.is_here)?;
        let is_named = |node: &Node| node.place == *place;
        let node = self.namespace.acquire_if(bound.ino, is_named)?;
        Some(self.entry(&node, self.own_ttl(place), Duration::ZERO))
    }

    /// Returns how long a kernel may believe a name that this node just made or found staged: others
    /// may change it in the storage.
    pub(crate) fn own_ttl(&self, place: &Place) -> Duration {
        let freshness = self.freshness(place.mount);
        freshness.left(Duration::ZERO).unwrap_or_default()
    }

    /// Adds a reference under the number that a place kept, if the storage has the same version.
    fn enter_bound(&self, ino: Ino, place: Place, meta: ObjectMeta) -> Arc<Node> {
        let is_half_told = self.is_half_told(&place, &meta);
        let is_same = |node: &Node| {
            let same = match meta.kind {
                NodeKind::Directory => true,
                NodeKind::File => same_bytes(&node.meta.tag, &meta.tag),
                NodeKind::Symlink => {
                    is_half_told
                        || same_bytes(&node.meta.tag, &meta.tag) && node.meta.link() == meta.link()
                }
            };
            node.place == place && node.meta.kind == meta.kind && same
        };
        if let Some(node) = self.namespace.acquire_if(ino, is_same) {
            return node;
        }
        if self.namespace.get(ino).is_none() {
            return self.namespace.acquire(ino, place, meta);
        }
        self.bindings.remove(&place, ino);
        let hasher = self.mount_table().hasher(&place);
        let start = hasher.finish(meta.kind, &meta.tag);
        self.namespace.acquire(start, place, meta)
    }

    /// Adds a reference to a mount point or to a directory that leads to one. They stay until the
    /// mount table changes, and then the door is told.
    pub(crate) fn enter_point(&self, table: &MountTable, place: &Place) -> Entry {
        let ino = table.directory_ino(place);
        let meta = ObjectMeta::implied_directory();
        let node = self.namespace.acquire(ino, place.clone(), meta);
        let ttl = Freshness::Immutable
            .left(Duration::ZERO)
            .unwrap_or_default();
        self.entry(&node, ttl, Duration::ZERO)
    }

    pub(crate) fn entry(&self, node: &Node, entry_ttl: Duration, age: Duration) -> Entry {
        Entry {
            ino: node.ino,
            attributes: self.attributes_of(node),
            entry_ttl,
            attr_ttl: self.attributes_ttl_of(node, age),
        }
    }
}

fn absent(name: &Name) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("nothing is mounted at or below '{name}'"),
    )
}
