// SPDX-License-Identifier: Apache-2.0
//! Calls that the standard library does not have.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

/// Reads until the buffer is full or the file ends; returns how much that was.
///
/// # Errors
/// What the kernel said.
pub(crate) fn read_full(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64)? {
            0 => break,
            more => done += more,
        }
    }
    Ok(done)
}

/// Sets both times of a file.
///
/// # Errors
/// What the kernel said.
pub(crate) fn set_time(path: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())?)
}

/// Changes the length of a file that is not open.
///
/// # Errors
/// What the kernel said.
#[allow(unsafe_code, reason = "only the C library has this call")]
pub(crate) fn truncate(path: &Path, len: u64) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
    // SAFETY: the path is a string that lives over the call.
    match unsafe { libc::truncate(path.as_ptr(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes bytes into a shared mapping of the start of a file, and has the kernel take them back.
///
/// # Errors
/// What the kernel said.
#[allow(unsafe_code, reason = "mapping a file is what this is about")]
pub(crate) fn write_mapped(file: &File, at: usize, bytes: &[u8]) -> io::Result<()> {
    let len = at + bytes.len();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses the place, so nothing of ours is mapped over.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            protection,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is `len` bytes of a file that is not shorter, and nobody else has it.
    unsafe {
        let to = start.cast::<u8>().add(at);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        let synced = libc::msync(start, len, libc::MS_SYNC);
        let synced = (synced == 0)
            .then_some(())
            .ok_or_else(io::Error::last_os_error);
        libc::munmap(start, len);
        synced
    }
}
