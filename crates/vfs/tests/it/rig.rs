// SPDX-License-Identifier: Apache-2.0
//! A tree of mounted local directories, and short ways to walk and read it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use types::{
    ByteRange, ByteSize, Clock, Freshness, ManualClock, MountId, NodeKind, ObjectPath, Result,
};
use ufs::{CountersSnapshot, UnderStorage};
use vfs::{AttributeDefaults, Entry, HandleId, Ino, MountSpec, Opened, ReadReply, Vfs, WriteModes};
use worker::Worker;

pub(crate) const MINUTE: Freshness = Freshness::MaxAge(Duration::from_secs(60));

/// One storage of a [`Rig`]: a directory below the rig's own, and how it is mounted.
pub(crate) struct Mounted {
    pub(crate) dir: &'static str,
    pub(crate) at: &'static str,
    pub(crate) freshness: Freshness,
}

/// The tree, and all that lies under it.
pub(crate) struct Rig {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) clock: Arc<ManualClock>,
    ids: Vec<MountId>,
    temp: TempDir,
}

/// A name as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) name: Vec<u8>,
    pub(crate) ino: Ino,
    pub(crate) kind: NodeKind,
    pub(crate) next_cookie: u64,
}

/// The directories of a rig before it is mounted.
pub(crate) struct Ground(TempDir);

impl Ground {
    pub(crate) fn new() -> Self {
        Ground(tempfile::tempdir().unwrap())
    }

    /// Writes an object, and the directories above it.
    pub(crate) fn put(&self, path: &str, bytes: impl AsRef<[u8]>) {
        put(self.0.path().join(path), bytes.as_ref());
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Mounts the directory `s` at the root.
    pub(crate) async fn mount(self, freshness: Freshness) -> Rig {
        self.mount_all(&[Mounted {
            dir: "s",
            at: "",
            freshness,
        }])
        .await
    }

    pub(crate) async fn mount_all(self, mounted: &[Mounted]) -> Rig {
        let mut storages: Vec<Arc<dyn UnderStorage>> = Vec::new();
        for one in mounted {
            storages.push(open(self.path(one.dir)).await);
        }
        self.mount_storages(mounted, storages)
    }

    /// Mounts storages of the test's own making; the directories of `mounted` are not used.
    pub(crate) fn mount_storages(
        self,
        mounted: &[Mounted],
        storages: Vec<Arc<dyn UnderStorage>>,
    ) -> Rig {
        let temp = self.0;
        let clock = Arc::new(ManualClock::default());
        let seam = || Arc::clone(&clock) as Arc<dyn Clock>;
        let settings = cache::Settings {
            dir: temp.path().join("cache"),
            capacity: ByteSize(1 << 30),
        };
        let store = cache::Store::open(&settings, seam()).unwrap();
        let names = cache::kv::Kv::open(&temp.path().join("names"), 1 << 20).unwrap();
        let runtime = tokio::runtime::Handle::current();
        let settings = worker::Settings::default();
        let worker = Worker::new(settings, Some(store), Some(names), runtime, seam()).unwrap();
        let mut ids = Vec::new();
        let mut specs = Vec::new();
        for (one, storage) in mounted.iter().zip(storages) {
            let uri = storage.uri().to_string();
            let id = worker.add_storage(storage);
            ids.push(id);
            specs.push(MountSpec {
                at: ObjectPath::parse(one.at.as_bytes()).unwrap(),
                id,
                uri,
                freshness: one.freshness,
                attributes: AttributeDefaults::default(),
                writes: WriteModes::default(),
            });
        }
        let settings = vfs::Settings::default();
        let vfs = Vfs::new(settings, specs, Arc::clone(&worker), seam()).unwrap();
        Rig {
            vfs,
            worker,
            clock,
            ids,
            temp,
        }
    }
}

async fn open(dir: PathBuf) -> Arc<dyn UnderStorage> {
    std::fs::create_dir_all(&dir).unwrap();
    let settings = ufs::Settings {
        uri: format!("file://{}", dir.display()),
        options: std::collections::BTreeMap::new(),
        request_timeout: Duration::from_secs(10),
        max_connections: 16,
    };
    let clock = Arc::new(types::SystemClock);
    ufs::open(&settings, clock).await.unwrap()
}

fn put(path: PathBuf, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A new file moved into place, as an object is replaced: whole and at once.
    let part = path.with_extension("part");
    std::fs::write(&part, bytes).unwrap();
    std::fs::rename(part, path).unwrap();
}

impl Rig {
    pub(crate) fn put(&self, path: &str, bytes: impl AsRef<[u8]>) {
        put(self.path(path), bytes.as_ref());
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    /// Describes a mount of one of the rig's directories, to be added to the tree.
    pub(crate) async fn spec(&self, mounted: Mounted) -> MountSpec {
        let storage = open(self.path(mounted.dir)).await;
        MountSpec {
            at: ObjectPath::parse(mounted.at.as_bytes()).unwrap(),
            uri: storage.uri().to_string(),
            id: self.worker.add_storage(storage),
            freshness: mounted.freshness,
            attributes: AttributeDefaults::default(),
            writes: WriteModes::default(),
        }
    }

    /// Returns what the first storage was asked so far.
    pub(crate) fn asked(&self) -> CountersSnapshot {
        self.worker
            .storage(self.ids[0])
            .unwrap()
            .counters()
            .snapshot()
    }

    /// Looks up a path from the root; references to directories on the way are given back.
    pub(crate) async fn lookup(&self, path: &str) -> Result<Entry> {
        self.lookup_bytes(path.as_bytes()).await
    }

    pub(crate) async fn lookup_bytes(&self, path: &[u8]) -> Result<Entry> {
        let mut found: Option<Entry> = None;
        for name in path.split(|&b| b == b'/') {
            let parent = found.map_or(Ino::ROOT, |entry| entry.ino);
            let next = self.vfs.lookup(parent, name).wait().await;
            if let Some(entry) = found {
                self.vfs.forget(entry.ino, 1);
            }
            found = Some(next?);
        }
        Ok(found.unwrap())
    }

    pub(crate) async fn open(&self, path: &str) -> Result<Opened> {
        let entry = self.lookup(path).await?;
        self.vfs.open(entry.ino).wait().await
    }

    pub(crate) async fn read(&self, handle: HandleId, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut buf = b"before".to_vec();
        match self.vfs.read(handle, ByteRange::new(offset, len), &mut buf) {
            ReadReply::Ready(result) => result.map(|()| buf.split_off(6)),
            ReadReply::Pending(bytes) => {
                assert_eq!(buf, b"before", "a miss leaves the buffer as it was");
                bytes.await.map(|bytes| bytes.to_vec())
            }
        }
    }

    /// Looks up, opens and reads a whole file in requests as the kernel makes them.
    pub(crate) async fn cat(&self, path: &str) -> Result<Vec<u8>> {
        let entry = self.lookup(path).await?;
        let opened = self.vfs.open(entry.ino).wait().await?;
        let mut all = Vec::new();
        loop {
            let part = self
                .read(opened.handle, all.len() as u64, 128 << 10)
                .await?;
            if part.is_empty() {
                break;
            }
            all.extend(part);
        }
        self.vfs.release(opened.handle);
        self.vfs.forget(entry.ino, 1);
        Ok(all)
    }

    /// Lists a directory, `.` and `..` among the names.
    pub(crate) async fn list(&self, ino: Ino) -> Result<Vec<Shown>> {
        let handle = self.vfs.open_dir(ino).wait().await?;
        let shown = self.list_from(handle, 0, usize::MAX);
        self.vfs.release_dir(handle);
        Ok(shown)
    }

    pub(crate) fn list_from(&self, handle: HandleId, cookie: u64, count: usize) -> Vec<Shown> {
        let mut shown = Vec::new();
        let mut sink = |entry: vfs::DirEntry<'_>| {
            if shown.len() == count {
                return false;
            }
            shown.push(Shown {
                name: entry.name.to_vec(),
                ino: entry.ino,
                kind: entry.kind,
                next_cookie: entry.next_cookie,
            });
            true
        };
        self.vfs.read_dir(handle, cookie, &mut sink).unwrap();
        shown
    }

    /// Lists a directory's names without `.` and `..`.
    pub(crate) async fn names(&self, ino: Ino) -> Vec<String> {
        let shown = self.list(ino).await.unwrap();
        assert_eq!(
            (&shown[0].name[..], &shown[1].name[..]),
            (&b"."[..], &b".."[..])
        );
        shown[2..]
            .iter()
            .map(|shown| shown.name.escape_ascii().to_string())
            .collect()
    }
}

/// Returns bytes that look random, the same for the same seed.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963);
        (state >> 32).to_le_bytes()
    })
    .flat_map(|word| [word[0], word[1], word[2], word[3]])
    .take(len)
    .collect()
}
