// SPDX-License-Identifier: Apache-2.0
//! Real servers for tests and benchmarks, and a relay that makes the way to them slow or broken.
//!
//! Everything listens on loopback, on a port that was free, and ends when it is dropped. Binaries
//! are built once and kept in `~/.cache/forebay/rigs`, or where `FOREBAY_RIGS` says.

mod hdfs;
mod installed;
mod relay;
mod requests;
mod versitygw;

pub use hdfs::{Hdfs, Kdc, NameNodes};
pub use relay::Relay;
pub use versitygw::VersityGw;
