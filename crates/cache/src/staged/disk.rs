// SPDX-License-Identifier: Apache-2.0
//! The file `notes` and how it is opened, appended to and rewritten.
//!
//! A new one is written beside the old, synced and renamed over it. After a failed sync nobody knows
//! what of the file is on the disk, and a later sync would not tell: it is then rewritten before
//! anything else. What is damaged is never overwritten: the open fails and says how to go on.
//!
//! Each process begins a new file, so that a file is of one boot. What was not synced of it is there
//! for as long as that lasts, and in any part after it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use types::{Error, ErrorKind, Result, crash};

use super::frame::{self, HEADER_LEN, Header, Reading};
use super::{BootId, Outlives};
use crate::files;

pub(super) const NOTES: &str = "notes";
pub(super) const NOTES_NEW: &str = "notes.new";
/// Under this name a user puts a damaged file, to go on with what can be read of it.
pub(super) const NOTES_DAMAGED: &str = "notes.damaged";
/// Ids that one process may hand out: the lower 40 bits.
const IDS_OF_A_PROCESS: u64 = 1 << 40;

/// The file that notes are appended to.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    header: Header,
    len: u64,
    /// How much of it is on the disk.
    durable: u64,
    /// What is on the disk is not known, or not what it should be.
    pub(super) broken: bool,
}

/// What an open found.
pub(super) struct Found {
    pub(super) reading: Reading,
    /// It was read from a damaged file.
    pub(super) salvaged: bool,
    /// It is of an earlier boot: nothing that was not synced is to be relied on.
    pub(super) is_of_another_boot: bool,
}

impl Found {
    /// Returns whether a file without a note has none for sure.
    pub(super) fn is_complete(&self) -> bool {
        self.reading.header.is_some() && !self.salvaged && self.reading.damage.is_none()
    }
}

/// Reads the notes that are there. Fails with Corrupt, and changes nothing, when they are damaged
/// before their end.
pub(super) fn load(dir: &OwnedFd, path: &Path, boot: Option<BootId>) -> Result<Found> {
    let other = |reading: &Reading| reading.header.is_some_and(|header| header.boot != boot);
    if let Some(bytes) = read(dir, NOTES, path)? {
        let reading = frame::read(&bytes);
        let is_of_another_boot = other(&reading);
        if let Some(at) = reading.damage {
            if !is_of_another_boot || (at as u64) < reading.durable {
                return Err(damaged(path, &reading, (at, bytes.len())));
            }
            tracing::warn!(
                "{}: some of what was noted and not synced is gone with a power cut",
                path.join(NOTES).display()
            );
        }
        if reading.end < bytes.len() {
            tracing::info!(
                "{}: its last {} bytes are of a write that a crash cut short",
                path.join(NOTES).display(),
                bytes.len() - reading.end
            );
        }
        return Ok(Found {
            reading,
            salvaged: false,
            is_of_another_boot,
        });
    }
    let damaged = read(dir, NOTES_DAMAGED, path)?;
    let reading = damaged.as_deref().map(frame::read).unwrap_or_default();
    Ok(Found {
        is_of_another_boot: other(&reading),
        reading,
        salvaged: damaged.is_some(),
    })
}

fn damaged(path: &Path, reading: &Reading, (at, len): (usize, usize)) -> Error {
    let [before, behind] = reading.frames;
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "{} is damaged at byte {at} of {len}; {before} records before that and {behind} behind it can be \
             read. Nothing was changed. Make a copy of {}, then rename the file to {NOTES_DAMAGED}: the next \
             start goes on with what can be read, and keeps files that it knows nothing of in {}",
            path.join(NOTES).display(),
            path.display(),
            path.join(super::LOST).display(),
        ),
    )
}

/// Returns the bytes of a file; none when there is no such file.
fn read(dir: &OwnedFd, name: &str, path: &Path) -> Result<Option<Vec<u8>>> {
    let context = || format!("read {}", path.join(name).display());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(Error::io(context(), error.into())),
    };
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut &file, &mut bytes).map_err(|e| Error::io(context(), e))?;
    Ok(Some(bytes))
}

impl Disk {
    /// Starts the file of this process, with `payload` in it. `highest` is the highest id seen.
    pub(super) fn start(
        dir: &OwnedFd,
        before: Option<Header>,
        highest: u64,
        boot: Option<BootId>,
        payload: &[u8],
    ) -> Result<Disk> {
        let first = before.map_or(0, |header| header.first_id).max(highest);
        let first_id = (first / IDS_OF_A_PROCESS + 1).checked_mul(IDS_OF_A_PROCESS);
        let header = Header {
            generation: before.map_or(0, |header| header.generation) + 1,
            first_id: first_id.ok_or_else(|| Error::internal("out of ids for staged files"))?,
            boot,
        };
        let (file, len) = write_new(dir, header, payload)?;
        sync_directory(dir)?;
        crash::point("staged.notes_renamed");
        Ok(Disk {
            file,
            header,
            len,
            durable: len,
            broken: false,
        })
    }

    /// Returns the first id of this process.
    pub(super) fn first_id(&self) -> u64 {
        self.header.first_id
    }

    /// Returns the length of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends a payload; with all before it, it outlives that then. After an error the file is as
    /// before, or broken.
    pub(super) fn append(&mut self, payload: &[u8], outlives: Outlives) -> Result<()> {
        let frame = frame::encode(self.header.generation, self.len, self.durable, payload)
            .ok_or_else(too_long)?;
        if let Err(error) = self.file.write_all_at(&frame, self.len) {
            // Part of it may be there, and a frame behind it would make it look like damage.
            self.broken = self.file.set_len(self.len).is_err();
            return Err(fault("write notes", error));
        }
        crash::point("staged.note_written");
        if outlives == Outlives::PowerCut {
            if let Err(error) = self.file.sync_data() {
                self.broken = true;
                return Err(fault("sync notes", error));
            }
            crash::point("staged.note_synced");
            self.durable = self.len + frame.len() as u64;
        }
        self.len += frame.len() as u64;
        Ok(())
    }

    /// Puts a file with nothing but `payload` in the place of this one.
    pub(super) fn rewrite(&mut self, dir: &OwnedFd, payload: &[u8]) -> Result<()> {
        let header = Header {
            generation: self.header.generation + 1,
            ..self.header
        };
        let (file, len) = write_new(dir, header, payload)?;
        *self = Disk {
            file,
            header,
            len,
            durable: len,
            broken: true,
        };
        sync_directory(dir)?;
        crash::point("staged.notes_renamed");
        self.broken = false;
        Ok(())
    }
}

/// Writes a file of notes, durably but for its name.
fn write_new(dir: &OwnedFd, header: Header, payload: &[u8]) -> Result<(File, u64)> {
    let mut bytes = header.encode().to_vec();
    let frame =
        frame::encode(header.generation, HEADER_LEN as u64, 0, payload).ok_or_else(too_long)?;
    bytes.extend(frame);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let written = rustix::fs::openat(dir, NOTES_NEW, flags, Mode::RUSR | Mode::WUSR)
        .map_err(Into::into)
        .and_then(|file| {
            let file = File::from(file);
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            crash::point("staged.notes_rewritten");
            rustix::fs::renameat(dir, NOTES_NEW, dir, NOTES)?;
            Ok(file)
        });
    let file = written.map_err(|e| fault("rewrite notes", e))?;
    Ok((file, bytes.len() as u64))
}

/// Puts the damaged file that was read out of the way, for a person to look at.
pub(super) fn put_away_damaged(dir: &OwnedFd, run: u64) -> Result<()> {
    let to = format!("{NOTES_DAMAGED}-{}", run / IDS_OF_A_PROCESS);
    rustix::fs::renameat(dir, NOTES_DAMAGED, dir, to)
        .map_err(|e| fault("put the damaged notes away", e.into()))?;
    sync_directory(dir)
}

/// Makes the names in the directory durable.
pub(super) fn sync_directory(dir: &OwnedFd) -> Result<()> {
    rustix::fs::fsync(dir).map_err(|e| fault("sync the directory of staged files", e.into()))
}

/// Writes everything that waits on the file system of a directory to the disk.
pub(super) fn sync_file_system(dir: &OwnedFd) -> Result<()> {
    rustix::fs::syncfs(dir).map_err(|e| fault("sync the file system of staged files", e.into()))
}

fn too_long() -> Error {
    Error::new(
        ErrorKind::Invalid,
        "notes of 4 GiB or more cannot be written",
    )
}

/// Makes an error of one of the local disk. What is missing or may not be used there says nothing of
/// the names and rights of whoever writes.
pub(super) fn fault(what: &str, error: std::io::Error) -> Error {
    let (kind, what) = match files::is_full(&error) {
        true => (ErrorKind::OutOfSpace, format!("{what}: the disk is full")),
        false => (ErrorKind::Unavailable, what.to_owned()),
    };
    Error::new(kind, what).with_source(error)
}
