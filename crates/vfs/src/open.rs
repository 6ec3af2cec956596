// SPDX-License-Identifier: Apache-2.0
//! Opening files for reading: a handle is one object version until its release.
//!
//! A small object is fetched whole before the open is answered: one request instead of two round
//! trips, and the door can then hand the kernel the cache file. A large one is opened without a
//! request; if its version is gone, the first read that misses says so.

use std::sync::Arc;

use futures::FutureExt;
use types::{Error, ErrorKind, NodeKind, ObjectRef};
use worker::LocalFile;
use worker::settings::WHOLE_MAX;

use crate::handles::{FileHandle, HandleId};
use crate::ino::Ino;
use crate::reply::Reply;
use crate::vfs::{Vfs, unknown};

/// Offsets of files are signed; what a storage says of a length is not.
const SIZE_MAX: u64 = i64::MAX as u64;

/// An open file. It counts until it is given to [`Vfs::release`].
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub handle: HandleId,
    /// Whether pages kept from an earlier open are still right. Always: an inode is one version.
    pub keep_cache: bool,
    /// The cache file, when the object is cached whole and verified.
    pub local_file: Option<LocalFile>,
}

impl Vfs {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// `IsADirectory`, `Invalid` for a symbolic link, `Stale` when the version is gone (its name
    /// has to be looked up again); else what the storage said.
    pub fn open(self: &Arc<Self>, ino: Ino) -> Reply<Opened> {
        if let Ok(node) = self.node(ino)
            && node.cell.written().is_some()
            && let Some(held) = self.hold_written(ino)
        {
            if held.written.state().is_lost {
                // Its name leads to what somebody else made.
                let error = Error::new(ErrorKind::Stale, "somebody else changed the file");
                return Reply::Ready(Err(error));
            }
            return Reply::Ready(self.opened_written(&held, false));
        }
        let object = self.node(ino).and_then(|node| match node.meta.kind {
            NodeKind::File => Ok((self.object(&node)?, self.freshness(node.place.mount))),
            NodeKind::Directory => Err(Error::new(ErrorKind::IsADirectory, "open as a file")),
            NodeKind::Symlink => Err(Error::new(ErrorKind::Invalid, "open a symbolic link")),
        });
        let (object, freshness) = match object {
            Ok(object) => object,
            Err(error) => return Reply::Ready(Err(error)),
        };
        self.counters.opens.add(1);
        if object.size() > SIZE_MAX {
            let message = format!("'{}' is larger than a file can be", object.path);
            return Reply::Ready(Err(Error::new(ErrorKind::Unsupported, message)));
        }
        if object.size() == 0 {
            return self.opened(ino, object, None);
        }
        if let Some(local_file) = self.worker.local_file(&object) {
            self.worker.opened(&object, true, freshness);
            return self.opened(ino, object, Some(local_file));
        }
        if object.size() > WHOLE_MAX {
            return self.opened(ino, object, None);
        }
        self.worker.opened(&object, false, freshness);
        let fetched = self.worker.fetch_whole(object.clone(), self.deadline());
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                if let Err(error) = fetched.await {
                    if worker::is_gone(&error) && vfs.is_changed_here(ino, &object) {
                        return vfs.open(ino).wait().await;
                    }
                    vfs.note_failure(ino, &object, &error);
                    return Err(error);
                }
                let local_file = vfs.worker.local_file(&object);
                vfs.opened(ino, object, local_file).wait().await
            }
            .boxed(),
        )
    }

    fn opened(
        self: &Arc<Self>,
        ino: Ino,
        object: ObjectRef,
        local_file: Option<LocalFile>,
    ) -> Reply<Opened> {
        let Some(node) = self.namespace.hold(ino) else {
            return Reply::Ready(Err(unknown(ino)));
        };
        // A writer of this node may have closed another version since it was looked for.
        if node.cell.written().is_none() && node.meta.tag != object.tag {
            self.let_go(ino);
            return self.open(ino);
        }
        let Some(mount) = node.place.mount else {
            self.let_go(ino);
            return Reply::Ready(Err(Error::internal("a file outside all mounts")));
        };
        if local_file.is_some() {
            self.counters.served_bytes.add(object.size());
        }
        let handle = self.files.insert(FileHandle {
            ino,
            mount,
            cell: Arc::clone(&node.cell),
            is_writer: false,
            reading: Some(self.reading(object, local_file.clone())),
        });
        Reply::Ready(Ok(Opened {
            handle,
            keep_cache: true,
            // Who is about to write must find it served by us.
            local_file: local_file.filter(|_| !self.stands_in(ino)),
        }))
    }
}
