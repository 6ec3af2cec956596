// SPDX-License-Identifier: Apache-2.0
//! Reads: flights shared, windows, memory, failures.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use types::{ByteRange, ErrorKind, PAGE_SIZE};

use crate::scripted::close;
use crate::{MEMORY, Rig, soon, until};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_range_share_one_request() {
    let rig = Rig::new();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", 700_000);
    let whole = ByteRange::new(0, 700_000);
    let reads = (0..20).map(|_| rig.worker.read(object.clone(), whole, whole, soon()));
    for read in futures::future::join_all(reads).await {
        assert_eq!(read.unwrap(), bytes);
    }
    assert_eq!(rig.storage.read_count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_once_is_a_hit_also_after_a_restart() {
    let rig = Rig::new();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", 3_000_001);
    rig.worker
        .fetch_whole(object.clone(), soon())
        .await
        .unwrap();
    assert!(rig.worker.local_file(&object).is_some());
    let check = |rig: &Rig| {
        let mut buf = b"kept".to_vec();
        assert!(
            rig.worker
                .read_cached(&object, ByteRange::new(5, 2_000_000), &mut buf)
        );
        assert_eq!(buf[4..], bytes[5..2_000_005]);
    };
    check(&rig);
    let rig = rig.restart();
    check(&rig);
    assert_eq!(rig.storage.read_count(), 1);
    assert_eq!(rig.worker.stats().hits, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_rides_in_the_same_request() {
    let rig = Rig::new();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", 8 << 20);
    let range = ByteRange::new(0, PAGE_SIZE);
    let window = ByteRange::new(0, 4 * MIB);
    let read = rig
        .worker
        .read(object.clone(), range, window, soon())
        .await
        .unwrap();
    assert_eq!(read, bytes[..PAGE_SIZE as usize]);
    let next = ByteRange::new(PAGE_SIZE, 3 * MIB);
    let read = rig
        .worker
        .read(object.clone(), next, next, soon())
        .await
        .unwrap();
    assert_eq!(
        read,
        bytes[PAGE_SIZE as usize..(PAGE_SIZE + 3 * MIB) as usize]
    );
    assert_eq!(
        *rig.storage.reads.lock().unwrap(),
        [ByteRange::new(0, 4 * MIB)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_read_fetches_its_pages_and_no_more() {
    let rig = Rig::new();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", 8 << 20);
    let range = ByteRange::new(PAGE_SIZE * 3 + 17, 4096);
    let read = rig
        .worker
        .read(object.clone(), range, range, soon())
        .await
        .unwrap();
    assert_eq!(read, bytes[range.offset as usize..range.end() as usize]);
    assert_eq!(
        *rig.storage.reads.lock().unwrap(),
        [ByteRange::new(PAGE_SIZE * 3, PAGE_SIZE)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_read_ahead_are_served_without_waiting() {
    let rig = Rig::new();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", 2 << 20);
    rig.worker.read_ahead(&object, ByteRange::new(0, 2 * MIB));
    let mut buf = Vec::new();
    let range = ByteRange::new(MIB - 10, 20);
    until("readahead", || {
        rig.worker.read_cached(&object, range, &mut buf)
    })
    .await;
    assert_eq!(buf, bytes[range.offset as usize..range.end() as usize]);
    assert_eq!(rig.worker.stats().misses, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_within_its_budget_while_many_read() {
    let rig = Rig::new();
    let mut readers = Vec::new();
    for reader in 0..64 {
        let (bytes, object) = rig
            .storage
            .put_noise(rig.mount, &format!("{reader}"), 4 << 20);
        let worker = Arc::clone(&rig.worker);
        readers.push(tokio::spawn(async move {
            for at in (0..4).map(|index| index * MIB) {
                let range = ByteRange::new(at, MIB);
                let window = ByteRange::new(at, 8 * MIB);
                let read = worker
                    .read(object.clone(), range, window, soon())
                    .await
                    .unwrap();
                assert!(read == bytes[at as usize..(at + MIB) as usize]);
                let stats = worker.stats();
                assert!(stats.memory_used <= stats.memory_total && stats.memory_total == MEMORY);
            }
        }));
    }
    for reader in readers {
        reader.await.unwrap();
    }
    until("memory to be free", || rig.worker.stats().memory_used == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_reaches_its_reader_and_is_not_remembered() {
    let rig = Rig::new();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", 1000);
    let whole = ByteRange::new(0, 1000);
    rig.storage.reads_to_fail.store(1, Ordering::SeqCst);
    let error = rig
        .worker
        .read(object.clone(), whole, whole, soon())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(
        rig.worker
            .read(object.clone(), whole, whole, soon())
            .await
            .unwrap(),
        bytes
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joined_a_flight_that_failed_tries_again() {
    let rig = Rig::new();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", 1000);
    let whole = ByteRange::new(0, 1000);
    rig.storage.reads_to_fail.store(1, Ordering::SeqCst);
    close(&rig.storage.gate).await;
    let first = tokio::spawn(rig.worker.read(object.clone(), whole, whole, soon()));
    until("the first request", || rig.storage.read_count() == 1).await;
    let mut second = rig.worker.read(object.clone(), whole, whole, soon());
    assert!(futures::poll!(&mut second).is_pending());
    rig.storage.gate.add_permits(2);
    assert!(first.await.unwrap().is_err());
    assert_eq!(second.await.unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_stale_and_never_mixed() {
    let rig = Rig::new();
    let (_, object) = rig.storage.put_noise(rig.mount, "a", 300_000);
    rig.storage.put("a", vec![1; 300_000]);
    let whole = ByteRange::new(0, 300_000);
    let error = rig
        .worker
        .read(object.clone(), whole, whole, soon())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert!(rig.worker.local_file(&object).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_ends_at_its_deadline() {
    let rig = Rig::new();
    let (_, object) = rig.storage.put_noise(rig.mount, "a", 1000);
    close(&rig.storage.gate).await;
    let whole = ByteRange::new(0, 1000);
    let short = types::Clock::deadline(&types::SystemClock, std::time::Duration::from_millis(50));
    let error = rig
        .worker
        .read(object, whole, whole, short)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_memory_serves_and_makes_way() {
    let rig = Rig::without_cache();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", 64 << 20);
    for at in (0..64).map(|index| index * MIB) {
        let range = ByteRange::new(at, MIB);
        let read = rig
            .worker
            .read(object.clone(), range, range, soon())
            .await
            .unwrap();
        assert!(read == bytes[at as usize..(at + MIB) as usize]);
    }
    let mut buf = Vec::new();
    assert!(
        rig.worker
            .read_cached(&object, ByteRange::new(63 * MIB, MIB), &mut buf)
    );
    assert!(
        !rig.worker
            .read_cached(&object, ByteRange::new(0, MIB), &mut buf)
    );
    assert!(rig.worker.stats().memory_used <= MEMORY);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_memory_gets_it_when_others_are_served_from_memory_only() {
    let rig = Rig::without_cache();
    close(&rig.storage.gate).await;
    let objects: Vec<_> = (0..64)
        .map(|index| {
            let name = format!("{index}");
            rig.storage.put_noise(rig.mount, &name, MIB as usize).1
        })
        .collect();
    let whole = ByteRange::new(0, MIB);
    let reads: Vec<_> = objects
        .iter()
        .map(|object| {
            let read = rig.worker.read(object.clone(), whole, whole, soon());
            // The bytes are let go at once, whenever the test looks at the outcome.
            tokio::spawn(async { read.await.map(|bytes| bytes.len()) })
        })
        .collect();
    let in_flight = (MEMORY / MIB) as usize;
    until("memory to be used up", || {
        rig.storage.read_count() == in_flight
    })
    .await;
    rig.storage.gate.add_permits(64);
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap(), MIB as usize);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_own_pages_make_way_for_it_fetches_them_again() {
    let rig = Rig::without_cache();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", MIB as usize);
    for page in 0..7 {
        let range = ByteRange::new(page * PAGE_SIZE, 1);
        let read = rig.worker.read(object.clone(), range, range, soon());
        read.await.unwrap();
    }
    let (_, other) = rig.storage.put_noise(rig.mount, "b", MEMORY as usize);
    let mut at = 0;
    while rig.worker.stats().memory_used < MEMORY {
        let range = ByteRange::new(at, 1);
        let read = rig.worker.read(other.clone(), range, range, soon());
        read.await.unwrap();
        at += PAGE_SIZE;
    }
    let whole = ByteRange::new(0, MIB);
    let read = rig.worker.read(object.clone(), whole, whole, soon());
    assert_eq!(read.await.unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_all_memory_is_refused_and_not_waited_for() {
    let rig = Rig::new();
    let (_, object) = rig.storage.put_noise(rig.mount, "a", 20 << 20);
    let whole = ByteRange::new(0, 20 << 20);
    let read = rig.worker.read(object, whole, whole, soon());
    assert_eq!(read.await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joined_for_a_part_only_tries_again_as_well() {
    let rig = Rig::new();
    let (bytes, object) = rig.storage.put_noise(rig.mount, "a", MIB as usize);
    rig.storage.reads_to_fail.store(1, Ordering::SeqCst);
    close(&rig.storage.gate).await;
    let page = ByteRange::new(0, PAGE_SIZE);
    let first = tokio::spawn(rig.worker.read(object.clone(), page, page, soon()));
    until("the first request", || rig.storage.read_count() == 1).await;
    let whole = ByteRange::new(0, MIB);
    let second = tokio::spawn(rig.worker.read(object.clone(), whole, whole, soon()));
    let third = tokio::spawn(rig.worker.fetch_whole(object.clone(), soon()));
    until("the second request", || rig.storage.read_count() == 2).await;
    rig.storage.gate.add_permits(1);
    assert!(first.await.unwrap().is_err());
    rig.storage.gate.add_permits(100);
    assert_eq!(second.await.unwrap().unwrap(), bytes);
    third.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_guess_that_a_reader_waits_for_is_demand() {
    let rig = Rig::new();
    let put = |name: String| rig.storage.put_noise(rig.mount, &name, MIB as usize).1;
    let settle = async || {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    };
    let demand = |object: &types::ObjectRef, len| {
        let range = ByteRange::new(0, len);
        tokio::spawn(rig.worker.read(object.clone(), range, range, soon()))
    };
    close(&rig.storage.gate).await;
    let objects: Vec<_> = (0..74).map(|index| put(format!("{index}"))).collect();
    let mut reads: Vec<_> = objects[..64].iter().map(|o| demand(o, 1)).collect();
    until("all requests", || rig.storage.read_count() == 64).await;
    let guessed = put("guessed".into());
    rig.worker.read_ahead(&guessed, ByteRange::new(0, MIB));
    settle().await;
    reads.push(demand(&guessed, 1));
    settle().await;
    reads.extend(objects[64..].iter().map(|o| demand(o, 1)));
    settle().await;
    rig.storage.gate.add_permits(1);
    until("the next request", || rig.storage.read_count() == 65).await;
    assert_eq!(rig.storage.reads.lock().unwrap()[64].len, MIB);
    rig.storage.gate.add_permits(100);
    for read in reads {
        read.await.unwrap().unwrap();
    }
}

#[test]
fn a_read_from_a_disk_that_hangs_ends_at_its_deadline() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.max_blocking_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async {
        let rig = Rig::new();
        let (_, object) = rig.storage.put_noise(rig.mount, "a", MIB as usize);
        let cached = ByteRange::new(0, PAGE_SIZE);
        let read = rig.worker.read(object.clone(), cached, cached, soon());
        read.await.unwrap();
        until("it is in the cache only", || {
            rig.worker.stats().memory_used == 0
        })
        .await;
        rig.worker.close();
        // The one thread that may read from a disk is busy for good.
        tokio::task::spawn_blocking(move || held.recv().ok());
        let deadline =
            types::Clock::deadline(&types::SystemClock, std::time::Duration::from_millis(300));
        let whole = ByteRange::new(0, MIB);
        let read = rig.worker.read(object, whole, whole, deadline);
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), read);
        let error = read.await.expect("the read ends").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    });
    drop(let_go);
}

#[tokio::test]
async fn a_guess_displaces_nothing_that_is_still_to_be_read() {
    let rig = Rig::without_cache();
    let object = |name: &str| rig.storage.put_noise(rig.mount, name, 4 << 20).1;
    let objects: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(object).into();
    for object in &objects {
        rig.worker.read_ahead(object, ByteRange::new(0, 4 * MIB));
        until("it has arrived", || rig.storage.read_count() > 0).await;
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }
    let fetched = rig.storage.read_count();
    assert!(fetched < objects.len(), "memory is for {MEMORY} bytes");
    let has = |object, at| {
        let mut buf = Vec::new();
        rig.worker
            .read_cached(object, ByteRange::new(at, MIB), &mut buf)
    };
    assert!(objects[..fetched].iter().all(|object| has(object, 0)));
    // What was read to its end makes way.
    assert!((1..4).all(|mib| has(&objects[0], mib * MIB)));
    rig.worker
        .read_ahead(&objects[5], ByteRange::new(0, 4 * MIB));
    until("the next guess", || rig.storage.read_count() > fetched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_was_removed_is_asked_no_more() {
    let rig = Rig::new();
    let (bytes, cached) = rig.storage.put_noise(rig.mount, "a", 1000);
    let (_, other) = rig.storage.put_noise(rig.mount, "b", 1000);
    let whole = ByteRange::new(0, 1000);
    let fetched = rig.worker.fetch_whole(cached.clone(), soon());
    fetched.await.unwrap();
    rig.worker.remove_storage(rig.mount);
    let mut buf = Vec::new();
    assert!(rig.worker.read_cached(&cached, whole, &mut buf));
    assert_eq!(buf, bytes);
    let read = rig.worker.read(other, whole, whole, soon());
    assert_eq!(read.await.unwrap_err().kind(), ErrorKind::Stale);
    assert_eq!(rig.storage.read_count(), 1);
}
