// SPDX-License-Identifier: Apache-2.0
//! The POSIX suites of others: pjdfstest, fsx and the file-system class of stress-ng.
//!
//! What does not apply is named with its reason in `posix/*.toml`. A case that fails and is not
//! named there fails the test, and so does one that is named and passes, unless it is said that it may:
//! the lists stay true. Each test says what it ran, and fails when that is nothing.
#![allow(
    clippy::print_stdout,
    reason = "what a suite ran is a part of its result"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use testkit::rigs::suites;
use testkit::sandbox::{Mounting, Sandbox};
use testkit::storage::Storage;

/// A file beside this one.
fn list(name: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/posix");
    tests.join(name)
}

/// A sandbox that other users may pass through, as the suites play several.
fn open_sandbox(storage: &Storage) -> Sandbox {
    let sandbox = Sandbox::new(storage);
    fs::set_permissions(sandbox.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    sandbox
}

fn mounting<'a>(sandbox: &'a Sandbox, storage: &Storage, mode: &str) -> Mounting<'a> {
    let mounting = sandbox.mount(storage).flag("--write-mode", mode);
    mounting.switch("--allow-other")
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The part of pjdfstest's configuration that is ours.
#[derive(Deserialize)]
struct Inapplicable {
    inapplicable: Vec<Rule>,
}

/// Cases that do not apply to some kinds of storages.
#[derive(Deserialize)]
struct Rule {
    reason: String,
    storages: Vec<String>,
    /// Whether they pass depends on what the kernel still knows of the name at that moment.
    #[serde(default)]
    may_pass: bool,
    /// Names of cases; one that begins with `*` is the end of names.
    cases: Vec<String>,
}

impl Rule {
    fn names(&self, case: &str) -> bool {
        let is_it = |name: &String| match name.strip_prefix('*') {
            Some(end) => case.ends_with(end),
            None => name == case,
        };
        self.cases.iter().any(is_it)
    }
}

/// Returns the cases that a run of pjdfstest tells with one of its words.
fn cases<'a>(report: &'a str, word: &str) -> BTreeSet<&'a str> {
    let case = |line: &'a str| {
        let (name, told) = line.split_once(char::is_whitespace)?;
        (name.contains("::") && told.trim() == word).then_some(name)
    };
    report.lines().filter_map(case).collect()
}

/// Checks one run; `kind` is that of the storage in the configuration.
#[track_caller]
fn pjdfstest(storage: &Storage, kind: &str, passing_min: usize) {
    let sandbox = open_sandbox(storage);
    let mount = mounting(&sandbox, storage, "through").start();
    let output = Command::new(suites::pjdfstest().unwrap())
        .arg("-c")
        .arg(list("pjdfstest.toml"))
        .arg("-p")
        .arg(mount.point())
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let report = text(&output);
    let rules = fs::read_to_string(list("pjdfstest.toml")).unwrap();
    let rules: Inapplicable = toml::from_str(&rules).unwrap();
    let mut rules = rules.inapplicable;
    rules.retain(|rule| rule.storages.iter().any(|known| known == kind));
    let (passed, failed) = (cases(&report, "ok"), cases(&report, "FAILED"));
    let mut faults = Vec::new();
    for case in &failed {
        if !rules.iter().any(|rule| rule.names(case)) {
            let why = report.split(case).nth(1).unwrap_or_default();
            let why: Vec<_> = why.lines().skip(1).take(3).collect();
            faults.push(format!("{case} failed: {}", why.join("\n")));
        }
    }
    let mut passes_named: Vec<_> = passed.iter().copied().collect();
    passes_named.retain(|case| {
        let is_named = |rule: &Rule| !rule.may_pass && rule.cases.iter().any(|name| name == case);
        rules.iter().any(is_named)
    });
    faults.extend(
        passes_named
            .iter()
            .map(|case| format!("{case} passes and is listed")),
    );
    println!("pjdfstest on {kind}: {} passed", passed.len());
    for rule in &rules {
        let named = failed.iter().filter(|case| rule.names(case)).count();
        println!("  {named} do not apply: {}", rule.reason);
    }
    assert!(
        faults.is_empty(),
        "{}\nthe daemon says:\n{}",
        faults.join("\n"),
        complaints(&sandbox)
    );
    assert!(passed.len() >= passing_min, "it did not run: {report}");
    mount.unmount();
}

/// Returns what the daemon warned of.
fn complaints(sandbox: &Sandbox) -> String {
    let log = fs::read_to_string(sandbox.log()).unwrap();
    let is_one = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    log.lines().filter(is_one).collect::<Vec<_>>().join("\n")
}

#[test]
fn pjdfstest_passes_on_s3() {
    pjdfstest(&Storage::s3(), "s3", PASSING_S3);
}

#[test]
fn pjdfstest_passes_on_a_local_directory() {
    pjdfstest(&Storage::local(), "local", PASSING_LOCAL);
}

/// Cases that pass today: fewer mean that some did not run.
const PASSING_S3: usize = 198;
const PASSING_LOCAL: usize = 198;

/// Operations of one run of fsx in the gate; `FOREBAY_FSX_OPERATIONS` asks for more.
const FSX_OPERATIONS: u32 = 1000;

/// Runs fsx and compares the file that it leaves with what the storage has.
#[track_caller]
fn fsx(mode: &str, config: &str, seeds: &[u32]) {
    let operations = std::env::var("FOREBAY_FSX_OPERATIONS");
    let operations = operations.map_or(FSX_OPERATIONS, |text| text.parse().unwrap());
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = mounting(&sandbox, &storage, mode).start();
        for seed in seeds {
            let name = format!("fsx-{seed}");
            let output = Command::new(suites::fsx().unwrap())
                .args(["-N", &operations.to_string(), "-S", &seed.to_string()])
                .arg("-f")
                .arg(list(config))
                .arg("-P")
                .arg(sandbox.dir())
                .arg(mount.path(&name))
                .output()
                .unwrap();
            let report = text(&output);
            assert!(output.status.success(), "{mode} {config} {seed}: {report}");
            assert!(report.contains("All operations completed"), "{report}");
        }
        mount.unmount();
    }
    let total = operations as usize * seeds.len() * 2;
    println!("fsx {config} {mode}: {total} operations");
}

#[test]
fn fsx_finds_every_byte_in_through() {
    fsx("through", "fsx.toml", &[1, 2]);
    fsx("through", "fsx-mmap.toml", &[3, 4]);
}

#[test]
fn fsx_finds_every_byte_in_back() {
    fsx("back", "fsx.toml", &[5, 6]);
    fsx("back", "fsx-mmap.toml", &[7, 8]);
}

/// The stressors that apply, each for a number of its own operations. Of the rest of the class,
/// some have nothing to do with the file system that they are given (such as `eventfd`, `procfs`),
/// some ask for what FUSE has not (`fiemap`, `handle`, `verity`), for hard or symbolic links, or for
/// attributes and flags that are not kept (`chattr`, `inode-flags`, `link`, `symlink`, `xattr`); and
/// some take as long whatever they are asked for (`chdir`, `fpunch`, `inotify`, `sync-file`).
const STRESSORS: [(&str, u32); 23] = [
    ("access", 20),
    ("chmod", 5),
    ("chown", 20),
    ("copy-file", 5),
    ("dentry", 20),
    ("dir", 20),
    ("dirdeep", 20),
    ("dirmany", 20),
    ("dup", 50),
    ("fallocate", 3),
    ("fcntl", 50),
    ("flock", 50),
    ("fsize", 5),
    ("fstat", 50),
    ("getdent", 20),
    ("hdd", 30),
    ("io", 20),
    ("locka", 50),
    ("lockf", 50),
    ("lockofd", 50),
    ("open", 50),
    ("rename", 20),
    ("utime", 20),
];

#[test]
fn the_file_system_class_of_stress_ng_verifies() {
    for storage in Storage::each() {
        let sandbox = open_sandbox(&storage);
        let mount = mounting(&sandbox, &storage, "through").start();
        for (name, operations) in STRESSORS {
            let output = Command::new("stress-ng")
                .args([
                    "--verify",
                    "--metrics-brief",
                    "--timeout",
                    "20",
                    "--temp-path",
                ])
                .arg(mount.point())
                .args([format!("--{name}"), "1".into()])
                .args([format!("--{name}-ops"), operations.to_string()])
                .output()
                .unwrap();
            let report = text(&output);
            let counts = |line: &str| {
                let mut words = line.split_whitespace().skip_while(|word| *word != name);
                words.nth(1).and_then(|count| count.parse::<u64>().ok())
            };
            let count = report.lines().find_map(counts);
            println!("stress-ng {name}: {count:?}");
            assert!(output.status.success(), "{name}: {report}");
            assert!(count.is_some_and(|count| count > 0), "{name}: {report}");
        }
        mount.unmount();
    }
}
