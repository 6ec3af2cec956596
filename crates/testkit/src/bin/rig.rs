// SPDX-License-Identifier: Apache-2.0
//! A remote storage on this machine, for programs that are not written in Rust.
//!
//! Starts an S3 server that keeps its objects in memory, behind a relay, and says where in a line of
//! JSON. Then it answers each line of its input with one: `put DIR` moves a copy of a directory
//! into the bucket and tells the bytes, `speed MILLISECONDS BYTES` sets the latency and the bytes a
//! second (0 for no limit), `requests` tells how many came in. It ends with its input.
#![allow(
    clippy::print_stdout,
    reason = "a program that is spoken with on the command line"
)]

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::storage::{BUCKET, Storage};

fn main() -> Result<()> {
    let storage = Storage::s3_in_memory();
    let server = storage.server();
    let place = serde_json::json!({
        "uri": storage.uri(),
        "bucket": BUCKET,
        "endpoint": storage.relay().endpoint(),
        "region": server.region,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
    });
    say(&place.to_string())?;
    for line in io::stdin().lock().lines() {
        say(&answer(&storage, &line?)?)?;
    }
    Ok(())
}

fn answer(storage: &Storage, line: &str) -> Result<String> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match verb {
        "put" => Ok(put(storage, Path::new(rest), Path::new(""))?.to_string()),
        "requests" => Ok(storage.requests().to_string()),
        "speed" => {
            let (latency, bytes) = rest.split_once(' ').context("speed MILLISECONDS BYTES")?;
            let bytes: u64 = bytes.parse().context("bytes a second")?;
            let relay = storage.relay();
            relay.set_latency(Duration::from_millis(latency.parse().context("latency")?));
            relay.set_bandwidth((bytes > 0).then_some(bytes));
            Ok("set".to_owned())
        }
        _ => bail!("'{line}' is not put DIR, requests, or speed MILLISECONDS BYTES"),
    }
}

/// Puts all files below a directory; returns their bytes.
fn put(storage: &Storage, root: &Path, below: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(root.join(below)).context("directory to put")? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            bytes += put(storage, root, &name)?;
        } else {
            let content = fs::read(entry.path()).context("file to put")?;
            storage.put_bytes(&name, &content);
            bytes += content.len() as u64;
        }
    }
    Ok(bytes)
}

fn say(line: &str) -> Result<()> {
    println!("{line}");
    io::stdout().flush().context("whoever asked is gone")
}
