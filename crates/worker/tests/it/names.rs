// SPDX-License-Identifier: Apache-2.0
//! Names: what a look-up costs, how long it stays true, and what an outage does to it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use types::{ErrorKind, Freshness, ObjectMeta, ObjectPath, Result};

use crate::{Rig, soon};

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
            ErrorKind::NotFound
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
