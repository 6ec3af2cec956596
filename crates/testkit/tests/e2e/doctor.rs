// SPDX-License-Identifier: Apache-2.0
//! `forebay doctor` on machines that are broken in the ways that machines are: from what it says alone
//! one finds the cause. Each is made for real, by the kernel's own means.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqsign_core::time::Timestamp;
use serde_json::Value;
use testkit::rigs::{Scripted, SmallDisk, told};
use testkit::sandbox::{Finished, Sandbox};
use testkit::storage::{BUCKET, Storage};

/// Runs the doctor below other commands, which set the machine up.
fn doctor(sandbox: &Sandbox, before: &[&str], words: &[&str]) -> (Finished, Value) {
    let own = sandbox.command();
    let mut all: Vec<_> = before.iter().map(std::ffi::OsStr::new).collect();
    all.push(own.get_program());
    all.push("doctor".as_ref());
    all.extend(words.iter().map(std::ffi::OsStr::new));
    all.push("--json".as_ref());
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).env_clear();
    command.envs(
        own.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let finished = Finished {
        status: output.status,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    let report = serde_json::from_str(&finished.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    (finished, report)
}

/// Returns what is said of something.
#[track_caller]
fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let host = report["host"].as_array().unwrap();
    let found = host.iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("nothing on '{name}' in {report:#}"))
}

/// Checks that something is as bad as it is, and that why and what to do are said.
#[track_caller]
fn is_told(report: &Value, name: &str, verdict: &str, fix: &str) {
    let found = finding(report, name);
    assert_eq!(found["verdict"], verdict, "{found}");
    assert!(found["fix"].as_str().unwrap().contains(fix), "{found}");
    assert!(!found["why"].as_str().unwrap().is_empty(), "{found}");
}

#[track_caller]
fn fails(finished: &Finished, name: &str) {
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains(&format!("'{name}' failed")),
        "{}",
        finished.stderr
    );
}

/// Checks that nothing failed, unless the disk is slow because other tests write to it as well.
#[track_caller]
fn is_well(finished: &Finished, report: &Value) {
    let host = report["host"].as_array().unwrap();
    let mut failed = host.iter().filter(|one| one["verdict"] == "fail");
    match failed.next() {
        None => assert!(finished.status.success(), "{finished:?}"),
        Some(one) => {
            assert_eq!(one["name"], "speed of the cache disk", "{report:#}");
            fails(finished, "speed of the cache disk");
        }
    }
    assert_eq!(failed.next(), None, "{report:#}");
}

fn s3_words(storage: &Storage) -> Vec<String> {
    [vec![storage.uri()], storage.flags()].concat()
}

#[test]
fn a_machine_that_is_well_passes_and_so_does_its_mount() {
    let storage = Storage::s3();
    storage.put("d/file", 1, 300_000);
    let sandbox = Sandbox::new(&storage);
    let cache = sandbox.cache_dir();
    let words = s3_words(&storage);
    let mut words: Vec<_> = words.iter().map(String::as_str).collect();
    words.extend(["--cache-dir", cache.to_str().unwrap()]);
    let (finished, report) = doctor(&sandbox, &[], &words);
    is_well(&finished, &report);
    for name in [
        "fuse device",
        "right to mount",
        "cache directory",
        "clock",
        "name service",
    ] {
        assert_eq!(finding(&report, name)["verdict"], "pass", "{report:#}");
    }
    assert_eq!(report["steps"].as_array().unwrap().len(), 7);
    assert!(!cache.try_exists().unwrap(), "nothing is made");

    let mount = sandbox.mount(&storage).start();
    let (finished, report) = doctor(&sandbox, &[], &[mount.point().to_str().unwrap()]);
    is_well(&finished, &report);
    assert_eq!(finding(&report, "storage")["verdict"], "pass");
    let said = sandbox.run(&["doctor".as_ref(), mount.point().as_os_str()]);
    let said = said.stdout;
    assert!(said.contains("pass          daemon"), "{said}");
    mount.crash();
    let (_, report) = doctor(&sandbox, &[], &[]);
    is_told(&report, "dead mounts", "warn", "forebay umount");
}

#[test]
fn no_fuse_is_found() {
    let sandbox = Sandbox::new(&Storage::local());
    // A name space of mounts of its own, in which the device is another one.
    let hide = "mount --bind /dev/null /dev/fuse && exec \"$@\"";
    let before = ["unshare", "--mount", "sh", "-c", hide, "sh"];
    let (finished, report) = doctor(&sandbox, &before, &[]);
    fails(&finished, "fuse device");
    is_told(&report, "fuse device", "fail", "modprobe fuse");
}

#[test]
fn a_read_ahead_that_cannot_be_raised_is_found() {
    let sandbox = Sandbox::new(&Storage::local());
    let read_only = "mount --bind /sys /sys && mount -o remount,bind,ro /sys && exec \"$@\"";
    let before = ["unshare", "--mount", "sh", "-c", read_only, "sh"];
    let (_, report) = doctor(&sandbox, &before, &[]);
    is_told(&report, "read-ahead of the kernel", "warn", "root");
}

#[test]
fn no_capability_is_found() {
    let sandbox = Sandbox::new(&Storage::local());
    let before = [
        "setpriv",
        "--bounding-set=-sys_admin",
        "--inh-caps=-sys_admin",
    ];
    let (_, report) = doctor(&sandbox, &before, &[]);
    is_told(&report, "passthrough", "warn", "root");
    let found = finding(&report, "right to mount");
    assert_ne!(found["verdict"], "pass", "{found}");
    assert!(
        found["detail"]
            .as_str()
            .unwrap()
            .contains("no CAP_SYS_ADMIN"),
        "{found}"
    );
}

#[test]
fn a_full_disk_is_found() {
    let sandbox = Sandbox::new(&Storage::local());
    let disk = SmallDisk::mount(sandbox.dir(), 256 << 20).unwrap();
    let cache = disk.mounted_at.join("cache");
    let words = ["--cache-dir", cache.to_str().unwrap()];
    disk.fill().unwrap();
    let (finished, report) = doctor(&sandbox, &[], &words);
    fails(&finished, "free space for the cache");
    is_told(&report, "free space for the cache", "fail", "--cache-dir");
}

#[test]
fn a_slow_disk_is_found() {
    // A disk on the far side of a thin line: a mount whose writes go through one.
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    storage.relay().set_upload_bandwidth(Some(6_000_000));
    let cache = mount.path("cache");
    let (finished, report) = doctor(&sandbox, &[], &["--cache-dir", cache.to_str().unwrap()]);
    fails(&finished, "speed of the cache disk");
    is_told(&report, "speed of the cache disk", "fail", "faster disk");
    storage.relay().heal();
    mount.unmount();
}

#[test]
fn wrong_credentials_are_found() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage).with_variable("AWS_SECRET_ACCESS_KEY", "wrong-and-secret");
    let words = s3_words(&storage);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (finished, report) = doctor(&sandbox, &[], &words);
    fails(&finished, "reach and authenticate");
    let last = report["steps"].as_array().unwrap().last().unwrap();
    assert!(
        last["fix"].as_str().unwrap().contains("--credentials"),
        "{last}"
    );
    assert!(
        !finished.stdout.contains("wrong-and-secret"),
        "{finished:?}"
    );
}

#[test]
fn a_wrong_clock_is_found() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Scripted::start(|_, _| {
        let date = Timestamp::now() - Duration::from_secs(7200);
        let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
        told(
            "200 OK",
            &[("Date", &date.format_http_date())],
            empty.as_bytes(),
        )
    }));
    let sandbox = Sandbox::new(&Storage::s3());
    let uri = format!("s3://{BUCKET}");
    let words = [
        &uri,
        "--endpoint",
        server.endpoint(),
        "--region",
        "us-east-1",
        "--read-only",
    ];
    let (finished, report) = doctor(&sandbox, &[], &words);
    fails(&finished, "clock");
    is_told(&report, "clock", "fail", "set-ntp");
    let detail = finding(&report, "clock")["detail"].as_str().unwrap();
    assert!(detail.contains("ahead of that of the storage"), "{detail}");
}

#[test]
fn a_tiny_file_limit_is_found() {
    let sandbox = Sandbox::new(&Storage::local());
    let (finished, report) = doctor(&sandbox, &["prlimit", "--nofile=64:64"], &[]);
    fails(&finished, "open files");
    is_told(&report, "open files", "fail", "LimitNOFILE");
}

#[test]
fn a_dead_storage_is_found_before_and_after_mounting() {
    let storage = Storage::s3();
    storage.put("d/file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "2s").start();
    storage.switch_off();
    let words = s3_words(&storage);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (finished, report) = doctor(&sandbox, &[], &words);
    fails(&finished, "reach and authenticate");
    assert!(
        !report["steps"][1]["fix"].as_str().unwrap().is_empty(),
        "{report}"
    );

    fs::read_dir(mount.path("d")).unwrap_err();
    let (finished, report) = doctor(&sandbox, &[], &[mount.point().to_str().unwrap()]);
    fails(&finished, "storage");
    is_told(&report, "storage", "fail", "forebay doctor");
    storage.switch_on();
    mount.unmount();
    assert!(Path::new(&sandbox.point()).try_exists().unwrap());
}
