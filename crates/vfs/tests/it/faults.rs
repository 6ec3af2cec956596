// SPDX-License-Identifier: Apache-2.0
//! A storage that does not answer: errors are passed on, and absence is never made up.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use types::{
    ByteRange, Deadline, Error, ErrorKind, Freshness, ObjectMeta, ObjectPath, Result, VersionTag,
};
use ufs::{ByteStream, Counters, ListStream, UnderStorage};
use vfs::Ino;

use crate::rig::{Ground, MINUTE, Mounted};

/// A storage that refuses everything.
#[derive(Debug, Default)]
struct Down(Counters);

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "the storage is switched off")
}

#[async_trait]
impl UnderStorage for Down {
    fn uri(&self) -> &str {
        "down://"
    }

    fn identity(&self) -> &str {
        "down://"
    }

    async fn stat(&self, _: &ObjectPath, _: Deadline) -> Result<ObjectMeta> {
        Err(down())
    }

    fn list(&self, _: &ObjectPath) -> ListStream {
        futures::stream::once(async { Err(down()) }).boxed()
    }

    async fn read(
        &self,
        _: &ObjectPath,
        _: &VersionTag,
        _: ByteRange,
        _: Deadline,
    ) -> Result<ByteStream> {
        Err(down())
    }

    fn counters(&self) -> &Counters {
        &self.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_down_is_unavailable_and_not_empty() {
    for freshness in [Freshness::Immutable, MINUTE, Freshness::Always] {
        let mounted = [Mounted {
            dir: "",
            at: "",
            freshness,
        }];
        let rig = Ground::new().mount_storages(&mounted, vec![Arc::new(Down::default())]);
        for _ in 0..2 {
            let error = rig.lookup("name").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let error = rig.list(Ino::ROOT).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
        }
        let reason = rig.vfs.get_xattr(Ino::ROOT, b"user.forebay.error").unwrap();
        assert!(String::from_utf8(reason).unwrap().contains("switched off"));
        let stats = rig.vfs.stats();
        assert_eq!((stats.inodes, stats.dirs_open), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_lookup_counts_nothing() {
    let ground = Ground::new();
    ground.put("s/f", "x");
    let rig = ground.mount(MINUTE).await;
    drop(rig.vfs.lookup(Ino::ROOT, b"f"));
    let entry = rig.lookup("f").await.unwrap();
    drop(rig.vfs.open(entry.ino));
    rig.vfs.forget(entry.ino, 1);
    let stats = rig.vfs.stats();
    assert_eq!((stats.inodes, stats.files_open), (1, 0));
}
