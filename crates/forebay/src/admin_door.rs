// SPDX-License-Identifier: Apache-2.0
//! The admin API over TCP, where `--admin-listen` asks for it: the listener, the token, the
//! certificate.
//!
//! There is no way to have it without either: who gives no files has them made, beside the other state
//! of the mount, and is told where they are.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use gateway::Node;
use gateway::tls::{self, Files, Identity};
use gateway::token::Token;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::cli::AdminArgs;
use crate::places;
use crate::usage::wrong;

/// Where and how it is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AdminPlan {
    listen: SocketAddr,
    token_file: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    /// Whether the certificate is made when it is not there.
    makes: bool,
}

/// It, before anybody is let in.
pub(crate) struct AdminDoor {
    listener: TcpListener,
    identity: Identity,
    token: Token,
    /// What to tell the user.
    pub(crate) notice: String,
}

impl AdminPlan {
    /// Makes the plan of flags, and of what a file says.
    pub(crate) fn of(
        flags: &AdminArgs,
        file: &AdminArgs,
        state_file: Option<&Path>,
    ) -> Result<Option<AdminPlan>> {
        let or = |flag: &Option<PathBuf>, file: &Option<PathBuf>| {
            let path = flag.clone().or_else(|| file.clone());
            let absolute = path
                .map(|path| std::path::absolute(&path).with_context(|| path.display().to_string()));
            absolute.transpose()
        };
        let token_file = or(&flags.admin_token_file, &file.admin_token_file)?;
        let certificate = or(&flags.admin_certificate, &file.admin_certificate)?;
        let key = or(&flags.admin_key, &file.admin_key)?;
        let Some(listen) = flags.admin_listen.or(file.admin_listen) else {
            let for_nothing = [&token_file, &certificate, &key]
                .iter()
                .any(|it| it.is_some());
            return match for_nothing {
                true => Err(wrong(
                    "the admin API is not served over TCP: give --admin-listen too",
                )),
                false => Ok(None),
            };
        };
        let beside = |what| {
            let file = state_file.map(|file| places::admin_file(file, what));
            let nowhere = || {
                wrong(format!(
                    "there is no place to keep the {what} of --admin-listen: give --state-dir"
                ))
            };
            file.ok_or_else(nowhere)
        };
        let token_file = token_file.map_or_else(|| beside("token"), Ok)?;
        let (certificate, key, makes) = match (certificate, key) {
            (Some(certificate), Some(key)) => (certificate, key, false),
            (None, None) => (beside("certificate.pem")?, beside("key.pem")?, true),
            _ => {
                return Err(wrong(
                    "give both --admin-certificate and --admin-key, or none",
                ));
            }
        };
        Ok(Some(AdminPlan {
            listen,
            token_file,
            certificate,
            key,
            makes,
        }))
    }
}

impl AdminDoor {
    /// Listens, and reads or makes the token and the certificate.
    pub(crate) async fn open(plan: &AdminPlan) -> Result<AdminDoor> {
        let AdminPlan {
            listen,
            token_file,
            certificate,
            key,
            makes,
        } = plan;
        let token = Token::read_or_make(token_file)?;
        let files = Files { certificate, key };
        let identity = match makes {
            true => Identity::read_or_make(files, own_names(*listen))?,
            false => Identity::read(files)?,
        };
        let what = || format!("serve the admin API at '{listen}': give another --admin-listen");
        let listener = TcpListener::bind(listen).await.with_context(what)?;
        let address = listener.local_addr().with_context(what)?;
        let notice = format!(
            "the admin API is served at https://{address} to who has the token in {}; its certificate is \
             {} with the SHA-256 {}",
            token_file.display(),
            certificate.display(),
            identity.fingerprint
        );
        Ok(AdminDoor {
            listener,
            identity,
            token,
            notice,
        })
    }

    /// Answers who has the token, until `ended` resolves.
    pub(crate) async fn serve(
        self,
        node: Arc<dyn Node>,
        ended: impl Future<Output = ()> + Send + 'static,
    ) {
        let served = tls::serve(self.listener, self.identity, self.token, node, ended).await;
        if let Err(error) = served {
            tracing::error!("{error}");
        }
    }
}

/// Returns the names that a client may know this machine by.
fn own_names(listen: SocketAddr) -> Vec<String> {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    names.push(listen.ip().to_string());
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    names.extend(Some(host).filter(|host| !host.is_empty() && host.chars().all(is_name)));
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_lies_beside_the_state_and_half_of_a_pair_is_refused() {
        let none = AdminArgs::default();
        let state = Path::new("/var/lib/forebay/data-1.mounts.json");
        assert_eq!(AdminPlan::of(&none, &none, Some(state)).unwrap(), None);
        let listen = AdminArgs {
            admin_listen: Some("127.0.0.1:0".parse().unwrap()),
            ..AdminArgs::default()
        };
        let plan = AdminPlan::of(&none, &listen, Some(state)).unwrap().unwrap();
        let token = Path::new("/var/lib/forebay/data-1.admin-token");
        assert_eq!((plan.token_file.as_path(), plan.makes), (token, true));
        assert!(AdminPlan::of(&listen, &none, None).is_err());
        let half = AdminArgs {
            admin_key: Some("/k".into()),
            ..listen
        };
        let error = AdminPlan::of(&half, &none, Some(state)).unwrap_err();
        assert!(error.to_string().contains("--admin-certificate"), "{error}");
        let no_address = AdminArgs {
            admin_listen: None,
            ..half
        };
        let error = AdminPlan::of(&no_address, &none, Some(state)).unwrap_err();
        assert!(error.to_string().contains("--admin-listen"), "{error}");
    }
}
