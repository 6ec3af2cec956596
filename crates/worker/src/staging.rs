// SPDX-License-Identifier: Apache-2.0
//! What waits on the local disk to be stored: staged files and the notes that outlive the process.

use std::sync::Arc;

use cache::staged::{Recovered, Room, StagedFile, StagedId, Staging};
use futures::FutureExt;
use futures::future::BoxFuture;
use types::{Error, ErrorKind, ObjectRef, Result};

use crate::moves::Move;
use crate::notes::{self, FileNote, Noted, UploadNote};
use crate::worker::Worker;

/// What a former run promised and did not finish.
#[derive(Debug, Default)]
pub struct LeftOver {
    /// Files that are to be stored.
    pub files: Vec<Staged>,
    /// Renames that are to be carried on.
    pub moves: Vec<(StagedId, Move)>,
    /// Uploads that are to be given up.
    pub uploads: Vec<(StagedId, UploadNote)>,
    /// Notes that cannot be read; they are kept.
    pub unreadable: Vec<Error>,
}

/// A staged file, and what it is to become.
#[derive(Debug)]
pub struct Staged {
    /// What was noted of it.
    pub note: FileNote,
    /// Its bytes.
    pub file: Arc<StagedFile>,
}

impl Worker {
    /// Takes over the directory of staged files, once, and what a former run left there.
    pub fn stage_in(&self, staging: Arc<Staging>, recovered: Vec<Recovered>) -> LeftOver {
        let mut left = LeftOver::default();
        for one in recovered {
            match (notes::read(&one.note), one.file) {
                (Ok(Noted::Move(work)), _) => left.moves.push((one.id, work)),
                (Ok(Noted::Upload(note)), _) => left.uploads.push((one.id, note)),
                (Ok(Noted::File(note)), Some(file)) => {
                    left.files.push(Staged { note, file });
                }
                (Ok(Noted::File(note)), None) => left.unreadable.push(Error::new(
                    ErrorKind::Corrupt,
                    format!("the staged bytes of '{}' are gone", note.path),
                )),
                (Err(error), _) => left.unreadable.push(error),
            }
        }
        self.staging.set(staging).ok();
        left
    }

    pub(crate) fn staging(&self) -> Option<&Arc<Staging>> {
        self.staging.get()
    }

    fn staging_or_refuse(&self) -> Result<&Arc<Staging>> {
        self.staging().ok_or_else(|| {
            let message = "there is no directory for staged files: mount with a cache directory";
            Error::new(ErrorKind::ReadOnly, message)
        })
    }

    /// Makes a staged file that shows the first `base` bytes of an older version.
    ///
    /// # Errors
    /// `OutOfSpace`; `ReadOnly` when there is no directory for staged files.
    pub fn stage(&self, base: u64) -> Result<Arc<StagedFile>> {
        self.staging_or_refuse()?.create(base)
    }

    /// Makes a copy of a staged file, with a hole where an older version shows through. Nobody may
    /// change the file meanwhile.
    pub fn copy_staged(
        self: &Arc<Self>,
        file: Arc<StagedFile>,
    ) -> BoxFuture<'static, Result<Arc<StagedFile>>> {
        let worker = Arc::clone(self);
        let work = move || worker.staging_or_refuse()?.copy(&file);
        let done = self.runtime.spawn_blocking(work);
        async move {
            done.await
                .map_err(|_| Error::internal("a staged file could not be copied"))?
        }
        .boxed()
    }

    /// Makes a staged file and its note durable on the local disk. The note of `displaced` goes in
    /// the same moment.
    pub fn seal(
        self: &Arc<Self>,
        file: Arc<StagedFile>,
        note: FileNote,
        displaced: Option<StagedId>,
    ) -> BoxFuture<'static, Result<()>> {
        let worker = Arc::clone(self);
        let work = move || {
            let staging = worker.staging_or_refuse()?;
            file.sync()?;
            types::crash::point("seal.synced");
            staging.note_over(file.id(), Some(&notes::of_file(&note)), displaced)?;
            types::crash::point("seal.noted");
            Ok(())
        };
        let done = self.runtime.spawn_blocking(work);
        async move {
            done.await
                .map_err(|_| Error::internal("a staged file could not be synced"))?
        }
        .boxed()
    }

    /// Forgets the note of a file that is stored or removed.
    ///
    /// # Errors
    /// What the disk said.
    pub fn unnote(&self, id: StagedId) -> Result<()> {
        self.staging_or_refuse()?.note(id, None)
    }

    /// Fetches all of an object version into a staged file.
    ///
    /// # Errors
    /// What the storage said, `OutOfSpace`.
    pub async fn fill_whole(
        self: &Arc<Self>,
        file: &Arc<StagedFile>,
        object: &ObjectRef,
    ) -> Result<()> {
        self.fill_from_base(file, Some(object)).await
    }

    /// Returns the room where files are staged.
    pub fn room(&self) -> Option<Room> {
        self.staging()?.room().ok()
    }
}
