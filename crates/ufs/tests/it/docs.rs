// SPDX-License-Identifier: Apache-2.0
//! The pages of `docs/storages` say what the drivers know, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use types::SystemClock;
use ufs::{SECRET_OPTIONS, Settings, open};

/// A driver, by a URI of it, the name of its source, and its page.
struct Documented {
    uri: &'static str,
    source: &'static str,
    page: &'static str,
    /// Variables that a library reads for the driver.
    more: &'static [&'static str],
}

const DRIVERS: [Documented; 9] = [
    Documented {
        uri: "s3://b/",
        source: "s3",
        page: "s3.md",
        more: &[
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_ROLE_ARN",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_EC2_METADATA_DISABLED",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        ],
    },
    Documented {
        uri: "az://c/",
        source: "azure",
        page: "azure.md",
        more: &[
            "AZURE_CLIENT_SECRET",
            "AZURE_CLIENT_CERTIFICATE_PATH",
            "AZURE_AUTHORITY_HOST",
        ],
    },
    Documented {
        uri: "gs://b/",
        source: "gcs",
        page: "gcs.md",
        more: &["GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST"],
    },
    Documented {
        uri: "http://h/",
        source: "web",
        page: "http.md",
        more: &["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"],
    },
    Documented {
        uri: "hf://o/n",
        source: "huggingface",
        page: "huggingface.md",
        more: &[],
    },
    Documented {
        uri: "hdfs://h/",
        source: "hdfs",
        page: "hdfs.md",
        more: &[
            "HADOOP_USER_NAME",
            "HADOOP_TOKEN_FILE_LOCATION",
            "KRB5CCNAME",
            "KRB5_CONFIG",
        ],
    },
    Documented {
        uri: "webhdfs://h/",
        source: "webhdfs",
        page: "webhdfs.md",
        more: &["HADOOP_CONF_DIR", "HADOOP_HOME"],
    },
    Documented {
        uri: "cephfs:///",
        source: "cephfs",
        page: "ceph.md",
        more: &[],
    },
    Documented {
        uri: "file:///",
        source: "local",
        page: "local.md",
        more: &[],
    },
];

/// What a mount says by flags of its own, on all pages where it means something.
const OF_THE_MOUNT: &str = "idmap";
/// How variables begin that users of a storage know.
const PREFIXES: [&str; 7] = [
    "AWS_", "AZURE_", "GOOGLE_", "STORAGE_", "HADOOP_", "HF_", "HUGGING_",
];

/// Returns all options of a driver: it names them when it gets one that it does not know.
async fn options_of(uri: &str) -> Vec<String> {
    let settings = Settings {
        uri: uri.into(),
        options: [("completely-unheard-of-name".into(), "x".into())].into(),
        request_timeout: Duration::from_secs(1),
        max_connections: 1,
    };
    let error = open(&settings, Arc::new(SystemClock)).await.unwrap_err();
    let text = error.to_string();
    if text.contains("takes none") {
        return Vec::new();
    }
    let (_, known) = text
        .split_once(" knows ")
        .unwrap_or_else(|| panic!("{text}"));
    let known = known.split(", ").map(String::from);
    known.filter(|option| option != OF_THE_MOUNT).collect()
}

/// Returns the variables that the source of a driver names, but for those of its tests.
fn variables_in(source: &str) -> BTreeSet<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<PathBuf> = vec![src.join(format!("{source}.rs"))];
    let children = fs::read_dir(src.join(source)).into_iter().flatten();
    files.extend(children.map(|child| child.unwrap().path()));
    let mut variables = BTreeSet::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let words = code.split('"').skip(1).step_by(2);
        let is_variable = |word: &&str| {
            let is_of_one = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            word.chars().all(is_of_one) && PREFIXES.iter().any(|prefix| word.starts_with(prefix))
        };
        variables.extend(words.filter(is_variable).map(String::from));
    }
    variables
}

fn page(name: &str) -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/storages");
    fs::read_to_string(docs.join(name)).unwrap()
}

/// Returns the first column of the tables of options of a page.
fn documented_options(text: &str) -> BTreeSet<String> {
    let mut options = BTreeSet::new();
    let mut is_table = false;
    for line in text.lines() {
        let first = line.split('|').nth(1).unwrap_or_default().trim();
        is_table = line.starts_with('|') && (is_table || first.eq_ignore_ascii_case("option"));
        if is_table {
            options.extend(first.split('`').skip(1).step_by(2).map(String::from));
        }
    }
    options
}

#[tokio::test]
async fn each_option_of_a_driver_is_on_its_page_and_each_secret_is_marked() {
    for driver in &DRIVERS {
        let (text, name) = (page(driver.page), driver.page);
        let options = options_of(driver.uri).await;
        for option in &options {
            let line = text
                .lines()
                .find(|line| line.starts_with('|') && line.contains(&format!("`{option}`")))
                .unwrap_or_else(|| panic!("{name} has no line for '{option}'"));
            let secret = SECRET_OPTIONS.contains(&option.as_str());
            assert!(
                !secret || line.contains("secret"),
                "{name}: '{option}' is a secret"
            );
        }
        let known: BTreeSet<String> = options.into_iter().collect();
        assert_eq!(documented_options(&text), known, "{name}");
    }
}

#[test]
fn each_variable_that_a_driver_reads_is_on_its_page() {
    for driver in &DRIVERS {
        let text = page(driver.page);
        let mut variables = variables_in(driver.source);
        variables.extend(driver.more.iter().map(|name| (*name).to_owned()));
        for variable in variables {
            // A kind of token, not a variable.
            if variable == "HDFS_DELEGATION_TOKEN" {
                continue;
            }
            let is_there =
                text.contains(&format!("`{variable}`")) || text.contains(&format!("${variable}"));
            assert!(is_there, "{} says nothing of {variable}", driver.page);
        }
    }
}

#[test]
fn each_page_has_an_example_to_copy_and_the_permissions_that_are_enough() {
    for driver in &DRIVERS {
        let (text, name) = (page(driver.page), driver.page);
        let scheme = driver.uri.split_once("://").unwrap().0;
        let mut blocks = text.split("```").skip(1).step_by(2);
        let is_example = |block: &str| {
            let mounts = block.contains("forebay mount ") || block.contains("[[mount]]");
            mounts
                && block.contains(&format!(
                    "{scheme}{}://",
                    if scheme == "http" { "s" } else { "" }
                ))
        };
        assert!(blocks.any(is_example), "{name}: no example of {scheme}");
        let permissions = text.lines().any(|line| {
            let line = line.to_lowercase();
            line.contains("permissions") && (line.starts_with('#') || line.starts_with("required"))
        });
        assert!(permissions, "{name}: no permissions");
        assert!(
            name == "http.md"
                || name == "huggingface.md"
                || text.to_lowercase().contains("to write"),
            "{name}: nothing on writing"
        );
    }
}
