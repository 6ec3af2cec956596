// SPDX-License-Identifier: Apache-2.0
//! Files that are read without having been opened, for a kernel that is spared its opens.
//!
//! An inode is one version, so its number says which bytes are meant. The first read opens the file,
//! and it stays open while it is among those that were read last. One leaf lock.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use parking_lot::Mutex;
use types::ByteRange;

use crate::handles::{FileHandle, HandleId};
use crate::ino::Ino;
use crate::reply::{ReadReply, Reply};
use crate::vfs::Vfs;

/// Files that stay open, at least; at most twice as many do.
const KEPT: usize = 2048;

type Opened = (HandleId, Arc<FileHandle>);

/// What is open although nobody opened it, in two generations: what is not read while one fills up
/// is closed.
#[derive(Debug, Default)]
pub(crate) struct Unopened {
    generations: Mutex<[HashMap<Ino, Opened>; 2]>,
}

impl Unopened {
    fn find(&self, ino: Ino) -> Option<Arc<FileHandle>> {
        let mut generations = self.generations.lock();
        let [young, old] = &mut *generations;
        if let Some((_, file)) = young.get(&ino) {
            return Some(Arc::clone(file));
        }
        let opened = old.remove(&ino)?;
        let file = Arc::clone(&opened.1);
        young.insert(ino, opened);
        Some(file)
    }

    /// Keeps a file unless it is kept already. Returns which one is, and what is to be closed.
    fn keep(&self, ino: Ino, opened: Opened) -> (Arc<FileHandle>, Vec<HandleId>) {
        let mut generations = self.generations.lock();
        let [young, old] = &mut *generations;
        if let Some((_, file)) = young.get(&ino).or_else(|| old.get(&ino)) {
            return (Arc::clone(file), vec![opened.0]);
        }
        let file = Arc::clone(&opened.1);
        young.insert(ino, opened);
        let mut closed = Vec::new();
        if young.len() >= KEPT {
            let gone = std::mem::replace(old, std::mem::take(young));
            closed.extend(gone.into_values().map(|(handle, _)| handle));
        }
        (file, closed)
    }
}

impl Vfs {
    /// Reads from a file that was not opened, as [`Vfs::read`] does from one that was.
    ///
    /// # Errors
    /// As [`Vfs::open`] and [`Vfs::read`].
    pub fn read_unopened(
        self: &Arc<Self>,
        ino: Ino,
        range: ByteRange,
        buf: &mut Vec<u8>,
    ) -> ReadReply {
        if let Some(file) = self.unopened.find(ino) {
            return self.read_file(file, range, buf);
        }
        let vfs = Arc::clone(self);
        match self.open(ino) {
            Reply::Ready(opened) => {
                match opened.and_then(|opened| self.keep_open(ino, opened.handle)) {
                    Ok(file) => self.read_file(file, range, buf),
                    Err(error) => ReadReply::Ready(Err(error)),
                }
            }
            Reply::Pending(opening) => ReadReply::Pending(
                async move {
                    let file = vfs.keep_open(ino, opening.await?.handle)?;
                    let mut bytes = Vec::new();
                    match vfs.read_file(file, range, &mut bytes) {
                        ReadReply::Ready(done) => done.map(|()| bytes.into()),
                        ReadReply::Pending(reading) => reading.await,
                    }
                }
                .boxed(),
            ),
        }
    }

    fn keep_open(self: &Arc<Self>, ino: Ino, handle: HandleId) -> types::Result<Arc<FileHandle>> {
        let opened = (handle, self.files.get(handle)?);
        let (file, closed) = self.unopened.keep(ino, opened);
        for handle in closed {
            self.release(handle);
        }
        Ok(file)
    }
}
