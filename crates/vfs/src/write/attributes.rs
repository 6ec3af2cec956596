// SPDX-License-Identifier: Apache-2.0
//! Changing lengths, modes, owners and times.

use std::sync::Arc;

use futures::FutureExt;
use types::meta::Owner;
use types::{ErrorKind, NodeKind, Result};
use worker::{FileAttributes, Lasts};

use super::WriteMode;
use super::open::Held;
use crate::attributes::Attributes;
use crate::ino::Ino;
use crate::namespace::Node;
use crate::reply::Reply;
use crate::vfs::Vfs;

/// What is to be changed; what is `None` stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Length of a file.
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of last modification, in nanoseconds since 1970.
    pub modified: Option<i64>,
    /// Time of last access.
    pub accessed: Option<i64>,
}

impl Change {
    /// Returns whether the storage has to know.
    fn is_kept(&self) -> bool {
        self.changes_owner() || self.modified.is_some()
    }

    fn changes_owner(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some()
    }

    fn owner(&self, shown: &Attributes) -> Owner {
        Owner {
            mode: self.mode.unwrap_or(shown.mode) & 0o7777,
            uid: self.uid.unwrap_or(shown.uid),
            gid: self.gid.unwrap_or(shown.gid),
        }
    }
}

impl Vfs {
    /// Changes attributes and returns all of them.
    ///
    /// # Errors
    /// `ReadOnly`, `IsADirectory` for its length; else what the storage said.
    pub fn set_attributes(self: &Arc<Self>, ino: Ino, change: Change) -> Reply<Attributes> {
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                let changed = vfs.set_now(ino, change).await;
                changed.inspect_err(|error| vfs.errors.note(ino, error))?;
                vfs.attributes(ino)
            }
            .boxed(),
        )
    }

    async fn set_now(self: &Arc<Self>, ino: Ino, change: Change) -> Result<()> {
        let (_, mode) = self.write_mode(&*self.node(ino)?)?;
        let held = match change.size {
            None => self.hold_written(ino),
            Some(size) => {
                let held = self.hold_staged(ino, size == 0).await?;
                let shared = held.written.gate.read().await;
                self.cut(&held.written, size)?;
                drop(shared);
                Some(held)
            }
        };
        match held.as_ref().map(|held| &held.written) {
            Some(written) if written.takes_attributes() => {
                let now_ns = self.now_ns();
                let shown = written.attributes(ino);
                written.change(|state| {
                    state.owner = change.owner(&shown);
                    state.times.modified = change.modified.unwrap_or(state.times.modified);
                    state.times.accessed = change.accessed.unwrap_or(state.times.accessed);
                    state.times.changed = now_ns;
                    state.is_mtime_set |= change.modified.is_some();
                    state.changes += u64::from(change.is_kept());
                });
            }
            _ => {
                let node = self.node(ino)?;
                if change.is_kept() {
                    self.set_stored(&node, &change).await?;
                }
                if change.modified.is_some() {
                    node.cell.untouch();
                }
                node.cell.change(self.now_ns(), change.accessed);
            }
        }
        if change.size.is_some()
            && let Some(held) = held.filter(|held| !held.written.has_writer())
        {
            self.promise_of_path(held, mode).await?;
        }
        Ok(())
    }

    /// What has no handle that could be closed is promised at once.
    pub(super) async fn promise_of_path(
        self: &Arc<Self>,
        held: Held,
        mode: WriteMode,
    ) -> Result<()> {
        match mode {
            WriteMode::Through => self.store(held.node.ino).await,
            WriteMode::Back => {
                let lasts = Lasts::OverKills;
                self.seal(held.node.ino, &held.written, lasts).await
            }
            WriteMode::Local | WriteMode::ReadOnly => Ok(()),
        }
    }

    async fn set_stored(&self, node: &Node, change: &Change) -> Result<()> {
        let (mount, _) = self.write_mode(node)?;
        let shown = self.attributes_of(node);
        let attributes = FileAttributes {
            owner: (change.changes_owner())
                .then(|| self.owner_in_storage(mount, change.owner(&shown), node.meta.owner)),
            mtime_ns: change.modified,
            xattrs: None,
        };
        if node.place.path.is_root() {
            // The storage's own root is not ours to change; who mounts says what it looks like.
            return Ok(());
        }
        self.tell_storage(node, &attributes).await?;
        if let Some(written) = node.cell.written() {
            written.change(|state| {
                state.owner = change.owner(&shown);
                state.times.modified = change.modified.unwrap_or(state.times.modified);
            });
        }
        Ok(())
    }

    /// Changes what the storage keeps beside the bytes of what it has.
    pub(super) async fn tell_storage(
        &self,
        node: &Node,
        attributes: &FileAttributes,
    ) -> Result<()> {
        let (mount, _) = self.write_mode(node)?;
        let id = self.storage_of(mount).0;
        let path = &node.place.path;
        let changed = self.worker.set_attributes(id, path, &node.meta, attributes);
        let meta = match changed.await {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::Stale => {
                self.worker.forget_path(id, path);
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let tag = meta.tag.clone();
        // Who stands in for it has the same version.
        let stand_in = self.bindings.get(&node.place).map(|bound| bound.ino);
        if let Some(stand_in) = stand_in.filter(|ino| *ino != node.ino) {
            self.namespace.change(stand_in, |other| {
                if other.meta.tag == node.meta.tag {
                    other.meta = meta.clone();
                }
            });
        }
        self.namespace.change(node.ino, |node| node.meta = meta);
        if node.meta.kind != NodeKind::Directory && self.bindings.get(&node.place).is_none() {
            let (ino, is_here) = (node.ino, false);
            let bound = crate::bindings::Bound { ino, is_here };
            self.bindings.set(&node.place, bound);
        }
        if let Some(written) = node.cell.written() {
            written.change(|state| state.expect = worker::Expect::Version(tag));
        }
        Ok(())
    }
}
