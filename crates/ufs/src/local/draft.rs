// SPDX-License-Identifier: Apache-2.0
//! A file on its way: it lies beside the file that it becomes, under a hidden name, is synced and
//! then renamed. Here is also what all writes need: directories above, syncs, words of the kernel.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use types::{Error, ErrorKind, Name, ObjectMeta, ObjectPath, Result};

use super::attributes::{Chown, set_all};
use super::version::{meta_of_own, tag_of};
use super::{Inner, io_error, xattrs};
use crate::temporary::{check_name, temporary_name};
use crate::{Expect, FileAttributes};

/// What a new file or directory may be used for, less the daemon's mask, when nobody says.
const FILE_MODE: Mode = Mode::from_bits_retain(0o666);
pub(super) const DIRECTORY_MODE: Mode = Mode::from_bits_retain(0o777);

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
        let stat = old.as_ref().map(rustix::fs::fstat).transpose();
        let stat = stat.map_err(|errno| io_error("stat", errno))?;
        check_expected(expect, stat.as_ref())?;
        let as_before = || meta_of_own(stat.as_ref()?)?.owner;
        let xattrs = match (&attributes.xattrs, &old) {
            (None, Some(old)) => Some(Arc::new(xattrs::read(old)?)),
            (given, _) => given.clone(),
        };
        let attributes = FileAttributes {
            owner: attributes.owner.or_else(as_before),
            mtime_ns: attributes.mtime_ns,
            xattrs,
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

/// Opens a directory, which is made with those above it when it is not there.
pub(super) fn make_dirs(inner: &Inner, path: &ObjectPath) -> Result<OwnedFd> {
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

pub(super) fn look(file: &OwnedFd) -> Result<ObjectMeta> {
    let stat = rustix::fs::fstat(file).map_err(|errno| io_error("stat", errno))?;
    meta_of_own(&stat).ok_or_else(|| Error::new(ErrorKind::Invalid, "it is a special file"))
}

pub(super) fn sync(file: &OwnedFd) -> Result<()> {
    match rustix::fs::fsync(file) {
        // A file system that cannot sync a directory keeps it in order itself.
        Ok(()) | Err(Errno::INVAL | Errno::ROFS) => Ok(()),
        Err(errno) => Err(write_error("sync", errno)),
    }
}

pub(super) fn os(name: &Name) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

fn taken() -> Error {
    Error::new(ErrorKind::AlreadyExists, "there is something of this name")
}

pub(super) fn is_the_root() -> Error {
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
        Errno::NAMETOOLONG => ErrorKind::TooLong,
        Errno::INVAL | Errno::ILSEQ => ErrorKind::Invalid,
        Errno::NOTEMPTY => ErrorKind::NotEmpty,
        Errno::XDEV | Errno::OPNOTSUPP => ErrorKind::Unsupported,
        Errno::NOSPC | Errno::DQUOT | Errno::TOOBIG | Errno::FBIG | Errno::MLINK => {
            ErrorKind::OutOfSpace
        }
        Errno::BUSY | Errno::TXTBSY => ErrorKind::Busy,
        _ => return io_error(what, errno),
    };
    Error::new(kind, what).with_source(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_kernel_says_what_the_writer_can_do() {
        for (errno, kind) in [
            (Errno::NOSPC, ErrorKind::OutOfSpace),
            (Errno::DQUOT, ErrorKind::OutOfSpace),
            (Errno::FBIG, ErrorKind::OutOfSpace),
            (Errno::ROFS, ErrorKind::ReadOnly),
            (Errno::ACCESS, ErrorKind::PermissionDenied),
            (Errno::PERM, ErrorKind::PermissionDenied),
            (Errno::IO, ErrorKind::Unavailable),
            (Errno::EXIST, ErrorKind::AlreadyExists),
            (Errno::NOTEMPTY, ErrorKind::NotEmpty),
            (Errno::ISDIR, ErrorKind::IsADirectory),
            (Errno::NOTDIR, ErrorKind::NotADirectory),
            (Errno::NAMETOOLONG, ErrorKind::TooLong),
            (Errno::ILSEQ, ErrorKind::Invalid),
            (Errno::XDEV, ErrorKind::Unsupported),
        ] {
            assert_eq!(write_error("write", errno).kind(), kind, "{errno}");
        }
        let denied = write_error("write", Errno::ACCESS).to_string();
        assert!(denied.contains("give it the permission"), "{denied}");
    }
}
