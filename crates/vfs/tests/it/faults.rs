// SPDX-License-Identifier: Apache-2.0
//! A storage that does not answer: errors are passed on, and absence is never made up.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use types::{
    ByteRange, Deadline, Error, ErrorKind, Freshness, Name, NodeKind, ObjectMeta, ObjectPath,
    Result, VersionTag,
};
use ufs::{ByteStream, Counters, ListEntry, ListPage, ListStream, UnderStorage};
use vfs::Ino;

use crate::rig::{Ground, MINUTE, Mounted};

/// A storage that refuses everything, or all but its listing.
#[derive(Debug, Default)]
struct Down {
    listed: Option<ListPage>,
    counters: Counters,
}

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
        let page = self.listed.clone().ok_or_else(down);
        futures::stream::once(async { page }).boxed()
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
        &self.counters
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
        let reason = rig
            .vfs
            .get_xattr(Ino::ROOT, b"user.forebay.error")
            .wait()
            .await
            .unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_known_file_whose_storage_is_down_fails_with_the_reason() {
    let file = |name: &str, size| ListEntry {
        name: Name::new(name.as_bytes()).unwrap(),
        meta: ObjectMeta {
            kind: NodeKind::File,
            tag: VersionTag {
                etag: Some("e".into()),
                mtime_ns: 1,
                size,
            },
            owner: None,
            extras: None,
        },
    };
    let entries = vec![
        file("small", 100),
        file("large", 1 << 40),
        file("absurd", u64::MAX),
    ];
    let listed = Some(ListPage {
        entries,
        unshowable: 0,
    });
    let storage = Arc::new(Down {
        listed,
        ..Down::default()
    });
    let mounted = [Mounted {
        dir: "",
        at: "",
        freshness: MINUTE,
    }];
    let rig = Ground::new().mount_storages(&mounted, vec![storage]);
    let small = rig.lookup("small").await.unwrap().ino;
    let error = rig.vfs.open(small).wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let reason = rig
        .vfs
        .get_xattr(small, b"user.forebay.error")
        .wait()
        .await
        .unwrap();
    assert!(String::from_utf8(reason).unwrap().contains("switched off"));
    let large = rig.open("large").await.unwrap();
    let error = rig.read(large.handle, 1 << 39, 4096).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        rig.read(large.handle, 1 << 40, 4096)
            .await
            .unwrap()
            .is_empty()
    );
    let error = rig.open("absurd").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(rig.vfs.stats().files_open, 1);
}
