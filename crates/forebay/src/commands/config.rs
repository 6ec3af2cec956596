// SPDX-License-Identifier: Apache-2.0
//! `forebay config`: check a file before a daemon depends on it, or print one to begin with.

use anyhow::Result;

use crate::cli::ConfigCommand;
use crate::config;

/// Checks a file or prints the example.
pub(crate) fn run(command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Example => print!("{}", config::EXAMPLE),
        ConfigCommand::Check { file } => {
            let loaded = config::load(file)?;
            println!(
                "{}: no faults, {} mount(s)",
                file.display(),
                loaded.mounts.len()
            );
        }
    }
    Ok(())
}
