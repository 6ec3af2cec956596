// SPDX-License-Identifier: Apache-2.0
//! Tests of the configuration file.

use std::io;
use std::time::Duration;

use types::Freshness;

use super::*;

/// Secrets of a test.
struct Toy;

impl Resolve for Toy {
    fn variable(&self, name: &str) -> Option<String> {
        (name != "UNSET").then(|| format!("value of {name}\n"))
    }

    fn file(&self, path: &str) -> io::Result<String> {
        match path {
            "/absent" => Err(io::ErrorKind::NotFound.into()),
            "/empty" => Ok("\n".to_owned()),
            path => Ok(format!("text in {path}\n")),
        }
    }
}

fn faults(text: &str) -> Vec<(usize, String)> {
    let faults = parse(text, &Toy).unwrap_err();
    faults
        .into_iter()
        .map(|fault| (fault.line, fault.message))
        .collect()
}

/// Returns the one fault of a mount with these lines added; the first of them is line 5.
fn fault_of_mount(lines: &str) -> String {
    let head = "mount_point = \"/m\"\n[[mount]]\nat = \"/\"\nuri = \"s3://b\"\n";
    let mut faults = faults(&format!("{head}{lines}\n"));
    assert_eq!(faults.len(), 1, "{faults:?}");
    let (line, message) = faults.remove(0);
    assert_eq!(line, 5, "{message}");
    message
}

#[test]
fn the_example_has_no_faults_and_shows_every_key() {
    let file = parse(EXAMPLE, &Toy).unwrap();
    assert_eq!(file.mount_point, Path::new("/mnt/data"));
    assert_eq!(file.node.cache_size, Some(100 << 30));
    assert_eq!(file.node.deadline, Some(Duration::from_secs(60)));
    let [images, local] = &file.mounts[..] else {
        panic!("{:?}", file.mounts)
    };
    assert_eq!(images.at, "datasets/images");
    assert_eq!(images.options["path_style"], "true");
    let secrets = images.credentials.resolve(&Toy).unwrap();
    assert_eq!(secrets["access_key_id"], "value of IMAGES_KEY_ID");
    assert_eq!(secrets["secret_access_key"], "text in /run/secrets/images");
    assert_eq!(local.freshness, Freshness::Immutable);
    assert_eq!((local.uid, local.file_mode), (1000, 0o644));
    for key in ["threads", "log ", "session_token"].iter().take(2) {
        assert!(EXAMPLE.contains(&format!("# {key}")), "{key}");
    }
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let text = "mount_pont = \"/m\"\nmemory = \"1MiB\"\nthreads = 0\n[cache]\nsiez = \"1GiB\"\n\
                dir = \"cache\"\n[[mount]]\nat = \"data\"\nfreshness = \"soon\"\n";
    let faults = faults(text);
    let about = |line: usize, word: &str| {
        assert!(
            faults
                .iter()
                .any(|(at, text)| *at == line && text.contains(word)),
            "{faults:?}"
        );
    };
    about(1, "did you mean 'mount_point'?");
    about(1, "'mount_point' is missing");
    about(2, "64MiB");
    about(3, "1 to 256");
    about(5, "did you mean 'size'?");
    about(6, "absolute");
    about(8, "must begin with '/'");
    about(9, "soon");
    assert!(
        faults
            .iter()
            .any(|(_, text)| text.contains("'uri' is missing")),
        "{faults:?}"
    );
    assert_eq!(faults.len(), 9, "{faults:?}");
}

#[test]
fn secrets_are_references_and_literals_are_refused_without_showing_them() {
    let literal = fault_of_mount(
        "credentials = { access_key_id = \"env:A\", secret_access_key = \"hunter2\" }",
    );
    assert!(
        literal.contains("env:NAME") && !literal.contains("hunter2"),
        "{literal}"
    );
    let option = fault_of_mount("options = { secret_access_key = \"hunter2\" }");
    assert!(
        option.contains("credentials") && !option.contains("hunter2"),
        "{option}"
    );
    let endpoint = fault_of_mount("options = { endpoint = \"http://me:hunter2@host\" }");
    assert!(!endpoint.contains("hunter2"), "{endpoint}");
    for (reference, word) in [
        ("env:UNSET", "UNSET"),
        ("file:/absent", "/absent"),
        ("file:/empty", "empty"),
    ] {
        let text = format!(
            "credentials = {{ access_key_id = \"env:A\", secret_access_key = \"{reference}\" }}"
        );
        assert!(fault_of_mount(&text).contains(word));
    }
    let half = fault_of_mount("credentials = { access_key_id = \"env:A\" }");
    assert!(half.contains("belong together"), "{half}");
}

#[test]
fn one_reference_may_stand_for_all_credentials() {
    let head = "mount_point = \"/m\"\n[[mount]]\nat = \"/\"\nuri = \"s3://b\"\n";
    let file = parse(&format!("{head}credentials = \"profile:lab\"\n"), &Toy).unwrap();
    assert_eq!(
        file.mounts[0].credentials.resolve(&Toy).unwrap()["profile"],
        "lab"
    );
    let literal = fault_of_mount("credentials = \"hunter2\"");
    assert!(
        !literal.contains("hunter2") && literal.contains("env:NAME"),
        "{literal}"
    );
    assert!(fault_of_mount("credentials = \"env:UNSET\"").contains("UNSET"));
    assert!(fault_of_mount("credentials = 3").contains("a table"));
}

#[test]
fn wrong_types_are_named() {
    assert!(fault_of_mount("freshness = 60").contains("a text in quotes, not 60"));
    assert!(fault_of_mount("read_only = \"yes\"").contains("true or false"));
    assert!(fault_of_mount("options = { endpoint = [1] }").contains("not this array"));
    assert!(fault_of_mount("uid = -1").contains("0 to"));
}

#[test]
fn two_mounts_at_one_place_are_a_fault_and_none_at_all_is_an_empty_tree() {
    let two = "mount_point = \"/m\"\n[[mount]]\nat = \"/x\"\nuri = \"/a\"\n\
               [[mount]]\nat = \"/x/\"\nuri = \"/b\"\n";
    assert!(faults(two)[0].1.contains("two mounts at '/x'"));
    let invalid = "mount_point = \"/m\"\n[[mount]]\nat = \"x\"\nuri = \"/a\"\n\
                   [[mount]]\nat = \"y\"\nuri = \"/b\"\n";
    let found = faults(invalid);
    assert_eq!(
        found.len(),
        2,
        "places that cannot be are not the same: {found:?}"
    );
    assert!(
        parse("mount_point = \"/m\"\n", &Toy)
            .unwrap()
            .mounts
            .is_empty()
    );
    assert!(
        faults("mount_point = \"/m\"\n[mount]\nat = \"/\"\n")[0]
            .1
            .contains("[[mount]]")
    );
}

#[test]
fn a_file_that_is_no_toml_is_a_fault_with_its_line() {
    let faults = faults("mount_point = \"/m\"\nmemory = = 1\n");
    assert_eq!(faults[0].0, 2);
}

#[test]
fn faults_are_shown_as_editors_find_them() {
    let faults = Faults {
        file: "f.toml".into(),
        faults: vec![
            Fault {
                line: 3,
                message: "x".into(),
            },
            Fault {
                line: 0,
                message: "y".into(),
            },
        ],
    };
    let text = faults.to_string();
    assert!(
        text.starts_with("f.toml:3: x\nf.toml: y\n2 fault(s)"),
        "{text}"
    );
}
