// SPDX-License-Identifier: Apache-2.0
//! The page store: cached bytes of object versions on a local directory, and staged files.
//!
//! Synchronous, without an async runtime; knows nothing of mounts, networks or where bytes come
//! from. [`Store`] keeps pages, [`kv::Kv`] small records. Both survive `kill -9`; neither ever gives
//! wrong bytes: what a checksum does not prove is a miss. [`staged::Staging`] keeps what is on its way
//! to the storage and is nowhere else: it is durable when a call says so, and never evicted.
//!
//! # On disk
//!
//! | file | format | version |
//! |---|---|---|
//! | `LOCK` | pid of the holder, text; locked with `flock` | none |
//! | `FORMAT` | `forebay cache 1`; another number is refused with an error | is the version of all below without their own |
//! | `CLEAN` | number of the run that stopped cleanly, text; absent while the store is open | `FORMAT` |
//! | `data/xx/<32 hex>` | pages of one object version at their own offsets, sparse; `xx` are the first two digits | `FORMAT` |
//! | `index.redb` | redb file: table `values` (key to CRC32C and value), table `meta` (`journal`: newest journal in it) | redb's own, and `FORMAT` |
//! | `index.journal-<seq>` | changes that are not in `index.redb` yet; layout in `kv/journal.rs` | last character of its magic `FBJRNL-1` |
//! | `staged/LOCK` | as `LOCK`, for the staged files | none |
//! | `staged/<16 hex>` | what was written of a staged file, at its own offset, sparse | none |
//! | `staged/notes` | what is known of staged files, and notes of others; layout in `staged/frame.rs` | last character of its magic `FBNOTE-1` |
//! | `staged/lost/` | files that no note could be found of after `staged/notes` was damaged | none |
//!
//! The records of the index are laid out in `record.rs`. A page is 128 KiB; its CRC32C is in the
//! index. All integers are little-endian but for those in keys.
//!
//! # What is believed
//!
//! A page is believed if it was checked since the last stop that was not clean, and its file has the
//! same inode, size, mtime and ctime as when that was noted. Every read compares them afterwards,
//! at the price of one `fstat`. Otherwise the checksum decides, page by page. Not noticed are writes
//! of others through a memory mapping that was dirty before, and, on kernels older than 6.13, those
//! within a clock tick (4 ms) of our own.

mod dir;
mod evict;
mod files;
mod index;
mod keepsakes;
pub mod kv;
mod pages;
mod pins;
mod record;
mod rules;
mod space;
pub mod staged;
mod store;

#[cfg(feature = "testing")]
pub use evict::EvictionModel;
pub use keepsakes::Keepsake;
pub use pins::Pin;
pub use rules::{Priority, RULES_MAX, Rule};
pub use store::{Expired, LocalFile, Scrub, ScrubCounts, Settings, Stats, Store};
