// SPDX-License-Identifier: Apache-2.0
//! A storage in memory that counts its requests, can be held back, switched off and made to fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::Semaphore;
use types::{
    ByteRange, Deadline, Error, ErrorKind, Extras, MountId, Name, NodeKind, ObjectMeta, ObjectPath,
    ObjectRef, Result, VersionTag,
};
use ufs::{
    ByteStream, Counters, ListEntry, ListPage, ListStream, TreePage, TreeStream, UnderStorage,
};

/// An object that begins so is a symbolic link to the rest.
pub(crate) const LINK: &[u8] = b"link to ";

/// See the module.
#[derive(Debug)]
pub(crate) struct ScriptedStorage {
    objects: Mutex<BTreeMap<Vec<u8>, (Bytes, u64)>>,
    version: AtomicU64,
    counters: Counters,
    pub(crate) reads: Mutex<Vec<ByteRange>>,
    pub(crate) is_off: AtomicBool,
    pub(crate) reads_to_fail: AtomicUsize,
    /// Reads wait for a permit each; plenty unless a test takes them.
    pub(crate) gate: Arc<Semaphore>,
    /// Answers about one name do, on their way back: they tell what was true when it was asked.
    pub(crate) stat_gate: Arc<Semaphore>,
    /// And listings.
    pub(crate) list_gate: Arc<Semaphore>,
    /// Keys of a page of a listing of a tree.
    pub(crate) tree_page: AtomicUsize,
    /// Such listings that were asked for, in pages.
    pub(crate) tree_pages: AtomicUsize,
    /// How long the answer to a read takes to begin, by how many came before it.
    pub(crate) latency: Mutex<fn(usize) -> Duration>,
    /// The one line that all bytes come over.
    pub(crate) line: Arc<Line>,
}

/// A line that is as slow as it is told.
#[derive(Debug)]
pub(crate) struct Line {
    /// How many bytes come at once, and how long they take.
    pub(crate) pace: Mutex<(usize, Duration)>,
    /// Each piece takes a permit; plenty unless a test takes them.
    pub(crate) gate: Semaphore,
    turn: tokio::sync::Mutex<()>,
}

impl Default for Line {
    fn default() -> Self {
        Line {
            pace: Mutex::new((100_000, Duration::ZERO)),
            gate: Semaphore::new(1_000_000),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

impl Line {
    async fn pass(&self) -> usize {
        let (bytes, takes) = *self.pace.lock().unwrap();
        self.gate.acquire().await.unwrap().forget();
        if !takes.is_zero() {
            let _turn = self.turn.lock().await;
            tokio::time::sleep(takes).await;
        }
        bytes
    }
}

/// A listing of a tree: the storage at each page is what it is then.
struct Tree {
    storage: Arc<ScriptedStorage>,
    prefix: Vec<u8>,
    /// The last key of the page before.
    after: Vec<u8>,
}

impl Tree {
    async fn page(mut self) -> Option<(Result<TreePage>, Option<Self>)> {
        let count = self.storage.tree_page.load(Ordering::SeqCst);
        self.storage.tree_pages.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = self.storage.check() {
            return Some((Err(error), None));
        }
        let keys: Vec<_> = {
            let objects = self.storage.objects.lock().unwrap();
            let below = objects.keys().filter(|key| key.starts_with(&self.prefix));
            below
                .filter(|key| **key > self.after)
                .take(count)
                .cloned()
                .collect()
        };
        let entries: Vec<_> = keys
            .iter()
            .map(|key| {
                let meta = self.storage.meta(key).unwrap();
                (
                    ObjectPath::parse(key).unwrap(),
                    ObjectMeta {
                        extras: None,
                        ..meta
                    },
                )
            })
            .collect();
        self.storage.list_gate.acquire().await.unwrap().forget();
        let is_last = keys.len() < count;
        self.after = keys.last().cloned().unwrap_or_default();
        let page = TreePage {
            entries,
            unshowable: 0,
        };
        Some((Ok(page), (!is_last).then_some(self)))
    }
}

/// The storage with listings of trees.
#[derive(Debug)]
pub(crate) struct WithTrees(pub(crate) Arc<ScriptedStorage>);

#[async_trait]
impl UnderStorage for WithTrees {
    fn uri(&self) -> &str {
        self.0.uri()
    }

    fn identity(&self) -> &str {
        self.0.identity()
    }

    async fn stat(&self, path: &ObjectPath, deadline: Deadline) -> Result<ObjectMeta> {
        self.0.stat(path, deadline).await
    }

    fn list(&self, dir: &ObjectPath) -> ListStream {
        self.0.list(dir)
    }

    fn list_tree(&self, dir: &ObjectPath) -> Option<TreeStream> {
        let prefix = match dir.is_root() {
            true => Vec::new(),
            false => [dir.as_bytes(), b"/"].concat(),
        };
        let tree = Tree {
            storage: Arc::clone(&self.0),
            prefix,
            after: Vec::new(),
        };
        let pages = stream::unfold(Some(tree), |tree| async { tree?.page().await });
        Some(pages.boxed())
    }

    async fn read(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<ByteStream> {
        self.0.read(path, tag, range, deadline).await
    }

    fn lists_all(&self) -> bool {
        false
    }

    fn counters(&self) -> &Counters {
        &self.0.counters
    }
}

/// Takes all permits of a gate: what comes is counted and then waits.
pub(crate) async fn close(gate: &Semaphore) {
    let permits = gate.available_permits() as u32;
    gate.acquire_many(permits).await.unwrap().forget();
}

impl Default for ScriptedStorage {
    fn default() -> Self {
        ScriptedStorage {
            objects: Mutex::default(),
            version: AtomicU64::new(0),
            counters: Counters::default(),
            reads: Mutex::default(),
            is_off: AtomicBool::new(false),
            reads_to_fail: AtomicUsize::new(0),
            gate: Arc::new(Semaphore::new(1_000_000)),
            stat_gate: Arc::new(Semaphore::new(1_000_000)),
            list_gate: Arc::new(Semaphore::new(1_000_000)),
            tree_page: AtomicUsize::new(1000),
            tree_pages: AtomicUsize::new(0),
            latency: Mutex::new(|_| Duration::ZERO),
            line: Arc::default(),
        }
    }
}

impl ScriptedStorage {
    pub(crate) fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        let version = self.version.fetch_add(1, Ordering::SeqCst);
        self.objects
            .lock()
            .unwrap()
            .insert(path.into(), (bytes.into(), version));
    }

    pub(crate) fn delete(&self, path: &str) {
        self.objects.lock().unwrap().remove(path.as_bytes());
    }

    /// Puts pseudo-random bytes and returns them with the reference of their version.
    pub(crate) fn put_noise(&self, mount: MountId, path: &str, len: usize) -> (Bytes, ObjectRef) {
        let bytes: Bytes = noise(len).into();
        self.put(path, bytes.clone());
        let path = ObjectPath::parse(path.as_bytes()).unwrap();
        let tag = self.meta(path.as_bytes()).unwrap().tag;
        (bytes, ObjectRef::new(mount, path, tag))
    }

    pub(crate) fn read_count(&self) -> usize {
        self.reads.lock().unwrap().len()
    }

    pub(crate) fn asked(&self) -> (u64, u64) {
        let counts = self.counters.snapshot();
        (counts.list, counts.head)
    }

    fn meta(&self, path: &[u8]) -> Option<ObjectMeta> {
        let objects = self.objects.lock().unwrap();
        let (bytes, version) = objects.get(path)?;
        let tag = VersionTag {
            etag: Some(version.to_string()),
            mtime_ns: 0,
            size: bytes.len() as u64,
        };
        let link = bytes.strip_prefix(LINK).map(<[u8]>::to_vec);
        Some(ObjectMeta {
            kind: match link {
                Some(_) => NodeKind::Symlink,
                None => NodeKind::File,
            },
            tag,
            owner: None,
            extras: Some(Arc::new(Extras {
                link,
                ..Extras::default()
            })),
        })
    }

    /// Objects below a path make it a directory.
    fn directory(&self, path: &ObjectPath) -> Option<ObjectMeta> {
        let below = [path.as_bytes(), b"/"].concat();
        let objects = self.objects.lock().unwrap();
        let is_one = objects.keys().any(|key| key.starts_with(&below));
        is_one.then(ObjectMeta::implied_directory)
    }

    fn check(&self) -> Result<()> {
        match self.is_off.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "switched off")),
            false => Ok(()),
        }
    }
}

pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

#[async_trait]
impl UnderStorage for ScriptedStorage {
    fn uri(&self) -> &str {
        "scripted://"
    }

    fn identity(&self) -> &str {
        "scripted://"
    }

    async fn stat(&self, path: &ObjectPath, deadline: Deadline) -> Result<ObjectMeta> {
        let meta = self.meta(path.as_bytes()).or_else(|| self.directory(path));
        self.counters.head.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        let passes = tokio::time::timeout_at(deadline.instant().into(), self.stat_gate.acquire());
        match passes.await {
            Ok(permit) => permit.unwrap().forget(),
            Err(_) => return Err(Error::new(ErrorKind::Timeout, "held back")),
        }
        meta.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such object"))
    }

    fn list(&self, dir: &ObjectPath) -> ListStream {
        if let Err(error) = self.check() {
            self.counters.list.fetch_add(1, Ordering::SeqCst);
            return stream::iter([Err(error)]).boxed();
        }
        let prefix = match dir.is_root() {
            true => Vec::new(),
            false => [dir.as_bytes(), b"/"].concat(),
        };
        let mut names: BTreeMap<Vec<u8>, ObjectMeta> = BTreeMap::new();
        let keys: Vec<Vec<u8>> = self.objects.lock().unwrap().keys().cloned().collect();
        for key in keys {
            let Some(rest) = key.strip_prefix(&prefix[..]) else {
                continue;
            };
            match rest.iter().position(|&byte| byte == b'/') {
                Some(slash) => {
                    names.insert(rest[..slash].to_vec(), ObjectMeta::implied_directory());
                }
                None => {
                    let meta = ObjectMeta {
                        extras: None,
                        ..self.meta(&key).unwrap()
                    };
                    names.insert(rest.to_vec(), meta);
                }
            }
        }
        let entries = names
            .into_iter()
            .map(|(name, meta)| ListEntry {
                name: Name::new(&name).unwrap(),
                meta,
            })
            .collect();
        self.counters.list.fetch_add(1, Ordering::SeqCst);
        let gate = Arc::clone(&self.list_gate);
        stream::once(async move {
            gate.acquire().await.unwrap().forget();
            Ok(ListPage {
                entries,
                unshowable: 0,
            })
        })
        .boxed()
    }

    async fn read(
        &self,
        path: &ObjectPath,
        tag: &VersionTag,
        range: ByteRange,
        _deadline: Deadline,
    ) -> Result<ByteStream> {
        let latency = {
            let mut reads = self.reads.lock().unwrap();
            reads.push(range);
            self.latency.lock().unwrap()(reads.len() - 1)
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        self.gate.acquire().await.unwrap().forget();
        self.check()?;
        let failing = self
            .reads_to_fail
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if failing.is_ok() {
            return Err(Error::new(ErrorKind::Unavailable, "told to fail"));
        }
        if self.meta(path.as_bytes()).map(|meta| meta.tag).as_ref() != Some(tag) {
            return Err(Error::new(ErrorKind::Stale, "another version"));
        }
        let bytes = self.objects.lock().unwrap()[path.as_bytes()].0.clone();
        let bytes = bytes.slice(range.offset as usize..range.end() as usize);
        let line = Arc::clone(&self.line);
        let rest = stream::unfold(bytes, move |mut rest| {
            let line = Arc::clone(&line);
            async move {
                if rest.is_empty() {
                    return None;
                }
                let len = line.pass().await.min(rest.len());
                Some((Ok(rest.split_to(len)), rest))
            }
        });
        Ok(rest.boxed())
    }

    fn lists_all(&self) -> bool {
        false
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}
