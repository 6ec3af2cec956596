// SPDX-License-Identifier: Apache-2.0
//! Requests whose answer is late are sent again: which, how often, and what comes of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use types::{ByteRange, ErrorKind, ObjectRef};
use worker::{Hedges, Settings};

use crate::{Rig, soon, until};

/// What all answers take but for late ones, and what makes one late then.
const LATENCY: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_secs(5);
const LEN: u64 = 1000;
/// Answers that come first, so that it is known what is late, and that one may be sent again.
const KNOWN: usize = 60;

/// A rig whose requests after the known ones are as late as this says.
async fn rig(hedging: bool, latency: fn(usize) -> Duration) -> Rig {
    let settings = Settings {
        hedging,
        ..Settings::default()
    };
    let rig = Rig::with(
        Default::default(),
        tempfile::tempdir().unwrap(),
        None,
        settings,
    );
    *rig.storage.latency.lock().unwrap() = latency;
    for index in 0..KNOWN {
        let object = put(&rig, &format!("known-{index}"));
        assert_eq!(read(&rig, &object.1).await.unwrap(), object.0);
    }
    rig
}

fn late_once(index: usize) -> Duration {
    match index == KNOWN {
        true => LATE,
        false => LATENCY,
    }
}

fn put(rig: &Rig, name: &str) -> (Bytes, ObjectRef) {
    rig.storage.put_noise(rig.mount, name, LEN as usize)
}

async fn read(rig: &Rig, object: &ObjectRef) -> types::Result<Bytes> {
    let whole = ByteRange::new(0, LEN);
    rig.worker.read(object.clone(), whole, whole, soon()).await
}

fn hedges(rig: &Rig) -> Hedges {
    rig.worker.requests(rig.mount).unwrap().hedges
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_late_is_asked_for_again_and_the_first_to_come_is_taken() {
    let rig = rig(true, late_once).await;
    let (bytes, object) = put(&rig, "late");
    let began = Instant::now();
    assert_eq!(read(&rig, &object).await.unwrap(), bytes);
    assert!(began.elapsed() < LATE / 10, "{:?}", began.elapsed());
    assert_eq!(rig.storage.read_count(), KNOWN + 2);
    let expected = Hedges {
        sent: 1,
        won: 1,
        refused: 0,
    };
    assert_eq!(hedges(&rig), expected);
    assert_eq!(rig.worker.requests(rig.mount).unwrap().under_way, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_where_that_is_switched_off() {
    let rig = rig(false, late_once).await;
    let (bytes, object) = put(&rig, "late");
    assert_eq!(read(&rig, &object).await.unwrap(), bytes);
    assert_eq!(rig.storage.read_count(), KNOWN + 1);
    assert_eq!(hedges(&rig), Hedges::default());
}

#[tokio::test(start_paused = true)]
async fn a_second_request_that_fails_is_no_answer() {
    let rig = rig(true, late_once).await;
    let (bytes, object) = put(&rig, "late");
    rig.storage.reads_to_fail.store(1, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(read(&rig, &object).await.unwrap(), bytes);
    assert!(began.elapsed() >= LATE);
    assert_eq!((hedges(&rig).sent, hedges(&rig).won), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn both_requests_ask_for_one_version() {
    let rig = rig(true, late_once).await;
    let (_, object) = put(&rig, "late");
    let reading = async {
        let error = read(&rig, &object).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale);
    };
    let replacing = async {
        tokio::time::sleep(LATENCY).await;
        rig.storage.put("late", vec![7; LEN as usize]);
    };
    futures::join!(reading, replacing);
    assert_eq!(hedges(&rig).sent, 1);
    let mut buf = Vec::new();
    let whole = ByteRange::new(0, LEN);
    assert!(!rig.worker.read_cached(&object, whole, &mut buf));
}

#[tokio::test(start_paused = true)]
async fn a_guess_is_sent_again_when_a_reader_waits_for_it() {
    let rig = rig(true, late_once).await;
    let (bytes, object) = put(&rig, "late");
    rig.worker.read_ahead(&object, ByteRange::new(0, LEN));
    tokio::time::sleep(LATE / 2).await;
    assert_eq!(rig.storage.read_count(), KNOWN + 1);
    let began = Instant::now();
    assert_eq!(read(&rig, &object).await.unwrap(), bytes);
    assert!(began.elapsed() < LATE / 10, "{:?}", began.elapsed());
    assert_eq!(rig.storage.read_count(), KNOWN + 2);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_is_slow_as_a_whole_is_not_sent_twice_as_much() {
    let rig = rig(true, |index| match index < KNOWN {
        true => LATENCY,
        false => LATE,
    })
    .await;
    for index in 0..200 {
        let (bytes, object) = put(&rig, &format!("slow-{index}"));
        assert_eq!(read(&rig, &object).await.unwrap(), bytes);
    }
    let sent = rig.storage.read_count() - KNOWN - 200;
    assert!((1..=6).contains(&sent), "{sent}");
    assert_eq!(hedges(&rig).sent, sent as u64);
    until("all turns are back", || {
        rig.worker.requests(rig.mount).unwrap().under_way == 0
    })
    .await;
}
