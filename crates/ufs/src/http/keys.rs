// SPDX-License-Identifier: Apache-2.0
//! What a storage of keys must be able to do so that it can be written: one request each.
//!
//! A driver says how each request is made and what its answer tells ([`KeyWriter`]); `writing` and
//! `upload` make an [`UnderWriter`](crate::UnderWriter) of it: retries, conditions that the storage
//! does not check, and own successes that a retry meets are decided there, once.

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use types::{ByteRange, VersionTag};

use super::kept::Kept;
use super::{Fault, Outcome, links};
use crate::{Abilities, Expect};

/// Which request a condition goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A whole object.
    Put,
    /// The end of an upload in parts.
    Complete,
    /// A copy.
    Copy,
    /// A removal.
    Delete,
}

/// An object that is to be written.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) key: String,
    /// The object marks a directory; its key ends with a slash.
    pub(crate) is_directory: bool,
    pub(crate) kept: Kept,
    /// What else was told of the object that this one replaces, to be told again: its type, its
    /// class, metadata of others.
    pub(crate) rest: HeaderMap,
}

/// What an object is now.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The version. Its time is the kept one, where one is kept.
    pub(crate) tag: VersionTag,
    pub(crate) kept: Kept,
    /// See [`Draft::rest`].
    pub(crate) rest: HeaderMap,
}

/// What a storage tells of an object that it has just taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The tag of the version; an object without one is looked at.
    pub(crate) etag: Option<String>,
    /// When, where it is told.
    pub(crate) mtime_ns: Option<i64>,
}

/// A part that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// What the storage needs to find it again.
    pub(crate) tag: String,
    /// Its checksum, where the storage wants to be told again.
    pub(crate) checksum: Option<String>,
    pub(crate) len: u64,
}

/// An upload in parts.
#[derive(Debug, Clone)]
pub(crate) struct Parted {
    /// What becomes of it.
    pub(crate) draft: Draft,
    /// The storage's name of the upload.
    pub(crate) id: String,
}

/// An upload that was begun and did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    pub(crate) key: String,
    pub(crate) id: String,
    /// When it was begun, in nanoseconds since 1970.
    pub(crate) begun_ns: i64,
}

/// A copy inside the storage.
#[derive(Debug, Clone)]
pub(crate) struct Copying<'a> {
    pub(crate) from: &'a str,
    /// The version that is copied; another is `Stale`.
    pub(crate) tag: &'a VersionTag,
    /// What becomes of it.
    pub(crate) to: &'a Draft,
    /// What is kept is that of `to`, instead of what the source has, which is the same otherwise.
    pub(crate) changes_kept: bool,
    pub(crate) expect: &'a Expect,
}

/// The requests that change a storage of keys. What is expected goes with the request where the
/// storage knows conditions; one that does not hold is a refusal of kind `Stale`.
#[async_trait]
pub(crate) trait KeyWriter: Send + Sync {
    /// Returns what can be done here.
    fn abilities(&self) -> Abilities;

    /// Returns how many bytes of metadata an object may have.
    fn metadata_max(&self) -> usize;

    /// Returns the bytes of the object that is a symbolic link: what a listing tells of them says
    /// what it is, where a listing tells no metadata.
    fn link_bytes(&self) -> Bytes {
        Bytes::from_static(links::BYTES)
    }

    /// Returns whether the storage itself checks what is expected.
    fn checks(&self, step: Step) -> bool;

    /// Says without a request whether an object can be under a key.
    fn takes(&self, _key: &str) -> Outcome<()> {
        Ok(())
    }

    /// Asks what is under a key.
    async fn look(&self, key: &str) -> Outcome<Option<Seen>>;

    /// Writes a whole object.
    async fn put(&self, draft: &Draft, bytes: Bytes, expect: &Expect) -> Outcome<Stored>;

    /// Begins an upload; returns the storage's name of it.
    async fn begin(&self, draft: &Draft) -> Outcome<String>;

    /// Sends a part, counted from 1.
    async fn part(&self, upload: &Parted, number: u32, bytes: Bytes) -> Outcome<Part>;

    /// Makes the parts, numbered from 1, the object.
    async fn complete(&self, upload: &Parted, parts: &[Part], expect: &Expect) -> Outcome<Stored>;

    /// Gives an upload up; one that is not there is no fault.
    async fn abort(&self, key: &str, id: &str) -> Outcome<()>;

    /// Removes an object; one that is not there is no fault.
    async fn delete(&self, key: &str, expect: &Expect) -> Outcome<()>;

    /// Copies an object of at most [`KeyWriter::copy_max`] bytes.
    async fn copy(&self, copying: &Copying<'_>) -> Outcome<Stored>;

    /// Returns the most that [`KeyWriter::copy`] takes; larger objects are copied in parts.
    fn copy_max(&self) -> u64 {
        u64::MAX
    }

    /// Copies a range of an object as a part of an upload.
    async fn copy_part(
        &self,
        _copying: &Copying<'_>,
        _upload: &Parted,
        _number: u32,
        _range: ByteRange,
    ) -> Outcome<Part> {
        Err(Fault::Unfit("the storage copies objects as a whole".into()))
    }

    /// Lists a page of the uploads below a prefix that did not end, and what to ask the next page
    /// with. Storages that forget them by themselves list none.
    async fn unfinished(
        &self,
        _prefix: &str,
        _token: Option<&str>,
    ) -> Outcome<(Vec<Unfinished>, Option<String>)> {
        Ok((Vec::new(), None))
    }
}

/// Checks that what is under a key is what was expected.
pub(super) fn holds(expect: &Expect, seen: Option<&Seen>) -> Outcome<()> {
    match (expect, seen) {
        (Expect::Anything, _) | (Expect::Absent, None) => Ok(()),
        (Expect::Absent, Some(_)) => Err(Fault::Taken),
        (Expect::Version(_), None) => Err(Fault::Stale("the object is gone".into())),
        (Expect::Version(tag), Some(seen)) => {
            let mut asked = tag.clone();
            if seen.kept.link.is_some() {
                // The length of a link is that of what it points to.
                asked.size = seen.tag.size;
            }
            super::check_version(&asked, &seen.tag)
        }
    }
}
