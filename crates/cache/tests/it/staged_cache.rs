// SPDX-License-Identifier: Apache-2.0
//! Staged files beside cached objects: who gives way, and how one becomes the other.

use std::path::Path;
use std::sync::Arc;

use cache::Store;
use cache::staged::{StagedFile, Staging};
use types::{ByteRange, ErrorKind, PAGE_SIZE};

use crate::capacity::SmallDisk;
use crate::staged_support::*;
use crate::support::*;

fn open_both(dir: &Path) -> (Arc<Store>, Arc<Staging>) {
    let store = open(dir);
    let staging = try_stage(dir, Some(Arc::clone(&store))).unwrap().0;
    (store, staging)
}

/// Stages the bytes of object `n`.
fn stage_object(staging: &Arc<Staging>, n: u64, size: u64) -> Arc<StagedFile> {
    let file = staging.create(0).unwrap();
    for offset in (0..size).step_by(1 << 20) {
        let range = ByteRange::new(offset, MIB).clamp(size);
        file.append(&content(n, range)).unwrap();
    }
    file
}

#[test]
fn staged_bytes_displace_cached_objects_and_never_the_reverse() {
    let dir = temp();
    let (store, staging) = open_both(dir.path());
    for n in 0..40 {
        fill(&store, n, MIB);
    }
    assert_eq!(store.stats().evictions, 0);
    let file = stage_object(&staging, 100, 40 * MIB);
    assert!(store.stats().evictions > 10);
    assert!(disk_usage(dir.path()) <= 64 * MIB);
    assert!(store.stats().used <= 64 * MIB);
    for n in 0..60 {
        fill(&store, n, MIB);
    }
    assert_eq!(seen(&file), content(100, whole(40 * MIB)));
    assert!(disk_usage(dir.path()) <= 64 * MIB);
}

#[test]
fn a_capacity_full_of_staged_bytes_refuses_writes_and_keeps_what_it_has() {
    let dir = temp();
    let (store, staging) = open_both(dir.path());
    let file = staging.create(0).unwrap();
    let block = content(1, whole(MIB));
    let full = (0..100).find_map(|_| file.append(&block).err()).unwrap();
    assert_eq!(full.kind(), ErrorKind::OutOfSpace);
    let len = file.len();
    assert!(len > 32 * MIB && len.is_multiple_of(MIB), "{len}");
    file.sync().unwrap();
    staging.note(file.id(), Some(b"kept")).unwrap();
    assert!(staging.room().unwrap().free < MIB);
    assert!(
        store.fill(id(1), MIB, 0, &block).is_err(),
        "nothing gives way to a cached object"
    );
    assert!(seen(&file).chunks(block.len()).all(|chunk| chunk == block));
    file.truncate(MIB).unwrap();
    assert!(staging.usage().bytes < 2 * MIB);
    assert!(staging.room().unwrap().free > 30 * MIB);
    fill(&store, 2, MIB);
    drop(file);
    assert_eq!(staging.usage().files, 1, "the note holds it");
}

#[test]
fn a_disk_that_is_full_below_the_capacity_refuses_writes_and_keeps_what_it_has() {
    let dir = temp();
    let _disk = SmallDisk::mount(dir.path());
    let (staging, _) = stage(dir.path());
    let block = content(1, whole(MIB));
    let file = staging.create(0).unwrap();
    file.append(&block).unwrap();
    staging.note(file.id(), Some(b"first")).unwrap();
    let full = (0..200).find_map(|_| file.append(&block).err()).unwrap();
    assert_eq!(full.kind(), ErrorKind::OutOfSpace);
    let len = file.len();
    assert!(seen(&file).chunks(block.len()).all(|chunk| chunk == block));
    // Somebody else takes the rest, too: then the disk itself refuses.
    let rest = std::fs::File::create(dir.path().join("other")).unwrap();
    let mut offset = 0;
    while std::os::unix::fs::FileExt::write_all_at(&rest, &block, offset).is_ok() {
        offset += MIB;
    }
    assert_eq!(
        file.append(&block).unwrap_err().kind(),
        ErrorKind::OutOfSpace
    );
    assert_eq!(file.len(), len);
    drop(rest);
    std::fs::remove_file(dir.path().join("other")).unwrap();
    file.sync().unwrap();
    staging.note(file.id(), Some(b"second")).unwrap();
    drop((file, staging));
    let (_staging, recovered) = stage(dir.path());
    assert_eq!(recovered[0].note, b"second");
    assert_eq!(recovered[0].file.as_ref().unwrap().len(), len);
}

#[test]
fn a_write_that_finds_the_disk_full_leaves_the_file_as_it_was() {
    let dir = temp();
    let _disk = SmallDisk::mount(dir.path());
    let (staging, _) = stage(dir.path());
    let file = staging.create(0).unwrap();
    // Room is taken ahead of this small file, so that the disk itself is what refuses.
    file.append(&[7; 5000]).unwrap();
    file.truncate(40_000).unwrap();
    let before = seen(&file);
    let filler = std::fs::File::create(dir.path().join("filler")).unwrap();
    let mut offset = 0;
    while std::os::unix::fs::FileExt::write_all_at(&filler, &[1; 4096], offset).is_ok() {
        offset += 4096;
    }
    for (at, len) in [
        (0, 40_000),
        (30_000, 5_000),
        (39_000, 20_000),
        (40_000, 8_000),
    ] {
        let error = file.write_at(at, &vec![9; len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfSpace);
        assert_eq!(seen(&file), before, "{len} bytes at {at}");
    }
}

#[test]
fn a_staged_file_becomes_a_cached_one_without_a_copy() {
    let dir = temp();
    let (store, staging) = open_both(dir.path());
    for (n, size) in [(1, 0), (2, 1), (3, PAGE_SIZE), (4, 300 * PAGE_SIZE + 5)] {
        let file = stage_object(&staging, n, size);
        let inode =
            |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let before = inode(&staged_files(dir.path())[0]);
        assert!(store.adopt(id(n), file).unwrap());
        assert_eq!(inode(&file_of(dir.path(), n)), before);
        assert!(store.contains_whole(id(n)) && hits(&store, n, whole(size)));
        assert!(store.local_file(id(n)).is_some());
    }
    assert_eq!(staging.usage(), cache::staged::Usage::default());
    assert_eq!(store.stats().objects, 4);
    let used = store.stats().used;
    drop((store, staging));
    let (store, _staging) = open_both(dir.path());
    assert!(hits(&store, 3, whole(PAGE_SIZE)));
    flip_in_page(dir.path(), 4, 9);
    let readable = readable(&store, 4, 300 * PAGE_SIZE + 5);
    let bad: Vec<usize> = (0..readable.len())
        .filter(|page| !readable[*page])
        .collect();
    assert_eq!(bad, [9], "the checksums were computed on the way");
    assert!(store.stats().used <= used);
    for n in 1..=4 {
        store.remove(id(n));
    }
    assert_eq!(store.stats().objects, 0);
}

#[test]
fn a_staged_file_that_somebody_holds_is_copied() {
    let dir = temp();
    let (store, staging) = open_both(dir.path());
    let file = stage_object(&staging, 1, 3 * MIB);
    assert!(store.adopt(id(1), Arc::clone(&file)).unwrap());
    file.write_at(5, b"changed").unwrap();
    assert!(hits(&store, 1, whole(3 * MIB)));
    assert_eq!(staging.usage().files, 1);
    // The same when a note holds it, and when it lies elsewhere.
    let noted = stage_object(&staging, 2, 1000);
    staging.note(noted.id(), Some(b"n")).unwrap();
    assert!(store.adopt(id(2), noted).unwrap());
    let other = temp();
    let elsewhere = stage_object(&stage(other.path()).0, 3, 2 * MIB + 1);
    assert!(store.adopt(id(3), elsewhere).unwrap());
    assert!(hits(&store, 2, whole(1000)) && hits(&store, 3, whole(2 * MIB + 1)));
}

#[test]
fn only_whole_files_are_adopted_and_only_into_a_cache_in_use() {
    let dir = temp();
    let (store, staging) = open_both(dir.path());
    assert!(!store.adopt(id(1), staging.create(10).unwrap()).unwrap());
    assert!(!store.contains_whole(id(1)));
    // In place of what is there in part; beside what is there already.
    fill_page(&store, 2, 3 * MIB, 1);
    assert!(
        store
            .adopt(id(2), stage_object(&staging, 2, 3 * MIB))
            .unwrap()
    );
    assert!(hits(&store, 2, whole(3 * MIB)));
    assert!(
        store
            .adopt(id(2), stage_object(&staging, 2, 3 * MIB))
            .unwrap()
    );
    assert_eq!(store.stats().objects, 1);
    let file = stage_object(&staging, 3, MIB);
    store.close();
    assert!(!store.adopt(id(3), file).unwrap());
}

#[test]
fn adopted_objects_are_evicted_like_others() {
    let dir = temp();
    let (store, staging) = open_both(dir.path());
    for n in 0..100 {
        assert!(
            store
                .adopt(id(n), stage_object(&staging, n, 2 * MIB))
                .unwrap()
        );
    }
    let stats = store.stats();
    assert!(stats.evictions > 60 && stats.used <= 64 * MIB, "{stats:?}");
    assert!(disk_usage(dir.path()) <= 64 * MIB);
    assert!(hits(&store, 99, whole(2 * MIB)));
}

#[test]
fn cached_bytes_go_along_when_their_version_gets_another_name() {
    let dir = temp();
    let store = open_with(dir.path(), 200 * MIB);
    let size = 300 * PAGE_SIZE;
    fill(&store, 1, size);
    let file = store.local_file(id(1)).unwrap().open().unwrap();
    let used = store.stats().used;
    assert!(store.relabel(id(1), id(2)));
    assert!(!store.contains_whole(id(1)));
    let mut buf = Vec::new();
    assert!(store.read(id(2), whole(size), &mut buf));
    assert_eq!(buf, content(1, whole(size)));
    assert_eq!(bytes_of(&file), buf);
    assert!(!store.relabel(id(1), id(3)), "there is nothing any more");
    assert!(store.relabel(id(2), id(2)));
    let stats = store.stats();
    assert_eq!((stats.objects, stats.pages, stats.touched), (1, 300, 0));
    assert!(stats.used <= used + MIB);
    drop((file, store));
    // After an unclean stop the checksums, which moved along, decide.
    let store = open_with(dir.path(), 200 * MIB);
    flip(&file_of(dir.path(), 2), 5);
    buf.clear();
    assert!(!store.read(id(2), page(size, 0), &mut buf));
    assert!(store.read(id(2), page(size, 299), &mut buf));
    assert_eq!(buf, content(1, page(size, 299)));
}
