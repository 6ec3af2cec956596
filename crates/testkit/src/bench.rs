// SPDX-License-Identifier: Apache-2.0
//! The one benchmark driver: what the product is worth beside the local disk and a bare client.
//!
//! [`run`] carries out the plan on a storage with the latency and bandwidth of a remote one;
//! [`writes`] does so for files that are written, [`operate`] for who loads and looks.
//! [`namespace`] measures what a tree of very many files costs.
//! [`peers`] has other file systems do the reads. [`eviction`] replays traces, and measures no time.
//! [`workload`] holds the data set and the ways to read it, the same for all contestants;
//! [`http`] is the bare client; [`report`] is the result, as a table and as JSON. Every byte that is
//! read in a measurement goes into a checksum, for all contestants alike, so that a wrong answer
//! cannot be a fast one. Kernel caches are dropped before each measurement unless its name says
//! otherwise.

mod bounds;
pub mod eviction;
pub mod http;
mod multipart;
pub mod namespace;
pub mod operate;
pub mod peers;
pub mod report;
pub mod run;
pub mod workload;
pub mod writes;
