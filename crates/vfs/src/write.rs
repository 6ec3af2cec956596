// SPDX-License-Identifier: Apache-2.0
//! Writing: files that are staged on the local disk and stored as whole objects, and changes of names.
//!
//! The first open for writing gives an inode a staged file ([`crate::written`]), which shows the old
//! version until it is written over. When the file is stored depends on the mount and the path (`modes`):
//!
//! | mode | `close` and `fsync` return when |
//! |---|---|
//! | through | the storage has acknowledged the whole file |
//! | back | the file and a note of it are durable on the local disk; it is stored in the background |
//! | local | at once; it is never stored |
//!
//! Names change in the storage at once in all modes, except of what is not stored yet: that is
//! renamed and removed here. A file has its name on this node from its creation. In `back` a new
//! directory is noted on the local disk, too, and the storage has it a moment later.
//!
//! An object that somebody else changed since it was opened is not overwritten: what was written
//! is stored under another name, and the writer gets `Stale`.
//!
//! Reading order: `open` (creating, opening, the last release), `io` (bytes), `store` (from the staged
//! file to the storage, and the queue behind `back`), `waiting` (what is in it), `names`, `renames`,
//! `attributes`, `xattrs`.

mod attributes;
mod io;
mod modes;
mod names;
mod open;
mod renames;
mod store;
mod waiting;
mod xattrs;

use std::sync::Arc;

use types::{Error, ErrorKind, Name, NodeKind, ObjectMeta, Result};
use worker::FileAttributes;

use crate::ino::Ino;
use crate::mounts::{MountIndex, Place};
use crate::namespace::Node;
use crate::vfs::Vfs;

pub use attributes::Change;
pub use modes::{WriteMode, WriteModes};
pub(crate) use open::same_bytes;
pub(crate) use store::Queue;
pub use waiting::Waiting;
pub use xattrs::XattrChange;

/// Who makes a file or a directory, and with which permission bits.
#[derive(Debug, Clone, Copy)]
pub struct Creator {
    /// The lower twelve mode bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Creator {
    fn owner(self) -> types::meta::Owner {
        types::meta::Owner {
            mode: self.mode & 0o7777,
            uid: self.uid,
            gid: self.gid,
        }
    }
}

/// A name in a directory of a mount that takes writes.
#[derive(Debug, Clone)]
struct Target {
    dir: Arc<Node>,
    mount: MountIndex,
    place: Place,
    mode: WriteMode,
}

impl Vfs {
    /// Returns the mount that a node belongs to, and the mode of its path.
    pub(crate) fn write_mode(&self, node: &Node) -> Result<(MountIndex, WriteMode)> {
        self.write_mode_at(&node.place)
    }

    fn write_mode_at(&self, place: &Place) -> Result<(MountIndex, WriteMode)> {
        let read_only = |what: String| Err(Error::new(ErrorKind::ReadOnly, what));
        let Some(mount) = place.mount else {
            return read_only("directories above all mounts take no files".into());
        };
        let table = self.mount_table();
        let spec = table.live_spec(mount, ErrorKind::Stale)?;
        match spec.writes.of(&place.path) {
            WriteMode::ReadOnly if spec.writes.is_read_only() => {
                read_only(format!("the mount of '{}' is read-only", spec.uri))
            }
            WriteMode::ReadOnly => read_only(format!("'{}' is read-only", place.path)),
            mode => Ok((mount, mode)),
        }
    }

    /// Checks that an inode belongs to a mount that takes writes.
    ///
    /// # Errors
    /// `ReadOnly`, `Stale` when the inode is not known.
    pub fn check_writable(&self, ino: Ino) -> Result<()> {
        self.write_mode(&*self.node(ino)?).map(|_| ())
    }

    /// Returns where a name would lie, if it may be changed.
    fn target(&self, parent: Ino, name: &[u8]) -> Result<Target> {
        let dir = self.node(parent)?;
        if dir.meta.kind != NodeKind::Directory {
            return Err(Error::new(ErrorKind::NotADirectory, "a name in a file"));
        }
        let name = Name::new(name).map_err(|fault| {
            let message = format!("'{}' cannot be a name", name.escape_ascii());
            Error::new(ErrorKind::Invalid, message).with_source(fault)
        })?;
        if self
            .mount_table()
            .enter(&dir.place, name.as_bytes())
            .is_some()
        {
            let message = format!("'{name}' is or leads to a mount point");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        let place = Place {
            mount: dir.place.mount,
            path: dir.place.path.join(&name),
        };
        let (mount, mode) = self.write_mode_at(&place)?;
        Ok(Target {
            dir,
            mount,
            place,
            mode,
        })
    }

    /// Returns what a name stands for: what is here, or what the storage says.
    async fn resolve(&self, target: &Target) -> Result<Option<Resolved>> {
        if let Some(bound) = self.bindings.get(&target.place).filter(|b| b.is_here) {
            let node = self.node(bound.ino)?;
            let meta = node.meta.clone();
            let node = Some(node);
            return Ok(Some(Resolved { meta, node }));
        }
        let (id, freshness) = self.storage_of(target.mount);
        let path = target.place.path.clone();
        let asked = self.worker.stat(id, path, freshness, self.deadline());
        match asked.await {
            Ok(learnt) => {
                let meta = learnt.value;
                let node = self.known_node(&target.place, &meta);
                Ok(Some(Resolved { meta, node }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns what the storage is told of an owner who is shown so; `now` is what it has.
    fn owner_in_storage(
        &self,
        mount: MountIndex,
        shown: types::meta::Owner,
        now: Option<types::meta::Owner>,
    ) -> types::meta::Owner {
        let table = self.mount_table();
        table.spec(mount).attributes.in_storage(shown, now)
    }

    /// Returns what is kept beside the bytes of what somebody makes now.
    fn new_attributes(&self, mount: MountIndex, creator: Creator) -> FileAttributes {
        FileAttributes {
            owner: Some(self.owner_in_storage(mount, creator.owner(), None)),
            mtime_ns: Some(self.now_ns()),
            xattrs: None,
        }
    }

    fn storage_of(&self, mount: MountIndex) -> (types::MountId, types::Freshness) {
        let table = self.mount_table();
        let spec = table.spec(mount);
        (spec.id, spec.freshness)
    }

    /// Returns the node of a thing of the storage, if anybody knows it.
    fn known_node(&self, place: &Place, meta: &ObjectMeta) -> Option<Arc<Node>> {
        if let Some(bound) = self.bindings.get(place) {
            return self.namespace.get(bound.ino);
        }
        let hasher = self.mount_table().hasher(place);
        let ino = hasher.finish(meta.kind, &meta.tag);
        self.namespace.find(ino, place, meta)
    }

    /// Returns the time of now as files have it.
    fn now_ns(&self) -> i64 {
        let since = self.clock.wall().duration_since(std::time::UNIX_EPOCH);
        i64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
    }

    /// Takes note that the names in a directory changed.
    fn touch_dir(&self, dir: &Node) {
        dir.cell.touch(self.now_ns());
    }
}

/// What a name stands for.
struct Resolved {
    meta: ObjectMeta,
    /// Its node, if anybody knows it.
    node: Option<Arc<Node>>,
}
