// SPDX-License-Identifier: Apache-2.0
//! Symbolic links among objects.
//!
//! An object is a link when its metadata says where to (`kept`). Listings of most storages tell no
//! metadata, and asking for each object would cost a request each: so a link has bytes that are the
//! same for all links, and a listing gives it away by their length and checksum. One that tells the
//! length only leaves a doubt, which is resolved by a look.

use std::sync::LazyLock;

use md5::{Digest, Md5};

/// The bytes of a link, on storages whose listings tell no metadata. Of a length that hardly any
/// other object has, for the sake of those that tell no checksum either.
pub(crate) const BYTES: &[u8] =
    b"This object is a symbolic link; the metadata 'forebay-symlink' of it say where to.\n";

static DIGEST: LazyLock<[u8; 16]> = LazyLock::new(|| Md5::digest(BYTES).into());

/// Whether an object in a listing is a symbolic link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// It is none.
    #[default]
    No,
    /// Its metadata decide.
    Perhaps,
    /// It is one.
    Yes,
}

impl Link {
    /// Judges by length and MD5, where that is told.
    pub(crate) fn of(size: u64, md5: Option<[u8; 16]>) -> Self {
        match md5 {
            _ if size != BYTES.len() as u64 => Link::No,
            Some(md5) if md5 == *DIGEST => Link::Yes,
            Some(_) => Link::No,
            None => Link::Perhaps,
        }
    }

    /// Judges by length and an ETag, which is often, but not always, the MD5 in hexadecimal digits.
    pub(crate) fn of_etag(size: u64, etag: Option<&str>) -> Self {
        let digest = DIGEST.iter().map(|byte| format!("{byte:02x}"));
        let is_digest = |etag: &str| etag.eq_ignore_ascii_case(&digest.collect::<String>());
        match size == BYTES.len() as u64 {
            true if etag.is_some_and(is_digest) => Link::Yes,
            true => Link::Perhaps,
            false => Link::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_known_by_its_bytes_and_else_looked_at() {
        let size = BYTES.len() as u64;
        let digest: [u8; 16] = Md5::digest(BYTES).into();
        assert_eq!(Link::of(size, Some(digest)), Link::Yes);
        assert_eq!(Link::of(size, Some([0; 16])), Link::No);
        assert_eq!(Link::of(size, None), Link::Perhaps);
        assert_eq!(Link::of(0, None), Link::No);
        let etag: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(Link::of_etag(size, Some(&etag)), Link::Yes);
        assert_eq!(Link::of_etag(size, Some("0x8D")), Link::Perhaps);
        assert_eq!(Link::of_etag(size + 1, Some(&etag)), Link::No);
    }
}
