// SPDX-License-Identifier: Apache-2.0
//! A real HDFS that asks for Kerberos tickets and encrypts everything, with a KDC of its own.
//!
//! The Kerberos library takes its configuration from the environment, which a test must not change
//! while others run: the test runs itself again, with the environment set.

use std::env;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use testkit::rigs::{Hdfs, Kdc, NameNodes};
use types::{ByteRange, Clock, ErrorKind, ObjectPath, SystemClock};
use ufs::conformance::{list, read, stat};
use ufs::probe;

use crate::hdfs::{bytes, open_at};

const INSIDE: &str = "FOREBAY_TEST_KERBEROS_URI";
const THIS: &str = "hdfs_kerberos::tickets_and_keytabs_open_a_cluster_and_nothing_else_does";

#[tokio::test]
async fn tickets_and_keytabs_open_a_cluster_and_nothing_else_does() {
    match env::var(INSIDE) {
        Ok(uri) => inside(&uri).await,
        Err(_) => outside().await,
    }
}

async fn outside() {
    let dir = tempfile::tempdir().unwrap();
    let kdc = Kdc::start(dir.path()).unwrap();
    let server = Arc::new(Hdfs::start(NameNodes::One, &kdc.properties()).unwrap());
    server
        .tell(&[b"put", b"/dir/file", &bytes(3_000_000)])
        .unwrap();
    server.tell(&[b"chmod", b"/dir/file", b"400"]).unwrap();
    server
        .tell(&[b"chown", b"/dir/file", b"alice", b"staff"])
        .unwrap();
    web_takes_a_token(&server).await;
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", THIS, "--nocapture"])
        .env(INSIDE, format!("hdfs://{}/dir", server.name_nodes[0]))
        .env("KRB5_CONFIG", &kdc.config)
        .env("KRB5CCNAME", dir.path().join("no ticket"))
        .env("RIG_TICKET", kdc.ticket().unwrap())
        .env("RIG_KEYTAB", &kdc.keytab)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(told.contains("1 passed"), "{told}");
}

/// The web service of the same cluster: a delegation token is enough, and nothing else is.
async fn web_takes_a_token(server: &Hdfs) {
    let uri = format!("webhdfs://{}/dir", server.web[0]);
    let token = server.tell(&[b"token", b"alice"]).unwrap();
    let storage = open_at(&uri, &[("token", &token)]).await.unwrap();
    let tag = stat(&*storage, b"file").await.unwrap().tag;
    let whole = ByteRange::new(0, tag.size);
    let read = read(&*storage, b"file", &tag, whole).await.unwrap();
    assert!(read == bytes(3_000_000));
    // The password is in the middle of a token.
    let mut forged = token.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    web_takes_another_token_when_one_is_refused(&uri, &forged, &token).await;
    for option in [("user", "alice"), ("token", forged.as_str())] {
        let storage = open_at(&uri, &[option]).await.unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(20));
        let error = probe(&*storage, deadline).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        let text = format!("{error} {storage:?}");
        assert!(
            text.contains("'token'") && !text.contains(&forged),
            "{text}"
        );
    }
}

/// A token file is read again, without a new mount, whichever way it is written.
async fn web_takes_another_token_when_one_is_refused(uri: &str, refused: &str, good: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let of_tools = |token: &str| {
        let token = token.replace('-', "+").replace('_', "/");
        let padding = "=".repeat((4 - token.len() % 4) % 4);
        let token = reqsign_core::hash::base64_decode(&(token + &padding)).unwrap();
        // One token, its alias before it, and no other secrets.
        [b"HDTS\0\x01\x01a", &token[..], b"\0"].concat()
    };
    let as_text = |token: &str| token.as_bytes().to_vec();
    for is_text in [true, false] {
        let way = |token| match is_text {
            true => as_text(token),
            false => of_tools(token),
        };
        std::fs::write(&file, way(refused)).unwrap();
        let storage = open_at(uri, &[("token_path", file.to_str().unwrap())]).await;
        let storage = storage.unwrap();
        let error = stat(&*storage, b"file").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        std::fs::write(&file, way(good)).unwrap();
        let tag = stat(&*storage, b"file").await.unwrap().tag;
        let some = ByteRange::new(0, 1000);
        let read = read(&*storage, b"file", &tag, some).await.unwrap();
        assert!(read == bytes(1000));
        assert_eq!(list(&*storage, b"").await.unwrap().0.len(), 1);
    }
}

async fn inside(uri: &str) {
    let (ticket, keytab) = (
        env::var("RIG_TICKET").unwrap(),
        env::var("RIG_KEYTAB").unwrap(),
    );
    let kerberos = ("authentication", "kerberos");
    let alice = ("principal", "alice@RIG.TEST");
    let protected = [kerberos, alice, ("data_transfer_protection", "privacy")];
    for key in [
        ("ticket_cache", ticket.as_str()),
        ("keytab", keytab.as_str()),
    ] {
        let options = [&protected[..], &[key]].concat();
        let storage = open_at(uri, &options).await.unwrap();
        let tag = stat(&*storage, b"file").await.unwrap().tag;
        let whole = ByteRange::new(0, tag.size);
        assert!(read(&*storage, b"file", &tag, whole).await.unwrap() == bytes(3_000_000));
        assert_eq!(list(&*storage, b"").await.unwrap().0.len(), 1);
    }
    let storage = open_at(uri, &[kerberos, alice, ("keytab", &keytab)])
        .await
        .unwrap();
    let tag = stat(&*storage, b"file").await.unwrap().tag;
    let (path, one) = (ObjectPath::parse(b"file").unwrap(), ByteRange::new(0, 1));
    let deadline = SystemClock.deadline(Duration::from_secs(2));
    let mut stream = storage.read(&path, &tag, one, deadline).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("'data_transfer_protection'"),
        "{error}"
    );
    for (options, advice) in [
        (vec![kerberos], "run kinit"),
        (
            vec![kerberos, ("principal", "bob@RIG.TEST"), ("keytab", &keytab)],
            "run kinit",
        ),
        (vec![], "set 'authentication' to kerberos"),
    ] {
        let storage = open_at(uri, &options).await.unwrap();
        let deadline = SystemClock.deadline(Duration::from_secs(20));
        let error = probe(&*storage, deadline).await.unwrap_err();
        assert!(error.to_string().contains(advice), "{options:?}: {error}");
        let expected = if options.is_empty() {
            ErrorKind::Unavailable
        } else {
            ErrorKind::PermissionDenied
        };
        assert_eq!(error.kind(), expected, "{error}");
    }
}
