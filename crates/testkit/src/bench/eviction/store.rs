// SPDX-License-Identifier: Apache-2.0
//! Shuffled epochs through the page store: real files, and all that takes a part of the capacity.

use anyhow::{Context, Result};
use cache::{Settings, Store};
use tempfile::TempDir;
use types::{ByteRange, ByteSize, SystemClock, VersionId};

use super::StoreRow;
use crate::data;

/// The least that a store may have.
const CAPACITY: u64 = 64 << 20;
/// An object is one page, so that a few hundred of them fit.
const SIZE: usize = 128 << 10;

/// Reads a data set in three epochs, of which `part` of `parts` fit.
pub(super) fn epochs((part, parts): (u32, u32)) -> Result<StoreRow> {
    let objects = room()? * parts as usize / part as usize;
    let dir = TempDir::new().context("directory of the cache")?;
    let store = open(&dir)?;
    let mut hits = 0;
    for epoch in 0..3 {
        for object in data::shuffled(epoch, objects) {
            if read(&store, object)? && epoch > 0 {
                hits += 1;
            }
        }
    }
    Ok(StoreRow {
        fits: f64::from(part) / f64::from(parts),
        objects,
        hits: f64::from(hits) / (objects * 2) as f64,
    })
}

/// Returns how many objects a store holds that has been at work: its index grows to its size first.
fn room() -> Result<usize> {
    let dir = TempDir::new().context("directory of the cache")?;
    let store = open(&dir)?;
    let mut objects = 0;
    loop {
        read(&store, objects)?;
        objects += 1;
        let stats = store.stats();
        if stats.evictions > stats.objects {
            return usize::try_from(stats.objects).context("few objects");
        }
    }
}

fn open(dir: &TempDir) -> Result<std::sync::Arc<Store>> {
    let settings = Settings {
        dir: dir.path().to_owned(),
        capacity: ByteSize(CAPACITY),
    };
    Store::open(&settings, std::sync::Arc::new(SystemClock)).context("open the cache")
}

/// Reads an object, from the store or into it; true when it was a hit.
fn read(store: &Store, object: usize) -> Result<bool> {
    let seed = object as u64;
    let name = data::bytes(seed, 16).try_into().unwrap_or([0; 16]);
    let id = VersionId(u128::from_le_bytes(name));
    let mut bytes = Vec::with_capacity(SIZE);
    if store.read(id, ByteRange::new(0, SIZE as u64), &mut bytes) {
        anyhow::ensure!(bytes == data::bytes(seed, SIZE), "wrong bytes of {object}");
        return Ok(true);
    }
    store
        .fill(id, SIZE as u64, 0, &data::bytes(seed, SIZE))
        .context("fill")?;
    Ok(false)
}
