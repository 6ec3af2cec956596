// SPDX-License-Identifier: Apache-2.0
//! A mount in a directory of its own, over a local directory as the storage. It takes the mount away
//! when it is dropped, also when a test panics.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use fuse::{Session, Transport};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};
use types::{ByteSize, Clock, Freshness, ObjectPath, SystemClock};
use ufs::UnderStorage;
use vfs::{AttributeDefaults, MountSpec, Vfs, WriteModes};
use worker::Worker;

/// How long any condition may take to come true on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Room for the cache of most tests.
const CACHE: u64 = 256 << 20;

/// A storage, all rooms over it, and a mount.
pub(crate) struct Rig {
    pub(crate) session: Session,
    vfs: Arc<Vfs>,
    _runtime: Runtime,
    _disk: Disk,
    dir: TempDir,
}

/// A file system of its own below the cache, which goes with it.
struct Disk(Option<PathBuf>);

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            rustix::mount::unmount(path, UnmountFlags::DETACH).unwrap();
        }
    }
}

impl Rig {
    /// Mounts what `make` puts into the storage.
    pub(crate) fn new(make: impl FnOnce(&Path)) -> Rig {
        Rig::with(|_| {}, make)
    }

    /// The same, but the kernel must not read cache files itself.
    pub(crate) fn without_passthrough(make: impl FnOnce(&Path)) -> Rig {
        Rig::with(|settings| settings.passthrough = false, make)
    }

    /// The same, with settings of one's own.
    pub(crate) fn with(set: impl FnOnce(&mut fuse::Settings), make: impl FnOnce(&Path)) -> Rig {
        let (runtime, dir) = (runtime(), TempDir::new().unwrap());
        let storage = local_storage(&runtime, &dir, make);
        Rig::over(storage, runtime, dir, set)
    }

    /// Mounts a storage that a test brings.
    pub(crate) fn over_storage(storage: Arc<dyn UnderStorage>) -> Rig {
        Rig::over(storage, runtime(), TempDir::new().unwrap(), |_| {})
    }

    fn over(
        storage: Arc<dyn UnderStorage>,
        runtime: Runtime,
        dir: TempDir,
        set: impl FnOnce(&mut fuse::Settings),
    ) -> Rig {
        std::fs::create_dir(dir.path().join("cache")).unwrap();
        let disk = Disk(None);
        Rig::served((storage, runtime), (dir, disk), CACHE, set)
    }

    /// Mounts what `make` puts into the storage over a small cache on a disk of its own.
    pub(crate) fn with_small_cache(make: impl FnOnce(&Path)) -> Rig {
        let (runtime, dir) = (runtime(), TempDir::new().unwrap());
        let storage = local_storage(&runtime, &dir, make);
        let cache = dir.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        let (none, data) = (MountFlags::empty(), c"size=256m");
        rustix::mount::mount("cache", &cache, "tmpfs", none, data).unwrap();
        let disk = Disk(Some(cache));
        Rig::served((storage, runtime), (dir, disk), 64 << 20, |_| {})
    }

    fn served(
        (storage, runtime): (Arc<dyn UnderStorage>, Runtime),
        (dir, disk): (TempDir, Disk),
        capacity: u64,
        set: impl FnOnce(&mut fuse::Settings),
    ) -> Rig {
        let [mount_point, cache] = ["mount", "cache"].map(|name| dir.path().join(name));
        std::fs::create_dir_all(&mount_point).unwrap();
        let vfs = rooms(storage, &cache, capacity, runtime.handle());
        let mut settings = fuse::Settings {
            mount_point,
            threads: 4,
            passthrough: true,
            spare_opens: false,
            transport: transport(),
            allow_other: false,
            read_only: true,
            read_ahead: ByteSize(1 << 20),
            fs_name: String::from("file:///source,with_a_comma"),
        };
        set(&mut settings);
        let session = fuse::mount(settings, Arc::clone(&vfs), runtime.handle().clone()).unwrap();
        Rig {
            session,
            vfs,
            _runtime: runtime,
            _disk: disk,
            dir,
        }
    }

    /// Returns the files of the cache.
    pub(crate) fn cache_files(&self) -> Vec<PathBuf> {
        let entries = |path: &Path| {
            let entries = std::fs::read_dir(path).unwrap();
            entries
                .map(|entry| entry.unwrap().path())
                .collect::<Vec<_>>()
        };
        let data = self.dir.path().join("cache/data");
        entries(&data).iter().flat_map(|dir| entries(dir)).collect()
    }

    /// Returns how many bytes the disk of the cache has in use.
    pub(crate) fn disk_used(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.dir.path().join("cache")).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }

    /// Gives a file of the storage another version, at once.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) {
        let source = self.dir.path().join("source");
        std::fs::write(source.join("being-written"), content).unwrap();
        std::fs::rename(source.join("being-written"), source.join(name)).unwrap();
    }

    /// Returns the mount point without links.
    pub(crate) fn root(&self) -> PathBuf {
        self.session.mount_point().to_owned()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn open(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap_or_else(|e| panic!("open {name}: {e}"))
    }

    /// Opens a file that nobody has read yet and that is too large to be fetched by its open.
    pub(crate) fn incomplete(&self, name: &str) -> File {
        let before = self.session.stats();
        let file = self.open(name);
        let after = self.session.stats();
        assert_eq!(
            after.open_passthrough, before.open_passthrough,
            "{name} was read before"
        );
        assert_eq!(after.open_cached, before.open_cached + 1);
        file
    }

    /// Reads a file that nobody has open until the cache has it whole, and opens it so that the
    /// kernel reads it itself.
    pub(crate) fn complete(&self, name: &str) -> File {
        let mut found = None;
        wait_for("the kernel reads the cache file", || {
            self.wait_until_closed();
            let file = self.open(name);
            drain(&file);
            let itself = self.session.stats().open_passthrough == 1;
            found = itself.then_some(file);
            itself
        });
        found.expect("it was waited for")
    }

    /// Waits until the kernel has told of every close: it tells them behind the program's back.
    pub(crate) fn wait_until_closed(&self) {
        wait_for("all files are closed", || {
            let stats = self.session.stats();
            stats.open_passthrough + stats.open_cached == 0 && self.vfs.stats().files_open == 0
        });
    }

    /// Returns how many files of this rig the process has open.
    pub(crate) fn files_of_ours(&self) -> usize {
        let below = |path: &Path| {
            std::fs::read_link(path).is_ok_and(|target| target.starts_with(self.dir.path()))
        };
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        files
            .filter(|entry| below(&entry.as_ref().unwrap().path()))
            .count()
    }

    /// Reads a whole file with a buffer that suits direct reads of any disk.
    pub(crate) fn read_aligned(&self, file: &File, size: usize) -> Vec<u8> {
        const BLOCK: usize = 4096;
        let mut buffer = vec![0; size.next_multiple_of(BLOCK) + BLOCK];
        let start = buffer.as_ptr().align_offset(BLOCK);
        let end = start + size.next_multiple_of(BLOCK);
        let mut at = start;
        while at < start + size {
            let step = end.min(at + (1 << 20));
            let read = file
                .read_at(&mut buffer[at..step], (at - start) as u64)
                .unwrap();
            assert!(read > 0, "the file ends at {} of {size}", at - start);
            at += read;
        }
        buffer[start..start + size].to_vec()
    }

    /// Cuts the connection, as the kernel does when a daemon dies, and leaves the mount behind.
    pub(crate) fn abort(&self) {
        let keeps_it_busy = File::open(self.root()).unwrap();
        let cut = rustix::mount::unmount(self.root(), UnmountFlags::FORCE);
        assert_eq!(cut, Err(rustix::io::Errno::BUSY));
        drop(keeps_it_busy);
    }

    /// Drops all but the directory.
    pub(crate) fn into_dir(self) -> TempDir {
        drop(self.session);
        self.dir
    }
}

fn local_storage(
    runtime: &Runtime,
    dir: &TempDir,
    make: impl FnOnce(&Path),
) -> Arc<dyn UnderStorage> {
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    make(&source);
    let settings = ufs::Settings {
        uri: format!("file://{}", source.display()),
        options: std::collections::BTreeMap::new(),
        request_timeout: Duration::from_secs(10),
        max_connections: 16,
    };
    runtime
        .block_on(ufs::open(&settings, Arc::new(SystemClock)))
        .unwrap()
}

/// The gate runs these tests once for each way in which requests come.
pub(crate) fn transport() -> Transport {
    match std::env::var("FOREBAY_TRANSPORT").as_deref() {
        Ok("uring") => Transport::Uring,
        _ => Transport::Dev,
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

fn rooms(storage: Arc<dyn UnderStorage>, dir: &Path, capacity: u64, runtime: &Handle) -> Arc<Vfs> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let settings = cache::Settings {
        dir: dir.to_owned(),
        capacity: ByteSize(capacity),
    };
    let store = cache::Store::open(&settings, Arc::clone(&clock)).unwrap();
    let settings = worker::Settings::default();
    let worker = Worker::new(
        settings,
        Some(store),
        None,
        runtime.clone(),
        Arc::clone(&clock),
    )
    .unwrap();
    let uri = storage.uri().to_owned();
    let id = worker.add_storage(storage);
    let spec = MountSpec {
        at: ObjectPath::root(),
        id,
        uri,
        freshness: Freshness::MaxAge(Duration::from_secs(60)),
        attributes: AttributeDefaults::default(),
        writes: WriteModes::default(),
    };
    Vfs::new(vfs::Settings::default(), vec![spec], worker, clock).unwrap()
}

/// Returns `size` bytes without a pattern that a mix-up of pages would keep.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

/// Reads a whole file.
pub(crate) fn drain(file: &File) -> Vec<u8> {
    let size = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let mut content = vec![0; size];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

/// Returns how many reads the kernel has sent.
pub(crate) fn reads(rig: &Rig) -> u64 {
    let requests = rig.session.stats().requests;
    requests
        .into_iter()
        .find(|(kind, _)| *kind == "read")
        .unwrap()
        .1
}

/// Waits until `condition` holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = SystemClock.deadline(PATIENCE);
    while !condition() {
        assert!(
            !deadline.left(SystemClock.now()).is_zero(),
            "waited in vain until {what}"
        );
        std::thread::yield_now();
    }
}

/// A file mapped into memory.
pub(crate) struct Map {
    start: *mut std::ffi::c_void,
    len: usize,
}

#[allow(unsafe_code, reason = "mapping a file is what these tests are about")]
impl Map {
    /// Maps the first `len` bytes.
    pub(crate) fn of(file: &File, len: usize) -> Map {
        // SAFETY: the kernel chooses the place, so nothing of ours is mapped over.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                file,
                0,
            )
        };
        Map {
            start: start.unwrap(),
            len,
        }
    }

    /// Returns the mapped bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` and `len` are of a mapping that lives as long as `self`, and the files of
        // these tests never change.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for Map {
    #[allow(unsafe_code, reason = "as above")]
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no slice of it outlives `self`.
        unsafe { rustix::mm::munmap(self.start, self.len) }.unwrap();
    }
}
