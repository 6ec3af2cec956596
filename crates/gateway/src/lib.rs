// SPDX-License-Identifier: Apache-2.0
//! The gateway: how an operator talks to a running daemon.
//!
//! HTTP and JSON over a Unix socket that only its owner (and root) may use. The daemon hands in
//! what it can answer as a [`Node`]; this crate owns the words on the wire, the table of HTTP
//! statuses and the client that the command line uses. It knows no pages, storages or mounts. Only the
//! [`metrics`] are served over TCP too, where somebody asks for that.

pub mod admin;
pub mod client;
pub mod dashboard;
pub mod errors;
pub mod health;
pub mod history;
pub mod metrics;
pub mod openapi;
pub mod tls;
pub mod token;
pub mod wire;

pub use admin::{Node, NodeFuture, serve, serve_metrics};
pub use client::Client;
