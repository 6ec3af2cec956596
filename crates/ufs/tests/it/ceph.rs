// SPDX-License-Identifier: Apache-2.0
//! A real Ceph: its object gateway through S3, its file system through a mount of `ceph-fuse`.

use std::time::Duration;

use testkit::rigs::{Ceph, CephFs};
use types::{ByteRange, Clock, ErrorKind, SystemClock};
use ufs::conformance::{self, Flat, read, stat};
use ufs::probe;

use crate::bad_way;
use crate::local::Directory;
use crate::s3_bucket::{self, Account, Bucket, Keeps};
use crate::wire::open_at;

// One test for one cluster: it takes most of a minute to start and a gigabyte to run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_every_promise_through_its_gateway_and_as_files() {
    let dir = tempfile::tempdir().unwrap();
    let ceph = Ceph::start(dir.path()).unwrap();
    // The gateway keeps all names.
    let keeps = Keeps {
        odd_names: conformance::odd_names(),
        flat_names: Flat::ALL,
        many: 10_000,
    };
    let gateway = Bucket::new((&ceph).into(), "ceph://bucket/a prefix/of +it/", keeps).await;
    conformance::run(&gateway).await;
    conformance::write::run(&gateway).await;
    s3_bucket::gives_up_old_uploads(&gateway).await;
    s3_bucket::is_used_by_a_machine_whose_clock_is_wrong(&gateway).await;
    wrong_keys_are_denied(&ceph).await;
    bad_way::is_withstood(&gateway, &gateway.relay).await;
    s3_bucket::uses_keys_that_replaced_wrong_ones(&gateway).await;

    let mounted = ceph.mount(&dir.path().join("mounted")).unwrap();
    is_found_among_the_mounts(&mounted).await;
    let root = mounted.mounted_at.join("files");
    std::fs::create_dir(&root).unwrap();
    let at = mounted.mounted_at.to_str().unwrap();
    let storage = open_at("cephfs:///files", &[("mounted_at", at)])
        .await
        .unwrap();
    let directory = Directory::of(root, storage);
    conformance::run(&directory).await;
    conformance::write::run(&directory).await;
}

async fn wrong_keys_are_denied(ceph: &Ceph) {
    let account = Account::from(ceph);
    for (wrong, bucket, kind) in [
        (
            Some(("secret_access_key", "hunter2")),
            "bucket",
            ErrorKind::PermissionDenied,
        ),
        (
            Some(("access_key_id", "unknown")),
            "bucket",
            ErrorKind::PermissionDenied,
        ),
        (None, "absent", ErrorKind::NotFound),
    ] {
        let uri = format!("ceph://{bucket}/");
        let storage = account.open(&uri, wrong.as_slice()).await.unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(10));
        let error = probe(&*storage, deadline).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

/// Without the option, the one mount of the machine is found.
async fn is_found_among_the_mounts(mounted: &CephFs) {
    std::fs::write(mounted.mounted_at.join("file"), "12345").unwrap();
    let storage = open_at("cephfs:///", &[]).await.unwrap();
    let tag = stat(&*storage, b"file").await.unwrap().tag;
    let bytes = read(&*storage, b"file", &tag, ByteRange::new(1, 3))
        .await
        .unwrap();
    assert_eq!(bytes, b"234");
    let error = open_at("cephfs:///absent", &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
