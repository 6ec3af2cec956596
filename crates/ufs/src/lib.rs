// SPDX-License-Identifier: Apache-2.0
//! Under storage: one trait, a folder per driver.
//!
//! [`UnderStorage`] is what the rest of Forebay knows of a bucket or a directory: look at a name,
//! list a directory, read a range of one version. Drivers are [`open`]ed from a URI and options.
//! This crate retries (nobody else does), checks that each answer is the answer to what was asked,
//! and counts requests. It caches nothing and knows no mount.

mod azure;
mod cephfs;
mod counters;
mod gcs;
mod hdfs;
mod http;
mod huggingface;
mod local;
mod retry;
mod s3;
mod settings;
mod storage;
mod temporary;
mod uri;
mod web;
mod webhdfs;
mod write;

#[cfg(feature = "testing")]
pub mod conformance;

pub use counters::{Counters, CountersSnapshot};
pub use settings::{SECRET_OPTIONS, Secrets, Settings};
pub use storage::{
    ByteStream, ListEntry, ListPage, ListStream, Space, TreePage, TreeStream, UnderStorage, open,
    open_with, probe,
};
pub use write::{Abilities, Expect, FileAttributes, UnderWriter, Upload, xattrs_len};
