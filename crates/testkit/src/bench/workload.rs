// SPDX-License-Identifier: Apache-2.0
//! The data set and the ways to read it: every contestant runs exactly this code.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use types::{Clock, SystemClock};

use crate::data;

/// How much `read` asks for at a time in a sequential read, as a copying tool does.
const PIECE: usize = 1 << 20;
/// The same in the readers of records.
const SHARD_PIECE: usize = 256 << 10;

/// One object of the data set.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its name in the storage.
    pub name: String,
    /// The seed of its content.
    pub seed: u64,
    /// Its length.
    pub len: usize,
    /// The checksum of its content.
    pub sum: u64,
}

/// The objects that are read.
#[derive(Debug)]
pub struct DataSet {
    /// One large file, as a shard or a checkpoint.
    pub large: Item,
    /// Many small files in directories, as an image folder.
    pub small: Vec<Item>,
    /// As many bytes as the large file has, in shards; of a run that reads some.
    pub shards: Vec<Item>,
}

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Wall time.
    pub seconds: f64,
    /// Bytes read.
    pub bytes: u64,
    /// Files or reads done.
    pub count: u64,
}

impl DataSet {
    /// Plans a data set; `put` is called with each item and its content.
    pub fn new(
        large: usize,
        small: usize,
        small_len: usize,
        mut put: impl FnMut(&str, &[u8]) -> Result<()>,
    ) -> Result<Self> {
        let mut item = |name: String, seed: u64, len: usize| {
            let content = data::bytes(seed, len);
            put(&name, &content)?;
            anyhow::Ok(Item {
                name,
                seed,
                len,
                sum: checksum(0, &content),
            })
        };
        let large = item("shards/large.bin".into(), u64::MAX, large)?;
        let small = (0..small)
            .map(|index| {
                item(
                    format!("images/{:02}/{index:05}.jpg", index % 20),
                    index as u64,
                    small_len,
                )
            })
            .collect::<Result<_>>()?;
        let shards = Vec::new();
        Ok(DataSet {
            large,
            small,
            shards,
        })
    }

    /// Adds files of one length to those that are read from end to end; `put` is called as above.
    pub fn add_shards(
        &mut self,
        (count, len): (usize, usize),
        mut put: impl FnMut(&str, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for index in 0..count {
            let (name, seed) = (format!("shards/{index:02}.bin"), (1 << 40) + index as u64);
            let content = data::bytes(seed, len);
            put(&name, &content)?;
            let sum = checksum(0, &content);
            self.shards.push(Item {
                name,
                seed,
                len,
                sum,
            });
        }
        Ok(())
    }

    /// Returns the bytes of all small files.
    pub fn small_bytes(&self) -> u64 {
        self.small.iter().map(|item| item.len as u64).sum()
    }
}

/// Continues a checksum that depends on the bytes and their order, at memory speed.
pub fn checksum(start: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words
        .iter()
        .fold(start, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter()
        .fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

fn mix(sum: u64, word: u64) -> u64 {
    sum.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(word)
}

/// Measures `work`, which returns how much it did.
pub fn timed(work: impl FnOnce() -> Result<(u64, u64)>) -> Result<Work> {
    let started = SystemClock.now();
    let (count, bytes) = work()?;
    Ok(Work {
        seconds: (SystemClock.now() - started).as_secs_f64(),
        bytes,
        count,
    })
}

/// Reads a file from its start to its end.
pub fn sequential(root: &Path, item: &Item) -> Result<Work> {
    timed(|| {
        let mut buffer = vec![0; PIECE];
        read_one(root, item, &mut buffer)?;
        Ok((1, item.len as u64))
    })
}

/// Reads every small file once, in random order, by several readers.
pub fn epoch(root: &Path, items: &[Item], readers: usize, seed: u64) -> Result<Work> {
    let order = data::shuffled(seed, items.len());
    by_readers(root, items, (&order, readers), PIECE)
}

/// Reads every shard once, in order, by several readers, as training does: in small pieces.
pub fn shards(root: &Path, items: &[Item], readers: usize) -> Result<Work> {
    let order: Vec<usize> = (0..items.len()).collect();
    by_readers(root, items, (&order, readers), SHARD_PIECE)
}

fn by_readers(
    root: &Path,
    items: &[Item],
    (order, readers): (&[usize], usize),
    piece: usize,
) -> Result<Work> {
    timed(|| {
        in_parallel(
            order,
            readers,
            || vec![0; piece],
            |buffer, index| read_one(root, &items[index], buffer),
        )?;
        Ok((
            items.len() as u64,
            items.iter().map(|item| item.len as u64).sum(),
        ))
    })
}

/// Reads `count` blocks at random places of a file.
pub fn random(root: &Path, item: &Item, block: usize, count: usize) -> Result<Work> {
    let file = File::open(root.join(&item.name)).context("open the large file")?;
    timed(|| {
        let mut buffer = vec![0; block];
        for index in 0..count {
            let at = (data::pick(block as u64, index as u64, item.len / block) * block) as u64;
            file.read_exact_at(&mut buffer, at).context("random read")?;
            // Making the expected bytes costs more than reading them: every 16th shows enough.
            if index % 16 == 0 {
                let right = data::check(item.seed, at, &buffer);
                ensure!(right.is_ok(), "wrong bytes at {at} of {}", item.name);
            }
        }
        Ok((count as u64, (count * block) as u64))
    })
}

/// Reads a file by many readers, each its own part of it from end to end.
pub fn parts(root: &Path, item: &Item, readers: usize) -> Result<Work> {
    let (path, part) = (root.join(&item.name), item.len / readers);
    let order: Vec<usize> = (0..readers).collect();
    timed(|| {
        in_parallel(
            &order,
            readers,
            || vec![0; PIECE],
            |buffer, index| {
                let file = File::open(&path).context("open the large file")?;
                let (mut at, end) = (index * part, (index + 1) * part);
                while at < end {
                    let piece = &mut buffer[..PIECE.min(end - at)];
                    file.read_exact_at(piece, at as u64)
                        .context("read a part")?;
                    let first = &piece[..piece.len().min(4096)];
                    let right = data::check(item.seed, at as u64, first);
                    ensure!(right.is_ok(), "wrong bytes at {at} of {}", item.name);
                    at += piece.len();
                }
                Ok(())
            },
        )?;
        Ok((readers as u64, (part * readers) as u64))
    })
}

/// Lists a directory, and asks for nothing more.
pub fn list(dir: &Path, expected: usize) -> Result<Work> {
    timed(|| {
        let mut names = 0;
        for entry in fs::read_dir(dir)? {
            names += usize::from(!entry?.file_name().is_empty());
        }
        ensure!(names == expected, "{names} names and not {expected}");
        Ok((names as u64, 0))
    })
}

/// Lists every directory below a root, in the order of their names, and asks for the attributes of every
/// file.
pub fn walk(root: &Path, expected: usize) -> Result<Work> {
    timed(|| {
        let (mut files, mut bytes) = (0, 0);
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let meta = entry?.metadata()?;
                if meta.is_dir() {
                    continue;
                }
                files += 1;
                bytes += meta.len();
            }
            let entries = fs::read_dir(&folder)?.collect::<std::io::Result<Vec<_>>>()?;
            let mut below = Vec::new();
            for entry in entries {
                if entry.file_type()?.is_dir() {
                    below.push(entry.path());
                }
            }
            below.sort();
            folders.extend(below.into_iter().rev());
        }
        ensure!(
            files == expected,
            "the walk met {files} files and not {expected}"
        );
        Ok((files as u64, bytes))
    })
}

/// Does something for each index of an order, by several threads that share it.
pub fn in_parallel<S>(
    order: &[usize],
    threads: usize,
    state: impl Fn() -> S + Sync,
    each: impl Fn(&mut S, usize) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let (next, state, each) = (&next, &state, &each);
    std::thread::scope(|scope| {
        let work = move || -> Result<()> {
            let mut state = state();
            while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                each(&mut state, *index)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("readers do not panic"))
    })
}

fn read_one(root: &Path, item: &Item, buffer: &mut [u8]) -> Result<()> {
    let path = root.join(&item.name);
    let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let (mut sum, mut len) = (0, 0);
    loop {
        // Whole words, so that the sum does not depend on how the kernel cuts the reads.
        let count = fill(&mut file, buffer).with_context(|| format!("read {}", path.display()))?;
        sum = checksum(sum, &buffer[..count]);
        len += count;
        if count < buffer.len() {
            break;
        }
    }
    ensure!(
        len == item.len && sum == item.sum,
        "wrong bytes in {}",
        item.name
    );
    Ok(())
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_are_not_measured() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap())?;
            Ok(fs::write(path, content)?)
        };
        let set = DataSet::new(3 << 20, 25, 1001, put).unwrap();
        assert_eq!(sequential(dir.path(), &set.large).unwrap().bytes, 3 << 20);
        assert_eq!(epoch(dir.path(), &set.small, 3, 1).unwrap().count, 25);
        assert_eq!(random(dir.path(), &set.large, 4096, 20).unwrap().count, 20);
        assert_eq!(walk(&dir.path().join("images"), 25).unwrap().count, 25);

        let path = dir.path().join(&set.small[3].name);
        let mut content = fs::read(&path).unwrap();
        content[500] ^= 1;
        fs::write(&path, content).unwrap();
        let error = epoch(dir.path(), &set.small, 3, 1).unwrap_err().to_string();
        assert!(error.contains(&set.small[3].name), "{error}");
    }

    #[test]
    fn the_checksum_knows_the_order() {
        assert_ne!(
            checksum(0, b"abcdefgh12345678"),
            checksum(0, b"12345678abcdefgh")
        );
        assert_eq!(
            checksum(checksum(0, b"abcdefgh"), b"12"),
            checksum(0, b"abcdefgh12")
        );
    }
}
