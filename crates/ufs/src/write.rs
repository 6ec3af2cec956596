// SPDX-License-Identifier: Apache-2.0
//! What an under storage that takes writes can do.
//!
//! The contract, which the suite in `conformance` checks on each driver that writes:
//! * All or nothing: readers of the storage see the old object or the new one, never a part, also
//!   when the writer dies in the middle.
//! * Acknowledged means stored: `Ok` only after the storage said so; a local or distributed file
//!   system has synced by then.
//! * What somebody else changed is not overwritten: [`Expect`] is checked by the storage at the
//!   moment of the write where it has conditions, right before it elsewhere ([`Abilities`] says).
//! * The answer is what a `stat` would tell now, so that nobody has to ask. Where the storage does
//!   not tell the time of a write, the tag carries the clock's; the ETag decides there.
//! * A retried request may meet its own earlier success: drivers tell that from a change by others.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use types::meta::Owner;
use types::{Deadline, Error, ErrorKind, ObjectMeta, ObjectPath, Result, VersionTag, Xattrs};

/// What must be true of a path for a write to go ahead; else the write fails with `Stale`, or with
/// `AlreadyExists` where nothing was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there is replaced.
    Anything,
    /// Nothing is there.
    Absent,
    /// This version is there.
    Version(VersionTag),
}

/// What is kept beside the bytes. What is `None` is left to the storage, or as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileAttributes {
    /// Permission bits, owner and group.
    pub owner: Option<Owner>,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
    /// Extended attributes of users: all of them. An object store that is told none has none
    /// afterwards, for it keeps nothing of what is overwritten.
    pub xattrs: Option<Arc<Xattrs>>,
}

/// What a storage can do for writers, and how it wants large objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Directories exist by themselves, empty ones too. Elsewhere an object marks them.
    pub directories: bool,
    /// [`UnderWriter::rename`] works, atomically, on files and on directories.
    pub rename: bool,
    /// Listings tell mode, owner and exact times, and [`UnderWriter::set_attributes`] changes them
    /// without making another version. Elsewhere they are kept as metadata of the object.
    pub attributes: bool,
    /// [`UnderWriter::symlink`] works.
    pub symlinks: bool,
    /// How much room there is for extended attributes of users, by [`xattrs_len`]; zero where there
    /// are none.
    pub xattrs_max: usize,
    /// The storage itself checks [`Expect`], in the same step as the write.
    pub conditions: bool,
    /// The most that [`UnderWriter::put`] takes.
    pub put_max: u64,
    /// The most parts of an upload.
    pub parts_max: u32,
    /// Bounds of a part's size; the last may be smaller.
    pub part_min: u64,
    /// See [`Abilities::part_min`].
    pub part_max: u64,
    /// Parts of one upload may be sent at once and in any order; elsewhere one after the other.
    pub parallel_parts: bool,
}

/// Returns how much room extended attributes take where they take most.
pub fn xattrs_len(xattrs: &Xattrs) -> usize {
    crate::http::xattrs_text(xattrs).len()
}

/// The writing side of an [`UnderStorage`](crate::UnderStorage).
#[async_trait]
pub trait UnderWriter: Send + Sync + Debug {
    /// Returns what can be done here.
    fn abilities(&self) -> Abilities;

    /// Says at once, without a request, why nothing can ever be written at a place.
    fn check_place(&self, _path: &ObjectPath) -> Result<()> {
        Ok(())
    }

    /// Writes a whole object of at most [`Abilities::put_max`] bytes. Directories above it are made
    /// where the storage has such things.
    async fn put(
        &self,
        path: &ObjectPath,
        bytes: Bytes,
        expect: &Expect,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta>;

    /// Begins an object that is sent in parts of `part_size` bytes. Nothing shows before
    /// [`Upload::complete`].
    async fn begin(
        &self,
        path: &ObjectPath,
        part_size: u64,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<Box<dyn Upload>>;

    /// Removes an object or a symbolic link. `Ok` also when there is none.
    async fn delete(&self, path: &ObjectPath, expect: &Expect, deadline: Deadline) -> Result<()>;

    /// Makes a directory. `AlreadyExists` when the name is taken, `NotFound` without a parent where
    /// directories exist by themselves.
    async fn create_dir(
        &self,
        path: &ObjectPath,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta>;

    /// Removes an empty directory. `NotEmpty` when it has names, `Ok` also when only names below
    /// it made it appear and they are gone.
    async fn remove_dir(&self, path: &ObjectPath, deadline: Deadline) -> Result<()>;

    /// Copies an object inside the storage, without its bytes coming here, with its attributes.
    /// `Stale` when `from` is not the version `tag`.
    async fn copy(
        &self,
        from: &ObjectPath,
        tag: &VersionTag,
        to: &ObjectPath,
        expect: &Expect,
        deadline: Deadline,
    ) -> Result<ObjectMeta>;

    /// Gives a file or a directory another name and replaces a file, or an empty directory, that
    /// has it, in one step. Returns what is at `to` now.
    async fn rename(
        &self,
        _from: &ObjectPath,
        _to: &ObjectPath,
        _deadline: Deadline,
    ) -> Result<ObjectMeta> {
        Err(unsupported("rename in one step"))
    }

    /// Changes what is kept beside the bytes of the version `tag`, of a directory's whatever its
    /// version. Returns what is there now, which may be another version.
    async fn set_attributes(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        attributes: &FileAttributes,
        deadline: Deadline,
    ) -> Result<ObjectMeta>;

    /// Makes a symbolic link. `AlreadyExists` when the name is taken.
    async fn symlink(
        &self,
        _path: &ObjectPath,
        _target: &[u8],
        _attributes: &FileAttributes,
        _deadline: Deadline,
    ) -> Result<ObjectMeta> {
        Err(unsupported("keep symbolic links"))
    }

    /// Gives up an upload that another process began and called so ([`Upload::id`]). `Ok` also when
    /// there is none.
    async fn give_up(&self, _path: &ObjectPath, _id: &str, _deadline: Deadline) -> Result<()> {
        Ok(())
    }

    /// Gives up the uploads below this place, whoever began them, that did not end within `age`;
    /// returns how many. Storages that forget such uploads by themselves have none.
    async fn clean(&self, _age: Duration, _deadline: Deadline) -> Result<u64> {
        Ok(0)
    }
}

/// An object on its way, in parts. Dropping it without [`Upload::abort`] leaves the cleaning up to
/// the storage or to the next start.
#[async_trait]
pub trait Upload: Send + Sync + Debug {
    /// Returns the storage's name of it, where what was sent stays until somebody gives it up.
    fn id(&self) -> Option<String> {
        None
    }

    /// Sends a part, counted from 1. May be sent again, and then replaces what was sent before.
    /// Without [`Abilities::parallel_parts`] parts come in order, only the latest may be sent again,
    /// with the same bytes, and one that fails ends the upload: begin another.
    async fn part(&self, number: u32, bytes: Bytes, deadline: Deadline) -> Result<()>;

    /// Makes the parts, in the order of their numbers, the object, if `expect` holds.
    async fn complete(&self, expect: &Expect, deadline: Deadline) -> Result<ObjectMeta>;

    /// Gives up, and removes what was sent.
    async fn abort(&self, deadline: Deadline) -> Result<()>;
}

fn unsupported(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("this storage cannot {what}"),
    )
}
