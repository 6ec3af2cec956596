// SPDX-License-Identifier: Apache-2.0
//! Opening: who may, what is refused, what is tidied, and a directory that goes away.

use std::path::Path;
use std::sync::Arc;

use cache::{Settings, Store};
use types::{ByteSize, Error, ErrorKind, PAGE_SIZE, SystemClock};

use crate::support::*;

const SIZE: u64 = 3 * PAGE_SIZE + 1000;

fn refused(dir: &Path, capacity: u64) -> Error {
    let settings = Settings {
        dir: dir.to_path_buf(),
        capacity: ByteSize(capacity),
    };
    let error = Store::open(&settings, Arc::new(SystemClock)).unwrap_err();
    assert!(
        error.to_string().contains(&dir.display().to_string()),
        "names the directory: {error}"
    );
    error
}

#[test]
fn a_second_opener_is_told_who_has_it() {
    let dir = temp();
    let store = open(dir.path());
    let error = refused(dir.path(), 64 * MIB);
    assert_eq!(error.kind(), ErrorKind::Busy);
    let pid = format!("process {} is using it", std::process::id());
    assert!(error.to_string().contains(&pid), "{error}");
    drop(store);
    open(dir.path());
}

#[test]
fn too_small_a_capacity_is_refused() {
    let dir = temp();
    let error = refused(dir.path(), 64 * MIB - 1);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("64 MiB"), "{error}");
}

#[test]
fn another_format_is_refused_and_left_alone() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, SIZE);
    drop(store);
    for (text, kind) in [
        ("forebay cache 2\n", ErrorKind::Unsupported),
        ("x", ErrorKind::Invalid),
    ] {
        std::fs::write(dir.path().join("FORMAT"), text).unwrap();
        let error = refused(dir.path(), 64 * MIB);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(file_of(dir.path(), 1).try_exists().unwrap());
    }
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_left_alone() {
    let dir = temp();
    std::fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = refused(dir.path(), 64 * MIB);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was left there"
    );
}

#[test]
fn a_path_that_cannot_be_a_directory_is_refused() {
    let dir = temp();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    refused(&file, 64 * MIB);
    refused(&file.join("below"), 64 * MIB);
}

#[test]
fn strays_are_removed_after_the_open_and_lost_files_forgotten() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, SIZE);
    fill(&store, 2, SIZE);
    drop(store);
    std::fs::remove_file(file_of(dir.path(), 2)).unwrap();
    let stray = file_of(dir.path(), 3);
    std::fs::create_dir_all(stray.parent().unwrap()).unwrap();
    std::fs::write(&stray, "x").unwrap();
    let half = file_of(dir.path(), 1).with_extension("tmp");
    std::fs::write(&half, "x").unwrap();
    let store = open(dir.path());
    eventually("the object without a file is forgotten", || {
        store.stats().objects == 1
    });
    eventually("the strays are gone", || {
        !stray.try_exists().unwrap() && !half.try_exists().unwrap()
    });
    assert!(hits(&store, 1, whole(SIZE)));
}

#[test]
fn a_damaged_index_costs_what_it_held_and_no_more_room() {
    let dir = temp();
    let store = open(dir.path());
    for n in 0..40 {
        fill(&store, n, MIB);
    }
    store.close();
    drop(store);
    std::fs::write(dir.path().join("index.redb"), vec![7; 100_000]).unwrap();
    let store = open(dir.path());
    assert_eq!(store.stats().objects, 0);
    let used = disk_usage(&dir.path().join("data"));
    assert!(
        used < MIB,
        "files that nobody knows are gone at once, {used} are left"
    );
    fill(&store, 1, SIZE);
    assert!(hits(&store, 1, whole(SIZE)));
}

#[test]
fn any_byte_of_the_index_may_flip() {
    let dir = temp();
    let store = open(dir.path());
    for n in 0..20 {
        fill(&store, n, SIZE);
    }
    store.close();
    drop(store);
    let index = dir.path().join("index.redb");
    let good = std::fs::read(&index).unwrap();
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    for at in used.iter().step_by(used.len() / 60) {
        let mut bad = good.clone();
        bad[*at] ^= 0x41;
        std::fs::write(&index, &bad).unwrap();
        let store = open(dir.path());
        for n in 0..20 {
            // Right bytes or a miss: `hits` compares.
            hits(&store, n, whole(SIZE));
        }
        fill(&store, 50, SIZE);
        assert!(hits(&store, 50, whole(SIZE)), "byte {at}");
        for n in 0..20 {
            fill(&store, n, SIZE);
        }
        store.remove(id(50));
        store.close();
    }
}

#[test]
fn a_copied_directory_is_checked_page_by_page() {
    let (dir, copy) = (temp(), temp());
    let store = open(dir.path());
    fill(&store, 1, SIZE);
    fill(&store, 2, SIZE);
    store.close();
    drop(store);
    copy_tree(dir.path(), copy.path());
    flip_in_page(copy.path(), 2, 1);
    let store = open(copy.path());
    assert_eq!(readable(&store, 1, SIZE), [true; 4]);
    assert_eq!(readable(&store, 2, SIZE), [true, false, true, true]);
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_directory_removed_under_us_is_retired() {
    let dir = temp();
    let cache = dir.path().join("cache");
    let store = open(&cache);
    fill(&store, 1, SIZE);
    std::fs::remove_dir_all(&cache).unwrap();
    assert!(!hits(&store, 1, whole(SIZE)));
    let error = store.fill(id(2), 1, 0, &[1]).unwrap_err();
    assert!(error.to_string().contains("removed"), "{error}");
    assert!(store.stats().retired.is_some());
    let error = store.fill(id(2), 1, 0, &[1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!hits(&store, 2, whole(1)));
    store.close();
}

#[test]
fn a_disk_that_fails_writes_is_retired() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, SIZE);
    // ENOTDIR stands for what a broken disk answers: not full, not missing.
    let prefix = file_of(dir.path(), 2).parent().unwrap().to_path_buf();
    std::fs::write(&prefix, "x").unwrap();
    assert!(
        store
            .fill(id(2), SIZE, 0, &content(2, whole(SIZE)))
            .is_err()
    );
    let reason = store.stats().retired.unwrap();
    assert!(reason.contains("write a cache file"), "{reason}");
    assert!(
        !hits(&store, 1, whole(SIZE)),
        "nothing of a retired directory is read"
    );
}

#[test]
fn a_smaller_capacity_evicts_at_the_open() {
    let dir = temp();
    let store = open_with(dir.path(), 200 * MIB);
    for n in 0..150 {
        fill(&store, n, MIB);
    }
    assert_eq!(store.stats().objects, 150);
    store.close();
    drop(store);
    let store = open(dir.path());
    assert!(store.stats().used <= 64 * MIB);
    assert!(store.stats().objects >= 40);
    assert!(disk_usage(dir.path()) <= 64 * MIB);
}

#[test]
fn a_hundred_thousand_objects_open_in_well_under_a_second() {
    let dir = temp();
    let store = open_with(dir.path(), 1 << 30);
    for n in 0..100_000 {
        fill(&store, n, 0);
    }
    drop(store);
    let started = cpu_ms();
    let store = open_with(dir.path(), 1 << 30);
    let took = cpu_ms() - started;
    assert!(took < 1000, "{took} ms");
    assert_eq!(store.stats().objects, 100_000);
    assert!(hits(&store, 77_777, whole(0)));
}
