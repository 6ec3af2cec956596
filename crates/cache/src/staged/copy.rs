// SPDX-License-Identifier: Apache-2.0
//! A staged file that is copied, to be stored while the first is written on.
//!
//! The kernel copies, without the bytes coming here, and shares blocks where the file system can do
//! that; elsewhere they are read and written. Holes stay holes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use types::{ByteRange, Error, Result, in_memory};

use super::Source;
use super::file::StagedFile;

/// What is copied at once where the kernel cannot.
const PIECE: usize = 1 << 20;

impl StagedFile {
    /// Takes over the bytes that another file has here.
    pub(super) fn take_over(&self, other: &StagedFile) -> Result<()> {
        let len = other.len();
        self.truncate(len)?;
        let (from, to) = (other.handle()?, self.handle()?);
        for segment in other.segments(ByteRange::new(0, len)) {
            if matches!(segment.source, Source::Here) {
                self.reserve(segment.range)?;
                copy_range(&from, &to, segment.range)
                    .map_err(|e| Error::io("copy a staged file", e))?;
            }
        }
        let lent = other.lent.lock().clone();
        *self.lent.lock() = lent;
        Ok(())
    }
}

fn copy_range(from: &File, to: &File, range: ByteRange) -> std::io::Result<()> {
    let (mut read_at, mut write_at) = (range.offset, range.offset);
    while read_at < range.end() {
        let left = in_memory(range.end() - read_at);
        let copied =
            rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), left);
        match copied {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(_) => return copy_by_hand(from, to, ByteRange::new(read_at, left as u64)),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, range: ByteRange) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE.min(in_memory(range.len))];
    let mut at = range.offset;
    while at < range.end() {
        let len = piece.len().min(in_memory(range.end() - at));
        from.read_exact_at(&mut piece[..len], at)?;
        to.write_all_at(&piece[..len], at)?;
        at += len as u64;
    }
    Ok(())
}
