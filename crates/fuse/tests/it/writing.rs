// SPDX-License-Identifier: Apache-2.0
//! Every way to change something answers EROFS, to root too.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;

use crate::rig::Rig;

#[test]
fn every_change_is_refused_as_on_a_read_only_file_system() {
    // By the kernel, and by us where only this mount of the tree is read-only.
    for kernel_refuses in [true, false] {
        let rig = Rig::with(
            |settings| settings.read_only = kernel_refuses,
            |dir| {
                std::fs::create_dir(dir.join("dir")).unwrap();
                std::fs::write(dir.join("file"), b"content").unwrap();
            },
        );
        refuses_every_change(&rig);
    }
}

fn refuses_every_change(rig: &Rig) {
    let (file, new) = (rig.path("file"), rig.path("new"));
    let open = |options: &mut std::fs::OpenOptions| options.open(&file).map(drop);
    let path = |path: &std::path::Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH;
    let xattr = rustix::fs::setxattr(&file, "user.x", b"1", rustix::fs::XattrFlags::empty());
    let attempts: [(&str, io::Result<()>); 17] = [
        ("open for writing", open(File::options().write(true))),
        (
            "open for both",
            open(File::options().read(true).write(true)),
        ),
        ("open for appending", open(File::options().append(true))),
        (
            "truncate at open",
            open(File::options().write(true).truncate(true)),
        ),
        ("create", File::create(&new).map(drop)),
        ("mkdir", std::fs::create_dir(&new)),
        ("unlink", std::fs::remove_file(&file)),
        ("rmdir", std::fs::remove_dir(rig.path("dir"))),
        ("rename", std::fs::rename(&file, &new)),
        ("symlink", std::os::unix::fs::symlink("file", &new)),
        ("link", std::fs::hard_link(&file, &new)),
        ("mkfifo", mkfifo(&path(&new))),
        (
            "chmod",
            rustix::fs::chmod(&file, rustix::fs::Mode::RUSR).map_err(io::Error::from),
        ),
        ("chown", std::os::unix::fs::chown(&file, Some(1), Some(1))),
        ("utimens", rig.open("file").set_modified(time)),
        ("setxattr", xattr.map_err(io::Error::from)),
        (
            "removexattr",
            rustix::fs::removexattr(&file, "user.x").map_err(io::Error::from),
        ),
    ];
    for (what, result) in attempts {
        let error = result.expect_err(what);
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{what}: {error}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
    assert_eq!(
        std::fs::read_dir(rig.root()).unwrap().count(),
        2,
        "nothing was made"
    );
}

fn mkfifo(path: &CString) -> io::Result<()> {
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path.as_c_str(),
        rustix::fs::FileType::Fifo,
        mode,
        0,
    )
    .map_err(io::Error::from)
}
