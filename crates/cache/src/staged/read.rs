// SPDX-License-Identifier: Apache-2.0
//! What looks at a staged file: where its bytes come from, and those that are here.
//!
//! What is base only ever becomes something else, never the reverse: whoever saw that a byte is in
//! the file may read it there. Where holes are is asked of the file system.

use std::fs::File;

use rustix::fs::SeekFrom;
use types::{ByteRange, Error, ErrorKind, Result, in_memory};

use super::disk;
use super::file::StagedFile;
use super::{Segment, Source};
use crate::files;

impl StagedFile {
    /// Returns where the bytes of a range come from, in order and without gaps; cut at the length.
    pub fn segments(&self, range: ByteRange) -> Vec<Segment> {
        let (range, base) = {
            let shape = self.shape.lock();
            let range = range.clamp(shape.len);
            (range, shape.base.within(range).collect::<Vec<_>>())
        };
        let mut segments = Vec::with_capacity(2 * base.len() + 1);
        let mut at = range.offset;
        for part in base {
            self.put_segments_of_file(at..part.offset, &mut segments);
            at = part.end();
            put(&mut segments, part, Source::Base);
        }
        self.put_segments_of_file(at..range.end(), &mut segments);
        segments
    }

    fn put_segments_of_file(&self, bytes: std::ops::Range<u64>, into: &mut Vec<Segment>) {
        let mut at = bytes.start;
        while at < bytes.end {
            let data = self.next_data(at).min(bytes.end);
            put(into, ByteRange::new(at, data - at), Source::Hole);
            let hole = self.next_hole(data).min(bytes.end);
            put(into, ByteRange::new(data, hole - data), Source::Here);
            at = hole;
        }
    }

    /// Appends bytes that are here, or zeros of a hole, to `buf`; cut at the length. Bytes that are
    /// not here are refused.
    pub fn read_at(&self, range: ByteRange, buf: &mut Vec<u8>) -> Result<()> {
        self.check_fault()?;
        let file = self.handle()?;
        loop {
            let (range, here) = {
                let shape = self.shape.lock();
                let range = range.clamp(shape.len);
                (range, shape.base.has_none(range))
            };
            if !here {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("{} bytes at {} are not all here", range.len, range.offset),
                ));
            }
            let read = files::read_at(&file, range.offset, in_memory(range.len), buf);
            let context = || format!("read {}", self.home.file_path(self.id()).display());
            match read {
                Ok(true) => return Ok(()),
                // Cut meanwhile: the shape says so already.
                Ok(false) if range.end() > self.len() => {}
                Ok(false) => {
                    let what = format!("{}: it is shorter than it should be", context());
                    return Err(Error::new(ErrorKind::Corrupt, what));
                }
                Err(error) => return Err(disk::fault(&context(), error)),
            }
        }
    }

    /// As [`StagedFile::read_at`], of bytes that are to be stored or kept: fails when the disk did not
    /// take what was written, so that something else may have been read.
    pub fn read_sound(&self, range: ByteRange, buf: &mut Vec<u8>) -> Result<()> {
        self.read_at(range, buf)?;
        self.check_sound(range)
    }

    /// Fails when what was read of a range before may be something else than what was written.
    pub(crate) fn check_sound(&self, range: ByteRange) -> Result<()> {
        if range.len > 0
            && let Err(error) = files::written_back(&*self.handle()?, range)
        {
            return Err(self.note_fault(&error));
        }
        self.check_fault()
    }

    /// Returns the first byte from `offset` on that is not in a hole; the base counts as data.
    pub fn seek_data(&self, offset: u64) -> Option<u64> {
        let (len, base) = {
            let shape = self.shape.lock();
            (shape.len, shape.base.next(offset))
        };
        let base = base.map_or(len, |part| part.offset);
        let found = match base == offset {
            true => offset,
            false => self.next_data(offset).min(base),
        };
        (found < len).then_some(found)
    }

    /// Returns the first byte from `offset` on that is in a hole; the end counts as one.
    pub fn seek_hole(&self, offset: u64) -> Option<u64> {
        let mut at = offset;
        loop {
            let (len, base) = {
                let shape = self.shape.lock();
                (shape.len, shape.base.next(at))
            };
            if at >= len {
                return (offset < len).then_some(len);
            }
            match base {
                Some(part) if part.offset == at => at = part.end(),
                base => {
                    let base = base.map_or(len, |part| part.offset);
                    let hole = self.next_hole(at);
                    if hole < base {
                        return Some(hole);
                    }
                    at = base;
                }
            }
        }
    }

    /// Returns where the file has data from `at` on; far behind its end if nowhere.
    fn next_data(&self, at: u64) -> u64 {
        match self.is_sparse() {
            true => self.seek(SeekFrom::Data(at), at),
            false => at,
        }
    }

    /// Returns where the file has a hole from `at` on.
    fn next_hole(&self, at: u64) -> u64 {
        match self.is_sparse() {
            true => self.seek(SeekFrom::Hole(at), u64::MAX),
            false => u64::MAX,
        }
    }

    fn is_sparse(&self) -> bool {
        self.sparse.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Asks the file system; what it cannot tell is data.
    fn seek(&self, what: SeekFrom, unknown: u64) -> u64 {
        let Ok(file) = self.handle() else {
            return unknown;
        };
        match rustix::fs::seek::<&File>(&file, what) {
            Ok(found) => found,
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            Err(_) => unknown,
        }
    }
}

/// Appends a part, if it has bytes, or lengthens the last one.
fn put(segments: &mut Vec<Segment>, range: ByteRange, source: Source) {
    if range.len == 0 {
        return;
    }
    match segments.last_mut() {
        Some(last) if last.source == source => last.range.len += range.len,
        _ => segments.push(Segment { range, source }),
    }
}
