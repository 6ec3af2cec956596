// SPDX-License-Identifier: Apache-2.0
//! Somebody else changes the storage: one version per open file, and freshness as promised.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use testkit::data;
use testkit::sandbox::Sandbox;
use testkit::storage::Storage;
use testkit::wait;

const SIZE: usize = 24 << 20;

/// Reads the rest of a file that was opened as version 1 and since replaced: each piece is of
/// version 1, or the read says that the version is gone.
#[track_caller]
fn version_1_or_stale(file: &File, order: impl Iterator<Item = usize>) {
    let mut piece = vec![0; 128 * 1024];
    for index in order {
        let at = (index * piece.len()) as u64;
        match file.read_exact_at(&mut piece, at) {
            Ok(()) => assert_eq!(
                data::check(1, at, &piece),
                Ok(()),
                "another version's bytes"
            ),
            Err(error) => {
                assert_eq!(
                    error.raw_os_error(),
                    Some(Errno::STALE.raw_os_error()),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn an_object_replaced_under_a_sequential_reader_is_stale_and_never_a_mixture() {
    for storage in Storage::each() {
        storage.put("object", 1, SIZE);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox
            .mount(&storage)
            .flag("--freshness", "always")
            .start();
        let mut file = File::open(mount.path("object")).unwrap();
        let mut start = vec![0; 300_000];
        file.read_exact(&mut start).unwrap();
        assert_eq!(data::check(1, 0, &start), Ok(()));
        storage.put("object", 2, SIZE);
        version_1_or_stale(&file, 0..SIZE / (128 * 1024));
        let again = mount.read("object");
        assert_eq!(
            data::check(2, 0, &again),
            Ok(()),
            "a new open has the new version"
        );
        version_1_or_stale(&file, 0..SIZE / (128 * 1024));
    }
}

#[test]
fn an_object_replaced_by_a_shorter_one_under_a_random_reader_is_never_a_mixture() {
    for storage in Storage::each() {
        storage.put("object", 1, SIZE);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox
            .mount(&storage)
            .flag("--freshness", "always")
            .start();
        let file = File::open(mount.path("object")).unwrap();
        let order = data::shuffled(5, SIZE / (128 * 1024));
        version_1_or_stale(&file, order[..10].iter().copied());
        storage.put("object", 2, SIZE / 2);
        version_1_or_stale(&file, order.iter().copied());
        assert_eq!(mount.read("object").len(), SIZE / 2);
    }
}

#[test]
fn an_object_removed_under_a_reader_is_stale_where_it_is_not_cached() {
    let storage = Storage::s3();
    storage.put("object", 1, SIZE);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--freshness", "always")
        .start();
    let file = File::open(mount.path("object")).unwrap();
    storage.remove("object");
    version_1_or_stale(&file, (0..SIZE / (128 * 1024)).rev());
    drop(file);
    assert_eq!(
        fs::read(mount.path("object")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_cached_version_is_read_to_its_end_although_the_object_has_changed() {
    let storage = Storage::s3();
    storage.put("object", 1, 2 << 20);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--freshness", "always")
        .start();
    assert_eq!(data::check(1, 0, &mount.read("object")), Ok(()));
    wait::until("it is cached", || {
        mount.status().number("/cache/used_bytes") >= 2 << 20
    });
    let mut file = File::open(mount.path("object")).unwrap();
    storage.put("object", 2, 2 << 20);
    let mut found = Vec::new();
    file.read_to_end(&mut found).unwrap();
    assert_eq!(data::check(1, 0, &found), Ok(()));
    assert_eq!(data::check(2, 0, &mount.read("object")), Ok(()));
}

#[test]
fn always_means_that_each_open_sees_the_latest_version() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox
            .mount(&storage)
            .flag("--freshness", "always")
            .start();
        for version in 1..=5 {
            let size = 100_000 + usize::try_from(version).unwrap() % 2;
            storage.put("dir/object", version, size);
            let found = mount.read("dir/object");
            assert_eq!(
                (found.len(), data::check(version, 0, &found)),
                (size, Ok(())),
                "{version}"
            );
        }
        storage.remove("dir/object");
        let error = fs::read(mount.path("dir/object")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        storage.put("dir/object", 6, 10);
        assert_eq!(mount.read("dir/object"), data::bytes(6, 10));
    }
}

#[test]
fn always_costs_one_request_for_an_open_of_a_cached_file() {
    let storage = Storage::s3();
    storage.put("object", 1, 100_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--freshness", "always")
        .start();
    mount.read("object");
    wait::until("it is cached", || {
        mount.status().number("/cache/used_bytes") >= 100_000
    });
    let before = mount.status().number("/mounts/0/requests/bytes_read");
    let asked = storage.requests();
    for _ in 0..10 {
        assert_eq!(data::check(1, 0, &mount.read("object")), Ok(()));
    }
    let asked = storage.requests() - asked;
    assert!((10..=20).contains(&asked), "{asked} requests for 10 opens");
    assert_eq!(
        mount.status().number("/mounts/0/requests/bytes_read"),
        before
    );
}

#[test]
fn max_age_means_that_a_change_is_seen_within_that_time() {
    for storage in Storage::each() {
        storage.put("object", 1, 1000);
        storage.put("dir/first", 1, 10);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).flag("--freshness", "2s").start();
        assert_eq!(data::check(1, 0, &mount.read("object")), Ok(()));
        assert_eq!(fs::read_dir(mount.path("dir")).unwrap().count(), 1);
        storage.put("object", 2, 2000);
        storage.put("dir/second", 1, 10);
        storage.remove("dir/first");
        wait::until("the new version is seen", || {
            fs::read(mount.path("object")).unwrap().len() == 2000
        });
        assert_eq!(data::check(2, 0, &mount.read("object")), Ok(()));
        wait::until("the new name is seen", || {
            fs::metadata(mount.path("dir/second")).is_ok()
        });
        wait::until("the old name is gone", || {
            fs::metadata(mount.path("dir/first")).is_err()
        });
        assert_eq!(fs::read_dir(mount.path("dir")).unwrap().count(), 1);
    }
}

#[test]
fn immutable_means_that_the_first_version_seen_stays() {
    let storage = Storage::s3();
    storage.put("object", 1, 100_000);
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--freshness", "immutable");
    let mount = mounting.start();
    assert_eq!(data::check(1, 0, &mount.read("object")), Ok(()));
    wait::until("it is cached", || {
        mount.status().number("/cache/used_bytes") >= 100_000
    });
    storage.put("object", 2, 100_001);
    assert_eq!(data::check(1, 0, &mount.read("object")), Ok(()));
    mount.unmount();
    let mount = mounting.start();
    let found = mount.read("object");
    assert_eq!((found.len(), data::check(1, 0, &found)), (100_000, Ok(())));
}
