//! Messages as JSON with their arrays beside it.

use serde::de::DeserializeOwned;

use super::optional;
use crate::array::encoding;
pub(super) use crate::array::encoding::{Sink, write};

/// A message from JSON and the bytes of its arrays.
pub(super) fn read<T: DeserializeOwned>(text: &[u8], arrays: Vec<u8>) -> serde_json::Result<T> {
    encoding::read(arrays, || match optional::mentioned(text) {
        false => serde_json::from_slice(text),
        true => serde_json::from_slice(text).and_then(|mut message| {
            optional::skip(&mut message);
            serde_json::from_value(message)
        }),
    })
}
