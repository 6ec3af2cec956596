// SPDX-License-Identifier: Apache-2.0
//! The product as its users meet it: the real binary, a real mount, real storages.
//!
//! Each test has a storage and a sandbox of its own. The modules follow the promises: how a tree is
//! read, what the cache spares, what changes in the storage, what faults do, what is refused, which
//! bounds hold, what POSIX asks, which programs work, how mounts come and go, and what the command line says.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod admin;
mod attributes;
mod audit;
mod cache;
mod changes;
mod checks;
mod commands;
mod containers;
mod costs;
mod crashes;
mod dashboard;
mod debug_bundle;
mod denials;
mod directories;
mod disk_faults;
mod doctor;
mod each_storage;
mod faults;
mod identities;
mod limits;
mod links;
mod load;
mod metrics;
mod modes;
mod monitoring;
mod mounts;
mod names;
mod pins;
mod posix;
mod programs;
mod reading;
mod refusals;
mod rules;
mod scrubbing;
mod service;
mod slow_storages;
mod stats;
mod storing;
mod streaming;
mod sync;
mod tools;
mod top;
mod traces;
mod two_nodes;
mod upload_faults;
mod virtual_files;
mod walks;
mod writing;
