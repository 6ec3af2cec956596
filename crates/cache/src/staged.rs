// SPDX-License-Identifier: Apache-2.0
//! Staged files: bytes on their way to the storage, on the local disk.
//!
//! A staged file ([`StagedFile`]) takes writes over an older version of an object, or over nothing.
//! What must outlive the process is said in a note: bytes of the caller under the id of the file. It
//! outlives a power cut when [`Staging::note`] returns, and keeps the file as it was when it was last
//! synced; or it outlives a kill, and keeps the file as it is ([`Outlives`]). Without a note a file goes
//! with its last holder, or at the next open.
//!
//! A sync costs more than everything else of a small file. So a note that has to outlive a kill only is
//! written without one, with the id of the boot: the system keeps what was written for as long as that
//! lasts. [`Staging::harden`] makes all of them outlive more, with few syncs. After a power cut what
//! nobody had synced is put aside, and what was noted of the file before that holds again.
//!
//! `file.rs`, `write.rs`, `read.rs` and `copy.rs` are a staged file, `shape.rs` and `ranges.rs` what must be
//! known of one, `home.rs` is the directory and its room, `notes.rs` the notes in force, `disk.rs`
//! and `frame.rs` the file that they lie in, `boot.rs` the boot.

mod boot;
mod copy;
mod disk;
mod file;
mod frame;
mod home;
mod notes;
mod ranges;
mod read;
mod shape;
mod write;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use types::{ByteRange, Clock, Error, Result};

pub use boot::BootId;
pub use file::StagedFile;

use crate::Store;
use disk::Disk;
use frame::Noted;
use home::Home;
use notes::{Live, Notes};
use shape::Shape;

/// Where files are kept that no note could be found of after damage, and those that a power cut may
/// have made anything of.
const LOST: &str = "lost";

/// Files that are synced one by one; of more than these the whole file system is.
const SYNCED_ONE_BY_ONE_MAX: usize = 32;

/// The directory of staged files of one node: `<dir>/staged`.
#[derive(Debug)]
pub struct Staging {
    home: Arc<Home>,
    notes: Notes,
    next_id: AtomicU64,
    /// None where the system does not tell it: then everything outlives a power cut.
    boot: Option<BootId>,
}

/// What a note outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlives {
    /// The end of the process, however it comes.
    Kill,
    /// The end of the machine, too.
    PowerCut,
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
    /// The file of that id, as the note describes it; none if the id is one of [`Staging::next_id`],
    /// or if the file is gone.
    pub file: Option<Arc<StagedFile>>,
    /// Where the file was put instead: the note did not outlive a power cut, and nobody knows what of
    /// the file is on the disk. Such a note is told once.
    pub aside: Option<PathBuf>,
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
    /// them. Files without a note are removed; those with one come back. Fails with Busy while
    /// another process has them, with Corrupt, changing nothing, when the notes are damaged.
    ///
    /// `boot` is [`BootId::current`].
    pub fn open(
        dir: &Path,
        store: Option<Arc<Store>>,
        boot: Option<BootId>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Staging>, Vec<Recovered>)> {
        let path = home::path_below(dir);
        let home = Arc::new(Home::hold(path.clone(), store)?);
        let opened = open_notes(&home, boot, clock);
        opened.map_err(|e| e.context(format!("open the staged files in {}", path.display())))
    }

    /// Makes a file that shows the first `base` bytes of an older version until they are written
    /// over.
    pub fn create(self: &Arc<Self>, base: u64) -> Result<Arc<StagedFile>> {
        StagedFile::create(&self.home, self.next_id(), base)
    }

    /// Makes a file with the bytes that another has here, sharing blocks where the file system can do
    /// that; where an older version shows through, it has a hole. Nobody may change the other file
    /// meanwhile.
    pub fn copy(self: &Arc<Self>, file: &StagedFile) -> Result<Arc<StagedFile>> {
        let copy = self.create(0)?;
        copy.take_over(file)?;
        Ok(copy)
    }

    /// Returns an id for a note without a file.
    pub fn next_id(&self) -> StagedId {
        StagedId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes something under an id, or takes the note away. It outlives a power cut when this returns.
    /// With the note goes the shape of the file of that id, as it was when it was last synced; a file
    /// that never was is synced first. Somebody must hold the file meanwhile.
    pub fn note(&self, id: StagedId, note: Option<&[u8]>) -> Result<()> {
        self.note_over(id, note, Outlives::PowerCut, None)
    }

    /// As [`Staging::note`]; the note of `displaced` is taken away in the same moment, so that after
    /// a crash there is the one or the other. A note that outlives a kill only goes with the shape of
    /// the file as it is; what was noted of the file before comes back after a power cut. A note that
    /// is taken away stays away as long as it would have stayed.
    pub fn note_over(
        &self,
        id: StagedId,
        note: Option<&[u8]>,
        outlives: Outlives,
        displaced: Option<StagedId>,
    ) -> Result<()> {
        let to = match note {
            None => None,
            Some(note) => {
                let file = self.home.file(id);
                let outlives = self.at_least(outlives);
                let shape = match outlives {
                    Outlives::PowerCut => file.as_ref().map(|file| file.extents_synced()),
                    Outlives::Kill => file.as_ref().map(|file| Ok(file.extents_now())),
                };
                let noted = Noted {
                    shape: shape.transpose()?,
                    note: note.to_vec(),
                };
                Some((noted, outlives, file))
            }
        };
        let displaced = displaced.map(|id| id.0);
        self.notes.write(&self.home.dir, id.0, to, displaced)
    }

    /// Returns what a note is made to outlive, of which this is asked for.
    fn at_least(&self, outlives: Outlives) -> Outlives {
        match self.boot {
            Some(_) => outlives,
            None => Outlives::PowerCut,
        }
    }

    /// Returns whether something is noted of a file that outlives a power cut.
    pub fn is_sealed(&self, id: StagedId) -> bool {
        self.notes.is_sealed(id.0)
    }

    /// Makes what is noted outlive a power cut; returns how many notes.
    ///
    /// # Errors
    /// What the disk said, of files that it did not take; the others are noted.
    pub fn harden(&self) -> Result<usize> {
        let mut light = self.notes.light();
        let mut failed = None;
        if light.len() > SYNCED_ONE_BY_ONE_MAX {
            let files = || light.iter().filter_map(|light| light.file.as_ref());
            let before: Vec<_> = files().map(|file| file.unsynced()).collect();
            // Where that fails, each file tells whether it is at fault.
            if disk::sync_file_system(&self.home.dir).is_ok() {
                for (file, before) in files().zip(before) {
                    file.was_synced(before);
                }
            }
        }
        let sync = |file: &Arc<StagedFile>| file.sync();
        light.retain(|light| match light.file.as_ref().map_or(Ok(()), sync) {
            Ok(()) => true,
            Err(error) => {
                failed.get_or_insert(error);
                false
            }
        });
        let count = light.len();
        if count > 0 {
            self.notes.harden(&self.home.dir, light)?;
        }
        failed.map_or(Ok(count), Err)
    }

    /// Returns what is staged.
    pub fn usage(&self) -> Usage {
        self.home.usage()
    }

    /// Returns how much can be written.
    pub fn room(&self) -> Result<Room> {
        self.home.room()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = self.harden() {
            tracing::warn!("what is staged outlives no power cut: {error}");
        }
        self.notes.keep_files();
    }
}

/// Reads the notes, takes up their files, removes the others, and starts a new file of notes.
fn open_notes(
    home: &Arc<Home>,
    boot: Option<BootId>,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<Staging>, Vec<Recovered>)> {
    let found = disk::load(&home.dir, &home.path, boot)?;
    let files: HashSet<StagedId> = home.list()?.into_iter().collect();
    let mut live = BTreeMap::new();
    let mut recovered = Vec::new();
    let complete = found.is_complete();
    let notes = found.reading.notes;
    let ids = files.iter().map(|id| id.0).chain(notes.keys().copied());
    let highest = ids.max().unwrap_or(0);
    for (id, mut standing) in notes {
        let lost = match found.is_of_another_boot {
            true => standing.noted.take(),
            false => None,
        };
        let id = StagedId(id);
        let (noted, outlives) = match (&standing.noted, &standing.sealed) {
            (Some(noted), _) => (Some(noted), Outlives::Kill),
            (None, sealed) => (sealed.as_ref(), Outlives::PowerCut),
        };
        let Some(noted) = noted else {
            // Stored or removed already, where the file is gone.
            if let Some(Noted { note, .. }) = lost.filter(|_| files.contains(&id)) {
                recovered.push(put_aside(home, id, note)?);
            }
            continue;
        };
        let file = recover_file(home, &files, id, (noted, outlives))?;
        recovered.push(Recovered {
            id,
            note: noted.note.clone(),
            file: file.clone(),
            aside: None,
        });
        let turn = 0;
        live.insert(
            id.0,
            Live {
                standing,
                file,
                turn,
            },
        );
    }
    for id in home.list()?.iter().filter(|id| home.file(**id).is_none()) {
        match complete {
            true => home
                .unlink(*id)
                .map_err(|e| Error::io(format!("remove {}", home.file_path(*id).display()), e))?,
            false => drop(home.set_aside(*id)?),
        }
    }
    let payload = notes::encode_live(&live)?;
    let disk = Disk::start(&home.dir, found.reading.header, highest, boot, &payload)?;
    let first_id = disk.first_id();
    if found.salvaged {
        disk::put_away_damaged(&home.dir, first_id)?;
    }
    let staging = Staging {
        home: Arc::clone(home),
        notes: Notes::new(disk, live, clock),
        next_id: AtomicU64::new(first_id),
        boot,
    };
    Ok((Arc::new(staging), recovered))
}

/// Puts the file of a note away that did not outlive a power cut.
fn put_aside(home: &Home, id: StagedId, note: Vec<u8>) -> Result<Recovered> {
    Ok(Recovered {
        id,
        note,
        file: None,
        aside: Some(home.set_aside(id)?),
    })
}

/// Takes up the file of a note; none if the note has none, or if it is gone.
fn recover_file(
    home: &Arc<Home>,
    files: &HashSet<StagedId>,
    id: StagedId,
    (noted, outlives): (&Noted, Outlives),
) -> Result<Option<Arc<StagedFile>>> {
    let Some(bytes) = noted.shape.as_deref().filter(|_| files.contains(&id)) else {
        return Ok(None);
    };
    let shape = Shape::decode(bytes).ok_or_else(|| {
        let path = home.file_path(id);
        Error::new(
            types::ErrorKind::Unsupported,
            format!(
                "what is noted of {} is of another version of this program",
                path.display()
            ),
        )
    })?;
    StagedFile::recover(home, id, shape, outlives).map(Some)
}
