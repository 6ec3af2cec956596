// SPDX-License-Identifier: Apache-2.0
//! Loads: everything that is listed is cached at the end, or it is said what is not, and why.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use types::{ByteSize, Freshness, ObjectPath, ObjectRef};
use worker::{LoadEnd, LoadPlan, LoadProgress, Pick, Settings, Subtree};

use crate::scripted::close;
use crate::{CAPACITY, Rig, soon, until};

/// How long names are believed; time stands still unless a test moves it.
const MINUTE: Duration = Duration::from_secs(60);

fn subtree(rig: &Rig, path: &str) -> Subtree {
    Subtree {
        mount: rig.mount,
        path: ObjectPath::parse(path.as_bytes()).unwrap(),
        freshness: Freshness::MaxAge(MINUTE),
        hidden: Vec::new(),
    }
}

fn plan(rig: &Rig, path: &str) -> LoadPlan {
    LoadPlan {
        trees: vec![subtree(rig, path)],
        pick: Arc::new(|_| true),
        metadata_only: false,
        bandwidth: None,
        verify: false,
    }
}

async fn load(rig: &Rig, plan: LoadPlan) -> (LoadEnd, worker::LoadCounts) {
    let progress = Arc::new(LoadProgress::default());
    let end = rig.worker.load(plan, Arc::clone(&progress)).await;
    (end, progress.counts())
}

fn put(rig: &Rig, name: &str, len: usize) -> ObjectRef {
    rig.storage.put_noise(rig.mount, name, len).1
}

fn is_cached(rig: &Rig, object: &ObjectRef) -> bool {
    rig.worker.local_file(object).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_listed_is_cached_and_a_second_load_asks_for_nothing_more() {
    let rig = Rig::new();
    let files: Vec<_> = (0..60)
        .map(|index| put(&rig, &format!("d/{}/{index}", index % 7), 40_000 + index))
        .collect();
    let large = put(&rig, "d/large", (20 << 20) + 5);
    put(&rig, "d/empty", 0);
    put(&rig, "elsewhere", 1000);
    let (end, counts) = load(&rig, plan(&rig, "d")).await;
    assert_eq!(end, LoadEnd::default());
    assert_eq!((counts.found_files, counts.cached_files), (62, 62));
    assert_eq!(counts.found_bytes, counts.cached_bytes);
    assert_eq!(counts.fetched_bytes, counts.found_bytes);
    assert!(files.iter().all(|file| is_cached(&rig, file)));
    assert!(is_cached(&rig, &large));
    // Memory for a part is a quarter of all there is.
    assert_eq!(rig.storage.read_count(), 60 + 6);

    let (end, counts) = load(&rig, plan(&rig, "d")).await;
    assert_eq!((end.missing_count, counts.fetched_bytes), (0, 0));
    assert_eq!(rig.storage.read_count(), 66);

    let (end, counts) = load(&rig, plan(&rig, "elsewhere")).await;
    assert_eq!((end.missing_count, counts.cached_files), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_picked_is_loaded_and_names_alone_fetch_nothing() {
    let rig = Rig::new();
    let (a, b) = (put(&rig, "d/a", 5000), put(&rig, "d/b", 5000));
    let names = LoadPlan {
        metadata_only: true,
        ..plan(&rig, "d")
    };
    let (end, counts) = load(&rig, names).await;
    assert_eq!((end.missing_count, counts.found_files), (0, 2));
    assert_eq!(rig.storage.read_count(), 0);
    let pick: Pick = Arc::new(|object| object.path.as_bytes() == b"d/a");
    let one = LoadPlan {
        pick,
        ..plan(&rig, "d")
    };
    let (end, counts) = load(&rig, one).await;
    assert_eq!((end.missing_count, counts.found_files), (0, 1));
    assert!(is_cached(&rig, &a) && !is_cached(&rig, &b));
    let mut hidden = plan(&rig, "");
    hidden.trees[0].hidden = vec![ObjectPath::parse(b"d").unwrap()];
    assert_eq!(load(&rig, hidden).await.1.found_files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_cache_ends_a_load_with_the_reason_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(Arc::default(), dir, Some(64 << 20), Settings::default());
    let kept: Vec<_> = (0..10)
        .map(|index| put(&rig, &format!("kept/{index}"), 3 << 20))
        .collect();
    assert_eq!(load(&rig, plan(&rig, "kept")).await.0.missing_count, 0);
    let more: Vec<_> = (0..20)
        .map(|index| put(&rig, &format!("more/{index}"), 3 << 20))
        .collect();
    rig.clock.advance(2 * MINUTE);
    let (end, _) = load(&rig, plan(&rig, "more")).await;
    let cached = more.iter().filter(|file| is_cached(&rig, file)).count();
    assert!(cached > 0 && cached < 20, "{cached}");
    assert_eq!(end.missing_count, 20 - cached as u64);
    assert_eq!(end.missing.len() as u64, end.missing_count);
    let why = end.halt.unwrap();
    assert!(
        why.contains("full") && why.contains("--cache-size"),
        "{why}"
    );
    assert_eq!(end.missing[0].why, why);
    assert!(kept.iter().all(|file| is_cached(&rig, file)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_and_comes_while_it_loads_is_loaded_too() {
    let rig = Rig::new();
    let old = put(&rig, "d/changes", 5000);
    close(&rig.storage.gate).await;
    let progress = Arc::new(LoadProgress::default());
    let load = tokio::spawn(rig.worker.load(plan(&rig, "d"), Arc::clone(&progress)));
    until("a request", || rig.storage.read_count() == 1).await;
    let new = put(&rig, "d/changes", 6000);
    let late = put(&rig, "d/late", 7000);
    rig.clock.advance(2 * MINUTE);
    rig.storage.gate.add_permits(1000);
    let end = load.await.unwrap();
    assert_eq!(end, LoadEnd::default());
    assert_eq!(progress.counts().cached_files, 2);
    assert!(is_cached(&rig, &new) && is_cached(&rig, &late) && !is_cached(&rig, &old));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_file_by_file_and_a_storage_that_is_away_ends_it() {
    let rig = Rig::new();
    for index in 0..10 {
        put(&rig, &format!("d/{index}"), 5000);
    }
    rig.storage.reads_to_fail.store(2, Ordering::SeqCst);
    let (end, counts) = load(&rig, plan(&rig, "d")).await;
    assert_eq!((end.missing_count, counts.cached_files), (2, 8));
    assert!(end.missing[0].why.contains("told to fail"), "{end:?}");
    assert_eq!(end.halt, None);

    rig.clock.advance(2 * MINUTE);
    for index in 0..500 {
        put(&rig, &format!("e/{index}"), 5000);
    }
    rig.storage.reads_to_fail.store(1_000_000, Ordering::SeqCst);
    let (end, _) = load(&rig, plan(&rig, "e")).await;
    assert_eq!(end.missing_count, 500);
    assert!(end.missing.len() < 500 && rig.storage.read_count() < 300);
    assert!(end.halt.unwrap().contains("in a row"));

    // Old knowledge that stands in for a listing is none to count against.
    rig.storage.is_off.store(true, Ordering::SeqCst);
    rig.clock.advance(2 * MINUTE);
    let (end, _) = load(&rig, plan(&rig, "d")).await;
    assert_eq!(end.missing_count, 1, "the directory itself");
    assert!(end.missing[0].why.contains("does not answer"), "{end:?}");
    let (end, _) = load(&rig, plan(&rig, "none")).await;
    assert_eq!(end.missing_count, 1);
}

#[tokio::test]
async fn a_reader_goes_before_a_load_and_a_load_that_is_dropped_ends() {
    let settings = Settings {
        width: worker::settings::Bounds::fixed(1),
        ..Settings::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(Arc::default(), dir, Some(CAPACITY), settings);
    for index in 0..40 {
        put(&rig, &format!("d/{index}"), 40_000);
    }
    let wanted = put(&rig, "elsewhere", 5_000);
    close(&rig.storage.gate).await;
    let progress = Arc::new(LoadProgress::default());
    let load = tokio::spawn(rig.worker.load(plan(&rig, "d"), Arc::clone(&progress)));
    until("the first request", || rig.storage.read_count() == 1).await;
    until("all are found", || progress.counts().found_files == 40).await;
    let fetched = tokio::spawn(rig.worker.fetch_whole(wanted, soon()));
    // On this one thread that is time enough for it to queue.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    rig.storage.gate.add_permits(1);
    until("the next request", || rig.storage.read_count() == 2).await;
    assert_eq!(rig.storage.reads.lock().unwrap()[1].len, 5_000);
    load.abort();
    assert!(load.await.unwrap_err().is_cancelled());
    rig.storage.gate.add_permits(1000);
    fetched.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_keeps_to_its_bandwidth() {
    let rig = Rig::new();
    for index in 0..4 {
        put(&rig, &format!("d/{index}"), 50_000);
    }
    let slow = LoadPlan {
        bandwidth: Some(ByteSize(250_000)),
        ..plan(&rig, "d")
    };
    let began = soon();
    let (end, _) = load(&rig, slow).await;
    assert_eq!(end.missing_count, 0);
    // The last of them is not sent before the bytes of the three others have had their time.
    let passed = soon().instant() - began.instant();
    assert!(passed >= Duration::from_millis(400), "{passed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_of_a_tree_is_told_and_dropped() {
    let rig = Rig::new();
    let (a, b) = (put(&rig, "d/a", 300_000), put(&rig, "d/b", 5000));
    let other = put(&rig, "other", 1000);
    load(&rig, plan(&rig, "")).await;
    let held = rig.worker.held(subtree(&rig, "d")).await.unwrap().sum();
    assert_eq!((held.files, held.bytes), (2, 305_000));
    assert_eq!((held.cached_files, held.cached_bytes), (2, 305_000));
    let freed = rig.worker.free(subtree(&rig, "d/a")).await.unwrap();
    assert_eq!((freed.files, freed.bytes), (1, 300_000));
    let held = rig.worker.held(subtree(&rig, "d")).await.unwrap().sum();
    assert_eq!((held.cached_files, held.cached_bytes), (1, 5000));
    assert!(!is_cached(&rig, &a) && is_cached(&rig, &b) && is_cached(&rig, &other));
    rig.storage.is_off.store(true, Ordering::SeqCst);
    rig.clock.advance(2 * MINUTE);
    let error = rig.worker.free(subtree(&rig, "d")).await.unwrap_err();
    assert!(error.to_string().contains("'d'"), "{error}");
    assert!(is_cached(&rig, &b));
}
