// SPDX-License-Identifier: Apache-2.0
//! Renaming files and trees.
//!
//! What is not stored yet is only renamed here and is stored under its new name. Everything else is
//! renamed in the storage first and then here, so that a failure leaves what was.

use std::sync::Arc;

use futures::FutureExt;
use types::{Error, ErrorKind, NodeKind, ObjectMeta, Result};
use worker::{Expect, Lasts, Move, Moved};

use super::names::{is_in_storage, not_found};
use super::{Resolved, Target, WriteMode};
use crate::bindings::Bound;
use crate::ino::Ino;
use crate::namespace::Node;
use crate::reply::Reply;
use crate::vfs::Vfs;
use crate::written::Written;

impl Vfs {
    /// Gives a file or a directory another name; what has that name makes way, unless
    /// `keeps_other`.
    ///
    /// # Errors
    /// `NotFound`, `CrossMount`, `AlreadyExists` when something must be kept, `NotEmpty`,
    /// `IsADirectory` and `NotADirectory` when the one cannot replace the other, `Invalid` into
    /// itself, `ReadOnly`; else what the storage said.
    pub fn rename(
        self: &Arc<Self>,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        keeps_other: bool,
    ) -> Reply<()> {
        let targets = self
            .target(from.0, from.1)
            .and_then(|from| Ok((from, self.target(to.0, to.1)?)));
        let (from, to) = match targets {
            Ok(both) => both,
            Err(error) => return Reply::Ready(Err(error)),
        };
        if from.mount != to.mount {
            let message = "the two names lie in different mounts: copy instead";
            return Reply::Ready(Err(Error::new(ErrorKind::CrossMount, message)));
        }
        let vfs = Arc::clone(self);
        Reply::Pending(async move { vfs.rename_now(&from, &to, keeps_other).await }.boxed())
    }

    async fn rename_now(
        self: Arc<Self>,
        from: &Target,
        to: &Target,
        keeps_other: bool,
    ) -> Result<()> {
        let moved = self.resolve(from).await?.ok_or_else(|| not_found(from))?;
        if from.place == to.place {
            return Ok(());
        }
        if to.place.path.is_below(&from.place.path) {
            let message = "a directory cannot be moved into itself";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        self.worker
            .check_place(self.storage_of(to.mount).0, &to.place.path)?;
        let other = self.resolve(to).await?;
        if let Some(other) = &other {
            check_replaceable(&moved.meta, &other.meta, keeps_other, to)?;
        }
        // What is replaced is not stored any more from here on, or has been: it has one version.
        let replaced = other.as_ref().and_then(written_of);
        let _replaced = match &replaced {
            Some((_, written)) => Some(written.alone().await),
            None => None,
        };
        if let Some((node, written)) = &replaced {
            self.find_sent(node, written).await?;
        }
        let is_directory = moved.meta.kind == NodeKind::Directory;
        if is_directory {
            self.check_same_mode(from, to)?;
        }
        if is_directory && from.mode != WriteMode::Local {
            self.store_below(from).await?;
        }
        let written = moved
            .node
            .as_ref()
            .and_then(|node| node.cell.written().map(Arc::clone));
        match &written {
            Some(written) => {
                self.rename_written(from, to, &moved, other.as_ref(), written)
                    .await?
            }
            None => self.rename_stored(from, to, &moved, other.as_ref()).await?,
        }
        self.touch_dir(&from.dir);
        self.touch_dir(&to.dir);
        let held = moved
            .node
            .as_ref()
            .and_then(|node| self.hold_written(node.ino));
        match held {
            // Who has it open closes it under the new mode.
            Some(held) if from.mode != to.mode && !held.written.has_writer() => {
                self.promise_of_path(held, to.mode).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A directory is not moved to where its files are kept in another way.
    fn check_same_mode(&self, from: &Target, to: &Target) -> Result<()> {
        let table = self.mount_table();
        let modes = &table.spec(from.mount).writes;
        let (old, new) = (&from.place.path, &to.place.path);
        if modes
            .of_tree(old)
            .is_some_and(|mode| Some(mode) == modes.of_tree(new))
        {
            return Ok(());
        }
        let message = format!("'{old}' and '{new}' have different write modes: copy instead");
        Err(Error::new(ErrorKind::CrossMount, message))
    }

    /// Renames a file that is being written.
    async fn rename_written(
        self: &Arc<Self>,
        from: &Target,
        to: &Target,
        moved: &Resolved,
        other: Option<&Resolved>,
        written: &Arc<Written>,
    ) -> Result<()> {
        let node = moved
            .node
            .as_ref()
            .ok_or_else(|| Error::internal("no node"))?;
        let _alone = written.alone().await;
        self.find_sent(node, written).await?;
        if is_in_storage(written) {
            // What lies there under the old name goes along, with all that was written but for scratch.
            if from.mode != WriteMode::Local {
                self.store_held(node.ino, written).await?;
            }
            let meta = self.node(node.ino)?.meta.clone();
            let stored = Resolved {
                meta,
                node: Some(Arc::clone(node)),
            };
            self.rename_stored(from, to, &stored, other).await?;
            let tag = self.node(node.ino)?.meta.tag.clone();
            written.change(|state| state.expect = Expect::Version(tag));
            return Ok(());
        }
        let _sealing = written.sealing.lock().await;
        let mut expect = Expect::Absent;
        let mut displaced = None;
        if let Some(other) = other {
            let replaced = other.node.as_ref().and_then(|node| node.cell.written());
            let is_stored = replaced.is_none_or(|replaced| is_in_storage(replaced));
            if is_stored {
                let known = other
                    .node
                    .as_ref()
                    .and_then(|node| self.namespace.get(node.ino));
                let meta = known.map_or_else(|| other.meta.clone(), |node| node.meta.clone());
                expect = Expect::Version(meta.tag);
            }
            if let Some(replaced) = replaced
                && replaced.is_promised_no_more()
            {
                // Its promise ends when the new one holds.
                displaced = Some(replaced.file.id());
            }
            if let Some(node) = &other.node {
                self.take_name(to, node).await;
            }
        }
        written.change(|state| state.expect = expect);
        let place = to.place.clone();
        self.bindings.remove(&from.place, node.ino);
        let renamed = self
            .namespace
            .change(node.ino, |node| node.place = place.clone());
        let (ino, is_here) = (node.ino, true);
        self.bindings.set(&place, Bound { ino, is_here });
        let is_promised = written.state().noted > 0 || displaced.is_some();
        if let Some(renamed) = renamed.filter(|_| is_promised) {
            // The promise of an earlier close holds under the new name.
            let lasts = Lasts::AsBefore;
            self.seal_held(&renamed, written, lasts, displaced).await?;
        }
        written.change(|state| state.times.changed = self.now_ns());
        Ok(())
    }

    /// Renames what the storage has.
    async fn rename_stored(
        self: &Arc<Self>,
        from: &Target,
        to: &Target,
        moved: &Resolved,
        other: Option<&Resolved>,
    ) -> Result<()> {
        let id = self.storage_of(from.mount).0;
        match other {
            Some(other) if other.meta.kind == NodeKind::Directory => {
                // It is replaced in one step with the rename, or becomes what is renamed.
                self.check_nothing_here(to)?;
                self.worker.check_replaceable(id, &to.place.path).await?;
            }
            // The storage replaces it; its readers keep it.
            Some(Resolved {
                node: Some(node), ..
            }) => {
                if let Some(written) = node.cell.written()
                    && written.state().noted > 0
                {
                    // What waits on the local disk would come back over the new one after a crash.
                    self.store_held(node.ino, written).await?;
                }
                self.keep_for_readers(node).await?;
            }
            Some(_) | None => {}
        }
        let work = Move {
            mount: id,
            from: from.place.path.clone(),
            to: to.place.path.clone(),
            meta: moved.meta.clone(),
            replaces: other.map(|other| other.meta.clone()),
        };
        let renamed = moved.node.as_ref().map(|node| node.ino);
        let move_here = |moved: &Moved| self.move_here(from, to, moved, renamed);
        if let Err(error) = self.worker.rename(&work, move_here).await {
            if error.kind() == ErrorKind::Stale {
                self.worker.forget_path(id, &from.place.path);
            }
            return Err(error);
        }
        if let Some(other) = other
            && let Some(node) = &other.node
        {
            match other.meta.kind {
                NodeKind::Directory => self.bindings.remove(&to.place, node.ino),
                NodeKind::File | NodeKind::Symlink => self.take_name(to, node).await,
            }
        }
        Ok(())
    }

    /// Gives what is known below the old name, and itself, the new one.
    fn move_here(&self, from: &Target, to: &Target, moved: &Moved, renamed: Option<Ino>) {
        let (old, new) = (&from.place.path, &to.place.path);
        if let Some(bound) = self.bindings.get(&from.place) {
            self.bindings.remove(&from.place, bound.ino);
        }
        self.bindings.remove_below(from.mount, old);
        for (ino, place) in self.namespace.move_tree(from.mount, (old, new), renamed) {
            let node = self.namespace.change(ino, |node| {
                if place == to.place {
                    node.meta = moved.meta.clone();
                    node.cell.change(self.now_ns(), None);
                } else if let Some(meta) = moved.below.get(&place.path) {
                    node.meta.tag = meta.tag.clone();
                }
            });
            let mut is_here = false;
            if let Some(node) = node
                && let Some(written) = node.cell.written()
            {
                is_here = written.state().is_named;
                written.moved(self.object(&node).ok());
            }
            self.bindings.set(&place, Bound { ino, is_here });
        }
    }

    /// Stores what is being written below a directory, so that the storage has all that is renamed.
    async fn store_below(self: &Arc<Self>, dir: &Target) -> Result<()> {
        for ino in self.bindings.here_below(dir.mount, &dir.place.path) {
            self.store(ino).await?;
        }
        Ok(())
    }
}

/// Returns the staged file that a name stands for, if it is one.
fn written_of(found: &Resolved) -> Option<(Arc<Node>, Arc<Written>)> {
    let node = found.node.as_ref()?;
    let written = Arc::clone(node.cell.written()?);
    Some((Arc::clone(node), written))
}

fn check_replaceable(
    moved: &ObjectMeta,
    other: &ObjectMeta,
    keeps_other: bool,
    to: &Target,
) -> Result<()> {
    let is_directory = |meta: &ObjectMeta| meta.kind == NodeKind::Directory;
    let refuse = |kind, why: &str| {
        let message = format!("rename to '{}': {why}", to.place.path);
        Err(Error::new(kind, message))
    };
    match (is_directory(moved), is_directory(other)) {
        _ if keeps_other => refuse(ErrorKind::AlreadyExists, "it exists"),
        (true, false) => refuse(ErrorKind::NotADirectory, "it is a file"),
        (false, true) => refuse(ErrorKind::IsADirectory, "it is a directory"),
        _ => Ok(()),
    }
}
