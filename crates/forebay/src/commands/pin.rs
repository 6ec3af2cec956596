// SPDX-License-Identifier: Apache-2.0
//! `forebay pin` and `forebay unpin`: say what must stay in the cache.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway::{Client, wire};
use types::ByteSize;

use super::mounts::block_on;
use crate::cli::PinArgs;
use crate::places;
use crate::records;
use crate::usage;

/// A tree of millions of files takes minutes to list.
const PIN_MAX: Duration = Duration::from_secs(3600);

/// Pins a path.
pub(crate) fn pin(args: &PinArgs, run_dir: Option<&Path>) -> Result<()> {
    let (client, request) = chosen(args, run_dir)?;
    let pinned = block_on(client.pin(&request, PIN_MAX))?;
    let pinned = pinned.map_err(usage::if_invalid)?;
    if args.json {
        let text = serde_json::to_string_pretty(&pinned).context("write JSON")?;
        return super::answer(text + "\n");
    }
    super::tell(told(&args.path.display().to_string(), &pinned));
    Ok(())
}

/// Lets a path go.
pub(crate) fn unpin(args: &PinArgs, run_dir: Option<&Path>) -> Result<()> {
    let (client, request) = chosen(args, run_dir)?;
    let unpinned = block_on(client.unpin(&request, PIN_MAX))?;
    let unpinned = unpinned.map_err(usage::if_invalid)?;
    if args.json {
        let text = serde_json::to_string_pretty(&unpinned).context("write JSON")?;
        return super::answer(text + "\n");
    }
    super::tell(format_args!(
        "{}: not pinned any more; what is cached of it stays until its room is wanted\n",
        args.path.display()
    ));
    Ok(())
}

fn chosen(args: &PinArgs, run_dir: Option<&Path>) -> Result<(Client, wire::OfPath)> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let (daemon, path) = super::sync::choose(live, &args.path)?;
    Ok((Client::new(&daemon.socket), wire::OfPath { path }))
}

/// Says what is pinned, and what to do about the rest.
fn told(path: &str, pinned: &wire::Pinned) -> String {
    let (held, all) = (ByteSize(pinned.pinned_bytes), ByteSize(pinned.bytes));
    let mut text = format!("{path}: pinned; {held} of {all} are cached and stay\n");
    if pinned.refused_files > 0 {
        text.push_str(&format!(
            "  note: {} more files are cached and can be evicted: pins take no more of this cache\n",
            pinned.refused_files
        ));
    } else if pinned.pinned_bytes < pinned.bytes {
        text.push_str(&format!("  to fetch the rest, run 'forebay load {path}'\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_cached_or_does_not_fit_is_told() {
        let mut pinned = wire::Pinned {
            bytes: 3 << 20,
            pinned_bytes: 1 << 20,
            ..wire::Pinned::default()
        };
        let said = told("/m/a", &pinned);
        assert!(
            said.contains("1 MiB of 3 MiB") && said.contains("forebay load /m/a"),
            "{said}"
        );
        pinned.refused_files = 4;
        assert!(told("/m/a", &pinned).contains("4 more files"));
        pinned = wire::Pinned::default();
        assert_eq!(told("/m", &pinned).lines().count(), 1);
    }
}
