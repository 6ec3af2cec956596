// SPDX-License-Identifier: Apache-2.0
//! Real servers for tests and benchmarks, and a relay that makes the way to them slow or broken.
//!
//! Everything listens on loopback, on a port that was free, and ends when it is dropped. Binaries
//! are built once and kept in `~/.cache/forebay/rigs`, or where `FOREBAY_RIGS` says.

mod azurite;
mod ceph;
mod collector;
mod disk;
mod faults;
mod gcs;
mod hdfs;
mod hub;
mod installed;
mod minio;
pub mod peers;
mod relay;
mod requests;
mod scripted;
mod server;
mod small_disk;
pub mod suites;
mod versitygw;
mod web;

pub use azurite::Azurite;
pub use ceph::{Ceph, CephFs};
pub use collector::{Collector, Span};
pub use disk::FailingDisk;
pub use faults::Fault;
pub use gcs::FakeGcs;
pub use hdfs::{Hdfs, Kdc, NameNodes, Tls};
pub use hub::Hub;
pub use minio::Minio;
pub use relay::Relay;
pub use scripted::{Asked, End, Scripted, Told, told};
pub use small_disk::SmallDisk;
pub use versitygw::VersityGw;
pub use web::WebServer;
