// SPDX-License-Identifier: Apache-2.0
//! Test suites of others for file systems, built once and kept beside the servers.

use std::path::PathBuf;

use anyhow::Result;

use super::installed::cargo_program;

const PJDFSTEST: &str = "pjdfstest@0.2.2";
const FSX: &str = "fsx@0.3.2";

/// Returns pjdfstest: what each call of a POSIX file system has to answer.
///
/// # Errors
/// When it is missing and cannot be built.
pub fn pjdfstest() -> Result<PathBuf> {
    cargo_program(PJDFSTEST)
}

/// Returns fsx: random operations on one file, each read compared with what must be there.
///
/// # Errors
/// As [`pjdfstest`].
pub fn fsx() -> Result<PathBuf> {
    cargo_program(FSX)
}
