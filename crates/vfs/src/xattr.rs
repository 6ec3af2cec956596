// SPDX-License-Identifier: Apache-2.0
//! Extended attributes `user.forebay.*`: what is known of a path beyond what `stat` shows.
//!
//! Read only, and made up on request; those of the storage itself are not shown.

use types::{Error, ErrorKind, NodeKind, Result};

use crate::ino::Ino;
use crate::namespace::Node;
use crate::vfs::Vfs;

/// URI of the mount.
const MOUNT: &str = "user.forebay.mount";
/// The storage's own tag of the version.
const ETAG: &str = "user.forebay.etag";
/// `whole` when the version is cached whole and verified, else `no`.
const CACHED: &str = "user.forebay.cached";
/// The key of the version's cached bytes.
const VERSION: &str = "user.forebay.version";
/// Why something last failed here.
const ERROR: &str = "user.forebay.error";

const ALL: [&str; 5] = [MOUNT, ETAG, CACHED, VERSION, ERROR];

impl Vfs {
    /// Returns the value of an extended attribute.
    ///
    /// # Errors
    /// `NotFound` when the inode has no such attribute, `Stale` when the inode is not known.
    pub fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        let value = match ALL.into_iter().find(|known| known.as_bytes() == name) {
            Some(known) => self.xattr(&node, known)?,
            None => None,
        };
        value.map(String::into_bytes).ok_or_else(|| {
            let message = format!("no attribute '{}'", name.escape_ascii());
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// Returns the names of the extended attributes that the inode has, a NUL after each.
    ///
    /// # Errors
    /// `Stale` when the inode is not known.
    pub fn list_xattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        let mut names = Vec::new();
        for name in ALL {
            // Whether a file is cached is the one costly question, and every file has the answer.
            let has = match name {
                CACHED => node.meta.kind == NodeKind::File,
                _ => self.xattr(&node, name)?.is_some(),
            };
            if has {
                names.extend_from_slice(name.as_bytes());
                names.push(0);
            }
        }
        Ok(names)
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
            ERROR => self.errors.get(node.ino),
            _ => None,
        })
    }
}
