// SPDX-License-Identifier: Apache-2.0
//! `forebay stats`: each line is what happened since the one before.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use testkit::sandbox::Sandbox;
use testkit::storage::Storage;

#[test]
fn each_line_tells_what_happened_since_the_one_before() {
    let storage = Storage::s3();
    for seed in 0..3 {
        storage.put(format!("{seed}"), seed, 300_000);
    }
    storage.relay().set_latency(Duration::from_millis(50));
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let mut command = sandbox.command();
    command.args(["stats", "--json", "--interval", "200ms"]);
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    next();
    for seed in 0..3 {
        mount.read(format!("{seed}"));
    }
    let mut sums = [0; 4];
    let mut slowest = 0.0;
    while sums[0] < 900_000 {
        let line = next();
        let names = ["read_bytes", "fetched_bytes", "storage_requests", "waits"];
        for (sum, name) in sums.iter_mut().zip(names) {
            *sum += line[name].as_u64().unwrap();
        }
        slowest = line["wait_milliseconds"]
            .as_f64()
            .unwrap_or(0.0)
            .max(slowest);
        assert!(line["memory_bytes"].as_u64().unwrap() > 0, "{line}");
    }
    assert_eq!(sums[0], 900_000);
    assert!(
        sums[1] >= 900_000 && sums[2] >= 3 && sums[3] >= 1,
        "{sums:?}"
    );
    assert!(slowest >= 50.0, "{slowest}");
    let idle = next();
    assert_eq!(
        (&idle["read_bytes"], &idle["hit_ratio"]),
        (&0.into(), &Value::Null)
    );
    mount.unmount();
    assert!(!watch.wait().unwrap().success(), "its daemon has ended");
}

#[test]
fn a_table_of_as_many_lines_as_were_asked_for() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let said = sandbox
        .run(&["stats", "--count", "2", "--interval", "100ms"])
        .success();
    assert_eq!(said.lines().count(), 4, "{said}");
    assert!(said.contains("wait-ms") && said.contains("hit-%"), "{said}");
    let said = sandbox.run(&["stats", "--interval", "0s"]).refusal();
    assert!(said.contains("interval"), "{said}");
    mount.unmount();
    assert!(sandbox.run(&["stats"]).refusal().contains("no daemon"));
}
