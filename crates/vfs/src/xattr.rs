// SPDX-License-Identifier: Apache-2.0
//! Extended attributes: those of users, which the storage keeps, and `user.forebay.*`, which are
//! what is known of a path beyond what `stat` shows.
//!
//! Ours are read only, made up on request, and not listed, so that no copy of a file takes them
//! along. Those of the system, of security modules and of root (`system`, `security`, `trusted`) are
//! not kept, and saying so costs nothing: the kernel asks for one at each write.

use std::sync::Arc;

use futures::FutureExt;
use types::{Error, ErrorKind, NodeKind, Result, Xattrs};

use crate::ino::Ino;
use crate::namespace::Node;
use crate::reply::Reply;
use crate::vfs::Vfs;
use crate::write::WriteMode;

/// What the names of attributes of users start with.
const USER: &str = "user.";
/// What those that are ours start with.
const OURS: &str = "user.forebay.";
/// URI of the mount.
const MOUNT: &str = "user.forebay.mount";
/// The storage's own tag of the version.
const ETAG: &str = "user.forebay.etag";
/// `whole` when the version is cached whole and verified, else `no`.
const CACHED: &str = "user.forebay.cached";
/// The key of the version's cached bytes.
const VERSION: &str = "user.forebay.version";
/// When what is written here reaches the storage: `through`, `back`, `local` or `read-only`.
const WRITE_MODE: &str = "user.forebay.write-mode";
/// `yes` when the storage has all of the file, `waiting` when it will have it, `never` when it is
/// scratch.
const PERSISTED: &str = "user.forebay.persisted";
/// Why something last failed here.
const ERROR: &str = "user.forebay.error";

const ALL: [&str; 7] = [MOUNT, ETAG, CACHED, VERSION, WRITE_MODE, PERSISTED, ERROR];

impl Vfs {
    /// Returns the value of an extended attribute.
    ///
    /// # Errors
    /// `NotFound` when the inode has no such attribute, `Unsupported` when none of this name is kept,
    /// `Stale` when the inode is not known; else what the storage said.
    pub fn get_xattr(self: &Arc<Self>, ino: Ino, name: &[u8]) -> Reply<Vec<u8>> {
        let named = self
            .node(ino)
            .and_then(|node| Ok((node, known_name(name)?)));
        let (node, name) = match named {
            Ok(both) => both,
            Err(error) => return Reply::Ready(Err(error)),
        };
        if name.starts_with(OURS) {
            let value = match ALL.contains(&name) {
                true => self.xattr(&node, name),
                false => Ok(None),
            };
            let value = value.and_then(|value| value.ok_or_else(|| no_such(name)));
            return Reply::Ready(value.map(String::into_bytes));
        }
        let find = |all: &Xattrs, name: &str| all.get(name).cloned().ok_or_else(|| no_such(name));
        match self.user_xattrs(&node) {
            Reply::Ready(all) => Reply::Ready(all.and_then(|all| find(&all, name))),
            Reply::Pending(asked) => {
                let name = name.to_owned();
                Reply::Pending(async move { find(&*asked.await?, &name) }.boxed())
            }
        }
    }

    /// Returns the names of the extended attributes that users gave an inode, a NUL after each.
    ///
    /// # Errors
    /// `Stale` when the inode is not known; else what the storage said.
    pub fn list_xattr(self: &Arc<Self>, ino: Ino) -> Reply<Vec<u8>> {
        let asked = match self.node(ino) {
            Ok(node) => self.user_xattrs(&node),
            Err(error) => return Reply::Ready(Err(error)),
        };
        match asked {
            Reply::Ready(all) => Reply::Ready(names(all)),
            Reply::Pending(asked) => Reply::Pending(async move { names(asked.await) }.boxed()),
        }
    }

    /// Returns what users gave an inode. A mount that takes no writes shows none, since telling
    /// would take a look at each file that somebody lists.
    pub(crate) fn user_xattrs(self: &Arc<Self>, node: &Node) -> Reply<Arc<Xattrs>> {
        let none = || Reply::Ready(Ok(Arc::default()));
        let Some(mount) = node.place.mount.filter(|_| !node.place.path.is_root()) else {
            return none();
        };
        let table = self.mount_table();
        let spec = match table.live_spec(mount, ErrorKind::Stale) {
            Ok(spec) => spec,
            Err(error) => return Reply::Ready(Err(error)),
        };
        if spec.writes.is_read_only() || node.meta.kind == NodeKind::Symlink {
            return none();
        }
        if let Some(written) = node.cell.written() {
            let state = written.state();
            match state.xattrs {
                Some(xattrs) => return Reply::Ready(Ok(xattrs)),
                None if !matches!(state.expect, worker::Expect::Version(_)) => return none(),
                None => {}
            }
        }
        if let Some(extras) = &node.meta.extras {
            return Reply::Ready(Ok(Arc::clone(&extras.xattrs)));
        }
        let path = node.place.path.clone();
        Reply::Pending(self.worker.xattrs(spec.id, path, self.deadline()))
    }

    fn xattr(&self, node: &Node, name: &str) -> Result<Option<String>> {
        let is_file = node.meta.kind == NodeKind::File;
        Ok(match name {
            MOUNT => node
                .place
                .mount
                .map(|mount| self.mounts.read().spec(mount).uri.clone()),
            ETAG if is_file => node.meta.tag.etag.clone(),
            VERSION if is_file => Some(self.object(node)?.id.to_string()),
            CACHED if is_file => {
                let object = self.object(node)?;
                let whole = object.size() == 0 || self.worker.local_file(&object).is_some();
                Some(if whole { "whole" } else { "no" }.to_string())
            }
            WRITE_MODE => node
                .place
                .mount
                .map(|_| self.mode_of(node).name().to_owned()),
            PERSISTED if is_file => Some(self.persisted(node).to_owned()),
            ERROR => self.errors.get(node.ino),
            _ => None,
        })
    }

    fn mode_of(&self, node: &Node) -> WriteMode {
        match self.write_mode(node) {
            Ok((_, mode)) => mode,
            Err(_) => WriteMode::ReadOnly,
        }
    }

    fn persisted(&self, node: &Node) -> &'static str {
        match node
            .cell
            .written()
            .is_some_and(|written| written.is_dirty())
        {
            false => "yes",
            true if self.mode_of(node) == WriteMode::Local => "never",
            true => "waiting",
        }
    }
}

/// Returns the name of an attribute that may be kept.
pub(crate) fn known_name(name: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(name).ok();
    text.filter(|name| name.starts_with(USER)).ok_or_else(|| {
        let message = format!("attribute '{}' is none of a user", name.escape_ascii());
        Error::new(ErrorKind::Unsupported, message)
    })
}

/// Returns whether an attribute is one of ours, which nobody sets.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with(OURS)
}

pub(crate) fn no_such(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no attribute '{name}'"))
}

fn names(all: Result<Arc<Xattrs>>) -> Result<Vec<u8>> {
    let all = match all {
        Err(error) if error.kind() == ErrorKind::Unsupported => Arc::default(),
        all => all?,
    };
    let of_users = all
        .keys()
        .filter(|name| name.starts_with(USER) && !is_ours(name));
    let named = of_users.flat_map(|name| name.bytes().chain([0]));
    Ok(named.collect())
}
