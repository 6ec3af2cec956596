// SPDX-License-Identifier: Apache-2.0
//! What the tests share: objects whose bytes follow from their ids, and where their files lie.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cache::{Settings, Store};
use tempfile::TempDir;
use types::{ByteRange, ByteSize, Clock, PAGE_SIZE, PageRange, SystemClock, VersionId, page_count};

pub(crate) const MIB: u64 = 1 << 20;

/// Opens a store with the smallest capacity.
pub(crate) fn open(dir: &Path) -> Arc<Store> {
    open_with(dir, 64 * MIB)
}

pub(crate) fn open_with(dir: &Path, capacity: u64) -> Arc<Store> {
    let settings = Settings {
        dir: dir.to_path_buf(),
        capacity: ByteSize(capacity),
    };
    Store::open(&settings, Arc::new(SystemClock)).unwrap()
}

pub(crate) fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Spreads small numbers over the shards, as hashes would.
pub(crate) fn id(n: u64) -> VersionId {
    let hash = u128::from(mix(n)) << 64 | u128::from(mix(n ^ 0x5555));
    VersionId(hash)
}

/// SplitMix64.
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The bytes that object `n` must have.
pub(crate) fn content(n: u64, range: ByteRange) -> Vec<u8> {
    let first = range.offset / 8;
    let last = range.end().div_ceil(8);
    let words = (first..last).flat_map(|word| mix(n << 40 ^ word).to_le_bytes());
    let skip = usize::try_from(range.offset % 8).unwrap();
    words
        .skip(skip)
        .take(usize::try_from(range.len).unwrap())
        .collect()
}

pub(crate) fn whole(size: u64) -> ByteRange {
    ByteRange::new(0, size)
}

pub(crate) fn page(size: u64, page: u64) -> ByteRange {
    PageRange {
        first: page,
        end: page + 1,
    }
    .bytes(size)
}

/// Fills all of object `n`.
pub(crate) fn fill(store: &Store, n: u64, size: u64) {
    store
        .fill(id(n), size, 0, &content(n, whole(size)))
        .unwrap();
}

pub(crate) fn fill_page(store: &Store, n: u64, size: u64, at: u64) {
    store
        .fill(id(n), size, at, &content(n, page(size, at)))
        .unwrap();
}

/// Reads a range; a hit must have the right bytes.
pub(crate) fn hits(store: &Store, n: u64, range: ByteRange) -> bool {
    let mut buf = b"kept".to_vec();
    let hit = store.read(id(n), range, &mut buf);
    assert_eq!(&buf[..4], b"kept");
    match hit {
        true => assert!(
            buf[4..] == content(n, range),
            "wrong bytes of object {n} at {range:?}"
        ),
        false => assert_eq!(buf.len(), 4, "a miss leaves the buffer as it was"),
    }
    hit
}

/// Returns which pages of an object can be read.
pub(crate) fn readable(store: &Store, n: u64, size: u64) -> Vec<bool> {
    (0..page_count(size))
        .map(|at| hits(store, n, page(size, at)))
        .collect()
}

pub(crate) fn file_of(dir: &Path, n: u64) -> PathBuf {
    let name = id(n).to_string();
    dir.join("data").join(&name[..2]).join(name)
}

/// Flips a bit of a cache file, as somebody else would.
pub(crate) fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, offset).unwrap();
}

pub(crate) fn flip_in_page(dir: &Path, n: u64, at: u64) {
    flip(&file_of(dir, n), at * PAGE_SIZE + 5);
}

/// Returns what the files below a directory take on the disk.
pub(crate) fn disk_usage(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_usage(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// Waits for something that another thread does.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let clock = SystemClock;
    let deadline = clock.deadline(Duration::from_secs(60));
    while !done() {
        assert!(!deadline.left(clock.now()).is_zero(), "in vain: {what}");
        std::thread::yield_now();
    }
}

/// Reads all of a file that the store handed out.
pub(crate) fn bytes_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Returns how long this thread has run, in milliseconds: unlike the time that passes, it does not
/// depend on what else the machine does.
pub(crate) fn cpu_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}
