// SPDX-License-Identifier: Apache-2.0
//! Following an answer that points elsewhere.
//!
//! Who asks is told to the first place only: another host must not learn it. From TLS the way never
//! leads to a place without.

use http::header::LOCATION;
use http::{HeaderMap, Request};
use reqwest::Url;

use super::Outcome;
use super::fault::Fault;
use super::transport::{Ask, Leeway, Transport};

/// More hops than any storage needs: a circle.
const HOPS_MAX: usize = 5;

/// Where an answer came from.
pub(crate) struct Arrived {
    pub(crate) url: Url,
    pub(crate) answer: reqwest::Response,
}

/// Sends what `make` makes for an address and the addresses that the answers point to. `look` sees
/// the headers of each answer on the way, the last one's too.
pub(crate) async fn follow(
    transport: &Transport,
    ask: Ask,
    start: Url,
    leeway: Leeway,
    make: impl Fn(&Url) -> Outcome<Request<()>> + Send + Sync,
    mut look: impl FnMut(&HeaderMap) -> Outcome<()> + Send,
) -> Outcome<Arrived> {
    let leeway = Leeway {
        redirect: true,
        ..leeway
    };
    let (mut url, mut ask) = (start.clone(), ask);
    for _ in 0..HOPS_MAX {
        let request = make(&url)?;
        let answer = match url.origin() == start.origin() {
            true => transport.send_with(ask, request, leeway).await?,
            false => transport.send_unsigned(ask, request, leeway).await?,
        };
        look(answer.headers())?;
        if !answer.status().is_redirection() || answer.status() == 304 {
            return Ok(Arrived { url, answer });
        }
        url = next(&url, answer.headers())?;
        // One operation counts once under its own name.
        ask = Ask::Other;
    }
    Err(Fault::Unfit(
        "the storage points from place to place without end".into(),
    ))
}

/// Returns the address that an answer points to.
pub(crate) fn next(from: &Url, headers: &HeaderMap) -> Outcome<Url> {
    let place = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let url = place.and_then(|place| from.join(place).ok());
    let url = url.ok_or_else(|| Fault::WrongAnswer("an answer that points nowhere".into()))?;
    match (from.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Ok(url),
        (_, scheme) => Err(Fault::Unfit(format!(
            "the storage points to a place of scheme '{scheme}', which is not safe"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_places_are_followed() {
        let from = Url::parse("https://h/a/b").unwrap();
        let go = |place: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, place.parse().unwrap());
            next(&from, &headers).map(String::from)
        };
        assert_eq!(go("c?d").unwrap(), "https://h/a/c?d");
        assert_eq!(go("https://cdn/x").unwrap(), "https://cdn/x");
        for wrong in ["http://h/a/b", "file:///etc/passwd", "https://"] {
            assert!(go(wrong).is_err(), "{wrong}");
        }
        assert!(next(&from, &HeaderMap::new()).is_err());
    }
}
