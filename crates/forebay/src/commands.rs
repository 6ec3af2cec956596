// SPDX-License-Identifier: Apache-2.0
//! The verbs of the command line, one file each.

pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod mount;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod umount;
