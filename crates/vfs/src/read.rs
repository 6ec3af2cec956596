// SPDX-License-Identifier: Apache-2.0
//! The read path: handle -> object version -> bytes.
//!
//! A hit is answered on the caller's thread: one decision of the readahead, one copy out of the
//! cache. A miss asks the worker for the range and, in the same requests, for what the readahead
//! expects next; what it adds further on is fetched in the background.

use std::sync::Arc;

use futures::FutureExt;
use types::{ByteRange, Error, ErrorKind, Result};

use crate::handles::{FileHandle, HandleId};
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
        let file = match self.files.get(handle) {
            Ok(file) => file,
            Err(error) => return ReadReply::Ready(Err(error)),
        };
        let range = range.clamp(file.object.size());
        if range.len == 0 {
            return ReadReply::Ready(Ok(()));
        }
        if file.local_file.is_none() {
            self.counters.served_bytes.add(range.len);
        }
        let plan = plan(&file, range);
        if self.worker.read_cached(&file.object, range, buf) {
            self.counters.read_hits.add(1);
            self.fetch_ahead(&file, plan.ahead);
            return ReadReply::Ready(Ok(()));
        }
        self.counters.read_misses.add(1);
        self.miss(file, range, plan)
    }

    fn miss(self: &Arc<Self>, file: Arc<FileHandle>, range: ByteRange, plan: Plan) -> ReadReply {
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
            self.fetch_ahead(&file, plan.ahead);
        }
        let asked = self
            .worker
            .read(file.object.clone(), range, plan.window, self.deadline());
        let vfs = Arc::clone(self);
        ReadReply::Pending(
            async move {
                let read = asked.await.and_then(|bytes| {
                    check_length(range, bytes.len())?;
                    Ok(bytes)
                });
                if let Err(error) = &read {
                    vfs.note_failure(file.ino, &file.object, error);
                }
                read
            }
            .boxed(),
        )
    }

    fn fetch_ahead(&self, file: &FileHandle, ahead: Option<ByteRange>) {
        if let Some(ahead) = ahead
            && self.mount_table().is_live(file.mount)
        {
            self.counters.read_ahead_bytes.add(ahead.len);
            self.worker.read_ahead(&file.object, ahead);
        }
    }
}

/// A file that is cached whole needs nothing ahead.
fn plan(file: &FileHandle, range: ByteRange) -> Plan {
    match file.local_file {
        Some(_) => Plan {
            window: range.pages().bytes(file.object.size()),
            ahead: None,
        },
        None => file.read_ahead.lock().on_read(range),
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
