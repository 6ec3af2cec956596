// SPDX-License-Identifier: Apache-2.0
//! Extended attributes of users, which are of a file or directory and not of a link.
//!
//! Those of the system and of the security modules are none of ours.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use types::{Result, Xattrs};

use super::draft::write_error;
use super::io_error;

/// What the names of attributes of users start with.
const PREFIX: &str = "user.";
/// The kernel's limits of a list of names, and of one value.
const BYTES_MAX: usize = 64 << 10;

/// Reads them of a file that need not be open for reading; none where the file system has none.
pub(super) fn read(file: &OwnedFd) -> Result<Xattrs> {
    let path = path_of(file);
    let mut bytes = vec![0; BYTES_MAX];
    let len = match rustix::fs::listxattr(path.as_str(), &mut bytes[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        len => len.map_err(|errno| io_error("list attributes", errno))?,
    };
    let names: Vec<_> = bytes[..len]
        .split(|&byte| byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| name.starts_with(PREFIX))
        .map(String::from)
        .collect();
    let mut xattrs = Xattrs::new();
    for name in names {
        match rustix::fs::getxattr(path.as_str(), name.as_str(), &mut bytes[..]) {
            Ok(len) => drop(xattrs.insert(name, bytes[..len].to_vec())),
            // Somebody removed it in between.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(io_error("read an attribute", errno)),
        }
    }
    Ok(xattrs)
}

/// Makes these all that a file has.
pub(super) fn write(file: &OwnedFd, xattrs: &Xattrs) -> Result<()> {
    let (path, old) = (path_of(file), read(file)?);
    // What is new first: when there is no room for it, the file is as it was.
    for (name, value) in xattrs
        .iter()
        .filter(|(name, value)| old.get(*name) != Some(value))
    {
        rustix::fs::setxattr(path.as_str(), name.as_str(), value, XattrFlags::empty())
            .map_err(|errno| write_error("set an attribute", errno))?;
    }
    for name in old.keys().filter(|name| !xattrs.contains_key(*name)) {
        match rustix::fs::removexattr(path.as_str(), name.as_str()) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) => return Err(write_error("remove an attribute", errno)),
        }
    }
    Ok(())
}

fn path_of(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}
