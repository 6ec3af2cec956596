// SPDX-License-Identifier: Apache-2.0
//! What the cache promises: a hit costs no request, its capacity holds, and it cannot hurt.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use testkit::data;
use testkit::rigs::SmallDisk;
use testkit::sandbox::{Mount, Sandbox, drop_kernel_caches};
use testkit::storage::Storage;
use testkit::wait;

/// Names and sizes of a tree with small and large objects; the seed of each is its index.
const TREE: [(&str, usize); 6] = [
    ("small/1", 1),
    ("small/2", 110 * 1024),
    ("small/3", 500_000),
    ("large/1", 6 << 20),
    ("large/2", (10 << 20) + 1),
    ("empty", 0),
];

fn put_tree(storage: &Storage) -> u64 {
    for (seed, (name, size)) in TREE.iter().enumerate() {
        storage.put(name, seed as u64, *size);
    }
    TREE.iter().map(|(_, size)| *size as u64).sum()
}

#[track_caller]
fn read_tree(mount: &Mount<'_>) {
    for (seed, (name, size)) in TREE.iter().enumerate() {
        let found = mount.read(name);
        assert_eq!(
            (found.len(), data::check(seed as u64, 0, &found)),
            (*size, Ok(())),
            "{name}"
        );
    }
}

/// Reads the tree and waits until all of it is in the cache: fills happen behind the answers.
#[track_caller]
fn warm_up(mount: &Mount<'_>, total: u64) {
    read_tree(mount);
    wait::until("all is in the cache", || {
        mount.status().number("/cache/used_bytes") >= total
    });
}

/// Returns the bytes that a directory really takes.
fn taken(dir: &Path) -> u64 {
    files(dir)
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|m| m.blocks() * 512)
        .sum()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            Ok(kind) if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn a_second_read_makes_no_request() {
    let storage = Storage::s3();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    warm_up(&mount, total);
    let (asked, counted) = (storage.requests(), mount.status().requests());
    assert!(asked > 0 && counted > 0);
    drop_kernel_caches();
    read_tree(&mount);
    assert_eq!(storage.requests(), asked, "the storage was asked again");
    assert_eq!(
        mount.status().requests(),
        counted,
        "and status says the same"
    );
    storage.switch_off();
    drop_kernel_caches();
    read_tree(&mount);
}

#[test]
fn a_local_directory_is_read_once() {
    let storage = Storage::local();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    warm_up(&mount, total);
    let fetched = || mount.status().number("/mounts/0/requests/bytes_read");
    let before = fetched();
    assert!(before >= total);
    drop_kernel_caches();
    read_tree(&mount);
    assert_eq!(fetched(), before);
}

#[test]
fn a_read_after_unmounting_and_mounting_again_makes_no_request() {
    let storage = Storage::s3();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    warm_up(&mount, total);
    mount.unmount();
    let mount = sandbox.mount(&storage).start();
    let asked = storage.requests();
    storage.switch_off();
    drop_kernel_caches();
    read_tree(&mount);
    assert_eq!(storage.requests(), asked);
}

#[test]
fn a_crash_of_the_daemon_keeps_the_cache_warm_and_its_dead_mount_is_cleaned() {
    let storage = Storage::s3();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    warm_up(&mount, total);
    mount.crash();
    assert_eq!(
        sandbox.mounts(),
        [sandbox.point()],
        "the dead mount is still there"
    );
    assert!(fs::read_dir(sandbox.point()).is_err());
    let mount = sandbox.mount(&storage).start();
    assert_eq!(
        sandbox.mounts(),
        [sandbox.point()],
        "one mount, not two over each other"
    );
    let asked = storage.requests();
    storage.switch_off();
    drop_kernel_caches();
    read_tree(&mount);
    assert_eq!(storage.requests(), asked);
}

#[test]
fn a_cache_smaller_than_the_data_evicts_and_never_exceeds_its_capacity() {
    const CAPACITY: u64 = 64 << 20;
    /// The index and its journal lie beside the pages.
    const INDEX: u64 = 8 << 20;
    let storage = Storage::s3();
    let objects: Vec<(String, u64, usize)> = (0..100)
        .map(|seed| {
            (
                format!("{seed}"),
                seed,
                if seed % 10 == 0 { 11 << 20 } else { 1 << 20 },
            )
        })
        .collect();
    for (name, seed, size) in &objects {
        storage.put(name, *seed, *size);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).cache_size("64MiB").start();
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(taken(&sandbox.cache_dir()), Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        for epoch in 0..2 {
            for index in data::shuffled(epoch, objects.len()) {
                let (name, seed, size) = &objects[index];
                let found = mount.read(name);
                let right = (found.len(), data::check(*seed, 0, &found)) == (*size, Ok(()));
                if !right {
                    done.store(true, Ordering::Relaxed);
                    panic!("wrong bytes in {name}, epoch {epoch}");
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let most = most.load(Ordering::Relaxed);
    assert!(
        most <= CAPACITY + INDEX,
        "{most} bytes in a cache of {CAPACITY}"
    );
    assert!(most >= CAPACITY / 2, "the cache is used: {most}");
    let status = mount.status();
    assert_eq!(status.number("/cache/capacity_bytes"), CAPACITY);
    assert!(status.number("/cache/used_bytes") <= CAPACITY);
    assert!(status.number("/cache/evictions") > 0);
}

#[test]
fn an_object_larger_than_the_cache_is_read_right() {
    let storage = Storage::s3();
    let size = 100 << 20;
    storage.put("larger", 5, size);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).cache_size("64MiB").start();
    for _ in 0..2 {
        assert_eq!(data::check(5, 0, &mount.read("larger")), Ok(()));
    }
    assert!(mount.status().number("/cache/used_bytes") <= 64 << 20);
}

/// Flips one bit in the middle of each cache file that is as large as an object.
fn flip_bits(cache: &Path) -> usize {
    let mut flipped = 0;
    for path in files(cache) {
        let size = fs::metadata(&path).unwrap().len();
        if TREE
            .iter()
            .all(|(_, known)| *known as u64 != size || size < 1000)
        {
            continue;
        }
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut byte = [0];
        file.seek(SeekFrom::Start(size / 2)).unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(size / 2)).unwrap();
        file.write_all(&[byte[0] ^ 0x10]).unwrap();
        flipped += 1;
    }
    flipped
}

#[track_caller]
fn right_bytes_and_a_counted_fault(mount: &Mount<'_>) {
    drop_kernel_caches();
    read_tree(mount);
    wait::until("the fault is counted", || {
        mount.status().number("/cache/corrupt_pages") > 0
    });
    read_tree(mount);
}

#[test]
fn a_flipped_bit_in_a_cache_file_is_found_while_the_daemon_runs() {
    let storage = Storage::s3();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    warm_up(&mount, total);
    assert!(flip_bits(&sandbox.cache_dir()) >= 4);
    right_bytes_and_a_counted_fault(&mount);
}

#[test]
fn a_flipped_bit_in_a_cache_file_is_found_after_a_clean_stop() {
    let storage = Storage::s3();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    warm_up(&mount, total);
    mount.unmount();
    assert!(flip_bits(&sandbox.cache_dir()) >= 4);
    right_bytes_and_a_counted_fault(&sandbox.mount(&storage).start());
}

#[test]
fn a_flipped_bit_in_a_cache_file_is_found_after_a_crash() {
    let storage = Storage::s3();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    warm_up(&mount, total);
    mount.crash();
    assert!(flip_bits(&sandbox.cache_dir()) >= 4);
    right_bytes_and_a_counted_fault(&sandbox.mount(&storage).start());
}

#[test]
fn a_cache_that_loses_its_files_slows_reads_and_fails_none() {
    let storage = Storage::s3();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    warm_up(&mount, total);
    fs::remove_dir_all(sandbox.cache_dir()).unwrap();
    drop_kernel_caches();
    read_tree(&mount);
}

#[test]
fn an_index_that_is_garbage_costs_the_warmth_and_nothing_else() {
    let storage = Storage::s3();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    warm_up(&mount, total);
    mount.crash();
    let sizes: Vec<u64> = TREE.iter().map(|(_, size)| *size as u64).collect();
    let mut spoiled = 0;
    for path in files(&sandbox.cache_dir()) {
        let size = fs::metadata(&path).unwrap().len();
        // The format of the directory is what tells that it is ours: without it, it is refused.
        let format = path.file_name().is_some_and(|name| name == "FORMAT");
        if size > 0 && !sizes.contains(&size) && !format {
            fs::write(
                &path,
                data::bytes(99, usize::try_from(size).unwrap().min(1 << 20)),
            )
            .unwrap();
            spoiled += 1;
        }
    }
    assert!(spoiled > 0);
    let mount = sandbox.mount(&storage).start();
    read_tree(&mount);
    drop_kernel_caches();
    read_tree(&mount);
}

#[test]
fn a_disk_that_fills_up_while_running_fails_no_read() {
    let storage = Storage::s3();
    let total = put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let disk = crate::refusals::SmallDisk::new(&sandbox, "96m", &[]);
    let mount = sandbox
        .mount(&storage)
        .cache_dir(disk.path("cache"))
        .cache_size("80MiB")
        .start();
    let filler = disk.fill();
    read_tree(&mount);
    drop_kernel_caches();
    read_tree(&mount);
    fs::remove_file(filler).unwrap();
    read_tree(&mount);
    assert!(total > 0);
    mount.unmount();
}

#[test]
fn a_mount_of_one_bucket_is_not_warm_with_the_bytes_of_another() {
    let storage = Storage::s3();
    let (one, other) = (Storage::local(), Storage::local());
    for (index, local) in [&one, &other].into_iter().enumerate() {
        local.put("same/name", index as u64, 300_000);
        let file = fs::File::options()
            .write(true)
            .open(local.root().join("same/name"))
            .unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    }
    let sandbox = Sandbox::new(&storage);
    for (seed, local) in [(0, &one), (1, &other), (0, &one)] {
        let mount = sandbox.mount(local).start();
        assert_eq!(data::check(seed, 0, &mount.read("same/name")), Ok(()));
        mount.unmount();
    }
}

#[test]
fn cache_files_lie_apart_on_a_disk_of_many_groups() {
    let storage = Storage::local();
    for index in 0..60 {
        storage.put(format!("file-{index}"), index, 1000);
    }
    let sandbox = Sandbox::new(&storage);
    // So small a disk has blocks of 1 KiB, and 8 MiB in each of its groups.
    let disk = SmallDisk::mount(sandbox.dir(), 96 << 20).unwrap();
    let cache = disk.mounted_at.join("c");
    let mount = sandbox
        .mount(&storage)
        .cache_dir(&cache)
        .cache_size("64MiB");
    let mount = mount.start();
    for index in 0..60 {
        mount.read(format!("file-{index}"));
    }
    wait::until("all is in the cache", || {
        mount.status().number("/cache/objects") == 60
    });
    mount.unmount();
    let inodes = fs::read_dir(cache.join("data")).unwrap();
    let inodes = inodes.map(|entry| entry.unwrap().metadata().unwrap().ino());
    let group = rustix::fs::statvfs(&disk.mounted_at).unwrap().f_files / 12;
    let groups: HashSet<u64> = inodes.map(|ino| ino / group).collect();
    assert!(groups.len() >= 6, "{groups:?} of groups of {group}");
}

/// Returns the inode numbers of the files in the directories below one.
fn inodes_below(dir: &Path) -> HashSet<u64> {
    let folders = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap());
    files
        .map(|entry| entry.unwrap().metadata().unwrap().ino())
        .collect()
}

#[test]
fn a_file_that_was_written_becomes_the_cached_one_and_is_not_copied() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    for is_synced in [false, true] {
        let name = format!("synced-{is_synced}");
        let before = inodes_below(&sandbox.cache_dir().join("data"));
        let mut file = fs::File::create(mount.path(&name)).unwrap();
        file.write_all(&data::bytes(1, 100_000)).unwrap();
        if is_synced {
            file.sync_all().unwrap();
        }
        let staged = fs::read_dir(sandbox.cache_dir().join("staged")).unwrap();
        let staged = staged.map(|entry| entry.unwrap().metadata().unwrap());
        let staged: Vec<_> = staged.filter(|meta| meta.len() == 100_000).collect();
        assert_eq!(staged.len(), 1, "{name}");
        drop(file);
        let mut cached = HashSet::new();
        wait::until("it is in the cache", || {
            cached = inodes_below(&sandbox.cache_dir().join("data"));
            cached.len() > before.len()
        });
        assert!(cached.contains(&staged[0].ino()), "{name} was copied");
    }
    mount.unmount();
}
