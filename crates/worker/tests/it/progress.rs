// SPDX-License-Identifier: Apache-2.0
//! Readers of a slow storage, and of one that stops: who waits on, and who gives up when.
//!
//! Time is the runtime's and passes at once when nobody has anything to do.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::Instant;
use types::{ByteRange, Clock, Deadline, ErrorKind, ObjectRef};
use worker::Settings;
use worker::settings::Bounds;

use crate::Rig;
use crate::scripted::close;

const MIB: u64 = 1 << 20;
/// What the readers of these tests wait in which nothing moves.
const SPAN: Duration = Duration::from_secs(5);
/// How much later they may be.
const SLACK: Duration = Duration::from_secs(1);

/// A rig without a cache that sends so many requests at once, over a line of a megabyte a second.
fn rig(width: usize) -> Rig {
    let settings = Settings {
        width: Bounds::fixed(width),
        ..Settings::default()
    };
    let rig = Rig::with(
        Default::default(),
        tempfile::tempdir().unwrap(),
        None,
        settings,
    );
    set_pace(&rig, 100_000, Duration::from_millis(100));
    rig
}

fn set_pace(rig: &Rig, bytes: usize, takes: Duration) {
    *rig.storage.line.pace.lock().unwrap() = (bytes, takes);
}

/// The time of the runtime.
#[derive(Debug)]
struct Passing;

impl Clock for Passing {
    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

fn deadline() -> Deadline {
    Passing.deadline(SPAN)
}

fn objects(rig: &Rig, count: usize, len: u64) -> Vec<(Bytes, ObjectRef)> {
    let put = |index| {
        rig.storage
            .put_noise(rig.mount, &format!("{index}"), len as usize)
    };
    (0..count).map(put).collect()
}

/// Reads all objects at once and whole; returns how long each took and how it ended.
async fn read_all(
    rig: &Rig,
    objects: &[(Bytes, ObjectRef)],
) -> Vec<(Duration, types::Result<Bytes>)> {
    let began = Instant::now();
    let reads = objects.iter().map(|(bytes, object)| {
        let whole = ByteRange::new(0, bytes.len() as u64);
        let read = rig.worker.read(object.clone(), whole, whole, deadline());
        async move {
            let outcome = read.await;
            (began.elapsed(), outcome)
        }
    });
    join_all(reads).await
}

/// What takes far longer than the deadline, and moves all the time, comes.
async fn all_come(rig: Rig, count: usize, len: u64) {
    let objects = objects(&rig, count, len);
    let mut longest = Duration::ZERO;
    for ((bytes, _), (took, read)) in objects.iter().zip(read_all(&rig, &objects).await) {
        assert_eq!(read.unwrap(), *bytes);
        longest = longest.max(took);
    }
    assert!(longest > 2 * SPAN, "{longest:?} is no test of the deadline");
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_on_while_its_flight_moves() {
    all_come(rig(64), 3, 5 * MIB).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_its_turn_while_those_before_it_move() {
    all_come(rig(1), 12, MIB).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_memory_while_what_takes_it_moves() {
    all_come(rig(64), 10, 6 * MIB).await;
}

#[tokio::test(start_paused = true)]
async fn small_files_are_read_over_a_slow_line_in_any_number() {
    let rig = rig(4);
    set_pace(&rig, 10_000, Duration::from_millis(200));
    let objects = objects(&rig, 40, 30_000);
    let began = Instant::now();
    let opens = objects
        .iter()
        .map(|(_, object)| rig.worker.fetch_whole(object.clone(), deadline()));
    for opened in join_all(opens).await {
        opened.unwrap();
    }
    assert!(began.elapsed() > 4 * SPAN);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_falls_silent_in_the_middle_fails_all_who_wait_within_the_deadline() {
    // For the rest of a body, for a turn and for memory.
    let rig = rig(2);
    let objects = objects(&rig, 10, 4 * MIB);
    close(&rig.storage.line.gate).await;
    rig.storage.line.gate.add_permits(70);
    let began = Instant::now();
    let ends = read_all(&rig, &objects).await;
    let took = began.elapsed();
    let last_bytes = Duration::from_secs(7);
    assert!(took < last_bytes + SPAN + SLACK, "{took:?}");
    let mut late = 0;
    for ((bytes, _), (took, end)) in objects.iter().zip(ends) {
        match end {
            Ok(read) => assert_eq!(read, *bytes),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert!(took >= last_bytes, "{took:?}: something moved until then");
                late += 1;
            }
        }
    }
    assert!(late >= 8, "{late}");
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_trickles_is_given_up_at_the_deadline() {
    let rig = rig(2);
    set_pace(&rig, 1, Duration::from_secs(1));
    let objects = objects(&rig, 4, MIB);
    for (took, end) in read_all(&rig, &objects).await {
        assert_eq!(end.unwrap_err().kind(), ErrorKind::Timeout);
        assert!(took >= SPAN && took < SPAN + SLACK, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_is_stuck_is_given_up_while_others_move() {
    let rig = rig(64);
    let objects = objects(&rig, 1, 8 * MIB);
    let stuck = rig.storage.put_noise(rig.mount, "stuck", MIB as usize);
    close(&rig.storage.gate).await;
    rig.storage.gate.add_permits(1);
    let moving = read_all(&rig, &objects);
    let also_stuck = async {
        tokio::time::sleep(SLACK).await;
        // The one permit is used up: this request gets no answer.
        read_all(&rig, &[stuck]).await.remove(0)
    };
    let (moving, (took, stuck)) = futures::join!(moving, also_stuck);
    assert_eq!(moving[0].1.as_ref().unwrap(), &objects[0].0);
    assert_eq!(stuck.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(took >= SPAN && took < SPAN + SLACK, "{took:?}");
}
