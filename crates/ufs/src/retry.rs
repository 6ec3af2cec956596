// SPDX-License-Identifier: Apache-2.0
//! Sending again what may succeed.
