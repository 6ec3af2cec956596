// SPDX-License-Identifier: Apache-2.0
//! Storages that are slow, and that stop in the middle: a read lasts for as long as its bytes come.

use std::fs::{self, File};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use testkit::data;
use testkit::rigs::Fault;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;
use testkit::wait;
use types::{Clock, SystemClock};

const FILES: u64 = 10;
/// Larger than what is fetched whole at open.
const LEN: usize = 6 << 20;
const DEADLINE: Duration = Duration::from_secs(4);
/// All files together take this long at this rate.
const RATE: u64 = 3_000_000;
const TAKES: Duration = Duration::from_secs(FILES * LEN as u64 / RATE);
/// What may come over the deadline before an answer counts as a hang: the kernel asks for a page ahead
/// of its reader, and once more when that failed.
const SLACK: Duration = Duration::from_secs(12);

fn storage() -> Storage {
    let storage = Storage::s3();
    for seed in 0..FILES {
        storage.put(format!("{seed}"), seed, LEN);
    }
    storage
}

fn mount<'a>(sandbox: &'a Sandbox, storage: &Storage) -> Mount<'a> {
    let deadline = format!("{}s", DEADLINE.as_secs());
    let mount = sandbox.mount(storage).flag("--deadline", &deadline).start();
    fs::read_dir(mount.path("")).unwrap().for_each(drop);
    mount
}

/// Reads all files at once; returns what came of each, and when its last read ended.
fn read_all(mount: &Mount<'_>) -> Vec<(Vec<u8>, std::io::Result<()>, Duration)> {
    let began = SystemClock.now();
    let read = |seed: u64| {
        let mut came = Vec::new();
        let opened = File::open(mount.path(format!("{seed}")));
        let end = opened.and_then(|mut file| file.read_to_end(&mut came));
        (came, end.map(drop), SystemClock.now() - began)
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..FILES)
            .map(|seed| scope.spawn(move || read(seed)))
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect()
    })
}

#[test]
fn cold_files_over_a_slow_line_may_take_longer_than_the_deadline() {
    let storage = storage();
    let sandbox = Sandbox::new(&storage);
    let mount = mount(&sandbox, &storage);
    storage.relay().set_bandwidth(Some(RATE));
    let mut longest = Duration::ZERO;
    for (seed, (came, end, took)) in (0..).zip(read_all(&mount)) {
        end.unwrap();
        assert_eq!((came.len(), data::check(seed, 0, &came)), (LEN, Ok(())));
        longest = longest.max(took);
    }
    assert!(
        longest > TAKES / 2 && TAKES / 2 > 2 * DEADLINE,
        "{longest:?}"
    );
    storage.relay().set_bandwidth(None);
}

#[test]
fn a_slow_line_that_falls_silent_fails_all_readers_within_the_deadline() {
    let storage = storage();
    let sandbox = Sandbox::new(&storage);
    let mount = mount(&sandbox, &storage);
    storage.relay().set_bandwidth(Some(RATE));
    let silent = TAKES / 3;
    let began = SystemClock.now();
    let relay = storage.relay();
    let ends = thread::scope(|scope| {
        scope.spawn(move || {
            wait::holds_within(silent, || false);
            relay.black_hole();
        });
        read_all(&mount)
    });
    let took = SystemClock.now() - began;
    assert!(took < silent + DEADLINE + SLACK, "{took:?}");
    let mut failed = 0;
    for (seed, (came, end, took)) in (0..).zip(ends) {
        assert_eq!(data::check(seed, 0, &came), Ok(()));
        if let Err(error) = end {
            let known = [Errno::IO, Errno::TIMEDOUT].map(|errno| Some(errno.raw_os_error()));
            assert!(known.contains(&error.raw_os_error()), "{error}");
            assert!(took >= silent, "{took:?}: bytes came until then");
            failed += 1;
        }
    }
    assert!(failed > 0, "it was not silent in the middle");
    storage.relay().set_bandwidth(None);
    storage.switch_on();
    wait::until("the storage is used again", || {
        let read = fs::read(mount.path("3"));
        read.is_ok_and(|came| came.len() == LEN && data::check(3, 0, &came) == Ok(()))
    });
}

#[test]
fn a_line_that_trickles_is_given_up_at_the_deadline() {
    let storage = storage();
    let sandbox = Sandbox::new(&storage);
    let mount = mount(&sandbox, &storage);
    let mut file = File::open(mount.path("1")).unwrap();
    storage.relay().set_bandwidth(Some(2000));
    let began = SystemClock.now();
    let error = file.read_exact(&mut [0; 4096]).unwrap_err();
    let took = SystemClock.now() - began;
    assert!(
        [Errno::IO, Errno::TIMEDOUT]
            .map(|errno| Some(errno.raw_os_error()))
            .contains(&error.raw_os_error())
    );
    assert!(took < DEADLINE + SLACK, "{took:?}");
    storage.relay().set_bandwidth(None);
}

/// Has each request of so many for bytes come to the storage so much later.
fn delay_one_in(storage: &Storage, count: u64, late: Duration) {
    let asked = AtomicU64::new(0);
    let is_meant = move |head: &str| {
        head.starts_with("get ")
            && head.contains("\r\nrange:")
            && asked.fetch_add(1, Ordering::Relaxed) % count == count - 1
    };
    storage.relay().fail(u64::MAX, Fault::Late(late), is_meant);
}

#[test]
fn a_reader_does_not_wait_for_the_few_answers_that_are_late() {
    const SMALL: u64 = 400;
    const LATE: Duration = Duration::from_secs(8);
    let storage = Storage::s3();
    for seed in 0..SMALL {
        storage.put(format!("{seed:03}"), seed, 20_000);
    }
    let sandbox = Sandbox::new(&storage).with_hedging();
    let mount = sandbox.mount(&storage).switch("--no-neighbours").start();
    fs::read_dir(mount.path("")).unwrap().for_each(drop);
    delay_one_in(&storage, 60, LATE);
    for seed in 0..SMALL {
        let began = SystemClock.now();
        let read = mount.read(format!("{seed:03}"));
        assert_eq!((read.len(), data::check(seed, 0, &read)), (20_000, Ok(())));
        let took = SystemClock.now() - began;
        assert!(took < LATE, "{seed}: {took:?}");
    }
    let status = mount.status();
    let (sent, won) = ("/mounts/0/flow/hedged", "/mounts/0/flow/hedges_won");
    let (sent, won) = (status.number(sent), status.number(won));
    assert!((6..=8).contains(&sent) && won >= 6, "{won} of {sent}");
    // Each is a request that was paid for.
    assert_eq!(status.number("/mounts/0/requests/get"), SMALL + sent);
}

#[test]
fn requests_that_are_sent_twice_mix_no_versions() {
    const LEN: usize = 200_000;
    const VERSIONS: u64 = 250;
    let storage = Storage::s3();
    storage.put("object", 0, LEN);
    let sandbox = Sandbox::new(&storage).with_hedging();
    let mounting = sandbox.mount(&storage).flag("--freshness", "always");
    let mount = mounting.start();
    delay_one_in(&storage, 40, Duration::from_millis(600));
    let (newest, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let stale = |error: &std::io::Error| error.raw_os_error() == Some(Errno::STALE.raw_os_error());
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut whole = 0;
            while !ended.load(Ordering::SeqCst) {
                let before = newest.load(Ordering::SeqCst);
                match fs::read(mount.path("object")) {
                    Ok(read) => {
                        let after = newest.load(Ordering::SeqCst) + 1;
                        let is_one =
                            (before..=after).any(|seed| data::check(seed, 0, &read) == Ok(()));
                        assert!(is_one && read.len() == LEN, "between {before} and {after}");
                        whole += 1;
                    }
                    Err(error) => assert!(stale(&error), "{error}"),
                }
            }
            whole
        });
        for seed in 1..=VERSIONS {
            storage.put("object", seed, LEN);
            newest.store(seed, Ordering::SeqCst);
            wait::holds_within(Duration::from_millis(30), || false);
        }
        ended.store(true, Ordering::SeqCst);
        assert!(reader.join().unwrap() > 20);
    });
    assert!(mount.status().number("/mounts/0/flow/hedged") > 0);
}

#[test]
fn a_mount_keeps_to_its_bandwidth_and_is_freed_of_it_in_use() {
    let storage = Storage::s3();
    storage.put("first", 1, 12 << 20);
    storage.put("second", 2, 12 << 20);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--bandwidth", "4MiB").start();
    let timed = |name: &str, seed: u64| {
        let began = SystemClock.now();
        let read = mount.read(name);
        assert_eq!(
            (read.len(), data::check(seed, 0, &read)),
            (12 << 20, Ok(()))
        );
        SystemClock.now() - began
    };
    let took = timed("first", 1);
    assert!(took > Duration::from_millis(2500), "{took:?}");
    assert_eq!(mount.status().number("/mounts/0/bandwidth_bytes"), 4 << 20);
    assert!(
        mount
            .status()
            .number("/mounts/0/flow/held_back_microseconds")
            > 1_000_000
    );
    let update = ["mounts", "update", "--bandwidth", "0"].map(std::ffi::OsStr::new);
    let at = mount.point().as_os_str();
    sandbox.run(&[&update[..], &[at]].concat()).success();
    let took = timed("second", 2);
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

#[test]
fn a_storage_that_asks_to_slow_down_is_sent_fewer_requests_at_a_time() {
    let storage = Storage::s3();
    for seed in 0..300 {
        storage.put(format!("{seed:03}"), seed, 20_000);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).switch("--no-neighbours").start();
    let width = |mount: &Mount<'_>| mount.status().number("/mounts/0/flow/width");
    assert_eq!(width(&mount), 64);
    let asked = AtomicU64::new(0);
    let every_third = move |head: &str| {
        head.starts_with("get ") && asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)
    };
    storage
        .relay()
        .fail(u64::MAX, Fault::Refuse(503, "SlowDown"), every_third);
    for seed in 0..300 {
        let read = mount.read(format!("{seed:03}"));
        assert_eq!(data::check(seed, 0, &read), Ok(()));
    }
    storage.relay().heal();
    assert!(width(&mount) < 32);
    assert!(mount.status().number("/mounts/0/flow/halved") >= 2);
    let shown = sandbox
        .run(&["metrics".as_ref(), mount.point().as_os_str()])
        .success();
    let halved = "forebay_storage_width_changes_total{mount=\"/\",decision=\"halved\"}";
    assert!(
        shown.lines().any(|line| line.starts_with(halved)),
        "{shown}"
    );

    let sandbox = Sandbox::new(&storage);
    let fixed = sandbox.mount(&storage).flag("--requests", "7").start();
    assert_eq!(width(&fixed), 7);
}
