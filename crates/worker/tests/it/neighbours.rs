// SPDX-License-Identifier: Apache-2.0
//! A tree that a job reads file by file is fetched ahead of it, and only as far as that is free.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use types::{Freshness, ObjectPath, ObjectRef};
use worker::Settings;

use crate::scripted::{WithTrees, close};
use crate::{CAPACITY, Rig, soon, until};

/// Files in ten classes.
const FILES: usize = 200;
const LEN: usize = 40_000;

/// Puts a tree of small files into the storage.
fn tree(rig: &Rig) -> Vec<ObjectRef> {
    let name = |index: usize| format!("train/{:02}/{index:04}", index % 10);
    let put = |index| rig.storage.put_noise(rig.mount, &name(index), LEN).1;
    (0..FILES).map(put).collect()
}

/// Opens files as a data loader does, one after the other.
async fn open(rig: &Rig, files: &[ObjectRef]) {
    for object in files {
        let cached = rig.worker.local_file(object).is_some();
        rig.worker.opened(object, cached, Freshness::Immutable);
        if !cached {
            let fetched = rig.worker.fetch_whole(object.clone(), soon());
            fetched.await.unwrap();
        }
    }
}

fn cached(rig: &Rig, files: &[ObjectRef]) -> usize {
    let is_cached = |object: &&ObjectRef| rig.worker.local_file(object).is_some();
    files.iter().filter(is_cached).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_tree_comes_by_itself_with_one_request_a_file() {
    let rig = Rig::new();
    let files = tree(&rig);
    open(&rig, &files[..20]).await;
    until("all are cached", || cached(&rig, &files) == FILES).await;
    until("the tree has ended", || rig.worker.trees_ahead().is_empty()).await;
    assert_eq!(rig.storage.read_count(), FILES);
    assert!(rig.worker.stats().neighbours >= 150);
    // The tree, and its classes: each listed once.
    assert_eq!(rig.storage.asked(), (11, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_files_bring_no_others() {
    let rig = Rig::new();
    let files = tree(&rig);
    open(&rig, &files[..15]).await;
    assert_eq!(rig.storage.asked(), (0, 0));
    assert_eq!(rig.storage.read_count(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_switched_off() {
    let settings = Settings {
        neighbours: false,
        ..Settings::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(Arc::default(), dir, Some(CAPACITY), settings);
    let files = tree(&rig);
    open(&rig, &files[..100]).await;
    assert_eq!(rig.storage.asked(), (0, 0));
    assert_eq!(rig.storage.read_count(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cache_is_not_emptied_for_guesses() {
    let dir = tempfile::tempdir().unwrap();
    let capacity = 64 << 20;
    let rig = Rig::with(Arc::default(), dir, Some(capacity), Settings::default());
    let kept: Vec<_> = (0..18)
        .map(|index| {
            rig.storage
                .put_noise(rig.mount, &format!("kept/{index}"), 3 << 20)
                .1
        })
        .collect();
    for object in &kept {
        let fetched = rig.worker.fetch_whole(object.clone(), soon());
        fetched.await.unwrap();
    }
    let files = tree(&rig);
    open(&rig, &files[..60]).await;
    until("the tree has ended", || rig.worker.trees_ahead().is_empty()).await;
    assert!(cached(&rig, &files) < FILES);
    assert_eq!(cached(&rig, &kept), kept.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_whose_readers_have_gone_is_left_alone() {
    let rig = Rig::new();
    let files = tree(&rig);
    open(&rig, &files[..15]).await;
    close(&rig.storage.list_gate).await;
    rig.worker.opened(&files[15], false, Freshness::Immutable);
    until("it is listed", || rig.storage.asked().0 == 1).await;
    rig.clock.advance(Duration::from_secs(11));
    rig.storage.list_gate.add_permits(100);
    until("the tree has ended", || rig.worker.trees_ahead().is_empty()).await;
    assert_eq!(rig.storage.read_count(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_fails_ends_it_and_no_reader_fails_for_it() {
    let rig = Rig::new();
    let files = tree(&rig);
    open(&rig, &files[..15]).await;
    rig.storage.reads_to_fail.store(8, Ordering::SeqCst);
    rig.worker.opened(&files[15], false, Freshness::Immutable);
    until("the failures", || {
        rig.storage.reads_to_fail.load(Ordering::SeqCst) == 0
    })
    .await;
    until("the tree has ended", || rig.worker.trees_ahead().is_empty()).await;
    open(&rig, &files).await;
    assert_eq!(cached(&rig, &files), FILES);
}

#[tokio::test]
async fn a_reader_goes_before_its_neighbours() {
    let settings = Settings {
        width: worker::settings::Bounds::fixed(1),
        ..Settings::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(Arc::default(), dir, Some(CAPACITY), settings);
    let files = tree(&rig);
    open(&rig, &files[..15]).await;
    let (_, wanted) = rig.storage.put_noise(rig.mount, "elsewhere", 5_000);
    close(&rig.storage.gate).await;
    rig.worker.opened(&files[15], false, Freshness::Immutable);
    until("the first neighbour", || rig.storage.read_count() == 16).await;
    until("more neighbours wait", || {
        rig.worker.stats().neighbours > 10
    })
    .await;
    let fetched = tokio::spawn(rig.worker.fetch_whole(wanted, soon()));
    // On this one thread that is time enough for it to queue.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    rig.storage.gate.add_permits(1);
    until("the next request", || rig.storage.read_count() == 17).await;
    assert_eq!(rig.storage.reads.lock().unwrap()[16].len, 5_000);
    rig.storage.gate.add_permits(1000);
    fetched.await.unwrap().unwrap();
}

/// Puts a tree of directories into the storage, with a file in each.
fn directories(rig: &Rig) -> Vec<ObjectPath> {
    let put = |index: usize| {
        let dir = format!("logs/{:02}/{index:03}", index / 20);
        let file = rig.storage.put_noise(rig.mount, &format!("{dir}/file"), 10);
        file.1.path.split().unwrap().0
    };
    (0..100).map(put).collect()
}

async fn list(rig: &Rig, dir: &ObjectPath, freshness: Freshness) -> usize {
    let listing = rig.worker.list(rig.mount, dir.clone(), freshness, soon());
    listing.await.unwrap().value.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_finds_the_rest_of_the_tree_listed_and_each_directory_is_listed_once() {
    let rig = Rig::new();
    let dirs = directories(&rig);
    for dir in &dirs[..60] {
        assert_eq!(list(&rig, dir, Freshness::Immutable).await, 1);
    }
    until("the rest is listed", || {
        let is_known = |dir| rig.worker.known_list(rig.mount, dir, Freshness::Immutable);
        dirs.iter().all(|dir| is_known(dir).is_some())
    })
    .await;
    for dir in &dirs {
        assert_eq!(list(&rig, dir, Freshness::Immutable).await, 1);
    }
    // All of them, the five that they are in, and the one above.
    assert_eq!(rig.storage.asked(), (106, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_and_the_first_in_it_bring_the_others() {
    let rig = Rig::new();
    let dirs = directories(&rig);
    let (above, _) = dirs[0].split().unwrap();
    let siblings = dirs.iter().filter(|dir| dir.split().unwrap().0 == above);
    let siblings = siblings.count() as u64;
    list(&rig, &above, Freshness::Immutable).await;
    list(&rig, &dirs[1], Freshness::Immutable).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.storage.asked(), (2, 0), "the second says nothing");
    list(&rig, &dirs[0], Freshness::Immutable).await;
    until("the others are listed", || rig.storage.asked().0 > siblings).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.storage.asked(), (1 + siblings, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_directories_bring_no_others_and_none_where_each_look_asks() {
    let rig = Rig::new();
    let dirs = directories(&rig);
    for dir in &dirs[..2] {
        list(&rig, dir, Freshness::Immutable).await;
    }
    let settings = Settings {
        neighbours: false,
        ..Settings::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let off = Rig::with(Arc::default(), dir, Some(CAPACITY), settings);
    let same = directories(&off);
    for dir in &dirs[50..60] {
        list(&rig, dir, Freshness::Always).await;
        list(&off, dir, Freshness::Immutable).await;
    }
    assert_eq!(same, dirs);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        (rig.storage.asked(), off.storage.asked()),
        ((12, 0), (10, 0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_that_stops_is_not_followed_to_the_end_of_a_huge_tree() {
    let rig = Rig::new();
    for index in 0..300 {
        let name = format!("all/{index:03}/file");
        rig.storage.put_noise(rig.mount, &name, 10);
    }
    for index in 0..4 {
        let dir = ObjectPath::parse(format!("all/{index:03}").as_bytes()).unwrap();
        list(&rig, &dir, Freshness::Immutable).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (lists, _) = rig.storage.asked();
    assert!((60..=150).contains(&lists), "{lists} listings");
}

/// Has the storage of a rig list trees, and puts many small directories with files of all kinds of
/// depths into it. Returns the directories.
fn many_directories(rig: &Rig, count: usize) -> Vec<ObjectPath> {
    let storage = WithTrees(Arc::clone(&rig.storage));
    assert_eq!(rig.worker.add_storage(Arc::new(storage)), rig.mount);
    let mut dirs = Vec::new();
    for index in 0..count {
        let dir = format!("all/{index:04}");
        let names = match index % 4 {
            0 => vec!["one"],
            1 => vec!["one", "two"],
            2 => vec!["below/one"],
            _ => vec!["below", "below-it", "below/one", "two"],
        };
        for name in names {
            rig.storage.put(&format!("{dir}/{name}"), "bytes");
        }
        dirs.push(ObjectPath::parse(dir.as_bytes()).unwrap());
        if index % 4 > 1 {
            dirs.push(ObjectPath::parse(format!("{dir}/below").as_bytes()).unwrap());
        }
    }
    dirs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_of_many_tiny_directories_is_a_few_pages_and_each_is_as_listed_by_itself() {
    let rig = Rig::new();
    let dirs = many_directories(&rig, 2000);
    let known = |dir: &ObjectPath| rig.worker.known_list(rig.mount, dir, Freshness::Immutable);
    for dir in &dirs[..100] {
        list(&rig, dir, Freshness::Immutable).await;
    }
    until("the rest is listed", || {
        dirs.iter().all(|dir| known(dir).is_some())
    })
    .await;
    let (lists, _) = rig.storage.asked();
    assert!(lists <= 100, "{lists} listings");
    let pages = rig.storage.tree_pages.load(Ordering::SeqCst);
    assert!(
        (5..=6).contains(&pages),
        "{pages} pages of a thousand names"
    );
    let alone = Rig::over(
        Arc::clone(&rig.storage),
        tempfile::tempdir().unwrap(),
        false,
    );
    for dir in dirs.iter().step_by(7) {
        let listing = alone
            .worker
            .list(rig.mount, dir.clone(), Freshness::Immutable, soon());
        assert_eq!(
            listing.await.unwrap().value,
            known(dir).unwrap().value,
            "{dir}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_a_large_directory_is_listed_one_by_one() {
    let rig = Rig::new();
    let dirs = many_directories(&rig, 200);
    for index in 0..6000 {
        rig.storage.put(&format!("all/0001/{index}"), "bytes");
    }
    let known = |dir: &ObjectPath| rig.worker.known_list(rig.mount, dir, Freshness::Immutable);
    for dir in &dirs[5..100] {
        list(&rig, dir, Freshness::Immutable).await;
    }
    until("the rest is listed", || {
        dirs[5..].iter().all(|dir| known(dir).is_some())
    })
    .await;
    let pages = rig.storage.tree_pages.load(Ordering::SeqCst);
    assert!(pages <= 7, "{pages}");
}
