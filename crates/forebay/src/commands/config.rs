// SPDX-License-Identifier: Apache-2.0
//! `forebay config`: check a file before a daemon depends on it, or print one to begin with.
//!
//! A check also hands each URI with its options to its storage, which sends nothing yet, and looks
//! at the directories of this machine as a daemon would. All faults are reported at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use types::{Clock, ErrorKind, SystemClock};

use crate::cache_dir::check_is_directory;
use crate::cli::ConfigCommand;
use crate::config::{self, ConfigFile, Fault, Faults, alluxio};
use crate::layout::Layout;
use crate::places;
use crate::plan::MountPlan;
use crate::storage;

/// Nothing is sent, so nothing is waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Checks a file or prints the example.
pub(crate) fn run(command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::FromAlluxio {
            file,
            mounts,
            mount_point,
        } => from_alluxio(file, mounts.as_deref(), mount_point)?,
        ConfigCommand::Example => super::answer(config::EXAMPLE)?,
        ConfigCommand::Check { file } => {
            let (read, mut faults) = config::examine(file)?;
            if let Some(read) = &read {
                faults.extend(check_storages(read)?);
                faults.extend(check_places(read));
            }
            let count = read.map_or(0, |read| read.mounts.len());
            if !faults.is_empty() {
                return Err(Faults::new(file, faults).into());
            }
            let file = file.display();
            super::answer(format_args!("{file}: no faults, {count} mount(s)\n"))?;
        }
    }
    Ok(())
}

/// Writes our configuration from that of Alluxio.
fn from_alluxio(file: &Path, mounts: Option<&Path>, mount_point: &Path) -> Result<()> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("read '{}'", path.display()))
    };
    let listing = mounts.map(read).transpose()?.unwrap_or_default();
    let mount_point = std::path::absolute(mount_point).context("mount point")?;
    super::answer(alluxio::convert(&read(file)?, &listing, &mount_point)?)
}

/// Finds what is wrong with URIs and options.
fn check_storages(read: &ConfigFile) -> Result<Vec<Fault>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut faults = Vec::new();
    for (mount, line) in mounts_of(read) {
        let opened = runtime.block_on(storage::open(mount, &clock, REQUEST_TIMEOUT));
        if let Err(error) = opened {
            let message = format!("mount at '/{}': {error}", mount.at);
            faults.push(Fault { line, message });
        }
    }
    Ok(faults)
}

/// Finds what would keep a daemon from starting on this machine: its directories.
fn check_places(read: &ConfigFile) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, message: String| faults.push(Fault { line, message });
    let of_point = read.lines.mount_point;
    let given = &read.mount_point;
    let point = match given.as_os_str().is_empty() {
        true => None,
        false => places::mount_point(given)
            .map_err(|error| fault(of_point, format!("{error:#}")))
            .ok(),
    };
    let cache_dir = read.node.cache_dir.clone();
    if let Some(Err(why)) = cache_dir.as_deref().map(check_is_directory) {
        fault(read.lines.cache_dir, why);
    }
    let Some(point) = point else {
        return faults;
    };
    match fuse::check_mount_point(&point) {
        // Most likely by the very daemon whose file this is.
        Err(error) if error.kind() != ErrorKind::Busy => fault(of_point, error.to_string()),
        _ => {}
    }
    let Some(cache_dir) = cache_dir.or_else(|| places::default_cache(&point).ok()) else {
        return faults;
    };
    let layout = Layout::new(&point, &cache_dir);
    if let Err(why) = layout.check() {
        fault(read.lines.cache_dir.max(of_point), why);
    }
    for (mount, line) in mounts_of(read) {
        if let Err(why) = layout.check_source(&mount.uri) {
            fault(line, why);
        }
    }
    faults
}

/// Returns the mounts that have a URI, with their lines.
fn mounts_of(read: &ConfigFile) -> impl Iterator<Item = (&MountPlan, usize)> {
    let lines = read.lines.mounts.iter().copied();
    let mounts = read.mounts.iter().zip(lines);
    mounts.filter(|(mount, _)| !mount.uri.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Lines;
    use crate::plan::NodeDefaults;

    #[test]
    fn options_that_a_storage_does_not_know_are_faults_of_the_file() {
        let mut mount = MountPlan::with_defaults("x".into(), "s3://bucket".into());
        mount
            .options
            .insert("endpiont".into(), "http://127.0.0.1:1".into());
        let read = ConfigFile {
            mount_point: PathBuf::new(),
            mounts: vec![
                mount,
                MountPlan::with_defaults("y".into(), "ftp://host".into()),
                MountPlan::with_defaults("z".into(), String::new()),
            ],
            node: NodeDefaults::default(),
            lines: Lines {
                mounts: vec![3, 7, 9],
                ..Lines::default()
            },
        };
        let text = Faults::new(Path::new("f.toml"), check_storages(&read).unwrap()).to_string();
        for part in [
            "f.toml:3: mount at '/x'",
            "endpoint",
            "f.toml:7: mount at '/y'",
            "ftp",
            "2 fault(s)",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn all_that_would_keep_a_daemon_from_starting_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f.toml");
        let text = "mount_point = '/nowhere/at/all'\nmemory = '1MiB'\nlog_level = 'loud'\n\
                    [cache]\ndir = '/etc/passwd'\nsize = '1MiB'\n\
                    [[mount]]\nat = '/x'\nuri = 'gopher://x'\n\
                    [[mount]]\nat = '/y'\nuri = 's3://b'\noptions = { regoin = 'x' }\n";
        std::fs::write(&file, text).unwrap();
        let command = ConfigCommand::Check { file };
        let said = run(&command).unwrap_err().to_string();
        for part in [
            ":1: mount point /nowhere/at/all is missing",
            ":2: memory",
            ":3: log_level",
            ":5: cache directory '/etc/passwd' is a file",
            ":6: size: a cache of 1 MiB is too small",
            "gopher",
            "did you mean 'region'?",
            "7 fault(s)",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
