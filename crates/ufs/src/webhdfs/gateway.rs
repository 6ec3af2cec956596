// SPDX-License-Identifier: Apache-2.0
//! Renames through HttpFS, which knows the old kind only.
//!
//! That kind says no, and not why, to a name that a file has, and moves into a directory of that name
//! what should have got it. So a file is replaced in steps: it is set aside under a hidden name that
//! tells its own, the new one takes the place, and what was set aside is removed. In between nothing
//! has the name. What a crash leaves set aside comes back with the next listing (`hdfs::steps`).

use http::Method;
use types::{Error, ErrorKind, NodeKind, Result};

use super::Web;
use super::answer::read_boolean;
use crate::hdfs::{HadoopFiles, HadoopStep, Seen, Taken};
use crate::http::{Ask, Outcome, percent_encode_path};
use crate::temporary::aside_name;

/// Somebody else may take a name each time that it is free; not for ever.
const TRIES: usize = 5;

/// Gives another name.
pub(super) async fn rename(
    web: &Web,
    step: &HadoopStep,
    from: &str,
    to: &str,
    taken: Taken,
) -> Result<()> {
    let refused = |kind, why: &str| Err(Error::new(kind, why).context(step.what.to_string()));
    if to.ends_with(|last: char| last <= ' ') {
        // It cuts them off, as Java's trim does, and would write somewhere else.
        let why = "HttpFS takes no name that ends with a space or a control character";
        return refused(ErrorKind::Unsupported, why);
    }
    for _ in 0..TRIES {
        let source = web.seen(step, from).await?;
        let aside = match (look(web, step, to).await?, source.kind) {
            (None, _) => None,
            (Some(_), _) if taken == Taken::Refuse => {
                return refused(ErrorKind::AlreadyExists, "the name is taken");
            }
            (Some(there), NodeKind::Directory) if there.kind == NodeKind::Directory => {
                // One that is not empty stays, and says so.
                web.delete(step, to).await?;
                None
            }
            (Some(there), _) if there.kind == NodeKind::Directory => {
                return refused(ErrorKind::IsADirectory, "a directory has that name");
            }
            (Some(_), NodeKind::Directory) => {
                return refused(ErrorKind::NotADirectory, "a file has that name");
            }
            (Some(_), _) => Some(set_aside(web, step, to).await?),
        };
        let moved = take_place(web, step, (from, source.kind), to).await;
        if let Some(aside) = &aside {
            match moved {
                Ok(true) => web.delete(step, aside).await?,
                // Unless somebody else has the name by now.
                _ => drop(old_rename(web, step, aside, to).await?),
            }
        }
        if moved? {
            return Ok(());
        }
    }
    let error = Error::new(ErrorKind::Unavailable, "others take the name all the time");
    Err(error.retryable().context(step.what.to_string()))
}

/// Gives what has a name a hidden one; returns that.
async fn set_aside(web: &Web, step: &HadoopStep, path: &str) -> Result<String> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let aside = aside_name(name).ok_or_else(|| {
        let why = "HttpFS replaces no file of so long a name; write through the name node's own web \
                   service, or hdfs://";
        Error::new(ErrorKind::Unsupported, why).context(step.what.to_string())
    })?;
    let aside = format!("{dir}/{aside}");
    // It does not matter if it is gone.
    old_rename(web, step, path, &aside).await?;
    Ok(aside)
}

/// Renames to a name that nothing should have; returns whether nothing had it.
async fn take_place(
    web: &Web,
    step: &HadoopStep,
    (from, kind): (&str, NodeKind),
    to: &str,
) -> Result<bool> {
    if !old_rename(web, step, from, to).await? {
        return match look(web, step, to).await? {
            Some(_) => Ok(false),
            None => {
                let why = "the directory to rename into is not there, or takes no more";
                let error = Error::new(ErrorKind::NotFound, why);
                Err(error.context(step.what.to_string()))
            }
        };
    }
    // A directory that came in between has it inside.
    let name = from.rsplit_once('/').map_or(from, |(_, name)| name);
    let inside = format!("{to}/{name}");
    match (look(web, step, to).await?, kind) {
        (Some(there), NodeKind::File) if there.kind == NodeKind::File => Ok(true),
        (Some(_), _) => match look(web, step, &inside).await? {
            Some(seen) if seen.kind == kind => {
                old_rename(web, step, &inside, from).await?;
                Ok(false)
            }
            _ => Ok(true),
        },
        (None, _) => {
            let why = "the file is not where it was renamed to";
            Err(Error::new(ErrorKind::Corrupt, why).context(step.what.to_string()))
        }
    }
}

async fn look(web: &Web, step: &HadoopStep, path: &str) -> Result<Option<Seen>> {
    match web.seen(step, path).await {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn old_rename(web: &Web, step: &HadoopStep, from: &str, to: &str) -> Result<bool> {
    let to = percent_encode_path(to);
    let operation = format!("RENAME&destination={to}");
    let renamed = async {
        let answer = web.order(Ask::Copy, Method::PUT, from, &operation).await?;
        let renamed: Outcome<bool> = read_boolean(&answer);
        renamed
    };
    web.attempt(step, renamed).await
}
