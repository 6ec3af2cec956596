// SPDX-License-Identifier: Apache-2.0
//! The kernel door on real mounts: a local directory as the storage, and all rooms behind it.
//!
//! These need root and `/dev/fuse`, and fail without: the facts that they check are the kernel's.

#![allow(clippy::unwrap_used, reason = "all of this is test code, helpers too")]

mod kept;
mod lifecycle;
mod passthrough;
mod people;
mod reading;
mod rig;
mod trouble;
mod writing;
