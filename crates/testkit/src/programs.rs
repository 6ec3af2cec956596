// SPDX-License-Identifier: Apache-2.0
//! Programs that keep their files on a mount, and what the storage has of them.
//!
//! A program writes into a folder (`make`) and checks what is in it (`check`). It is run on the
//! mount; then the storage's own client makes a copy of all that the storage has: for a bucket that is
//! boto3, for a directory `cp`. The copy must be the same, byte by byte, and the program must find
//! it right. All of it on each kind of storage, in `through` and in `back`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::Sandbox;
use crate::storage::{BUCKET, Storage};
use crate::trees;

/// Returns a folder of `tests` of the repository.
///
/// # Panics
/// When this crate lies elsewhere.
pub fn folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("a crate lies in a folder of the repository")
        .join("tests")
        .join(name)
}

/// Returns the interpreter of a virtual environment that `scripts/setup` made.
///
/// # Panics
/// When it did not.
pub fn environment(name: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let python = cache.join("forebay").join(name).join("bin/python");
    let is_there = python.try_exists().is_ok_and(|exists| exists);
    assert!(is_there, "run scripts/setup first: no {}", python.display());
    python
}

/// Returns a command that runs one of `tests/programs`.
///
/// # Panics
/// As [`environment`].
pub fn program(name: &str) -> Command {
    let python = environment("programs");
    let mut command = match name.ends_with(".py") {
        true => Command::new(&python),
        false => Command::new("bash"),
    };
    command.arg(folder("programs").join(name));
    command.env("PYTHON", python);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Returns a command that runs one of `tests/programs` with another interpreter.
pub fn program_with(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(folder("programs").join(name));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs a command.
///
/// # Panics
/// When it fails; with what it said.
#[track_caller]
pub fn succeed(command: &mut Command) {
    let output = command.output().expect("the command starts");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let status = output.status;
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
}

/// Has a program keep its files on each kind of storage, in each mode that stores what is written.
/// `program` starts it; what it writes, where, and a place for what else it needs are to follow.
///
/// # Panics
/// When the program fails, or the storage has something else than the mount shows.
#[track_caller]
pub fn keeps_its_files(program: impl Fn() -> Command) {
    for storage in Storage::each() {
        for mode in ["through", "back"] {
            on_a_mount(&storage, mode, &program);
        }
    }
}

#[track_caller]
fn on_a_mount(storage: &Storage, mode: &str, program: impl Fn() -> Command) {
    let sandbox = Sandbox::new(storage);
    let mount = sandbox.mount(storage).flag("--write-mode", mode).start();
    let [scratch, copy] = ["scratch", "copy"].map(|name| sandbox.dir().join(name));
    fs::create_dir(&scratch).expect("a directory");
    let at = mount.path(mode);
    fs::create_dir(&at).expect("a directory of the mount");
    let run = |verb: &str, folder: &Path| {
        succeed(program().arg(verb).arg(folder).arg(&scratch));
    };
    run("make", &at);
    run("check", &at);
    let wait = [
        "sync".as_ref(),
        mount.point().as_os_str(),
        "--wait".as_ref(),
    ];
    sandbox.run(&wait).success();
    copy_by_its_client(storage, &copy);
    let [shown, stored] =
        [mount.point(), &copy].map(|root| trees::read(root).expect("a tree that can be read"));
    let differences = trees::differences(&stored, &shown);
    assert!(
        differences.is_empty(),
        "{mode} on {}: the storage differs from the mount: {}",
        storage.uri(),
        differences.join("\n")
    );
    run("check", &copy.join(mode));
    mount.unmount();
    sandbox.assert_nothing_left();
}

/// Copies all that a storage has, with a client that is not ours.
#[track_caller]
fn copy_by_its_client(storage: &Storage, to: &Path) {
    fs::create_dir(to).expect("a directory");
    if storage.uri().starts_with("s3:") {
        let server = storage.server();
        let mut copy = program("bucket.py");
        copy.args([&server.endpoint, &server.region, BUCKET]);
        succeed(copy.arg(to).envs(storage.environment()));
    } else {
        let mut copy = Command::new("cp");
        succeed(copy.arg("-a").arg(storage.root().join(".")).arg(to));
    }
}
