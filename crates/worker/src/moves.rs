// SPDX-License-Identifier: Apache-2.0
//! Renames.
//!
//! Where the storage can, it is one request. Elsewhere each object is copied inside the storage and
//! then removed. Before the first copy the intent is noted durably; it is forgotten after the last
//! removal. A start that finds one carries it on: what was copied and is unchanged is not copied
//! again, and nothing is removed before its copy is there. An object that somebody changed meanwhile
//! stays where it is.
//!
//! This node shows the old names until all is done and then the new ones; others may see both.

use std::sync::Arc;

use cache::staged::StagedId;
use futures::{StreamExt, TryStreamExt};
use types::{
    Error, ErrorKind, MountId, NodeKind, ObjectMeta, ObjectPath, ObjectRef, Result, VersionTag,
};
use ufs::{Expect, FileAttributes, UnderWriter};

use crate::worker::{Mount, Worker};
use crate::write::writer;

/// Copies or removals of one rename under way at a time.
const WIDTH: usize = 32;

/// A rename: what, and from where to where.
#[derive(Debug, Clone)]
pub struct Move {
    /// The storage.
    pub mount: MountId,
    /// The old path.
    pub from: ObjectPath,
    /// The new path. What is there is replaced: a file, or an empty directory.
    pub to: ObjectPath,
    /// What is at the old path.
    pub meta: ObjectMeta,
}

/// An object below a directory that is renamed.
#[derive(Clone)]
struct Found {
    from: ObjectPath,
    to: ObjectPath,
    tag: VersionTag,
}

/// What is below a directory that is renamed.
#[derive(Default)]
struct Tree {
    objects: Vec<Found>,
    /// Directories, those above first.
    dirs: Vec<(ObjectPath, ObjectPath)>,
}

impl Worker {
    /// Renames a file, a symbolic link or a directory, and returns what is at the new path then.
    ///
    /// # Errors
    /// `Stale` when a file is another version now; else what the storage said. Of a rename that failed
    /// half-way nothing is lost: each object is under the old name, the new one, or both.
    pub async fn rename(self: &Arc<Self>, work: &Move) -> Result<ObjectMeta> {
        let mount = self.mount(work.mount)?;
        let writer = writer(&mount)?;
        let moved = if writer.abilities().rename {
            let deadline = self.request_deadline();
            writer.rename(&work.from, &work.to, deadline).await?
        } else {
            let intent = self.note_intent(work)?;
            types::crash::point("rename.noted");
            let moved = self.move_objects(&mount, writer, work).await;
            types::crash::point("rename.moved");
            // Who was told that it failed may use both names; a later start must not touch them.
            self.forget_intent(intent);
            moved?
        };
        let kept = FileAttributes {
            owner: work.meta.owner,
            mtime_ns: (work.meta.tag.mtime_ns != 0).then_some(work.meta.tag.mtime_ns),
        };
        if work.meta.kind == NodeKind::Directory {
            self.doubt_tree(work.mount, &work.from).await;
            self.doubt_tree(work.mount, &work.to).await;
        }
        self.learn_gone(work.mount, &work.from);
        let moved = self.learn_own(&mount, work.mount, &work.to, moved, &kept);
        self.relabel(work, &moved);
        self.keep_directory(writer, work.mount, &work.from).await?;
        Ok(moved)
    }

    /// The cached bytes of a file that got another name are those of its new version.
    fn relabel(&self, work: &Move, moved: &ObjectMeta) {
        if let (Some(cache), NodeKind::File) = (&self.cache, moved.kind) {
            let version = |path: &ObjectPath, meta: &ObjectMeta| {
                ObjectRef::new(work.mount, path.clone(), meta.tag.clone()).id
            };
            cache.relabel(version(&work.from, &work.meta), version(&work.to, moved));
        }
    }

    async fn move_objects(
        &self,
        mount: &Mount,
        writer: &dyn UnderWriter,
        work: &Move,
    ) -> Result<ObjectMeta> {
        if work.meta.kind != NodeKind::Directory {
            let (from, to, tag) = (work.from.clone(), work.to.clone(), work.meta.tag.clone());
            let found = Found { from, to, tag };
            let moved = self.copy(writer, &found).await?;
            types::crash::point("rename.copied");
            self.remove(writer, &found).await?;
            return Ok(moved);
        }
        let tree = self.tree(mount, &work.from, &work.to).await?;
        let attributes = FileAttributes::default();
        for (_, to) in &tree.dirs {
            let deadline = self.request_deadline();
            match writer.create_dir(to, &attributes, deadline).await {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let found = || futures::stream::iter(tree.objects.clone());
        let copies = found().map(|found| async move { self.copy(writer, &found).await.map(drop) });
        copies.buffer_unordered(WIDTH).try_collect::<()>().await?;
        types::crash::point("rename.copied");
        let removals = found().map(|found| async move { self.remove(writer, &found).await });
        removals.buffer_unordered(WIDTH).try_collect::<()>().await?;
        for (from, _) in tree.dirs.iter().rev() {
            writer.remove_dir(from, self.request_deadline()).await?;
        }
        Ok(ObjectMeta::implied_directory())
    }

    async fn copy(&self, writer: &dyn UnderWriter, found: &Found) -> Result<ObjectMeta> {
        let (deadline, expect) = (self.request_deadline(), Expect::Anything);
        writer
            .copy(&found.from, &found.tag, &found.to, &expect, deadline)
            .await
    }

    async fn remove(&self, writer: &dyn UnderWriter, found: &Found) -> Result<()> {
        let expect = Expect::Version(found.tag.clone());
        writer
            .delete(&found.from, &expect, self.request_deadline())
            .await
    }

    /// Lists what is below a directory, and the directory.
    async fn tree(&self, mount: &Mount, from: &ObjectPath, to: &ObjectPath) -> Result<Tree> {
        let mut tree = Tree::default();
        let mut left = vec![(from.clone(), to.clone())];
        while let Some((from, to)) = left.pop() {
            let mut pages = mount.storage.list(&from);
            while let Some(page) = pages.next().await {
                let page = page?;
                if page.unshowable > 0 {
                    let message = format!(
                        "'{from}' holds {} names that cannot be shown, and they would be left behind",
                        page.unshowable
                    );
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
                for entry in page.entries {
                    let (from, to) = (from.join(&entry.name), to.join(&entry.name));
                    match entry.meta.kind {
                        NodeKind::Directory => left.push((from, to)),
                        NodeKind::File | NodeKind::Symlink => tree.objects.push(Found {
                            from,
                            to,
                            tag: entry.meta.tag,
                        }),
                    }
                }
            }
            tree.dirs.push((from, to));
        }
        Ok(tree)
    }

    fn note_intent(&self, work: &Move) -> Result<Option<StagedId>> {
        let Some(staging) = self.staging() else {
            return Ok(None);
        };
        let id = staging.next_id();
        staging.note(id, Some(&crate::notes::of_move(work)))?;
        Ok(Some(id))
    }

    fn forget_intent(&self, intent: Option<StagedId>) {
        if let (Some(id), Some(staging)) = (intent, self.staging())
            && let Err(error) = staging.note(id, None)
        {
            tracing::warn!("a finished rename is looked at again at the next start: {error}");
        }
    }

    /// Carries a rename on that a former run began.
    ///
    /// # Errors
    /// What the storage said; the intent stays noted.
    pub async fn carry_on(self: &Arc<Self>, id: StagedId, work: &Move) -> Result<()> {
        let mount = self.mount(work.mount)?;
        let there = mount.storage.stat(&work.from, self.request_deadline());
        match there.await {
            Ok(meta) if work.meta.kind == NodeKind::Directory || meta.tag == work.meta.tag => {
                self.move_objects(&mount, writer(&mount)?, work).await?;
                tracing::info!("finished the rename of '{}' to '{}'", work.from, work.to);
            }
            Ok(_) => tracing::warn!(
                "'{}' was changed by somebody else: its rename to '{}' is not finished",
                work.from,
                work.to
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.doubt_tree(work.mount, &work.from).await;
        self.doubt_tree(work.mount, &work.to).await;
        self.forget_intent(Some(id));
        Ok(())
    }
}
