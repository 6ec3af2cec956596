// SPDX-License-Identifier: Apache-2.0
//! `forebay metrics`: what a daemon counts, for Prometheus.
//!
//! One daemon at a time: two in one text would give each series twice.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::mounts::block_on;
use super::waiting::one_client;
use crate::cli::MetricsArgs;

/// Metrics are answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the metrics of one daemon.
pub(crate) fn run(args: &MetricsArgs, run_dir: Option<&Path>) -> Result<()> {
    let client = one_client(args.dir.as_deref(), &args.remote, run_dir)?;
    let text = block_on(client.metrics(PATIENCE))??;
    super::answer(text)
}
