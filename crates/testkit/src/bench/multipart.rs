// SPDX-License-Identifier: Apache-2.0
//! A multipart upload by the barest client: [`Connection`], and URLs that are signed.
//!
//! A server begins no upload for strangers. Signing the URL leaves nothing to compute over the bytes.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use reqsign_aws_v4::{Credential, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, Signer};

use super::http::Connection;
use super::workload::in_parallel;
use crate::storage::Storage;

/// Longer than any measurement.
const VALID: Duration = Duration::from_secs(3600);

/// Signs for one storage.
#[derive(Debug)]
pub(super) struct Uploader {
    endpoint: String,
    signer: Signer<Credential>,
    runtime: tokio::runtime::Runtime,
}

impl Uploader {
    pub(super) fn new(storage: &Storage) -> Result<Uploader> {
        let server = storage.server();
        let credentials = StaticCredentialProvider::new(&server.access_key, &server.secret_key);
        let signer = RequestSigner::new("s3", &server.region);
        Ok(Uploader {
            endpoint: storage.relay().endpoint().trim_end_matches('/').to_owned(),
            signer: Signer::new(Context::new(), credentials, signer),
            runtime: tokio::runtime::Builder::new_current_thread().build()?,
        })
    }

    /// Uploads bytes in parts of a length, so many at once.
    pub(super) fn upload(
        &self,
        path: &str,
        bytes: &[u8],
        part: usize,
        connections: usize,
    ) -> Result<()> {
        let (mut first, mut body) = (Connection::new(&self.endpoint), Vec::new());
        let begin = self.signed("POST", &format!("{path}?uploads"))?;
        first.send("POST", &begin, &[], &mut body)?;
        let answer = String::from_utf8_lossy(&body).into_owned();
        let id = answer.split_once("<UploadId>").and_then(|(_, rest)| {
            let (id, _) = rest.split_once('<')?;
            Some(id)
        });
        let id = id.with_context(|| format!("no id of an upload in {answer}"))?;
        let parts: Vec<usize> = (0..bytes.len().div_ceil(part)).collect();
        let tags = Mutex::new(vec![String::new(); parts.len()]);
        in_parallel(
            &parts,
            connections,
            || (Connection::new(&self.endpoint), Vec::new()),
            |(connection, body), index| {
                let number = index + 1;
                let target = format!("{path}?partNumber={number}&uploadId={id}");
                let target = self.signed("PUT", &target)?;
                let start = index * part;
                let piece = &bytes[start..(start + part).min(bytes.len())];
                let tag = connection.send("PUT", &target, piece, body)?;
                let tag = tag.context("a part without an ETag")?;
                tags.lock().expect("nobody panics")[index] = tag;
                Ok(())
            },
        )?;
        let mut list = "<CompleteMultipartUpload>".to_owned();
        for (index, tag) in tags.into_inner().expect("nobody panics").iter().enumerate() {
            let number = index + 1;
            write!(
                list,
                "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            )?;
        }
        list += "</CompleteMultipartUpload>";
        let end = self.signed("POST", &format!("{path}?uploadId={id}"))?;
        first.send("POST", &end, list.as_bytes(), &mut body)?;
        Ok(())
    }

    /// Returns a path with a signature in its query.
    fn signed(&self, method: &str, path: &str) -> Result<String> {
        let uri = format!("{}{path}", self.endpoint);
        let request = http::Request::builder().method(method).uri(uri).body(())?;
        let (mut head, ()) = request.into_parts();
        self.runtime
            .block_on(self.signer.sign(&mut head, Some(VALID)))
            .context("sign")?;
        let signed = head.uri.path_and_query().context("a path")?;
        Ok(signed.as_str().to_owned())
    }
}
