// SPDX-License-Identifier: Apache-2.0
//! The document of the admin API says what the API is.

use std::path::Path;

use gateway::openapi;
use serde_json::Value;

use crate::Rig;

#[test]
fn the_document_is_made_from_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let text = openapi::text();
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(
        kept == text,
        "docs/openapi.json is old: run this test with FOREBAY_BLESS=1"
    );
}

#[test]
fn each_reference_in_the_document_leads_to_a_type() {
    let document = openapi::document();
    let text = document.to_string();
    let references = text.split("\"$ref\":\"#").skip(1);
    let mut count = 0;
    for reference in references {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        count += 1;
    }
    assert!(count > 50, "{count}");
    let types = document["components"]["schemas"].as_object().unwrap();
    for (name, described) in types {
        assert!(described["description"].is_string(), "{name}: {described}");
    }
}

#[tokio::test]
async fn the_addresses_of_the_document_are_those_that_are_answered() {
    let rig = Rig::start(std::sync::Arc::default());
    // Each address is known: another method is what is refused, and not the address.
    for (_, address) in openapi::routes() {
        let answer = rig
            .bare(&format!(
                "PUT {address} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 501"), "{address}: {answer}");
    }
    let request = "GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = rig.bare(request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let answered: Value = serde_json::from_str(body).unwrap();
    assert_eq!(answered, openapi::document());

    // And there are no others.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let router = &source[source.find("fn routes(").unwrap()..];
    let router = &router[..router.find("\n}").unwrap()];
    let strings = router.split('"').skip(1).step_by(2);
    for address in strings.filter(|text| text.starts_with('/')) {
        let known = openapi::routes().iter().any(|(_, one)| *one == address);
        assert!(known, "{address} is not in the table of openapi.rs");
    }
}
