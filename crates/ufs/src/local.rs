// SPDX-License-Identifier: Apache-2.0
//! The driver of local directories, mounted network file systems among them.
//!
//! Names are resolved below the root by the kernel, which follows no symbolic link and no `..`
//! (`beneath`); links are shown as links. Special files cannot be shown and are counted.
//!
//! A version is inode, change time and size. The change time moves with every write, truncation
//! and rename and cannot be set back; it is compared after each piece of a read, before the piece
//! is handed out. Two changes within one tick of the kernel's clock share a change time, so a file
//! that changed just now is looked at again a tick later, and one that still changes gets a version
//! that no read will find (`version`). What remains: writes through a shared mapping move the
//! change time only at the first write after a sync.
//!
//! Writes become whole files by a rename (`write`, `upload`, `draft`).
//!
//! File I/O runs on the runtime's blocking threads, at most `max_connections` at once.

mod attributes;
mod beneath;
mod draft;
mod list;
mod upload;
mod version;
mod write;
mod xattrs;

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use tokio::sync::Semaphore;
use types::{
    ByteRange, Clock, Deadline, Error, ErrorKind, ObjectMeta, ObjectPath, Result, VersionTag,
    Xattrs,
};

use self::version::{is_young, meta_of, tag_of};
use crate::counters::count;
use crate::{ByteStream, Counters, ListStream, Settings, Space, UnderStorage, UnderWriter};

/// Enough to keep a disk busy, little enough to hand on soon.
const PIECE: u64 = 1 << 20;

/// Opens a directory.
pub(crate) async fn open(
    path: PathBuf,
    settings: Settings,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    let what = format!("open storage {}", path.display());
    settings
        .check_options("a local directory", &[])
        .map_err(|error| error.context(&what))?;
    let opened = tokio::task::spawn_blocking(move || open_root(&path)).await;
    let opened = opened.map_err(|error| Error::internal(error.to_string()))?;
    let (root, id) = opened.map_err(|error| error.context(what))?;
    let path = &root;
    let shown = path.to_string_lossy();
    let slash = if shown.ends_with('/') { "" } else { "/" };
    Ok(Arc::new(Local(Arc::new(Inner {
        uri: format!("file://{shown}{slash}"),
        identity: format!(
            "file://{}{slash}",
            path.as_os_str().as_bytes().escape_ascii()
        ),
        root,
        root_id: id,
        counters: Counters::default(),
        clock,
        request_timeout: settings.request_timeout,
        threads: Arc::new(Semaphore::new(settings.max_connections.max(1))),
        is_written: AtomicBool::new(false),
    }))))
}

/// Returns the real path of a directory and what it is on its file system.
fn open_root(path: &Path) -> Result<(PathBuf, RootId)> {
    let cannot = |error| Error::io("the directory cannot be opened", error);
    let path = path.canonicalize().map_err(cannot)?;
    let root = root_at(&path).map_err(|errno| cannot(errno.into()))?;
    // A root that cannot be listed is of no use.
    beneath::open(
        root.0.as_fd(),
        &ObjectPath::root(),
        OFlags::RDONLY | OFlags::DIRECTORY,
    )
    .map_err(|errno| cannot(errno.into()))?;
    Ok((path, root.1))
}

fn root_at(path: &Path) -> std::result::Result<(OwnedFd, RootId), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    let stat = rustix::fs::fstat(&root)?;
    Ok((
        root,
        RootId {
            device: stat.st_dev,
            inode: stat.st_ino,
        },
    ))
}

/// Tells a directory from another that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RootId {
    device: u64,
    inode: u64,
}

/// A directory of this machine.
struct Local(Arc<Inner>);

struct Inner {
    uri: String,
    identity: String,
    /// Opened for each operation: a file that stays open would keep the file system mounted.
    root: PathBuf,
    root_id: RootId,
    counters: Counters,
    clock: Arc<dyn Clock>,
    request_timeout: Duration,
    threads: Arc<Semaphore>,
    /// Somebody asked for the writing side, so that listings may remove what dead writers left.
    is_written: AtomicBool,
}

impl Inner {
    /// Runs file I/O on a blocking thread. The thread's permit is given back when the work ends,
    /// even if nobody waits for it any more, so that a hung file system holds a bounded number.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        what: &str,
        deadline: Deadline,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(self);
        let done = async {
            let permit = Arc::clone(&self.threads).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            let task = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work(&inner)
            });
            task.await
                .map_err(|error| Error::internal(error.to_string()))?
        };
        let done = tokio::time::timeout_at(deadline.instant().into(), done).await;
        let late = |_| {
            Err(
                Error::new(ErrorKind::Timeout, "the file system did not answer in time")
                    .retryable(),
            )
        };
        done.unwrap_or_else(late).map_err(|error| {
            if error.kind() != ErrorKind::NotFound {
                count(&self.counters.errors);
            }
            error.context(what)
        })
    }

    fn name(&self, operation: &str, path: &ObjectPath) -> String {
        format!("{operation} {}{path}", self.uri)
    }

    fn open(&self, path: &ObjectPath, flags: OFlags) -> Result<OwnedFd> {
        // The place of an unmounted file system is an empty directory: its names are not absent,
        // they cannot be asked for.
        let away = || {
            Error::new(
                ErrorKind::Unavailable,
                "the storage's directory is not there now",
            )
        };
        let (root, id) = root_at(&self.root).map_err(|errno| away().with_source(errno))?;
        if id != self.root_id {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "another directory took the place of the storage's; mount it again",
            ));
        }
        beneath::open(root.as_fd(), path, flags).map_err(|errno| io_error("open", errno))
    }

    fn stat_once(&self, path: &ObjectPath) -> Result<rustix::fs::Stat> {
        let file = self.open(path, OFlags::PATH)?;
        rustix::fs::fstat(&file).map_err(|errno| io_error("stat", errno))
    }
}

#[async_trait]
impl UnderStorage for Local {
    fn uri(&self) -> &str {
        &self.0.uri
    }

    fn identity(&self) -> &str {
        &self.0.identity
    }

    async fn stat(&self, path: &ObjectPath, deadline: Deadline) -> Result<ObjectMeta> {
        let inner = &self.0;
        let what = inner.name("look at", path);
        count(&inner.counters.head);
        let look = |path: ObjectPath| inner.work(&what, deadline, move |i| i.stat_once(&path));
        let mut now = inner.clock.wall();
        let mut stat = look(path.clone()).await?;
        if is_young(&stat, now) {
            tokio::time::sleep(version::GRAIN).await;
            now = inner.clock.wall();
            stat = look(path.clone()).await?;
        }
        meta_of(&stat, now).ok_or_else(|| {
            let why = "a special file, which cannot be read through a mount";
            Error::new(ErrorKind::NotFound, why).context(&what)
        })
    }

    fn list(&self, dir: &ObjectPath) -> ListStream {
        let start = Some((Arc::clone(&self.0), dir.clone(), None));
        Box::pin(stream::unfold(start, |state| async move {
            let (inner, path, dir) = state?;
            match list::page(&inner, &path, dir).await {
                Ok((page, Some(dir))) => Some((Ok(page), Some((inner, path, Some(dir))))),
                Ok((page, None)) => Some((Ok(page), None)),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    async fn read(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream> {
        let inner = Arc::clone(&self.0);
        let what = inner.name("read", path);
        if range.end() > tag.size {
            return Err(Error::internal("the range is not inside the file").context(what));
        }
        if range.len == 0 {
            return Ok(Box::pin(stream::empty()));
        }
        count(&inner.counters.get);
        let (path, expected) = (path.clone(), tag.clone());
        let file = inner
            .work(&what, deadline, move |inner| {
                open_version(inner, &path, &expected)
            })
            .await?;
        let (at, tag) = (range.offset, tag.clone());
        let reading = Reading {
            inner,
            what,
            file: Arc::new(file),
            tag,
            at,
            end: range.end(),
            deadline,
        };
        Ok(Box::pin(stream::unfold(
            Some(reading),
            |reading| async move {
                let mut reading = reading.filter(|reading| reading.at < reading.end)?;
                match reading.piece().await {
                    Ok(bytes) => Some((Ok(bytes), Some(reading))),
                    Err(error) => Some((Err(error), None)),
                }
            },
        )))
    }

    async fn read_link(&self, path: &ObjectPath, deadline: Deadline) -> Result<Vec<u8>> {
        let (what, path) = (self.0.name("read link", path), path.clone());
        count(&self.0.counters.head);
        let read = move |inner: &Inner| {
            let link = inner.open(&path, OFlags::PATH)?;
            let target = rustix::fs::readlinkat(&link, "", Vec::new());
            match target {
                Ok(target) => Ok(target.into_bytes()),
                // What the kernel says of a file that is no link.
                Err(Errno::NOENT | Errno::INVAL) => {
                    Err(Error::new(ErrorKind::Invalid, "it is not a symbolic link"))
                }
                Err(errno) => Err(io_error("read", errno)),
            }
        };
        self.0.work(&what, deadline, read).await
    }

    async fn space(&self, deadline: Deadline) -> Result<Option<Space>> {
        let what = self.0.name("ask for the room of", &ObjectPath::root());
        count(&self.0.counters.other);
        let ask = |inner: &Inner| {
            let root = inner.open(&ObjectPath::root(), OFlags::PATH)?;
            let told = rustix::fs::fstatvfs(&root).map_err(|errno| io_error("ask", errno))?;
            Ok(Some(Space {
                total: told.f_blocks.saturating_mul(told.f_frsize),
                free: told.f_bavail.saturating_mul(told.f_frsize),
                files: told.f_files,
                files_free: told.f_favail,
            }))
        };
        self.0.work(&what, deadline, ask).await
    }

    async fn xattrs(&self, path: &ObjectPath, deadline: Deadline) -> Result<Xattrs> {
        let (what, path) = (self.0.name("attributes of", path), path.clone());
        count(&self.0.counters.head);
        let read = move |inner: &Inner| match inner.open(&path, OFlags::PATH) {
            Ok(file) => xattrs::read(&file),
            Err(error) => Err(error),
        };
        self.0.work(&what, deadline, read).await
    }

    fn writer(&self) -> Option<&dyn UnderWriter> {
        self.0.is_written.store(true, Ordering::Relaxed);
        Some(self)
    }

    fn counters(&self) -> &Counters {
        &self.0.counters
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Local").field(&self.0).finish()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A read under way.
struct Reading {
    inner: Arc<Inner>,
    what: String,
    file: Arc<OwnedFd>,
    tag: VersionTag,
    at: u64,
    end: u64,
    /// Each piece that was read renews it.
    deadline: Deadline,
}

impl Reading {
    /// Reads the next piece and then checks that the file is still the same version.
    async fn piece(&mut self) -> Result<Bytes> {
        let (file, tag, at) = (Arc::clone(&self.file), self.tag.clone(), self.at);
        let len = (self.end - at).min(PIECE);
        let read = move |_: &Inner| {
            let bytes = read_exact(&file, at, len)?;
            check_version(&file, &tag)?;
            Ok(bytes)
        };
        let bytes = self.inner.work(&self.what, self.deadline, read).await?;
        self.deadline = self.deadline.renewed(self.inner.clock.now());
        self.at += len;
        self.inner
            .counters
            .bytes_read
            .fetch_add(len, Ordering::Relaxed);
        Ok(bytes)
    }
}

fn open_version(inner: &Inner, path: &ObjectPath, tag: &VersionTag) -> Result<OwnedFd> {
    // Without NONBLOCK, opening a fifo that took the file's place would wait for a writer.
    let opened = inner.open(path, OFlags::RDONLY | OFlags::NONBLOCK);
    let file = opened.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Error::new(ErrorKind::Stale, "the file is gone").with_source(error)
        }
        _ => error,
    })?;
    check_version(&file, tag)?;
    Ok(file)
}

fn check_version(file: &OwnedFd, tag: &VersionTag) -> Result<()> {
    let stat = rustix::fs::fstat(file).map_err(|errno| io_error("stat", errno))?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    match regular && tag_of(&stat) == *tag {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Stale, "the file changed")),
    }
}

fn read_exact(file: &OwnedFd, at: u64, len: u64) -> Result<Bytes> {
    let len = usize::try_from(len).map_err(|_| Error::internal("a piece too long"))?;
    let mut buffer = vec![0; len];
    let mut done = 0;
    while done < len {
        match rustix::io::pread(file, &mut buffer[done..], at + done as u64) {
            Ok(0) => return Err(Error::new(ErrorKind::Stale, "the file got shorter")),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io_error("read", errno)),
        }
    }
    Ok(buffer.into())
}

/// Words an error of the kernel.
fn io_error(what: &str, errno: Errno) -> Error {
    match errno {
        Errno::LOOP => Error::new(ErrorKind::NotADirectory, "a symbolic link is on the way"),
        // A name that the file system could not even hold is not there.
        Errno::NAMETOOLONG => Error::new(ErrorKind::NotFound, "the name is too long to exist"),
        _ => Error::io(what, errno.into()),
    }
}
