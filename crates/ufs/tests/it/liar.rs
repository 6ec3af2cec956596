// SPDX-License-Identifier: Apache-2.0
//! A server that answers what a test tells it to, and how each driver is opened there.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use testkit::rigs::Scripted;
pub(crate) use testkit::rigs::{Asked, End, Told, told};
use tokio_rustls::TlsAcceptor;
use types::{SystemClock, VersionTag};
use ufs::{Secrets, Settings, UnderStorage, open, open_with};

/// Makes an answer of S3 that refuses.
pub(crate) fn refused(status: &str, code: &str, message: &str) -> Told {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    told(status, &[], body.as_bytes())
}

/// Makes the right answer to a ranged GET of `content` with this ETag.
pub(crate) fn honest(asked: &Asked, content: &[u8], etag: &str) -> Told {
    let (first, last) = asked.range();
    let range = format!("bytes {first}-{last}/{}", content.len());
    let etag = format!("\"{etag}\"");
    let headers = [("Content-Range", range.as_str()), ("ETag", etag.as_str())];
    told("206 Partial Content", &headers, &content[first..=last])
}

/// A running server.
pub(crate) struct Liar(Scripted);

impl Deref for Liar {
    type Target = Scripted;

    fn deref(&self) -> &Scripted {
        &self.0
    }
}

impl Liar {
    /// Starts it; `script` gets the number of the request, from 0, and the request.
    pub(crate) async fn start(
        script: impl Fn(usize, &Asked) -> Told + Send + Sync + 'static,
    ) -> Self {
        Liar(Scripted::start(script).await)
    }

    /// Starts it with TLS.
    pub(crate) async fn start_with(
        tls: TlsAcceptor,
        script: impl Fn(usize, &Asked) -> Told + Send + Sync + 'static,
    ) -> Self {
        Liar(Scripted::start_with(Some(tls), script).await)
    }

    /// Opens bucket `b` there; a request waits 300 ms for a sign of life.
    pub(crate) async fn open(&self) -> Arc<dyn UnderStorage> {
        self.open_with(&[]).await.unwrap()
    }

    /// The same, with more options.
    pub(crate) async fn open_with(
        &self,
        more: &[(&str, &str)],
    ) -> types::Result<Arc<dyn UnderStorage>> {
        let options = [
            ("endpoint", self.endpoint()),
            ("access_key_id", "id"),
            ("secret_access_key", "hunter2"),
            ("session_token", "tok3n"),
        ];
        let options: Vec<_> = options.iter().chain(more).copied().collect();
        self.open_as("s3://b/", &options).await
    }

    /// Opens another storage with these options and no others.
    pub(crate) async fn open_as(
        &self,
        uri: &str,
        options: &[(&str, &str)],
    ) -> types::Result<Arc<dyn UnderStorage>> {
        open(&settings(uri, options), Arc::new(SystemClock)).await
    }

    /// Opens it with more options, which are secrets and may be asked for again.
    pub(crate) async fn open_by_reference(
        &self,
        uri: &str,
        options: &[(&str, &str)],
        secrets: Secrets,
    ) -> Arc<dyn UnderStorage> {
        let mut settings = settings(uri, options);
        settings.options.extend(secrets().unwrap());
        let opened = open_with(&settings, Some(secrets), Arc::new(SystemClock));
        opened.await.unwrap()
    }
}

fn settings(uri: &str, options: &[(&str, &str)]) -> Settings {
    Settings {
        uri: uri.into(),
        options: options
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        request_timeout: Duration::from_millis(300),
        max_connections: 4,
    }
}

/// Returns the version of an object of `size` bytes with ETag `v1`.
pub(crate) fn v1(size: usize) -> VersionTag {
    VersionTag {
        etag: Some("v1".into()),
        mtime_ns: 0,
        size: size as u64,
    }
}
