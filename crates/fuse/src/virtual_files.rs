// SPDX-License-Identifier: Apache-2.0
//! Opens and reads of what the daemon tells of itself, which no page cache and no mode is for.

use std::sync::Arc;

use fuser::{Errno, FileHandle, FopenFlags, ReplyData, ReplyOpen};
use types::{ByteRange, Error, ErrorKind};
use vfs::{HandleId, Ino, ReadReply};

use crate::access;
use crate::door::Door;
use crate::errno;
use crate::killed::unless_killed;
use crate::stats::Operation;

impl Door {
    /// Answers an open of a virtual file.
    pub(crate) fn open_virtual(&self, ino: u64, flags: i32, reply: ReplyOpen) {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        // The length is not known before the end, and nothing is written at a close.
        let live = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
        match self.vfs.open_virtual(Ino(ino), writes) {
            Ok((handle, true)) => {
                reply.opened(FileHandle(handle.0), live | FopenFlags::FOPEN_STREAM);
            }
            Ok((handle, false)) => reply.opened(FileHandle(handle.0), live),
            Err(e) => {
                access::failed(&e);
                reply.error(Errno::from_i32(errno::of(e.kind())));
            }
        }
    }

    /// Answers a read of a virtual file. The wait for more of a stream is no wait for a storage, and
    /// is not counted as one.
    pub(crate) fn read_virtual(
        self: &Arc<Self>,
        asker: u32,
        (ino, handle): (u64, HandleId),
        range: ByteRange,
        reply: ReplyData,
    ) {
        let mut text = Vec::new();
        match self.vfs.read_virtual(handle, range, &mut text) {
            ReadReply::Ready(Ok(())) => reply.data(&text),
            ReadReply::Ready(Err(e)) => reply.error(self.fault(Operation::Read, ino, &e)),
            ReadReply::Pending(more) => {
                let door = Arc::clone(self);
                self.unmeasured(async move {
                    let read = door.until_end(unless_killed(asker, more)).await;
                    let gone = || Err(Error::new(ErrorKind::Unavailable, "the mount has ended"));
                    match read.unwrap_or_else(gone) {
                        Ok(text) => reply.data(&text),
                        Err(e) => reply.error(Errno::from_i32(errno::of(e.kind()))),
                    }
                });
            }
        }
    }
}
