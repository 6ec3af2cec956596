// SPDX-License-Identifier: Apache-2.0
//! The namespace over a real worker, a real cache and local directories as storages.

mod faults;
mod mounting;
mod reading;
mod rig;
mod tree;
