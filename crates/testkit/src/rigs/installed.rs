// SPDX-License-Identifier: Apache-2.0
//! Things that rigs install once and keep, in `~/.cache/forebay/rigs` or where `FOREBAY_RIGS` says.
//!
//! A directory belongs to one recipe. It gets its name only when it is complete, so that an
//! installation that broke off is started again, and a changed recipe is installed beside the old.
//! The same holds for a Go or Rust program, `bin/NAME@VERSION`, which `scripts/setup` may have built
//! before.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A place for what a recipe makes.
#[derive(Debug)]
pub(super) struct Installed {
    home: PathBuf,
    name: String,
}

impl Installed {
    /// Names the place. Whatever the result depends on must be in the recipe's text.
    pub(super) fn new(name: &str, recipe: &str) -> Result<Self> {
        let home = home()?;
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
        let _alone = alone(&self.home, &self.name)?;
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

/// Returns a Go program, which is built when it is missing. The module ends with its version.
pub(super) fn go_program(module: &str) -> Result<PathBuf> {
    let file = module.rsplit('/').next().unwrap_or(module);
    program(file, "go", |unfinished| {
        let mut command = Command::new("go");
        command
            .args(["install", "-trimpath", "-ldflags=-s -w", module])
            .env("GOBIN", unfinished.join("bin"))
            .env("GOFLAGS", "-buildvcs=false");
        command
    })
}

/// Returns a Go program whose module lies at `source`, which is built when it is missing.
pub(super) fn go_program_of(source: &Path, file: &str) -> Result<PathBuf> {
    program(file, "go", |unfinished| {
        let mut command = Command::new("go");
        let (name, _) = file.split_once('@').unwrap_or((file, ""));
        command
            .current_dir(source)
            .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
            .arg(unfinished.join("bin").join(name))
            .env("GOFLAGS", "-buildvcs=false");
        command
    })
}

/// Returns a program of crates.io, `NAME@VERSION`, which is built when it is missing.
pub(super) fn cargo_program(krate: &str) -> Result<PathBuf> {
    program(krate, "cargo", |unfinished| {
        let mut command = Command::new("cargo");
        command
            .args(["install", "--quiet", "--locked", "--debug", krate, "--root"])
            .arg(unfinished)
            .env("CARGO_TARGET_DIR", unfinished.join("target"));
        command
    })
}

/// Returns `bin/FILE` of [`home`], which `build` puts below `bin` of the directory that it is given.
fn program(file: &str, builder: &str, build: impl FnOnce(&Path) -> Command) -> Result<PathBuf> {
    let (name, _) = file.split_once('@').context("a program and its version")?;
    let bin = home()?.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("make {}", bin.display()))?;
    let _alone = alone(&bin, file)?;
    let program = bin.join(file);
    if program.try_exists()? {
        return Ok(program);
    }
    let unfinished = bin.join(format!("{file}.unfinished"));
    let status = build(&unfinished)
        .status()
        .with_context(|| format!("run {builder}, which builds {name}; install it"))?;
    ensure!(status.success(), "{builder} did not build {file}: {status}");
    fs::rename(unfinished.join("bin").join(name), &program)?;
    fs::remove_dir_all(&unfinished)?;
    Ok(program)
}

/// Returns where everything is kept.
pub(super) fn home() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("FOREBAY_RIGS") {
        return Ok(PathBuf::from(dir));
    }
    let home = std::env::var_os("HOME").context("HOME is not set, nor FOREBAY_RIGS")?;
    Ok(PathBuf::from(home).join(".cache/forebay/rigs"))
}

/// Waits until nobody else installs `name`: of the tests that run at once one does, the others wait
/// for it here.
fn alone(dir: &Path, name: &str) -> Result<File> {
    let lock = File::create(dir.join(format!("{name}.lock")))?;
    lock.lock().context("lock the rigs")?;
    Ok(lock)
}
