// SPDX-License-Identifier: Apache-2.0
//! The local disk fails while files are written: it is full, it loses what it took, its power is cut,
//! its files are removed.
//!
//! The writer is told at the call that can still act; what was acknowledged before is kept and
//! stored; reads go on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use testkit::data;
use testkit::rigs::SmallDisk;
use testkit::sandbox::{Mounting, Sandbox, drop_kernel_caches};
use testkit::storage::Storage;
use testkit::wait;

/// The size of each file.
const LEN: usize = 1 << 20;
/// The size of the disk.
const DISK: u64 = 96 << 20;

/// A mount whose cache lies on a small disk.
fn mounting<'a>(
    sandbox: &'a Sandbox,
    storage: &Storage,
    disk: &SmallDisk,
    mode: &str,
) -> Mounting<'a> {
    let mounting = sandbox.mount(storage).cache_dir(disk.mounted_at.join("c"));
    let mounting = mounting.cache_size("80MiB").flag("--write-mode", mode);
    mounting.flag("--deadline", "3s")
}

fn write(dir: &Path, number: u64) -> io::Result<()> {
    let mut file = File::create(dir.join(format!("file-{number}")))?;
    file.write_all(&data::bytes(number, LEN))?;
    file.sync_all()
}

/// Writes files until one fails; returns how many were acknowledged, and why that one was not.
fn write_until_it_fails(dir: &Path) -> (u64, io::Error) {
    for number in 0..1000 {
        if let Err(error) = write(dir, number) {
            return (number, error);
        }
    }
    panic!("1000 files were taken");
}

#[track_caller]
fn are_right(dir: &Path, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let found = fs::read(dir.join(format!("file-{number}")));
        let found = found.unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(
            (found.len(), data::check(number, 0, &found)),
            (LEN, Ok(())),
            "{number}"
        );
    }
}

#[track_caller]
fn become_stored(storage: &Storage, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let path = storage.root().join(format!("file-{number}"));
        wait::until(&format!("file {number} is stored"), || {
            let found = fs::read(&path).unwrap_or_default();
            found.len() == LEN && data::check(number, 0, &found) == Ok(())
        });
    }
}

#[track_caller]
fn is_full(error: &io::Error) {
    let known = [Errno::NOSPC, Errno::DQUOT].map(|errno| Some(errno.raw_os_error()));
    assert!(known.contains(&error.raw_os_error()), "{error}");
}

#[test]
fn a_full_cache_disk_is_told_to_the_writer_and_keeps_what_was_acknowledged() {
    for storage in Storage::each() {
        storage.put("read", 77, 3 << 20);
        let sandbox = Sandbox::new(&storage);
        let disk = SmallDisk::mount(sandbox.dir(), DISK).unwrap();
        let mounting = mounting(&sandbox, &storage, &disk, "back");
        let mount = mounting.start();
        fs::read_dir(mount.point()).unwrap();
        storage.switch_off();
        let (taken, error) = write_until_it_fails(mount.point());
        is_full(&error);
        assert!(taken >= 40, "only {taken} files were taken");
        are_right(mount.point(), 0..taken);
        // Somebody else takes even what was kept free.
        disk.fill().unwrap();
        is_full(&write(mount.point(), 999).unwrap_err());
        are_right(mount.point(), 0..taken);
        mount.crash();
        storage.switch_on();
        fs::remove_file(disk.mounted_at.join("filler")).unwrap();
        let mount = mounting.start();
        are_right(mount.point(), 0..taken);
        assert_eq!(data::check(77, 0, &mount.read("read")), Ok(()));
        become_stored(&storage, 0..taken);
        // There is room again.
        wait::until("a file is taken", || write(mount.point(), 1000).is_ok());
        become_stored(&storage, 1000..1001);
        mount.unmount();
    }
}

#[test]
fn a_full_cache_disk_is_told_to_writers_in_through_and_fails_no_read() {
    let storage = Storage::s3();
    storage.put("read", 77, 3 << 20);
    let sandbox = Sandbox::new(&storage);
    let disk = SmallDisk::mount(sandbox.dir(), DISK).unwrap();
    let mount = mounting(&sandbox, &storage, &disk, "through").start();
    write(mount.point(), 0).unwrap();
    let filler = disk.fill().unwrap();
    is_full(&write(mount.point(), 1).unwrap_err());
    drop_kernel_caches();
    are_right(mount.point(), 0..1);
    assert_eq!(data::check(77, 0, &mount.read("read")), Ok(()));
    fs::remove_file(filler).unwrap();
    write(mount.point(), 1).unwrap();
    become_stored(&storage, 0..2);
    mount.unmount();
}

#[test]
fn a_disk_that_lost_what_it_took_is_told_and_nothing_wrong_is_stored() {
    for mode in ["through", "back"] {
        let storage = Storage::s3();
        storage.put("read", 77, 3 << 20);
        let sandbox = Sandbox::new(&storage);
        let disk = SmallDisk::mount(sandbox.dir(), DISK).unwrap();
        let mounting = mounting(&sandbox, &storage, &disk, mode);
        let mount = mounting.start();
        write(mount.point(), 0).unwrap();
        let mut file = File::create(mount.path("file-1")).unwrap();
        file.write_all(&data::bytes(1, LEN)).unwrap();
        disk.lose_new_blocks().unwrap();
        let mut lost = File::create(mount.path("lost")).unwrap();
        lost.write_all(&data::bytes(5, 8 << 20)).unwrap();
        // The system writes it to the disk, cannot, and forgets the bytes.
        drop_kernel_caches();
        let told = lost.sync_all();
        let stored = fs::read(storage.root().join("lost")).ok();
        if let Some(stored) = stored.filter(|bytes| !bytes.is_empty()) {
            assert_eq!(data::check(5, 0, &stored), Ok(()), "{mode}: wrong bytes");
        }
        told.expect_err(&format!("{mode}: the bytes are gone"));
        drop(lost);
        are_right(mount.point(), 0..1);
        assert_eq!(data::check(77, 0, &mount.read("read")), Ok(()));
        disk.keep_new_blocks().unwrap();
        // The file system lost blocks of its own as well, and may tell so here.
        let is_acknowledged = file.sync_all().is_ok();
        drop(file);
        let point = mount.point().to_owned();
        mount.crash();
        // Files that the kernel read by itself are open for as long as the mount is there.
        sandbox
            .run(&["umount".as_ref(), point.as_os_str()])
            .success();
        disk.restore_power().unwrap();
        let mount = mounting.start();
        are_right(mount.point(), 0..1);
        if is_acknowledged {
            become_stored(&storage, 1..2);
        }
        write(mount.point(), 2).unwrap();
        become_stored(&storage, 2..3);
        are_right(mount.point(), 2..3);
        mount.unmount();
        let stored = fs::read(storage.root().join("lost")).unwrap_or_default();
        assert!(
            stored.is_empty() || data::check(5, 0, &stored) == Ok(()),
            "{mode}: wrong bytes are stored later"
        );
    }
}

/// Counts the records in a file of notes by how they begin.
fn records(notes: &Path) -> usize {
    let bytes = fs::read(notes).unwrap();
    let windows = bytes.windows(4);
    windows.filter(|bytes| *bytes == b"\xf0NT\x9b").count()
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let disk = SmallDisk::mount(sandbox.dir(), DISK).unwrap();
        let mounting = mounting(&sandbox, &storage, &disk, "back");
        let mounting = mounting.boot(1);
        let mount = mounting.start();
        fs::read_dir(mount.point()).unwrap();
        storage.switch_off();
        for number in 0..10 {
            write(mount.point(), number).unwrap();
        }
        fs::rename(mount.path("file-9"), mount.path("file-10")).unwrap();
        fs::remove_file(mount.path("file-8")).unwrap();
        // What was closed is synced a moment later, and noted again.
        let notes = disk.mounted_at.join("c/staged/notes");
        let before = records(&notes);
        fs::write(mount.path("file-12"), data::bytes(12, LEN)).unwrap();
        wait::until("it is noted again", || records(&notes) >= before + 2);
        wait::holds_within(Duration::from_millis(200), || false);
        fs::write(mount.path("closed"), data::bytes(13, LEN)).unwrap();
        let mut unsynced = File::create(mount.path("unsynced")).unwrap();
        unsynced.write_all(&data::bytes(50, LEN)).unwrap();
        disk.cut_power().unwrap();
        write(mount.point(), 11).unwrap_err();
        unsynced.sync_all().unwrap_err();
        drop(unsynced);
        let point = mount.point().to_owned();
        mount.crash();
        // Files that the kernel read by itself are open for as long as the mount is there.
        sandbox
            .run(&["umount".as_ref(), point.as_os_str()])
            .success();
        disk.restore_power().unwrap();
        storage.switch_on();
        let mounting = mounting.boot(2);
        let mount = mounting.start();
        are_right(mount.point(), 0..8);
        are_right(mount.point(), 12..13);
        // Right before the cut: all of it, or none.
        if let Ok(found) = fs::read(mount.path("closed")) {
            assert_eq!((found.len(), data::check(13, 0, &found)), (LEN, Ok(())));
        }
        let renamed = mount.read("file-10");
        assert_eq!((renamed.len(), data::check(9, 0, &renamed)), (LEN, Ok(())));
        become_stored(&storage, 0..8);
        let point = mount.point().to_str().unwrap();
        sandbox.run(&["sync", point, "--wait"]).success();
        let mut names: Vec<_> = fs::read_dir(storage.root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.') && name != "closed")
            .collect();
        names.sort();
        let mut expected: Vec<_> = (0..8)
            .chain([10, 12])
            .map(|n| format!("file-{n}"))
            .collect();
        expected.sort();
        assert_eq!(names, expected, "what was not acknowledged is gone");
        mount.unmount();
    }
}

#[test]
fn a_cache_disk_that_dies_fails_writers_and_no_reader() {
    let storage = Storage::s3();
    storage.put("read", 77, 9 << 20);
    let sandbox = Sandbox::new(&storage);
    let disk = SmallDisk::mount(sandbox.dir(), DISK).unwrap();
    let mount = mounting(&sandbox, &storage, &disk, "through").start();
    write(mount.point(), 0).unwrap();
    mount.read("read");
    disk.cut_power().unwrap();
    let error = write(mount.point(), 1).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    drop_kernel_caches();
    are_right(mount.point(), 0..1);
    assert_eq!(data::check(77, 0, &mount.read("read")), Ok(()));
}

#[test]
fn a_cache_directory_that_is_removed_is_an_error_for_writers_and_none_for_readers() {
    for mode in ["through", "back"] {
        let storage = Storage::s3();
        storage.put("read", 77, 3 << 20);
        let sandbox = Sandbox::new(&storage);
        let mounting = sandbox.mount(&storage).flag("--write-mode", mode);
        let mount = mounting.start();
        write(mount.point(), 0).unwrap();
        become_stored(&storage, 0..1);
        let mut open = File::create(mount.path("file-1")).unwrap();
        open.write_all(&data::bytes(1, LEN)).unwrap();
        fs::remove_dir_all(sandbox.cache_dir()).unwrap();
        // Not as an absent name: nobody asked the storage.
        let error = write(mount.point(), 2).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(Errno::IO.raw_os_error()),
            "{mode}"
        );
        match open.sync_all() {
            Ok(()) => become_stored(&storage, 1..2),
            Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error())),
        }
        drop(open);
        drop_kernel_caches();
        are_right(mount.point(), 0..1);
        assert_eq!(data::check(77, 0, &mount.read("read")), Ok(()));
        mount.crash();
        let mount = mounting.start();
        write(mount.point(), 2).unwrap();
        become_stored(&storage, 2..3);
        mount.unmount();
    }
}
