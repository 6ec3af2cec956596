// SPDX-License-Identifier: Apache-2.0
//! Compares what is cached of a tree with what its storage has now.
//!
//! Each directory is listed anew, and what is known of its names from before is laid beside that: a
//! cached version that the storage has no more, or not under that name, is told. With the bytes, all
//! that is cached of the current versions is read from the storage once more and compared. Nothing is
//! learnt by it and nothing changes, unless what is found is to be dropped. A version that no known
//! name leads to is nobody's: it is not looked at, and goes when room is wanted.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use types::{
    ByteRange, Error, ErrorKind, MountId, Name, NodeKind, ObjectPath, ObjectRef, PageRange, Result,
    VersionId,
};

use crate::meta::Listing;
use crate::schedule::Class;
use crate::settings::REQUEST_MAX;
use crate::walk::Subtree;
use crate::worker::Worker;

/// Files that are told of one by one; all are counted.
const TOLD_MAX: usize = 200;

/// How a check is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckPlan {
    /// Whether cached bytes are compared with those of the storage.
    pub bytes: bool,
    /// Whether what is not as in the storage is dropped from the cache.
    pub drops: bool,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Directories listed.
    pub directories: u64,
    /// Files that the storage lists.
    pub files: u64,
    /// Files of them of whose current version anything is cached.
    pub cached_files: u64,
    /// Bytes of those that are cached.
    pub cached_bytes: u64,
    /// Bytes that were compared with those of the storage.
    pub compared_bytes: u64,
    /// Files of which another version is cached than the storage has.
    pub stale_files: u64,
    /// Files that are cached and not in the storage any more.
    pub gone_files: u64,
    /// Files whose cached bytes are not those of the storage.
    pub different_files: u64,
    /// Files and directories that could not be checked.
    pub unknown: u64,
    /// Objects dropped from the cache.
    pub dropped: u64,
    /// The first of what is not well.
    pub findings: Vec<Finding>,
}

/// A file whose cached bytes are not as in the storage, or could not be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its storage.
    pub mount: MountId,
    /// Its path there.
    pub path: ObjectPath,
    /// What is not well.
    pub why: String,
}

/// A check on its way.
struct Check<'a> {
    worker: &'a Arc<Worker>,
    tree: &'a Subtree,
    plan: CheckPlan,
    found: Checked,
    bad: Vec<VersionId>,
}

impl Worker {
    /// Checks a tree. Dropping the future ends it; what was dropped is dropped.
    ///
    /// # Errors
    /// What the storage said of the path itself.
    pub fn check(
        self: &Arc<Self>,
        tree: Subtree,
        plan: CheckPlan,
    ) -> BoxFuture<'static, Result<Checked>> {
        let worker = Arc::clone(self);
        async move {
            let mut check = Check {
                worker: &worker,
                tree: &tree,
                plan,
                found: Checked::default(),
                bad: Vec::new(),
            };
            check.run().await?;
            let Check { mut found, bad, .. } = check;
            if plan.drops {
                found.dropped = bad.len() as u64;
                worker.drop_all(bad).await?;
            }
            Ok(found)
        }
        .boxed()
    }
}

impl Check<'_> {
    async fn run(&mut self) -> Result<()> {
        let (mount, path) = (self.tree.mount, self.tree.path.clone());
        let deadline = self.worker.request_deadline();
        let meta = match path.is_root() {
            true => None,
            false => {
                let asked = self.worker.ask_now(mount, &path, deadline).await;
                match asked {
                    Ok(learnt) => Some(learnt.value),
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        self.gone(path).await;
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        if let Some(meta) = meta.filter(|meta| meta.kind != NodeKind::Directory) {
            if meta.kind == NodeKind::File {
                let known = self.known_version(&path);
                let object = ObjectRef::new(mount, path, meta.tag);
                self.file(object, known).await;
            }
            return Ok(());
        }
        let mut dirs = vec![path];
        while let Some(dir) = dirs.pop() {
            self.directory(dir, &mut dirs).await;
        }
        Ok(())
    }

    async fn directory(&mut self, dir: ObjectPath, dirs: &mut Vec<ObjectPath>) {
        let (mount, worker) = (self.tree.mount, self.worker);
        let before = worker.recall_listing(mount, &dir).await;
        let now = match worker.list_now(mount, &dir).await {
            Ok(listed) => listed.value,
            Err(error) => return self.unknown(dir, &error),
        };
        self.found.directories += 1;
        let mut known: HashMap<Name, NodeKind> = HashMap::new();
        let mut versions: HashMap<Name, ObjectRef> = HashMap::new();
        for entry in before.iter().flat_map(|listing: &Listing| listing.iter()) {
            known.insert(entry.name.clone(), entry.meta.kind);
            let object = ObjectRef::new(mount, dir.join(&entry.name), entry.meta.tag.clone());
            versions.insert(entry.name.clone(), object);
        }
        for entry in now.iter() {
            let path = dir.join(&entry.name);
            let was = known.remove(&entry.name);
            if self.tree.hidden.contains(&path) {
                continue;
            }
            match entry.meta.kind {
                NodeKind::Directory => dirs.push(path),
                NodeKind::File => {
                    let old = match was {
                        Some(NodeKind::File) => versions.remove(&entry.name),
                        _ => self.known_version(&path),
                    };
                    let object = ObjectRef::new(mount, path, entry.meta.tag.clone());
                    self.file(object, old).await;
                }
                NodeKind::Symlink => {}
            }
        }
        for name in known.into_keys() {
            self.gone(dir.join(&name)).await;
        }
    }

    /// Returns the version of a file that is known from before.
    fn known_version(&self, path: &ObjectPath) -> Option<ObjectRef> {
        let meta = self.worker.known_before(self.tree.mount, path)?;
        let is_file = meta.kind == NodeKind::File;
        is_file.then(|| ObjectRef::new(self.tree.mount, path.clone(), meta.tag))
    }

    async fn file(&mut self, object: ObjectRef, before: Option<ObjectRef>) {
        self.found.files += 1;
        if let Some(before) = before.filter(|before| before.id != object.id)
            && self.worker.cached_len(before.id) > 0
        {
            self.found.stale_files += 1;
            self.bad.push(before.id);
            self.tell(
                object.path.clone(),
                "the storage has another version of it".into(),
            );
        }
        let cached = self.worker.cached_len(object.id);
        if cached == 0 {
            return;
        }
        self.found.cached_files += 1;
        self.found.cached_bytes += cached;
        if !self.plan.bytes {
            return;
        }
        match self.compare(&object).await {
            Ok(true) => {}
            Ok(false) => {
                self.found.different_files += 1;
                self.bad.push(object.id);
                self.tell(
                    object.path,
                    "its cached bytes are not those of the storage".into(),
                );
            }
            Err(error) => self.unknown(object.path, &error),
        }
    }

    /// Compares what is cached of an object with the storage.
    async fn compare(&mut self, object: &ObjectRef) -> Result<bool> {
        let step = REQUEST_MAX / types::PAGE_SIZE;
        let end = ByteRange::new(0, object.size()).pages().end;
        let mut first = 0;
        while first < end {
            let pages = PageRange {
                first,
                end: end.min(first + step),
            };
            let present = self.worker.present(object, pages);
            for run in runs(pages.first, &present) {
                if !self.compare_run(object, run).await? {
                    return Ok(false);
                }
            }
            first = pages.end;
        }
        Ok(true)
    }

    async fn compare_run(&mut self, object: &ObjectRef, run: PageRange) -> Result<bool> {
        let range = run.bytes(object.size());
        let (worker, id) = (Arc::clone(self.worker), object.id);
        let read = move || {
            let mut held = Vec::new();
            let cache = worker.cache.as_ref()?;
            cache.read(id, range, &mut held).then_some(held)
        };
        let held = self.worker.runtime.spawn_blocking(read).await;
        let held = held.map_err(|source| Error::internal("read the cache").with_source(source))?;
        // Evicted, or found bad by its checksum and dropped.
        let Some(held) = held else { return Ok(true) };
        let mount = self.worker.mount(object.mount)?;
        let deadline = self.worker.request_deadline();
        let _turn = mount.schedule.turn(Class::Load, deadline).await?;
        let body = mount
            .storage
            .read(&object.path, &object.tag, range, deadline);
        let (mut body, mut rest) = (body.await?, &held[..]);
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            let Some((part, next)) = rest.split_at_checked(bytes.len()) else {
                return Ok(false);
            };
            if *part != *bytes {
                return Ok(false);
            }
            self.found.compared_bytes += bytes.len() as u64;
            rest = next;
        }
        Ok(rest.is_empty())
    }

    /// Looks for cached files at and below a name that the storage does not have any more.
    async fn gone(&mut self, path: ObjectPath) {
        let mut paths = vec![path];
        while let Some(path) = paths.pop() {
            if self.tree.hidden.contains(&path) {
                continue;
            }
            if let Some(object) = self.known_version(&path)
                && self.worker.cached_len(object.id) > 0
            {
                self.found.gone_files += 1;
                self.bad.push(object.id);
                self.tell(path, "the storage does not have it any more".into());
                continue;
            }
            let below = self.worker.recall_listing(self.tree.mount, &path).await;
            let names = below.iter().flat_map(|listing: &Listing| listing.iter());
            paths.extend(names.map(|entry| path.join(&entry.name)));
        }
    }

    fn unknown(&mut self, path: ObjectPath, error: &Error) {
        self.found.unknown += 1;
        self.tell(path, format!("not checked: {error}"));
    }

    fn tell(&mut self, path: ObjectPath, why: String) {
        if self.found.findings.len() < TOLD_MAX {
            let mount = self.tree.mount;
            self.found.findings.push(Finding { mount, path, why });
        }
    }
}

/// Returns the runs of pages that are there.
fn runs(first: u64, present: &[bool]) -> Vec<PageRange> {
    let mut runs: Vec<PageRange> = Vec::new();
    for (page, is_here) in (first..).zip(present) {
        match runs.last_mut() {
            _ if !is_here => {}
            Some(run) if run.end == page => run.end += 1,
            _ => runs.push(PageRange {
                first: page,
                end: page + 1,
            }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_compared_in_runs() {
        let run = |first, end| PageRange { first, end };
        assert_eq!(runs(5, &[true, true, false, true]), [run(5, 7), run(8, 9)]);
        assert_eq!(runs(0, &[false, false]), []);
    }
}
