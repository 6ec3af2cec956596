// SPDX-License-Identifier: Apache-2.0
//! Hanging a connection to the kernel's FUSE driver on a directory.
//!
//! Root asks the kernel; others ask `fusermount3`, which checks that the directory is theirs and
//! hands the connection over a socket. Done here and not by the FUSE library, because the library
//! unmounts by path when its session ends: a mount that somebody has made there since would go.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{getgid, getuid};
use types::Result;

use crate::mount_point::{DEVICE, refused};

/// What is asked for besides the safe defaults: no devices, no set-user-id, modes
/// checked by the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) fs_name: &'a str,
    pub(crate) allow_other: bool,
    pub(crate) read_only: bool,
}

impl Terms<'_> {
    /// Returns the options that the kernel and `fusermount3` share.
    fn options(self) -> String {
        let allow_other = if self.allow_other { ",allow_other" } else { "" };
        format!("default_permissions,subtype=forebay{allow_other}")
    }
}

/// Mounts at `mount_point` and returns the connection, on which the kernel has sent its greeting.
pub(crate) fn connect(mount_point: &Path, terms: Terms<'_>) -> Result<OwnedFd> {
    let connection = match by_kernel(mount_point, terms) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => by_fusermount(mount_point, terms),
        other => other,
    };
    connection.map_err(|e| refused(mount_point, &e))
}

fn by_kernel(mount_point: &Path, terms: Terms<'_>) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    let device = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(DEVICE)?;
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let (fd, options) = (device.as_raw_fd(), terms.options());
    let data = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid},{options}");
    let data = CString::new(data).map_err(io::Error::other)?;
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    flags.set(MountFlags::RDONLY, terms.read_only);
    rustix::mount::mount(terms.fs_name, mount_point, "fuse", flags, data.as_c_str())?;
    Ok(device.into())
}

fn by_fusermount(mount_point: &Path, terms: Terms<'_>) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    // A comma would end the option.
    let fs_name = terms.fs_name.replace(',', "_");
    let access = if terms.read_only { "ro" } else { "rw" };
    let options = format!("{access},noatime,fsname={fs_name},{}", terms.options());
    // As its standard input, so that no other process that we start meanwhile inherits the socket.
    let child = Command::new("fusermount3")
        .args(["-o", &options, "--"])
        .arg(mount_point)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let received = receive(&ours);
    // It waits for nothing more, and ends.
    let output = child.wait_with_output()?;
    match received? {
        Some(connection) if output.status.success() => Ok(connection),
        Some(_) | None => Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim(),
        )),
    }
}

/// Returns the connection that the helper sends; `None` when it ends without.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        let data = &mut [IoSliceMut::new(&mut byte)];
        match recvmsg(socket, data, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let connection = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_see_the_mount_only_when_asked_for() {
        let options = |allow_other| {
            Terms {
                fs_name: "x",
                allow_other,
                read_only: true,
            }
            .options()
        };
        assert!(!options(false).contains("allow_other"));
        assert!(options(true).contains("allow_other"));
        for allow_other in [false, true] {
            assert!(options(allow_other).contains("default_permissions"));
        }
    }

    #[test]
    fn a_helper_that_ends_without_a_word_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none());
    }
}
