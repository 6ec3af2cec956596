// SPDX-License-Identifier: Apache-2.0
//! `forebay metrics`: what a daemon counts, for Prometheus.
//!
//! One daemon at a time: two in one text would give each series twice.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use gateway::Client;

use super::mounts::block_on;
use super::waiting::one_daemon;
use crate::cli::MetricsArgs;

/// Metrics are answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the metrics of one daemon.
pub(crate) fn run(args: &MetricsArgs, run_dir: Option<&Path>) -> Result<()> {
    let daemon = one_daemon(args.dir.as_deref(), run_dir)?;
    let text = block_on(Client::new(&daemon.socket).metrics(PATIENCE))??;
    super::answer(text)
}
