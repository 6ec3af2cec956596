// SPDX-License-Identifier: Apache-2.0
//! File systems of others that are built from their modules, to be measured beside the product.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::installed;

const JUICEFS: &str = "github.com/juicedata/juicefs@v1.3.1";

/// Returns JuiceFS, if `scripts/setup peers` has built it.
///
/// # Errors
/// When it has not.
pub fn juicefs() -> Result<PathBuf> {
    let name = JUICEFS.rsplit('/').next().unwrap_or(JUICEFS);
    let program = installed::home()?.join("bin").join(name);
    let found = program.is_file().then_some(program);
    found.context("it is not built here; scripts/setup peers does")
}
