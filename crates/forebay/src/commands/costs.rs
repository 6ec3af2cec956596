// SPDX-License-Identifier: Apache-2.0
//! `forebay costs`: what the storages were asked for, what that costs by the user's own prices, and what
//! it would have cost without a cache.
//!
//! The counts are those of the status, since the daemon started. Without a cache every byte that was
//! read would have been fetched, and each open or read that needed no request would have been at least
//! one: what is said to be saved is that, and so a lower bound.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use gateway::wire;
use serde::{Deserialize, Serialize};
use types::ByteSize;

use super::mounts::block_on;
use super::waiting::one_client;
use crate::cli::CostsArgs;
use crate::usage;

/// A status is answered from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// Kinds of requests, as prices and metrics name them.
const KINDS: [&str; 8] = [
    "list", "head", "get", "put", "copy", "delete", "upload", "other",
];

/// Prices of a storage. What is not named costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Prices {
    /// As it is to be shown, such as `USD`.
    currency: String,
    /// Of a thousand requests, by kind.
    per_1000: BTreeMap<String, f64>,
    /// Of 1,000,000,000 bytes that came over the wire.
    per_gb_read: f64,
    /// The same of those that went over it.
    per_gb_written: f64,
}

/// A mount of the ledger.
#[derive(Debug, PartialEq, Serialize)]
struct Line {
    at: String,
    uri: String,
    requests: BTreeMap<&'static str, u64>,
    bytes_read: u64,
    bytes_written: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
}

/// What the cache saved, at least.
#[derive(Debug, PartialEq, Serialize)]
struct Saved {
    requests: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
}

/// What is printed with `--json`.
#[derive(Debug, PartialEq, Serialize)]
struct Ledger {
    since_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    mounts: Vec<Line>,
    saved: Saved,
}

/// Prints the ledger of one daemon.
pub(crate) fn run(args: &CostsArgs, run_dir: Option<&Path>) -> Result<()> {
    let prices = args.prices.as_deref().map(read).transpose()?;
    let client = one_client(args.dir.as_deref(), &args.remote, run_dir)?;
    let status = block_on(client.status(PATIENCE))??;
    let ledger = Ledger::of(&status, prices.as_ref());
    if args.json {
        let text = serde_json::to_string_pretty(&ledger).context("write JSON")?;
        return super::answer(text + "\n");
    }
    super::answer(ledger.text())
}

fn read(path: &Path) -> Result<Prices> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the prices '{}'", path.display()))?;
    parse(&text).map_err(|why| usage::wrong(format!("prices '{}': {why}", path.display())))
}

fn parse(text: &str) -> Result<Prices, String> {
    let prices: Prices = toml::from_str(text).map_err(|error| error.to_string())?;
    let unknown = prices
        .per_1000
        .keys()
        .find(|kind| !KINDS.contains(&kind.as_str()));
    if let Some(kind) = unknown {
        return Err(format!(
            "'{kind}' is no kind of request; there are {}",
            KINDS.join(", ")
        ));
    }
    let of_bytes = [&prices.per_gb_read, &prices.per_gb_written];
    let mut numbers = prices.per_1000.values().chain(of_bytes);
    let wrong = numbers
        .find(|price| !price.is_finite() || **price < 0.0)
        .copied();
    drop(numbers);
    match wrong {
        Some(price) => Err(format!("{price} is no price")),
        None => Ok(prices),
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
impl Prices {
    fn of_requests(&self, kind: &str, count: u64) -> f64 {
        self.per_1000.get(kind).copied().unwrap_or(0.0) * count as f64 / 1000.0
    }

    fn of_bytes(&self, read: u64, written: u64) -> f64 {
        (self.per_gb_read * read as f64 + self.per_gb_written * written as f64) / 1e9
    }
}

impl Ledger {
    fn of(status: &wire::Status, prices: Option<&Prices>) -> Ledger {
        let mounts = status.mounts.iter().map(|mount| Line::of(mount, prices));
        let cache = &status.cache;
        let bytes = cache.served_bytes.saturating_sub(cache.fetched_bytes);
        let cost =
            |prices: &Prices| prices.of_requests("get", cache.hits) + prices.of_bytes(bytes, 0);
        Ledger {
            since_seconds: status.uptime_seconds,
            currency: prices.map(|prices| prices.currency.clone()),
            mounts: mounts.collect(),
            saved: Saved {
                requests: cache.hits,
                bytes,
                cost: prices.map(cost),
            },
        }
    }

    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["STORAGE", "REQUESTS", "READ", "WRITTEN", "COST"]);
        for line in &self.mounts {
            let asked = line.requests.iter().filter(|(_, count)| **count > 0);
            let asked: Vec<_> = asked
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            table.add_row([
                line.uri.clone(),
                asked.join(", "),
                ByteSize(line.bytes_read).to_string(),
                ByteSize(line.bytes_written).to_string(),
                self.money(line.cost),
            ]);
        }
        table.add_row([
            "saved by the cache, at least".to_owned(),
            format!("{} get", self.saved.requests),
            ByteSize(self.saved.bytes).to_string(),
            String::new(),
            self.money(self.saved.cost),
        ]);
        let hint = match self.currency {
            Some(_) => "",
            None => {
                "with '--prices FILE' it is told in money; 'forebay costs --help' shows such a file\n"
            }
        };
        format!("{table}\n{hint}")
    }

    fn money(&self, cost: Option<f64>) -> String {
        match (cost, &self.currency) {
            (Some(cost), Some(currency)) => format!("{cost:.4} {currency}").trim_end().to_owned(),
            _ => "-".to_owned(),
        }
    }
}

impl Line {
    fn of(mount: &wire::Mount, prices: Option<&Prices>) -> Line {
        let count = mount.requests;
        let counts = [
            count.list,
            count.head,
            count.get,
            count.put,
            count.copy,
            count.delete,
            count.upload,
            count.other,
        ];
        let requests: BTreeMap<_, _> = KINDS.into_iter().zip(counts).collect();
        let cost = |prices: &Prices| {
            let asked = requests
                .iter()
                .map(|(kind, count)| prices.of_requests(kind, *count));
            asked.sum::<f64>() + prices.of_bytes(count.bytes_read, count.bytes_written)
        };
        let cost = prices.map(cost);
        Line {
            at: mount.at.clone(),
            uri: mount.uri.clone(),
            requests,
            bytes_read: count.bytes_read,
            bytes_written: count.bytes_written,
            cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: &str = "currency = 'USD'\nper_gb_read = 0.09\n\
                          [per_1000]\nget = 0.4\nlist = 5.0\n";

    #[test]
    fn requests_and_bytes_cost_what_the_user_says() {
        let prices = parse(PRICES).unwrap();
        let mut status = wire::Status::default();
        status.mounts.push(wire::Mount {
            uri: "s3://b/".into(),
            requests: wire::Requests {
                get: 5000,
                list: 100,
                put: 7,
                bytes_read: 10_000_000_000,
                ..wire::Requests::default()
            },
            ..wire::Mount::default()
        });
        status.cache.hits = 20_000;
        (status.cache.served_bytes, status.cache.fetched_bytes) = (60_000_000_000, 10_000_000_000);
        let ledger = Ledger::of(&status, Some(&prices));
        let near = |cost: Option<f64>, expected: f64| (cost.unwrap() - expected).abs() < 1e-9;
        assert!(near(ledger.mounts[0].cost, 2.0 + 0.5 + 0.9), "{ledger:?}");
        assert!(near(ledger.saved.cost, 8.0 + 4.5), "{ledger:?}");
        let text = ledger.text();
        for part in ["5000 get", "7 put", "3.4000 USD", "12.5000 USD"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = Ledger::of(&status, None).text();
        assert!(
            text.contains("--prices FILE") && !text.contains("USD"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_price_table_is_refused() {
        for (text, word) in [
            ("per_1000 = { gets = 1.0 }", "'gets'"),
            ("per_gb_read = -1.0", "-1"),
            ("per_gb = 1.0", "per_gb"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(parse("").unwrap(), Prices::default());
    }
}
