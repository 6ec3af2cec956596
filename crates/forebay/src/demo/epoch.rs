// SPDX-License-Identifier: Apache-2.0
//! One pass over all files of a kind, by several readers at once, with every byte checked.
//!
//! Files are read as a program would, with one buffer a reader; objects of a storage without a
//! cache are read with one GET each. The checksum costs 10 µs an image, in every row alike.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use rustix::fs::{Advice, fadvise};
use tokio::runtime::Handle;
use types::{ByteRange, Clock, ObjectPath, SystemClock, VersionTag};
use ufs::UnderStorage;

use super::dataset::{BUCKET, Item, is_intact};

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// A GET of the demo's storage that takes longer is a fault.
const GET_MAX: Duration = Duration::from_secs(60);

/// Where an epoch reads.
pub(super) enum Reader {
    /// Files below a directory.
    Files(PathBuf),
    /// The storage, without a cache.
    Storage(Direct),
}

impl Reader {
    fn read(&self, item: &Item, buf: &mut Vec<u8>) -> Result<()> {
        buf.clear();
        match self {
            Reader::Files(dir) => {
                let mut file = File::open(dir.join(&item.key))?;
                file.read_to_end(buf)?;
                Ok(())
            }
            Reader::Storage(direct) => direct.runtime.block_on(direct.read(item, buf)),
        }
    }
}

/// A bare client of the storage.
pub(super) struct Direct {
    storage: Arc<dyn UnderStorage>,
    runtime: Handle,
}

impl Direct {
    /// Makes a client.
    pub(super) fn open(endpoint: &str, runtime: Handle) -> Result<Direct> {
        let options = [
            ("endpoint", endpoint),
            ("region", "us-east-1"),
            ("anonymous", "true"),
            ("path_style", "true"),
        ];
        let settings = ufs::Settings {
            uri: format!("s3://{BUCKET}"),
            options: options
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            request_timeout: GET_MAX,
            max_connections: super::READERS,
        };
        let storage = runtime.block_on(ufs::open(&settings, Arc::new(SystemClock)))?;
        Ok(Direct { storage, runtime })
    }

    async fn read(&self, item: &Item, buf: &mut Vec<u8>) -> Result<()> {
        let path = ObjectPath::parse(item.key.as_bytes())?;
        let tag = VersionTag {
            etag: Some(item.etag()),
            mtime_ns: 0,
            size: item.size,
        };
        let deadline = SystemClock.deadline(GET_MAX);
        let range = ByteRange::new(0, item.size);
        let mut stream = self.storage.read(&path, &tag, range, deadline).await?;
        while let Some(piece) = stream.next().await {
            buf.extend_from_slice(&piece?);
        }
        Ok(())
    }
}

/// Reads the items in this order and returns how many seconds it took. `read_one` hears of every
/// file and may stop the epoch.
pub(super) fn run(
    items: &[Item],
    order: &[usize],
    reader: &Reader,
    readers: usize,
    read_one: &(dyn Fn() -> Result<()> + Sync),
) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        let mut buf = Vec::new();
        while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let item = &items[*index];
            let read = reader
                .read(item, &mut buf)
                .with_context(|| format!("read '{}'", item.key));
            // The others need not go on when one has failed.
            let checked = read.and_then(|()| match is_intact(item, &buf) {
                true => read_one(),
                false => bail!("'{}' came with other bytes than were written", item.key),
            });
            checked.inspect_err(|_| next.store(order.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    let started = SystemClock.now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..readers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a reader panicked")))
    })?;
    Ok(SystemClock
        .now()
        .saturating_duration_since(started)
        .as_secs_f64())
}

/// Makes the kernel forget what it holds of these directories: of the whole machine where that is
/// allowed, else file by file.
pub(super) fn drop_kernel_caches(dirs: &[&Path]) -> Result<()> {
    // Only what is on the disk can be forgotten.
    rustix::fs::sync();
    if std::fs::write(DROP_CACHES, "3").is_ok() {
        return Ok(());
    }
    dirs.iter().try_for_each(|dir| forget_below(dir))
}

fn forget_below(dir: &Path) -> Result<()> {
    let what = || format!("forget the pages of '{}'", dir.display());
    for entry in std::fs::read_dir(dir).with_context(what)? {
        let entry = entry.with_context(what)?;
        let kind = entry.file_type().with_context(what)?;
        if kind.is_dir() {
            forget_below(&entry.path())?;
        } else if kind.is_file()
            && let Ok(file) = File::open(entry.path())
        {
            fadvise(&file, 0, None, Advice::DontNeed).with_context(what)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::dataset::{Dataset, shuffled};
    use super::*;

    #[test]
    fn an_epoch_reads_each_file_once_and_finds_changed_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = 0;
        let data = Dataset::make(dir.path(), 20, &mut |count| {
            made += count;
            Ok(())
        })
        .unwrap();
        assert_eq!(made, 20);
        let reader = Reader::Files(dir.path().to_owned());
        let order = shuffled(data.images.len(), 1);
        let count = AtomicUsize::new(0);
        let one = || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        run(&data.images, &order, &reader, 4, &one).unwrap();
        assert_eq!(count.into_inner(), 20);
        forget_below(dir.path()).unwrap();
        let path = dir.path().join(&data.images[3].key);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = run(&data.images, &order, &reader, 4, &|| Ok(()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&data.images[3].key), "{error}");
    }

    #[test]
    fn an_epoch_stops_when_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let data = Dataset::make(dir.path(), 20, &mut |_| Ok(())).unwrap();
        let reader = Reader::Files(dir.path().to_owned());
        let order = shuffled(20, 1);
        let count = AtomicUsize::new(0);
        let stop = || {
            count.fetch_add(1, Ordering::Relaxed);
            bail!("stopped")
        };
        assert!(run(&data.images, &order, &reader, 2, &stop).is_err());
        assert!(count.into_inner() <= 2);
    }
}
