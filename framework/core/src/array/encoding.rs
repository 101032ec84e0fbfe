//! How an [`Array`] is encoded.
//!
//! In binary encodings (the state in a checkpoint) it is its element type, shape and bytes. In JSON
//! (a message to a plugin) it stands beside the text, which names element type, shape and offset.
//! The serializer tells which of the two is meant: JSON calls itself human readable. The thread
//! that writes or reads a message knows meanwhile where the arrays go or come from.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use serde::de::Error as _;
use serde::ser::{Error as _, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Array, Element};

/// Offsets of arrays are multiples of this.
const ALIGNMENT: u64 = 8;

/// Where arrays go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// Into memory.
    Memory(Vec<u8>),
    /// Into a file, from its beginning.
    File(File),
}

impl Sink {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Memory(all) => {
                all.resize(offset as usize, 0);
                all.extend_from_slice(bytes);
                Ok(())
            }
            Self::File(file) => {
                file.seek(SeekFrom::Start(offset))?;
                file.write_all(bytes)
            }
        }
    }
}

struct Outgoing {
    sink: Sink,
    end: u64,
}

thread_local! {
    static OUT: RefCell<Option<Outgoing>> = const { RefCell::new(None) };
    static IN: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// A message as JSON, its arrays into `sink`, which is given back with the bytes in it.
pub(crate) fn write<T: Serialize>(
    message: &T,
    sink: Sink,
) -> (serde_json::Result<Vec<u8>>, Sink, u64) {
    OUT.set(Some(Outgoing { sink, end: 0 }));
    let text = serde_json::to_vec(message);
    let Some(Outgoing { sink, end }) = OUT.take() else {
        unreachable!("set above, and nothing takes it meanwhile")
    };
    (text, sink, end)
}

/// Reads a message by `parse`, while `arrays` are the bytes of its arrays.
pub(crate) fn read<T>(
    arrays: Vec<u8>,
    parse: impl FnOnce() -> serde_json::Result<T>,
) -> serde_json::Result<T> {
    IN.set(Some(arrays));
    let message = parse();
    IN.take();
    message
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    element: Element,
    shape: Vec<usize>,
    offset: u64,
}

/// Bytes in one piece, which encodings of bytes copy as such.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[derive(Deserialize)]
struct Plain {
    element: Element,
    shape: Vec<usize>,
    #[serde(deserialize_with = "bytes")]
    bytes: Vec<u8>,
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Visitor;
    impl serde::de::Visitor<'_> for Visitor {
        type Value = Vec<u8>;
        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("bytes")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
    deserializer.deserialize_byte_buf(Visitor)
}

impl Serialize for Array {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let readable = serializer.is_human_readable();
        let mut out = serializer.serialize_struct("Array", 3)?;
        out.serialize_field("element", &self.element)?;
        out.serialize_field("shape", &self.shape)?;
        match readable {
            true => out.serialize_field("offset", &put(&self.bytes).map_err(S::Error::custom)?)?,
            false => out.serialize_field("bytes", &Bytes(&self.bytes))?,
        }
        out.end()
    }
}

fn put(bytes: &[u8]) -> std::io::Result<u64> {
    OUT.with_borrow_mut(|out| {
        let out = out.as_mut().ok_or_else(|| {
            std::io::Error::other(
                "an array has no place in JSON by itself: only in a plugin's message",
            )
        })?;
        let offset = out.end.next_multiple_of(ALIGNMENT);
        out.sink.put(offset, bytes)?;
        out.end = offset + bytes.len() as u64;
        Ok(offset)
    })
}

impl<'de> Deserialize<'de> for Array {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let Plain { element, shape, bytes } = Plain::deserialize(deserializer)?;
            return Ok(Self { element, shape, bytes });
        }
        let Described { element, shape, offset } = Described::deserialize(deserializer)?;
        let bytes = take(element, &shape, offset).ok_or_else(|| {
            D::Error::custom(format!(
                "an array of shape {shape:?} at {offset} goes beyond the arrays of the message"
            ))
        })?;
        Ok(Self { element, shape, bytes })
    }
}

fn take(element: Element, shape: &[usize], offset: u64) -> Option<Vec<u8>> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let from = usize::try_from(offset).ok()?;
    let to = from.checked_add(count.checked_mul(element.dtype().size_in_bytes())?)?;
    IN.with_borrow(|all| all.as_ref()?.get(from..to).map(<[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_stand_beside_the_json_aligned_and_come_back() {
        let arrays = [
            Array::from_f32([3], &[1.0, 2.0, 3.0]),
            Array::from_i64(&[7]),
            Array::from_f32([2, 0], &[]),
        ];
        let (text, sink, size) = write(&arrays, Sink::Memory(Vec::new()));
        let text = text.expect("JSON");
        let first = r#"{"element":"f32","shape":[3],"offset":0}"#;
        assert!(
            text.starts_with(format!("[{first},").as_bytes()),
            "{}",
            String::from_utf8_lossy(&text)
        );
        assert_eq!(size, 24, "12 bytes, 4 to align, 8, none");
        let bytes: Vec<u8> = [&arrays[0].bytes[..], &[0; 4], &arrays[1].bytes].concat();
        assert!(matches!(sink, Sink::Memory(all) if all == bytes));
        assert_eq!(
            read(bytes.clone(), || serde_json::from_slice::<Vec<Array>>(&text)).expect("arrays"),
            arrays
        );
        assert!(
            read(bytes[..20].to_vec(), || serde_json::from_slice::<Vec<Array>>(&text))
                .expect_err("too short")
                .to_string()
                .contains("beyond")
        );
        assert!(
            serde_json::to_string(&arrays)
                .expect_err("no message")
                .to_string()
                .contains("only in a plugin's message")
        );
    }

    #[test]
    fn in_other_encodings_an_array_is_its_bytes() {
        let array = Array::from_f32([2], &[1.5, -1.0]);
        let bytes = postcard::to_stdvec(&array).expect("bytes");
        // Element 0, one dimension of 2, eight bytes: what checkpoints of earlier versions hold.
        assert_eq!(bytes, [&[0, 1, 2, 8][..], &array.bytes].concat());
        assert_eq!(postcard::from_bytes::<Array>(&bytes).expect("array"), array);
    }
}
