// SPDX-License-Identifier: Apache-2.0
//! Keeps the counters of a daemon every few seconds, for who looks at it later.

use std::sync::Arc;

use gateway::Node;
use gateway::history::STEP;

use crate::node::DaemonNode;

/// Keeps the counters until the mount is gone.
pub(crate) async fn keep(node: Arc<DaemonNode>) {
    let ended = node.ended();
    let keeping = async {
        loop {
            node.keep_history(&node.status());
            tokio::time::sleep(STEP).await;
        }
    };
    tokio::select! {
        () = ended => {}
        () = keeping => {}
    }
}
