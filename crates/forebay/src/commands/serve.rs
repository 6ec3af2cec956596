// SPDX-License-Identifier: Apache-2.0
//! `forebay serve`: several mounts in one tree, from a configuration file, in the foreground.
//!
//! Made for a service manager or a container, which keep the process and its output.

use std::path::Path;

use anyhow::Result;

use crate::cli::ServeArgs;
use crate::commands::mount::describe;
use crate::config;
use crate::launch;
use crate::places;
use crate::plan::Plan;

/// Serves until the mount is gone or a signal comes.
pub(crate) fn run(args: &ServeArgs, run_dir: Option<&Path>) -> Result<()> {
    let file = config::load(&args.config)?;
    let mount_point = places::mount_point(&file.mount_point)?;
    let plan = Plan::of_node(mount_point, file.mounts, &args.node, file.node, run_dir)?;
    launch::in_foreground(&plan, |ready| super::tell(describe(ready)))
}
