// SPDX-License-Identifier: Apache-2.0
//! Staged files: bytes on their way to the storage, on the local disk.
//!
//! A staged file ([`StagedFile`]) takes writes over an older version of an object, or over nothing.
//! What must outlive the process is said in a note: bytes of the caller under the id of the file,
//! durable when [`Staging::note`] returns. Without a note a file goes with its last holder.

mod file;

use std::path::Path;
use std::sync::Arc;

use types::{ByteRange, Clock, Error, ErrorKind, Result};

pub use file::StagedFile;

use crate::Store;

/// The directory of staged files of one node: `<dir>/staged`.
#[derive(Debug)]
pub struct Staging {
    dir: std::path::PathBuf,
}

/// The name of a staged file or of a note; never used twice, also over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StagedId(pub u64);

/// A note that outlived the process which made it.
#[derive(Debug)]
pub struct Recovered {
    /// What it was noted under.
    pub id: StagedId,
    /// What was noted last.
    pub note: Vec<u8>,
    /// The file of that id, as it was when it was last synced before the note; none if the id is
    /// one of [`Staging::next_id`], or if the file is gone.
    pub file: Option<Arc<StagedFile>>,
}

/// What staged files take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// How many there are.
    pub files: u64,
    /// What they take on the disk.
    pub bytes: u64,
}

/// How much can be written, for `statfs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All of it, in bytes.
    pub total: u64,
    /// What is left: cached objects give way.
    pub free: u64,
}

/// Where bytes of a staged file come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// They were written.
    Here,
    /// The older version shows through.
    Base,
    /// Nobody wrote them: zeros.
    Hole,
}

/// A part of a staged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Which bytes.
    pub range: ByteRange,
    /// Where they come from.
    pub source: Source,
}

impl Staging {
    /// Opens the staged files below `dir`, making the directory. The bytes share the capacity of
    /// `store`: they displace cached objects, never the reverse. Without one only the disk bounds
    /// them. Files without a note are removed; those with one come back.
    pub fn open(
        dir: &Path,
        _store: Option<Arc<Store>>,
        _clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Staging>, Vec<Recovered>)> {
        let dir = dir.join("staged");
        Ok((Arc::new(Staging { dir }), Vec::new()))
    }

    /// Makes a file that shows the first `base` bytes of an older version until they are written
    /// over.
    pub fn create(self: &Arc<Self>, _base: u64) -> Result<Arc<StagedFile>> {
        Err(self.later())
    }

    /// Returns an id for a note without a file.
    pub fn next_id(&self) -> StagedId {
        StagedId(0)
    }

    /// Notes something under an id, or takes the note away. It is durable when this returns.
    pub fn note(&self, _id: StagedId, _note: Option<&[u8]>) -> Result<()> {
        Err(self.later())
    }

    /// Returns what is staged.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }

    /// Returns how much can be written.
    pub fn room(&self) -> Result<Room> {
        Err(self.later())
    }

    fn later(&self) -> Error {
        let what = format!("{}: not yet", self.dir.display());
        Error::new(ErrorKind::Unsupported, what)
    }
}
