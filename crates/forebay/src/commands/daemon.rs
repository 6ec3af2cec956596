// SPDX-License-Identifier: Apache-2.0
//! `forebay daemon`: the process behind `forebay mount`. Not for people.

use anyhow::Result;

use crate::launch;

/// Runs the daemon whose plan comes through standard input.
pub(crate) fn run() -> Result<()> {
    launch::as_daemon()
}
