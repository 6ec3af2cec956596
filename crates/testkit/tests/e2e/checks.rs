// SPDX-License-Identifier: Apache-2.0
//! `forebay mounts check` against a real server of each kind: what it says of each step.

use std::io::Write;

use serde_json::Value;
use testkit::data;
use testkit::rigs::{Scripted, told};
use testkit::sandbox::Sandbox;
use testkit::storage::Storage;
use testkit::stores::Store;

const STEPS: [&str; 7] = [
    "resolve",
    "reach and authenticate",
    "list",
    "read a range",
    "throughput, 1 connection",
    "throughput, 16 connections",
    "write and delete",
];

fn sandbox_of(store: &Store) -> Sandbox {
    let mut sandbox = Sandbox::new(&Storage::local());
    for (name, value) in &store.environment {
        sandbox = sandbox.with_variable(name, value);
    }
    sandbox
}

/// Puts a file, and checks that every step passes and says what it found.
fn every_step_passes(store: &Store) {
    store.put("dir/file", &data::bytes(1, 3 << 20));
    let sandbox = sandbox_of(store);
    let mut words = vec!["mounts", "check", &store.uri, "--json"];
    words.extend(store.flags.iter().map(String::as_str));
    let text = sandbox.run(&words).success();
    let report: Value = serde_json::from_str(&text).unwrap();
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<_> = steps
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, STEPS, "{}", store.name);
    for (step, name) in steps.iter().zip(STEPS) {
        let expected = match name {
            "write and delete" if !store.is_writable() => "not_supported",
            _ => "pass",
        };
        assert_eq!(step["outcome"], expected, "{}: {step}", store.name);
        let detail = step["detail"].as_str().unwrap();
        let words = match name {
            "list" => "2 names in 2 directories",
            "read a range" => "64 KiB of 'dir/file', first byte after",
            name if name.starts_with("throughput") => "/s",
            "write and delete" if store.is_writable() => "wrote and deleted an object",
            _ => "",
        };
        assert!(
            detail.contains(words),
            "{}: {words} in {detail}",
            store.name
        );
    }
    for (_, secret) in &store.environment {
        assert!(!text.contains(secret), "{}: a secret is shown", store.name);
    }
    show(store, &report);
    sandbox.assert_nothing_left();
}

/// Prints a report as people see it: what a storage came to is part of the record of a test run.
fn show(store: &Store, report: &Value) {
    let mut text = format!("\n{}: {}\n", store.name, report["uri"].as_str().unwrap());
    for step in report["steps"].as_array().unwrap() {
        let [outcome, name, detail] =
            ["outcome", "name", "detail"].map(|field| step[field].as_str().unwrap());
        text.push_str(&format!("{outcome:<14}{name:<28}  {detail}\n"));
    }
    std::io::stdout().write_all(text.as_bytes()).unwrap();
}

/// What is wrong with a check, and what is said of it.
struct Wrong<'a> {
    uri: String,
    /// In place of flags or variables of the store that have the same name.
    flags: &'a [&'a str],
    variables: &'a [(&'static str, &'a str)],
    /// The step that fails; those before it pass.
    step: &'a str,
    /// Words of what is said of it and of what to do.
    says: [&'a str; 2],
}

/// Looks at a store in a wrong way, by either name of the command.
fn is_told_with_its_fix(store: &Store, wrong: &Wrong<'_>) {
    let mut sandbox = sandbox_of(store);
    for (name, value) in wrong.variables {
        sandbox = sandbox.with_variable(name, value);
    }
    let mut flags: Vec<&str> = store.flags.iter().map(String::as_str).collect();
    for pair in wrong.flags.chunks(2) {
        let (key, _) = pair[1].split_once('=').unwrap();
        let is_other =
            |old: &&[&str]| old[0] != format!("--{key}") && !old[1].starts_with(&format!("{key}="));
        let kept = flags.chunks(2).filter(is_other).flatten().copied();
        flags = kept.chain(pair.iter().copied()).collect();
    }
    let mounts = [&["mounts", "check", &wrong.uri][..], &flags].concat();
    let doctor = [&["doctor", &wrong.uri, "--json"][..], &flags].concat();
    for words in [&mounts, &doctor] {
        let finished = sandbox.run(words);
        let text = format!("{}{}", finished.stdout, finished.stderr);
        let shown = format!("{} {words:?}:\n{text}", store.name);
        assert_eq!(finished.status.code(), Some(1), "{shown}");
        assert!(
            text.contains(&format!("'{}' failed", wrong.step)),
            "{shown}"
        );
        for words in wrong.says {
            assert!(text.contains(words), "{words} in {shown}");
        }
        let secrets = store.environment.iter().map(|(_, secret)| secret.as_str());
        let given = wrong.variables.iter().map(|(_, value)| *value);
        for secret in secrets.chain(given) {
            assert!(!text.contains(secret), "a secret is shown in {shown}");
        }
    }
    let finished = sandbox.run(&doctor);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let steps = report["steps"].as_array().unwrap();
    let (last, before) = steps.split_last().unwrap();
    assert!(
        before.iter().all(|step| step["outcome"] == "pass"),
        "{report}"
    );
    assert_eq!(
        (&last["name"], &last["outcome"]),
        (&wrong.step.into(), &"failed".into())
    );
    assert!(!last["fix"].as_str().unwrap().is_empty(), "{report}");
}

const REACH: &str = "reach and authenticate";

/// Nobody listens, the option is misspelt: as wrong for every service.
fn what_is_wrong_with_any_service_is_told(store: &Store, endpoint: &str) {
    let nobody = format!("endpoint={}", endpoint.replace("PORT", &free_port()));
    let unreachable = Wrong {
        uri: store.uri.clone(),
        flags: &["--option", &nobody],
        variables: &[],
        step: REACH,
        says: ["no connection", "check the address (--endpoint)"],
    };
    is_told_with_its_fix(store, &unreachable);
    let misspelt = Wrong {
        flags: &["--option", "ca_bundles=/x"],
        step: "resolve",
        says: ["did you mean 'ca_bundle'?", "correct the URI or the option"],
        ..unreachable
    };
    is_told_with_its_fix(store, &misspelt);
}

/// Returns a port of this machine on which nobody listens.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// A secret that does not fit, and a bucket that there is not.
fn what_is_wrong_with_s3_is_told(store: &Store) {
    let wrong = Wrong {
        uri: store.uri.clone(),
        flags: &[],
        variables: &[("AWS_SECRET_ACCESS_KEY", "hunter2")],
        step: REACH,
        says: ["SignatureDoesNotMatch", "fix"],
    };
    is_told_with_its_fix(store, &wrong);
    let absent = Wrong {
        uri: format!("{}-absent", store.uri),
        variables: &[],
        says: ["does not exist at http://", "check the name of the bucket"],
        ..wrong
    };
    is_told_with_its_fix(store, &absent);
    what_is_wrong_with_any_service_is_told(store, "http://127.0.0.1:PORT");
}

#[test]
fn a_check_of_s3_passes_every_step_and_tells_what_is_wrong() {
    let store = Store::s3();
    every_step_passes(&store);
    what_is_wrong_with_s3_is_told(&store);
}

#[test]
fn a_check_of_minio_passes_every_step_and_tells_what_is_wrong() {
    let store = Store::minio();
    every_step_passes(&store);
    what_is_wrong_with_s3_is_told(&store);
}

#[test]
fn a_check_of_a_local_directory_passes_every_step_and_tells_what_is_wrong() {
    let store = Store::local();
    every_step_passes(&store);
    let absent = Wrong {
        uri: format!("{}/absent", store.uri),
        flags: &[],
        variables: &[],
        step: "resolve",
        says: ["absent", "check the path"],
    };
    is_told_with_its_fix(&store, &absent);
    let a_file = Wrong {
        uri: format!("{}/dir/file", store.uri),
        says: ["dir/file", "mount the directory that it is in"],
        ..absent
    };
    is_told_with_its_fix(&store, &a_file);
}

#[test]
fn a_check_of_a_web_server_passes_every_step_and_tells_what_is_wrong() {
    let store = Store::web();
    every_step_passes(&store);
    let absent = Wrong {
        uri: format!("{}absent/", store.uri),
        flags: &[],
        variables: &[],
        step: REACH,
        says: ["404", "check the name of the bucket or directory"],
    };
    is_told_with_its_fix(&store, &absent);
    let nobody = Wrong {
        uri: format!("http://127.0.0.1:{}/", free_port()),
        says: ["no connection", "check the address"],
        ..absent
    };
    is_told_with_its_fix(&store, &nobody);
    refused_credentials_are_told(&store, "ENDPOINT/dir/", &[]);
}

#[test]
fn a_check_of_azure_passes_every_step_and_tells_what_is_wrong() {
    let store = Store::azure();
    every_step_passes(&store);
    let wrong_key = Wrong {
        uri: store.uri.clone(),
        flags: &[],
        variables: &[("AZURE_STORAGE_KEY", "d3Jvbmc=")],
        step: REACH,
        says: ["check the credentials", "--credentials"],
    };
    is_told_with_its_fix(&store, &wrong_key);
    let absent = Wrong {
        uri: format!("{}-absent", store.uri),
        variables: &[],
        says: ["container 'shared-absent' does not exist", "check the name"],
        ..wrong_key
    };
    is_told_with_its_fix(&store, &absent);
    what_is_wrong_with_any_service_is_told(&store, "http://127.0.0.1:PORT/devstoreaccount1");
}

#[test]
fn a_check_of_google_cloud_storage_passes_every_step_and_tells_what_is_wrong() {
    let store = Store::google();
    every_step_passes(&store);
    let absent = Wrong {
        uri: format!("{}-absent", store.uri),
        flags: &[],
        variables: &[],
        step: REACH,
        says: ["shared-absent", "check the name of the bucket"],
    };
    is_told_with_its_fix(&store, &absent);
    what_is_wrong_with_any_service_is_told(&store, "http://127.0.0.1:PORT");
    // The emulator takes any token.
    refused_credentials_are_told(&store, "gs://bucket", &["--option", "endpoint=ENDPOINT"]);
}

/// A server that takes no token, and says which it got.
fn refused_credentials_are_told(store: &Store, uri: &str, flags: &[&str]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Scripted::start(|_, asked| {
        let words = asked.header("authorization").as_bytes();
        told("401 Unauthorized", &[], words)
    }));
    let fill = |text: &&str| text.replace("ENDPOINT", server.endpoint());
    let mut words = vec!["mounts".into(), "check".into(), fill(&uri)];
    words.extend(flags.iter().map(fill));
    words.extend(["--credentials", "token=env:RIG_TOKEN"].map(String::from));
    let sandbox = sandbox_of(store).with_variable("RIG_TOKEN", "hunter2");
    let finished = sandbox.run(&words);
    let text = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.status.code(), Some(1), "{text}");
    assert!(
        text.contains("401") && text.contains("fix: give credentials"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_check_of_ceph_passes_every_step_through_its_gateway_and_as_files_and_tells_what_is_wrong() {
    let stores = Store::ceph();
    for store in &stores {
        every_step_passes(store);
    }
    let [gateway, files] = &stores;
    what_is_wrong_with_s3_is_told(gateway);
    let absent = Wrong {
        uri: format!("{}/absent", files.uri),
        flags: &[],
        variables: &[],
        step: "resolve",
        says: ["absent", "check the path"],
    };
    is_told_with_its_fix(files, &absent);
    let elsewhere = Wrong {
        uri: files.uri.clone(),
        flags: &["--option", "mounted_at=/nowhere/at/all"],
        says: ["/nowhere/at/all", "fix"],
        ..absent
    };
    is_told_with_its_fix(files, &elsewhere);
}

#[test]
fn a_check_of_a_hub_passes_every_step_and_tells_what_is_wrong() {
    let store = Store::hub();
    every_step_passes(&store);
    let wrong_token = Wrong {
        uri: store.uri.clone(),
        flags: &[],
        variables: &[("HF_TOKEN", "hf_hunter2")],
        step: REACH,
        says: ["401", "fix"],
    };
    is_told_with_its_fix(&store, &wrong_token);
    let absent = Wrong {
        uri: format!("{}-absent", store.uri),
        variables: &[],
        says: ["name-absent", "check the name"],
        ..wrong_token
    };
    is_told_with_its_fix(&store, &absent);
    what_is_wrong_with_any_service_is_told(&store, "http://127.0.0.1:PORT");
}

#[test]
fn a_check_of_hdfs_passes_every_step_by_both_protocols_and_its_owners_are_mapped() {
    let stores = Store::hdfs();
    for store in &stores {
        every_step_passes(store);
        let absent = Wrong {
            uri: format!("{}/absent", store.uri),
            flags: &[],
            variables: &[],
            step: REACH,
            says: ["absent", "check the path, or make the directory"],
        };
        is_told_with_its_fix(store, &absent);
        let a_file = Wrong {
            uri: format!("{}/dir/file", store.uri),
            says: ["dir/file", "mount the directory that it is in"],
            ..absent
        };
        is_told_with_its_fix(store, &a_file);
        let nobody = Wrong {
            uri: format!("{}://127.0.0.1:{}/", store.name, free_port()),
            says: ["127.0.0.1", "check host and port of the name node"],
            ..a_file
        };
        is_told_with_its_fix(store, &nobody);
        is_denied_to_nobody(store);
    }
    owners_of_hdfs_are_mapped(&stores);
}

/// Who may not write is told so, by whatever protocol.
fn is_denied_to_nobody(store: &Store) {
    let sandbox = sandbox_of(store);
    store.change_mode("", "755");
    let words = [
        "mounts",
        "check",
        &store.uri,
        "--option",
        "user=somebody-else",
    ];
    let finished = sandbox.run(&words);
    let text = format!("{}{}", finished.stdout, finished.stderr);
    assert!(text.contains("'write and delete' failed"), "{text}");
    assert!(text.contains("fix: give --option user=NAME"), "{text}");
}

/// Owners that this machine does not know are the mount's, unless a map says otherwise.
fn owners_of_hdfs_are_mapped(stores: &[Store; 2]) {
    use std::os::unix::fs::MetadataExt;
    stores[0].change_owner("dir/file", "nobody-knows-her", "root");
    let owner = |store: &Store, map: &str| {
        let sandbox = sandbox_of(store);
        let local = Storage::local();
        let mount = sandbox
            .mount(&local)
            .uri(&store.uri)
            .flag("--uid", "4321")
            .flag("--gid", "8765")
            .flag("--idmap", map)
            .start();
        let found = mount.path("dir/file").metadata().unwrap();
        mount.unmount();
        (found.uid(), found.gid())
    };
    for store in stores {
        assert_eq!(owner(store, ""), (4321, 0), "{}", store.name);
        let map = "uid:nobody-knows-her=77,gid:0=88";
        assert_eq!(owner(store, map), (77, 88), "{}", store.name);
        assert_eq!(owner(store, "uid:*=5"), (5, 0), "{}", store.name);
    }
}
