// SPDX-License-Identifier: Apache-2.0
//! The pages of `docs/storages` say what the drivers know.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use types::SystemClock;
use ufs::{SECRET_OPTIONS, Settings, open};

/// Returns all options of the driver of a URI: it names them when it gets one that it does not know.
async fn options_of(uri: &str) -> Vec<String> {
    let settings = Settings {
        uri: uri.into(),
        options: [("completely-unheard-of-name".into(), "x".into())].into(),
        request_timeout: Duration::from_secs(1),
        max_connections: 1,
    };
    let error = open(&settings, Arc::new(SystemClock)).await.unwrap_err();
    let text = error.to_string();
    let (_, known) = text
        .split_once(" knows ")
        .unwrap_or_else(|| panic!("{text}"));
    known.split(", ").map(String::from).collect()
}

#[tokio::test]
async fn each_option_of_a_driver_is_on_its_page_and_each_secret_is_marked() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/storages");
    for (uri, page) in [
        ("s3://b/", "s3.md"),
        ("az://c/", "azure.md"),
        ("gs://b/", "gcs.md"),
        ("http://h/", "http.md"),
        ("hf://o/n", "huggingface.md"),
    ] {
        let text = std::fs::read_to_string(docs.join(page)).unwrap();
        for option in options_of(uri).await {
            let line = text
                .lines()
                .find(|line| line.starts_with('|') && line.contains(&format!("`{option}`")))
                .unwrap_or_else(|| panic!("{page} has no line for '{option}'"));
            let secret = SECRET_OPTIONS.contains(&option.as_str());
            assert!(
                !secret || line.contains("secret"),
                "{page}: '{option}' is a secret"
            );
        }
        let scheme = uri.split_once("://").unwrap().0;
        assert!(
            text.contains(&format!("{scheme}://")) || page == "http.md",
            "{page}"
        );
    }
}
