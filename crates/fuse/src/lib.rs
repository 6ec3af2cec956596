// SPDX-License-Identifier: Apache-2.0
//! The kernel door: FUSE requests in, calls of `vfs` and replies out.
//!
//! The only crate that names the FUSE library. [`mount`] hangs a [`vfs::Vfs`] on a directory and
//! answers the kernel until it is unmounted; `ops` translates one request each; `modes` decides,
//! per inode, whether the kernel reads the cache file itself (passthrough) or asks us; `errno` is
//! the one table of error numbers.
//!
//! Hits are answered on the threads that read `/dev/fuse`; what must wait for a storage goes to the
//! runtime, so no thread of the kernel door ever waits for a network.
//! Deliberately absent: pages, storages, policy, and (until writing exists) every way to write.

mod convert;
mod door;
mod errno;
mod errors;
mod killed;
mod modes;
mod mount_point;
mod mount_table;
mod mounting;
mod ops;
mod session;
mod stats;
mod unmount;
mod writers;

pub use errors::ErrorRecord;
pub use mount_point::{Claim, check_mount_point, claim_mount_point, clean_dead_mount};
pub use session::{Session, Settings, mount};
pub use stats::{Passthrough, Stats};
pub use unmount::unmount;
