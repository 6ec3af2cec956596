// SPDX-License-Identifier: Apache-2.0
//! What is mounted where, from `/proc/self/mountinfo`.
//!
//! The kernel's own list answers without touching the mounts, so a dead or hanging one cannot hang
//! us as a `stat` of it would.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use types::{Error, Result};

/// The file system type that our mounts show.
pub(crate) const FS_TYPE: &str = "fuse.forebay";

const TABLE: &str = "/proc/self/mountinfo";

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// The number of the mount, new for each.
    pub(crate) id: u64,
    /// Major and minor device number; the minor names the FUSE connection.
    pub(crate) device: (u32, u32),
    pub(crate) mount_point: PathBuf,
    pub(crate) fs_type: String,
    pub(crate) source: String,
}

impl Mounted {
    /// Returns whether it is a mount of this product.
    pub(crate) fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// Returns what one sees at `mount_point`, an absolute path without links; `None` when it is no
/// mount point. Of several on top of one another, the last.
pub(crate) fn at(mount_point: &Path) -> Result<Option<Mounted>> {
    Ok(read()?
        .into_iter()
        .rev()
        .find(|mounted| mounted.mount_point == mount_point))
}

/// Returns all mounts that this process sees, in the order of mounting.
pub(crate) fn read() -> Result<Vec<Mounted>> {
    let table = std::fs::read(TABLE).map_err(|e| Error::io(format!("read {TABLE}"), e))?;
    Ok(table.split(|&b| b == b'\n').filter_map(parse).collect())
}

/// Reads one line; `None` for one that is not as the kernel documents it.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&b| b == b' ');
    let text = |field: Option<&[u8]>| Some(std::str::from_utf8(field?).ok()?.to_owned());
    let id = text(fields.next())?.parse().ok()?;
    let device = text(fields.nth(1))?;
    let (major, minor) = device.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let mount_point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    fields.find(|field| *field == b"-")?;
    let fs_type = text(fields.next())?;
    let source = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    Some(Mounted {
        id,
        device,
        mount_point,
        fs_type,
        source,
    })
}

/// Undoes the kernel's `\040`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            digits.iter().try_fold(0u32, |value, digit| {
                matches!(digit, b'0'..=b'7').then(|| value * 8 + u32::from(digit - b'0'))
            })
        };
        let code = (byte == b'\\')
            .then(|| tail.get(..3).and_then(octal))
            .flatten();
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(code) => {
                plain.push(code);
                rest = &tail[3..];
            }
            None => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_optional_fields_and_escapes() {
        let line = b"36 35 0:98 / /mnt/my\\040data\\134x rw,nosuid master:1 shared:2 - \
            fuse.forebay s3://bucket/a\\040b rw,user_id=0";
        let mounted = parse(line).unwrap();
        assert_eq!(mounted.id, 36);
        assert_eq!(mounted.device, (0, 98));
        assert_eq!(mounted.mount_point, Path::new("/mnt/my data\\x"));
        assert_eq!(mounted.source, "s3://bucket/a b");
        assert!(mounted.is_ours());
        let bare = parse(b"22 1 259:2 / / rw - ext4 /dev/root rw").unwrap();
        assert_eq!((bare.fs_type.as_str(), bare.is_ours()), ("ext4", false));
    }

    #[test]
    fn odd_lines_are_left_out() {
        for line in [
            &b""[..],
            b"a b c",
            b"1 2 3 / /x rw - ext4 d",
            b"1 2 0:1 / /x rw ext4 d rw",
        ] {
            assert_eq!(parse(line), None, "{}", line.escape_ascii());
        }
        assert_eq!(unescape(b"a\\04"), b"a\\04");
        assert_eq!(unescape(b"a\\777b\\"), b"a\\777b\\");
    }

    #[test]
    fn the_root_is_mounted_here() {
        assert!(at(Path::new("/")).unwrap().is_some());
        assert_eq!(at(Path::new("/no/such/mount/point")).unwrap(), None);
    }
}
