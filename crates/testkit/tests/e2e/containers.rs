// SPDX-License-Identifier: Apache-2.0
//! The recipes of `deploy/container` and `deploy/kubernetes`: what they say of this project is true.
//! That a container engine and Kubernetes take them, the lints of the gate say.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::sandbox::Sandbox;
use testkit::storage::Storage;

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap().to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Returns what a line of a text says behind a word.
fn behind<'a>(text: &'a str, word: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(word));
    line.unwrap_or_else(|| panic!("no '{word}'")).trim()
}

#[test]
fn the_image_is_built_by_the_toolchain_of_the_project_and_named_by_its_version() {
    let dockerfile = read("deploy/container/Dockerfile");
    let toolchain = read("rust-toolchain.toml");
    let channel = behind(&toolchain, "channel =").trim_matches('"');
    assert!(
        dockerfile.contains(&format!("FROM rust:{channel}-slim-bookworm AS build")),
        "the toolchain is {channel}"
    );
    let said = Sandbox::new(&Storage::local())
        .run(&["--version"])
        .success();
    let version = said.split_whitespace().last().unwrap();
    let daemons = read("deploy/kubernetes/forebay.yaml");
    for text in [&dockerfile, &daemons] {
        assert!(
            text.contains(&format!("forebay:{version}")),
            "the version is {version}"
        );
    }
    // What it mounts by has to be in the image, and so have the certificates of storages.
    assert!(dockerfile.contains("ca-certificates fuse3"));
}

#[test]
fn the_configuration_of_the_daemons_is_one_that_the_binary_takes() {
    let daemons = read("deploy/kubernetes/forebay.yaml");
    let (_, rest) = daemons.split_once("  forebay.toml: |\n").unwrap();
    let lines = rest
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("    "));
    let config: String = lines
        .map(|line| format!("{}\n", line.trim_start()))
        .collect();
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let point = behind(&config, "mount_point =")
        .trim_matches('"')
        .to_owned();
    let cache = behind(&config, "dir =").trim_matches('"').to_owned();
    // The places of this machine in place of those of a node.
    let config = config
        .replace(&point, sandbox.point().to_str().unwrap())
        .replace(&cache, sandbox.cache_dir().to_str().unwrap());
    let file = sandbox.dir().join("forebay.toml");
    fs::write(&file, &config).unwrap();
    let said = sandbox
        .run(&["config".as_ref(), "check".as_ref(), file.as_os_str()])
        .success();
    assert!(said.contains("no faults, 1 mount"), "{said}");
    // The probes ask for the very mount, and the volumes hold what is to outlive the pod.
    assert!(
        daemons
            .matches(&format!("\"forebay\", \"status\", \"{point}\""))
            .count()
            == 2
    );
    for place in [&cache, "/var/lib/forebay"] {
        let dir = Path::new(place);
        let is_mounted = dir
            .ancestors()
            .any(|dir| daemons.contains(&format!("mountPath: {}\n", dir.display())));
        assert!(is_mounted, "{place} is in no volume");
    }
}
