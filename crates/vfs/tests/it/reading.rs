// SPDX-License-Identifier: Apache-2.0
//! Bytes: what a read returns, what it costs, and what happens when an object changes.

use types::{ErrorKind, Freshness, PAGE_SIZE};

use vfs::Reply;

use crate::rig::{Ground, MINUTE, Rig, bytes};

const MIB: usize = 1 << 20;

fn xattr(rig: &Rig, ino: vfs::Ino, name: &str) -> String {
    let name = format!("user.forebay.{name}");
    let Reply::Ready(value) = rig.vfs.get_xattr(ino, name.as_bytes()) else {
        panic!("'{name}' is made up here");
    };
    String::from_utf8(value.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_file_reads_as_it_is_stored() {
    let ground = Ground::new();
    for size in [1, 4096, 128 << 10, 4 * MIB, 4 * MIB + 1, 7 * MIB + 123] {
        ground.put(&format!("s/{size}"), bytes(size as u64, size));
    }
    let rig = ground.mount(MINUTE).await;
    for size in [1, 4096, 128 << 10, 4 * MIB, 4 * MIB + 1, 7 * MIB + 123] {
        let expected = bytes(size as u64, size);
        let opened = rig.open(&size.to_string()).await.unwrap();
        assert!(opened.keep_cache);
        for (offset, len) in [
            (size / 2, 1),
            (size - 1, 100),
            (size, 10),
            (size + 5, 10),
            (0, 0),
            (size / 3, 300 << 10),
            (0, 2 * size),
        ] {
            let part = rig
                .read(opened.handle, offset as u64, len as u64)
                .await
                .unwrap();
            let end = (offset + len).min(size);
            assert!(
                part == expected[offset.min(end)..end],
                "{len} at {offset} of {size}"
            );
        }
        let beyond = rig.read(opened.handle, u64::MAX - 1, 100).await.unwrap();
        assert!(beyond.is_empty());
        rig.vfs.release(opened.handle);
        assert!(
            rig.cat(&size.to_string()).await.unwrap() == expected,
            "all of {size}"
        );
    }
    assert_eq!(rig.vfs.stats().files_open, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_costs_one_request_and_then_none() {
    let ground = Ground::new();
    ground.put("s/small", bytes(1, 300 << 10));
    let rig = ground.mount(MINUTE).await;
    assert!(rig.cat("small").await.unwrap() == bytes(1, 300 << 10));
    assert_eq!(rig.asked().get, 1);
    let asked = rig.asked().requests();
    let opened = rig.open("small").await.unwrap();
    assert!(opened.local_file.is_some());
    assert!(rig.cat("small").await.unwrap() == bytes(1, 300 << 10));
    assert_eq!(rig.asked().requests(), asked);
    let stats = rig.vfs.stats();
    assert_eq!(stats.read_misses, 0, "the open brought all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_needs_no_request_for_bytes() {
    let ground = Ground::new();
    ground.put("s/empty", "");
    let rig = ground.mount(MINUTE).await;
    assert!(rig.cat("empty").await.unwrap().is_empty());
    assert_eq!(rig.asked().get, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_reader_of_a_large_file_costs_few_requests() {
    let ground = Ground::new();
    let expected = bytes(9, 48 * MIB + 17);
    ground.put("s/large", &expected);
    let rig = ground.mount(MINUTE).await;
    assert!(rig.cat("large").await.unwrap() == expected);
    let asked = rig.asked();
    assert!(asked.get <= 24, "{} requests for 48 MiB", asked.get);
    assert_eq!(asked.bytes_read, expected.len() as u64);
    assert!(rig.vfs.stats().read_ahead_bytes > 40 * MIB as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_random_reads_fetch_little_more_than_their_pages() {
    const READS: u64 = 40;
    let ground = Ground::new();
    let expected = bytes(9, 64 * MIB);
    ground.put("s/large", &expected);
    let rig = ground.mount(MINUTE).await;
    let opened = rig.open("large").await.unwrap();
    for read in 0..READS {
        // Steps of a number that shares no factor with the count of pages visit each once.
        let page = (read * 197 + 3) % 512;
        let offset = page * PAGE_SIZE + 4096;
        let part = rig.read(opened.handle, offset, 4096).await.unwrap();
        assert!(part == expected[usize::try_from(offset).unwrap()..][..4096]);
    }
    let fetched = rig.asked().bytes_read as f64 / (READS * PAGE_SIZE) as f64;
    assert!(fetched <= 1.25, "{fetched}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_one_file_fetch_it_once() {
    let ground = Ground::new();
    let expected = bytes(4, 16 * MIB);
    ground.put("s/shared", &expected);
    let rig = ground.mount(MINUTE).await;
    let readers = (0..8).map(|_| async { rig.cat("shared").await.unwrap() == expected });
    assert!(
        futures::future::join_all(readers)
            .await
            .into_iter()
            .all(|same| same)
    );
    assert_eq!(rig.asked().bytes_read, expected.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_small_file_is_a_new_inode_and_the_open_one_reads_on() {
    let ground = Ground::new();
    ground.put("s/f", bytes(1, 100_000));
    let rig = ground.mount(Freshness::Always).await;
    let old = rig.open("f").await.unwrap();
    rig.put("s/f", bytes(2, 100_000));
    let entry = rig.lookup("f").await.unwrap();
    assert!(rig.cat("f").await.unwrap() == bytes(2, 100_000));
    assert!(rig.read(old.handle, 0, 100_000).await.unwrap() == bytes(1, 100_000));
    rig.vfs.forget(entry.ino, 1);
    rig.vfs.release(old.handle);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_of_a_version_that_is_gone_is_stale_and_the_next_lookup_finds_the_new_one() {
    let ground = Ground::new();
    ground.put("s/f", bytes(1, 100_000));
    let rig = ground.mount(Freshness::Immutable).await;
    let old = rig.lookup("f").await.unwrap();
    rig.put("s/f", bytes(2, 100_001));
    let opened = rig.vfs.open(old.ino).wait().await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Stale);
    assert!(xattr(&rig, old.ino, "error").contains('f'));
    let new = rig.lookup("f").await.unwrap();
    assert_ne!(new.ino, old.ino);
    assert_eq!(
        rig.vfs.attributes(old.ino).unwrap(),
        old.attributes,
        "an inode never changes"
    );
    assert!(rig.cat("f").await.unwrap() == bytes(2, 100_001));
    assert_eq!(rig.vfs.stats().stale, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_replaced_while_open_never_mixes_versions() {
    let ground = Ground::new();
    let (one, two) = (bytes(1, 24 * MIB), bytes(2, 24 * MIB));
    ground.put("s/f", &one);
    let rig = ground.mount(MINUTE).await;
    let old = rig.open("f").await.unwrap();
    assert!(rig.read(old.handle, 0, 4096).await.unwrap() == one[..4096]);
    rig.put("s/f", &two);
    let far = 20 * MIB;
    let error = rig.read(old.handle, far as u64, 4096).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert!(
        rig.read(old.handle, 0, 4096).await.unwrap() == one[..4096],
        "what is cached stays"
    );
    assert!(rig.cat("f").await.unwrap() == two);
    let error = rig.read(old.handle, far as u64, 4096).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Stale,
        "the new version's bytes are not the old one's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_handle_reads_no_more() {
    let ground = Ground::new();
    ground.put("s/f", "x");
    let rig = ground.mount(MINUTE).await;
    let opened = rig.open("f").await.unwrap();
    rig.vfs.release(opened.handle);
    rig.vfs.release(opened.handle);
    let error = rig.read(opened.handle, 0, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_attributes_tell_where_a_file_comes_from() {
    let ground = Ground::new();
    ground.put("s/f", bytes(1, 1000));
    let rig = ground.mount(MINUTE).await;
    let entry = rig.lookup("f").await.unwrap();
    let uri = xattr(&rig, entry.ino, "mount");
    assert!(uri.starts_with("file://") && uri.contains("/s"), "{uri}");
    assert_eq!(xattr(&rig, entry.ino, "cached"), "no");
    let version = xattr(&rig, entry.ino, "version");
    rig.cat("f").await.unwrap();
    assert_eq!(xattr(&rig, entry.ino, "cached"), "whole");
    assert_eq!(xattr(&rig, entry.ino, "version"), version);
    assert_eq!(xattr(&rig, entry.ino, "write-mode"), "read-only");
    assert_eq!(xattr(&rig, entry.ino, "persisted"), "yes");
    let names = rig.vfs.list_xattr(entry.ino).wait().await.unwrap();
    assert!(names.is_empty(), "no copy of the file takes ours along");
    for (absent, kind) in [
        ("user.forebay.error", ErrorKind::NotFound),
        ("user.forebay.other", ErrorKind::NotFound),
        ("user.other", ErrorKind::NotFound),
        ("security.selinux", ErrorKind::Unsupported),
        ("system.posix_acl_access", ErrorKind::Unsupported),
    ] {
        let Reply::Ready(Err(error)) = rig.vfs.get_xattr(entry.ino, absent.as_bytes()) else {
            panic!("{absent}: it is there, or takes a request");
        };
        assert_eq!(error.kind(), kind, "{absent}");
    }
}
