// SPDX-License-Identifier: Apache-2.0
//! One staged file.

use types::{ByteRange, Error, ErrorKind, Result};

use super::{Segment, StagedId};

/// A file that is being written. Removed from the disk when dropped, unless it has a note. All
/// methods may be called from many threads at once.
#[derive(Debug)]
pub struct StagedFile {
    id: StagedId,
}

impl StagedFile {
    /// Returns the id, for its note.
    pub fn id(&self) -> StagedId {
        self.id
    }

    /// Returns the length.
    pub fn len(&self) -> u64 {
        0
    }

    /// Returns whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns up to where, at most, the older version still shows through.
    pub fn base(&self) -> u64 {
        0
    }

    /// Writes all bytes at `offset`. After an error none of them counts.
    pub fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(later())
    }

    /// Writes all bytes at the end and returns where that was.
    pub fn append(&self, _bytes: &[u8]) -> Result<u64> {
        Err(later())
    }

    /// Cuts the file, or makes it longer with a hole.
    pub fn truncate(&self, _len: u64) -> Result<()> {
        Err(later())
    }

    /// As `fallocate`: mode 0, KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE; others are Unsupported.
    pub fn allocate(&self, _mode: u32, _range: ByteRange) -> Result<()> {
        Err(later())
    }

    /// Returns where the bytes of a range come from, in order and without gaps; cut at the length.
    pub fn segments(&self, _range: ByteRange) -> Vec<Segment> {
        Vec::new()
    }

    /// Appends bytes that are here, or zeros of a hole, to `buf`; cut at the length.
    pub fn read_at(&self, _range: ByteRange, _buf: &mut Vec<u8>) -> Result<()> {
        Err(later())
    }

    /// Puts bytes of the older version where it still shows through; a write that was first stays.
    pub fn fill_base(&self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(later())
    }

    /// Returns whether nothing shows through any more.
    pub fn is_whole(&self) -> bool {
        false
    }

    /// Returns the first byte from `offset` on that is not in a hole; the base counts as data.
    pub fn seek_data(&self, _offset: u64) -> Option<u64> {
        None
    }

    /// Returns the first byte from `offset` on that is in a hole; the end counts as one.
    pub fn seek_hole(&self, _offset: u64) -> Option<u64> {
        None
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> Result<()> {
        Err(later())
    }

    /// Returns what a note says of the shape of the file: as it was when it was last synced.
    /// [`super::Staging::note`] stores it along.
    pub fn extents(&self) -> Vec<u8> {
        Vec::new()
    }
}

fn later() -> Error {
    Error::new(ErrorKind::Unsupported, "not yet")
}
