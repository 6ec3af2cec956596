// SPDX-License-Identifier: Apache-2.0
//! Secrets given by reference that end: read again when the storage refuses them, by all drivers
//! that take any, for all requests that were refused together, and hidden like those before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use types::{ErrorKind, Result};
use ufs::conformance::{list, read, stat};
use ufs::{Secrets, UnderStorage};

use crate::faults::{CONTENT, all_drivers, honest, v1, whole};
use crate::liar::{Asked, Liar, Told, told};

/// How a driver is told who asks, and how that looks in its requests.
struct Asking {
    /// Of the driver in `faults`.
    scheme: &'static str,
    uri: &'static str,
    options: &'static [(&'static str, &'static str)],
    /// With `DAY` for the number of the day.
    secrets: &'static [(&'static str, &'static str)],
    /// Where the secret of the day stands in a request.
    shown: fn(&Asked) -> &str,
    /// What stands there, with `DAY`.
    word: &'static str,
}

fn authorization(asked: &Asked) -> &str {
    asked.header("authorization")
}

const WAYS: [Asking; 8] = [
    Asking {
        scheme: "s3",
        uri: "s3://b/",
        options: &[("endpoint", "ENDPOINT")],
        secrets: &[("access_key_id", "idDAY"), ("secret_access_key", "hushDAY")],
        shown: authorization,
        word: "Credential=idDAY/",
    },
    Asking {
        scheme: "s3",
        uri: "s3://b/",
        options: &[("endpoint", "ENDPOINT")],
        secrets: &[
            ("access_key_id", "id"),
            ("secret_access_key", "hush"),
            ("session_token", "hushDAY"),
        ],
        shown: |asked| asked.header("x-amz-security-token"),
        word: "hushDAY",
    },
    Asking {
        scheme: "az",
        uri: "az://container/",
        options: &[
            ("endpoint", "ENDPOINT/account"),
            ("account_name", "account"),
        ],
        secrets: &[("sas_token", "sv=1&sig=hushDAY")],
        shown: |asked| &asked.target,
        word: "sig=hushDAY",
    },
    Asking {
        scheme: "gs",
        uri: "gs://bucket/",
        options: &[("endpoint", "ENDPOINT")],
        secrets: &[("token", "hushDAY")],
        shown: authorization,
        word: "Bearer hushDAY",
    },
    Asking {
        scheme: "hf",
        uri: "hf://datasets/owner/name",
        options: &[("endpoint", "ENDPOINT"), ("follow", "true")],
        secrets: &[("token", "hushDAY")],
        shown: authorization,
        word: "Bearer hushDAY",
    },
    Asking {
        scheme: "ENDPOINT",
        uri: "ENDPOINT/dir/",
        options: &[],
        secrets: &[("token", "hushDAY")],
        shown: authorization,
        word: "Bearer hushDAY",
    },
    Asking {
        scheme: "ENDPOINT",
        uri: "ENDPOINT/dir/",
        options: &[("username", "u")],
        secrets: &[("password", "hushDAY")],
        shown: authorization,
        word: "Basic dTpodXNo",
    },
    Asking {
        scheme: "webhdfs",
        uri: "webhdfs://SERVER/",
        options: &[],
        secrets: &[("token", "hushDAY")],
        shown: |asked| &asked.target,
        word: "delegation=hushDAY",
    },
];

impl Asking {
    fn is_known(&self, asked: &Asked, day: usize) -> bool {
        let word = self.word.replace("DAY", &day.to_string());
        let ending = match self.word.starts_with("Basic ") {
            true => ["MQ==", "Mg==", "Mw=="][day - 1],
            false => "",
        };
        (self.shown)(asked).contains(&format!("{word}{ending}"))
    }

    /// Returns what the file with the day in it stands for.
    fn secrets_in(&'static self, file: PathBuf) -> Secrets {
        Arc::new(move || {
            let day = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
            let filled = |(name, value): &(&str, &str)| {
                ((*name).to_owned(), value.replace("DAY", day.trim()))
            };
            Ok(self.secrets.iter().map(filled).collect::<BTreeMap<_, _>>())
        })
    }

    async fn open(&'static self, liar: &Liar, file: &Path) -> Arc<dyn UnderStorage> {
        let (_, server) = liar.endpoint().split_once("://").unwrap();
        let fill = |text: &str| {
            let text = text.replace("ENDPOINT", liar.endpoint());
            text.replace("SERVER", server)
        };
        let options: Vec<_> = self.options.iter().map(|(k, v)| (*k, fill(v))).collect();
        let options: Vec<_> = options.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let secrets = self.secrets_in(file.to_owned());
        liar.open_by_reference(&fill(self.uri), &options, secrets)
            .await
    }

    /// Answers who shows the secret of the day, and says to others what they sent.
    fn answer(&self, asked: &Asked, day: usize) -> Told {
        if !self.is_known(asked, day) {
            return told("403 Forbidden", &[], (self.shown)(asked).as_bytes());
        }
        let of_scheme = |uri: &&str| uri.starts_with(self.scheme);
        let mut drivers = all_drivers();
        let driver = drivers.find(|driver| of_scheme(&driver.uri)).unwrap();
        let one = [("ETag", "\"v1\""), ("Content-Length", "1")];
        match asked.method.as_str() {
            "HEAD" => told("200 OK", &one, b""),
            _ if asked.headers.contains_key("range") => honest(asked, "v1"),
            _ => told("200 OK", &[], driver.page.as_bytes()),
        }
    }

    /// Webhdfs has no ranges, and its looks are read in tests of its own.
    fn reads(&self) -> bool {
        self.scheme != "webhdfs"
    }
}

/// Asks for something in as many ways as there are: none of them must be the one that fails.
async fn asked_at_once(way: &Asking, storage: &dyn UnderStorage) -> Vec<Result<()>> {
    let reads = (0..6).map(async |_| {
        let bytes = read(storage, b"k", &v1(), whole()).await?;
        assert_eq!(bytes, CONTENT);
        Ok(())
    });
    let lists = (0..3).map(async |_| {
        assert_eq!(list(storage, b"").await?.0.len(), 2, "{}", way.uri);
        Ok(())
    });
    match way.reads() {
        true => {
            let (reads, lists) = futures::join!(
                futures::future::join_all(reads),
                futures::future::join_all(lists)
            );
            reads.into_iter().chain(lists).collect()
        }
        false => futures::future::join_all(lists).await,
    }
}

#[tokio::test]
async fn a_secret_that_was_replaced_is_read_again_when_the_old_one_is_refused() {
    for way in &WAYS {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let today = Arc::new(AtomicUsize::new(1));
        let of_server = Arc::clone(&today);
        let liar =
            Liar::start(move |_, asked| way.answer(asked, of_server.load(Ordering::SeqCst))).await;
        std::fs::write(&file, "1").unwrap();
        let storage = way.open(&liar, &file).await;
        for answer in asked_at_once(way, &*storage).await {
            answer.unwrap();
        }
        assert_eq!(storage.counters().snapshot().retries, 0, "{}", way.uri);
        today.store(2, Ordering::SeqCst);
        for answer in asked_at_once(way, &*storage).await {
            let error = answer.expect_err("nobody has the new secret yet");
            let text = format!("{error} {error:?}");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{text}");
            assert!(!text.contains("hush"), "{}: {text}", way.uri);
        }
        std::fs::write(&file, "2\n").unwrap();
        for answer in asked_at_once(way, &*storage).await {
            answer.unwrap_or_else(|error| panic!("{}: {error}", way.uri));
        }
        // The new secret is hidden too.
        today.store(3, Ordering::SeqCst);
        for answer in asked_at_once(way, &*storage).await {
            let text = format!("{:?}", answer.unwrap_err());
            assert!(!text.contains("hush"), "{}: {text}", way.uri);
        }
        std::fs::remove_file(&file).unwrap();
        for answer in asked_at_once(way, &*storage).await {
            let kind = answer.unwrap_err().kind();
            assert_eq!(kind, ErrorKind::PermissionDenied, "{}", way.uri);
        }
        today.store(2, Ordering::SeqCst);
        for answer in asked_at_once(way, &*storage).await {
            answer.unwrap();
        }
    }
}

#[tokio::test]
async fn a_look_whose_refusal_has_no_body_is_reason_enough_to_read_the_secret_again() {
    for way in WAYS.iter().filter(|way| way.reads()) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "1").unwrap();
        for status in ["400 Bad Request", "401 Unauthorized", "403 Forbidden"] {
            let liar = Liar::start(move |_, asked| match way.is_known(asked, 2) {
                false => told(status, &[], b""),
                true => told("404 Not Found", &[], b""),
            });
            let liar = liar.await;
            let storage = way.open(&liar, &file).await;
            std::fs::write(&file, "2").unwrap();
            let error = stat(&*storage, b"k").await.unwrap_err();
            assert!(
                storage.counters().snapshot().retries == 1,
                "{} {status}: {error}",
                way.uri
            );
            std::fs::write(&file, "1").unwrap();
        }
    }
}
