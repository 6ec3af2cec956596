// SPDX-License-Identifier: Apache-2.0
//! Who may see what: other users only when asked for, and then by owner and mode.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::rig::Rig;

/// An ordinary user.
const NOBODY: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn make(dir: &Path) {
    for (name, bits) in [("public", 0o644), ("private", 0o600)] {
        std::fs::write(dir.join(name), name).unwrap();
        mode(&dir.join(name), bits);
    }
    mode(dir, 0o755);
    mode(dir.parent().unwrap(), 0o755);
}

fn cat_as_nobody(path: &Path) -> Output {
    Command::new("cat")
        .arg(path)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap()
}

#[test]
fn other_users_see_nothing_unless_asked_for() {
    let rig = Rig::new(make);
    assert_eq!(std::fs::read(rig.path("public")).unwrap(), b"public");
    let output = cat_as_nobody(&rig.path("public"));
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
}

#[test]
fn other_users_are_checked_by_owner_and_mode() {
    let rig = Rig::with(|settings| settings.allow_other = true, make);
    assert_eq!(cat_as_nobody(&rig.path("public")).stdout, b"public");
    let output = cat_as_nobody(&rig.path("private"));
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
    assert_eq!(
        std::fs::read(rig.path("private")).unwrap(),
        b"private",
        "the owner may"
    );
}
