// SPDX-License-Identifier: Apache-2.0
//! A small disk that takes writes, until it is full, breaks, or loses power: ext4 in an image in
//! memory, mounted through a loop device.
//!
//! Needs root, a loop device, and `mkfs.ext4` of Debian's `e2fsprogs`. What the disk can do wrong are
//! the kernel's own ways: blocks that it cannot write, and the shutdown of a file system.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::disk::run;

/// Asks a mounted file system to stop at once: `FS_IOC_SHUTDOWN` without writing its log.
const SHUT_DOWN: &str = "import fcntl,os,struct,sys; \
                         fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, \
                         struct.pack('I', 2))";

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    /// Where it is mounted.
    pub mounted_at: PathBuf,
    memory: PathBuf,
}

impl SmallDisk {
    /// Makes a file system of so many bytes below `dir`, and mounts it.
    ///
    /// # Errors
    /// When a program is missing, or it cannot be mounted.
    pub fn mount(dir: &Path, bytes: u64) -> Result<Self> {
        let disk = SmallDisk {
            mounted_at: dir.join("small-disk"),
            memory: dir.join("memory"),
        };
        fs::create_dir(&disk.memory)?;
        fs::create_dir(&disk.mounted_at)?;
        let size = format!("size={}", bytes + (1 << 20));
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&disk.memory))?;
        File::create(disk.image())?.set_len(bytes)?;
        // No room is kept for root, and the log is all there from the start.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-E", "lazy_journal_init=0"])
            .arg(disk.image()))?;
        disk.mount_image()?;
        Ok(disk)
    }

    /// Takes all the room that is left; the file is what to remove to give it back.
    ///
    /// # Errors
    /// When it fails in another way than by being full.
    pub fn fill(&self) -> Result<PathBuf> {
        fill(&self.mounted_at)
    }

    /// Loses, from now on, every block that was never written before. The system does not tell that
    /// before it is asked to sync.
    ///
    /// # Errors
    /// As [`SmallDisk::fill`].
    pub fn lose_new_blocks(&self) -> Result<()> {
        rustix::fs::sync();
        fill(&self.memory).map(drop)
    }

    /// Takes new blocks again.
    ///
    /// # Errors
    /// When it did not lose them.
    pub fn keep_new_blocks(&self) -> Result<()> {
        fs::remove_file(self.memory.join(FILLER)).context("give the room back")
    }

    /// Stops at once, as if the power was cut: what was not synced is lost, and everything fails.
    ///
    /// # Errors
    /// When the system refuses that.
    pub fn cut_power(&self) -> Result<()> {
        run(Command::new("python3")
            .args(["-c", SHUT_DOWN])
            .arg(&self.mounted_at))
    }

    /// Is mounted anew, after all that used it is gone.
    ///
    /// # Errors
    /// When something uses it still.
    pub fn restore_power(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.mounted_at))?;
        self.mount_image()
    }

    fn image(&self) -> PathBuf {
        self.memory.join("image")
    }

    fn mount_image(&self) -> Result<()> {
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .args([&self.image(), &self.mounted_at]))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A drop has nobody to tell. What is still in use goes when that does.
        for point in [&self.mounted_at, &self.memory] {
            let _unmounted = run(Command::new("umount").arg("--lazy").arg(point));
        }
    }
}

const FILLER: &str = "filler";

fn fill(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(FILLER);
    let mut file = File::create(&path)?;
    for len in [1 << 20, 4096] {
        let piece = vec![7; len];
        loop {
            match file.write_all(&piece) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => bail!("fill {}: {error}", dir.display()),
            }
        }
    }
    Ok(path)
}
