// SPDX-License-Identifier: Apache-2.0
//! A local file system whose disk fails: right bytes or an error in time, never wrong bytes, and
//! never "not found".

use std::time::Duration;

use testkit::rigs::FailingDisk;
use types::{ByteRange, Clock, ErrorKind, SystemClock};
use ufs::conformance::{list, read, stat};

use crate::hdfs::bytes;
use crate::wire::open_at;

const MIB: u64 = 1 << 20;
const IMAGE: u64 = 16 * MIB;
const PIECE: usize = 64 << 10;

#[tokio::test]
async fn a_disk_that_fails_gives_right_bytes_or_an_error_and_heals() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    std::fs::create_dir_all(files.join("deep")).unwrap();
    let content = bytes(6 << 20);
    std::fs::write(files.join("large"), &content).unwrap();
    std::fs::write(files.join("deep/file"), "12345").unwrap();
    let disk = FailingDisk::mount(dir.path(), &files, IMAGE).unwrap();
    let storage = open_at(disk.mounted_at.to_str().unwrap(), &[])
        .await
        .unwrap();
    let tag = stat(&*storage, b"large").await.unwrap().tag;
    // Reads each piece; returns how many came and how many failed.
    let read_all = async || {
        let (mut right, mut failed) = (0, 0);
        for (index, wanted) in content.chunks(PIECE).enumerate() {
            let started = SystemClock.now();
            let range = ByteRange::new((index * PIECE) as u64, wanted.len() as u64);
            match read(&*storage, b"large", &tag, range).await {
                Ok(bytes) => {
                    assert!(bytes == wanted, "at {range:?}");
                    right += 1;
                }
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::Stale, "{error}");
                    assert!(error.to_string().contains("Input/output error"), "{error}");
                    failed += 1;
                }
            }
            assert!(SystemClock.now() - started < Duration::from_secs(5));
        }
        (right, failed)
    };
    let all = content.chunks(PIECE).count();
    let mut saw_both = false;
    for kept in (0..IMAGE / MIB).rev().map(|mebibytes| mebibytes * MIB) {
        disk.keep_only(kept).unwrap();
        disk.forget("large").unwrap();
        let (right, failed) = read_all().await;
        assert_eq!(right + failed, all);
        saw_both |= right > 0 && failed > 0;
        if kept == 0 {
            assert_eq!(failed, all, "nothing is left to read from");
        }
    }
    assert!(saw_both, "no cut went through the file");
    // Names that were not looked at before the failure are not absent.
    let errors = [
        stat(&*storage, b"deep/file").await.unwrap_err(),
        list(&*storage, b"deep").await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("Input/output error"), "{error}");
        assert_ne!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert!(storage.counters().snapshot().errors > 0);
    disk.heal().unwrap();
    assert_eq!(read_all().await, (all, 0));
    assert_eq!(list(&*storage, b"deep").await.unwrap().0.len(), 1);
}
