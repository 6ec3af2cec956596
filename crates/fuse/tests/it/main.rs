// SPDX-License-Identifier: Apache-2.0
//! The kernel door on real mounts: a local directory as the storage, and all rooms behind it.
//!
//! These need root and `/dev/fuse`, and fail without: the facts that they check are the kernel's.

mod lifecycle;
mod passthrough;
mod reading;
mod rig;
mod writing;
