// SPDX-License-Identifier: Apache-2.0
//! Directories that are made where changes are stored in the background: here at once, in the storage
//! soon after, and never half.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use testkit::data;
use testkit::sandbox::{Mount, Mounting, Sandbox};
use testkit::storage::Storage;
use testkit::trees::{self, names};
use testkit::wait;
use types::{Clock, SystemClock};

/// Long for a local disk on a busy machine, short beside the deadline of a request.
const AT_ONCE: Duration = Duration::from_secs(10);

fn back<'a>(sandbox: &'a Sandbox, storage: &Storage) -> Mounting<'a> {
    sandbox.mount(storage).flag("--write-mode", "back")
}

fn sync_wait(sandbox: &Sandbox, mount: &Mount<'_>) {
    let point = mount.point().to_str().unwrap();
    sandbox.run(&["sync", point, "--wait"]).success();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_tree_is_made_while_the_storage_is_away_and_is_there_afterwards() {
    let storage = Storage::s3();
    for freshness in ["always", "60s"] {
        let sandbox = Sandbox::new(&storage);
        let mounting = back(&sandbox, &storage).flag("--freshness", freshness);
        let mount = mounting.start();
        let top = mount.path(freshness);
        assert!(!top.try_exists().unwrap());
        storage.switch_off();
        let begun = SystemClock.now();
        // What is not known must be asked for, and a mount that always asks knows nothing.
        if freshness == "always" {
            storage.switch_on();
            fs::create_dir(&top).unwrap();
            storage.switch_off();
        } else {
            fs::create_dir(&top).unwrap();
        }
        for one in 0..20 {
            fs::create_dir_all(top.join(format!("{one}/deep/er"))).unwrap();
        }
        fs::write(top.join("7/deep/er/file"), b"bytes").unwrap();
        fs::set_permissions(top.join("3"), Permissions::from_mode(0o700)).unwrap();
        assert!(
            SystemClock.now() - begun < AT_ONCE,
            "the storage was waited for"
        );
        assert_eq!(names(&top).len(), 20);
        assert_eq!(
            names(&top.join("7/deep")),
            BTreeSet::from(["er".to_owned()])
        );
        assert!(!top.join("7/nothing").try_exists().unwrap());
        let again = fs::create_dir(top.join("3")).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        let listed = sandbox.run(&["staged", "list"]);
        let listed = listed.success();
        assert!(
            listed.contains(&format!("/{freshness}/3/deep/")),
            "{listed}"
        );
        let expected = trees::read(&top).unwrap();
        storage.switch_on();
        sync_wait(&sandbox, &mount);
        let stored = trees::read(&storage.root().join(freshness)).unwrap();
        assert_eq!(trees::differences(&stored, &expected), Vec::<String>::new());
        mount.unmount();
        // Nothing of it is only here.
        let other = Sandbox::new(&storage);
        let mount = other.mount(&storage).flag("--freshness", "always").start();
        assert_eq!(mode(&mount.path(freshness).join("3")), 0o700);
        let seen = trees::read(&mount.path(freshness)).unwrap();
        assert_eq!(trees::differences(&seen, &expected), Vec::<String>::new());
        mount.unmount();
    }
}

#[test]
fn what_was_made_outlives_a_kill_with_its_attributes() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mounting = back(&sandbox, &storage).flag("--freshness", "1h");
        let mount = mounting.start();
        assert!(names(mount.point()).is_empty());
        fs::create_dir(mount.path("a")).unwrap();
        fs::create_dir(mount.path("a/b")).unwrap();
        fs::create_dir(mount.path("gone")).unwrap();
        fs::set_permissions(mount.path("a"), Permissions::from_mode(0o750)).unwrap();
        fs::write(mount.path("a/b/file"), data::bytes(1, 5000)).unwrap();
        fs::remove_dir(mount.path("gone")).unwrap();
        let expected = trees::read(mount.point()).unwrap();
        mount.crash();
        let mount = mounting.start();
        let found = trees::read(mount.point()).unwrap();
        assert_eq!(trees::differences(&found, &expected), Vec::<String>::new());
        assert_eq!(mode(&mount.path("a")), 0o750);
        sync_wait(&sandbox, &mount);
        assert_eq!(names(storage.root()), BTreeSet::from(["a".to_owned()]));
        assert!(fs::read(storage.root().join("a/b/file")).unwrap() == data::bytes(1, 5000));
        assert_eq!(mode(&mount.path("a")), 0o750);
        mount.unmount();
    }
}

#[test]
fn a_synced_directory_outlives_a_power_cut() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mounting = back(&sandbox, &storage).flag("--freshness", "1h").boot(1);
    let mount = mounting.start();
    assert!(names(mount.point()).is_empty());
    storage.switch_off();
    fs::create_dir(mount.path("d")).unwrap();
    File::open(mount.point()).unwrap().sync_all().unwrap();
    mount.crash();
    storage.switch_on();
    let mount = mounting.boot(2).start();
    assert!(mount.path("d").is_dir());
    sync_wait(&sandbox, &mount);
    assert!(storage.root().join("d").is_dir());
    mount.unmount();
}

#[test]
fn directories_that_go_again_cost_no_request() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = back(&sandbox, &storage).start();
    assert!(names(mount.point()).is_empty());
    let before = storage.requests();
    let lock = mount.path("lock");
    for _ in 0..50 {
        fs::create_dir(&lock).unwrap();
        fs::create_dir(lock.join("inner")).unwrap();
        let error = fs::remove_dir(&lock).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOTEMPTY.raw_os_error()));
        fs::remove_dir(lock.join("inner")).unwrap();
        fs::remove_dir(&lock).unwrap();
    }
    sync_wait(&sandbox, &mount);
    assert!(!lock.try_exists().unwrap());
    let sent = storage.requests() - before;
    // The sync looks at the root, and the name may be asked for.
    assert!(sent <= 5, "{sent} requests for directories that are gone");
    mount.unmount();
}

#[test]
fn renames_take_along_what_the_storage_does_not_have_yet() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = back(&sandbox, &storage).start();
        assert!(names(mount.point()).is_empty());
        for dir in [
            "d",
            "d/inner",
            "d/inner/deep",
            "empty",
            "full",
            "full/inner",
        ] {
            fs::create_dir(mount.path(dir)).unwrap();
        }
        fs::write(mount.path("d/inner/file"), b"bytes").unwrap();
        let error = fs::rename(mount.path("d"), mount.path("full")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOTEMPTY.raw_os_error()));
        fs::rename(mount.path("d"), mount.path("empty")).unwrap();
        fs::create_dir(mount.path("new")).unwrap();
        fs::rename(mount.path("empty/inner/file"), mount.path("new/file")).unwrap();
        sync_wait(&sandbox, &mount);
        let expected = [
            "empty/",
            "empty/inner/",
            "empty/inner/deep/",
            "full/",
            "full/inner/",
            "new/",
        ];
        let files = [("new/file", b"bytes".to_vec())];
        let tree = expected.iter().map(|dir| ((*dir).to_owned(), Vec::new()));
        let files = files.map(|(path, bytes)| (path.to_owned(), bytes));
        let tree: trees::Tree = tree.chain(files).collect();
        for root in [mount.point(), storage.root()] {
            let found = trees::read(root).unwrap();
            assert_eq!(trees::differences(&found, &tree), Vec::<String>::new());
        }
        mount.unmount();
    }
}

#[test]
fn no_directory_is_missing_from_a_listing_while_it_is_made() {
    for storage in Storage::each() {
        for freshness in ["always", "60s"] {
            let sandbox = Sandbox::new(&storage);
            let mounting = back(&sandbox, &storage).flag("--freshness", freshness);
            let mount = mounting.start();
            let dir = mount.path(freshness);
            fs::create_dir(&dir).unwrap();
            let (made, is_done) = (AtomicUsize::new(0), AtomicBool::new(false));
            std::thread::scope(|scope| {
                let lister = scope.spawn(|| {
                    while !is_done.load(Ordering::SeqCst) {
                        let at_least = made.load(Ordering::SeqCst);
                        let found = names(&dir);
                        for number in 0..at_least {
                            let name = format!("{number:03}");
                            assert!(found.contains(&name), "{freshness}: {name} is not listed");
                            assert!(dir.join(&name).is_dir(), "{freshness}: {name} is not found");
                        }
                    }
                });
                for number in 0..60 {
                    fs::create_dir(dir.join(format!("{number:03}"))).unwrap();
                    made.store(number + 1, Ordering::SeqCst);
                    // So that some are made in the storage while others are made here.
                    wait::holds_within(Duration::from_millis(25), || false);
                }
                sync_wait(&sandbox, &mount);
                is_done.store(true, Ordering::SeqCst);
                lister.join().unwrap();
            });
            assert_eq!(names(&storage.root().join(freshness)).len(), 60);
            mount.unmount();
        }
    }
}

#[test]
fn what_others_do_meanwhile_is_not_undone() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mounting = back(&sandbox, &storage).flag("--freshness", "1h");
        let mount = mounting.start();
        assert!(names(mount.point()).is_empty());
        fs::create_dir(mount.path("above")).unwrap();
        sync_wait(&sandbox, &mount);
        fs::create_dir(mount.path("taken")).unwrap();
        fs::create_dir(mount.path("shared")).unwrap();
        fs::create_dir(mount.path("above/inner")).unwrap();
        // Within the moment for which new directories are left alone.
        storage.put_bytes("taken", b"a file of somebody else");
        storage.put_bytes("shared/theirs", b"in the same directory");
        fs::remove_dir(storage.root().join("above")).unwrap();
        sync_wait(&sandbox, &mount);
        assert_eq!(
            fs::read(storage.root().join("taken")).unwrap(),
            b"a file of somebody else"
        );
        assert!(storage.root().join("above/inner").is_dir());
        assert_eq!(mount.read("taken"), b"a file of somebody else");
        assert_eq!(mount.read("shared/theirs"), b"in the same directory");
        mount.unmount();
    }
}

#[test]
fn what_waits_is_told_and_can_be_given_up() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = back(&sandbox, &storage).flag("--deadline", "2s").start();
    assert!(names(mount.point()).is_empty());
    storage.switch_off();
    fs::create_dir(mount.path("d")).unwrap();
    fs::create_dir(mount.path("d/inner")).unwrap();
    wait::until("the attempt has failed", || {
        !mount.status().0["staged"]["failing"].is_null()
    });
    let status = sandbox.run(&["status"]).success();
    assert!(status.contains("'/d/"), "{status}");
    let drop = |path: &str| {
        sandbox.run(&[
            "staged".as_ref(),
            "drop".as_ref(),
            mount.path(path).as_os_str(),
        ])
    };
    let refused = drop("d").refusal();
    assert!(refused.contains("'d' is not empty"), "{refused}");
    for path in ["d/inner", "d"] {
        drop(path).success();
    }
    storage.switch_on();
    sync_wait(&sandbox, &mount);
    for root in [mount.point(), storage.root()] {
        assert!(!root.join("d").try_exists().unwrap());
    }
    mount.unmount();
}
