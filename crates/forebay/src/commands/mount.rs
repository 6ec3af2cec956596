// SPDX-License-Identifier: Apache-2.0
//! `forebay mount`: one storage at one directory, by a daemon of its own.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use types::ByteSize;

use crate::cli::MountArgs;
use crate::daemon::Ready;
use crate::launch;
use crate::plan::Plan;

/// Mounts, and returns when the mount answers; in the foreground, when it is gone.
pub(crate) fn run(args: &MountArgs, run_dir: Option<&Path>) -> Result<()> {
    let plan = Plan::of_mount(args, run_dir)?;
    if args.foreground {
        return launch::in_foreground(&plan, |ready| super::tell(describe(ready)));
    }
    super::tell(describe(&launch::in_background(&plan)?));
    Ok(())
}

/// Tells what is mounted where, and what to do next.
pub(crate) fn describe(ready: &Ready) -> String {
    let mut text = String::new();
    let dir = ready.mount_point.display();
    let mut line = |words: std::fmt::Arguments<'_>| {
        writeln!(text, "{words}").expect("a String takes all that is written to it");
    };
    for notice in &ready.notices {
        line(format_args!("{dir}: {notice}"));
    }
    for mount in &ready.mounts {
        let (uri, at) = (&mount.uri, &mount.at);
        let mode = super::write_modes(&mount.write_mode, &mount.write_modes);
        match at.as_str() {
            "" => line(format_args!("{uri} is mounted at {dir} ({mode})")),
            at => line(format_args!("{uri} is mounted at {dir}/{at} ({mode})")),
        }
    }
    let (cache, size) = (ready.cache_dir.display(), ByteSize(ready.cache_bytes));
    line(format_args!("  cache    {cache}, up to {size}"));
    if let Some(log) = &ready.log {
        line(format_args!("  log      {}", log.display()));
    }
    line(format_args!("  watch    forebay status {dir}"));
    line(format_args!("  unmount  forebay umount {dir}"));
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::daemon::ToldMount;

    fn told(at: &str, uri: &str, write_mode: &str) -> ToldMount {
        ToldMount {
            at: at.into(),
            uri: uri.into(),
            write_mode: write_mode.into(),
            write_modes: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_mounted_and_what_to_do_next_is_told() {
        let text = describe(&Ready {
            pid: 1,
            mount_point: "/mnt/data".into(),
            mounts: vec![
                told("", "s3://b/", "through"),
                told("x", "s3://c/", "read-only"),
            ],
            cache_dir: "/c".into(),
            cache_bytes: 100 << 30,
            log: Some("/l.log".into()),
            notices: vec!["took away a dead mount".into()],
        });
        let expected = "/mnt/data: took away a dead mount\n\
                        s3://b/ is mounted at /mnt/data (read-write, through)\n\
                        s3://c/ is mounted at /mnt/data/x (read-only)\n  \
                        cache    /c, up to 100 GiB\n  \
                        log      /l.log\n  \
                        watch    forebay status /mnt/data\n  \
                        unmount  forebay umount /mnt/data\n";
        assert_eq!(text, expected);
    }
}
