// SPDX-License-Identifier: Apache-2.0
//! The page store and its index map, from outside.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test panics where it fails"
)]

mod basic;
mod capacity;
mod crash;
mod damage;
mod kv;
mod model;
mod open;
mod pins;
mod rules;
mod scrub;
mod staged;
mod staged_boots;
mod staged_cache;
mod staged_crash;
mod staged_model;
mod staged_support;
mod support;
mod threads;
