// SPDX-License-Identifier: Apache-2.0
//! `forebay costs`: the ledger of a real daemon; and the log of who asked it to do what.

use std::fs;

use serde_json::Value;
use testkit::sandbox::{Sandbox, drop_kernel_caches};
use testkit::storage::Storage;

#[test]
fn requests_and_bytes_are_told_in_money_and_so_is_what_the_cache_saved() {
    let storage = Storage::s3();
    for seed in 0..4 {
        storage.put(format!("{seed}"), seed, 500_000);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    for _ in 0..3 {
        for seed in 0..4 {
            mount.read(format!("{seed}"));
        }
        drop_kernel_caches();
    }
    let prices = sandbox.dir().join("prices.toml");
    fs::write(
        &prices,
        "currency = 'EUR'\nper_gb_read = 1000\n[per_1000]\nget = 1000\n",
    )
    .unwrap();
    let words = ["costs", "--json", "--prices", prices.to_str().unwrap()];
    let ledger: Value = serde_json::from_str(&sandbox.run(&words).success()).unwrap();
    let line = &ledger["mounts"][0];
    let gets = line["requests"]["get"].as_u64().unwrap();
    assert_eq!(gets, mount.status().number("/mounts/0/requests/get"));
    assert_eq!(line["bytes_read"], 2_000_000);
    #[allow(clippy::cast_precision_loss, reason = "a small count")]
    let expected = gets as f64 + 2.0;
    assert!(
        (line["cost"].as_f64().unwrap() - expected).abs() < 1e-6,
        "{ledger}"
    );
    assert_eq!(ledger["saved"]["bytes"], 4_000_000, "two epochs of three");
    assert!(ledger["saved"]["cost"].as_f64().unwrap() >= 4.0, "{ledger}");
    let said = sandbox.run(&["costs"]).success();
    assert!(
        said.contains("saved by the cache") && said.contains("--prices FILE"),
        "{said}"
    );
    fs::write(&prices, "per_1000 = { gets = 1 }").unwrap();
    let refused = sandbox.run(&words);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("'gets'"), "{}", refused.stderr);
    mount.unmount();
}

#[test]
fn who_asked_a_daemon_to_do_what_is_in_its_log_and_questions_are_not() {
    let storage = Storage::s3();
    storage.put("d/file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    sandbox
        .run(&["free".as_ref(), mount.path("d").as_os_str()])
        .success();
    sandbox
        .run(&["unpin".as_ref(), mount.path("d").as_os_str()])
        .refusal();
    mount.status();
    let log = fs::read_to_string(sandbox.log()).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    for line in ["/v1/free of '/d': 200", "/v1/unpin of '/d': 404"] {
        let line = format!("admin API: user {uid}: {line}");
        assert!(log.contains(&line), "{line} in {log}");
    }
    assert!(!log.contains("/v1/status"), "{log}");
    mount.unmount();
}
