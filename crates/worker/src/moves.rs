// SPDX-License-Identifier: Apache-2.0
//! Renames.
//!
//! Where the storage can, it is one request. Elsewhere each object is copied inside the storage and
//! then removed. Before the first copy the intent is noted durably; it is forgotten after the last
//! removal. A start that finds one carries it on: what was copied is not copied again, nothing is
//! removed before its copy is there, and an object that somebody else changed meanwhile, under the old
//! name or the new one, stays as it is.
//!
//! This node shows the old names until all is copied and then the new ones ([`crate::veils`]); others
//! may see both.

use std::collections::HashMap;
use std::sync::Arc;

use cache::staged::StagedId;
use futures::{StreamExt, TryStreamExt};
use types::{
    Error, ErrorKind, MountId, NodeKind, ObjectMeta, ObjectPath, ObjectRef, Result, VersionTag,
};
use ufs::{Expect, FileAttributes, UnderWriter};

use crate::veils::Shown;
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
    /// The new path.
    pub to: ObjectPath,
    /// What is at the old path.
    pub meta: ObjectMeta,
    /// What is at the new path and makes way: a file, or an empty directory.
    pub replaces: Option<ObjectMeta>,
}

/// What has its new name.
#[derive(Debug)]
pub struct Moved {
    /// What is at the new path.
    pub meta: ObjectMeta,
    /// What is below it and became another version by that: its new path, and what it is there.
    pub below: HashMap<ObjectPath, ObjectMeta>,
}

/// An object that is renamed, also one below a directory.
#[derive(Debug, Clone)]
struct Found {
    from: ObjectPath,
    to: ObjectPath,
    tag: VersionTag,
}

/// An object that was copied.
struct Copied {
    found: Found,
    meta: ObjectMeta,
    /// Somebody else has the new name: this one stays where it is.
    stays: bool,
}

/// What is below a directory that is renamed.
#[derive(Default)]
struct Tree {
    objects: Vec<Found>,
    /// Directories, those above first.
    dirs: Vec<(ObjectPath, ObjectPath)>,
}

/// What was copied.
struct Copies {
    /// What is at the new path.
    meta: ObjectMeta,
    objects: Vec<Copied>,
    dirs: Vec<(ObjectPath, ObjectPath)>,
}

impl Copies {
    /// Returns what is below a directory that has its new name.
    fn below(&self, work: &Move) -> HashMap<ObjectPath, ObjectMeta> {
        let moved = self.objects.iter().filter(|copied| !copied.stays);
        let below = moved.map(|copied| (copied.found.to.clone(), copied.meta.clone()));
        below.filter(|(path, _)| *path != work.to).collect()
    }
}

/// Whether a rename begins, or is carried on by a later start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    First,
    Later,
}

impl Worker {
    /// Renames a file, a symbolic link or a directory, and returns what is at the new path then.
    /// `on_moved` is called at the moment from which this node shows the new names.
    ///
    /// # Errors
    /// `Stale` when a file is another version now; else what the storage said. Of a rename that failed
    /// half-way nothing is lost: each object is under the old name, the new one, or both.
    pub async fn rename(
        self: &Arc<Self>,
        work: &Move,
        on_moved: impl FnOnce(&Moved) + Send,
    ) -> Result<ObjectMeta> {
        let mount = self.mount(work.mount)?;
        let writer = writer(&mount)?;
        let _held = match work.meta.kind {
            NodeKind::Directory => Some(self.settle_below(work.mount, &work.from).await?),
            NodeKind::File | NodeKind::Symlink => None,
        };
        self.settle_above(work.mount, &work.to).await?;
        for path in [&work.from, &work.to] {
            self.foresee(work.mount, path);
            if work.meta.kind == NodeKind::Directory {
                self.doubt_tree(work.mount, path).await;
            }
        }
        if writer.abilities().rename {
            let deadline = self.request_deadline();
            let moved = writer.rename(&work.from, &work.to, deadline).await?;
            types::crash::point("rename.done");
            let moved = self.learn_moved(&mount, work, moved).await;
            self.relabel(work.mount, (&work.from, &work.meta.tag), (&work.to, &moved));
            let moved = Moved {
                meta: moved,
                below: HashMap::new(),
            };
            on_moved(&moved);
            return Ok(moved.meta);
        }
        let veil = self.veils.veil(work.mount, &work.from, &work.to);
        veil.show(match &work.replaces {
            Some(there) if there.kind != NodeKind::Directory => Shown::OldAndReplaced,
            Some(_) => Shown::OldAndEmpty,
            None => Shown::Old,
        });
        let intent = self.note_intent(work)?;
        types::crash::point("rename.noted");
        let copied = self.copy_objects(&mount, writer, work, Run::First).await;
        types::crash::point("rename.copied");
        let moved = match copied {
            Ok(copies) => {
                let moved = self.learn_moved(&mount, work, copies.meta.clone()).await;
                self.relabel_all(work.mount, &copies);
                veil.show(Shown::New);
                let moved = Moved {
                    meta: moved,
                    below: copies.below(work),
                };
                on_moved(&moved);
                let removed = self.remove_objects(writer, &copies).await;
                // Who looked meanwhile may have learnt of the old names once more.
                if work.meta.kind == NodeKind::Directory {
                    self.doubt_tree(work.mount, &work.from).await;
                }
                self.learn_gone(work.mount, &work.from);
                removed.map(|()| moved.meta)
            }
            Err(error) => Err(error),
        };
        types::crash::point("rename.moved");
        // Who was told that it failed may use both names; a later start must not touch them.
        self.forget_intent(intent);
        let moved = moved?;
        self.keep_directory(writer, work.mount, &work.from).await?;
        Ok(moved)
    }

    /// Fails unless a directory can make way for another: it is empty, or its storage looks itself.
    ///
    /// # Errors
    /// `NotEmpty`; else what the storage said.
    pub async fn check_replaceable(self: &Arc<Self>, id: MountId, dir: &ObjectPath) -> Result<()> {
        self.check_all_made_in(id, dir)?;
        self.settle(id, dir).await?;
        match self.abilities(id)?.rename {
            true => Ok(()),
            false => self.check_empty(id, dir).await,
        }
    }

    /// Takes note of what has which name from now on.
    async fn learn_moved(
        self: &Arc<Self>,
        mount: &Mount,
        work: &Move,
        moved: ObjectMeta,
    ) -> ObjectMeta {
        let kept = FileAttributes {
            owner: work.meta.owner,
            mtime_ns: (work.meta.tag.mtime_ns != 0).then_some(work.meta.tag.mtime_ns),
            xattrs: None,
        };
        if work.meta.kind == NodeKind::Directory {
            self.doubt_tree(work.mount, &work.from).await;
            self.doubt_tree(work.mount, &work.to).await;
        }
        self.learn_gone(work.mount, &work.from);
        self.learn_own(mount, work.mount, &work.to, moved, &kept)
    }

    /// The cached bytes of a file that got another name are those of its new version.
    fn relabel(
        &self,
        id: MountId,
        (from, tag): (&ObjectPath, &VersionTag),
        (to, moved): (&ObjectPath, &ObjectMeta),
    ) {
        if let (Some(cache), NodeKind::File) = (&self.cache, moved.kind) {
            let version = |path: &ObjectPath, tag: &VersionTag| {
                ObjectRef::new(id, path.clone(), tag.clone()).id
            };
            cache.relabel(version(from, tag), version(to, &moved.tag));
            self.pin_cached(id, to, version(to, &moved.tag));
            self.rule_cached(id, to, version(to, &moved.tag));
        }
    }

    /// Copies what is renamed; of what was copied before, nothing.
    async fn copy_objects(
        self: &Arc<Self>,
        mount: &Mount,
        writer: &dyn UnderWriter,
        work: &Move,
        run: Run,
    ) -> Result<Copies> {
        if work.meta.kind != NodeKind::Directory {
            let (from, to, tag) = (work.from.clone(), work.to.clone(), work.meta.tag.clone());
            let found = Found { from, to, tag };
            let copied = self.copy(mount, writer, work, found, run).await?;
            return Ok(Copies {
                meta: copied.meta.clone(),
                objects: vec![copied],
                dirs: Vec::new(),
            });
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
        let found = futures::stream::iter(tree.objects);
        let copies = found.map(|found| self.copy(mount, writer, work, found, run));
        let objects = copies.buffer_unordered(WIDTH).try_collect().await?;
        Ok(Copies {
            meta: ObjectMeta::implied_directory(),
            objects,
            dirs: tree.dirs,
        })
    }

    /// Copies one object. A later run leaves what somebody else put under the new name meanwhile.
    async fn copy(
        self: &Arc<Self>,
        mount: &Mount,
        writer: &dyn UnderWriter,
        work: &Move,
        found: Found,
        run: Run,
    ) -> Result<Copied> {
        let mut expect = Expect::Anything;
        if run == Run::Later {
            let there = mount.storage.stat(&found.to, self.request_deadline()).await;
            match there {
                Ok(meta) => {
                    let replaced = work.replaces.as_ref();
                    if !replaced.is_some_and(|replaced| is_same(replaced, &meta)) {
                        let stays = !self.is_copy(work.mount, &found, &meta).await?;
                        if stays {
                            let (from, to) = (&found.from, &found.to);
                            tracing::warn!(
                                "'{to}' was made by somebody else meanwhile: '{from}' is not \
                                 renamed to it"
                            );
                        }
                        return Ok(Copied { found, meta, stays });
                    }
                    expect = Expect::Version(meta.tag);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => expect = Expect::Absent,
                Err(error) => return Err(error),
            }
        }
        let deadline = self.request_deadline();
        let copied = writer.copy(&found.from, &found.tag, &found.to, &expect, deadline);
        let meta = copied.await?;
        let stays = false;
        Ok(Copied { found, meta, stays })
    }

    /// Returns whether what lies under the new name has the bytes of what lies under the old one.
    async fn is_copy(
        self: &Arc<Self>,
        id: MountId,
        found: &Found,
        there: &ObjectMeta,
    ) -> Result<bool> {
        if there.kind == NodeKind::Directory || there.tag.size != found.tag.size {
            return Ok(false);
        }
        if there.tag.etag.is_some() && there.tag.etag == found.tag.etag {
            return Ok(true);
        }
        let one = ObjectRef::new(id, found.from.clone(), found.tag.clone());
        let other = ObjectRef::new(id, found.to.clone(), there.tag.clone());
        self.has_same_bytes(&one, &other).await
    }

    /// Removes what was copied.
    async fn remove_objects(&self, writer: &dyn UnderWriter, copies: &Copies) -> Result<()> {
        let gone = copies.objects.iter().filter(|copied| !copied.stays);
        let gone: Vec<Found> = gone.map(|copied| copied.found.clone()).collect();
        let removals = futures::stream::iter(gone).map(|found| async move {
            let expect = Expect::Version(found.tag);
            let deadline = self.request_deadline();
            writer.delete(&found.from, &expect, deadline).await
        });
        removals.buffer_unordered(WIDTH).try_collect::<()>().await?;
        types::crash::point("rename.removed");
        if copies.objects.iter().any(|copied| copied.stays) {
            return Ok(());
        }
        for (from, _) in copies.dirs.iter().rev() {
            writer.remove_dir(from, self.request_deadline()).await?;
        }
        Ok(())
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

    /// Carries a rename on that a former run began. What was known of its names before is not
    /// believed from here on, also if this fails.
    ///
    /// # Errors
    /// What the storage said; the intent stays noted.
    pub async fn carry_on(self: &Arc<Self>, id: StagedId, work: &Move) -> Result<()> {
        for path in [&work.from, &work.to] {
            self.doubt_tree(work.mount, path).await;
            self.forget_path(work.mount, path);
        }
        let mount = self.mount(work.mount)?;
        let there = mount.storage.stat(&work.from, self.request_deadline());
        match there.await {
            Ok(meta) if work.meta.kind == NodeKind::Directory || meta.tag == work.meta.tag => {
                let writer = writer(&mount)?;
                let copies = self.copy_objects(&mount, writer, work, Run::Later).await?;
                self.remove_objects(writer, &copies).await?;
                self.relabel_all(work.mount, &copies);
                self.keep_directory(writer, work.mount, &work.from).await?;
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
        self.forget_intent(Some(id));
        Ok(())
    }

    /// Keeps the cached bytes of all files that got another name.
    fn relabel_all(&self, id: MountId, copies: &Copies) {
        for Copied { found, meta, stays } in &copies.objects {
            if !stays {
                self.relabel(id, (&found.from, &found.tag), (&found.to, meta));
            }
        }
    }
}

/// Returns whether two answers of a storage are of the same bytes.
fn is_same(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    let times = a.tag.etag.is_some() || a.tag.mtime_ns == b.tag.mtime_ns;
    a.kind == b.kind && a.tag.size == b.tag.size && a.tag.etag == b.tag.etag && times
}
