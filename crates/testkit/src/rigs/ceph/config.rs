// SPDX-License-Identifier: Apache-2.0
//! The configuration of a Ceph cluster that is small, alone, and gone after the test.

use std::path::Path;

use anyhow::Result;

use super::free_port;

/// Where the daemons listen that must be found by others. The rest pick ports of their own.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) gateway: u16,
    pub(super) monitor: u16,
    /// The monitor's older protocol.
    pub(super) old_monitor: u16,
}

impl Ports {
    /// Finds three that are free.
    pub(super) fn free() -> Result<Self> {
        Ok(Ports {
            gateway: free_port()?,
            monitor: free_port()?,
            old_monitor: free_port()?,
        })
    }
}

/// Returns the configuration file.
pub(super) fn file(dir: &Path, fsid: &str, ports: &Ports) -> String {
    let dir = dir.display();
    let Ports {
        gateway,
        monitor,
        old_monitor,
    } = ports;
    format!(
        "[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor},v1:127.0.0.1:{old_monitor}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {dir}/keyring
run dir = {dir}/run
admin socket = {dir}/run/$name.asok
log file = {dir}/log/$name.log
mon data = {dir}/mon
mgr data = {dir}/mgr
osd data = {dir}/osd
mds data = {dir}/mds
# One copy on one disk, and no complaints about it.
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon warn on pool no redundancy = false
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
auth allow insecure global id reclaim = false
mgr initial modules =
osd objectstore = memstore
memstore device bytes = 1073741824
osd memory target = 939524096
osd class load list = *
osd class default list = *
mds cache memory limit = 67108864
[client.rgw]
rgw data = {dir}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw enable usage log = false
"
    )
}
