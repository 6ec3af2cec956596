// SPDX-License-Identifier: Apache-2.0
//! The storage fails while it is read: no hang, no wrong byte, no invented absence.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use testkit::data;
use testkit::sandbox::{Sandbox, drop_kernel_caches};
use testkit::storage::Storage;
use testkit::wait;
use types::{Clock, SystemClock};

/// What the daemon may take over its deadline before an answer counts as a hang.
const SLACK: Duration = Duration::from_secs(10);

#[track_caller]
fn is_io_error(error: &std::io::Error) {
    let known = [Errno::IO, Errno::TIMEDOUT].map(|errno| Some(errno.raw_os_error()));
    assert!(known.contains(&error.raw_os_error()), "{error}");
}

#[test]
fn a_storage_that_goes_away_fails_cold_reads_within_the_deadline_and_no_warm_one() {
    let storage = Storage::s3();
    storage.put("warm", 1, 500_000);
    storage.put("cold", 2, 20 << 20);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "5s").start();
    mount.read("warm");
    wait::until("it is cached", || {
        mount.status().number("/cache/used_bytes") >= 500_000
    });
    let cold = File::open(mount.path("cold")).unwrap();
    storage.switch_off();
    drop_kernel_caches();
    assert_eq!(data::check(1, 0, &mount.read("warm")), Ok(()));
    let started = SystemClock.now();
    is_io_error(&cold.read_exact_at(&mut [0; 4096], 10 << 20).unwrap_err());
    let took = SystemClock.now() - started;
    assert!(took < Duration::from_secs(5) + SLACK, "{took:?}");
    assert_eq!(data::check(1, 0, &mount.read("warm")), Ok(()));
    storage.switch_on();
    let mut found = vec![0; 4096];
    wait::until("the storage is used again", || {
        cold.read_exact_at(&mut found, 10 << 20).is_ok()
    });
    assert_eq!(data::check(2, 10 << 20, &found), Ok(()));
}

#[test]
fn a_storage_that_falls_silent_fails_reads_within_the_deadline() {
    let storage = Storage::s3();
    storage.put("cold", 2, 20 << 20);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "5s").start();
    let cold = File::open(mount.path("cold")).unwrap();
    storage.relay().black_hole();
    let started = SystemClock.now();
    is_io_error(&cold.read_exact_at(&mut [0; 4096], 10 << 20).unwrap_err());
    let took = SystemClock.now() - started;
    assert!(took < Duration::from_secs(5) + SLACK, "{took:?}");
    storage.switch_on();
}

#[test]
fn a_reader_that_waits_for_a_silent_storage_can_be_killed() {
    let storage = Storage::s3();
    storage.put("cold", 2, 20 << 20);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "300s").start();
    fs::metadata(mount.path("cold")).unwrap();
    storage.relay().black_hole();
    let mut reader = Command::new("cat")
        .arg(mount.path("cold"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let wait_channel = format!("/proc/{}/wchan", reader.id());
    wait::until("the reader waits for the mount", || {
        let channel = fs::read_to_string(&wait_channel).unwrap_or_default();
        ["fuse", "folio", "page", "request"]
            .iter()
            .any(|name| channel.contains(name))
    });
    reader.kill().unwrap();
    let mut ended = None;
    assert!(wait::holds_within(SLACK, || {
        ended = reader.try_wait().unwrap();
        ended.is_some()
    }));
    assert_eq!(ended.unwrap().signal(), Some(9));
    sandbox
        .run(&[
            "umount".as_ref(),
            "--force".as_ref(),
            mount.point().as_os_str(),
        ])
        .success();
    sandbox.assert_nothing_left();
}

#[test]
fn a_storage_that_cannot_be_asked_is_an_error_and_not_an_absent_name() {
    for storage in Storage::each() {
        storage.put("dir/there", 1, 10);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).flag("--deadline", "3s").start();
        storage.switch_off();
        for name in ["dir/there", "dir/absent"] {
            let error = fs::metadata(mount.path(name)).unwrap_err();
            assert_ne!(
                error.kind(),
                ErrorKind::NotFound,
                "{}: {name}",
                storage.uri()
            );
        }
        let listing = fs::read_dir(mount.path("dir")).map(Iterator::count);
        assert!(listing.is_err(), "an empty directory is not what was seen");
        storage.switch_on();
        wait::until("the name is found", || {
            fs::read(mount.path("dir/there")).is_ok()
        });
        let error = fs::metadata(mount.path("dir/absent")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[test]
fn connections_cut_in_the_middle_of_an_answer_are_made_good() {
    let storage = Storage::s3();
    storage.put("object", 3, 30 << 20);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    fs::metadata(mount.path("object")).unwrap();
    storage.relay().cut_after(Some(5 << 20));
    let file = File::open(mount.path("object")).unwrap();
    let mut found = vec![0; 1 << 20];
    for index in 0..30 {
        let at = index << 20;
        if index == 15 {
            storage.relay().cut_after(None);
        }
        file.read_exact_at(&mut found, at).unwrap();
        assert_eq!(data::check(3, at, &found), Ok(()));
    }
    assert!(
        mount.status().number("/mounts/0/requests/retries") > 0,
        "nothing was cut"
    );
}

#[test]
fn an_unmount_waits_for_readers_and_a_forced_one_does_not() {
    let storage = Storage::local();
    storage.put("object", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let reader = File::open(mount.path("object")).unwrap();
    let mut unmounting = sandbox
        .command()
        .arg("umount")
        .arg(mount.point())
        .spawn()
        .unwrap();
    // It has asked the daemon when the daemon still answers a reader and the command still waits.
    assert!(!wait::holds_within(Duration::from_secs(1), || unmounting
        .try_wait()
        .unwrap()
        .is_some()));
    let mut found = vec![0; 1000];
    reader.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(data::check(1, 0, &found), Ok(()));
    drop(reader);
    assert!(unmounting.wait().unwrap().success());
    sandbox.assert_nothing_left();

    let mount = sandbox.mount(&storage).start();
    let reader = File::open(mount.path("object")).unwrap();
    sandbox
        .run(&[
            "umount".as_ref(),
            "--force".as_ref(),
            mount.point().as_os_str(),
        ])
        .success();
    sandbox.assert_nothing_left();
    drop(reader);
}

#[test]
fn a_daemon_that_is_asked_to_stop_unmounts_cleanly() {
    let storage = Storage::local();
    storage.put("object", 1, 1000);
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        mount.read("object");
        testkit::sandbox::kill(mount.pid(), signal);
        sandbox.assert_nothing_left();
    }
}
