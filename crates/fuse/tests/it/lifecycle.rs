// SPDX-License-Identifier: Apache-2.0
//! Mounting, unmounting, and what is left behind: nothing.

use fuse::{check_mount_point, clean_dead_mount, unmount};
use types::{ByteSize, ErrorKind};

use crate::rig::{Rig, wait_for};

fn some_file() -> Rig {
    Rig::new(|dir| std::fs::write(dir.join("file"), b"content").unwrap())
}

/// The line of `/proc/mounts` for a mount point.
fn line_of(mount_point: &std::path::Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/mounts").unwrap();
    let at = format!(" {} ", mount_point.display());
    table
        .lines()
        .find(|line| line.contains(&at))
        .map(str::to_owned)
}

#[test]
fn a_mount_is_shown_with_its_source_its_type_and_safe_options() {
    let rig = some_file();
    let line = line_of(&rig.root()).unwrap();
    let mut fields = line.split(' ');
    assert_eq!(fields.next(), Some("file:///source,with_a_comma"));
    assert_eq!(fields.nth(1), Some("fuse.forebay"));
    let options: Vec<&str> = fields.next().unwrap().split(',').collect();
    for option in ["ro", "nosuid", "nodev", "default_permissions"] {
        assert!(
            options.contains(&option),
            "{option} is missing in {options:?}"
        );
    }
    assert!(
        !options.contains(&"allow_other"),
        "others see it only when asked for"
    );
}

#[test]
fn the_kernel_reads_ahead_as_far_as_it_was_told() {
    let rig = some_file();
    assert_eq!(rig.session.stats().read_ahead, Some(ByteSize(1 << 20)));
}

#[test]
fn unmounting_ends_the_session_and_leaves_nothing() {
    let rig = some_file();
    let root = rig.root();
    assert_eq!(std::fs::read(root.join("file")).unwrap(), b"content");
    rig.session.unmount(false).unwrap();
    rig.session.wait().unwrap();
    assert!(rig.session.has_ended());
    assert_eq!(line_of(&root), None);
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
    rig.session.unmount(false).expect("once more does no harm");
    check_mount_point(&root).expect("it can be mounted on again");
}

#[test]
fn a_mount_in_use_is_not_unmounted_but_by_force() {
    let rig = some_file();
    let file = rig.open("file");
    let error = rig.session.unmount(false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    let me = format!("(pid {})", std::process::id());
    assert!(error.to_string().contains(&me), "it says who: {error}");
    assert_eq!(
        std::fs::read(rig.path("file")).unwrap(),
        b"content",
        "it is still served"
    );
    rig.session.unmount(true).unwrap();
    rig.session.wait().unwrap();
    assert_eq!(line_of(&rig.root()), None);
    assert!(
        std::fs::read(rig.path("file")).is_err(),
        "the tree is bare again"
    );
    drop(file);
}

#[test]
fn somebody_elses_unmount_ends_the_session() {
    let rig = some_file();
    assert!(!rig.session.has_ended());
    unmount(&rig.root(), false).unwrap();
    rig.session.wait().unwrap();
    assert_eq!(
        unmount(&rig.root(), false).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn a_dropped_session_takes_its_mount_with_it() {
    let rig = some_file();
    let root = rig.root();
    let file = rig.open("file");
    let dir = rig.into_dir();
    assert_eq!(line_of(&root), None);
    drop((file, dir));
}

#[test]
fn a_taken_mount_point_names_what_is_there() {
    let rig = some_file();
    let error = check_mount_point(&rig.root()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let text = error.to_string();
    assert!(
        text.contains("file:///source,with_a_comma") && text.contains("in use"),
        "{text}"
    );
    assert!(
        !clean_dead_mount(&rig.root()).unwrap(),
        "a living mount is left alone"
    );
    assert_eq!(std::fs::read(rig.path("file")).unwrap(), b"content");
}

#[test]
fn a_dead_mount_is_told_from_a_living_one_and_cleaned() {
    let rig = some_file();
    let root = rig.root();
    // An aborted connection is what the kernel makes of a daemon that died.
    rig.abort();
    wait_for("the session ends", || rig.session.has_ended());
    assert_eq!(
        std::fs::metadata(&root).unwrap_err().raw_os_error(),
        Some(libc::ENOTCONN)
    );
    let error = check_mount_point(&root).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the daemon of this mount has died"),
        "{error}"
    );
    assert!(clean_dead_mount(&root).unwrap());
    assert_eq!(line_of(&root), None);
    check_mount_point(&root).unwrap();
}

#[test]
fn requests_and_open_files_are_counted() {
    let rig = some_file();
    let file = rig.open("file");
    let stats = rig.session.stats();
    let count = |name| {
        stats
            .requests
            .iter()
            .find(|(kind, _)| *kind == name)
            .unwrap()
            .1
    };
    assert_eq!(count("open"), 1);
    assert_eq!(count("release"), 0);
    assert!(count("lookup") >= 1);
    assert_eq!(stats.open_passthrough + stats.open_cached, 1);
    assert!(
        stats.errors.is_empty() && stats.recent_errors.is_empty(),
        "{:?}",
        stats.errors
    );
    drop(file);
    rig.wait_until_closed();
}
