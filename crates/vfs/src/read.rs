// SPDX-License-Identifier: Apache-2.0
//! The read path: handle -> object version -> bytes.
//!
//! A hit is answered on the caller's thread: one decision of the readahead, one copy out of the
//! cache. A miss asks the worker for the range and, in the same requests, for what the readahead
//! expects next; what it adds further on is fetched in the background.

use std::sync::Arc;

use futures::FutureExt;
use types::{ByteRange, Error, ErrorKind, ObjectRef, Result};

use crate::handles::{FileHandle, HandleId, Reading};
use crate::ino::Ino;
use crate::mounts::MountIndex;
use crate::readahead::Plan;
use crate::reply::ReadReply;
use crate::vfs::Vfs;

impl Vfs {
    /// Reads from an open file; `range` is cut at the end of the file, and an empty answer is the
    /// end. A hit is appended to `buf`.
    ///
    /// # Errors
    /// `Stale` when the handle's version is gone and these bytes are not cached, `Timeout` at the
    /// deadline; else what the storage said. Never bytes of another version.
    pub fn read(
        self: &Arc<Self>,
        handle: HandleId,
        range: ByteRange,
        buf: &mut Vec<u8>,
    ) -> ReadReply {
        match self.files.get(handle) {
            Ok(file) => self.read_file(file, range, buf),
            Err(error) => ReadReply::Ready(Err(error)),
        }
    }

    pub(crate) fn read_file(
        self: &Arc<Self>,
        file: Arc<FileHandle>,
        range: ByteRange,
        buf: &mut Vec<u8>,
    ) -> ReadReply {
        if let Some(written) = file.cell.written() {
            return self.read_written(file.ino, written, range, buf);
        }
        let reading = match file.reading() {
            Ok(reading) => reading,
            Err(error) => return ReadReply::Ready(Err(error)),
        };
        let range = range.clamp(reading.object.size());
        if range.len == 0 {
            return ReadReply::Ready(Ok(()));
        }
        if reading.local_file.is_none() {
            self.counters.served_bytes.add(range.len);
        }
        let plan = plan(reading, range);
        if self.worker.read_cached(&reading.object, range, buf) {
            self.counters.read_hits.add(1);
            self.fetch_ahead(file.mount, &reading.object, plan.ahead);
            return ReadReply::Ready(Ok(()));
        }
        self.counters.read_misses.add(1);
        let object = reading.object.clone();
        self.miss(file, object, range, plan)
    }

    fn miss(
        self: &Arc<Self>,
        file: Arc<FileHandle>,
        object: ObjectRef,
        range: ByteRange,
        plan: Plan,
    ) -> ReadReply {
        let table = self.mount_table();
        if let Err(error) = table.live_spec(file.mount, ErrorKind::Stale) {
            self.errors.note(file.ino, &error);
            return ReadReply::Ready(Err(error));
        }
        if plan.rides_along(range) {
            self.counters
                .read_ahead_bytes
                .add(plan.ahead.map_or(0, |ahead| ahead.len));
        } else {
            self.fetch_ahead(file.mount, &object, plan.ahead);
        }
        let asked = self
            .worker
            .read(object.clone(), range, plan.window, self.deadline());
        let vfs = Arc::clone(self);
        ReadReply::Pending(
            async move {
                let read = match asked.await {
                    Err(error) => match vfs.renamed(file.ino, &object) {
                        // This node renamed the object since it was opened; its bytes are the same.
                        Some(now) => {
                            let deadline = vfs.deadline();
                            vfs.worker.read(now, range, plan.window, deadline).await
                        }
                        None => Err(error),
                    },
                    read => read,
                };
                let read = read.and_then(|bytes| {
                    check_length(range, bytes.len())?;
                    Ok(bytes)
                });
                if let Err(error) = &read {
                    vfs.note_failure(file.ino, &object, error);
                }
                read
            }
            .boxed(),
        )
    }

    fn fetch_ahead(&self, mount: MountIndex, object: &ObjectRef, ahead: Option<ByteRange>) {
        if let Some(ahead) = ahead
            && self.mount_table().is_live(mount)
        {
            self.counters.read_ahead_bytes.add(ahead.len);
            self.worker.read_ahead(object, ahead);
        }
    }

    /// Returns what an open file's object is now, if this node renamed it or changed its attributes:
    /// its bytes are the same then.
    fn renamed(&self, ino: Ino, object: &ObjectRef) -> Option<ObjectRef> {
        let now = self.object(&*self.node(ino).ok()?).ok()?;
        (now.id != object.id && now.size() == object.size()).then_some(now)
    }
}

/// A file that is cached whole needs nothing ahead.
fn plan(reading: &Reading, range: ByteRange) -> Plan {
    match reading.local_file {
        Some(_) => Plan {
            window: range.pages().bytes(reading.object.size()),
            ahead: None,
        },
        None => reading.read_ahead.lock().on_read(range),
    }
}

/// A short answer would look like the end of the file.
fn check_length(range: ByteRange, len: usize) -> Result<()> {
    if len as u64 == range.len {
        return Ok(());
    }
    Err(Error::internal(format!(
        "read {} bytes at {}: got {len}",
        range.len, range.offset
    )))
}
