// SPDX-License-Identifier: Apache-2.0
//! `forebay du`: how much there is at a path, and how much of it is cached.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use gateway::{Client, wire};
use types::ByteSize;

use super::mounts::block_on;
use crate::cli::DuArgs;
use crate::places;
use crate::records;
use crate::usage;

/// A tree of millions of files takes minutes to list.
const DU_MAX: Duration = Duration::from_secs(3600);

/// Measures paths.
pub(crate) fn run(args: &DuArgs, run_dir: Option<&Path>) -> Result<()> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let mut usages = Vec::new();
    for asked in &args.paths {
        let (daemon, path) = super::sync::choose(live.clone(), asked)?;
        let client = Client::new(&daemon.socket);
        let names = false;
        let measure = wire::Measure { path, names };
        let usage = block_on(client.usage(&measure, DU_MAX))?;
        usages.push((asked, usage.map_err(usage::if_invalid)?));
    }
    if args.json {
        let usages: Vec<_> = usages.into_iter().map(|(_, usage)| usage).collect();
        let text = serde_json::to_string_pretty(&usages).context("write JSON")?;
        return super::answer(text + "\n");
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["PATH", "FILES", "SIZE", "CACHED", "SHARE", "PINNED"]);
    for (path, usage) in &usages {
        table.add_row([
            path.display().to_string(),
            usage.files.to_string(),
            ByteSize(usage.bytes).to_string(),
            ByteSize(usage.cached_bytes).to_string(),
            share(usage),
            ByteSize(usage.pinned_bytes).to_string(),
        ]);
    }
    super::answer(format_args!("{table}\n"))
}

/// Shows the cached share, and 100 % only where all of it is.
fn share(usage: &wire::Usage) -> String {
    let cached = u128::from(usage.cached_bytes) * 100;
    match cached.checked_div(u128::from(usage.bytes)) {
        Some(percent) => format!("{percent} %"),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down_and_nothing_has_none() {
        let usage = |cached_bytes, bytes| wire::Usage {
            bytes,
            cached_bytes,
            ..wire::Usage::default()
        };
        assert_eq!(share(&usage(999, 1000)), "99 %");
        assert_eq!(share(&usage(7, 7)), "100 %");
        assert_eq!(share(&usage(0, 0)), "-");
    }
}
