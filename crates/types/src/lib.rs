// SPDX-License-Identifier: Apache-2.0
//! The dictionary: the words that every room of Forebay shares.
//!
//! Ids, paths, byte ranges, sizes, the one [`Error`], the clock and deadlines, fault points,
//! what spans have in common.
//! Plain data and pure functions: nothing here does I/O, spawns, or knows an async runtime.

pub mod clock;
pub mod crash;
pub mod error;
pub mod idmap;
pub mod meta;
pub mod name;
pub mod range;
pub mod size;
pub mod trace;

pub use clock::{Clock, Deadline, MOVED_MIN, ManualClock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use meta::{
    Extras, Freshness, MountId, NodeKind, ObjectMeta, ObjectRef, VersionId, VersionTag, Xattrs,
};
pub use name::{Name, NameFault, ObjectPath};
pub use range::{ByteRange, PAGE_SIZE, PageRange, in_memory, page_count};
pub use size::ByteSize;
