// SPDX-License-Identifier: Apache-2.0
//! `forebay metrics`: what a daemon counts, for Prometheus.
//!
//! One daemon at a time: two in one text would give each series twice.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use gateway::Client;

use super::mounts::{block_on, daemons};
use crate::cli::{DaemonChoice, MetricsArgs};

/// Metrics are answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the metrics of one daemon.
pub(crate) fn run(args: &MetricsArgs, run_dir: Option<&Path>) -> Result<()> {
    let choice = DaemonChoice {
        mount_point: args.dir.clone(),
    };
    let found = daemons(&choice, run_dir)?;
    let [daemon] = &found[..] else {
        let points = found
            .iter()
            .map(|one| one.mount_point.display().to_string());
        let points = points.collect::<Vec<_>>().join(", ");
        bail!("several daemons run: name the mount point of one: {points}");
    };
    let text = block_on(Client::new(&daemon.socket).metrics(PATIENCE))??;
    super::answer(text)
}
