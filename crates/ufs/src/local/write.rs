// SPDX-License-Identifier: Apache-2.0
//! Writes below a local directory: whole files under hidden names, then one rename.
//!
//! A file that is written lies beside the one that it becomes (`temporary`), is synced, renamed, and
//! its directory is synced: readers see the old file or the new one, also after a power cut. That
//! nothing is there is checked by the kernel with the rename, or with a link where the file system
//! has no such rename; that a version is there is checked right before it.
//!
//! The answer's version is believed at once, although another program could still change the file
//! in place within the same tick of the clock: waiting for the tick would cost each write 20 ms.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use types::meta::Owner;
use types::{Deadline, Error, ErrorKind, Name, ObjectMeta, ObjectPath, Result, VersionTag};

use super::upload::LocalUpload;
use super::version::{meta_of_own, tag_of};
use super::{Inner, Local, check_version, io_error, open_version};
use crate::counters::count;
use crate::temporary::{check_name, is_temporary, temporary_name};
use crate::{Abilities, Expect, FileAttributes, UnderWriter, Upload};

/// What a new file or directory may be used for, less the daemon's mask, when nobody says.
const FILE_MODE: Mode = Mode::from_bits_retain(0o666);
const DIRECTORY_MODE: Mode = Mode::from_bits_retain(0o777);
/// As much as a kernel copies with one call.
const COPY_PIECE: usize = 1 << 30;
/// What is copied by hand where the kernel does not.
const READ_PIECE: usize = 1 << 20;

#[async_trait]
impl UnderWriter for Local {
    fn abilities(&self) -> Abilities {
        Abilities {
            directories: true,
            rename: true,
            attributes: true,
            symlinks: true,
            conditions: false,
            put_max: 1 << 40,
            parts_max: u32::MAX,
            part_min: 1,
            part_max: 1 << 40,
            parallel_parts: true,
        }
    }

    async fn put(
        &self,
        path: &ObjectPath,
        bytes: Bytes,
        expect: &Expect,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = self.0.name("write", path);
        count(&self.0.counters.put);
        let (path, expect, attributes) = (path.clone(), expect.clone(), *attributes);
        let write = move |inner: &Inner| {
            let draft = Draft::new(inner, &path)?;
            write_at(&draft.file, &bytes, 0)?;
            let written = draft.publish(inner, &path, &expect, &attributes)?;
            inner.wrote(bytes.len() as u64);
            Ok(written)
        };
        self.0.work(&what, deadline, write).await
    }

    async fn begin(
        &self,
        path: &ObjectPath,
        part_size: u64,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<Box<dyn Upload>> {
        let upload = LocalUpload::begin(&self.0, path, part_size, attributes, deadline).await?;
        Ok(Box::new(upload))
    }

    async fn delete(&self, path: &ObjectPath, expect: &Expect, deadline: Deadline) -> Result<()> {
        let what = self.0.name("remove", path);
        count(&self.0.counters.delete);
        let (path, expect) = (path.clone(), expect.clone());
        let delete = move |inner: &Inner| {
            let (dir, name) = match parent(inner, &path) {
                Ok(parent) => parent,
                Err(error) if is_absent(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            if let Expect::Version(tag) = &expect {
                match inner.open(&path, OFlags::PATH) {
                    Ok(file) => check_version(&file, tag)?,
                    Err(error) if is_absent(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            match rustix::fs::unlinkat(&dir, os(&name), AtFlags::empty()) {
                Ok(()) => sync(&dir),
                Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(write_error("remove", errno)),
            }
        };
        self.0.work(&what, deadline, delete).await
    }

    async fn create_dir(
        &self,
        path: &ObjectPath,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = self.0.name("make directory", path);
        count(&self.0.counters.put);
        let (path, attributes) = (path.clone(), *attributes);
        let create = move |inner: &Inner| {
            if path.is_root() {
                return Err(Error::new(ErrorKind::AlreadyExists, "the root is there"));
            }
            check_name(&path)?;
            let (dir, name) = parent(inner, &path)?;
            rustix::fs::mkdirat(&dir, os(&name), DIRECTORY_MODE)
                .map_err(|errno| write_error("make", errno))?;
            let made = inner.open(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            set_all(&made, &attributes, Chown::IfAllowed)?;
            sync(&made)?;
            sync(&dir)?;
            look(&made)
        };
        self.0.work(&what, deadline, create).await
    }

    async fn remove_dir(&self, path: &ObjectPath, deadline: Deadline) -> Result<()> {
        let what = self.0.name("remove directory", path);
        count(&self.0.counters.delete);
        let path = path.clone();
        let remove = move |inner: &Inner| {
            let (dir, name) = match parent(inner, &path) {
                Ok(parent) => parent,
                Err(error) if is_absent(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            let remove = || rustix::fs::unlinkat(&dir, os(&name), AtFlags::REMOVEDIR);
            match remove() {
                Ok(()) => return sync(&dir),
                Err(Errno::NOENT) => return Ok(()),
                // Files on their way do not show, so they do not keep it.
                Err(Errno::NOTEMPTY | Errno::EXIST) => remove_unfinished(inner, &path)?,
                Err(errno) => return Err(write_error("remove", errno)),
            }
            remove().map_err(|errno| match errno {
                Errno::EXIST => write_error("remove", Errno::NOTEMPTY),
                errno => write_error("remove", errno),
            })?;
            sync(&dir)
        };
        self.0.work(&what, deadline, remove).await
    }

    async fn copy(
        &self,
        from: &ObjectPath,
        tag: &VersionTag,
        to: &ObjectPath,
        expect: &Expect,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = format!("{} to {to}", self.0.name("copy", from));
        count(&self.0.counters.copy);
        let (from, to, tag, expect) = (from.clone(), to.clone(), tag.clone(), expect.clone());
        let copy = move |inner: &Inner| {
            let source = open_version(inner, &from, &tag)?;
            let draft = Draft::new(inner, &to)?;
            copy_bytes(&source, &draft.file)?;
            check_version(&source, &tag)?;
            let stat = rustix::fs::fstat(&source).map_err(|errno| io_error("stat", errno))?;
            let attributes = FileAttributes {
                owner: meta_of_own(&stat).and_then(|meta| meta.owner),
                mtime_ns: Some(tag.mtime_ns),
            };
            draft.publish(inner, &to, &expect, &attributes)
        };
        self.0.work(&what, deadline, copy).await
    }

    async fn rename(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = format!("{} to {to}", self.0.name("rename", from));
        count(&self.0.counters.copy);
        let (from, to) = (from.clone(), to.clone());
        let rename = move |inner: &Inner| {
            check_name(&to)?;
            let (from_dir, from_name) = parent(inner, &from)?;
            let (to_dir, to_name) = parent(inner, &to)?;
            let moved = inner.open(&from, OFlags::PATH)?;
            rustix::fs::renameat(&from_dir, os(&from_name), &to_dir, os(&to_name)).map_err(
                |errno| match errno {
                    Errno::EXIST => write_error("rename", Errno::NOTEMPTY),
                    errno => write_error("rename", errno),
                },
            )?;
            sync(&to_dir)?;
            sync(&from_dir)?;
            look(&moved)
        };
        self.0.work(&what, deadline, rename).await
    }

    async fn set_attributes(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = self.0.name("change attributes of", path);
        count(&self.0.counters.other);
        let (path, tag, attributes) = (path.clone(), tag.clone(), *attributes);
        let set = move |inner: &Inner| {
            let file = inner.open(&path, OFlags::PATH)?;
            let stat = rustix::fs::fstat(&file).map_err(|errno| io_error("stat", errno))?;
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            if kind != rustix::fs::FileType::Directory && tag_of(&stat) != tag {
                return Err(Error::new(ErrorKind::Stale, "the file changed"));
            }
            if kind == rustix::fs::FileType::Symlink {
                set_of_link(&file, &attributes, Chown::Always)?;
            } else {
                set_by_handle(&file, &attributes)?;
                let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                // What the daemon may not read it cannot sync; the change is in order all the same.
                if let Ok(readable) = inner.open(&path, flags) {
                    sync(&readable)?;
                }
            }
            look(&file)
        };
        self.0.work(&what, deadline, set).await
    }

    async fn symlink(
        &self,
        path: &ObjectPath,
        target: &[u8],
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta> {
        let what = self.0.name("make link", path);
        count(&self.0.counters.put);
        let (path, target, attributes) = (path.clone(), target.to_vec(), *attributes);
        let link = move |inner: &Inner| {
            check_name(&path)?;
            let (dir, name) = parent(inner, &path)?;
            rustix::fs::symlinkat(OsStr::from_bytes(&target), &dir, os(&name))
                .map_err(|errno| write_error("make", errno))?;
            let made = inner.open(&path, OFlags::PATH)?;
            set_of_link(&made, &attributes, Chown::IfAllowed)?;
            sync(&dir)?;
            look(&made)
        };
        self.0.work(&what, deadline, link).await
    }
}

impl Inner {
    /// Counts bytes that were written.
    pub(super) fn wrote(&self, bytes: u64) {
        let written = &self.counters.bytes_written;
        written.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A file on its way, under a hidden name. Removed when it is dropped before its end.
#[derive(Debug)]
pub(super) struct Draft {
    dir: OwnedFd,
    /// None when it has got its name, or is left to be removed later.
    name: Option<String>,
    pub(super) file: OwnedFd,
}

impl Draft {
    /// Makes an empty one, and the directories that it needs.
    pub(super) fn new(inner: &Inner, path: &ObjectPath) -> Result<Self> {
        check_name(path)?;
        let (parent, _) = path.split().ok_or_else(is_the_root)?;
        let dir = make_dirs(inner, &parent)?;
        let name = temporary_name();
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, name.as_str(), flags, FILE_MODE)
            .map_err(|errno| write_error("make a file", errno))?;
        Ok(Draft {
            dir,
            name: Some(name),
            file,
        })
    }

    /// Gives it its attributes and its name, and syncs both.
    pub(super) fn publish(
        mut self,
        inner: &Inner,
        path: &ObjectPath,
        expect: &Expect,
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        let (parent, name) = path.split().ok_or_else(is_the_root)?;
        let to = make_dirs(inner, &parent)?;
        let old = match inner.open(path, OFlags::PATH) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let old = old.as_ref().map(rustix::fs::fstat).transpose();
        let old = old.map_err(|errno| io_error("stat", errno))?;
        check_expected(expect, old.as_ref())?;
        let as_before = || meta_of_own(old.as_ref()?)?.owner;
        let attributes = FileAttributes {
            owner: attributes.owner.or_else(as_before),
            ..*attributes
        };
        set_all(&self.file, &attributes, Chown::IfAllowed)?;
        sync(&self.file)?;
        let draft = self
            .name
            .take()
            .ok_or_else(|| Error::internal("published twice"))?;
        let renamed = match expect {
            Expect::Absent => rename_new(&self.dir, &draft, &to, &name),
            Expect::Anything | Expect::Version(_) => {
                rustix::fs::renameat(&self.dir, draft.as_str(), &to, os(&name))
            }
        };
        if let Err(errno) = renamed {
            self.name = Some(draft);
            return Err(write_error("rename", errno));
        }
        sync(&to)?;
        look(&self.file)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else {
            return;
        };
        if let Err(errno) = rustix::fs::unlinkat(&self.dir, name.as_str(), AtFlags::empty()) {
            tracing::debug!(%errno, name, "a file on its way is left for a listing to remove");
        }
    }
}

/// Checks what is there now against what was expected.
fn check_expected(expect: &Expect, old: Option<&Stat>) -> Result<()> {
    let stale = |why: &str| Err(Error::new(ErrorKind::Stale, why));
    match (expect, old) {
        (Expect::Anything, _) | (Expect::Absent, None) => Ok(()),
        (Expect::Absent, Some(_)) => Err(taken()),
        (Expect::Version(_), None) => stale("the file is gone"),
        (Expect::Version(tag), Some(old)) if tag_of(old) != *tag => stale("the file changed"),
        (Expect::Version(_), Some(_)) => Ok(()),
    }
}

/// Renames a file to a name that nothing has.
fn rename_new(
    dir: &OwnedFd,
    draft: &str,
    to: &OwnedFd,
    name: &Name,
) -> std::result::Result<(), Errno> {
    match rustix::fs::renameat_with(dir, draft, to, os(name), RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        done => return done,
    }
    // NFS and others: a link takes no name that is taken.
    match rustix::fs::linkat(dir, draft, to, os(name), AtFlags::empty()) {
        // The answer to a link that was made may be lost, and the client asks again.
        Err(Errno::EXIST) if links(dir, draft)? == 2 => {}
        linked => linked?,
    }
    rustix::fs::unlinkat(dir, draft, AtFlags::empty())
}

fn links(dir: &OwnedFd, name: &str) -> std::result::Result<u64, Errno> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(stat.st_nlink)
}

/// Opens the directory that a name is in.
fn parent(inner: &Inner, path: &ObjectPath) -> Result<(OwnedFd, Name)> {
    let (parent, name) = path.split().ok_or_else(is_the_root)?;
    let dir = inner.open(&parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
    Ok((dir, name))
}

/// Opens a directory, which is made with those above it when it is not there.
fn make_dirs(inner: &Inner, path: &ObjectPath) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let (error, above, name) = match (inner.open(path, flags), path.split()) {
        (Err(error), Some((above, name))) => (error, above, name),
        (opened, _) => return opened,
    };
    if error.kind() != ErrorKind::NotFound {
        return Err(error);
    }
    let above = make_dirs(inner, &above)?;
    match rustix::fs::mkdirat(&above, os(&name), DIRECTORY_MODE) {
        Ok(()) => sync(&above)?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(write_error("make a directory", errno)),
    }
    inner.open(path, flags)
}

/// Removes the files on their way from a directory that has nothing else.
fn remove_unfinished(inner: &Inner, path: &ObjectPath) -> Result<()> {
    let dir = inner.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = rustix::fs::Dir::read_from(&dir).map_err(|errno| io_error("list", errno))?;
    let mut unfinished = Vec::new();
    while let Some(entry) = names.read() {
        let entry = entry.map_err(|errno| io_error("list", errno))?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name if is_temporary(name) => unfinished.push(entry.file_name().to_owned()),
            _ => return Err(write_error("remove", Errno::NOTEMPTY)),
        }
    }
    for name in unfinished {
        match rustix::fs::unlinkat(&dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(write_error("remove", errno)),
        }
    }
    Ok(())
}

/// Writes all bytes at an offset.
pub(super) fn write_at(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<()> {
    let (mut rest, mut at) = (bytes, offset);
    while !rest.is_empty() {
        match rustix::io::pwrite(file, rest, at) {
            Ok(0) => return Err(write_error("write", Errno::NOSPC)),
            Ok(written) => {
                rest = &rest[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(write_error("write", errno)),
        }
    }
    Ok(())
}

fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let (mut read_at, mut written_at) = (0, 0);
    loop {
        let (in_at, out_at) = (Some(&mut read_at), Some(&mut written_at));
        match rustix::fs::copy_file_range(from, in_at, to, out_at, COPY_PIECE) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => break,
            Err(errno) => return Err(write_error("copy", errno)),
        }
    }
    let mut buffer = vec![0; READ_PIECE];
    loop {
        match rustix::io::pread(from, &mut buffer[..], read_at) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                write_at(to, &buffer[..read], read_at)?;
                read_at += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io_error("read", errno)),
        }
    }
}

/// What to do where the daemon may not give files to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chown {
    /// Fail.
    Always,
    /// Leave the file to the daemon; the answer tells.
    IfAllowed,
}

/// Sets what is given, of a file that is open.
fn set_all(file: &OwnedFd, attributes: &FileAttributes, chown: Chown) -> Result<()> {
    if let Some(owner) = attributes.owner {
        set_owner(file.as_fd(), &owner, chown)?;
        // Afterwards, since a change of owner takes bits away.
        let mode = Mode::from_raw_mode(owner.mode & 0o7777);
        rustix::fs::fchmod(file, mode).map_err(|errno| write_error("change mode", errno))?;
    }
    if let Some(mtime_ns) = attributes.mtime_ns {
        let times = times(mtime_ns);
        rustix::fs::futimens(file, &times).map_err(|errno| write_error("change time", errno))?;
    }
    Ok(())
}

/// Sets what is given, of a file or directory that is only held, not open.
fn set_by_handle(file: &OwnedFd, attributes: &FileAttributes) -> Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    if let Some(owner) = attributes.owner {
        set_owner(file.as_fd(), &owner, Chown::Always)?;
        let mode = Mode::from_raw_mode(owner.mode & 0o7777);
        rustix::fs::chmod(path.as_str(), mode)
            .map_err(|errno| write_error("change mode", errno))?;
    }
    if let Some(mtime_ns) = attributes.mtime_ns {
        let (times, flags) = (times(mtime_ns), AtFlags::empty());
        rustix::fs::utimensat(rustix::fs::CWD, path.as_str(), &times, flags)
            .map_err(|errno| write_error("change time", errno))?;
    }
    Ok(())
}

/// Sets what a symbolic link has: no mode.
fn set_of_link(link: &OwnedFd, attributes: &FileAttributes, chown: Chown) -> Result<()> {
    if let Some(owner) = attributes.owner {
        set_owner(link.as_fd(), &owner, chown)?;
    }
    if let Some(mtime_ns) = attributes.mtime_ns {
        rustix::fs::utimensat(link, "", &times(mtime_ns), AtFlags::EMPTY_PATH)
            .map_err(|errno| write_error("change time", errno))?;
    }
    Ok(())
}

fn set_owner(file: BorrowedFd<'_>, owner: &Owner, chown: Chown) -> Result<()> {
    let stat = rustix::fs::fstat(file).map_err(|errno| io_error("stat", errno))?;
    if (stat.st_uid, stat.st_gid) == (owner.uid, owner.gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    match rustix::fs::chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH) {
        Err(Errno::PERM) if chown == Chown::IfAllowed => Ok(()),
        changed => changed.map_err(|errno| write_error("change owner", errno)),
    }
}

fn times(mtime_ns: i64) -> Timestamps {
    const SECOND: i64 = 1_000_000_000;
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(SECOND),
            tv_nsec: mtime_ns.rem_euclid(SECOND),
        },
    }
}

fn look(file: &OwnedFd) -> Result<ObjectMeta> {
    let stat = rustix::fs::fstat(file).map_err(|errno| io_error("stat", errno))?;
    meta_of_own(&stat).ok_or_else(|| Error::new(ErrorKind::Invalid, "it is a special file"))
}

fn sync(file: &OwnedFd) -> Result<()> {
    match rustix::fs::fsync(file) {
        // A file system that cannot sync a directory keeps it in order itself.
        Ok(()) | Err(Errno::INVAL | Errno::ROFS) => Ok(()),
        Err(errno) => Err(write_error("sync", errno)),
    }
}

fn os(name: &Name) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

fn is_absent(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn taken() -> Error {
    Error::new(ErrorKind::AlreadyExists, "there is something of this name")
}

fn is_the_root() -> Error {
    let why = "the root of a storage is a directory and stays";
    Error::new(ErrorKind::IsADirectory, why)
}

/// Words an error of the kernel for one who writes.
pub(super) fn write_error(what: &str, errno: Errno) -> Error {
    let kind = match errno {
        Errno::ACCESS | Errno::PERM => {
            let user = rustix::process::geteuid().as_raw();
            let why =
                format!("{what}: user {user}, who runs forebay, may not; give it the permission");
            return Error::new(ErrorKind::PermissionDenied, why).with_source(errno);
        }
        Errno::EXIST => return taken(),
        Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ => ErrorKind::Invalid,
        Errno::NOTEMPTY => ErrorKind::NotEmpty,
        Errno::XDEV | Errno::OPNOTSUPP => ErrorKind::Unsupported,
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::MLINK => ErrorKind::OutOfSpace,
        Errno::BUSY | Errno::TXTBSY => ErrorKind::Busy,
        _ => return io_error(what, errno),
    };
    Error::new(kind, what).with_source(errno)
}
