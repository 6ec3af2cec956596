// SPDX-License-Identifier: Apache-2.0
//! The storage under test, with its operations by plain names, and looks at what came of them.

use std::sync::Arc;

use bytes::Bytes;
use types::{ByteRange, ErrorKind, NodeKind, ObjectMeta, Result, VersionTag, Xattrs};

use crate::conformance::{Fixture, list, path, read, soon, stat};
use crate::{Abilities, Expect, FileAttributes, UnderStorage, UnderWriter, Upload};

/// How far the clocks of a storage and of this machine may be apart.
const SKEW_NS: u64 = 10_000_000_000;
/// Nothing beside the bytes.
pub(super) const NOTHING: FileAttributes = FileAttributes {
    owner: None,
    mtime_ns: None,
    xattrs: None,
};

pub(super) struct Place<'a> {
    pub(super) fixture: &'a dyn Fixture,
    pub(super) storage: Arc<dyn UnderStorage>,
}

impl Place<'_> {
    fn writer(&self) -> &dyn UnderWriter {
        self.storage.writer().expect("a storage that takes writes")
    }

    pub(super) fn can(&self) -> Abilities {
        self.writer().abilities()
    }

    pub(super) async fn put(
        &self,
        name: &[u8],
        content: &[u8],
        expect: &Expect,
    ) -> Result<ObjectMeta> {
        self.put_with(name, content, expect, &NOTHING).await
    }

    pub(super) async fn put_with(
        &self,
        name: &[u8],
        content: &[u8],
        expect: &Expect,
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        let (path, bytes) = (path(name), Bytes::copy_from_slice(content));
        let writer = self.writer();
        writer.put(&path, bytes, expect, attributes, soon()).await
    }

    pub(super) async fn write(&self, name: &[u8], content: &[u8]) -> ObjectMeta {
        let put = self.put(name, content, &Expect::Anything).await;
        put.unwrap_or_else(|error| panic!("write {}: {error}", name.escape_ascii()))
    }

    pub(super) async fn begin(
        &self,
        name: &[u8],
        part_size: u64,
        attributes: &FileAttributes,
    ) -> Box<dyn Upload> {
        let path = path(name);
        let begun = self.writer().begin(&path, part_size, attributes, soon());
        begun.await.expect("an upload")
    }

    pub(super) async fn delete(&self, name: &[u8], expect: &Expect) -> Result<()> {
        self.writer().delete(&path(name), expect, soon()).await
    }

    pub(super) async fn remove(&self, name: &[u8]) {
        let removed = self.delete(name, &Expect::Anything).await;
        removed.unwrap_or_else(|error| panic!("remove {}: {error}", name.escape_ascii()));
    }

    pub(super) async fn make_dir(
        &self,
        name: &[u8],
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        let path = path(name);
        self.writer().create_dir(&path, attributes, soon()).await
    }

    pub(super) async fn remove_dir(&self, name: &[u8]) -> Result<()> {
        self.writer().remove_dir(&path(name), soon()).await
    }

    pub(super) async fn copy(
        &self,
        from: &[u8],
        tag: &VersionTag,
        to: &[u8],
        expect: &Expect,
    ) -> Result<ObjectMeta> {
        let (from, to) = (path(from), path(to));
        self.writer().copy(&from, tag, &to, expect, soon()).await
    }

    pub(super) async fn rename(&self, from: &[u8], to: &[u8]) -> Result<ObjectMeta> {
        let (from, to) = (path(from), path(to));
        self.writer().rename(&from, &to, soon()).await
    }

    pub(super) async fn set(
        &self,
        name: &[u8],
        tag: &VersionTag,
        attributes: &FileAttributes,
    ) -> Result<ObjectMeta> {
        let path = path(name);
        let writer = self.writer();
        writer.set_attributes(&path, tag, attributes, soon()).await
    }

    pub(super) async fn link(&self, name: &[u8], target: &[u8]) -> Result<ObjectMeta> {
        let path = path(name);
        self.writer().symlink(&path, target, &NOTHING, soon()).await
    }

    pub(super) async fn xattrs(&self, name: &[u8]) -> Xattrs {
        let told = match self.storage.lists_all() {
            true => self.storage.xattrs(&path(name), soon()).await,
            false => {
                let extras = self.stat(name).await.extras;
                Ok(extras
                    .map(|extras| Xattrs::clone(&extras.xattrs))
                    .unwrap_or_default())
            }
        };
        told.unwrap_or_else(|error| panic!("{}: {error}", name.escape_ascii()))
    }

    pub(super) async fn target(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.storage.read_link(&path(name), soon()).await
    }

    /// Checks that a link is one, also in a listing, and that the answer to its write told it.
    pub(super) async fn points_to(&self, name: &[u8], target: &[u8], told: &ObjectMeta) {
        assert_eq!(self.target(name).await.expect("a target"), target);
        for meta in [told, &self.stat(name).await] {
            let size = target.len() as u64;
            assert_eq!((meta.kind, meta.tag.size), (NodeKind::Symlink, size));
            assert_eq!(meta.tag.etag, told.tag.etag);
            // Where a listing does not tell it, the answer does.
            assert!(self.storage.lists_all() || meta.link() == Some(target));
        }
        let (dir, last) = path(name).split().expect("a name");
        let (listed, _) = list(&*self.storage, dir.as_bytes()).await.expect("names");
        let found = listed.iter().find(|entry| entry.name == last);
        assert_eq!(found.expect("it is listed").meta.kind, NodeKind::Symlink);
    }

    pub(super) async fn stat(&self, name: &[u8]) -> ObjectMeta {
        let seen = stat(&*self.storage, name).await;
        seen.unwrap_or_else(|error| panic!("{}: {error}", name.escape_ascii()))
    }

    /// Checks what is under a name, and that the answer to its write told it.
    pub(super) async fn holds(&self, name: &[u8], content: &[u8], told: &ObjectMeta) {
        let shown = name.escape_ascii();
        let seen = self.stat(name).await;
        assert_eq!(
            (seen.kind, &seen.owner),
            (told.kind, &told.owner),
            "{shown}"
        );
        assert_eq!(seen.tag.size, told.tag.size, "{shown}");
        assert_eq!(seen.tag.etag, told.tag.etag, "{shown}");
        let apart = seen.tag.mtime_ns.abs_diff(told.tag.mtime_ns);
        assert!(apart < SKEW_NS, "{shown}: {apart} ns apart");
        assert!(self.bytes(name).await == content, "{shown}");
        let whole = ByteRange::new(0, told.tag.size);
        let bytes = read(&*self.storage, name, &told.tag, whole).await;
        let bytes = bytes.unwrap_or_else(|error| panic!("the version that was told: {error}"));
        assert!(bytes == content, "{shown}");
    }

    /// Reads an object, which a write that nobody waits for may replace meanwhile.
    pub(super) async fn bytes(&self, name: &[u8]) -> Vec<u8> {
        loop {
            let tag = self.stat(name).await.tag;
            let whole = ByteRange::new(0, tag.size);
            match read(&*self.storage, name, &tag, whole).await {
                Ok(bytes) => return bytes,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Stale, "{error}"),
            }
        }
    }

    pub(super) async fn is_absent(&self, name: &[u8]) {
        let shown = name.escape_ascii();
        let error = stat(&*self.storage, name).await.err();
        let error = error.unwrap_or_else(|| panic!("{shown} is there"));
        assert_eq!(error.kind(), ErrorKind::NotFound, "{shown}: {error}");
    }

    /// Returns the names in a directory; none where it is absent.
    pub(super) async fn names(&self, dir: &[u8]) -> Vec<Vec<u8>> {
        let listed = match list(&*self.storage, dir).await {
            Ok((entries, _)) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("{error}"),
        };
        let names = listed.iter().map(|entry| entry.name.as_bytes().to_vec());
        names.collect()
    }
}

#[track_caller]
pub(super) fn fails<T>(result: Result<T>, kind: ErrorKind, what: &str) {
    match result {
        Ok(_) => panic!("{what}: it was done"),
        Err(error) => assert_eq!(error.kind(), kind, "{what}: {error}"),
    }
}

pub(super) fn content(len: u64, seed: u64) -> Vec<u8> {
    (0..len)
        .map(|index| ((index + seed) % 251).to_le_bytes()[0])
        .collect()
}
