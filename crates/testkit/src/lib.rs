// SPDX-License-Identifier: Apache-2.0
//! What the tests and benchmarks stand on; never a dependency of the product.
//!
//! [`rigs`] starts real servers and makes the network between them slow or broken. [`storage`] puts
//! objects into an under storage behind the product's back, and [`stores`] into one of each kind. [`sandbox`] runs the real `forebay`
//! binary, in an environment of its own, and cleans up after it whatever happens. [`data`] makes
//! bytes that tell where they belong. [`trees`] compares whole trees. [`wait`] waits for conditions
//! instead of for time, [`programs`] has programs of others keep their files on a mount, and [`guides`]
//! does what the guides tell a user to do.

pub mod bench;
pub mod browser;
pub mod data;
pub mod guides;
pub mod programs;
pub mod pty;
pub mod rigs;
pub mod sandbox;
pub mod storage;
pub mod stores;
pub mod trees;
pub mod wait;
