//! Frames: a fixed head, a message in JSON, its arrays.

use std::io::{BufReader, Read, Write};

use serde::de::DeserializeOwned;

use super::payload;

const MAGIC: &[u8; 4] = b"CILB";
/// Bytes of a head: magic, where the arrays are, bytes of the message, bytes of the arrays.
const HEAD: usize = 4 + 4 + 8 + 8;

/// Where the arrays of a frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind the message.
    Behind = 0,
    /// At the beginning of the shared file.
    Shared = 1,
}

/// What can be wrong with what a plugin writes.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nothing more comes; these bytes did, and are no whole frame.
    Ended(Vec<u8>),
    /// These bytes are no frame.
    Rubbish(Vec<u8>),
    /// The message cannot be understood.
    Message(String),
    /// Reading failed.
    Io(std::io::Error),
}

/// Writes a frame; `arrays` stand behind the message, or, then none, are in the shared file
/// already.
pub(super) fn write(
    out: &mut impl Write,
    place: Place,
    text: &[u8],
    arrays: &[u8],
    array_bytes: u64,
) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(HEAD + text.len());
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&(place as u32).to_le_bytes());
    head.extend_from_slice(&(text.len() as u64).to_le_bytes());
    head.extend_from_slice(&array_bytes.to_le_bytes());
    head.extend_from_slice(text);
    out.write_all(&head)?;
    out.write_all(arrays)?;
    out.flush()
}

/// Reads a frame; a plugin's arrays are always behind the message.
pub(super) fn read<T: DeserializeOwned, R: Read>(input: &mut BufReader<R>) -> Result<T, Broken> {
    let head = head(input)?;
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
    if head[4..8] != (Place::Behind as u32).to_le_bytes() {
        return Err(Broken::Rubbish(head.to_vec()));
    }
    let text = exactly(input, number(8))?;
    let arrays = exactly(input, number(16))?;
    payload::read(&text, arrays).map_err(|e| Broken::Message(format!("{e}, in {}", shown(&text))))
}

/// A head, judged as soon as its first byte is there: a plugin that prints something and waits must
/// not make us wait too.
fn head<R: Read>(input: &mut BufReader<R>) -> Result<[u8; HEAD], Broken> {
    let (mut head, mut n) = ([0; HEAD], 0);
    while n < HEAD {
        match input.read(&mut head[n..]) {
            Ok(0) => return Err(Broken::Ended(head[..n].to_vec())),
            Ok(count) => n += count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Broken::Io(e)),
        }
        let checked = n.min(MAGIC.len());
        if head[..checked] != MAGIC[..checked] {
            // With what came together with it, to show, up to the next frame.
            let mut bytes = [&head[..n], input.buffer()].concat();
            bytes.truncate(
                bytes.windows(MAGIC.len()).position(|w| w == MAGIC).unwrap_or(bytes.len()),
            );
            return Err(Broken::Rubbish(bytes));
        }
    }
    Ok(head)
}

/// So many bytes. The buffer grows with what really comes: a wrong length must not ask for all
/// memory.
fn exactly<R: Read>(input: &mut BufReader<R>, size: u64) -> Result<Vec<u8>, Broken> {
    let mut bytes = Vec::with_capacity(size.min(1 << 20) as usize);
    input.take(size).read_to_end(&mut bytes).map_err(Broken::Io)?;
    if (bytes.len() as u64) < size { Err(Broken::Ended(bytes)) } else { Ok(bytes) }
}

/// The first bytes, for a message.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    format!("{text:?}{}", if bytes.len() > 200 { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Array;

    fn parse(bytes: &[u8]) -> Result<Vec<Array>, Broken> {
        read(&mut BufReader::new(bytes))
    }

    #[test]
    fn a_frame_comes_back_and_everything_else_is_told_apart() {
        let arrays = vec![Array::from_f32([2], &[1.0, 2.0])];
        let (text, sink, size) = payload::write(&arrays, payload::Sink::Memory(Vec::new()));
        let payload::Sink::Memory(behind) = sink else { panic!("the sink that was given") };
        let mut frame = Vec::new();
        write(&mut frame, Place::Behind, &text.expect("JSON"), &behind, size).expect("a buffer");
        assert_eq!(parse(&frame).expect("a frame"), arrays);
        for cut in [0, 3, HEAD - 1, HEAD + 5, frame.len() - 1] {
            assert!(matches!(parse(&frame[..cut]), Err(Broken::Ended(_))), "cut at {cut}");
        }
        assert!(matches!(parse(b"hello\n"), Err(Broken::Rubbish(b)) if b == b"hello\n"));
        assert!(
            matches!(parse(&[b"epoch 1", &frame[..]].concat()), Err(Broken::Rubbish(b)) if b == b"epoch 1")
        );
        let huge = [&frame[..8], &u64::MAX.to_le_bytes(), &frame[16..]].concat();
        assert!(matches!(parse(&huge), Err(Broken::Ended(_))));
        let mut broken = frame.clone();
        broken[HEAD] = b'{';
        assert!(matches!(parse(&broken), Err(Broken::Message(m)) if m.contains("f32")));
    }
}
