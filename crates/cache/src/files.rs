// SPDX-License-Identifier: Apache-2.0
//! The cache files: `data/xx/<32 hex>`, one sparse file per object version.
//!
//! Thin over system calls. Names come from ids only, so that nothing outside the directory can be
//! named. Also here: the [`Stamp`] that tells whether somebody touched a file, and which errors
//! mean that the disk is gone.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;
use types::{ByteRange, VersionId};

/// What `fstat` said of a file, folded: inode, size, mtime and ctime. Any change makes another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(pub(crate) u64);

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Stamp {
        let fields = [
            stat.st_ino,
            stat.st_size.cast_unsigned(),
            stat.st_mtime.cast_unsigned(),
            stat.st_mtime_nsec,
            stat.st_ctime.cast_unsigned(),
            stat.st_ctime_nsec,
        ];
        // Multiply and shift, as in the finaliser of SplitMix64: every bit of every field counts.
        Stamp(
            fields
                .iter()
                .fold(0x9e37_79b9_7f4a_7c15, |hash: u64, field| {
                    let mixed = (hash ^ field).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                    (mixed ^ (mixed >> 31)).wrapping_add(0x9e37_79b9_7f4a_7c15)
                }),
        )
    }
}

/// The directory `data`.
#[derive(Debug)]
pub(crate) struct Files {
    data: OwnedFd,
}

impl Files {
    /// Opens the directory `data` below `dir`, making it.
    pub(crate) fn open(dir: &Path) -> io::Result<Files> {
        let path = dir.join("data");
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let data = rustix::fs::open(&path, flags, Mode::empty())?;
        spread(&data);
        Ok(Files { data })
    }

    pub(crate) fn open_read(&self, id: VersionId) -> io::Result<File> {
        self.open_file(id, OFlags::RDONLY)
    }

    pub(crate) fn open_write(&self, id: VersionId) -> io::Result<File> {
        self.open_file(id, OFlags::RDWR)
    }

    /// Returns what `stat` says of a file by its name.
    pub(crate) fn stat(&self, id: VersionId) -> io::Result<Stat> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        plain(rustix::fs::statat(&self.data, name(id), flags)?)
    }

    /// Returns when a file was made, or last written where the file system does not keep that.
    pub(crate) fn made(&self, id: VersionId) -> io::Result<SystemTime> {
        let wanted = StatxFlags::BTIME | StatxFlags::MTIME;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statx(&self.data, name(id), flags, wanted)?;
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let time = match has_birth {
            true => stat.stx_btime,
            false => stat.stx_mtime,
        };
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Ok(SystemTime::UNIX_EPOCH + Duration::new(seconds, time.tv_nsec.min(999_999_999)))
    }

    /// Makes an empty file, in place of one that the index does not know.
    pub(crate) fn create(&self, id: VersionId) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        match self.open_file(id, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory(id)?;
                self.open_file(id, flags)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(id)?;
                self.open_file(id, flags)
            }
            other => other,
        }
    }

    /// Has `mover` put a file in the place of an object; it is told the directory and the name.
    pub(crate) fn move_in<T>(
        &self,
        id: VersionId,
        mover: impl FnOnce(&OwnedFd, &str) -> T,
    ) -> io::Result<T> {
        self.make_directory(id)?;
        Ok(mover(&self.data, &name(id)))
    }

    /// Moves the file of an object under another id.
    pub(crate) fn relabel(&self, from: VersionId, to: VersionId) -> io::Result<()> {
        self.make_directory(to)?;
        Ok(rustix::fs::renameat(
            &self.data,
            name(from),
            &self.data,
            name(to),
        )?)
    }

    /// Makes the directory that the file of an object lies in.
    fn make_directory(&self, id: VersionId) -> io::Result<()> {
        let prefix = format!("{:02x}", prefix(id));
        match rustix::fs::mkdirat(&self.data, &prefix, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file; one that is not there is removed already.
    pub(crate) fn remove(&self, id: VersionId) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.data, name(id), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the ids of the files whose first byte is `prefix`, and removes what has no such name.
    pub(crate) fn list(&self, prefix: u8) -> io::Result<Vec<VersionId>> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = format!("{prefix:02x}");
        let dir = match rustix::fs::openat(&self.data, &dir, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut ids = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match parse_name(name.to_bytes()).filter(|id| self::prefix(*id) == prefix) {
                Some(id) => ids.push(id),
                // A directory is nothing of ours and stays.
                None => rustix::fs::unlinkat(&dir, name, AtFlags::empty()).unwrap_or(()),
            }
        }
        Ok(ids)
    }

    /// Returns the bytes free for us on the file system, and its size.
    pub(crate) fn free(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&self.data)?;
        Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
    }

    /// Writes everything of the file system to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.data)?)
    }

    fn open_file(&self, id: VersionId, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(File::from(rustix::fs::openat(
            &self.data,
            name(id),
            flags,
            mode,
        )?))
    }
}

/// Has directories that are made below this one lie apart on the disk, where the file system has a
/// way to say so.
///
/// ext4 puts a directory beside its parent, and files beside their directory. It does not give the
/// place of a file that was removed within the last minutes to a new one, but looks at each of them
/// (`recently_deleted` of its `ialloc.c`): in one group, a thousand evicted files cost every new one
/// some tenths of a millisecond. Directories marked as the top of a hierarchy have groups of their own.
fn spread(data: &OwnedFd) {
    let marked = rustix::fs::ioctl_getflags(data)
        .and_then(|flags| rustix::fs::ioctl_setflags(data, flags | IFlags::TOPDIR));
    if let Err(error) = marked {
        tracing::debug!("cache files may lie together on this file system: {error}");
    }
}

/// Returns the first byte of an id: the name of its directory and the number of its shard.
pub(crate) fn prefix(id: VersionId) -> u8 {
    id.0.to_be_bytes()[0]
}

fn name(id: VersionId) -> String {
    format!("{:02x}/{id}", prefix(id))
}

fn parse_name(name: &[u8]) -> Option<VersionId> {
    let name = std::str::from_utf8(name)
        .ok()
        .filter(|name| name.len() == 32)?;
    let id = VersionId(u128::from_str_radix(name, 16).ok()?);
    (id.to_string() == name).then_some(id)
}

/// Returns what `fstat` says; a thing that is not a plain file is an error.
pub(crate) fn stat(file: &File) -> io::Result<Stat> {
    plain(rustix::fs::fstat(file)?)
}

fn plain(stat: Stat) -> io::Result<Stat> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Appends `len` bytes from `offset` to `buf`. When the file is shorter, `buf` is as it was and the
/// answer false.
pub(crate) fn read_at(file: &File, offset: u64, len: usize, buf: &mut Vec<u8>) -> io::Result<bool> {
    let start = buf.len();
    buf.reserve(len);
    let mut done = 0;
    while done < len {
        let rest = &mut buf.spare_capacity_mut()[done..len];
        match rustix::io::pread(file, rest, offset + done as u64) {
            Ok(([], _)) => return Ok(false),
            Ok((read, _)) => done += read.len(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    #[allow(
        unsafe_code,
        reason = "zeroing the buffer first would cost a fifth of a hit"
    )]
    // SAFETY: `len` bytes of the spare capacity were initialised by the reads above.
    unsafe {
        buf.set_len(start + len);
    }
    Ok(true)
}

/// Fails if the disk could not take bytes that were written to the file since it was opened: the
/// system forgets them then, and reads give what the disk has. Waits for what the disk is taking of
/// this range at the moment, and starts nothing. Told once.
pub(crate) fn written_back(file: &File, range: ByteRange) -> io::Result<()> {
    let (Ok(offset), Ok(len)) = (range.offset.try_into(), range.len.try_into()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE;
    #[allow(unsafe_code, reason = "only the C library has this call")]
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is handed over.
    let code = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) };
    match code {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns whether an error means that the disk or the directory is gone, so that the next
/// operation would fail as well. A missing file, a full disk, and want of memory or descriptors
/// pass.
pub(crate) fn is_disk_fault(error: &io::Error) -> bool {
    let passing = [
        Errno::NOENT,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::FBIG,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::INTR,
        Errno::AGAIN,
        Errno::LOOP,
        Errno::ISDIR,
        Errno::EXIST,
    ];
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| !passing.contains(&errno))
}

/// Returns whether an error means that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_we_give_are_ours() {
        let id = VersionId(0xab << 120 | 5);
        assert_eq!(name(id), format!("ab/{id}"));
        assert_eq!(parse_name(id.to_string().as_bytes()), Some(id));
        for other in [
            "",
            "ab",
            "..",
            "+b000000000000000000000000000005",
            &"A".repeat(32),
        ] {
            assert_eq!(parse_name(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn full_and_missing_pass_but_a_broken_disk_does_not() {
        let fault = |errno: Errno| is_disk_fault(&errno.into());
        assert!(fault(Errno::IO) && fault(Errno::ROFS) && fault(Errno::STALE));
        assert!(!fault(Errno::NOENT) && !fault(Errno::NOSPC) && !fault(Errno::MFILE));
        assert!(is_full(&Errno::NOSPC.into()) && !is_full(&Errno::IO.into()));
    }
}
