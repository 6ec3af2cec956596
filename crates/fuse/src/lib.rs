// SPDX-License-Identifier: Apache-2.0
//! The kernel door: FUSE requests in, calls of `vfs` and replies out.
//!
//! The only crate that names the FUSE library. [`mount`] hangs a [`vfs::Vfs`] on a directory and
//! answers the kernel until it is unmounted; `ops` translates one request each; `modes` decides,
//! per inode, whether the kernel reads the cache file itself (passthrough) or asks us; `errno` is
//! the one table of error numbers.
//!
//! Hits are answered on the threads that take the kernel's requests, from `/dev/fuse` or over
//! io_uring ([`Transport`]); what must wait for a storage goes to the runtime, so no thread of the
//! kernel door ever waits for a network.
//! Deliberately absent: pages, storages, policy.

mod access;
mod convert;
mod denials;
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
mod virtual_files;
mod watch;
mod writers;
mod xattrs;

pub use access::SlowRecord;
pub use errors::ErrorRecord;
pub use mount_point::{Claim, check_mount_point, claim_mount_point, clean_dead_mount};
pub use session::{Session, Settings, Transport, mount};
pub use stats::{Passthrough, Stats};
pub use unmount::unmount;
pub use watch::{Counts, Traffic};
