// SPDX-License-Identifier: Apache-2.0
//! An object that is sent in parts, also while its file is still written.
//!
//! A part is read from the staged file, which lends it: a part that changed since
//! ([`StagedFile::is_lent`]) is sent again before the end. So a file that is written in a row is
//! mostly in the storage when it is closed, and one that is not costs what it cost before.
//!
//! What is kept beside the bytes is told when an upload begins; what changed since is told after its
//! end. An upload that was begun is noted on the local disk until it is over, so that the next start
//! gives up what a crash left. Dropping the last holder gives it up, too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cache::staged::{StagedFile, StagedId};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use types::{ByteRange, Error, ErrorKind, MountId, ObjectPath, Result};
use ufs::{Abilities, FileAttributes, Upload};

use crate::attempts::Sum;
use crate::memory::Share;
use crate::notes::{self, UploadNote};
use crate::spans;
use crate::worker::Worker;
use crate::write::{staged_bytes, writer};

/// The size of a part, unless the object would have too many of them.
pub(crate) const PART: u64 = 8 << 20;

/// Parts of one object under way at a time.
pub(crate) const WIDTH: usize = 8;

/// The checksum of a part that was sent; none when it was not.
type Outcome = Shared<BoxFuture<'static, Option<Sum>>>;

/// An upload that is just being begun; there when it is.
pub type Begun = Arc<OnceLock<Arc<Parts>>>;

/// An upload of one object in parts.
pub struct Parts {
    worker: Arc<Worker>,
    mount: MountId,
    path: ObjectPath,
    size: u64,
    abilities: Abilities,
    /// What is kept beside the bytes, as it was told at the beginning.
    attributes: FileAttributes,
    upload: Arc<dyn Upload>,
    note: Option<StagedId>,
    sent: Mutex<Sent>,
    /// It was completed or given up.
    is_over: AtomicBool,
}

/// What was sent so far, or is being sent.
#[derive(Default)]
struct Sent {
    /// By number; from 1 on without a gap while the file is written.
    parts: BTreeMap<u32, (ByteRange, Outcome)>,
    under_way: usize,
    /// Who stores the file now sends the rest.
    is_stopped: bool,
}

impl Worker {
    /// Begins to send a file while it is written. [`Parts::advance`] goes on with it.
    pub fn begin_meanwhile(
        self: &Arc<Self>,
        mount: MountId,
        path: ObjectPath,
        attributes: FileAttributes,
        file: Arc<StagedFile>,
    ) -> Begun {
        let begun = Begun::default();
        let (worker, told) = (Arc::clone(self), Arc::clone(&begun));
        self.runtime.spawn(async move {
            match worker.begin_parts(mount, &path, PART, attributes).await {
                Ok(parts) => told.get_or_init(|| parts).advance(&file),
                // The close tells it, after another try.
                Err(error) => tracing::debug!("begin to send '{path}' meanwhile: {error}"),
            }
        });
        begun
    }

    pub(crate) async fn begin_parts(
        self: &Arc<Self>,
        id: MountId,
        path: &ObjectPath,
        size: u64,
        attributes: FileAttributes,
    ) -> Result<Arc<Parts>> {
        let mount = self.mount(id)?;
        let writer = writer(&mount)?;
        let begun = writer.begin(path, size, &attributes, self.request_deadline());
        let upload: Arc<dyn Upload> = Arc::from(begun.await?);
        types::crash::point("persist.upload");
        let note = match upload.id() {
            None => None,
            Some(name) => {
                let noted = self.note_upload(id, path, name).await;
                // A full local disk is no reason not to store anything.
                noted.unwrap_or_else(|error| {
                    tracing::warn!("a crash would leave the upload of '{path}' behind: {error}");
                    None
                })
            }
        };
        Ok(Arc::new(Parts {
            worker: Arc::clone(self),
            mount: id,
            path: path.clone(),
            size,
            abilities: writer.abilities(),
            attributes,
            upload,
            note,
            sent: Mutex::default(),
            is_over: AtomicBool::new(false),
        }))
    }

    /// Notes an upload durably; none where nothing can be noted.
    async fn note_upload(
        self: &Arc<Self>,
        mount: MountId,
        path: &ObjectPath,
        name: String,
    ) -> Result<Option<StagedId>> {
        let path = path.clone();
        let worker = Arc::clone(self);
        let work = move || {
            let Some(staging) = worker.staging() else {
                return Ok(None);
            };
            let id = staging.next_id();
            let note = UploadNote { mount, path, name };
            staging.note(id, Some(&notes::of_upload(&note)))?;
            Ok(Some(id))
        };
        let noted = self.runtime.spawn_blocking(work).await;
        noted.map_err(|_| Error::internal("an upload could not be noted"))?
    }

    /// Gives up an upload that a former run began; its note goes when the storage has agreed.
    ///
    /// # Errors
    /// What the storage said.
    pub async fn give_up_upload(&self, id: StagedId, note: &UploadNote) -> Result<()> {
        let mount = self.mount(note.mount)?;
        let deadline = self.request_deadline();
        let given_up = writer(&mount)?.give_up(&note.path, &note.name, deadline);
        given_up.await?;
        self.unnote(id)
    }

    /// Takes memory for bytes that are to be sent, in its turn. Uploads share half of the memory, so
    /// that they never keep readers waiting. Whoever has memory gives it back when its request ends,
    /// and that ends when no byte moves: the turn comes, however long a slow line takes.
    pub(crate) async fn memory_to_send(&self, bytes: u64) -> Result<[Share; 2]> {
        let far = self.clock.deadline(std::time::Duration::MAX);
        let of_uploads = self.sending.take_at_most(bytes, far).await?;
        // A part of a file of terabytes may be more than all of it.
        Ok([of_uploads, self.budget.take_at_most(bytes, far).await?])
    }
}

impl Parts {
    /// Returns whether what was sent can become an object of `len` bytes there.
    pub(crate) fn fits(&self, mount: MountId, path: &ObjectPath, size: u64, len: u64) -> bool {
        let sent = self.sent.lock();
        let last = sent.parts.last_key_value();
        let is_within = last.is_none_or(|(_, (range, _))| range.end() <= len);
        (self.mount, &self.path, self.size) == (mount, path, size) && is_within
    }

    /// Sends the parts that the file has by now, as many at a time as may be under way.
    pub fn advance(self: &Arc<Self>, file: &Arc<StagedFile>) {
        let width = match self.abilities.parallel_parts {
            true => WIDTH,
            false => 1,
        };
        let mut sent = self.sent.lock();
        while !sent.is_stopped && sent.under_way < width {
            let before = sent.parts.len() as u64;
            let range = ByteRange::new(before * self.size, self.size);
            let number = match u32::try_from(before + 1) {
                Ok(number) if number <= self.abilities.parts_max => number,
                _ => return,
            };
            if range.end() > file.len() || !file.lend(range) {
                return;
            }
            sent.under_way += 1;
            let outcome = self.launch(Arc::clone(file), number, range);
            sent.parts.insert(number, (range, outcome));
        }
    }

    fn launch(self: &Arc<Self>, file: Arc<StagedFile>, number: u32, range: ByteRange) -> Outcome {
        let parts = Arc::clone(self);
        let task = self.worker.runtime.spawn(async move {
            let sum = parts.send_lent(&file, number, range).await;
            let mut sent = parts.sent.lock();
            sent.under_way -= 1;
            // The close tells it, after another try.
            sent.is_stopped |= sum.is_none();
            drop(sent);
            parts.advance(&file);
            sum
        });
        task.map(|done| done.ok().flatten()).boxed().shared()
    }

    async fn send_lent(&self, file: &StagedFile, number: u32, range: ByteRange) -> Option<Sum> {
        let sent = async {
            let _memory = self.worker.memory_to_send(range.len).await?;
            let bytes = staged_bytes(file, range)?;
            match file.is_lent(range) {
                true => self.send(number, bytes).await,
                false => Err(Error::new(ErrorKind::Busy, "the part changed")),
            }
        };
        let span = spans::at("store part", &self.path);
        span.record("bytes", range.len.cast_signed());
        match spans::within(span, sent).await {
            Ok(sum) => Some(sum),
            Err(error) => {
                tracing::debug!("send part {number} of '{}': {error}", self.path);
                None
            }
        }
    }

    async fn send(&self, number: u32, bytes: Bytes) -> Result<Sum> {
        let sum = Sum::of(&bytes);
        let deadline = self.worker.request_deadline();
        self.upload.part(number, bytes, deadline).await?;
        Ok(sum)
    }

    /// Leaves what was not sent yet to whoever stores the file.
    pub(crate) fn stop(&self) {
        self.sent.lock().is_stopped = true;
    }

    /// Returns whether all that was sent is in the file as it is now. Where parts come in order, an
    /// upload that has another is of no use.
    pub(crate) async fn is_sound(&self, file: &StagedFile) -> bool {
        let sent: Vec<_> = self.sent.lock().parts.values().cloned().collect();
        for (range, outcome) in sent {
            if outcome.await.is_none() || !file.is_lent(range) {
                return false;
            }
        }
        true
    }

    /// Sends a part unless it was sent and has not changed; `bytes` has those that it is to have.
    pub(crate) async fn part(
        &self,
        file: &StagedFile,
        (number, range): (u32, ByteRange),
        bytes: impl FnOnce() -> Result<Bytes>,
    ) -> Result<Sum> {
        let before = self.sent.lock().parts.get(&number).cloned();
        if let Some((sent, outcome)) = before
            && let Some(sum) = outcome.await
            && sent == range
            && file.is_lent(range)
        {
            return Ok(sum);
        }
        let _memory = self.worker.memory_to_send(range.len).await?;
        self.send(number, bytes()?).await
    }

    /// Takes note that nothing of the upload is left in the storage.
    pub(crate) fn is_done(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.forget();
    }

    /// Returns what the storage was told beside the bytes, and the storage's way to make them an object.
    pub(crate) fn ends(&self) -> (&FileAttributes, &dyn Upload) {
        (&self.attributes, &*self.upload)
    }

    fn forget(&self) {
        if let Some(id) = self.note
            && let Err(error) = self.worker.unnote(id)
        {
            tracing::debug!("an upload that is over is given up at the next start: {error}");
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if *self.is_over.get_mut() {
            return;
        }
        let (worker, upload) = (Arc::clone(&self.worker), Arc::clone(&self.upload));
        let (note, path) = (self.note, self.path.clone());
        self.worker.runtime.spawn(async move {
            match upload.abort(worker.request_deadline()).await {
                Ok(()) => {
                    if let Some(Err(error)) = note.map(|id| worker.unnote(id)) {
                        tracing::debug!("forget an upload: {error}");
                    }
                }
                Err(error) => tracing::warn!("give up the upload of '{path}': {error}"),
            }
        });
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("path", &self.path)
            .field("upload", &self.upload)
            .finish_non_exhaustive()
    }
}
