// SPDX-License-Identifier: Apache-2.0
//! What commands share that wait long for a daemon: which one is meant, and a line of progress.

use std::future::Future;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use gateway::{Client, wire};
use indicatif::ProgressBar;

use super::mounts::daemons;
use crate::cli::{DaemonChoice, RemoteArgs};
use crate::records::Record;
use crate::usage::{if_invalid, wrong};

/// How often a daemon is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A status is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// Returns the daemon that is meant.
pub(super) fn one_daemon(dir: Option<&Path>, run_dir: Option<&Path>) -> Result<Record> {
    let choice = DaemonChoice {
        mount_point: dir.map(Path::to_owned),
    };
    let mut found = daemons(&choice, run_dir)?;
    if found.len() > 1 {
        let points = found
            .iter()
            .map(|one| one.mount_point.display().to_string());
        let points = points.collect::<Vec<_>>().join(", ");
        bail!("several daemons run: name the mount point of one: {points}");
    }
    match found.pop() {
        Some(daemon) => Ok(daemon),
        None => bail!("no daemon of this user runs; start one with 'forebay mount URI DIR'"),
    }
}

/// Returns a client of the daemon that is meant, on this machine or elsewhere.
pub(super) fn one_client(
    dir: Option<&Path>,
    remote: &RemoteArgs,
    run_dir: Option<&Path>,
) -> Result<Client> {
    match remote_client(remote)? {
        Some(client) => Ok(client),
        None => Ok(Client::new(&one_daemon(dir, run_dir)?.socket)),
    }
}

/// Returns a client of the daemon elsewhere that flags name.
pub(super) fn remote_client(remote: &RemoteArgs) -> Result<Option<Client>> {
    let Some(url) = &remote.admin else {
        return Ok(None);
    };
    let needs = |flag: &str| wrong(format!("--admin {url} needs {flag} FILE too"));
    let token = remote.admin_token_file.as_deref();
    let token = token.ok_or_else(|| needs("--admin-token-file"))?;
    let ca = remote.admin_ca.as_deref();
    let ca = ca.ok_or_else(|| needs("--admin-ca"))?;
    let client = Client::remote(url, token, ca).map_err(if_invalid)?;
    Ok(Some(client))
}

/// Waits for an answer, and shows on a terminal what `describe` makes of the status meanwhile.
pub(super) async fn while_waiting<T>(
    answer: impl Future<Output = T>,
    (client, is_quiet): (&Client, bool),
    describe: impl Fn(&wire::Status) -> Option<String>,
) -> T {
    if is_quiet || !std::io::stderr().is_terminal() {
        return answer.await;
    }
    let bar = ProgressBar::new_spinner();
    let mut answer = std::pin::pin!(answer);
    loop {
        tokio::select! {
            done = &mut answer => {
                bar.finish_and_clear();
                return done;
            }
            () = tokio::time::sleep(LOOK_EVERY) => {
                if let Ok(status) = client.status(PATIENCE).await
                    && let Some(text) = describe(&status)
                {
                    bar.set_message(text);
                }
                bar.tick();
            }
        }
    }
}
