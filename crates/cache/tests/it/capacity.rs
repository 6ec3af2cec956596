// SPDX-License-Identifier: Apache-2.0
//! The capacity holds, leases hold, and a full disk is no harm.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use types::{ErrorKind, PAGE_SIZE};

use crate::support::*;

#[test]
fn the_capacity_is_never_exceeded() {
    let dir = temp();
    let store = open(dir.path());
    let mut random = 7;
    for n in 0..400 {
        random = mix(random);
        let size = 1 + random % (3 * MIB);
        match n % 3 {
            0 => fill_page(&store, n, size, (random >> 32) % size.div_ceil(PAGE_SIZE)),
            1 => fill(&store, n, size),
            _ => fill(&store, n, size % 9000),
        }
        if n % 10 == 0 {
            let used = disk_usage(dir.path());
            assert!(used <= 64 * MIB, "{used} after {n}");
            assert!(store.stats().used <= 64 * MIB);
        }
    }
    let stats = store.stats();
    assert!(stats.evictions > 0);
    assert!(
        stats.used > 32 * MIB,
        "most of the capacity is used: {stats:?}"
    );
}

#[test]
fn many_tiny_objects_stay_within_the_capacity() {
    let dir = temp();
    let store = open(dir.path());
    for n in 0..16_000 {
        store.fill(id(n), 10, 0, &content(n, whole(10))).unwrap();
    }
    assert!(
        disk_usage(dir.path()) <= 64 * MIB,
        "{} are used",
        disk_usage(dir.path())
    );
    assert!(store.stats().evictions > 0);
    assert!(store.stats().objects > 4000);
}

#[test]
fn nearly_all_of_a_small_capacity_is_for_objects() {
    let dir = temp();
    let store = open(dir.path());
    let map = store.open_map("map", 1 << 20).unwrap();
    for n in 0..40_u64 {
        let names = (n * 16..(n + 1) * 16).map(|name| {
            let key = mix(name).to_be_bytes().to_vec();
            (key.clone(), Some([&key[..]; 12].concat()))
        });
        map.write(names.collect()).unwrap();
    }
    // Photographs, of which the last block of the disk is nearly full.
    let size = 26 * 4096 - 100;
    for n in 0..900 {
        fill(&store, n, size);
    }
    let stats = store.stats();
    assert!(stats.evictions > 200, "{stats:?}");
    assert!(disk_usage(dir.path()) <= 64 * MIB);
    let held = stats.objects * size * 100 / (64 * MIB);
    assert!(held >= 95, "{held} in a hundred are held: {stats:?}");
}

#[test]
fn a_leased_object_is_not_evicted() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, MIB);
    let lease = store.local_file(id(1)).unwrap();
    let clone = lease.clone();
    drop(lease);
    for n in 2..200 {
        fill(&store, n, MIB);
    }
    assert!(store.stats().evictions > 100);
    assert!(hits(&store, 1, whole(MIB)));
    assert_eq!(bytes_of(&clone.open().unwrap()), content(1, whole(MIB)));
    drop(clone);
    for n in 200..600 {
        fill(&store, n, MIB);
        fill(&store, n - 10, MIB);
    }
    assert!(store.stats().used <= 64 * MIB);
}

#[test]
fn when_all_is_leased_a_fill_is_told_that_there_is_no_room() {
    let dir = temp();
    let store = open(dir.path());
    let mut leases = Vec::new();
    let error = loop {
        let n = leases.len() as u64;
        if let Err(error) = store.fill(id(n), MIB, 0, &content(n, whole(MIB))) {
            break error;
        }
        leases.push(store.local_file(id(n)).unwrap());
    };
    assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
    assert!(leases.len() > 40 && leases.len() < 64);
    for n in 0..leases.len() as u64 {
        assert!(hits(&store, n, whole(MIB)));
    }
    leases.pop();
    fill(&store, 1000, MIB);
    assert!(hits(&store, 1000, whole(MIB)));
}

#[test]
fn a_removed_object_takes_room_until_its_lease_ends() {
    let dir = temp();
    let store = open(dir.path());
    fill(&store, 1, 20 * MIB);
    let lease = store.local_file(id(1)).unwrap();
    let (file, before) = (lease.open().unwrap(), store.stats().used);
    store.remove(id(1));
    assert!(store.stats().used >= 20 * MIB);
    assert!(lease.open().is_none(), "it has no name any more");
    assert_eq!(bytes_of(&file), content(1, whole(20 * MIB)));
    drop(lease);
    assert!(store.stats().used < before - 19 * MIB);
}

#[test]
fn an_object_larger_than_the_cache_is_cached_in_part() {
    let dir = temp();
    let store = open(dir.path());
    let size = 1000 * MIB;
    let mut filled = 0;
    while store
        .fill(id(1), size, filled, &content(1, page(size, filled)))
        .is_ok()
    {
        filled += 1;
    }
    assert!(filled > 300, "{filled}");
    assert!((0..filled).all(|at| hits(&store, 1, page(size, at))));
    fill(&store, 2, MIB);
    assert!(
        hits(&store, 2, whole(MIB)),
        "another one gets in all the same"
    );
}

/// A file system in memory, of 100 MiB.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &Path) -> Self {
        let mounted = mount(
            "forebay-test",
            at,
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=100m"),
        );
        assert!(
            mounted.is_ok(),
            "this test mounts a tmpfs and must run as root: {mounted:?}"
        );
        SmallDisk(at.to_path_buf())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_costs_fills_and_nothing_else() {
    let dir = temp();
    let _disk = SmallDisk::mount(dir.path());
    let store = open_with(dir.path(), 1 << 30);
    // Some of the disk is left to others: the cache lives with what remains.
    for n in 0..60 {
        fill(&store, n, MIB);
    }
    let stats = store.stats();
    assert!(stats.evictions > 0 && stats.objects > 10, "{stats:?}");
    let others = dir.path().join("data").join("others");
    let mut left = 200 * MIB;
    let hog = std::fs::File::create(&others).unwrap();
    while left > 4096 {
        match std::os::unix::fs::FileExt::write_at(&hog, &vec![1; 1 << 16], 200 * MIB - left) {
            Ok(n) => left -= n as u64,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                break;
            }
        }
    }
    let error = store
        .fill(id(100), MIB, 0, &content(100, whole(MIB)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
    assert_eq!(store.stats().retired, None, "a full disk passes");
    for n in 0..60 {
        hits(&store, n, whole(MIB));
    }
    drop(hog);
    std::fs::remove_file(&others).unwrap();
    fill(&store, 100, MIB);
    assert!(hits(&store, 100, whole(MIB)));
}

#[test]
fn a_disk_that_is_full_from_the_start_is_refused() {
    let dir = temp();
    let _disk = SmallDisk::mount(dir.path());
    std::fs::create_dir(dir.path().join("cache")).unwrap();
    let hog = std::fs::File::create(dir.path().join("others")).unwrap();
    rustix::fs::fallocate(
        &hog,
        rustix::fs::FallocateFlags::empty(),
        0,
        100 * MIB - 65536,
    )
    .unwrap();
    let settings = cache::Settings {
        dir: dir.path().join("cache"),
        capacity: types::ByteSize(64 * MIB),
    };
    let error = cache::Store::open(&settings, std::sync::Arc::new(types::SystemClock)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
}

#[test]
fn room_that_the_map_needed_for_a_checkpoint_goes_back() {
    let dir = temp();
    let store = open(dir.path());
    let map = store.open_map("map", 1 << 20).unwrap();
    let row = |n: u64| {
        let key = mix(n).to_be_bytes().to_vec();
        (key.clone(), Some([&key[..]; 20].concat()))
    };
    map.write((0..8000).map(row).collect()).unwrap();
    let granted = store.stats().used;
    map.checkpoint().unwrap();
    let left = store.stats().used;
    assert!(left < granted, "{left} of {granted}");
    assert!(
        left < map.disk_bytes() + MIB / 2,
        "{left} for {}",
        map.disk_bytes()
    );
}

#[test]
fn the_map_beside_the_objects_is_within_the_capacity() {
    let dir = temp();
    let store = open(dir.path());
    for n in 0..80 {
        fill(&store, n, MIB);
    }
    let map = store.open_map("map", 1 << 20).unwrap();
    let row = |n: u64| {
        let key = mix(n).to_be_bytes().to_vec();
        (key.clone(), Some([&key[..]; 20].concat()))
    };
    let mut written = 0;
    for n in 0..60 {
        let rows: Vec<_> = (n * 4000..(n + 1) * 4000).map(row).collect();
        match map.write(rows) {
            Ok(()) => written += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}"),
        }
        let used = disk_usage(dir.path());
        assert!(used <= 64 * MIB, "{used} after {n}");
        assert!(store.stats().used <= 64 * MIB);
    }
    assert!((5..60).contains(&written), "{written} were written");
    assert!(map.get(&row(3).0).unwrap().is_some());
    assert!(store.stats().objects > 20, "{:?}", store.stats());
    map.checkpoint().unwrap();
    assert!(disk_usage(dir.path()) <= 64 * MIB);
    drop((map, store));
    // A map without room to grow starts empty.
    let store = open(dir.path());
    let map = store.open_map("map", 1 << 20).unwrap();
    map.write(vec![row(1)]).unwrap();
}
