// SPDX-License-Identifier: Apache-2.0
//! What a mount promises of changes in a storage, on a real server of each kind: at once after
//! `forebay sync`, within the time of the mount without it, and never a mixture.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use testkit::data;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;
use testkit::stores::Store;
use testkit::wait;

const LEN: usize = 3 << 20;

/// Longer than the age of what is known, and than the seconds in which files of the web and of HDFS
/// are too young to be believed.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

fn mounted<'a>(store: &Store, sandbox: &'a Sandbox, freshness: &str) -> Mount<'a> {
    let local = Storage::local();
    let mut mounting = sandbox.mount(&local).uri(&store.uri);
    let (options, others): (Vec<_>, Vec<_>) = store
        .flags
        .chunks(2)
        .partition(|pair| pair[0] == "--option");
    for pair in others {
        mounting = mounting.flag(&pair[0], &pair[1]);
    }
    let mut options: Vec<&str> = options.iter().map(|pair| pair[1].as_str()).collect();
    // Without it a mount of the hub stays at the commit that it saw first.
    options.extend((store.name == "hf").then_some("follow=true"));
    if !options.is_empty() {
        // A flag is given once.
        mounting = mounting.flag("--option", &options.join(","));
    }
    mounting
        .flag("--freshness", freshness)
        .switch("--read-only")
        .start()
}

fn sandbox_of(store: &Store) -> Sandbox {
    let mut sandbox = Sandbox::new(&Storage::local());
    for (name, value) in &store.environment {
        sandbox = sandbox.with_variable(name, value);
    }
    sandbox
}

/// Reads an open file to its end: the version that it was opened as, or ESTALE.
fn is_one_version_or_stale(store: &Store, file: &File, seed: u64, len: usize) {
    let mut read = vec![0; len];
    match file.read_exact_at(&mut read, 0) {
        Ok(()) => assert_eq!(data::check(seed, 0, &read), Ok(()), "{}", store.name),
        Err(error) => assert_eq!(
            error.raw_os_error(),
            Some(libc::ESTALE),
            "{}: {error}",
            store.name
        ),
    }
}

fn changes_are_seen(store: &Store) {
    let name = store.name;
    // Two of them may show the same files.
    let [dir, file, new] = ["", "/file", "/new"].map(|rest| format!("{name}{rest}"));
    store.put(&file, &data::bytes(1, LEN));
    let sandbox = sandbox_of(store);
    let mount = mounted(store, &sandbox, "immutable");
    let is = |seed: u64, len: usize| {
        let found = mount.read(&file);
        assert_eq!(
            (found.len(), data::check(seed, 0, &found)),
            (len, Ok(())),
            "{name}"
        );
    };
    is(1, LEN);
    let open = File::open(mount.path(&file)).unwrap();
    store.put(&file, &data::bytes(2, LEN + 1));
    store.put(&new, b"new");
    is(1, LEN);
    fs::metadata(mount.path(&new)).unwrap_err();
    sandbox
        .run(&["sync".as_ref(), mount.path(&dir).as_os_str()])
        .success();
    is(2, LEN + 1);
    assert_eq!(mount.read(&new), b"new", "{name}");
    is_one_version_or_stale(store, &open, 1, LEN);
    drop(open);
    mount.unmount();

    let mount = mounted(store, &sandbox, "1s");
    assert_eq!(mount.read(&new), b"new", "{name}");
    let open = File::open(mount.path(&file)).unwrap();
    store.put(&new, b"newer");
    store.put(&file, &data::bytes(3, LEN));
    let is_seen = || fs::read(mount.path(&new)).is_ok_and(|read| read == b"newer");
    assert!(
        wait::holds_within(SEEN_WITHIN, is_seen),
        "{name}: a change is not seen"
    );
    is_one_version_or_stale(store, &open, 2, LEN + 1);
    drop(open);
    mount.unmount();
}

#[test]
fn changes_are_seen_on_every_storage_after_a_sync_and_within_the_age() {
    for store in &Store::each() {
        changes_are_seen(store);
    }
    changes_are_seen(&Store::minio());
    changes_are_seen(&Store::hub());
}

#[test]
fn changes_are_seen_on_ceph_after_a_sync_and_within_the_age() {
    for store in &Store::ceph() {
        changes_are_seen(store);
    }
}
