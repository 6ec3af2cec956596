// SPDX-License-Identifier: Apache-2.0
//! The unified namespace: mounts, inodes, handles, attributes, listings and readahead.
//!
//! A door (FUSE, a gateway) calls [`Vfs`] with inode numbers and handle ids and gets a [`Reply`]:
//! what is known is answered at once on the caller's thread, and only what needs the storage comes
//! back as a future. Bytes and metadata come from `worker`, never from a cache or a storage
//! directly. Nothing here spawns a task, waits on a lock across I/O, or knows a kernel or wire type.
//!
//! Reading order: [`mounts`] (what hangs where; [`remount`] changes it, and [`sync`] looks at it anew; [`subtrees`] of it are loaded and freed), [`namespace`] (inode numbers and reference
//! counts), [`lookup`], [`open`], [`read`] with [`readahead`], [`dir`], [`virtual_files`] with [`access_log`], and [`write`] with [`written`] and [`bindings`].

mod access_log;
mod attributes;
mod bindings;
mod dir;
mod errors;
mod handles;
mod ino;
mod lookup;
mod mounts;
mod namespace;
mod open;
mod promises;
mod read;
mod readahead;
mod remount;
mod reply;
mod stats;
mod subtrees;
mod surplus;
mod sync;
mod unopened;
mod vfs;
mod virtual_files;
mod write;
mod written;
mod xattr;

pub use access_log::{AccessLog, Accessed};
pub use attributes::{AttributeDefaults, Attributes};
pub use dir::DirEntry;
pub use handles::HandleId;
pub use ino::Ino;
pub use lookup::Entry;
pub use mounts::MountSpec;
pub use open::Opened;
pub use remount::Outdated;
pub use reply::{ReadReply, Reply};
pub use stats::{FsStats, NEW_NAME_MAX, Stats};
pub use subtrees::SubtreeAt;
pub use sync::{SyncDone, SyncedPlace};
pub use vfs::{INODES_MAX_DEFAULT, Settings, Vfs};
pub use virtual_files::{StatusText, is_virtual};
pub use worker::LocalFile;
pub use write::{Change, Creator, Waiting, WriteMode, WriteModes, XattrChange};
