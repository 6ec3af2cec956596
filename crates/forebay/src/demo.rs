// SPDX-License-Identifier: Apache-2.0
//! `forebay demo`: the main job on this machine alone, with numbers.
//!
//! A storage of its own (`storage`) with the latency and bandwidth of a remote one holds generated
//! images and shards (`dataset`). The same daemon as that of `forebay mount` serves them. Each epoch
//! (`epoch`) reads every file and checks every byte, beside the local disk and beside the storage
//! without a cache. Everything lies in one temporary directory and goes with it, also after Ctrl-C
//! or an error.

mod dataset;
mod epoch;
mod report;
mod storage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use types::{ByteSize, Freshness};

use self::dataset::{BUCKET, Dataset, Item};
use self::epoch::{Direct, Reader};
use self::report::{Measured, Report};
use self::storage::Storage;
use crate::cli::{DemoArgs, MountArgs, NodeArgs, StorageArgs, UmountArgs};
use crate::commands;
use crate::launch;
use crate::plan::Plan;

/// Readers of the images, as a data loader with four workers has.
const READERS: usize = 4;
/// Cache, data set and the copy in the kernel's caches must fit; this leaves room for the index.
const CACHE_SPARE_BYTES: u64 = 256 << 20;
const ORDER_SEED: u64 = 7;

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("demo-storage")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopped.store(true, Ordering::Relaxed);
        }
    });
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new()
        .prefix("forebay-demo-")
        .tempdir_in(&base)
        .with_context(|| format!("make a directory in '{}'", base.display()))?;
    let outcome = Demo {
        args,
        runtime: &runtime,
        stop: &stop,
        dir: dir.path(),
    }
    .run();
    finish(dir, args.keep);
    runtime.shutdown_background();
    commands::answer(format_args!("{}\n", outcome?))
}

/// Removes everything, or tells where it is.
fn finish(dir: TempDir, keep: bool) {
    if keep {
        commands::tell(format_args!("kept: {}\n", dir.keep().display()));
        return;
    }
    let path = dir.path().to_owned();
    if let Err(error) = dir.close() {
        eprintln!("forebay: '{}' is not removed: {error}", path.display());
    }
}

struct Demo<'a> {
    args: &'a DemoArgs,
    runtime: &'a Runtime,
    stop: &'a AtomicBool,
    dir: &'a Path,
}

impl Demo<'_> {
    fn run(&self) -> Result<Report> {
        let bucket = self.dir.join("storage").join(BUCKET);
        let bar = bar("make the data set", u64::from(self.args.files));
        let data = Dataset::make(&bucket, self.args.files, &mut |count| {
            bar.inc(count);
            self.check_stop()
        })?;
        bar.finish_and_clear();
        commands::tell(format_args!(
            "{} images and {} shards, {} MB, in a storage that takes {} a request and sends {} MB/s\n",
            data.images.len(),
            data.shards.len(),
            data.bytes() / 1_000_000,
            crate::values::show_duration(self.args.latency),
            self.args.bandwidth.0 / 1_000_000
        ));
        let data = Arc::new(data);
        let pace = storage::Pace {
            latency: self.args.latency,
            bytes_per_second: self.args.bandwidth.0.max(1),
        };
        let storage = Storage::start(Arc::clone(&data), bucket.clone(), pace, self.runtime)?;
        let mut report = Report::default();
        self.without_cache(&data, &bucket, &storage, &mut report)?;
        let mount = Mount::start(self, &data, &storage)?;
        let measured = self.with_cache(&data, &mount, &storage, &mut report);
        mount.end()?;
        measured?;
        Ok(report)
    }

    /// The baselines: local disk, and the storage by as many connections as there are readers.
    fn without_cache(
        &self,
        data: &Dataset,
        bucket: &Path,
        storage: &Storage,
        report: &mut Report,
    ) -> Result<()> {
        let local = Reader::Files(bucket.to_owned());
        let direct = Direct::open(&storage.endpoint(), self.runtime.handle().clone())?;
        let direct = Reader::Storage(direct);
        for (kind, items, readers) in data.kinds(READERS) {
            epoch::drop_kernel_caches(&[bucket])?;
            let measured = self.epoch("local disk", items, &local, readers, storage)?;
            report.add(kind, "local disk", measured);
            let name = "storage, no cache";
            let measured = self.epoch(name, items, &direct, readers, storage)?;
            report.add(kind, name, measured);
        }
        Ok(())
    }

    /// The product: everything once cold and once warm, without the kernel's caches.
    fn with_cache(
        &self,
        data: &Dataset,
        mount: &Mount,
        storage: &Storage,
        report: &mut Report,
    ) -> Result<()> {
        let reader = Reader::Files(mount.point.clone());
        for (kind, items, readers) in data.kinds(READERS) {
            for name in ["forebay, cold", "forebay, warm"] {
                epoch::drop_kernel_caches(&[&mount.point, &mount.cache])?;
                let measured = self.epoch(name, items, &reader, readers, storage)?;
                report.add(kind, name, measured);
            }
        }
        Ok(())
    }

    fn epoch(
        &self,
        name: &str,
        items: &[Item],
        reader: &Reader,
        readers: usize,
        storage: &Storage,
    ) -> Result<Measured> {
        let bar = bar(name, items.len() as u64);
        let before = storage.counts();
        let order = match readers {
            1 => (0..items.len()).collect(),
            _ => dataset::shuffled(items.len(), ORDER_SEED),
        };
        let seconds = epoch::run(items, &order, reader, readers, &|| {
            bar.inc(1);
            self.check_stop()
        })
        .with_context(|| format!("epoch '{name}'"))?;
        bar.finish_and_clear();
        let after = storage.counts();
        Ok(Measured {
            files: items.len() as u64,
            bytes: items.iter().map(|item| item.size).sum(),
            seconds,
            requests: after.requests - before.requests,
            storage_bytes: after.bytes - before.bytes,
        })
    }

    fn check_stop(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => bail!("stopped"),
            false => Ok(()),
        }
    }
}

/// The daemon of the demo. Dropped without its end, it is unmounted by force.
struct Mount {
    point: PathBuf,
    cache: PathBuf,
    run_dir: PathBuf,
    ended: bool,
}

impl Mount {
    fn start(demo: &Demo<'_>, data: &Dataset, storage: &Storage) -> Result<Mount> {
        let [point, cache, run_dir] = ["mnt", "cache", "run"].map(|name| demo.dir.join(name));
        std::fs::create_dir(&point).context("make the mount point")?;
        let args = MountArgs {
            uri: format!("s3://{BUCKET}"),
            dir: point.clone(),
            storage: StorageArgs {
                endpoint: Some(storage.endpoint()),
                region: Some("us-east-1".to_owned()),
                anonymous: true,
                path_style: Some(true),
                freshness: Some(Freshness::Immutable),
                ..StorageArgs::default()
            },
            node: NodeArgs {
                cache_dir: Some(cache.clone()),
                cache_size: Some(ByteSize(data.bytes() + CACHE_SPARE_BYTES)),
                log: Some(demo.dir.join("forebay.log")),
                ..NodeArgs::default()
            },
            preset: None,
            foreground: false,
        };
        let ready = launch::in_background(&Plan::of_mount(&args, Some(&run_dir))?)?;
        commands::tell(commands::mount::describe(&ready));
        Ok(Mount {
            point,
            cache,
            run_dir,
            ended: false,
        })
    }

    fn end(mut self) -> Result<()> {
        self.ended = true;
        self.umount(false)
    }

    fn umount(&self, force: bool) -> Result<()> {
        let timeout = std::time::Duration::from_secs(10);
        let args = UmountArgs {
            dir: self.point.clone(),
            force,
            timeout,
        };
        commands::umount::run(&args, Some(&self.run_dir))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.umount(true)
        {
            eprintln!("forebay: {error:#}");
        }
    }
}

fn bar(what: &str, len: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:20} {bar:40} {pos}/{len} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len)
        .with_style(style)
        .with_message(what.to_owned())
}
