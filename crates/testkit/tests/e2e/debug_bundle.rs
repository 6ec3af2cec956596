// SPDX-License-Identifier: Apache-2.0
//! `forebay debug bundle`: it holds what helps, and no secret of any kind.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use testkit::sandbox::Sandbox;
use testkit::storage::Storage;

/// Returns the members of a bundle.
fn unpacked(bundle: &Path, into: &Path) -> BTreeMap<String, String> {
    fs::create_dir(into).unwrap();
    let mut command = Command::new("tar");
    let ended = command.arg("-xzf").arg(bundle).arg("-C").arg(into).status();
    assert!(ended.unwrap().success());
    let mut members = BTreeMap::new();
    let mut dirs = vec![into.join("forebay-debug")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(into.join("forebay-debug")).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            members.insert(name.to_str().unwrap().to_owned(), text);
        }
    }
    members
}

/// Secrets that a configuration, a variable, a file or a log can hold, and how a log has them.
const PLANTED: [(&str, &str); 10] = [
    (
        "s3cr3t-of-a-variable",
        "the storage said s3cr3t-of-a-variable",
    ),
    ("s3cr3t-of-a-file", "denied: s3cr3t-of-a-file"),
    (
        "user-in-a-uri:and-password",
        "open http://user-in-a-uri:and-password@host/x",
    ),
    (
        "0badc0ffee00",
        "GET https://b.host/k?X-Amz-Signature=0badc0ffee00 failed",
    ),
    (
        "c2lnbmF0dXJl",
        "GET https://a.host/c/k?sv=1&sig=c2lnbmF0dXJl failed",
    ),
    (
        "YWNjb3VudA",
        "connection_string=AccountName=x;AccountKey=YWNjb3VudA",
    ),
    ("bearer0123456", "Authorization: Bearer bearer0123456"),
    ("AKIAQQQQQQQQQQQQQQQQ", "signed by AKIAQQQQQQQQQQQQQQQQ"),
    ("hf_qwertyuiop1234", "hub: hf_qwertyuiop1234"),
    (
        "MIIEvQIBADANBg",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----",
    ),
];

/// Writes the secrets into the log of a daemon.
fn plant(sandbox: &Sandbox) {
    let mut log = fs::File::options()
        .append(true)
        .open(sandbox.log())
        .unwrap();
    for (_, line) in PLANTED {
        writeln!(log, "{line}").unwrap();
    }
}

#[track_caller]
fn holds_what_helps(members: &BTreeMap<String, String>) {
    for name in [
        "README.txt",
        "versions.txt",
        "doctor.txt",
        "config.toml",
        "kernel/version.txt",
        "daemon-1/status.json",
        "daemon-1/mounts.json",
        "daemon-1/metrics.txt",
        "daemon-1/cgroup.txt",
        "daemon-1/log.txt",
        "daemon-1/doctor.txt",
    ] {
        let member = members
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", members.keys()));
        assert!(!member.is_empty(), "{name} is empty");
    }
    assert!(members["daemon-1/metrics.txt"].contains("forebay_cache_used_bytes"));
    assert!(
        members["daemon-1/doctor.txt"].contains("pass"),
        "{}",
        members["daemon-1/doctor.txt"]
    );
    assert!(
        members["config.toml"].contains("env:PLANTED_TOKEN"),
        "{}",
        members["config.toml"]
    );
    assert!(members["daemon-1/log.txt"].contains("GET https://b.host/k?[redacted]"));
}

#[test]
fn a_bundle_holds_what_helps_and_none_of_the_secrets_that_were_planted() {
    let storage = Storage::s3();
    storage.put("train/1", 1, 100_000);
    let sandbox = Sandbox::new(&storage)
        .with_variable("PLANTED_TOKEN", "s3cr3t-of-a-variable")
        .with_variable("FOREBAY_OPTION_TOKEN", "t0ken-of-an-option");
    let secret = sandbox.dir().join("secret");
    fs::write(&secret, "aws_session_token = s3cr3t-of-a-file\n").unwrap();
    let config = sandbox.dir().join("forebay.toml");
    let text = "[[mount]]\nat = '/'\nuri = 's3://b/'\nsecret_access_key = 'written-0ut-by-mistake'\n\
                [mount.credentials]\npassword = 'env:PLANTED_TOKEN'\n";
    fs::write(&config, text).unwrap();
    let mount = sandbox.mount(&storage).start();
    mount.read("train/1");
    plant(&sandbox);
    let bundle = sandbox.dir().join("bundle.tar.gz");
    let mut command = sandbox.command();
    command
        .env("PLANTED_CREDENTIALS", &secret)
        .args(["debug", "bundle", "--output"])
        .arg(&bundle)
        .arg("--config")
        .arg(&config);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(
        bundle.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let members = unpacked(&bundle, &sandbox.dir().join("unpacked"));

    holds_what_helps(&members);
    let mut secrets: Vec<String> = PLANTED
        .iter()
        .map(|(secret, _)| (*secret).to_owned())
        .collect();
    secrets.extend([
        "written-0ut-by-mistake".to_owned(),
        "t0ken-of-an-option".to_owned(),
    ]);
    let own = storage.environment().into_iter();
    secrets.extend(
        own.filter(|(name, _)| name.contains("KEY"))
            .map(|(_, value)| value),
    );
    assert!(secrets.len() >= 14, "{}", secrets.len());
    for (name, text) in &members {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{secret} in {name}");
        }
    }
    mount.unmount();
}

#[test]
fn what_is_shown_before_is_what_would_be_packed_and_nothing_is_written_over() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    plant(&sandbox);
    let bundle = sandbox.dir().join("bundle.tar.gz");
    fs::write(&bundle, "mine").unwrap();
    let said = sandbox.run(&["debug", "bundle", "--list"]).success();
    assert!(
        said.contains("daemon-1/status.json") && said.contains("--show"),
        "{said}"
    );
    let said = sandbox
        .run(&["debug", "bundle", "--show", "daemon-1/log.txt"])
        .success();
    assert!(
        said.contains("[redacted]") && !said.contains("0badc0ffee00"),
        "{said}"
    );
    let refused = sandbox.run(&[
        "debug".as_ref(),
        "bundle".as_ref(),
        "--output".as_ref(),
        bundle.as_os_str(),
    ]);
    assert!(refused.refusal().contains("there already"));
    assert_eq!(fs::read_to_string(&bundle).unwrap(), "mine");
    let refused = sandbox
        .run(&["debug", "bundle", "--show", "nothing"])
        .refusal();
    assert!(refused.contains("--list"), "{refused}");
    mount.unmount();
    // Without a daemon there is still this machine.
    let said = sandbox.run(&["debug", "bundle", "--list"]).success();
    assert!(
        said.contains("doctor.txt") && !said.contains("daemon-1"),
        "{said}"
    );
}
