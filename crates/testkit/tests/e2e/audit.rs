// SPDX-License-Identifier: Apache-2.0
//! Accesses that are denied are in the log: who, what, where and why, and a loop is no flood.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;

/// A user that this machine does not know.
const USER: &str = "4242";

/// Runs a program as another user; it must fail.
#[track_caller]
fn refused(words: &[&OsStr]) {
    let mut command = Command::new("setpriv");
    let ids = [format!("--reuid={USER}"), format!("--regid={USER}")];
    let ran = command.args(ids).arg("--clear-groups").args(words).output();
    let ran = ran.unwrap();
    assert!(!ran.status.success(), "{words:?}: {ran:?}");
}

fn lines(sandbox: &Sandbox, word: &str) -> Vec<String> {
    let log = fs::read_to_string(sandbox.log()).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.contains("denied: ") && line.contains(word));
    lines.map(str::to_owned).collect()
}

/// Mounts for all users, who may change what they like as far as the kernel is asked.
fn mount<'a>(sandbox: &'a Sandbox, storage: &Storage, switches: &[&str]) -> Mount<'a> {
    let mounting = sandbox.mount(storage).switch("--allow-other");
    let mounting = mounting
        .flag("--dir-mode", "777")
        .flag("--file-mode", "666");
    let mounting = switches
        .iter()
        .fold(mounting, |mounting, name| mounting.switch(name));
    // Temporary directories are for their owner alone.
    let mut mode = Command::new("chmod");
    assert!(
        mode.arg("711")
            .arg(sandbox.dir())
            .status()
            .unwrap()
            .success()
    );
    mounting.start()
}

#[test]
fn what_a_storage_denies_is_told_with_who_asked_and_a_loop_is_one_line_and_a_count() {
    let storage = Storage::s3();
    storage.put("there", 1, 1000);
    storage.let_everybody_read_and_list();
    let sandbox = Sandbox::new(&Storage::local());
    let mount = mount(&sandbox, &storage, &["--anonymous"]);
    let script = "for i in $(seq 50); do mkdir \"$0/new\"; done; exec mkdir \"$0/other\"";
    let point = mount.point().as_os_str();
    refused(&["sh".as_ref(), "-c".as_ref(), script.as_ref(), point]);

    let told = lines(&sandbox, "'/new'");
    let log = || fs::read_to_string(sandbox.log()).unwrap();
    assert_eq!(told.len(), 1, "{}", log());
    let line = &told[0];
    for word in [
        "uid 4242, pid ",
        " (mkdir): mkdir of '/new': EACCES: ",
        "AccessDenied",
    ] {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert_eq!(lines(&sandbox, "'/other'").len(), 1, "another path");
    assert_eq!(mount.status().number("/kernel/denied"), 51);
    let words = ["metrics".as_ref(), mount.point().as_os_str()];
    let metrics = sandbox.run(&words).success();
    assert!(
        metrics.contains("forebay_kernel_denied_total 51"),
        "{metrics}"
    );
    mount.unmount();
    let told = lines(&sandbox, "more times");
    assert_eq!(told.len(), 1, "{told:?}");
    let count = "uid 4242: mkdir of '/new': 49 more times within 60s";
    assert!(told[0].ends_with(count), "{told:?}");
}

#[test]
fn what_is_never_kept_and_what_takes_no_writes_is_told_and_what_the_kernel_refuses_is_not() {
    let storage = Storage::s3();
    storage.put("there", 1, 1000);
    storage.put("old/x", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let state = sandbox.dir().join("state");
    let sandbox = sandbox.with_variable("FOREBAY_STATE_DIR", state.to_str().unwrap());
    let mount = mount(&sandbox, &storage, &[]);
    let uri = format!("{}/old", storage.uri().trim_end_matches('/'));
    let words = [
        "mounts",
        "add",
        "/frozen",
        &uri,
        "--read-only",
        "--dir-mode",
        "777",
    ];
    let flags = storage.flags();
    let words: Vec<_> = words
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .collect();
    sandbox.run(&words).success();

    let (there, link) = (mount.path("there"), mount.path("link"));
    refused(&["ln".as_ref(), there.as_os_str(), link.as_os_str()]);
    let told = lines(&sandbox, "'/link'");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("(ln): link of '/link': EPERM: no storage keeps hard links"),
        "{told:?}"
    );

    let frozen = mount.path("frozen/new");
    refused(&["mkdir".as_ref(), frozen.as_os_str()]);
    let told = lines(&sandbox, "'/frozen/new'");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(": mkdir of '/frozen/new': EROFS: "),
        "{told:?}"
    );

    // By owner and mode the kernel refuses without asking.
    let before = lines(&sandbox, "").len();
    refused(&["chmod".as_ref(), "600".as_ref(), there.as_os_str()]);
    assert_eq!(lines(&sandbox, "").len(), before);
    mount.unmount();
}
