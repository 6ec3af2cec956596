// SPDX-License-Identifier: Apache-2.0
//! Changes on their way to the storage.
//!
//! What the storage has acknowledged becomes knowledge at once, so that this node sees its own
//! changes whatever the freshness of the mount. An object is sent in one piece when it is small and
//! in parts at once when it is large; the bytes under way share the budget of all readers.
//!
//! Where a storage has no rename, a file is copied and then removed, and a directory is so file by
//! file. `crate::moves` has that, with the intent that lets a later start finish it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cache::staged::{Source, StagedFile};
use futures::{StreamExt, TryStreamExt};
use types::{
    ByteRange, Deadline, Error, ErrorKind, MountId, NodeKind, ObjectMeta, ObjectPath, ObjectRef,
    Result,
};
use ufs::{Abilities, Expect, FileAttributes, UnderWriter, Upload};

use crate::settings::WHOLE_MAX;
use crate::worker::{Mount, Worker};

/// Objects up to this size are sent with one request.
const PUT_MAX: u64 = 16 << 20;

/// The size of a part, unless the object would have too many of them.
const PART: u64 = 8 << 20;

/// Parts of one object under way at a time.
const PARTS_WIDTH: usize = 8;

/// A staged file and what it is to become.
#[derive(Debug, Clone)]
pub struct Persist {
    /// The storage.
    pub mount: MountId,
    /// Where in it.
    pub path: ObjectPath,
    /// The bytes.
    pub file: Arc<StagedFile>,
    /// The version whose bytes show through where the file has none.
    pub base: Option<ObjectRef>,
    /// What must be true of the path.
    pub expect: Expect,
    /// What is kept beside the bytes.
    pub attributes: FileAttributes,
}

impl Worker {
    /// Returns what the storage can do for writers.
    ///
    /// # Errors
    /// `ReadOnly` where it takes no writes.
    pub fn abilities(&self, mount: MountId) -> Result<Abilities> {
        let mount = self.mount(mount)?;
        Ok(writer(&mount)?.abilities())
    }

    /// Stores a staged file and returns what the storage has then. The file must not change
    /// meanwhile.
    ///
    /// # Errors
    /// `Stale` or `AlreadyExists` when the path is not as expected, and when the base is gone; else
    /// what the storage said. Nothing is lost: the file is as it was.
    pub async fn persist(self: &Arc<Self>, work: &Persist) -> Result<ObjectMeta> {
        self.fill_from_base(&work.file, work.base.as_ref()).await?;
        let mount = self.mount(work.mount)?;
        let writer = writer(&mount)?;
        let len = work.file.len();
        types::crash::point("persist.begin");
        let stored = if len <= PUT_MAX.min(writer.abilities().put_max) {
            let _share = self.budget.take(len, self.request_deadline()).await?;
            let bytes = staged_bytes(&work.file, ByteRange::new(0, len))?;
            let deadline = self.request_deadline();
            let (path, expect) = (&work.path, &work.expect);
            writer
                .put(path, bytes, expect, &work.attributes, deadline)
                .await?
        } else {
            self.send_parts(writer, work, len).await?
        };
        types::crash::point("persist.stored");
        Ok(self.learn_own(&mount, work.mount, &work.path, stored, &work.attributes))
    }

    /// Returns what the storage has at the path of a staged file, if its bytes are those of the file:
    /// it was stored before, and nobody could take note of that.
    ///
    /// # Errors
    /// What the storage said.
    pub async fn find_stored(self: &Arc<Self>, work: &Persist) -> Result<Option<ObjectMeta>> {
        let mount = self.mount(work.mount)?;
        let there = mount.storage.stat(&work.path, self.request_deadline());
        let found = match there.await {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (file, len) = (&work.file, work.file.len());
        if found.kind != NodeKind::File || found.tag.size != len || !file.is_whole() {
            return Ok(None);
        }
        let object = ObjectRef::new(work.mount, work.path.clone(), found.tag.clone());
        for range in cut(ByteRange::new(0, len), PART) {
            let window = range.pages().bytes(len);
            let stored = self.read(object.clone(), range, window, self.request_deadline());
            if stored.await? != staged_bytes(file, range)? {
                return Ok(None);
            }
        }
        let (id, path) = (work.mount, &work.path);
        Ok(Some(self.learn_own(
            &mount,
            id,
            path,
            found,
            &work.attributes,
        )))
    }

    /// Fetches what still shows through of the base.
    pub(crate) async fn fill_from_base(
        self: &Arc<Self>,
        file: &StagedFile,
        base: Option<&ObjectRef>,
    ) -> Result<()> {
        if file.is_whole() {
            return Ok(());
        }
        let base = base.ok_or_else(|| Error::internal("a staged file lacks its base"))?;
        for segment in file.segments(ByteRange::new(0, file.len())) {
            if !matches!(segment.source, Source::Base) {
                continue;
            }
            for range in cut(segment.range, PART) {
                let window = range.pages().bytes(base.size());
                let deadline = self.request_deadline();
                let bytes = self.read(base.clone(), range, window, deadline).await?;
                file.fill_base(range.offset, &bytes)?;
            }
        }
        Ok(())
    }

    async fn send_parts(
        &self,
        writer: &dyn UnderWriter,
        work: &Persist,
        len: u64,
    ) -> Result<ObjectMeta> {
        let abilities = writer.abilities();
        let size = part_size(&abilities, len)?;
        let begun = writer.begin(&work.path, size, &work.attributes, self.request_deadline());
        let upload = begun.await?;
        let sent = self.send_all(&*upload, &abilities, &work.file, size).await;
        types::crash::point("persist.parts");
        let stored = match sent {
            Ok(()) => upload.complete(&work.expect, self.request_deadline()).await,
            Err(error) => Err(error),
        };
        if stored.is_err()
            && let Err(error) = upload.abort(self.request_deadline()).await
        {
            tracing::warn!("give up the upload of '{}': {error}", work.path);
        }
        stored
    }

    async fn send_all(
        &self,
        upload: &dyn Upload,
        abilities: &Abilities,
        file: &StagedFile,
        size: u64,
    ) -> Result<()> {
        let width = match abilities.parallel_parts {
            true => PARTS_WIDTH,
            false => 1,
        };
        let parts = cut(ByteRange::new(0, file.len()), size).zip(1_u32..);
        let sent = futures::stream::iter(parts).map(|(range, number)| async move {
            let deadline = self.request_deadline();
            let _share = self.budget.take(range.len, deadline).await?;
            let bytes = staged_bytes(file, range)?;
            upload.part(number, bytes, self.request_deadline()).await
        });
        sent.buffer_unordered(width).try_collect().await
    }

    /// Puts an empty object where there must be none, so that only one of all nodes succeeds.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; else what the storage said.
    pub async fn claim_name(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        let mount = self.mount(id)?;
        let deadline = self.request_deadline();
        let put = writer(&mount)?.put(path, Bytes::new(), &Expect::Absent, attributes, deadline);
        let stored = put.await?;
        Ok(self.learn_own(&mount, id, path, stored, attributes))
    }

    /// Removes a file or a symbolic link.
    ///
    /// # Errors
    /// What the storage said.
    pub async fn delete(self: &Arc<Self>, id: MountId, path: &ObjectPath) -> Result<()> {
        let mount = self.mount(id)?;
        let writer = writer(&mount)?;
        writer
            .delete(path, &Expect::Anything, self.request_deadline())
            .await?;
        self.learn_gone(id, path);
        self.keep_directory(writer, id, path).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; else what the storage said.
    pub async fn create_dir(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        let mount = self.mount(id)?;
        let deadline = self.request_deadline();
        let made = writer(&mount)?
            .create_dir(path, attributes, deadline)
            .await?;
        self.knowledge
            .learn_empty(&(id, path.clone()), self.moment());
        Ok(self.learn_own(&mount, id, path, made, attributes))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotEmpty` when it has names; else what the storage said.
    pub async fn remove_dir(self: &Arc<Self>, id: MountId, path: &ObjectPath) -> Result<()> {
        let mount = self.mount(id)?;
        let writer = writer(&mount)?;
        writer.remove_dir(path, self.request_deadline()).await?;
        self.learn_gone(id, path);
        self.keep_directory(writer, id, path).await
    }

    /// Changes what is kept beside the bytes of a version, or of a directory.
    ///
    /// # Errors
    /// `Stale` when there is another version now; else what the storage said.
    pub async fn set_attributes(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
        meta: &ObjectMeta,
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        let mount = self.mount(id)?;
        let deadline = self.request_deadline();
        let changed = writer(&mount)?.set_attributes(path, &meta.tag, attributes, deadline);
        let changed = changed.await?;
        if changed.kind == NodeKind::File
            && let Some(cache) = &self.cache
        {
            let version = |meta: &ObjectMeta| ObjectRef::new(id, path.clone(), meta.tag.clone()).id;
            cache.relabel(version(meta), version(&changed));
        }
        let kept = FileAttributes {
            owner: attributes.owner.or(meta.owner),
            mtime_ns: attributes.mtime_ns.or(Some(meta.tag.mtime_ns)),
        };
        Ok(self.learn_own(&mount, id, path, changed, &kept))
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, `Unsupported` where there are no links; else what
    /// the storage said.
    pub async fn symlink(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
        target: &[u8],
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        let mount = self.mount(id)?;
        let deadline = self.request_deadline();
        let made = writer(&mount)?.symlink(path, target, attributes, deadline);
        let made = made.await?;
        Ok(self.learn_own(&mount, id, path, made, attributes))
    }

    /// Gives up uploads below a mount's place that were begun longer ago than `age` and have not
    /// ended. Returns how many.
    ///
    /// # Errors
    /// What the storage said.
    pub async fn clean_uploads(&self, id: MountId, age: Duration) -> Result<u64> {
        let mount = self.mount(id)?;
        writer(&mount)?.clean(age, self.request_deadline()).await
    }

    /// Makes a staged file the cached bytes of the version that it was stored as; of a large file
    /// that takes a moment, and then it is done in the background. Without success it is fetched
    /// again when it is next read.
    pub fn adopt(&self, object: ObjectRef, file: Arc<StagedFile>) {
        let Some(cache) = self.cache.clone() else {
            return;
        };
        let is_small = file.len() <= WHOLE_MAX;
        let adopt = move || {
            if let Err(error) = cache.adopt(object.id, file) {
                tracing::debug!("keep what was written of '{}': {error}", object.path);
            }
        };
        match is_small {
            true => adopt(),
            false => drop(self.runtime.spawn_blocking(adopt)),
        }
    }

    /// Takes note of what the storage has now, with what it does not tell in listings.
    pub(crate) fn learn_own(
        &self,
        mount: &Mount,
        id: MountId,
        path: &ObjectPath,
        mut meta: ObjectMeta,
        attributes: &FileAttributes,
    ) -> ObjectMeta {
        let tells = writer(mount).is_ok_and(|writer| writer.abilities().attributes);
        if !tells {
            meta.owner = attributes.owner.or(meta.owner);
            // Where the ETag decides, the time is only shown.
            if meta.tag.etag.is_some() || meta.kind == NodeKind::Directory {
                meta.tag.mtime_ns = attributes.mtime_ns.unwrap_or(meta.tag.mtime_ns);
            }
        }
        let place = (id, path.clone());
        self.knowledge
            .learn_entry(&place, self.moment(), Some(&meta));
        meta
    }

    pub(crate) fn learn_gone(&self, id: MountId, path: &ObjectPath) {
        self.knowledge
            .learn_entry(&(id, path.clone()), self.moment(), None);
    }

    /// A directory that only its names made appear must outlive the last of them.
    pub(crate) async fn keep_directory(
        self: &Arc<Self>,
        writer: &dyn UnderWriter,
        id: MountId,
        gone: &ObjectPath,
    ) -> Result<()> {
        let Some((dir, _)) = gone.split().filter(|(dir, _)| !dir.is_root()) else {
            return Ok(());
        };
        let emptied = || {
            let listing = self.knowledge.small_listing(id, &dir);
            listing.is_some_and(|(_, names)| names.is_empty())
        };
        if writer.abilities().directories || !emptied() {
            return Ok(());
        }
        let attributes = FileAttributes::default();
        let made = writer.create_dir(&dir, &attributes, self.request_deadline());
        match made.await {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Forgets what was known of a directory and below.
    pub(crate) async fn doubt_tree(self: &Arc<Self>, id: MountId, path: &ObjectPath) {
        let at = self.moment();
        self.pass(at);
        let (worker, place) = (Arc::clone(self), (id, path.clone()));
        let forget = move || worker.knowledge.forget_until(&place, at);
        self.runtime.spawn_blocking(forget).await.ok();
    }

    pub(crate) fn request_deadline(&self) -> Deadline {
        self.clock.deadline(self.settings.change_deadline)
    }
}

/// Returns the writing side of a storage.
pub(crate) fn writer(mount: &Mount) -> Result<&dyn UnderWriter> {
    mount.storage.writer().ok_or_else(|| {
        let message = format!("'{}' takes no writes", mount.storage.uri());
        Error::new(ErrorKind::ReadOnly, message)
    })
}

/// Cuts a range into pieces of `size` bytes; the last may be smaller.
fn cut(range: ByteRange, size: u64) -> impl Iterator<Item = ByteRange> {
    let starts = (0..range.len).step_by(types::in_memory(size.max(1)));
    starts.map(move |at| ByteRange::new(range.offset + at, size.min(range.len - at)))
}

fn staged_bytes(file: &StagedFile, range: ByteRange) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(types::in_memory(range.len));
    file.read_at(range, &mut bytes)?;
    if bytes.len() as u64 != range.len {
        return Err(Error::new(
            ErrorKind::Busy,
            "the file changed while it was stored",
        ));
    }
    Ok(bytes.into())
}

/// Returns the size of parts for an object of `len` bytes.
fn part_size(abilities: &Abilities, len: u64) -> Result<u64> {
    let least = len.div_ceil(u64::from(abilities.parts_max.max(1)));
    let size = PART
        .max(least.next_multiple_of(1 << 20))
        .clamp(abilities.part_min, abilities.part_max);
    if least > size {
        let message = format!("{len} bytes are more than an object of this storage can have");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abilities() -> Abilities {
        Abilities {
            directories: false,
            rename: false,
            attributes: false,
            symlinks: false,
            conditions: true,
            put_max: 5 << 30,
            parts_max: 10_000,
            part_min: 5 << 20,
            part_max: 5 << 30,
            parallel_parts: true,
        }
    }

    #[test]
    fn parts_grow_with_the_object_and_never_are_too_many() {
        let abilities = abilities();
        assert_eq!(part_size(&abilities, 20 << 20).unwrap(), PART);
        for len in [1_u64 << 36, (1 << 40) + 1, 5 << 40] {
            let size = part_size(&abilities, len).unwrap();
            assert!(len.div_ceil(size) <= 10_000, "{len}");
            assert!(size >= PART && size <= abilities.part_max);
        }
        let error = part_size(&abilities, 1 << 60).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn pieces_cover_a_range_without_gaps() {
        for (len, size) in [(0, 5), (1, 5), (5, 5), (11, 5)] {
            let pieces: Vec<_> = cut(ByteRange::new(100, len), size).collect();
            assert_eq!(pieces.iter().map(|piece| piece.len).sum::<u64>(), len);
            let mut at = 100;
            for piece in pieces {
                assert_eq!(piece.offset, at);
                assert!(piece.len > 0 && piece.len <= size);
                at += piece.len;
            }
        }
    }
}
