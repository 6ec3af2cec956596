// SPDX-License-Identifier: Apache-2.0
//! What is said of the cached bytes of a path: TTL, quota, priority.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The body of `POST /v1/rules/set`. What is not given stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRule {
    /// Path in the tree of a file or a directory; `/` is everything.
    pub path: String,
    /// How long after it was cached a file is dropped from the cache.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
    /// The most bytes that may be cached of the path.
    #[serde(default)]
    pub quota_bytes: Option<u64>,
    /// `low`, `normal` or `high`: what gives way first when the cache is full.
    #[serde(default)]
    pub priority: Option<String>,
}

/// The body of `POST /v1/rules/remove`: takes back what is named; all, when nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveRule {
    /// Path in the tree.
    pub path: String,
    /// Take the TTL back.
    #[serde(default)]
    pub ttl: bool,
    /// Take the quota back.
    #[serde(default)]
    pub quota: bool,
    /// Take the priority back.
    #[serde(default)]
    pub priority: bool,
}

/// What is said of a path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rule {
    /// Path in the tree.
    pub path: String,
    /// How long after it was cached a file is dropped from the cache.
    pub ttl_seconds: Option<u64>,
    /// The most bytes that may be cached of the path.
    pub quota_bytes: Option<u64>,
    /// `low`, `normal` or `high`.
    pub priority: Option<String>,
    /// What the cache holds of the path, in whole blocks of the disk.
    pub cached_bytes: u64,
}

/// The answer to `GET /v1/rules`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RuleList {
    /// Where the tree hangs.
    pub mount_point: String,
    /// What is said of paths.
    pub rules: Vec<Rule>,
}

/// What holds at a path, by rules of its own or of paths around it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RuleInForce {
    /// How long after it was cached a file is dropped from the cache.
    pub ttl_seconds: Option<u64>,
    /// The most bytes that may be cached of `quota_path`.
    pub quota_bytes: Option<u64>,
    /// The innermost path with a quota that this path is or lies in.
    pub quota_path: Option<String>,
    /// `low`, `normal` or `high`.
    pub priority: Option<String>,
}
