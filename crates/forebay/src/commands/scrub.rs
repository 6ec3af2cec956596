// SPDX-License-Identifier: Apache-2.0
//! `forebay scrub`: have a daemon compare all that it cached with its checksums.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gateway::{Client, wire};
use types::ByteSize;

use super::mounts::block_on;
use super::waiting::{one_daemon, while_waiting};
use crate::cli::ScrubArgs;
use crate::usage;
use crate::values::show_elapsed;

/// A cache of terabytes at 100 MB/s takes hours.
const SCRUB_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Scrubs; fails when something was bad.
pub(crate) fn run(args: &ScrubArgs, run_dir: Option<&Path>) -> Result<()> {
    let daemon = one_daemon(args.dir.as_deref(), run_dir)?;
    let client = Client::new(&daemon.socket);
    let request = wire::Scrub {
        bandwidth_bytes: Some(args.bandwidth.0),
    };
    let scrubbed = block_on(while_waiting(
        client.scrub(&request, SCRUB_MAX),
        (&client, args.json),
        |status| status.scrub.as_ref().map(progress),
    ))?;
    let scrubbed = scrubbed.map_err(usage::if_invalid)?;
    if args.json {
        let text = serde_json::to_string_pretty(&scrubbed).context("write JSON")?;
        super::answer(text + "\n")?;
    } else {
        super::tell(format_args!(
            "{}: {} of {} files compared with their checksums in {}\n",
            daemon.mount_point.display(),
            ByteSize(scrubbed.bytes),
            scrubbed.objects,
            show_elapsed(scrubbed.elapsed_seconds),
        ));
    }
    match scrubbed.bad_objects + scrubbed.lost_objects {
        0 => Ok(()),
        bad => bail!(
            "{bad} files were bad: {} pages failed their checksum and {} files were lost; they are \
             dropped from the cache and fetched again when they are read. Look at the disk below the \
             cache directory",
            scrubbed.bad_pages,
            scrubbed.lost_objects
        ),
    }
}

fn progress(scrub: &wire::Scrubbed) -> String {
    let percent = (100 * scrub.pages).checked_div(scrub.cached_pages);
    let bad = match scrub.bad_pages {
        0 => String::new(),
        bad => format!(", {bad} pages bad"),
    };
    format!(
        "{} compared, {} %{bad}",
        ByteSize(scrub.bytes),
        percent.unwrap_or(100).min(100)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_the_share_and_what_was_bad() {
        let scrub = wire::Scrubbed {
            pages: 5,
            cached_pages: 10,
            bytes: 1 << 20,
            bad_pages: 2,
            ..wire::Scrubbed::default()
        };
        assert_eq!(progress(&scrub), "1 MiB compared, 50 %, 2 pages bad");
    }
}
