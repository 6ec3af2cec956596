// SPDX-License-Identifier: Apache-2.0
//! Tests of the drivers through the crate's public face: against real servers, a real directory, a
//! small hub of ours, and a server that lies.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first thing that is not as it should be"
)]

mod azure;
mod bad_way;
mod ceph;
mod clock;
mod docs;
mod faults;
mod gcs;
mod gcs_write;
mod hdfs;
mod hdfs_kerberos;
mod hdfs_write;
mod huggingface;
mod liar;
mod local;
mod local_faults;
mod minio;
mod renewals;
mod s3;
mod s3_bucket;
mod s3_faults;
mod s3_names;
mod s3_trust;
mod s3_writes;
mod web;
mod webhdfs;
mod webhdfs_faults;
mod wire;
