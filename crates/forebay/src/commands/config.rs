// SPDX-License-Identifier: Apache-2.0
//! `forebay config`: check a file before a daemon depends on it, or print one to begin with.
//!
//! A check also hands each URI with its options to its storage, which sends nothing yet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use types::{Clock, SystemClock};

use crate::cli::ConfigCommand;
use crate::config::{self, Faults, alluxio};
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
            let loaded = config::load(file)?;
            check_storages(file, &loaded.mounts)?;
            super::answer(format_args!(
                "{}: no faults, {} mount(s)\n",
                file.display(),
                loaded.mounts.len()
            ))?;
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

fn check_storages(file: &Path, mounts: &[MountPlan]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut messages = Vec::new();
    for mount in mounts {
        let opened = runtime.block_on(storage::open(mount, &clock, REQUEST_TIMEOUT));
        if let Err(error) = opened {
            messages.push(format!("mount at '/{}': {error}", mount.at));
        }
    }
    match messages.is_empty() {
        true => Ok(()),
        false => Err(Faults::of_file(file, messages).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_a_storage_does_not_know_are_faults_of_the_file() {
        let mut mount = MountPlan::with_defaults("x".into(), "s3://bucket".into());
        mount
            .options
            .insert("endpiont".into(), "http://127.0.0.1:1".into());
        let mounts = [
            mount,
            MountPlan::with_defaults("y".into(), "ftp://host".into()),
        ];
        let error = check_storages(Path::new("f.toml"), &mounts).unwrap_err();
        assert!(error.is::<Faults>());
        let text = error.to_string();
        for part in [
            "mount at '/x'",
            "endpoint",
            "mount at '/y'",
            "ftp",
            "2 fault(s)",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
