// SPDX-License-Identifier: Apache-2.0
//! What is kept of a file besides its bytes: extended attributes of users.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;
use testkit::wait;
use types::{Clock, SystemClock};

fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65_536];
    let len = rustix::fs::getxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

fn set(path: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty())
}

fn names(path: &Path) -> Vec<String> {
    let mut bytes = vec![0; 65_536];
    let len = rustix::fs::listxattr(path, &mut bytes[..]).unwrap();
    let names = bytes[..len].split(|&byte| byte == 0);
    let names = names.filter(|name| !name.is_empty());
    names
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .collect()
}

#[test]
fn attributes_of_users_are_set_read_listed_and_removed() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        fs::write(mount.path("file"), b"x").unwrap();
        fs::create_dir(mount.path("dir")).unwrap();
        for path in [mount.path("file"), mount.path("dir")] {
            assert_eq!(names(&path), [""; 0]);
            assert_eq!(get(&path, "user.a"), Err(Errno::NODATA));
            let replace = rustix::fs::setxattr(&path, "user.a", b"1", XattrFlags::REPLACE);
            assert_eq!(replace, Err(Errno::NODATA));
            rustix::fs::setxattr(&path, "user.a", b"1", XattrFlags::CREATE).unwrap();
            let create = rustix::fs::setxattr(&path, "user.a", b"2", XattrFlags::CREATE);
            assert_eq!(create, Err(Errno::EXIST));
            rustix::fs::setxattr(&path, "user.a", b"3", XattrFlags::REPLACE).unwrap();
            set(&path, "user.b \u{e9}", b"\0\xff").unwrap();
            assert_eq!(get(&path, "user.a").unwrap(), b"3");
            assert_eq!(get(&path, "user.b \u{e9}").unwrap(), b"\0\xff");
            assert_eq!(names(&path), ["user.a", "user.b \u{e9}"]);
            rustix::fs::removexattr(&path, "user.a").unwrap();
            assert_eq!(rustix::fs::removexattr(&path, "user.a"), Err(Errno::NODATA));
            assert_eq!(names(&path), ["user.b \u{e9}"]);
        }
        mount.unmount();
        let mount = sandbox.mount(&storage).start();
        for name in ["file", "dir"] {
            let value = get(&mount.path(name), "user.b \u{e9}");
            assert_eq!(value.unwrap(), b"\0\xff", "{name}");
        }
        let larger = set(&mount.path("file"), "user.large", &[b'x'; 60_000]);
        let kept = larger.is_ok();
        assert!(kept || larger == Err(Errno::NOSPC), "{larger:?}");
        assert_eq!(mount.read("file"), b"x");
    }
}

#[test]
fn attributes_go_with_the_file_wherever_it_goes() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let path = |name: &str| mount.path(name);
        // Of a file that is being written they go with its bytes.
        let mut file = File::create(path("a")).unwrap();
        rustix::fs::fsetxattr(&file, "user.origin", b"here", XattrFlags::empty()).unwrap();
        file.write_all(b"first").unwrap();
        drop(file);
        let has = |mount: &Mount<'_>, name: &str| {
            assert_eq!(
                get(&mount.path(name), "user.origin").unwrap(),
                b"here",
                "{name}"
            );
        };
        has(&mount, "a");
        fs::write(path("a"), b"overwritten").unwrap();
        let mut file = OpenOptions::new().append(true).open(path("a")).unwrap();
        file.write_all(b", and more").unwrap();
        drop(file);
        has(&mount, "a");
        fs::set_permissions(path("a"), Permissions::from_mode(0o600)).unwrap();
        fs::rename(path("a"), path("b")).unwrap();
        has(&mount, "b");
        fs::create_dir(path("d")).unwrap();
        fs::rename(path("b"), path("d/b")).unwrap();
        fs::rename(path("d"), path("e")).unwrap();
        has(&mount, "e/b");
        mount.unmount();
        let mount = sandbox.mount(&storage).start();
        has(&mount, "e/b");
        assert_eq!(mount.read("e/b"), b"overwritten, and more");
    }
}

#[test]
fn ours_are_told_and_neither_listed_nor_set_and_those_of_the_system_are_not_kept() {
    let storage = Storage::s3();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let file = mount.path("file");
    assert_eq!(get(&file, "user.forebay.write-mode").unwrap(), b"through");
    assert_eq!(get(&file, "user.forebay.persisted").unwrap(), b"yes");
    assert_eq!(names(&file), [""; 0]);
    assert_eq!(set(&file, "user.forebay.mount", b"x"), Err(Errno::ACCESS));
    let before = mount.status().requests();
    for name in ["security.capability", "security.other", "trusted.other"] {
        assert_eq!(get(&file, name), Err(Errno::OPNOTSUPP), "{name}");
    }
    let refused = set(&file, "security.other", b"x");
    assert_eq!(refused, Err(Errno::OPNOTSUPP));
    assert_eq!(mount.status().requests(), before, "and cost no request");
}

#[test]
fn rsync_and_cp_take_attributes_along() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let source = sandbox.dir().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), b"content").unwrap();
        set(&source.join("file"), "user.label", b"cat").unwrap();
        let mount = sandbox.mount(&storage).start();
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program)
                .args(arguments)
                .current_dir(mount.point())
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{program} {arguments:?}: {output:?}"
            );
        };
        let from = source.to_str().unwrap();
        run("rsync", &["-aX", &format!("{from}/"), "rsynced"]);
        let kept = "--preserve=mode,timestamps,xattr";
        run("cp", &["-r", kept, from, "copied"]);
        run("cp", &["-r", kept, "copied", "again"]);
        for dir in ["rsynced", "copied", "again"] {
            let file = mount.path(dir).join("file");
            assert_eq!(get(&file, "user.label").unwrap(), b"cat", "{dir}");
            assert_eq!(names(&file), ["user.label"], "{dir}");
        }
        let back = sandbox.dir().join("back");
        run("rsync", &["-aX", "rsynced/", back.to_str().unwrap()]);
        assert_eq!(names(&back.join("file")), ["user.label"]);
    }
}

#[test]
fn modes_and_times_outlive_a_listing_a_restart_and_not_what_others_write() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--freshness", "1s");
    let mount = mounting.start();
    let time = UNIX_EPOCH + Duration::from_secs(1_111_111_111);
    fs::create_dir(mount.path("d")).unwrap();
    for name in ["d/run.sh", "d/other"] {
        fs::write(mount.path(name), b"#!/bin/sh\n").unwrap();
        fs::set_permissions(mount.path(name), Permissions::from_mode(0o751)).unwrap();
        let file = OpenOptions::new().write(true).open(mount.path(name));
        let times = FileTimes::new().set_modified(time);
        file.unwrap().set_times(times).unwrap();
    }
    fs::set_permissions(mount.path("d"), Permissions::from_mode(0o700)).unwrap();
    let set = SystemClock.now();
    let shown = |mount: &Mount<'_>, name: &str| {
        let found = fs::metadata(mount.path(name)).unwrap();
        (found.mode() & 0o7777, found.mtime())
    };
    let lists = |mount: &Mount<'_>| {
        wait::until("the directory is listed again", || {
            let asked = storage.requests();
            assert_eq!(fs::read_dir(mount.path("d")).unwrap().count(), 2);
            storage.requests() > asked
        });
    };
    lists(&mount);
    assert_eq!(shown(&mount, "d/run.sh"), (0o751, 1_111_111_111));
    assert_eq!(shown(&mount, "d").0, 0o700);
    mount.unmount();
    let mount = mounting.start();
    lists(&mount);
    assert_eq!(shown(&mount, "d/run.sh"), (0o751, 1_111_111_111));
    // Somebody else writes the same bytes, and with them what he wants of the rest; later than clocks
    // may differ.
    let is_later = || SystemClock.now() - set > Duration::from_secs(3);
    assert!(wait::holds_within(wait::PATIENCE, is_later));
    storage.put_bytes("d/other", b"#!/bin/sh\n");
    lists(&mount);
    assert_ne!(shown(&mount, "d/other"), (0o751, 1_111_111_111));
    assert_eq!(shown(&mount, "d/run.sh"), (0o751, 1_111_111_111));
    mount.unmount();
}
