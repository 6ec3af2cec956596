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
    PAGE_SIZE, Result,
};
use ufs::{Abilities, Expect, FileAttributes, UnderWriter};

use crate::attempts::{Attempt, Attempts, Sum};
use crate::parts::{self, PART, Parts};
use crate::settings::WHOLE_MAX;
use crate::spans;
use crate::worker::{Mount, Worker};

/// Objects up to this size are sent with one request.
pub const PUT_MAX: u64 = 16 << 20;

/// How long somebody who renames or removes a file waits for an upload of it that cannot be stopped,
/// and then for the storage to tell what became of it.
const HASTE: Duration = Duration::from_secs(5);

/// A staged file and what it is to become.
#[derive(Debug, Clone)]
pub struct Persist {
    /// The storage.
    pub mount: MountId,
    /// Where in it.
    pub path: ObjectPath,
    /// The bytes; no older version shows through.
    pub file: Arc<StagedFile>,
    /// Which of its states; one that it is not in any more is not stored.
    pub version: u64,
    /// The uploads of the file.
    pub attempts: Arc<Attempts>,
    /// What must be true of the path.
    pub expect: Expect,
    /// What is kept beside the bytes.
    pub attributes: FileAttributes,
    /// A program set the modification time; else an object store may take its own.
    pub is_mtime_set: bool,
    /// What was sent while the file was written.
    pub parts: Option<Arc<Parts>>,
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

    /// Says at once why a file can never be stored at a place.
    ///
    /// # Errors
    /// `Unsupported`, `ReadOnly`.
    pub fn check_place(&self, mount: MountId, path: &ObjectPath) -> Result<()> {
        let mount = self.mount(mount)?;
        writer(&mount)?.check_place(path)
    }

    /// Stores a staged file and returns what the storage has then. The file may be written meanwhile:
    /// then either what it was is stored, or nothing.
    ///
    /// # Errors
    /// `Busy` when the file changed before all of it was sent, or when somebody asks for a halt;
    /// `Stale` or `AlreadyExists` when the path is not as expected; else what the storage said.
    /// Nothing is lost: the file is as it was.
    pub async fn persist(self: &Arc<Self>, work: &mut Persist) -> Result<ObjectMeta> {
        let span = spans::at("store", &work.path);
        span.record("bytes", work.file.len().cast_signed());
        spans::within(span, self.persist_now(work)).await
    }

    async fn persist_now(self: &Arc<Self>, work: &mut Persist) -> Result<ObjectMeta> {
        let mount = self.mount(work.mount)?;
        let writer = writer(&mount)?;
        let len = work.file.len();
        types::crash::point("persist.begin");
        self.settle_above(work.mount, &work.path).await?;
        self.foresee(work.mount, &work.path);
        let stored = if len <= PUT_MAX.min(writer.abilities().put_max) {
            let _memory = self.memory_to_send(len).await?;
            let bytes = bytes_of(work, ByteRange::new(0, len))?;
            let deadline = self.request_deadline();
            work.attempts.begin(Attempt::whole(&bytes));
            let (path, expect) = (&work.path, &work.expect);
            let put = writer.put(path, bytes, expect, &work.attributes, deadline);
            tokio::select! {
                stored = put => {
                    work.attempts.end(&stored);
                    stored
                }
                // What becomes of it is not known.
                () = halted_for_long(&work.attempts) => Err(halted()),
            }
        } else {
            let was_begun = work.parts.is_some();
            let mut stored = self.send_parts(writer, work, len).await;
            let may_be_forgotten = |error: &Error| {
                let is_busy = error.kind() == ErrorKind::Busy;
                let is_ours = work.file.version() != work.version || work.attempts.is_halting();
                is_gone(error) || is_busy && !is_ours
            };
            if was_begun && stored.as_ref().is_err_and(may_be_forgotten) {
                // A storage may forget an upload that takes days.
                let before = work.parts.take();
                let again = self.send_parts(writer, work, len).await;
                drop(before);
                stored = again;
            }
            if !stored.as_ref().is_err_and(|e| e.kind() == ErrorKind::Busy) {
                work.parts = None;
            }
            stored
        };
        types::crash::point("persist.stored");
        Ok(self.learn_own(&mount, work.mount, &work.path, stored?, &work.attributes))
    }

    /// Returns what the storage has at the path of a staged file, if that is something that was sent
    /// for it and nobody could take note of; and whether it is the state that is to be stored. Where
    /// no upload is known, as after a crash, the bytes of now are what may have been sent. Who is in
    /// haste does not wait for a storage that is away.
    ///
    /// # Errors
    /// What the storage said.
    pub async fn find_own(
        self: &Arc<Self>,
        work: &Persist,
        is_in_haste: bool,
    ) -> Result<Option<(ObjectMeta, bool)>> {
        let mount = self.mount(work.mount)?;
        let deadline = match is_in_haste {
            true => self.clock.deadline(HASTE).min(self.request_deadline()),
            false => self.request_deadline(),
        };
        let there = mount.storage.stat(&work.path, deadline);
        let found = match there.await {
            Ok(found) if found.kind == NodeKind::File => found,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (file, len) = (&work.file, work.file.len());
        let object = ObjectRef::new(work.mount, work.path.clone(), found.tag.clone());
        let is_now = file.is_whole() && found.tag.size == len && {
            let pieces = cut(ByteRange::new(0, len), PART);
            let sums = pieces.map(|range| {
                let bytes = staged_bytes(file, range)?;
                Ok((range, Sum::of(&bytes)))
            });
            let sums = sums.collect::<Result<Vec<_>>>()?;
            self.has_sums(&object, sums).await? && file.version() == work.version
        };
        let mut is_own = is_now;
        for attempt in work.attempts.open() {
            if !is_own && attempt.len == found.tag.size {
                is_own = self.has_sums(&object, attempt.pieces().collect()).await?;
            }
        }
        if !is_own {
            return Ok(None);
        }
        let (id, path) = (work.mount, &work.path);
        let meta = self.learn_own(&mount, id, path, found, &work.attributes);
        Ok(Some((meta, is_now)))
    }

    async fn has_sums(
        self: &Arc<Self>,
        object: &ObjectRef,
        pieces: Vec<(ByteRange, Sum)>,
    ) -> Result<bool> {
        for (range, sum) in pieces {
            let window = range.pages().bytes(object.size());
            let stored = self.read(object.clone(), range, window, self.request_deadline());
            if Sum::of(&stored.await?) != sum {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns whether two versions of one length have the same bytes.
    pub(crate) async fn has_same_bytes(
        self: &Arc<Self>,
        one: &ObjectRef,
        other: &ObjectRef,
    ) -> Result<bool> {
        for range in cut(ByteRange::new(0, one.size()), PART) {
            let window = range.pages().bytes(one.size());
            let bytes_of = |object: &ObjectRef| {
                self.read(object.clone(), range, window, self.request_deadline())
            };
            let (first, second) = futures::future::try_join(bytes_of(one), bytes_of(other)).await?;
            if first != second {
                return Ok(false);
            }
        }
        Ok(true)
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

    /// Takes what is left of a base that is gone from the storage: what the cache has. Returns how
    /// many bytes are missing.
    ///
    /// # Errors
    /// `OutOfSpace`.
    pub fn fill_what_is_left(&self, file: &StagedFile, base: &ObjectRef) -> Result<u64> {
        let mut missing = 0;
        for segment in file.segments(ByteRange::new(0, file.len())) {
            let mut at = segment.range.offset;
            while at < segment.range.end() && matches!(segment.source, Source::Base) {
                let end = (at / PAGE_SIZE + 1) * PAGE_SIZE;
                let range = ByteRange::new(at, end.min(segment.range.end()) - at);
                let mut bytes = Vec::new();
                match self.read_cached(base, range, &mut bytes) {
                    true => file.fill_base(range.offset, &bytes)?,
                    false => missing += range.len,
                }
                at = range.end();
            }
        }
        Ok(missing)
    }

    /// Sends what is not in the storage yet, and makes it an object. When the file changed, what was
    /// sent is kept in `work`.
    async fn send_parts(
        self: &Arc<Self>,
        writer: &dyn UnderWriter,
        work: &mut Persist,
        len: u64,
    ) -> Result<ObjectMeta> {
        let abilities = writer.abilities();
        let size = part_size(&abilities, len)?;
        let parts = match work.parts.take() {
            Some(parts) => usable(parts, &abilities, work, size).await,
            None => None,
        };
        let parts = match parts {
            Some(parts) => parts,
            None => {
                let attributes = work.attributes.clone();
                let begun = self.begin_parts(work.mount, &work.path, size, attributes);
                begun.await?
            }
        };
        work.parts = Some(Arc::clone(&parts));
        let sums = tokio::select! {
            sent = send_all(&parts, &abilities, work, size) => sent?,
            () = work.attempts.halted() => return Err(halted()),
        };
        types::crash::point("persist.parts");
        let piece = size;
        work.attempts.begin(Attempt { len, piece, sums });
        let (told, upload) = parts.ends();
        let completed = upload.complete(&work.expect, self.request_deadline());
        let stored = completed.await;
        work.attempts.end(&stored);
        let stored = stored?;
        parts.is_done();
        let mut wanted = work.attributes.clone();
        if !work.is_mtime_set && !abilities.attributes {
            wanted.mtime_ns = told.mtime_ns;
        }
        if wanted == *told {
            return Ok(stored);
        }
        types::crash::point("persist.completed");
        let deadline = self.request_deadline();
        let changed = writer.set_attributes(&work.path, &stored.tag, &wanted, deadline);
        changed.await
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
        self.settle_above(id, path).await?;
        self.foresee(id, path);
        let deadline = self.request_deadline();
        let put = writer(&mount)?.put(path, Bytes::new(), &Expect::Absent, attributes, deadline);
        let stored = put.await?;
        Ok(self.learn_own(&mount, id, path, stored, attributes))
    }

    /// Removes a file or a symbolic link.
    ///
    /// # Errors
    /// `Stale` when it is not as expected; else what the storage said.
    pub async fn delete(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
        expect: &Expect,
    ) -> Result<()> {
        let mount = self.mount(id)?;
        let writer = writer(&mount)?;
        self.foresee(id, path);
        let deadline = self.request_deadline();
        writer.delete(path, expect, deadline).await?;
        types::crash::point("names.removed");
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
        self.settle_above(id, path).await?;
        self.foresee(id, path);
        let deadline = self.request_deadline();
        let made = writer(&mount)?
            .create_dir(path, attributes, deadline)
            .await?;
        types::crash::point("names.made");
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
        if self.unmake(id, path)? {
            return Ok(());
        }
        self.settle(id, path).await?;
        self.foresee(id, path);
        writer.remove_dir(path, self.request_deadline()).await?;
        types::crash::point("names.removed");
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
        if meta.kind == NodeKind::Directory
            && let Some(amended) = self.amend_make(id, path, attributes).await?
        {
            return Ok(amended);
        }
        self.set_attributes_stored(id, path, meta, attributes).await
    }

    /// Does so of what the storage has.
    pub(crate) async fn set_attributes_stored(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
        meta: &ObjectMeta,
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        let mount = self.mount(id)?;
        self.foresee(id, path);
        let deadline = self.request_deadline();
        let changed = writer(&mount)?.set_attributes(path, &meta.tag, attributes, deadline);
        let changed = changed.await?;
        if changed.kind == NodeKind::File
            && let Some(cache) = &self.cache
        {
            let version = |meta: &ObjectMeta| ObjectRef::new(id, path.clone(), meta.tag.clone()).id;
            cache.relabel(version(meta), version(&changed));
            self.pin_cached(id, path, version(&changed));
            self.rule_cached(id, path, version(&changed));
        }
        let kept = FileAttributes {
            owner: attributes.owner.or(meta.owner),
            mtime_ns: attributes.mtime_ns.or(Some(meta.tag.mtime_ns)),
            xattrs: None,
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
        self.settle_above(id, path).await?;
        self.foresee(id, path);
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
    pub fn adopt(self: &Arc<Self>, object: ObjectRef, file: Arc<StagedFile>) {
        let Some(cache) = self.cache.clone() else {
            return;
        };
        let is_small = file.len() <= WHOLE_MAX;
        let worker = Arc::clone(self);
        let adopt = move || match cache.adopt(object.id, file) {
            Ok(true) => {
                worker.pin_cached(object.mount, &object.path, object.id);
                worker.rule_cached(object.mount, &object.path, object.id);
            }
            Ok(false) => {}
            Err(error) => {
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

    /// Puts a name in doubt on the disk before it is changed.
    pub(crate) fn foresee(&self, id: MountId, path: &ObjectPath) {
        self.knowledge.foresee(&(id, path.clone()));
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

/// Returns the parts that were sent while the file was written, where they can become the object.
async fn usable(
    parts: Arc<Parts>,
    abilities: &Abilities,
    work: &Persist,
    size: u64,
) -> Option<Arc<Parts>> {
    parts.stop();
    let fits = parts.fits(work.mount, &work.path, size, work.file.len());
    let is_usable = fits && (abilities.parallel_parts || parts.is_sound(&work.file).await);
    is_usable.then_some(parts)
}

/// Sends all parts, and returns their checksums in order.
async fn send_all(
    parts: &Parts,
    abilities: &Abilities,
    work: &Persist,
    size: u64,
) -> Result<Vec<Sum>> {
    let width = match abilities.parallel_parts {
        true => parts::WIDTH,
        false => 1,
    };
    let ranges = cut(ByteRange::new(0, work.file.len()), size).zip(1_u32..);
    let sent = futures::stream::iter(ranges).map(|(range, number)| async move {
        let bytes = || bytes_of(work, range);
        let sent = parts.part(&work.file, (number, range), bytes);
        sent.await.map(|sum| (number, sum))
    });
    let mut sums: Vec<_> = sent.buffer_unordered(width).try_collect().await?;
    // What was sent before must be of this moment, too.
    if work.file.version() != work.version {
        return Err(changed());
    }
    sums.sort_unstable_by_key(|(number, _)| *number);
    Ok(sums.into_iter().map(|(_, sum)| sum).collect())
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

/// Says whether an object version is not there any more.
pub fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Stale | ErrorKind::NotFound)
}

pub(crate) fn staged_bytes(file: &StagedFile, range: ByteRange) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(types::in_memory(range.len));
    file.read_sound(range, &mut bytes)?;
    match bytes.len() as u64 == range.len {
        true => Ok(bytes.into()),
        false => Err(changed()),
    }
}

/// Returns bytes of the state that is to be stored.
fn bytes_of(work: &Persist, range: ByteRange) -> Result<Bytes> {
    let bytes = staged_bytes(&work.file, range)?;
    match work.file.version() == work.version {
        true => Ok(bytes),
        false => Err(changed()),
    }
}

/// Resolves when somebody has been asking for a halt for so long that the storage must be away.
async fn halted_for_long(attempts: &Attempts) {
    attempts.halted().await;
    tokio::time::sleep(HASTE).await;
}

fn halted() -> Error {
    Error::new(ErrorKind::Busy, "somebody else needs the file")
}

fn changed() -> Error {
    Error::new(ErrorKind::Busy, "the file changed while it was stored")
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
            xattrs_max: 0,
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
