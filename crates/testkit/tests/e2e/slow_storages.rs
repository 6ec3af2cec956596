// SPDX-License-Identifier: Apache-2.0
//! Storages that are slow, and that stop in the middle: a read lasts for as long as its bytes come.

use std::fs::{self, File};
use std::io::Read;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use testkit::data;
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
/// What the daemon may take over its deadline before an answer counts as a hang.
const SLACK: Duration = Duration::from_secs(6);

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
