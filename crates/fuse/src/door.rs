// SPDX-License-Identifier: Apache-2.0
//! What all requests of one mount share, and the two ways to answer one.
//!
//! What `vfs` knows is answered on the thread that read the request. What it must ask a storage for
//! becomes a task of the runtime, which answers from there; the kernel bounds how many there are
//! (its queue of background requests, and one request for each waiting thread of a program). Tasks
//! end with the mount, and with the program that asked.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use fuser::{BackingId, Errno, FileHandle, FopenFlags, ReplyCreate, ReplyOpen};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};
use types::trace;
use types::{Clock, Error, ErrorKind, Result};
use vfs::{Entry, Ino, LocalFile, Opened, Reply, Vfs};

use crate::access::{self, Accesses, Begun};
use crate::convert;
use crate::denials;
use crate::errno;
use crate::errors::Errors;
use crate::killed::unless_killed;
use crate::modes::{BACKINGS_MAX, Modes, Refusal, Serve};
use crate::ops::GENERATION;
use crate::stats::{Operation, Requests, Waits};
use crate::watch::Watch;
use crate::writers::Writers;

/// A cache file that the kernel reads itself. Whoever drops it last, a release or an open that is
/// still being answered, leaves what the kernel knows with the cached object.
#[derive(Debug)]
pub(crate) struct Backing {
    known: Arc<Known>,
    /// Keeps the cache file from being evicted: the kernel holds its blocks anyway.
    file: LocalFile,
}

impl Drop for Backing {
    fn drop(&mut self) {
        self.file.leave_keepsake(Box::new(Arc::clone(&self.known)));
    }
}

/// What the kernel knows a cache file by. Between two uses it is left with the cached object, which
/// takes it along when it is evicted: a warm open then costs neither an open nor a call of the
/// kernel, and the kernel keeps the inode of the cache file in its memory.
#[derive(Debug)]
struct Known {
    id: BackingId,
    /// Whose kernel connection the id is of.
    door: Arc<()>,
}

/// The state of one mount.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) modes: Modes<Backing>,
    pub(crate) writers: Writers,
    pub(crate) requests: Requests,
    pub(crate) waits: Arc<Waits>,
    pub(crate) accesses: Arc<Accesses>,
    clock: Arc<dyn Clock>,
    pub(crate) errors: Errors,
    pub(crate) watch: Watch,
    /// Cache files that were handed to the kernel.
    pub(crate) handed: AtomicU64,
    identity: Arc<()>,
    runtime: Handle,
    tasks: TaskTracker,
    ended: CancellationToken,
}

impl Door {
    pub(crate) fn new(vfs: Arc<Vfs>, runtime: Handle, clock: Arc<dyn Clock>) -> Self {
        let accesses = Accesses::new(Arc::clone(&vfs), Arc::clone(&clock));
        Door {
            vfs,
            modes: Modes::new(BACKINGS_MAX),
            writers: Writers::default(),
            requests: Requests::default(),
            waits: Arc::default(),
            accesses: Arc::new(accesses),
            errors: Errors::new(Arc::clone(&clock)),
            watch: Watch::new(Arc::clone(&clock)),
            clock,
            handed: AtomicU64::new(0),
            identity: Arc::default(),
            runtime,
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Hands the answer of `vfs` to `answer`, now or when it is known. `asker` is the thread that
    /// waits for it.
    pub(crate) fn finish<T: Send + 'static>(
        &self,
        asker: u32,
        reply: Reply<T>,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        match reply {
            Reply::Ready(result) => answer(noted(result)),
            Reply::Pending(future) => self.later(asker, future, answer),
        }
    }

    /// Runs `future` on the runtime and hands what it becomes to `answer`.
    pub(crate) fn later<T: Send + 'static>(
        &self,
        asker: u32,
        future: impl Future<Output = Result<T>> + Send + 'static,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let begun = access::take();
        let span = self.accesses.span(begun.as_ref());
        self.later_in(span, begun, asker, future, answer);
    }

    /// The same of a request that was taken over before, in its span.
    fn later_in<T: Send + 'static>(
        &self,
        span: Span,
        begun: Option<Begun>,
        asker: u32,
        future: impl Future<Output = Result<T>> + Send + 'static,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let ended = self.ended.clone();
        let (clock, waits) = (Arc::clone(&self.clock), Arc::clone(&self.waits));
        let accesses = Arc::clone(&self.accesses);
        let began = clock.now();
        let task = async move {
            let result = ended
                .run_until_cancelled(unless_killed(asker, future))
                .await;
            let gone = || Err(Error::new(ErrorKind::Unavailable, "the mount has ended"));
            let waited = clock.now().saturating_duration_since(began);
            waits.add(waited);
            let result = result.unwrap_or_else(gone);
            trace::ended(&Span::current(), &result);
            if let Some(begun) = begun {
                accesses.answered_late(begun, waited, result.as_ref().err());
            }
            answer(result);
        };
        self.tasks.spawn_on(task.instrument(span), &self.runtime);
    }

    /// Runs something whose time says nothing of a storage.
    pub(crate) fn unmeasured(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Writes for as long as the mount is there what was denied again and again.
    pub(crate) fn tell_denials(self: &Arc<Self>) {
        let door = Arc::clone(self);
        self.unmeasured(async move {
            let window = || tokio::time::sleep(denials::WINDOW);
            while door.until_end(window()).await.is_some() {
                door.accesses.denials.flush();
            }
            door.accesses.denials.close();
        });
    }

    /// Waits no longer than the mount is there.
    pub(crate) async fn until_end<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.ended.run_until_cancelled(future).await
    }

    /// Hands the answer of something that changes the tree to `answer`. It runs to its end; only the
    /// wait for it ends with the program that asked.
    pub(crate) fn change<T: Send + 'static>(
        &self,
        asker: u32,
        reply: Reply<T>,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let future = match reply {
            Reply::Ready(result) => return answer(noted(result)),
            Reply::Pending(future) => future,
        };
        let begun = access::take();
        let span = self.accesses.span(begun.as_ref());
        let future = future.instrument(span.clone());
        let running = self.tasks.spawn_on(future, &self.runtime);
        let done = async {
            let aborted = |e| Error::internal("a change was aborted").with_source(e);
            running.await.map_err(aborted)?
        };
        self.later_in(span, begun, asker, done, answer);
    }

    /// Answers an open for writing.
    pub(crate) fn open_for_writing(
        self: &Arc<Self>,
        asker: u32,
        ino: u64,
        flags: i32,
        reply: ReplyOpen,
    ) {
        if !self.modes.open_for_writing(ino) {
            // The kernel reads the cache file of this inode itself, and would write to it too.
            // The name gets another inode, and the kernel looks it up again.
            self.vfs.renumber(Ino(ino));
            return reply.error(Errno::ESTALE);
        }
        let door = Arc::clone(self);
        let opened = self.vfs.open_write(Ino(ino), flags & libc::O_TRUNC != 0);
        self.change(asker, opened, move |result| match result {
            Ok(opened) => {
                door.writers.used(opened.handle.0, asker);
                door.watch.opened(&door.vfs, asker, ino, false);
                reply.opened(FileHandle(opened.handle.0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(e) => {
                drop(door.modes.release(ino));
                reply.error(door.fault(Operation::OpenWrite, ino, &e));
            }
        });
    }

    /// Answers the creation of a file.
    pub(crate) fn created(
        &self,
        asker: u32,
        parent: u64,
        result: Result<(Entry, Opened)>,
        reply: ReplyCreate,
    ) {
        let (entry, opened) = match result {
            Ok(both) => both,
            Err(e) => return reply.error(self.fault(Operation::Create, parent, &e)),
        };
        let handle = FileHandle(opened.handle.0);
        if !self.modes.open_for_writing(entry.ino.0) {
            self.vfs.renumber(entry.ino);
            self.vfs.release(opened.handle);
            self.vfs.forget(entry.ino, 1);
            return reply.error(Errno::ESTALE);
        }
        self.writers.used(handle.0, asker);
        self.watch.opened(&self.vfs, asker, entry.ino.0, false);
        let attributes = convert::attributes(&entry.attributes);
        let (ttl, flags) = (entry.entry_ttl, FopenFlags::FOPEN_KEEP_CACHE);
        reply.created(&ttl, &attributes, GENERATION, handle, flags);
    }

    /// Takes note of an error and returns its number.
    pub(crate) fn fault(&self, operation: Operation, inode: u64, error: &Error) -> Errno {
        access::failed(error);
        if !self.ended.is_cancelled() {
            self.errors.record(operation, inode, error);
        }
        Errno::from_i32(errno::of(error.kind()))
    }

    /// Answers an open of `ino` in the mode that its other opens have.
    pub(crate) fn opened(&self, asker: u32, ino: u64, result: Result<Opened>, reply: ReplyOpen) {
        let opened = match result {
            Ok(opened) => opened,
            Err(e) => return reply.error(self.fault(Operation::Open, ino, &e)),
        };
        let (handle, keep_cache) = (FileHandle(opened.handle.0), opened.keep_cache);
        // Nothing is written through this handle, so its close has nothing to report.
        let flags = FopenFlags::FOPEN_NOFLUSH;
        let make = opened.local_file.map(|file| || self.back(&reply, file));
        let serve = self.modes.open(ino, make);
        let by_kernel = matches!(serve, Serve::Passthrough(_));
        self.watch.opened(&self.vfs, asker, ino, by_kernel);
        match serve {
            Serve::Passthrough(backing) => {
                // The kernel refuses passthrough together with FOPEN_KEEP_CACHE.
                reply.opened_passthrough(handle, flags, &backing.known.id);
            }
            Serve::Cached if keep_cache => {
                reply.opened(handle, flags | FopenFlags::FOPEN_KEEP_CACHE);
            }
            Serve::Cached => reply.opened(handle, flags),
        }
    }

    /// Takes note that a handle of `ino` was released.
    pub(crate) fn released(&self, ino: u64) {
        drop(self.modes.release(ino));
    }

    /// Gives the kernel a cache file to read, or finds that it knows it already.
    fn back(&self, reply: &ReplyOpen, file: LocalFile) -> std::result::Result<Backing, Refusal> {
        let left = file
            .take_keepsake()
            .map(|thing| thing.downcast::<Arc<Known>>());
        if let Some(Ok(known)) = left
            && Arc::ptr_eq(&known.door, &self.identity)
        {
            let known = *known;
            return Ok(Backing { known, file });
        }
        let opened = file.open().ok_or(Refusal::Now)?;
        match reply.open_backing(opened.as_fd()) {
            Ok(id) => {
                self.handed.fetch_add(1, Relaxed);
                let door = Arc::clone(&self.identity);
                let known = Arc::new(Known { id, door });
                Ok(Backing { known, file })
            }
            Err(e) => Err(refusal(&e)),
        }
    }

    /// Drops the tasks that still wait: the kernel no longer wants their answers.
    pub(crate) fn end(&self) {
        self.ended.cancel();
        self.tasks.close();
    }
}

/// Takes note of a failure that is answered at once.
fn noted<T>(result: Result<T>) -> Result<T> {
    result.inspect_err(access::failed)
}

/// Tells what the kernel's refusal of a cache file means for the opens to come.
fn refusal(fault: &io::Error) -> Refusal {
    match fault.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOSPC | libc::EINTR) => {
            Refusal::Now
        }
        Some(libc::EPERM) => Refusal::ForGood(NO_PRIVILEGE.into()),
        Some(libc::ELOOP) => Refusal::ForGood(
            "the cache directory lies on a stacked file system, such as the overlay of a \
             container; put it on a disk or a volume"
                .into(),
        ),
        _ => Refusal::ForGood(format!("the kernel refused a cache file: {fault}")),
    }
}

/// Why passthrough is off for ordinary users.
pub(crate) const NO_PRIVILEGE: &str = "the daemon has no CAP_SYS_ADMIN; run it as root";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shortages_let_the_next_open_try_again() {
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            let refusal = refusal(&io::Error::from_raw_os_error(errno));
            assert!(matches!(refusal, Refusal::Now), "{errno}");
        }
        for (errno, word) in [
            (libc::EPERM, "CAP_SYS_ADMIN"),
            (libc::ELOOP, "overlay"),
            (libc::ENOTTY, "refused"),
            (libc::EOPNOTSUPP, "refused"),
        ] {
            let Refusal::ForGood(reason) = refusal(&io::Error::from_raw_os_error(errno)) else {
                panic!("{errno} does not pass by itself");
            };
            assert!(reason.contains(word), "{reason}");
        }
    }
}
