// SPDX-License-Identifier: Apache-2.0
//! Programs that people run keep their files on the mount, and the storage has what they wrote.
//!
//! The programs are in `tests/programs`, what is done with each in `testkit::programs`. Those that
//! need a framework are with the training jobs.

use testkit::programs::{keeps_its_files, program};

#[test]
fn git_clones_commits_packs_and_pushes() {
    keeps_its_files(|| program("git.sh"));
}

#[test]
fn tar_and_rsync_keep_bytes_modes_and_times() {
    keeps_its_files(|| program("archive.sh"));
}

#[test]
fn pip_installs_a_package() {
    keeps_its_files(|| program("package.sh"));
}

#[test]
fn hdf5_is_made_appended_to_and_changed_in_place() {
    keeps_its_files(|| program("hdf5.py"));
}

#[test]
fn arrays_of_zarr_numpy_and_safetensors_are_changed_in_place() {
    keeps_its_files(|| program("arrays.py"));
}

#[test]
fn lmdb_is_shared_by_processes_that_write_and_read() {
    keeps_its_files(|| program("lightning.py"));
}

#[test]
fn locks_hold_and_many_append_to_one_file() {
    keeps_its_files(|| program("sharing.py"));
}

#[test]
fn two_processes_write_one_sqlite_database() {
    keeps_its_files(|| program("databases.py"));
}

#[test]
fn cargo_builds_a_crate_again_and_again() {
    keeps_its_files(|| program("crate.sh"));
}
