// SPDX-License-Identifier: Apache-2.0
//! Driver.
use crate::{Settings, UnderStorage};
use std::sync::Arc;
use types::{Clock, Error, Result};
pub(crate) async fn open(
    _: std::path::PathBuf,
    _: Settings,
    _: Arc<dyn Clock>,
) -> Result<Arc<dyn UnderStorage>> {
    Err(Error::internal("not built yet"))
}
