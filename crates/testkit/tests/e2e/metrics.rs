// SPDX-License-Identifier: Apache-2.0
//! Metrics of a real daemon: on the admin socket always, over TCP where that is asked for.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;

/// Returns the value of a series as it is written.
#[track_caller]
fn value(text: &str, series: &str) -> u64 {
    let line = text.lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then_some(value)
    });
    let value = line.unwrap_or_else(|| panic!("no {series} in {text}"));
    value.parse().unwrap()
}

#[track_caller]
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Returns how many TCP ports a process listens on.
fn listens(pid: i32) -> usize {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
    let sockets: Vec<_> = links.map(|link| link.display().to_string()).collect();
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    let rows = tables
        .iter()
        .flatten()
        .flat_map(|table| table.lines().skip(1));
    let is_own = |row: &&str| {
        let fields: Vec<_> = row.split_ascii_whitespace().collect();
        fields[3] == "0A" && sockets.contains(&format!("socket:[{}]", fields[9]))
    };
    rows.filter(is_own).count()
}

#[test]
fn metrics_count_what_a_job_reads() {
    let storage = Storage::s3();
    storage.put("d/file", 1, 300_000);
    let sandbox = Sandbox::new(&storage);
    storage.put("e/file", 2, 1000);
    let mount = sandbox.mount(&storage).flag("--deadline", "2s").start();
    mount.read("d/file");
    let metrics = || {
        let words = ["metrics".as_ref(), mount.point().as_os_str()];
        sandbox.run(&words).success()
    };
    let text = metrics();
    let gets = "forebay_storage_requests_total{mount=\"/\",kind=\"get\"}";
    assert_eq!(
        value(&text, gets),
        mount.status().number("/mounts/0/requests/get")
    );
    assert_eq!(value(&text, "forebay_served_bytes_total"), 300_000);
    assert_eq!(value(&text, "forebay_storage_failing{mount=\"/\"}"), 0);
    storage.switch_off();
    fs::read_dir(mount.path("e")).unwrap_err();
    assert_eq!(value(&metrics(), "forebay_storage_failing{mount=\"/\"}"), 1);
    mount.unmount();
    let said = sandbox.run(&["metrics"]).refusal();
    assert!(said.contains("no daemon"), "{said}");
}

#[test]
fn metrics_are_served_over_tcp_only_where_that_is_asked_for() {
    let storage = Storage::local();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    assert_eq!(listens(mount.pid()), 0);
    mount.unmount();

    let mounting = sandbox.mount(&storage);
    let told = mounting
        .clone()
        .flag("--metrics-listen", "127.0.0.1:0")
        .run()
        .success();
    let mount = Mount::of(&sandbox, sandbox.point());
    let (_, rest) = told.split_once("http://").expect("the address is told");
    let (address, _) = rest.split_once("/metrics").unwrap();
    assert_eq!(listens(mount.pid()), 1);
    let answer = get(address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("forebay_build_info{version="), "{answer}");
    for other in ["/v1/status", "/v1/jobs", "/"] {
        let answer = get(address, other);
        assert!(answer.starts_with("HTTP/1.1 404"), "{other}: {answer}");
    }

    // The address is taken.
    let second = sandbox.dir().join("second");
    fs::create_dir(&second).unwrap();
    let taken = mounting.at(second).cache_dir(sandbox.dir().join("cache-2"));
    let said = taken.flag("--metrics-listen", address).run().refusal();
    assert!(
        said.contains(address) && said.contains("--metrics-listen"),
        "{said}"
    );
    mount.unmount();
    assert!(TcpStream::connect(address).is_err());
    sandbox.assert_nothing_left();
}
