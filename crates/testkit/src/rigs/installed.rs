// SPDX-License-Identifier: Apache-2.0
//! Things that rigs install once and keep, in `~/.cache/forebay/rigs` or where `FOREBAY_RIGS` says.
//!
//! A directory belongs to one recipe. It gets its name only when it is complete, so that an
//! installation that broke off is started again, and a changed recipe is installed beside the old.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A place for what a recipe makes.
#[derive(Debug)]
pub(super) struct Installed {
    home: PathBuf,
    name: String,
}

impl Installed {
    /// Names the place. Whatever the result depends on must be in the recipe's text.
    pub(super) fn new(name: &str, recipe: &str) -> Result<Self> {
        let home = match std::env::var_os("FOREBAY_RIGS") {
            Some(dir) => PathBuf::from(dir),
            None => {
                let home = std::env::var_os("HOME").context("HOME is not set, nor FOREBAY_RIGS")?;
                PathBuf::from(home).join(".cache/forebay/rigs")
            }
        };
        // FNV-1a: the same with every compiler, which the standard library's hasher is not.
        let hash = recipe
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Ok(Installed {
            home,
            name: format!("{name}-{hash:016x}"),
        })
    }

    /// Returns the directory, made by `install` when it is not there yet.
    pub(super) fn or_install(&self, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let dir = self.home.join(&self.name);
        fs::create_dir_all(&self.home).with_context(|| format!("make {}", self.home.display()))?;
        // One of the tests that run at once installs; the others wait for it here.
        let lock = File::create(self.home.join(format!("{}.lock", self.name)))?;
        lock.lock().context("lock the rigs")?;
        if dir.try_exists()? {
            return Ok(dir);
        }
        let unfinished = dir.with_extension("unfinished");
        if unfinished.try_exists()? {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir(&unfinished)?;
        install(&unfinished).with_context(|| format!("install {}", self.name))?;
        fs::rename(&unfinished, &dir)?;
        Ok(dir)
    }
}
