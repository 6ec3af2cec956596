// SPDX-License-Identifier: Apache-2.0
//! Files that are sent while they are written.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::Signal;
use testkit::data;
use testkit::rigs::Fault;
use testkit::sandbox::{Mount, Sandbox, kill};
use testkit::storage::Storage;
use testkit::wait;

/// Some parts, and a rest.
const LEN: usize = (40 << 20) + 77;

/// Counts the requests that send a part from now on.
fn count_parts(storage: &Storage) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    storage.relay().fail(1, Fault::Cut, move |head| {
        let is_part = head.starts_with("put ") && head.contains("partnumber=");
        counted.fetch_add(usize::from(is_part), Ordering::Relaxed);
        false
    });
    count
}

/// Writes a file in a row, and waits until all of its whole parts are sent while it is open.
fn begin(storage: &Storage, mount: &Mount<'_>, name: &str, content: &[u8]) -> File {
    let parts = count_parts(storage);
    let mut file = File::create(mount.path(name)).unwrap();
    for piece in content.chunks(300_000) {
        file.write_all(piece).unwrap();
    }
    wait::until("the parts are sent", || {
        parts.load(Ordering::Relaxed) == content.len() / (8 << 20)
    });
    assert!(!storage.root().join(name).try_exists().unwrap());
    file
}

#[test]
fn what_is_written_in_a_row_is_sent_meanwhile_and_what_changes_is_sent_again() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let mut content = data::bytes(1, LEN);
    let mut file = begin(&storage, &mount, "large", &content);
    let parts = count_parts(&storage);
    file.write_all_at(b"a header", 3).unwrap();
    content[3..11].copy_from_slice(b"a header");
    file.write_all(b"the end").unwrap();
    content.extend(b"the end");
    file.sync_all().unwrap();
    assert!(fs::read(storage.root().join("large")).unwrap() == content);
    assert_eq!(parts.load(Ordering::Relaxed), 2, "the first and the last");
    assert!(mount.read("large") == content);
    assert_eq!(storage.unfinished_uploads(), 0);
    file.rewind().unwrap();
    file.write_all(&content[..20 << 20]).unwrap();
    drop(file);
    assert!(fs::read(storage.root().join("large")).unwrap() == content);
    mount.unmount();
}

#[test]
fn what_is_sent_meanwhile_follows_the_file() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let content = data::bytes(2, LEN);
        let write = |name: &str| {
            let mut file = File::create(mount.path(name)).unwrap();
            file.write_all(&content).unwrap();
            file
        };
        let cut = write("cut");
        cut.set_len(1 << 20).unwrap();
        cut.sync_all().unwrap();
        let mut shorter = write("shorter");
        shorter.set_len(30 << 20).unwrap();
        shorter.seek(std::io::SeekFrom::End(0)).unwrap();
        shorter.write_all(b"another end").unwrap();
        shorter.sync_all().unwrap();
        let mut renamed = write("before");
        fs::rename(mount.path("before"), mount.path("after")).unwrap();
        renamed.write_all(b"and more").unwrap();
        renamed.sync_all().unwrap();
        let removed = write("removed");
        fs::remove_file(mount.path("removed")).unwrap();
        removed.sync_all().unwrap();
        let stored = |name: &str| fs::read(storage.root().join(name)).unwrap();
        assert!(stored("cut") == content[..1 << 20]);
        assert!(stored("shorter") == [&content[..30 << 20], b"another end"].concat());
        assert!(stored("after") == [&content[..], b"and more"].concat());
        for name in ["before", "removed"] {
            assert!(!storage.root().join(name).try_exists().unwrap(), "{name}");
        }
        wait::until("nothing is left of what was given up", || {
            storage.unfinished_uploads() == 0
        });
    }
}

#[test]
fn an_upload_that_a_kill_left_is_given_up_at_the_next_start() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage);
    let mount = mounting.start();
    let file = begin(&storage, &mount, "large", &data::bytes(3, LEN));
    assert_eq!(storage.unfinished_uploads(), 1);
    kill(mount.pid(), Signal::KILL);
    drop(file);
    let mount = mounting.start();
    wait::until("the upload is given up", || {
        storage.unfinished_uploads() == 0
    });
    assert_eq!(fs::read_dir(mount.point()).unwrap().count(), 0);
    mount.unmount();
}

#[test]
fn an_upload_that_the_storage_forgot_is_made_again() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let content = data::bytes(5, LEN);
    let file = begin(&storage, &mount, "large", &content);
    // As after a rule of the bucket has removed uploads of some age.
    let fault = Fault::Refuse(404, "NoSuchUpload");
    storage.relay().fail(1, fault, |head| {
        head.starts_with("post ") && head.contains("?uploadid=")
    });
    file.sync_all().unwrap();
    assert_eq!(storage.relay().failed(), 1);
    wait::until("nothing is left of the first upload", || {
        storage.unfinished_uploads() == 0
    });
    assert!(fs::read(storage.root().join("large")).unwrap() == content);
    drop(file);
    mount.unmount();
}

#[test]
fn what_is_kept_beside_the_bytes_is_that_of_the_close() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let mut file = File::create(mount.path("large")).unwrap();
        file.write_all(&data::bytes(4, LEN)).unwrap();
        file.set_permissions(Permissions::from_mode(0o751)).unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(1_234_567_890);
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let other = Sandbox::new(&storage);
        let elsewhere = other.mount(&storage).flag("--freshness", "always");
        let elsewhere = elsewhere.start();
        for mount in [&mount, &elsewhere] {
            let found = fs::metadata(mount.path("large")).unwrap();
            assert_eq!(
                (found.mode() & 0o7777, found.mtime()),
                (0o751, 1_234_567_890)
            );
        }
        elsewhere.unmount();
        mount.unmount();
    }
}
