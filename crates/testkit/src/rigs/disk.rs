// SPDX-License-Identifier: Apache-2.0
//! A real file system whose disk fails: ext4 in an image, mounted through a loop device.
//!
//! What is cut off the image cannot be read any more: the kernel answers EIO, as it does for a bad
//! sector. Needs root, a loop device, and `mkfs.ext4` of Debian's `e2fsprogs`. Mounted read-only, so
//! that nothing but reads can meet the failure.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct FailingDisk {
    /// Where it is mounted.
    pub mounted_at: PathBuf,
    image: PathBuf,
    whole: PathBuf,
}

impl FailingDisk {
    /// Makes an image of so many bytes below `dir` with what is in `files`, and mounts it.
    ///
    /// # Errors
    /// When a program is missing, the image is too small, or it cannot be mounted.
    pub fn mount(dir: &Path, files: &Path, bytes: u64) -> Result<Self> {
        let disk = FailingDisk {
            mounted_at: dir.join("mounted"),
            image: dir.join("image"),
            whole: dir.join("whole image"),
        };
        File::create(&disk.image)?.set_len(bytes)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-d"])
            .args([files, &disk.image]))?;
        fs::copy(&disk.image, &disk.whole)?;
        fs::create_dir(&disk.mounted_at)?;
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop,ro"])
            .args([&disk.image, &disk.mounted_at]))?;
        Ok(disk)
    }

    /// Loses what is behind the first so many bytes.
    ///
    /// # Errors
    /// When the image cannot be cut.
    pub fn keep_only(&self, bytes: u64) -> Result<()> {
        let image = File::options().write(true).open(&self.image)?;
        image.set_len(bytes).context("cut the image")
    }

    /// Works again as at the start.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn heal(&self) -> Result<()> {
        fs::copy(&self.whole, &self.image).context("mend the image")?;
        Ok(())
    }

    /// Makes the kernel forget the bytes of a file, so that the next read asks the disk.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn forget(&self, path: &str) -> Result<()> {
        let file = File::open(self.mounted_at.join(path))?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        // A drop has nobody to tell; the loop device goes with the mount.
        let _unmounted = run(Command::new("umount").arg(&self.mounted_at));
    }
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}: {said}",
        output.status
    );
    Ok(())
}
