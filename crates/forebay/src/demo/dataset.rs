// SPDX-License-Identifier: Apache-2.0
//! The data of the demo: an image folder and a few shards, made from a seed.
//!
//! The bytes do not compress and differ from file to file; the checksum of each file is kept, and
//! is its ETag in the storage too.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use crc_fast::{CrcAlgorithm, Digest, checksum};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// Name of the bucket.
pub(super) const BUCKET: &str = "demo";

const SEED: u64 = 20_240_501;
const CLASSES: u32 = 20;
/// About 110 KB on average, as the images of a well-known data set have.
const IMAGE_BYTES: std::ops::Range<usize> = 60_000..160_000;
const SHARDS: u32 = 4;
const SHARD_BYTES: usize = 32 << 20;
const PIECE_BYTES: usize = 1 << 20;

/// One object.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) checksum: u64,
}

impl Item {
    /// Returns the ETag, without quotes.
    pub(super) fn etag(&self) -> String {
        format!("{:016x}", self.checksum)
    }
}

/// All objects.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) images: Vec<Item>,
    pub(super) shards: Vec<Item>,
}

impl Dataset {
    /// Writes the data set below `dir`; `made` hears of every file and may stop it.
    pub(super) fn make(
        dir: &Path,
        images: u32,
        made: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Dataset> {
        let mut random = StdRng::seed_from_u64(SEED);
        let mut data = Dataset {
            images: Vec::new(),
            shards: Vec::new(),
        };
        for number in 0..images {
            let key = format!("train/class_{:02}/img_{number:05}.jpg", number % CLASSES);
            let size = random.random_range(IMAGE_BYTES);
            data.images.push(write(dir, key, size, &mut random)?);
            made(1)?;
        }
        for number in 0..SHARDS {
            let key = format!("shards/shard_{number:03}.tar");
            data.shards.push(write(dir, key, SHARD_BYTES, &mut random)?);
            made(0)?;
        }
        Ok(data)
    }

    /// Returns the kinds of files: what they are called, which they are, and how many read them.
    pub(super) fn kinds(&self, readers: usize) -> [(&'static str, &[Item], usize); 2] {
        [
            ("images, random order", &self.images, readers),
            ("shards, in order", &self.shards, 1),
        ]
    }

    /// Returns all objects.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.images.iter().chain(&self.shards)
    }

    /// Returns the size of all objects together.
    pub(super) fn bytes(&self) -> u64 {
        self.items().map(|item| item.size).sum()
    }
}

fn write(dir: &Path, key: String, size: usize, random: &mut StdRng) -> Result<Item> {
    let path = dir.join(&key);
    let what = || format!("write '{}'", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(what)?;
    }
    let mut file = File::create(&path).with_context(what)?;
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut left = size;
    let mut piece = vec![0; PIECE_BYTES.min(size)];
    while left > 0 {
        let piece = &mut piece[..left.min(PIECE_BYTES)];
        random.fill_bytes(piece);
        digest.update(piece);
        file.write_all(piece).with_context(what)?;
        left -= piece.len();
    }
    Ok(Item {
        key,
        size: size as u64,
        checksum: digest.finalize(),
    })
}

/// Returns whether these are the bytes of the object.
pub(super) fn is_intact(item: &Item, bytes: &[u8]) -> bool {
    bytes.len() as u64 == item.size && checksum(CrcAlgorithm::Crc64Nvme, bytes) == item.checksum
}

/// Returns the numbers below `len` in an order that is random and the same for one seed.
pub(super) fn shuffled(len: usize, seed: u64) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, random.random_range(0..=last));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_cut_file_is_not_intact() {
        let dir = tempfile::tempdir().unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let item = write(dir.path(), "a/b".into(), PIECE_BYTES + 5, &mut random).unwrap();
        let mut bytes = std::fs::read(dir.path().join("a/b")).unwrap();
        assert!(is_intact(&item, &bytes));
        bytes[PIECE_BYTES] ^= 1;
        assert!(!is_intact(&item, &bytes));
        assert!(!is_intact(&item, &bytes[..PIECE_BYTES]));
    }

    #[test]
    fn an_order_holds_each_number_once() {
        let mut order = shuffled(1000, 3);
        assert_eq!(order, shuffled(1000, 3));
        assert_ne!(order, shuffled(1000, 4));
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
        assert!(shuffled(0, 1).is_empty());
    }
}
