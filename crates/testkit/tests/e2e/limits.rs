// SPDX-License-Identifier: Apache-2.0
//! Bounds that hold whatever the load: memory, open files, requests to mount.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::data;
use testkit::sandbox::Sandbox;
use testkit::storage::Storage;
use testkit::wait;

const MIB: u64 = 1 << 20;

#[test]
fn an_idle_daemon_takes_less_than_60_mib() {
    let storage = Storage::s3();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    mount.read("file");
    let resident = mount.memory("VmRSS");
    assert!(resident < 60 * MIB, "{} MiB", resident / MIB);
}

#[test]
fn sixty_four_readers_of_cold_files_stay_within_the_memory_budget() {
    const READERS: usize = 64;
    const SIZE: usize = 12 << 20;
    /// The kernel counts what the allocator has not given back yet.
    const MARGIN: u64 = 20 * MIB;
    let storage = Storage::s3();
    for seed in 0..READERS {
        storage.put(format!("{seed}"), seed as u64, SIZE);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).cache_size("2GiB").start();
    std::thread::scope(|scope| {
        for seed in 0..READERS {
            let path = mount.path(seed.to_string());
            scope.spawn(move || {
                let mut file = File::open(path).unwrap();
                let mut piece = vec![0; 1 << 20];
                for index in 0..SIZE / piece.len() {
                    file.read_exact(&mut piece).unwrap();
                    let at = (index * piece.len()) as u64;
                    assert_eq!(data::check(seed as u64, at, &piece), Ok(()));
                }
            });
        }
    });
    let highest = mount.memory("VmHWM");
    assert!(highest < 200 * MIB + MARGIN, "{} MiB", highest / MIB);
    assert!(mount.status().number("/memory/budget_bytes") <= 200 * MIB);
    let fetched = mount.status().number("/mounts/0/requests/bytes_read");
    let total = (READERS * SIZE) as u64;
    assert!(
        fetched <= total * 5 / 4,
        "{READERS} readers of {total} bytes fetched {fetched}"
    );
}

#[test]
fn a_hundred_thousand_opens_leave_no_file_open() {
    const FILES: usize = 200;
    const OPENS: usize = 100_000;
    let storage = Storage::local();
    for seed in 0..FILES {
        storage.put(format!("{seed}"), seed as u64, 2000);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let read = |index: usize| {
        let seed = index % FILES;
        let found = mount.read(seed.to_string());
        assert_eq!(found.len(), 2000);
        assert_eq!(data::check(seed as u64, 0, &found), Ok(()));
    };
    (0..2 * FILES).for_each(read);
    let before = mount.open_files();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < OPENS {
                    read(next.load(Ordering::Relaxed));
                }
            });
        }
    });
    let open = |mode: &str| mount.status().number(&format!("/kernel/open_files/{mode}"));
    wait::until("the kernel has released every file", || {
        open("passthrough") + open("cached") + open("direct") == 0
    });
    // Connections of the daemon come and go; a leak would show as thousands.
    wait::until("as few files are open as before", || {
        mount.open_files() <= before + 16
    });
}

#[test]
fn the_kernel_knows_no_more_inodes_than_it_may() {
    const MAX: u64 = 1000;
    const DIRS: usize = 4;
    const FILES: usize = 1500;
    let storage = Storage::s3();
    for seed in 0..DIRS * FILES {
        storage.put(format!("{:02}/{seed:05}", seed % DIRS), seed as u64, 100);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--max-inodes", "1000").start();
    let walk = || {
        let mut numbers = BTreeMap::new();
        for dir in 0..DIRS {
            for entry in fs::read_dir(mount.path(format!("{dir:02}"))).unwrap() {
                let entry = entry.unwrap();
                numbers.insert(entry.path(), entry.metadata().unwrap().ino());
            }
        }
        numbers
    };
    let knows_few = || {
        wait::until("the kernel knows few inodes", || {
            mount.status().number("/kernel/inodes") <= MAX
        });
    };
    let mut open = File::open(mount.path("01/00001")).unwrap();
    let work_dir = mount.path("02");
    let in_dir = Command::new("sh")
        .args(["-c", "echo in; read -r _ && /bin/pwd && ls | wc -l"])
        .current_dir(&work_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let first = walk();
    assert_eq!(first.len(), DIRS * FILES);
    knows_few();
    let listed = mount.status().number("/mounts/0/requests/list");
    assert_eq!(walk(), first, "inodes have the same numbers again");
    assert_eq!(mount.status().number("/mounts/0/requests/list"), listed);
    knows_few();
    let mut content = Vec::new();
    open.read_to_end(&mut content).unwrap();
    assert_eq!(data::check(1, 0, &content), Ok(()));
    // Nobody is put out of the directory that he is in.
    in_dir.stdin.as_ref().unwrap().write_all(b"\n").unwrap();
    let said = String::from_utf8(in_dir.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(said, format!("in\n{}\n{FILES}\n", work_dir.display()));
    // What is written here is kept until it is stored, and its times for as long as somebody may ask.
    fs::write(mount.path("03/new"), b"new").unwrap();
    walk();
    knows_few();
    assert_eq!(fs::read(mount.path("03/new")).unwrap(), b"new");
}

#[test]
fn a_mount_makes_two_requests_at_most_however_large_the_bucket_is() {
    for objects in [1, 3_000] {
        let storage = Storage::s3();
        for index in 0..objects {
            storage.put_bytes(format!("{index:05}"), b"x");
        }
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let asked = storage.requests();
        assert!(asked <= 2, "{asked} requests to mount {objects} objects");
        mount.unmount();
    }
}

#[test]
fn an_epoch_of_small_files_costs_a_request_for_each_file_and_few_more() {
    const FILES: usize = 200;
    let storage = Storage::s3();
    for seed in 0..FILES {
        storage.put(
            format!("images/{:02}/{seed}", seed % 10),
            seed as u64,
            20_000,
        );
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let before = storage.requests();
    for seed in data::shuffled(1, FILES) {
        let found = mount.read(format!("images/{:02}/{seed}", seed % 10));
        assert_eq!(data::check(seed as u64, 0, &found), Ok(()));
    }
    let asked = storage.requests() - before;
    assert!(
        asked <= FILES as u64 + 30,
        "{asked} requests for {FILES} files in 10 directories"
    );
}
