// SPDX-License-Identifier: Apache-2.0
//! The namespace over a real worker, a real cache and local directories as storages.

#![allow(clippy::unwrap_used, reason = "all of this is test code, helpers too")]

mod faults;
mod mounting;
mod reading;
mod remounting;
mod rig;
mod tree;
