// SPDX-License-Identifier: Apache-2.0
//! The storage does not take what is written: it denies it, or it is full.
//!
//! The writer is told with the number that says so, at the call that can still act; what was written
//! is kept, and stored when the storage takes it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use testkit::data;
use testkit::programs::{program, succeed};
use testkit::rigs::{Fault, Minio, SmallDisk};
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::{BUCKET, Storage};
use testkit::wait;

/// Large enough to be sent in parts.
const LARGE: usize = (17 << 20) + 5;

fn write(path: &Path, seed: u64, len: usize) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&data::bytes(seed, len))?;
    file.sync_all()
}

#[track_caller]
fn is<T: std::fmt::Debug>(what: &str, result: io::Result<T>, errno: Errno) {
    let error = result.expect_err(what);
    assert_eq!(
        error.raw_os_error(),
        Some(errno.raw_os_error()),
        "{what}: {error}"
    );
}

/// Checks that a file is there on the node, though the storage did not take it.
#[track_caller]
fn is_kept(mount: &Mount<'_>, name: &str, seed: u64, len: usize) {
    let found = mount.read(name);
    assert_eq!(
        (found.len(), data::check(seed, 0, &found)),
        (len, Ok(())),
        "{name}"
    );
}

#[test]
fn a_bucket_that_lets_nobody_write_says_so_to_the_writer() {
    let storage = Storage::s3();
    storage.put("there", 1, 1000);
    storage.let_everybody_read_and_list();
    for mode in ["through", "back"] {
        let sandbox = Sandbox::new(&Storage::local());
        let mount = sandbox
            .mount(&storage)
            .switch("--anonymous")
            .flag("--write-mode", mode)
            .flag("--deadline", "3s")
            .start();
        let name = format!("new in {mode}");
        let written = write(&mount.path(&name), 2, 5000);
        match mode {
            "through" => is("fsync", written, Errno::ACCESS),
            _ => {
                written.unwrap();
                wait::until("it shows why it waits", || {
                    let told = sandbox.run(&["status", "--json"]).success();
                    told.contains("AccessDenied")
                });
            }
        }
        is_kept(&mount, &name, 2, 5000);
        is(
            "unlink",
            fs::remove_file(mount.path("there")),
            Errno::ACCESS,
        );
        let made = fs::create_dir(mount.path("dir"));
        match mode {
            "through" => is("mkdir", made, Errno::ACCESS),
            _ => {
                made.unwrap();
                wait::until("it shows that the directory waits, too", || {
                    let told = sandbox.run(&["staged", "list"]).success();
                    told.contains("/dir/") && told.matches("AccessDenied").count() == 2
                });
            }
        }
        let renamed = fs::rename(mount.path("there"), mount.path("elsewhere"));
        is("rename", renamed, Errno::ACCESS);
        is_kept(&mount, "there", 1, 1000);
        assert!(!storage.root().join("dir").try_exists().unwrap());
        assert!(!storage.root().join(&name).try_exists().unwrap());
    }
}

#[test]
fn a_directory_that_is_read_only_says_so_to_the_writer() {
    let storage = Storage::local();
    storage.put("there", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let shown = sandbox.dir().join("shown");
    fs::create_dir(&shown).unwrap();
    let mut bind = Command::new("mount");
    succeed(
        bind.args(["--bind", "-o", "ro"])
            .arg(storage.root())
            .arg(&shown),
    );
    let uri = format!("file://{}", shown.display());
    let mount = sandbox.mount(&storage).uri(&uri).start();
    is("fsync", write(&mount.path("new"), 2, 5000), Errno::ROFS);
    is("unlink", fs::remove_file(mount.path("there")), Errno::ROFS);
    is("mkdir", fs::create_dir(mount.path("dir")), Errno::ROFS);
    let renamed = fs::rename(mount.path("there"), mount.path("elsewhere"));
    is("rename", renamed, Errno::ROFS);
    is_kept(&mount, "there", 1, 1000);
    is_kept(&mount, "new", 2, 5000);
}

#[test]
fn what_servers_say_when_they_are_full_is_no_space_left() {
    let storage = Storage::s3();
    let answers = [
        (403, "QuotaExceeded"),
        (507, "XMinioStorageFull"),
        (400, "XMinioAdminBucketQuotaExceeded"),
        (507, "InsufficientCapacity"),
    ];
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "3s").start();
    let mut cases = Vec::new();
    for (status, code) in answers {
        for (size, len) in [("small", 5000), ("large", LARGE)] {
            let name = format!("{code}-{size}");
            let path = format!("/{BUCKET}/{name}");
            let fault = Fault::Refuse(status, code);
            storage.relay().fail(u64::MAX, fault, move |head| {
                head.starts_with(&format!("put {}", path.to_ascii_lowercase()))
            });
            cases.push((name, len));
        }
    }
    for (name, len) in &cases {
        is(name, write(&mount.path(name), 3, *len), Errno::NOSPC);
        is_kept(&mount, name, 3, *len);
    }
    storage.relay().heal();
    for (name, len) in &cases {
        becomes_stored(&storage.root().join(name), 3, *len);
    }
    mount.unmount();
}

#[track_caller]
fn becomes_stored(path: &Path, seed: u64, len: usize) {
    wait::until(&format!("{} is stored", path.display()), || {
        let found = fs::read(path).unwrap_or_default();
        found.len() == len && data::check(seed, 0, &found) == Ok(())
    });
}

#[test]
fn a_quota_of_a_bucket_of_minio_is_no_space_left() {
    let plain = Storage::local();
    let sandbox = Sandbox::new(&plain);
    let dir = sandbox.dir().join("minio");
    fs::create_dir(&dir).unwrap();
    let server = Minio::start(&dir).unwrap();
    let keys = [
        ("AWS_ACCESS_KEY_ID", server.access_key.clone()),
        ("AWS_SECRET_ACCESS_KEY", server.secret_key.clone()),
    ];
    let mut make = program("quota.py");
    make.args([&server.endpoint, &server.region, "small", "1000000"]);
    succeed(make.envs(keys.clone()));
    let sandbox = keys
        .into_iter()
        .fold(Sandbox::new(&plain), |sandbox, (name, value)| {
            sandbox.with_variable(name, &value)
        });
    let mount = sandbox
        .mount(&plain)
        .uri("s3://small")
        .flag("--endpoint", &server.endpoint)
        .flag("--region", &server.region)
        .start();
    write(&mount.path("fits"), 1, 1000).unwrap();
    is(
        "fsync",
        write(&mount.path("does not"), 2, 2_000_000),
        Errno::NOSPC,
    );
    is_kept(&mount, "does not", 2, 2_000_000);
}

#[test]
fn what_a_full_directory_refused_is_stored_soon_after_there_is_room() {
    let plain = Storage::local();
    let sandbox = Sandbox::new(&plain);
    let disk = SmallDisk::mount(sandbox.dir(), 64 << 20).unwrap();
    let filler = disk.fill().unwrap();
    let uri = format!("file://{}", disk.mounted_at.display());
    let point = sandbox.point();
    for mode in ["through", "back"] {
        let mounting = sandbox.mount(&plain).uri(&uri).flag("--write-mode", mode);
        let mount = mounting.start();
        for (name, len) in [("small", 5000), ("large", LARGE)] {
            let name = format!("{name} in {mode}");
            let written = write(&mount.path(&name), 4, len);
            match mode {
                "through" => is("fsync", written, Errno::NOSPC),
                _ => written.unwrap(),
            }
            is_kept(&mount, &name, 4, len);
        }
        wait::until("it shows why it waits", || {
            let told = sandbox.run(&["status", "--json"]).success();
            told.to_lowercase().contains("no space left")
        });
        fs::remove_file(&filler).unwrap();
        for (name, len) in [("small", 5000), ("large", LARGE)] {
            let stored = disk.mounted_at.join(format!("{name} in {mode}"));
            becomes_stored(&stored, 4, len);
        }
        let wait = ["sync".as_ref(), point.as_os_str(), "--wait".as_ref()];
        sandbox.run(&wait).success();
        mount.unmount();
        disk.fill().unwrap();
    }
}
