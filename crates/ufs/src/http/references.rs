// SPDX-License-Identifier: Apache-2.0
//! Secrets that were given by reference: read again when the storage refuses what they were.
//!
//! Who asks is found in the options; here it is found again with what the references stand for
//! then, so that a secret that was replaced in its file needs no new mount. A storage that denies
//! something for another reason costs a look at the file each time, and nothing else: what did not
//! change is not tried again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use http::request::Parts;
use types::Result;

use super::Outcome;
use super::credentials::Authorize;
use crate::{SECRET_OPTIONS, Secrets, Settings};

/// So many texts are hidden at most: those of the secrets that were read last.
const HIDDEN_MAX: usize = 16;

/// What must not show in any message.
#[derive(Default)]
pub(crate) struct Hidden(RwLock<Vec<String>>);

impl Hidden {
    /// Hides these.
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Arc<Self> {
        let hidden = Hidden::default();
        hidden.add(secrets);
        Arc::new(hidden)
    }

    /// Hides these as well.
    pub(crate) fn add(&self, secrets: impl IntoIterator<Item = String>) {
        let mut hidden = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for secret in secrets {
            if !secret.is_empty() && !hidden.contains(&secret) {
                hidden.push(secret);
            }
        }
        let too_many = hidden.len().saturating_sub(HIDDEN_MAX);
        hidden.drain(..too_many);
    }

    /// Takes them out of a text, should a storage echo them.
    pub(crate) fn hide(&self, text: String) -> String {
        let hidden = self.0.read().unwrap_or_else(PoisonError::into_inner);
        hidden.iter().fold(text, |text, secret| {
            text.replace(secret.as_str(), "(hidden)")
        })
    }
}

/// Who asks, and what of it must not show.
pub(crate) struct Who {
    /// Nobody when there is none.
    pub(crate) authorize: Option<Box<dyn Authorize>>,
    pub(crate) hidden: Arc<Hidden>,
}

/// What options say of who asks, and the secrets among them.
pub(crate) type Found = (Option<Box<dyn Authorize>>, Vec<String>);

type Find = dyn Fn(&Settings) -> Result<Found> + Send + Sync;

impl Who {
    /// Finds who asks in the options, and again with other secrets when these are refused.
    pub(crate) fn new(
        settings: &Settings,
        secrets: Option<Secrets>,
        find: impl Fn(&Settings) -> Result<Found> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (authorize, texts) = find(settings)?;
        let hidden = Hidden::new(texts);
        let authorize = match (authorize, secrets) {
            (Some(first), Some(secrets)) => Some(Box::new(Referenced {
                secrets,
                find: Box::new(find),
                known: Mutex::new(settings.clone()),
                current: RwLock::new(first.into()),
                hidden: Arc::clone(&hidden),
                round: AtomicU64::new(0),
            }) as Box<dyn Authorize>),
            (authorize, _) => authorize,
        };
        Ok(Who { authorize, hidden })
    }
}

/// Signs with what the references stand for.
struct Referenced {
    secrets: Secrets,
    find: Box<Find>,
    /// The settings with the secrets that are in use. Held while they are read again, so that
    /// requests that are refused together wait for the one that reads.
    known: Mutex<Settings>,
    /// Locked for as long as it takes to clone or replace it.
    current: RwLock<Arc<dyn Authorize>>,
    hidden: Arc<Hidden>,
    round: AtomicU64,
}

impl Referenced {
    fn current(&self) -> Arc<dyn Authorize> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Reads the secrets; returns whether they are others than those in use.
    fn read_again(&self, known: &mut Settings) -> std::result::Result<bool, String> {
        let mut settings = known.clone();
        let is_secret = |name: &str| SECRET_OPTIONS.contains(&name);
        settings.options.retain(|name, _| !is_secret(name));
        settings.options.extend((self.secrets)()?);
        if settings.options == known.options {
            return Ok(false);
        }
        let found = (self.find)(&settings).map_err(|error| error.to_string())?;
        let (Some(authorize), texts) = found else {
            return Err("they say no longer who asks".into());
        };
        self.hidden.add(texts);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = authorize.into();
        *known = settings;
        Ok(true)
    }
}

#[async_trait]
impl Authorize for Referenced {
    async fn sign(&self, parts: &mut Parts) -> Outcome<()> {
        self.current().sign(parts).await
    }

    fn renew(&self, round: u64) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.round() != round {
            return true;
        }
        let renewed = self.read_again(&mut known).unwrap_or_else(|why| {
            tracing::warn!(why, "the credentials of a mount cannot be read again");
            false
        });
        let current = self.current();
        let renewed = renewed || current.renew(current.round());
        self.round.fetch_add(u64::from(renewed), Ordering::Relaxed);
        renewed
    }

    fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    fn heeds_denials(&self) -> bool {
        true
    }

    fn tells_time(&self) -> bool {
        self.current().tells_time()
    }
}
