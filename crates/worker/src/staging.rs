// SPDX-License-Identifier: Apache-2.0
//! What waits on the local disk to be stored: staged files and the notes that outlive the process.

use std::path::Path;
use std::sync::Arc;

use cache::staged::{Outlives, Recovered, Room, StagedFile, StagedId, Staging};
use futures::FutureExt;
use futures::future::BoxFuture;
use types::{Error, ErrorKind, ObjectPath, ObjectRef, Result};

use crate::moves::Move;
use crate::notes::{self, FileNote, MakeNote, Noted, UploadNote};
use crate::worker::Worker;

/// What a former run promised and did not finish.
#[derive(Debug, Default)]
pub struct LeftOver {
    /// Files that are to be stored.
    pub files: Vec<Staged>,
    /// Directories that are to be made.
    pub makes: Vec<(StagedId, MakeNote)>,
    /// Renames that are to be carried on.
    pub moves: Vec<(StagedId, Move)>,
    /// Uploads that are to be given up.
    pub uploads: Vec<(StagedId, UploadNote)>,
    /// What cannot be gone on with: notes that cannot be read, which are kept, and files that a power
    /// cut took.
    pub unreadable: Vec<Error>,
}

/// How long a promise holds that is given on the local disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// Over a kill at once, and over a power cut a moment later.
    OverKills,
    /// Over a power cut.
    OverPowerCuts,
    /// As long as the one before of the same file, and over kills at least.
    AsBefore,
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
                (Ok(Noted::Make(note)), _) => left.makes.push((one.id, note)),
                (Ok(Noted::Move(work)), _) => left.moves.push((one.id, work)),
                (Ok(Noted::Upload(note)), _) => left.uploads.push((one.id, note)),
                (Ok(Noted::File(note)), Some(file)) => {
                    left.files.push(Staged { note, file });
                }
                (Ok(Noted::File(note)), None) => {
                    left.unreadable.push(gone(&note.path, one.aside.as_deref()));
                }
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

    /// Notes on the local disk what is to become of a staged file, so that a later start goes on with
    /// it. The note of `displaced` goes in the same moment. Returns whether it holds over power cuts.
    pub fn seal(
        self: &Arc<Self>,
        file: Arc<StagedFile>,
        note: FileNote,
        lasts: Lasts,
        displaced: Option<StagedId>,
    ) -> BoxFuture<'static, Result<bool>> {
        let worker = Arc::clone(self);
        let work = move || {
            let staging = worker.staging_or_refuse()?;
            // What goes may have been promised as much.
            let is_durable = displaced.is_some()
                || match lasts {
                    Lasts::OverKills => false,
                    Lasts::OverPowerCuts => true,
                    Lasts::AsBefore => staging.is_sealed(file.id()),
                };
            let outlives = if is_durable {
                file.sync()?;
                types::crash::point("seal.synced");
                Outlives::PowerCut
            } else {
                Outlives::Kill
            };
            let note = notes::of_file(&note);
            staging.note_over(file.id(), Some(&note), outlives, displaced)?;
            types::crash::point("seal.noted");
            Ok(is_durable)
        };
        let done = self.runtime.spawn_blocking(work);
        async move {
            done.await
                .map_err(|_| Error::internal("a staged file could not be synced"))?
        }
        .boxed()
    }

    /// Makes what was noted outlive power cuts.
    pub fn harden(self: &Arc<Self>) -> BoxFuture<'static, Result<()>> {
        let Some(staging) = self.staging().map(Arc::clone) else {
            return std::future::ready(Ok(())).boxed();
        };
        let done = self.runtime.spawn_blocking(move || staging.harden());
        async move {
            done.await
                .map_err(|_| Error::internal("staged files could not be synced"))?
                .map(drop)
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

/// Tells of a note whose file cannot be gone on with.
fn gone(path: &ObjectPath, aside: Option<&Path>) -> Error {
    let message = match aside {
        None => format!("the staged bytes of '{path}' are gone"),
        Some(aside) => format!(
            "'{path}' was closed right before this machine went down, and neither synced nor, as far as is \
             known, stored: what the disk has of it is in {}",
            aside.display()
        ),
    };
    Error::new(ErrorKind::Corrupt, message)
}
