// SPDX-License-Identifier: Apache-2.0
//! The barest client: HTTP/1.1 over one blocking connection, without signatures or retries.
//!
//! It shows what the wire gives to somebody who wants nothing but the bytes. The bucket is opened to
//! everybody for it, so that it has nothing to compute.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};

/// A connection to a storage that is kept for many requests.
#[derive(Debug)]
pub struct Connection {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    /// Prepares a connection to `http://address`.
    pub fn new(endpoint: &str) -> Self {
        let address = endpoint
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        Connection {
            address,
            stream: None,
        }
    }

    /// Gets `path`, or the given bytes of it, into `body`, whose earlier content is lost.
    pub fn get(&mut self, path: &str, range: Option<(u64, u64)>, body: &mut Vec<u8>) -> Result<()> {
        let range = range.map_or_else(String::new, |(first, len)| {
            format!("Range: bytes={first}-{}\r\n", first + len - 1)
        });
        self.exchange(&format!("GET {path}"), &range, &[], body)?;
        Ok(())
    }

    /// Sends bytes with `PUT` or `POST` to a path, and returns the ETag of the answer, if it has one.
    /// Its body comes into `body`.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        bytes: &[u8],
        body: &mut Vec<u8>,
    ) -> Result<Option<String>> {
        let length = format!("Content-Length: {}\r\n", bytes.len());
        self.exchange(&format!("{method} {path}"), &length, bytes, body)
    }

    fn exchange(
        &mut self,
        target: &str,
        more: &str,
        bytes: &[u8],
        body: &mut Vec<u8>,
    ) -> Result<Option<String>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address).context("connect")?;
                stream.set_nodelay(true)?;
                BufReader::with_capacity(64 * 1024, stream)
            }
        };
        let head = format!("{target} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", self.address);
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(bytes)?;

        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut length, mut close, mut etag) = (None, false, None);
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok(),
                "connection" => close = value.trim().eq_ignore_ascii_case("close"),
                "etag" => etag = Some(value.trim().to_owned()),
                _ => (),
            }
        }
        body.resize(length.context("an answer without a length")?, 0);
        stream.read_exact(body).context("body")?;
        if !status.starts_with("20") {
            bail!("{target}: {status} {}", String::from_utf8_lossy(body));
        }
        self.stream = (!close).then_some(stream);
        Ok(etag)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_serves_several_requests() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            for body in ["one", "three"] {
                let mut line = String::new();
                while stream.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream
                    .get_mut()
                    .write_all((head + body).as_bytes())
                    .unwrap();
            }
        });
        let (mut connection, mut body) = (Connection::new(&endpoint), Vec::new());
        for expected in ["one", "three"] {
            connection.get("/x", Some((0, 5)), &mut body).unwrap();
            assert_eq!(body, expected.as_bytes());
        }
        server.join().unwrap();
    }
}
