//! The addon.

use napi_derive::napi;

/// x
#[napi]
pub fn list_devices() -> String {
    "[]".into()
}
