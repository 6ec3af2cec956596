// SPDX-License-Identifier: Apache-2.0
//! One function per request of the kernel: translate, call `vfs`, translate back.
//!
//! What this door does not need is answered with ENOSYS, after which the kernel stops asking. What
//! changes something runs to its end, also when the program that asked is killed meanwhile.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents,
    PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use types::{ByteRange, ErrorKind, Result};
use vfs::{Change, Creator, Entry, HandleId, Ino, ReadReply, Reply, XattrChange};

use crate::access::{self, Told};
use crate::convert;
use crate::door::{Door, NO_PRIVILEGE};
use crate::errno;
use crate::stats::Operation;

/// The largest read that the kernel sends in one request: 256 of its pages.
const READ_MAX: u32 = 1 << 20;

/// Requests that the kernel may have under way without a program waiting for each, such as
/// read-ahead: enough to hide the latency of a remote storage behind requests of 1 MiB.
const BACKGROUND_MAX: u16 = 64;

/// Inode numbers are not given out twice.
pub(crate) const GENERATION: Generation = Generation(0);

thread_local! {
    /// Hits are read into this, so that they allocate nothing; it grows to the largest read.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Answers the kernel.
#[derive(Debug)]
pub(crate) struct Ops {
    pub(crate) door: Arc<Door>,
    /// Whether passthrough was asked for.
    pub(crate) passthrough: bool,
    /// Whether the kernel is to open files without us.
    pub(crate) spare_opens: bool,
}

impl Ops {
    pub(crate) fn count(&self, operation: Operation) -> &Arc<Door> {
        self.door.requests.count(operation);
        &self.door
    }

    /// Says what a request is about, for who watches.
    pub(crate) fn tell(&self, operation: Operation, request: &Request, ino: INodeNo) -> Told<'_> {
        let who = (request.pid(), request.uid());
        self.door.accesses.begin(operation, ino.0, who)
    }

    /// Refuses what no storage can keep: with EROFS where nothing is written, else with EPERM.
    fn refuse_kind(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        (what, why): (&'static str, &str),
    ) -> Errno {
        let _told = self.tell(Operation::Other, request, parent).name(name);
        let door = self.count(Operation::Other);
        match door.vfs.check_writable(Ino(parent.0)) {
            Err(error) => {
                access::failed(&error);
                Errno::from_i32(errno::of(error.kind()))
            }
            Ok(()) => {
                access::refused(what, why);
                Errno::EPERM
            }
        }
    }

    /// Says that this kind of request is not needed, after which the kernel stops sending it.
    fn refuse_other(&self) -> Errno {
        self.count(Operation::Other);
        Errno::ENOSYS
    }

    fn offer_passthrough(&self, config: &mut KernelConfig) {
        let modes = &self.door.modes;
        if !self.passthrough {
            return modes.disable("it was switched off");
        }
        if self.spare_opens {
            return modes.disable("opens are spared: the kernel asks us for bytes and keeps them");
        }
        if !has_privilege() {
            return modes.disable(NO_PRIVILEGE);
        }
        // A depth of 1: cache files lie on a plain file system, and an overlay may cover our mount.
        let offered = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok();
        match offered {
            true => modes.enable(),
            false => modes.disable(
                "the kernel does not offer it; Linux 6.9 or newer with CONFIG_FUSE_PASSTHROUGH does",
            ),
        }
    }
}

/// Returns whether this process may give files to the kernel.
fn has_privilege() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Returns who makes something, and its mode.
fn creator(request: &Request, mode: u32) -> Creator {
    Creator {
        mode: mode & 0o7777,
        uid: request.uid(),
        gid: request.gid(),
    }
}

/// Returns what answers a change that has nothing to tell.
fn answer_empty(
    door: &Arc<Door>,
    operation: Operation,
    ino: INodeNo,
    reply: ReplyEmpty,
) -> impl FnOnce(Result<()>) + Send + 'static {
    let door = Arc::clone(door);
    move |result| match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(door.fault(operation, ino.0, &e)),
    }
}

fn answer_made(
    door: &Door,
    operation: Operation,
    parent: u64,
    result: Result<Entry>,
    reply: ReplyEntry,
) {
    match result {
        Ok(entry) => {
            let attributes = convert::attributes(&entry.attributes);
            reply.entry_with_ttls(&entry.attr_ttl, &entry.entry_ttl, &attributes, GENERATION);
        }
        Err(e) => reply.error(door.fault(operation, parent, &e)),
    }
}

fn answer_entry(door: &Door, parent: u64, result: Result<Entry>, reply: ReplyEntry) {
    match result {
        Ok(entry) => {
            let attributes = convert::attributes(&entry.attributes);
            reply.entry_with_ttls(&entry.attr_ttl, &entry.entry_ttl, &attributes, GENERATION);
        }
        Err(e) if e.kind() == ErrorKind::NotFound => answer_absent(door, parent, reply),
        Err(e) => reply.error(door.fault(Operation::Lookup, parent, &e)),
    }
}

/// Says that a name is absent, and for how long the kernel need not ask again.
fn answer_absent(door: &Door, parent: u64, reply: ReplyEntry) {
    let ttl = door.vfs.negative_ttl(Ino(parent));
    match ttl.is_zero() {
        true => reply.error(Errno::ENOENT),
        // Inode number zero means "absent" to the kernel.
        false => reply.entry_with_ttls(&Duration::ZERO, &ttl, &convert::absent(), GENERATION),
    }
}

impl Filesystem for Ops {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_ATOMIC_O_TRUNC;
        let refused = |what: &str| std::io::Error::other(format!("the kernel refused {what}"));
        let granted = wanted & config.capabilities();
        config
            .add_capabilities(granted)
            .map_err(|_| refused("what it offered"))?;
        // Sets the number of pages of a request, of reads too.
        config
            .set_max_write(READ_MAX)
            .map_err(|_| refused("requests of 1 MiB"))?;
        config
            .set_max_background(BACKGROUND_MAX)
            .map_err(|_| refused("background requests"))?;
        self.offer_passthrough(config);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let door = Arc::clone(self.count(Operation::Lookup));
        let mut told = self.tell(Operation::Lookup, request, parent);
        let found = self.door.vfs.lookup(Ino(parent.0), name.as_bytes());
        if self.door.accesses.is_watched() || matches!(found, Reply::Pending(_)) {
            told = told.name(name);
        }
        let is_long = name.len() > vfs::NEW_NAME_MAX as usize;
        self.door
            .finish(request.pid(), found, move |result| match result {
                // The kernel looks names up before it makes them.
                Err(e) if is_long && e.kind() == ErrorKind::NotFound => {
                    reply.error(Errno::ENAMETOOLONG);
                }
                result => answer_entry(&door, parent.0, result, reply),
            });
        drop(told);
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.count(Operation::Forget).vfs.forget(Ino(ino.0), count);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _told = self.tell(Operation::GetAttr, request, ino);
        let door = self.count(Operation::GetAttr);
        match door.vfs.attributes(Ino(ino.0)) {
            Ok(attributes) => {
                let ttl = door.vfs.attributes_ttl(Ino(ino.0));
                reply.attr(&ttl, &convert::attributes(&attributes));
            }
            Err(e) => reply.error(door.fault(Operation::GetAttr, ino.0, &e)),
        }
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let _told = self.tell(Operation::ReadLink, request, ino);
        let door = Arc::clone(self.count(Operation::ReadLink));
        let target = self.door.vfs.read_link(Ino(ino.0));
        self.door
            .finish(request.pid(), target, move |result| match result {
                Ok(target) => reply.data(&target),
                Err(e) => reply.error(door.fault(Operation::ReadLink, ino.0, &e)),
            });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if vfs::is_virtual(Ino(ino.0)) {
            let _told = self.tell(Operation::Open, request, ino);
            return self.door.open_virtual(ino.0, flags.0, reply);
        }
        // Above all, a writable open must never reach a cache file.
        if flags.0 & libc::O_ACCMODE != libc::O_RDONLY || flags.0 & libc::O_TRUNC != 0 {
            let _told = self.tell(Operation::OpenWrite, request, ino);
            self.count(Operation::OpenWrite);
            return self
                .door
                .open_for_writing(request.pid(), ino.0, flags.0, reply);
        }
        let _told = self.tell(Operation::Open, request, ino);
        let door = Arc::clone(self.count(Operation::Open));
        if self.spare_opens {
            // From here on the kernel opens files by itself, and closes them.
            return reply.error(Errno::ENOSYS);
        }
        let opened = self.door.vfs.open(Ino(ino.0));
        let asker = request.pid();
        self.door.finish(asker, opened, move |result| {
            door.opened(asker, ino.0, result, reply)
        });
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _told = self
            .tell(Operation::Read, request, ino)
            .range(offset, u64::from(size));
        let door = self.count(Operation::Read);
        let range = ByteRange::new(offset, u64::from(size));
        if vfs::is_virtual(Ino(ino.0)) {
            let asker = request.pid();
            return door.read_virtual(asker, (ino.0, HandleId(handle.0)), range, reply);
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            let read = match self.spare_opens {
                true => door.vfs.read_unopened(Ino(ino.0), range, buffer),
                false => door.vfs.read(HandleId(handle.0), range, buffer),
            };
            match read {
                ReadReply::Ready(Ok(())) => {
                    door.watch
                        .read(&door.vfs, request.pid(), ino.0, buffer.len());
                    reply.data(buffer);
                }
                ReadReply::Ready(Err(e)) => reply.error(door.fault(Operation::Read, ino.0, &e)),
                ReadReply::Pending(bytes) => {
                    let door = Arc::clone(door);
                    let asker = request.pid();
                    self.door.later(asker, bytes, move |result| match result {
                        Ok(bytes) => {
                            door.watch.read(&door.vfs, asker, ino.0, bytes.len());
                            reply.data(&bytes);
                        }
                        Err(e) => reply.error(door.fault(Operation::Read, ino.0, &e)),
                    });
                }
            }
        });
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _told = self.tell(Operation::Release, request, ino);
        let door = self.count(Operation::Release);
        if vfs::is_virtual(Ino(ino.0)) {
            door.vfs.release_virtual(HandleId(handle.0));
            return reply.ok();
        }
        door.writers.released(handle.0);
        door.vfs.release(HandleId(handle.0));
        door.released(ino.0);
        reply.ok();
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _told = self.tell(Operation::OpenDir, request, ino);
        let door = Arc::clone(self.count(Operation::OpenDir));
        if vfs::is_virtual(Ino(ino.0)) {
            // No handle of a directory has this number.
            return reply.opened(FileHandle(0), FopenFlags::empty());
        }
        let opened = self.door.vfs.open_dir(Ino(ino.0));
        self.door
            .finish(request.pid(), opened, move |result| match result {
                // The kernel does not keep listings: it could not tell when one is out of date.
                Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
                Err(e) => reply.error(door.fault(Operation::OpenDir, ino.0, &e)),
            });
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        cookie: u64,
        mut reply: ReplyDirectory,
    ) {
        let _told = self.tell(Operation::ReadDir, request, ino);
        let door = self.count(Operation::ReadDir);
        let mut add = |entry: vfs::DirEntry<'_>| {
            let name = OsStr::from_bytes(entry.name);
            let kind = convert::kind(entry.kind);
            !reply.add(INodeNo(entry.ino.0), entry.next_cookie, kind, name)
        };
        if vfs::is_virtual(Ino(ino.0)) {
            door.vfs.read_virtual_dir(cookie, &mut add);
            return reply.ok();
        }
        let read = door.vfs.read_dir(HandleId(handle.0), cookie, &mut add);
        match read {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(door.fault(Operation::ReadDir, ino.0, &e)),
        }
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        cookie: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _told = self.tell(Operation::ReadDirPlus, request, ino);
        let door = self.count(Operation::ReadDirPlus);
        if vfs::is_virtual(Ino(ino.0)) {
            door.vfs.read_virtual_dir(cookie, &mut |entry| {
                let Ok(attributes) = door.vfs.attributes(entry.ino) else {
                    return true;
                };
                let (ino, name) = (INodeNo(entry.ino.0), OsStr::from_bytes(entry.name));
                let (ttl, attributes) = (Duration::ZERO, convert::attributes(&attributes));
                !reply.add(ino, entry.next_cookie, name, &ttl, &attributes, GENERATION)
            });
            return reply.ok();
        }
        let read = door
            .vfs
            .read_dir_plus(HandleId(handle.0), cookie, &mut |entry, known| {
                let attributes = convert::attributes(&known.attributes);
                // One time for both, so the shorter.
                let ttl = known.entry_ttl.min(known.attr_ttl);
                let name = OsStr::from_bytes(entry.name);
                let ino = INodeNo(entry.ino.0);
                !reply.add(ino, entry.next_cookie, name, &ttl, &attributes, GENERATION)
            });
        match read {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(door.fault(Operation::ReadDirPlus, ino.0, &e)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.count(Operation::ReleaseDir)
            .vfs
            .release_dir(HandleId(handle.0));
        reply.ok();
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let _told = self.tell(Operation::StatFs, request, ino);
        let door = Arc::clone(self.count(Operation::StatFs));
        let told = self.door.vfs.stat_fs(Ino(ino.0));
        self.door.finish(request.pid(), told, move |result| {
            let stats = match result {
                Ok(stats) => stats,
                Err(e) => return reply.error(door.fault(Operation::StatFs, ino.0, &e)),
            };
            let (free, block) = (stats.blocks_free, stats.block_size);
            let (files, files_free) = (stats.files, stats.files_free);
            reply.statfs(
                stats.blocks,
                free,
                free,
                files,
                files_free,
                block,
                stats.name_max,
                block,
            );
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let _told = self.tell(Operation::GetXattr, request, ino);
        self.get_xattr(request, ino, name, size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _told = self.tell(Operation::ListXattr, request, ino);
        self.list_xattr(request, ino, size, reply);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(self.refuse_other());
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        let _told = self.tell(Operation::Flush, request, ino);
        let door = self.count(Operation::Flush);
        if self.spare_opens {
            return reply.error(Errno::ENOSYS);
        }
        if !door.writers.is_close(handle.0, request.pid()) {
            return reply.ok();
        }
        let flushed = door.vfs.flush(HandleId(handle.0));
        self.door.change(
            request.pid(),
            flushed,
            answer_empty(&self.door, Operation::Flush, ino, reply),
        );
    }

    fn fsync(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _told = self.tell(Operation::Fsync, request, ino);
        let synced = self.count(Operation::Fsync).vfs.fsync(HandleId(handle.0));
        self.door.change(
            request.pid(),
            synced,
            answer_empty(&self.door, Operation::Fsync, ino, reply),
        );
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.count(Operation::Fsync).vfs.fsync_dir();
        self.door.change(
            request.pid(),
            synced,
            answer_empty(&self.door, Operation::Fsync, ino, reply),
        );
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let door = self.count(Operation::Other);
        if self.spare_opens {
            // The kernel knows where data begins and ends in a file without holes.
            return reply.error(Errno::ENOSYS);
        }
        let (Ok(offset), libc::SEEK_DATA | libc::SEEK_HOLE) = (u64::try_from(offset), whence)
        else {
            return reply.error(Errno::EINVAL);
        };
        match door
            .vfs
            .seek(HandleId(handle.0), offset, whence == libc::SEEK_DATA)
        {
            Ok(found) => reply.offset(found.cast_signed()),
            Err(e) if e.kind() == ErrorKind::NotFound => reply.error(Errno::ENXIO),
            Err(e) => reply.error(door.fault(Operation::Other, ino.0, &e)),
        }
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        self.count(Operation::Other);
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(self.refuse_other());
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(self.refuse_other());
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _told = self.tell(Operation::SetAttr, request, ino);
        let door = Arc::clone(self.count(Operation::SetAttr));
        let change = Change {
            size,
            mode,
            uid,
            gid,
            accessed: accessed.map(convert::wanted_time),
            modified: modified.map(convert::wanted_time),
        };
        let changed = self.door.vfs.set_attributes(Ino(ino.0), change);
        self.door
            .change(request.pid(), changed, move |result| match result {
                Ok(attributes) => {
                    let ttl = door.vfs.attributes_ttl(Ino(ino.0));
                    reply.attr(&ttl, &convert::attributes(&attributes));
                }
                Err(e) => reply.error(door.fault(Operation::SetAttr, ino.0, &e)),
            });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG {
            let why = (
                "mknod",
                "a storage keeps files, directories and symbolic links only",
            );
            return reply.error(self.refuse_kind(request, (parent, name), why));
        }
        let _told = self.tell(Operation::Create, request, parent).name(name);
        let door = Arc::clone(self.count(Operation::Create));
        let made = self
            .door
            .vfs
            .make_file(Ino(parent.0), name.as_bytes(), creator(request, mode));
        self.door.change(request.pid(), made, move |result| {
            answer_made(&door, Operation::Create, parent.0, result, reply);
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let _told = self.tell(Operation::MakeDir, request, parent).name(name);
        let door = Arc::clone(self.count(Operation::MakeDir));
        let made = self
            .door
            .vfs
            .make_dir(Ino(parent.0), name.as_bytes(), creator(request, mode));
        self.door.change(request.pid(), made, move |result| {
            answer_made(&door, Operation::MakeDir, parent.0, result, reply);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _told = self.tell(Operation::Remove, request, parent).name(name);
        let removed = self
            .count(Operation::Remove)
            .vfs
            .unlink(Ino(parent.0), name.as_bytes());
        self.door.change(
            request.pid(),
            removed,
            answer_empty(&self.door, Operation::Remove, parent, reply),
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _told = self.tell(Operation::Remove, request, parent).name(name);
        let removed = self
            .count(Operation::Remove)
            .vfs
            .remove_dir(Ino(parent.0), name.as_bytes());
        self.door.change(
            request.pid(),
            removed,
            answer_empty(&self.door, Operation::Remove, parent, reply),
        );
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        points_to: &Path,
        reply: ReplyEntry,
    ) {
        let _told = self.tell(Operation::MakeLink, request, parent).name(name);
        let door = Arc::clone(self.count(Operation::MakeLink));
        let made = self.door.vfs.make_link(
            Ino(parent.0),
            name.as_bytes(),
            points_to.as_os_str().as_bytes(),
            creator(request, 0o777),
        );
        self.door
            .change(request.pid(), made, move |result| match result {
                // What symlink(2) says of a file system without links.
                Err(e) if e.kind() == ErrorKind::Unsupported => reply.error(Errno::EPERM),
                result => answer_made(&door, Operation::MakeLink, parent.0, result, reply),
            });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _told = self.tell(Operation::Rename, request, parent).name(name);
        let door = self.count(Operation::Rename);
        if !RenameFlags::RENAME_NOREPLACE.contains(flags) {
            return reply.error(Errno::EINVAL);
        }
        let keeps_other = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let from = (Ino(parent.0), name.as_bytes());
        let to = (Ino(new_parent.0), new_name.as_bytes());
        let renamed = door.vfs.rename(from, to, keeps_other);
        self.door.change(
            request.pid(),
            renamed,
            answer_empty(&self.door, Operation::Rename, parent, reply),
        );
    }

    fn link(
        &self,
        request: &Request,
        _: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let why = ("link", "no storage keeps hard links");
        reply.error(self.refuse_kind(request, (parent, name), why));
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _told = self
            .tell(Operation::Write, request, ino)
            .range(offset, bytes.len() as u64);
        let door = Arc::clone(self.count(Operation::Write));
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        door.writers.used(handle.0, request.pid());
        door.watch
            .written(&door.vfs, request.pid(), ino.0, bytes.len());
        let written = self.door.vfs.write(HandleId(handle.0), offset, bytes);
        self.door
            .change(request.pid(), written, move |result| match result {
                Ok(()) => reply.written(len),
                Err(e) => reply.error(door.fault(Operation::Write, ino.0, &e)),
            });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _told = self.tell(Operation::Create, request, parent).name(name);
        let door = Arc::clone(self.count(Operation::Create));
        let is_exclusive = flags & libc::O_EXCL != 0;
        let asker = request.pid();
        let creator = creator(request, mode);
        let made = self
            .door
            .vfs
            .create(Ino(parent.0), name.as_bytes(), creator, is_exclusive);
        self.door.change(request.pid(), made, move |result| {
            door.created(asker, parent.0, result, reply);
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let _told = self.tell(Operation::SetAttr, request, ino);
        let value = value.to_vec();
        let change = match flags {
            libc::XATTR_CREATE => XattrChange::Create(value),
            libc::XATTR_REPLACE => XattrChange::Replace(value),
            _ => XattrChange::Set(value),
        };
        self.change_xattr(request, ino, name, change, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _told = self.tell(Operation::SetAttr, request, ino);
        self.change_xattr(request, ino, name, XattrChange::Remove, reply);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _told = self.tell(Operation::Write, request, ino).range(offset, len);
        let door = self.count(Operation::Write);
        let range = ByteRange::new(offset, len);
        let done = door
            .vfs
            .allocate(HandleId(handle.0), mode.cast_unsigned(), range);
        self.door.change(
            request.pid(),
            done,
            answer_empty(&self.door, Operation::Write, ino, reply),
        );
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel then copies through its page cache.
        reply.error(self.refuse_other());
    }
}
