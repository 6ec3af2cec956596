// SPDX-License-Identifier: Apache-2.0
//! Places that are synced: what is not believed afterwards, and what is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use types::{ErrorKind, Freshness, ObjectPath, Result};
use worker::Found;

use crate::scripted::close;
use crate::{Rig, soon, until};

fn path(text: &str) -> ObjectPath {
    ObjectPath::parse(text.as_bytes()).unwrap()
}

/// The size of an object on a mount that never asks again of itself.
async fn size(rig: &Rig, text: &str) -> Result<u64> {
    let stat = rig
        .worker
        .stat(rig.mount, path(text), Freshness::Immutable, soon());
    Ok(stat.await?.value.tag.size)
}

async fn sync(rig: &Rig, text: &str) -> Result<Found> {
    let synced = rig.worker.sync(rig.mount, path(text), soon()).await?;
    assert!(synced.is_remembered);
    Ok(synced.found)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_below_a_synced_place_is_asked_for_again_also_after_a_restart() {
    let rig = Rig::new();
    for name in ["a", "d/b", "d/e/c"] {
        rig.storage.put(name, "1");
        assert_eq!(size(&rig, name).await.unwrap(), 1);
    }
    assert!(size(&rig, "d/e/new").await.is_err());
    for name in ["a", "d/b", "d/e/c", "d/e/new"] {
        rig.storage.put(name, "22");
    }
    assert!(matches!(sync(&rig, "a").await, Ok(Found::File)));
    assert_eq!(size(&rig, "a").await.unwrap(), 2);
    assert_eq!(
        size(&rig, "d/b").await.unwrap(),
        1,
        "not of what was synced"
    );
    let Ok(Found::Directory(_, listing)) = sync(&rig, "").await else {
        panic!("the root is a directory")
    };
    assert_eq!(listing.len(), 2);
    let (lists, heads) = rig.storage.asked();
    let rig = rig.restart();
    for name in ["a", "d/b", "d/e/c", "d/e/new"] {
        assert_eq!(size(&rig, name).await.unwrap(), 2, "{name}");
    }
    assert_eq!(
        rig.storage.asked(),
        (lists + 2, heads),
        "the root was kept as the sync listed it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_told_apart_from_what_never_was() {
    let rig = Rig::new();
    rig.storage.put("d/a", "1");
    assert_eq!(size(&rig, "d/a").await.unwrap(), 1);
    rig.storage.delete("d/a");
    let found = sync(&rig, "d/a").await.unwrap();
    assert!(matches!(found, Found::Absent { was_known: true }));
    let gone = size(&rig, "d/a").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let found = sync(&rig, "d/never").await.unwrap();
    assert!(matches!(found, Found::Absent { was_known: false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_away_costs_no_knowledge() {
    let rig = Rig::new();
    rig.storage.put("d/a", "1");
    assert_eq!(size(&rig, "d/a").await.unwrap(), 1);
    rig.storage.is_off.store(true, Ordering::SeqCst);
    for place in ["", "d", "d/a"] {
        let error = sync(&rig, place).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{place}");
    }
    assert_eq!(size(&rig, "d/a").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_after_a_sync_does_not_join_who_asked_before() {
    let rig = Arc::new(Rig::new());
    rig.storage.put("a", "1");
    close(&rig.storage.list_gate).await;
    // The answer of then is on its way; with no listing in time, the name is asked for alone.
    close(&rig.storage.stat_gate).await;
    let early = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { size(&rig, "a").await }
    });
    until("both are asked", || rig.storage.asked() == (1, 1)).await;
    rig.storage.put("a", "22");
    let synced = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { sync(&rig, "").await }
    });
    until("the sync asks", || rig.storage.asked().0 == 2).await;
    rig.storage.list_gate.add_permits(2);
    assert!(synced.await.unwrap().is_ok());
    let late = tokio::spawn({
        let rig = Arc::clone(&rig);
        async move { size(&rig, "a").await }
    });
    rig.storage.list_gate.add_permits(100);
    rig.storage.stat_gate.add_permits(100);
    assert_eq!(late.await.unwrap().unwrap(), 2);
    early.await.unwrap().unwrap();
    assert_eq!(
        size(&rig, "a").await.unwrap(),
        2,
        "nor believes the old answer"
    );
}
