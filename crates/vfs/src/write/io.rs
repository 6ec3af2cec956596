// SPDX-License-Identifier: Apache-2.0
//! Bytes of staged files: written, read back, cut and allocated.
//!
//! All of it is done on the caller's thread, as a local file system would, unless the file is just
//! being stored: then the call waits for that. Only bytes of the old version that still show
//! through may have to be fetched.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use types::{ByteRange, Error, ErrorKind, Result, in_memory};
use worker::{Segment, Source};

use crate::handles::{FileHandle, HandleId};
use crate::ino::Ino;
use crate::reply::{ReadReply, Reply};
use crate::vfs::Vfs;
use crate::written::Written;

impl Vfs {
    /// Writes to an open file; all of it or nothing.
    ///
    /// # Errors
    /// `Invalid` for a handle that only reads, `OutOfSpace`.
    pub fn write(self: &Arc<Self>, handle: HandleId, offset: u64, bytes: &[u8]) -> Reply<()> {
        let (file, written) = match self.writing(handle) {
            Ok(both) => both,
            Err(error) => return Reply::Ready(Err(error)),
        };
        // Bound, so that the guard is gone before the answer is.
        if let Ok(shared) = written.gate.try_read() {
            let done = self.write_now(&file, &written, offset, bytes);
            drop(shared);
            return Reply::Ready(done);
        }
        let (vfs, bytes) = (Arc::clone(self), Bytes::copy_from_slice(bytes));
        Reply::Pending(
            async move {
                let _shared = written.gate.read().await;
                vfs.write_now(&file, &written, offset, &bytes)
            }
            .boxed(),
        )
    }

    fn write_now(
        self: &Arc<Self>,
        file: &FileHandle,
        written: &Arc<Written>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let done = written.file.write_at(offset, bytes);
        done.inspect_err(|error| self.errors.note(file.ino, error))?;
        written.touch(self.now_ns());
        if written.wrote(ByteRange::new(offset, bytes.len() as u64)) {
            self.send_meanwhile(file.ino, written);
        }
        Ok(())
    }

    /// Allocates, punches or zeroes a range of an open file, as `fallocate` does.
    ///
    /// # Errors
    /// `Unsupported` for other modes, `OutOfSpace`.
    pub fn allocate(self: &Arc<Self>, handle: HandleId, mode: u32, range: ByteRange) -> Reply<()> {
        let (file, written) = match self.writing(handle) {
            Ok(both) => both,
            Err(error) => return Reply::Ready(Err(error)),
        };
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                let _shared = written.gate.read().await;
                let done = written.file.allocate(mode, range);
                done.inspect_err(|error| vfs.errors.note(file.ino, error))?;
                written.touch(vfs.now_ns());
                Ok(())
            }
            .boxed(),
        )
    }

    /// Finds the next data (`true`) or hole at or after an offset.
    ///
    /// # Errors
    /// `NotFound` behind the end of the file, which a door calls ENXIO.
    pub fn seek(&self, handle: HandleId, offset: u64, wants_data: bool) -> Result<u64> {
        let file = self.files.get(handle)?;
        let behind = || Error::new(ErrorKind::NotFound, "seek behind the end of the file");
        if let Some(written) = file.cell.written() {
            let found = match wants_data {
                true => written.file.seek_data(offset),
                false => written.file.seek_hole(offset),
            };
            return found.ok_or_else(behind);
        }
        let size = file.reading()?.object.size();
        match wants_data {
            _ if offset >= size => Err(behind()),
            true => Ok(offset),
            false => Ok(size),
        }
    }

    /// Changes the length of a staged file; the caller holds its gate.
    pub(super) fn cut(&self, written: &Written, len: u64) -> Result<()> {
        if written.file.len() != len || len == 0 {
            written.file.truncate(len)?;
            written.touch(self.now_ns());
        }
        Ok(())
    }

    /// Reads from a staged file.
    pub(crate) fn read_written(
        self: &Arc<Self>,
        ino: Ino,
        written: &Arc<Written>,
        range: ByteRange,
        buf: &mut Vec<u8>,
    ) -> ReadReply {
        let segments = written.file.segments(range);
        let Some(last) = segments.last() else {
            return ReadReply::Ready(Ok(()));
        };
        let range = ByteRange::new(range.offset, last.range.end() - range.offset);
        self.counters.served_bytes.add(range.len);
        if !segments
            .iter()
            .any(|segment| matches!(segment.source, Source::Base))
        {
            self.counters.read_hits.add(1);
            return ReadReply::Ready(written.file.read_at(range, buf));
        }
        self.counters.read_misses.add(1);
        let (vfs, written) = (Arc::clone(self), Arc::clone(written));
        ReadReply::Pending(
            async move {
                let read = vfs.read_while_stored(&written, range, segments).await;
                read.inspect_err(|error| vfs.errors.note(ino, error))
            }
            .boxed(),
        )
    }

    /// Reads what shows through of an older version, or what was fetched of it before the file was
    /// stored in its place.
    async fn read_while_stored(
        self: &Arc<Self>,
        written: &Written,
        range: ByteRange,
        mut segments: Vec<Segment>,
    ) -> Result<Bytes> {
        loop {
            let error = match self.read_through(written, range, &segments).await {
                Err(error) if worker::is_gone(&error) => error,
                done => return done,
            };
            // Ever less shows through.
            let now = written.file.segments(range);
            if now == segments {
                return Err(error);
            }
            segments = now;
        }
    }

    /// Puts together what was written and what shows through.
    async fn read_through(
        self: &Arc<Self>,
        written: &Written,
        range: ByteRange,
        segments: &[Segment],
    ) -> Result<Bytes> {
        let base = written.base();
        let base = base.ok_or_else(|| Error::internal("a staged file lacks its base"))?;
        let mut bytes = BytesMut::with_capacity(in_memory(range.len));
        let mut buf = Vec::new();
        for segment in segments {
            match segment.source {
                Source::Base => {
                    let window = segment.range.pages().bytes(base.size());
                    let read =
                        self.worker
                            .read(base.clone(), segment.range, window, self.deadline());
                    bytes.extend_from_slice(&read.await?);
                }
                Source::Here | Source::Hole => {
                    buf.clear();
                    written.file.read_at(segment.range, &mut buf)?;
                    bytes.extend_from_slice(&buf);
                }
            }
        }
        Ok(bytes.freeze())
    }

    fn writing(&self, handle: HandleId) -> Result<(Arc<FileHandle>, Arc<Written>)> {
        let file = self.files.get(handle)?;
        match file.cell.written().filter(|_| file.is_writer) {
            Some(written) => {
                let written = Arc::clone(written);
                Ok((file, written))
            }
            None => Err(Error::new(
                ErrorKind::Invalid,
                "write to a file that is open for reading",
            )),
        }
    }
}
