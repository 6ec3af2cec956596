// SPDX-License-Identifier: Apache-2.0
//! `.forebay` in the root of the tree: what the daemon tells of itself, as files.
//!
//! `status.json` is what `forebay status --json` says of the daemon, as of the open; `accesslog` is a
//! live stream. They are in no storage and in no listing, so that `ls`, `find`, `du`, `rsync` and
//! `rm -rf` of the root do not come by them; who knows the name finds them. What a storage has under
//! that name always wins: it is looked for first, and then there are no virtual files.
//!
//! Their inode numbers are reserved and their handles marked, so that neither is ever taken for one of
//! the tree. The owner of the daemon reads them, and nobody writes them.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use types::{ByteRange, Error, ErrorKind, NodeKind, Result};

use crate::access_log::{AccessLog, Lines};
use crate::attributes::Attributes;
use crate::dir::DirEntry;
use crate::handles::{HandleId, Handles};
use crate::ino::Ino;
use crate::lookup::Entry;
use crate::reply::{ReadReply, Reply};
use crate::vfs::Vfs;

/// The directory.
const DIR_NAME: &[u8] = b".forebay";
const STATUS_NAME: &[u8] = b"status.json";
const LOG_NAME: &[u8] = b"accesslog";

const DIR: Ino = Ino(2);
const STATUS: Ino = Ino(3);
const LOG: Ino = Ino(4);

/// Sets the handles of virtual files apart from those of files.
const HANDLE_MARK: u64 = 1 << 63;

/// How long a storage is asked for the name before the virtual directory is shown: a storage that
/// does not answer is when people look at the status.
const ASK_MAX: Duration = Duration::from_secs(1);

/// Makes the text of the status.
pub type StatusText = Box<dyn Fn() -> Vec<u8> + Send + Sync>;

/// The virtual files of a tree.
pub(crate) struct VirtualFiles {
    shown: OnceLock<Shown>,
    open: Handles<Open>,
    pub(crate) log: AccessLog,
}

struct Shown {
    status: StatusText,
    owner: (u32, u32),
}

/// An open virtual file.
#[derive(Debug)]
enum Open {
    /// As of the open.
    Status(Bytes),
    Log(Arc<Lines>),
}

/// Returns whether a number is that of a virtual file or directory.
pub fn is_virtual(ino: Ino) -> bool {
    [DIR, STATUS, LOG].contains(&ino)
}

impl Default for VirtualFiles {
    fn default() -> Self {
        VirtualFiles {
            shown: OnceLock::new(),
            open: Handles::new(),
            log: AccessLog::default(),
        }
    }
}

impl fmt::Debug for VirtualFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VirtualFiles")
            .finish_non_exhaustive()
    }
}

impl Vfs {
    /// Shows the virtual files from now on, to this user and group.
    pub fn show_virtual_files(&self, status: StatusText, owner: (u32, u32)) {
        self.virtual_files
            .shown
            .get_or_init(|| Shown { status, owner });
    }

    /// Returns where what programs do is told.
    pub fn access_log(&self) -> &AccessLog {
        &self.virtual_files.log
    }

    /// Finds a name where a virtual one may be; none where there is none by that name.
    pub(crate) fn look_up_virtual(
        self: &Arc<Self>,
        parent: Ino,
        name: &[u8],
    ) -> Option<Reply<Entry>> {
        let shown = self.virtual_files.shown.get()?;
        let ino = match (parent, name) {
            (Ino::ROOT, DIR_NAME) => return Some(self.unless_stored(name)),
            (DIR, STATUS_NAME) => STATUS,
            (DIR, LOG_NAME) => LOG,
            (DIR, _) => {
                let absent = Error::new(ErrorKind::NotFound, "no such virtual file");
                return Some(Reply::Ready(Err(absent)));
            }
            _ => return None,
        };
        Some(Reply::Ready(Ok(self.virtual_entry(shown, ino))))
    }

    /// Returns what the storage has under the name of the directory, and else that.
    fn unless_stored(self: &Arc<Self>, name: &[u8]) -> Reply<Entry> {
        let vfs = Arc::clone(self);
        let or_virtual = move |found: Result<Entry>| match (found, vfs.virtual_files.shown.get()) {
            (Err(_), Some(shown)) => Ok(vfs.virtual_entry(shown, DIR)),
            (found, _) => found,
        };
        match self.look_up_stored(Ino::ROOT, name, ASK_MAX) {
            Reply::Ready(found) => Reply::Ready(or_virtual(found)),
            Reply::Pending(asked) => Reply::Pending(async move { or_virtual(asked.await) }.boxed()),
        }
    }

    /// Nothing is promised: what a storage gets under the name shows at once.
    fn virtual_entry(&self, shown: &Shown, ino: Ino) -> Entry {
        Entry {
            ino,
            attributes: self.virtual_attributes_of(shown, ino),
            entry_ttl: Duration::ZERO,
            attr_ttl: Duration::ZERO,
        }
    }

    /// Returns the attributes of a virtual file; none where the number is not of one.
    pub(crate) fn virtual_attributes(&self, ino: Ino) -> Option<Attributes> {
        let shown = self.virtual_files.shown.get()?;
        is_virtual(ino).then(|| self.virtual_attributes_of(shown, ino))
    }

    /// The length is not known before the open, as of the files in `/proc`.
    fn virtual_attributes_of(&self, shown: &Shown, ino: Ino) -> Attributes {
        let (kind, mode, nlink) = match ino {
            DIR => (NodeKind::Directory, 0o500, 2),
            _ => (NodeKind::File, 0o400, 1),
        };
        let (uid, gid) = shown.owner;
        Attributes {
            ino,
            kind,
            size: 0,
            mtime_ns: self.started_ns,
            ctime_ns: self.started_ns,
            atime_ns: self.started_ns,
            mode,
            uid,
            gid,
            nlink,
        }
    }

    /// Opens a virtual file. Where it is a stream, there is no place in it to go to.
    ///
    /// # Errors
    /// `ReadOnly` for who wants to write, `IsADirectory`.
    pub fn open_virtual(&self, ino: Ino, writes: bool) -> Result<(HandleId, bool)> {
        if writes {
            return Err(Error::new(ErrorKind::ReadOnly, "write a virtual file"));
        }
        let files = &self.virtual_files;
        let open = match (ino, files.shown.get()) {
            (STATUS, Some(shown)) => Open::Status((shown.status)().into()),
            (LOG, Some(_)) => Open::Log(files.log.watch()),
            _ => return Err(Error::new(ErrorKind::IsADirectory, "open as a file")),
        };
        let is_stream = matches!(open, Open::Log(_));
        let handle = files.open.insert(open);
        Ok((HandleId(handle.0 | HANDLE_MARK), is_stream))
    }

    /// Reads from a virtual file; of a stream what comes next, which may take any time.
    pub fn read_virtual(&self, handle: HandleId, range: ByteRange, buf: &mut Vec<u8>) -> ReadReply {
        let open = match self.virtual_files.open.get(unmarked(handle)) {
            Ok(open) => open,
            Err(error) => return ReadReply::Ready(Err(error)),
        };
        let room = usize::try_from(range.len).unwrap_or(usize::MAX);
        match &*open {
            Open::Status(text) => {
                let start = usize::try_from(range.offset).unwrap_or(usize::MAX);
                let start = start.min(text.len());
                let end = start.saturating_add(room).min(text.len());
                buf.extend_from_slice(&text[start..end]);
                ReadReply::Ready(Ok(()))
            }
            Open::Log(lines) => match lines.take(room) {
                Some(text) => {
                    buf.extend_from_slice(&text);
                    ReadReply::Ready(Ok(()))
                }
                None => {
                    let lines = Arc::clone(lines);
                    ReadReply::Pending(async move { Ok(lines.next(room).await) }.boxed())
                }
            },
        }
    }

    /// Ends a handle on a virtual file.
    pub fn release_virtual(&self, handle: HandleId) {
        let files = &self.virtual_files;
        if let Some(open) = files.open.remove(unmarked(handle))
            && let Open::Log(lines) = &*open
        {
            files.log.unwatch(lines);
        }
    }

    /// Gives the names in the virtual directory from a position on to `sink`, until it refuses one.
    pub fn read_virtual_dir(&self, cookie: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) {
        let entries = [
            (DIR, NodeKind::Directory, &b"."[..]),
            (Ino::ROOT, NodeKind::Directory, b".."),
            (STATUS, NodeKind::File, STATUS_NAME),
            (LOG, NodeKind::File, LOG_NAME),
        ];
        let entries = (1..).zip(entries);
        for (next_cookie, (ino, kind, name)) in entries.skip_while(|(next, _)| *next <= cookie) {
            let entry = DirEntry {
                ino,
                next_cookie,
                kind,
                name,
            };
            if !sink(entry) {
                return;
            }
        }
    }
}

fn unmarked(handle: HandleId) -> HandleId {
    HandleId(handle.0 & !HANDLE_MARK)
}

/// Says that what changes something is not for virtual files.
pub(crate) fn unchangeable() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the virtual files of the daemon cannot be changed",
    )
}
