// SPDX-License-Identifier: Apache-2.0
//! `forebay free`: drop what is cached of a path.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway::{Client, wire};
use types::ByteSize;

use super::mounts::block_on;
use crate::cli::FreeArgs;
use crate::places;
use crate::records;
use crate::usage;

/// A tree of millions of files takes minutes to list and to drop.
const FREE_MAX: Duration = Duration::from_secs(3600);

/// Frees a path.
pub(crate) fn run(args: &FreeArgs, run_dir: Option<&Path>) -> Result<()> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let (daemon, path) = super::sync::choose(live, &args.path)?;
    let client = Client::new(&daemon.socket);
    let freed = block_on(client.free(&wire::OfPath { path }, FREE_MAX))?;
    let freed = freed.map_err(usage::if_invalid)?;
    if args.json {
        let text = serde_json::to_string_pretty(&freed).context("write JSON")?;
        return super::answer(text + "\n");
    }
    super::tell(format_args!(
        "{}: dropped {} of {} files from the cache\n",
        args.path.display(),
        ByteSize(freed.bytes),
        freed.files
    ));
    if freed.pinned_bytes > 0 {
        super::tell(format_args!(
            "  note: {} are pinned and stay; 'forebay status' shows what is pinned, 'forebay unpin' \
             lets it go\n",
            ByteSize(freed.pinned_bytes)
        ));
    }
    Ok(())
}
