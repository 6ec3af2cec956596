// SPDX-License-Identifier: Apache-2.0
//! Making directories and links, and removing names.

use std::sync::Arc;

use futures::FutureExt;
use types::{Error, ErrorKind, NodeKind, Result};
use worker::{Expect, Learnt};

use super::{Creator, Resolved, Target, WriteMode};
use crate::ino::Ino;
use crate::lookup::Entry;
use crate::namespace::Node;
use crate::reply::Reply;
use crate::vfs::Vfs;
use crate::written::Written;

impl Vfs {
    /// Makes a directory. Success counts one reference of the kernel.
    ///
    /// # Errors
    /// `AlreadyExists`, `ReadOnly`; else what the storage said.
    pub fn make_dir(self: &Arc<Self>, parent: Ino, name: &[u8], creator: Creator) -> Reply<Entry> {
        self.make(parent, name, move |vfs, target| {
            async move {
                let id = vfs.storage_of(target.mount).0;
                let attributes = vfs.new_attributes(target.mount, creator);
                let (worker, path) = (&vfs.worker, &target.place.path);
                match target.mode {
                    WriteMode::Back => worker.create_dir_later(id, path, &attributes).await,
                    _ => worker.create_dir(id, path, &attributes).await,
                }
            }
            .boxed()
        })
    }

    /// Makes a symbolic link. Success counts one reference of the kernel.
    ///
    /// # Errors
    /// `AlreadyExists`, `ReadOnly`, `Unsupported` where the storage has no links; else what it said.
    pub fn make_link(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        points_to: &[u8],
        creator: Creator,
    ) -> Reply<Entry> {
        let points_to = points_to.to_vec();
        self.make(parent, name, move |vfs, target| {
            async move {
                let id = vfs.storage_of(target.mount).0;
                let attributes = vfs.new_attributes(target.mount, creator);
                let path = &target.place.path;
                let made = vfs.worker.symlink(id, path, &points_to, &attributes);
                made.await
            }
            .boxed()
        })
    }

    fn make(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
        make: impl FnOnce(
            Arc<Self>,
            Target,
        ) -> futures::future::BoxFuture<'static, Result<types::ObjectMeta>>
        + Send
        + 'static,
    ) -> Reply<Entry> {
        let target = match self.target(parent, name) {
            Ok(target) => target,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                if vfs.resolve(&target).await?.is_some() {
                    let message = format!("'{}' exists", target.place.path);
                    return Err(Error::new(ErrorKind::AlreadyExists, message));
                }
                let meta = make(Arc::clone(&vfs), target.clone()).await?;
                vfs.touch_dir(&target.dir);
                let age = std::time::Duration::ZERO;
                Ok(vfs.enter(target.place, Learnt { value: meta, age }))
            }
            .boxed(),
        )
    }

    /// Removes a file or a symbolic link; who has it open keeps it.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`, `ReadOnly`; else what the storage said.
    pub fn unlink(self: &Arc<Self>, parent: Ino, name: &[u8]) -> Reply<()> {
        let target = match self.target(parent, name) {
            Ok(target) => target,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                let found = vfs.resolve(&target).await?;
                let found = found.ok_or_else(|| not_found(&target))?;
                if found.meta.kind == NodeKind::Directory {
                    return Err(Error::new(ErrorKind::IsADirectory, "unlink a directory"));
                }
                vfs.remove(&target, &found).await?;
                vfs.touch_dir(&target.dir);
                Ok(())
            }
            .boxed(),
        )
    }

    /// Takes a file from its name, and from the storage if it is there.
    async fn remove(self: &Arc<Self>, target: &Target, found: &Resolved) -> Result<()> {
        let id = self.storage_of(target.mount).0;
        let path = &target.place.path;
        let Some(node) = &found.node else {
            return self.worker.delete(id, path, &Expect::Anything).await;
        };
        let written = node.cell.written().map(Arc::clone);
        match &written {
            Some(written) => {
                let _alone = written.alone().await;
                self.find_sent(node, written).await?;
                if is_in_storage(written) {
                    self.worker.delete(id, path, &Expect::Anything).await?;
                }
                self.take_name(target, node).await;
            }
            None => {
                self.keep_for_readers(node).await?;
                self.worker.delete(id, path, &Expect::Anything).await?;
                self.take_name(target, node).await;
            }
        }
        Ok(())
    }

    /// Takes a file from its name; the caller keeps others from storing it.
    pub(super) async fn take_name(self: &Arc<Self>, target: &Target, node: &Node) {
        if let Some(written) = node.cell.written().map(Arc::clone) {
            let _sealing = written.sealing.lock().await;
            written.change(|state| state.is_named = false);
            drop(written.sent_meanwhile());
            self.unnote(&written);
        }
        self.bindings.remove(&target.place, node.ino);
        self.settle(node.ino);
    }

    /// Finds out whether the storage has something of a file that was sent and whose answer was
    /// lost: it would be left behind by who takes the file from its name.
    pub(super) async fn find_sent(&self, node: &Node, written: &Written) -> Result<()> {
        if is_in_storage(written) || !written.attempts.has_open() {
            return Ok(());
        }
        let work = self.work_of(&*self.node(node.ino)?, written)?;
        let found = match self.worker.find_own(&work, true).await {
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
                // Who takes its name must not wait for a storage that is away.
                tracing::warn!("'{}' may be left in the storage: {error}", work.path);
                return Ok(());
            }
            found => found?,
        };
        work.attempts.close();
        if let Some((meta, _)) = found {
            written.change(|state| state.expect = Expect::Version(meta.tag));
        }
        Ok(())
    }

    /// Who has a file open that is removed reads on: what the cache has is kept, the rest is
    /// fetched before it is gone.
    pub(super) async fn keep_for_readers(self: &Arc<Self>, node: &Node) -> Result<()> {
        let is_staged = node.cell.written().is_some();
        if is_staged || node.meta.kind != NodeKind::File || self.namespace.handles(node.ino) == 0 {
            return Ok(());
        }
        let object = self.object(node)?;
        if object.size() == 0 {
            return Ok(());
        }
        if let Some(file) = self.worker.local_file(&object) {
            node.cell.kept.get_or_init(|| file);
            return Ok(());
        }
        let file = self.worker.stage(object.size())?;
        self.worker.fill_whole(&file, &object).await?;
        let shown = self.attributes_of(node);
        let owner = types::meta::Owner {
            mode: shown.mode,
            uid: shown.uid,
            gid: shown.gid,
        };
        let times = crate::written::Times::all(shown.mtime_ns);
        let written = Written::new(file, Some(object), owner, times, Expect::Anything);
        written.change(|state| state.is_named = false);
        node.cell.set(written);
        // As every staged file is, until the last handle is closed.
        self.namespace.hold(node.ino);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotEmpty`, `NotADirectory`, `NotFound`, `ReadOnly`; else what the storage said.
    pub fn remove_dir(self: &Arc<Self>, parent: Ino, name: &[u8]) -> Reply<()> {
        let target = match self.target(parent, name) {
            Ok(target) => target,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                let found = vfs.resolve(&target).await?;
                let found = found.ok_or_else(|| not_found(&target))?;
                vfs.remove_empty(&target, &found).await?;
                vfs.touch_dir(&target.dir);
                Ok(())
            }
            .boxed(),
        )
    }

    pub(super) async fn remove_empty(&self, target: &Target, found: &Resolved) -> Result<()> {
        if found.meta.kind != NodeKind::Directory {
            return Err(Error::new(ErrorKind::NotADirectory, "rmdir of a file"));
        }
        self.check_nothing_here(target)?;
        let id = self.storage_of(target.mount).0;
        self.worker.remove_dir(id, &target.place.path).await?;
        if let Some(node) = &found.node {
            self.bindings.remove(&target.place, node.ino);
        }
        Ok(())
    }

    /// Fails if a directory has names that the storage does not know yet.
    pub(super) fn check_nothing_here(&self, target: &Target) -> Result<()> {
        let here = self.bindings.in_dir(&target.place);
        if here.values().any(|bound| bound.is_here) {
            let message = format!("'{}' has files that are being written", target.place.path);
            return Err(Error::new(ErrorKind::NotEmpty, message));
        }
        Ok(())
    }
}

/// Returns whether the storage has an object under the name of a staged file.
pub(super) fn is_in_storage(written: &Written) -> bool {
    matches!(written.state().expect, Expect::Version(_))
}

pub(super) fn not_found(target: &Target) -> Error {
    let message = format!("'{}' does not exist", target.place.path);
    Error::new(ErrorKind::NotFound, message)
}
