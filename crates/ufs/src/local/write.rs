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
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use types::{Deadline, Error, ErrorKind, Name, ObjectMeta, ObjectPath, Result, VersionTag};

use super::attributes::{Chown, set_all, set_by_handle, set_of_link};
use super::draft::{DIRECTORY_MODE, Draft, is_the_root, look, os, sync, write_at, write_error};
use super::upload::LocalUpload;
use super::version::{meta_of_own, tag_of};
use super::{Inner, Local, check_version, io_error, open_version, xattrs};
use crate::counters::count;
use crate::temporary::{check_name, is_draft};
use crate::{Abilities, Expect, FileAttributes, UnderWriter, Upload};

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
            xattrs_max: usize::MAX,
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
        let (path, expect, attributes) = (path.clone(), expect.clone(), attributes.clone());
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
        let (path, attributes) = (path.clone(), attributes.clone());
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
                xattrs: Some(Arc::new(xattrs::read(&source)?)),
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
        let (path, tag, attributes) = (path.clone(), tag.clone(), attributes.clone());
        let set = move |inner: &Inner| {
            let file = inner.open(&path, OFlags::PATH)?;
            let stat = rustix::fs::fstat(&file).map_err(|errno| io_error("stat", errno))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind != FileType::Directory && tag_of(&stat) != tag {
                return Err(Error::new(ErrorKind::Stale, "the file changed"));
            }
            if kind == FileType::Symlink {
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
        let (path, target, attributes) = (path.clone(), target.to_vec(), attributes.clone());
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

/// Opens the directory that a name is in.
fn parent(inner: &Inner, path: &ObjectPath) -> Result<(OwnedFd, Name)> {
    let (parent, name) = path.split().ok_or_else(is_the_root)?;
    let dir = inner.open(&parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
    Ok((dir, name))
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
            name if is_draft(name) => unfinished.push(entry.file_name().to_owned()),
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

fn is_absent(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
