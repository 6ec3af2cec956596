// SPDX-License-Identifier: Apache-2.0
//! Setting and removing extended attributes of users.
//!
//! A storage is told all attributes of a file at once. Changes of one inode come one after the
//! other, so that none is lost.

use std::sync::Arc;

use futures::FutureExt;
use types::{Error, ErrorKind, Result, Xattrs};
use worker::FileAttributes;

use crate::ino::Ino;
use crate::reply::Reply;
use crate::vfs::Vfs;
use crate::xattr::{is_ours, known_name, no_such};

/// What is to be done with an extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XattrChange {
    /// It gets this value, whether it is there or not.
    Set(Vec<u8>),
    /// It gets this value and must not be there.
    Create(Vec<u8>),
    /// It gets this value and must be there.
    Replace(Vec<u8>),
    /// It goes, and must be there.
    Remove,
}

impl XattrChange {
    fn apply(self, name: &str, all: &mut Xattrs) -> Result<()> {
        let is_there = all.contains_key(name);
        let value = match self {
            XattrChange::Create(_) if is_there => {
                let message = format!("attribute '{name}' exists");
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            XattrChange::Replace(_) | XattrChange::Remove if !is_there => {
                return Err(no_such(name));
            }
            XattrChange::Set(value) | XattrChange::Create(value) | XattrChange::Replace(value) => {
                value
            }
            XattrChange::Remove => {
                all.remove(name);
                return Ok(());
            }
        };
        all.insert(name.to_owned(), value);
        Ok(())
    }
}

impl Vfs {
    /// Changes an extended attribute of a file or a directory.
    ///
    /// # Errors
    /// `NotFound` and `AlreadyExists` as the change wants, `Unsupported` for other names than those
    /// of users and where the storage keeps none, `PermissionDenied` for those of Forebay,
    /// `OutOfSpace` when there is no room for it, `ReadOnly`; else what the storage said.
    pub fn change_xattr(self: &Arc<Self>, ino: Ino, name: &[u8], change: XattrChange) -> Reply<()> {
        let writable = self.node(ino).and_then(|node| self.write_mode(&node));
        let name = match writable.and_then(|_| own_name(name)) {
            Ok(name) => name.to_owned(),
            Err(error) => return Reply::Ready(Err(error)),
        };
        let vfs = Arc::clone(self);
        Reply::Pending(
            async move {
                let turn = vfs.xattr_turn(ino);
                let _alone = turn.lock().await;
                let changed = vfs.change_xattr_now(ino, &name, change).await;
                changed.inspect_err(|error| vfs.errors.note(ino, error))
            }
            .boxed(),
        )
    }

    async fn change_xattr_now(
        self: &Arc<Self>,
        ino: Ino,
        name: &str,
        change: XattrChange,
    ) -> Result<()> {
        let node = self.node(ino)?;
        if node.place.path.is_root() {
            let message = "the root of a storage keeps no attributes";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mut all = Xattrs::clone(&*self.user_xattrs(&node).wait().await?);
        change.apply(name, &mut all)?;
        let (mount, _) = self.write_mode(&node)?;
        let (id, needed) = (self.storage_of(mount).0, worker::xattrs_len(&all));
        let max = self.worker.abilities(id)?.xattrs_max;
        if max == 0 {
            let message = "this storage keeps no extended attributes";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        if needed > max && !all.is_empty() {
            let message = format!("attributes of {needed} bytes, and this storage keeps {max}");
            return Err(Error::new(ErrorKind::OutOfSpace, message));
        }
        self.keep_xattrs(ino, Arc::new(all)).await
    }

    async fn keep_xattrs(self: &Arc<Self>, ino: Ino, all: Arc<Xattrs>) -> Result<()> {
        let held = self.hold_written(ino);
        match held.as_ref().map(|held| &held.written) {
            // They go with the bytes.
            Some(written) if written.takes_attributes() => {
                let now_ns = self.now_ns();
                written.change(|state| {
                    state.xattrs = Some(all);
                    state.times.changed = now_ns;
                    state.changes += 1;
                });
            }
            written => {
                let attributes = FileAttributes {
                    xattrs: Some(Arc::clone(&all)),
                    ..FileAttributes::default()
                };
                let node = self.node(ino)?;
                self.tell_storage(&node, &attributes).await?;
                if let Some(written) = written {
                    written.change(|state| state.xattrs = Some(all));
                }
                node.cell.change(self.now_ns(), None);
            }
        }
        Ok(())
    }
}

/// Returns the name of an attribute that may be changed.
fn own_name(name: &[u8]) -> Result<&str> {
    let name = known_name(name)?;
    match is_ours(name) {
        true => {
            let message = format!("'{name}' is told by forebay and not set");
            Err(Error::new(ErrorKind::PermissionDenied, message))
        }
        false => Ok(name),
    }
}
