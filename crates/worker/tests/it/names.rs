// SPDX-License-Identifier: Apache-2.0
//! Names: what a look-up costs, how long it stays true, and what an outage does to it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use types::{
    Clock, ErrorKind, Freshness, ManualClock, MountId, ObjectMeta, ObjectPath, Result, SystemClock,
};
use worker::{Settings, Worker};

use crate::scripted::{ScriptedStorage, close};
use crate::{Rig, soon, until};

const MINUTE: Freshness = Freshness::MaxAge(Duration::from_secs(60));

fn path(text: &str) -> ObjectPath {
    ObjectPath::parse(text.as_bytes()).unwrap()
}

async fn stat(rig: &Rig, text: &str, freshness: Freshness) -> Result<ObjectMeta> {
    let stat = rig
        .worker
        .stat(rig.mount, path(text), freshness, soon())
        .await;
    stat.map(|learnt| learnt.value)
}

async fn names(rig: &Rig, dir: &str) -> Vec<String> {
    let listing = rig
        .worker
        .list(rig.mount, path(dir), MINUTE, soon())
        .await
        .unwrap();
    listing
        .value
        .iter()
        .map(|entry| entry.name.to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_listing_answers_for_all_names_of_a_directory() {
    let rig = Rig::new();
    rig.storage.put("d/a", "1");
    rig.storage.put("d/b", "22");
    assert_eq!(stat(&rig, "d/b", MINUTE).await.unwrap().tag.size, 2);
    assert_eq!(stat(&rig, "d/a", MINUTE).await.unwrap().tag.size, 1);
    assert_eq!(
        stat(&rig, "d/c", MINUTE).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(names(&rig, "d").await, ["a", "b"]);
    assert_eq!(rig.storage.asked(), (1, 0));
    let rig = rig.restart();
    assert_eq!(names(&rig, "d").await, ["a", "b"]);
    assert_eq!(stat(&rig, "d/b", MINUTE).await.unwrap().tag.size, 2);
    assert_eq!(
        stat(&rig, "d/c", MINUTE).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(rig.storage.asked(), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_a_listing_is_looked_at_once_and_nothing_else_is() {
    let rig = Rig::new();
    rig.storage.put("d/empty", "");
    rig.storage.put("d/link", "link to d/empty");
    assert_eq!(names(&rig, "d").await, ["empty", "link"]);
    stat(&rig, "d/empty", MINUTE).await.unwrap();
    assert_eq!(rig.storage.asked(), (1, 0));
    let rig = {
        for _ in 0..2 {
            let link = stat(&rig, "d/link", MINUTE).await.unwrap();
            assert_eq!(link.link(), Some(&b"d/empty"[..]));
        }
        assert_eq!(rig.storage.asked(), (1, 1));
        rig.restart()
    };
    let link = stat(&rig, "d/link", MINUTE).await.unwrap();
    assert_eq!(link.link(), Some(&b"d/empty"[..]));
    assert_eq!(rig.storage.asked(), (1, 1), "it is known after a restart");
    // The first look-up of all is a listing, and the link another look.
    rig.storage.put("e/link", "link to x");
    let link = stat(&rig, "e/link", MINUTE).await.unwrap();
    assert_eq!(link.link(), Some(&b"x"[..]));
    assert_eq!(rig.storage.asked(), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_when_its_age_has_passed() {
    let rig = Rig::new();
    rig.storage.put("d/a", "1");
    rig.storage.put("d/gone", "1");
    assert_eq!(stat(&rig, "d/a", MINUTE).await.unwrap().tag.size, 1);
    rig.storage.put("d/a", "333");
    rig.storage.put("d/new", "1");
    rig.storage.delete("d/gone");
    assert_eq!(stat(&rig, "d/a", MINUTE).await.unwrap().tag.size, 1);
    assert_eq!(
        stat(&rig, "d/a", Freshness::Immutable)
            .await
            .unwrap()
            .tag
            .size,
        1
    );
    rig.clock.advance(Duration::from_secs(61));
    assert_eq!(stat(&rig, "d/a", MINUTE).await.unwrap().tag.size, 3);
    assert_eq!(names(&rig, "d").await, ["a", "new"]);
    assert_eq!(rig.storage.asked(), (2, 0));
    let rig = rig.restart();
    assert_eq!(names(&rig, "d").await, ["a", "new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn always_asks_always() {
    let rig = Rig::new();
    rig.storage.put("a", "1");
    for size in [1, 2, 3] {
        rig.storage.put("a", vec![0; size]);
        assert_eq!(
            stat(&rig, "a", Freshness::Always).await.unwrap().tag.size,
            size as u64
        );
    }
    rig.storage.delete("a");
    let error = stat(&rig, "a", Freshness::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(rig.storage.asked(), (0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_an_error_and_never_absence() {
    let rig = Rig::new();
    rig.storage.put("d/a", "1");
    rig.storage.is_off.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = stat(&rig, "d/a", MINUTE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            rig.worker
                .list(rig.mount, path("d"), MINUTE, soon())
                .await
                .is_err()
        );
    }
    rig.storage.is_off.store(false, Ordering::SeqCst);
    assert_eq!(stat(&rig, "d/a", MINUTE).await.unwrap().tag.size, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_old_knowledge_is_served_and_the_storage_rests() {
    let rig = Rig::new();
    rig.storage.put("d/a", "1");
    stat(&rig, "d/a", MINUTE).await.unwrap();
    rig.storage.is_off.store(true, Ordering::SeqCst);
    rig.clock.advance(Duration::from_secs(3600));
    for _ in 0..10 {
        assert_eq!(stat(&rig, "d/a", MINUTE).await.unwrap().tag.size, 1);
        assert_eq!(names(&rig, "d").await, ["a"]);
        assert_eq!(
            stat(&rig, "d/x", MINUTE).await.unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
    assert_eq!(rig.storage.asked(), (2, 0));
    assert!(stat(&rig, "d/a", Freshness::Always).await.is_err());
    assert!(rig.worker.stats().stale_served >= 30);
    rig.storage.is_off.store(false, Ordering::SeqCst);
    rig.storage.put("d/a", "22");
    rig.clock.advance(Duration::from_secs(6));
    assert_eq!(stat(&rig, "d/a", MINUTE).await.unwrap().tag.size, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_a_large_directory_is_asked_for_alone_once_old() {
    let rig = Rig::new();
    for index in 0..2100 {
        rig.storage.put(&format!("d/{index}"), "1");
    }
    assert_eq!(names(&rig, "d").await.len(), 2100);
    rig.clock.advance(Duration::from_secs(61));
    stat(&rig, "d/7", MINUTE).await.unwrap();
    stat(&rig, "d/7", MINUTE).await.unwrap();
    assert_eq!(rig.storage.asked(), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_path_is_asked_for_again() {
    let rig = Rig::new();
    rig.storage.put("d/a", "1");
    stat(&rig, "d/a", Freshness::Immutable).await.unwrap();
    rig.storage.put("d/a", "22");
    rig.worker.forget_path(rig.mount, &path("d/a"));
    assert_eq!(
        stat(&rig, "d/a", Freshness::Immutable)
            .await
            .unwrap()
            .tag
            .size,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn always_takes_no_answer_that_was_asked_for_before() {
    let rig = Rig::new();
    rig.storage.put("d/a", "1");
    close(&rig.storage.stat_gate).await;
    close(&rig.storage.list_gate).await;
    let ask = || {
        let (worker, mount) = (Arc::clone(&rig.worker), rig.mount);
        let stat = worker.stat(mount, path("d/a"), Freshness::Always, soon());
        let list = worker.list(mount, path("d"), Freshness::Always, soon());
        (tokio::spawn(stat), tokio::spawn(list))
    };
    let (early_stat, early_list) = ask();
    until("the first questions", || rig.storage.asked() == (1, 1)).await;
    rig.storage.put("d/a", "22");
    rig.storage.put("d/b", "1");
    let (late_stat, late_list) = ask();
    until("the second questions", || rig.storage.asked() == (2, 2)).await;
    rig.storage.stat_gate.add_permits(2);
    rig.storage.list_gate.add_permits(2);
    assert_eq!(early_stat.await.unwrap().unwrap().value.tag.size, 1);
    assert_eq!(early_list.await.unwrap().unwrap().value.len(), 1);
    assert_eq!(late_stat.await.unwrap().unwrap().value.tag.size, 2);
    assert_eq!(late_list.await.unwrap().unwrap().value.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_asked_for_alone_is_newer_than_the_listing_that_was_under_way() {
    let rig = Rig::new();
    for name in ["d/changed", "d/gone", "d/same"] {
        rig.storage.put(name, "1");
    }
    close(&rig.storage.list_gate).await;
    let listing = rig.worker.list(rig.mount, path("d"), MINUTE, soon());
    let listing = tokio::spawn(listing);
    until("the listing", || rig.storage.asked().0 == 1).await;
    rig.storage.put("d/changed", "22");
    rig.storage.put("d/new", "22");
    rig.storage.delete("d/gone");
    let check = async |rig: &Rig| {
        for (name, size) in [("d/changed", 2), ("d/new", 2), ("d/same", 1)] {
            assert_eq!(
                stat(rig, name, MINUTE).await.unwrap().tag.size,
                size,
                "{name}"
            );
        }
        let gone = stat(rig, "d/gone", MINUTE).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
    };
    check(&rig).await;
    assert_eq!(rig.storage.asked(), (1, 4));
    rig.storage.list_gate.add_permits(1);
    assert_eq!(listing.await.unwrap().unwrap().value.len(), 3);
    check(&rig).await;
    assert_eq!(names(&rig, "d").await, ["changed", "new", "same"]);
    let rig = rig.restart();
    check(&rig).await;
    assert_eq!(names(&rig, "d").await, ["changed", "new", "same"]);
    assert_eq!(rig.storage.asked(), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_map_lost_is_not_absent() {
    for count in [3, 2500] {
        let rig = Rig::new();
        for index in 0..count {
            rig.storage
                .put(&format!("d/some-name-{index}-of-many"), "1");
        }
        let lost = "d/some-name-1-of-many";
        stat(&rig, lost, Freshness::Immutable).await.unwrap();
        let Rig {
            worker,
            storage,
            dir,
            ..
        } = rig;
        worker.close();
        drop(worker);
        let map = dir.path().join("names");
        cache::kv::Kv::open(&map, 1 << 20)
            .unwrap()
            .checkpoint()
            .unwrap();
        let file = dir.path().join("names.redb");
        let mut bytes = std::fs::read(&file).unwrap();
        let name = &lost.as_bytes()[2..];
        let found: Vec<usize> = bytes
            .windows(name.len())
            .enumerate()
            .filter_map(|(at, window)| (window == name).then_some(at))
            .collect();
        assert!(!found.is_empty());
        for at in found {
            bytes[at + 12] = b'x';
        }
        std::fs::write(&file, bytes).unwrap();
        let rig = Rig::over(storage, dir, true);
        let asked = rig.storage.asked();
        stat(&rig, lost, Freshness::Immutable).await.unwrap();
        assert_ne!(rig.storage.asked(), asked);
        assert_eq!(names(&rig, "d").await.len(), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_directory_is_known_after_a_restart_and_not_read_back_on_the_spot() {
    let rig = Rig::new();
    for index in 0..2100 {
        rig.storage.put(&format!("d/{index}"), "1");
    }
    assert_eq!(names(&rig, "d").await.len(), 2100);
    let rig = rig.restart();
    assert!(
        rig.worker
            .known_list(rig.mount, &path("d"), MINUTE)
            .is_none()
    );
    assert_eq!(names(&rig, "d").await.len(), 2100);
    assert!(
        rig.worker
            .known_list(rig.mount, &path("d"), MINUTE)
            .is_some()
    );
    assert_eq!(rig.storage.asked(), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joined_a_question_that_ran_out_of_time_asks_again() {
    let (worker, storage, mount) = bare(Arc::new(SystemClock));
    storage.put("d/a", "1");
    close(&storage.list_gate).await;
    close(&storage.stat_gate).await;
    let ask = |deadline| tokio::spawn(worker.stat(mount, path("d/a"), MINUTE, deadline));
    let first = ask(SystemClock.deadline(Duration::from_millis(600)));
    until("the first question", || storage.asked() == (1, 1)).await;
    let second = ask(soon());
    let error = first.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    until("the second question", || storage.asked() == (1, 2)).await;
    storage.stat_gate.add_permits(1);
    assert_eq!(second.await.unwrap().unwrap().value.tag.size, 1);
}

/// A worker with neither cache nor map.
fn bare(clock: Arc<dyn Clock>) -> (Arc<Worker>, Arc<ScriptedStorage>, MountId) {
    let (settings, runtime) = (Settings::default(), tokio::runtime::Handle::current());
    let worker = Worker::new(settings, None, None, runtime, clock).unwrap();
    let storage = Arc::new(ScriptedStorage::default());
    let mount = worker.add_storage(Arc::clone(&storage) as Arc<dyn ufs::UnderStorage>);
    (worker, storage, mount)
}

/// A clock whose wall can be set back.
#[derive(Debug, Default)]
struct SetBack {
    clock: ManualClock,
    by: Mutex<Duration>,
}

impl Clock for SetBack {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wall(&self) -> SystemTime {
        self.clock.wall() - *self.by.lock().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_makes_no_name_younger() {
    let clock = Arc::new(SetBack::default());
    let (worker, storage, mount) = bare(Arc::clone(&clock) as Arc<dyn Clock>);
    storage.put("d/a", "1");
    clock.clock.advance(Duration::from_secs(100));
    let first = worker.stat(mount, path("d/a"), MINUTE, soon()).await;
    assert_eq!(first.unwrap().value.tag.size, 1);
    clock.clock.advance(Duration::from_secs(50));
    *clock.by.lock().unwrap() = Duration::from_secs(45);
    clock.clock.advance(Duration::from_secs(11));
    assert!(worker.known(mount, &path("d/a"), MINUTE).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_would_take_all_memory_is_an_error_and_its_names_are_found_one_by_one() {
    let storage: Arc<ScriptedStorage> = Arc::default();
    for index in 0..1000 {
        storage.put(&format!("d/{index:04}"), "1");
    }
    let settings = Settings {
        listing: types::ByteSize(50_000),
        ..Settings::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::with(storage, dir, Some(1 << 30), settings);
    let listed = rig.worker.list(rig.mount, path("d"), MINUTE, soon()).await;
    let error = listed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("do not fit into memory"),
        "{error}"
    );
    assert!(error.to_string().contains("/d'"), "{error}");
    assert_eq!(stat(&rig, "d/0500", MINUTE).await.unwrap().tag.size, 1);
    let absent = stat(&rig, "d/none", MINUTE).await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
}
