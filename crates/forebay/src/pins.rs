// SPDX-License-Identifier: Apache-2.0
//! The paths of a daemon's tree that are pinned: asked for, taken back, and known again after a
//! restart.
//!
//! The paths are kept in a file beside the remembered mounts; which objects are pinned because of
//! them is kept by the cache itself. No path lies below another one. What mounts come and go below a
//! pinned path is pinned, or not, from then on.

use std::path::PathBuf;
use std::sync::Arc;

use gateway::wire;
use parking_lot::Mutex;
use types::{Error, ErrorKind, ObjectPath, Result};
use vfs::Vfs;
use worker::{PinnedPlace, Worker};

use crate::jobs::{Jobs, tree_path};
use crate::state;

/// Paths that can be pinned: each object that is cached is compared with all of them.
const PATHS_MAX: usize = 1000;

/// The pinned paths of a daemon.
pub(crate) struct Pins {
    worker: Arc<Worker>,
    vfs: Arc<Vfs>,
    jobs: Arc<Jobs>,
    /// Where the paths are kept.
    state_file: Option<PathBuf>,
    paths: Mutex<Vec<String>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Pins {
    /// Takes up what a former daemon left pinned. Blocks.
    pub(crate) fn new(
        (worker, vfs, jobs): (Arc<Worker>, Arc<Vfs>, Arc<Jobs>),
        state_file: Option<PathBuf>,
    ) -> Arc<Pins> {
        let paths = match state_file.as_deref().map(state::load_pins) {
            Some(Ok(paths)) => paths,
            Some(Err(error)) => {
                tracing::warn!("what was pinned is not known any more: {error:#}");
                if let Some(path) = &state_file {
                    state::put_aside(path);
                }
                Vec::new()
            }
            None => Vec::new(),
        };
        let wishes: Vec<u64> = paths.iter().map(|path| wish(path)).collect();
        // Without their path nobody could let them go.
        match worker.unpin_wishes(|wish| !wishes.contains(&wish)) {
            Ok(0) => {}
            Ok(count) => tracing::info!("{count} files are not pinned any more"),
            Err(error) => tracing::warn!("let go what is not pinned any more: {error}"),
        }
        let pins = Pins {
            worker,
            vfs,
            jobs,
            state_file,
            paths: Mutex::new(paths),
            changing: tokio::sync::Mutex::default(),
        };
        pins.apply();
        Arc::new(pins)
    }

    /// Returns the pinned paths.
    pub(crate) fn list(&self) -> Vec<String> {
        self.paths.lock().clone()
    }

    /// Finds the places in storages that the paths stand for, anew: mounts may have come or gone.
    pub(crate) fn apply(&self) {
        let paths = self.list();
        let mut places = Vec::new();
        for path in &paths {
            // Where nothing is mounted now there is nothing to pin.
            let subtrees = parsed(path).and_then(|place| self.vfs.subtrees(&place));
            places.extend(subtrees.unwrap_or_default().into_iter().map(|tree| {
                let (mount, below) = (tree.subtree.mount, tree.subtree.path);
                PinnedPlace {
                    mount,
                    path: below,
                    wish: wish(path),
                }
            }));
        }
        self.worker.set_pins(places);
    }

    /// Pins a path: what of it is cached, and what will be.
    pub(crate) async fn pin(self: Arc<Self>, request: wire::OfPath) -> Result<wire::Pinned> {
        let path = tree_path(&request.path)?;
        let place = parsed(&path)?;
        let _one_at_a_time = self.changing.lock().await;
        let before = self.list();
        if let Some(around) = before.iter().find(|other| is_below(&path, other)) {
            let message = format!("'{path}' is pinned with '{around}', in which it lies");
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        if before.len() >= PATHS_MAX {
            let message = format!("{PATHS_MAX} paths are pinned already: pin one around them");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let trees = self.jobs.subtrees(&place, true).await?;
        let mut paths = before.clone();
        paths.retain(|other| *other != path && !is_below(other, &path));
        paths.push(path.clone());
        self.keep(paths.clone()).await?;
        *self.paths.lock() = paths;
        self.apply();
        let mut pinned = wire::Pinned {
            path,
            ..wire::Pinned::default()
        };
        let _turn = self.jobs.turn().await?;
        for tree in trees {
            let one = self.worker.pin_tree(tree.subtree).await?;
            pinned.files += one.files;
            pinned.bytes += one.bytes;
            pinned.pinned_files += one.pinned_files;
            pinned.pinned_bytes += one.pinned_bytes;
            pinned.refused_files += one.refused_files;
        }
        // What was pinned by a path in this one, and is not there any more.
        self.let_go().await?;
        tracing::info!("pinned '{}'", pinned.path);
        Ok(pinned)
    }

    /// Lets a path go; what is cached of it stays until its room is wanted.
    pub(crate) async fn unpin(self: Arc<Self>, request: wire::OfPath) -> Result<wire::Unpinned> {
        let path = tree_path(&request.path)?;
        let _one_at_a_time = self.changing.lock().await;
        let mut paths = self.list();
        if !paths.contains(&path) {
            return Err(not_pinned(&path, &paths));
        }
        paths.retain(|other| *other != path);
        self.keep(paths.clone()).await?;
        *self.paths.lock() = paths;
        self.apply();
        let files = self.let_go().await?;
        tracing::info!("unpinned '{path}'");
        Ok(wire::Unpinned { path, files })
    }

    /// Lets go what no path pins any more.
    async fn let_go(self: &Arc<Self>) -> Result<u64> {
        let pins = Arc::clone(self);
        let letting_go = move || {
            let wishes: Vec<u64> = pins.list().iter().map(|path| wish(path)).collect();
            pins.worker.unpin_wishes(|wish| !wishes.contains(&wish))
        };
        let let_go = tokio::task::spawn_blocking(letting_go).await;
        let_go.map_err(|source| Error::internal("unpin").with_source(source))?
    }

    async fn keep(&self, paths: Vec<String>) -> Result<()> {
        let Some(file) = self.state_file.clone() else {
            return Ok(());
        };
        let stored = tokio::task::spawn_blocking(move || state::store_pins(&file, paths)).await;
        let failed = |why: String| Error::new(ErrorKind::Unavailable, why);
        match stored {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failed(format!(
                "keep the list of what is pinned: {error:#}"
            ))),
            Err(error) => Err(failed(format!("keep the list of what is pinned: {error}"))),
        }
    }
}

fn parsed(path: &str) -> Result<ObjectPath> {
    ObjectPath::parse(path.trim_matches('/').as_bytes())
}

/// Returns whether a path lies below another one.
pub(crate) fn is_below(path: &str, other: &str) -> bool {
    let rest = path.strip_prefix(other.trim_end_matches('/'));
    path != other && rest.is_some_and(|rest| rest.starts_with('/'))
}

fn not_pinned(path: &str, paths: &[String]) -> Error {
    let around = paths.iter().find(|other| is_below(path, other));
    let message = match around {
        Some(around) => {
            format!("'{path}' is pinned with '{around}', in which it lies: unpin that")
        }
        None if paths.is_empty() => format!("'{path}' is not pinned; nothing is"),
        None => format!("'{path}' is not pinned; pinned are {}", paths.join(", ")),
    };
    Error::new(ErrorKind::NotFound, message)
}

/// Returns what stands for a path among the pins and rules of the cache.
pub(crate) fn wish(path: &str) -> u64 {
    let hash = blake3::hash(path.as_bytes());
    let (first, _) = hash
        .as_bytes()
        .split_first_chunk::<8>()
        .unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_pinned_is_told_what_is() {
        let paths = ["/a/b".to_owned(), "/c".to_owned()];
        let said = |path: &str, paths: &[String]| not_pinned(path, paths).to_string();
        assert!(said("/a/b/d", &paths).contains("with '/a/b'"));
        assert!(said("/a", &paths).contains("pinned are /a/b, /c"));
        assert!(said("/a", &[]).contains("nothing is"));
        assert!(is_below("/a", "/") && !is_below("/", "/") && !is_below("/ab", "/a"));
        assert_ne!(wish("/a"), wish("/b"));
    }
}
