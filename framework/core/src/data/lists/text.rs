//! Reading the text of a list, whatever program wrote it.

use std::path::Path;

use crate::{Error, Result};

/// The text of a list file in UTF-8, without a byte order mark, its lines ended by `\n`.
///
/// # Errors
/// Names the file that is UTF-16, or the line that is not UTF-8, and what to do.
pub fn read_text(file: &Path) -> Result<String> {
    text_of(std::fs::read(file).map_err(Error::io(file))?, file)
}

/// The lines of a file of names, one per line, with their numbers from 1; empty lines are left out,
/// blanks at the ends removed.
///
/// # Errors
/// If the file cannot be read or is not UTF-8 text.
pub fn read_names(file: &Path) -> Result<Vec<(String, u32)>> {
    let text = read_text(file)?;
    let named = text.lines().zip(1..).map(|(line, number)| (line.trim().to_owned(), number));
    Ok(named.filter(|(name, _)| !name.is_empty()).collect())
}

fn text_of(mut bytes: Vec<u8>, file: &Path) -> Result<String> {
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
        bytes.drain(..3);
    }
    if is_utf16(&bytes) {
        let what =
            "this is UTF-16 text, as some editors and PowerShell write it; save the list as UTF-8";
        return Err(Error::file(file, what));
    }
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        let line = line_at(&bytes, at);
        return Err(Error::file(
            file,
            format!("line {line}: a zero byte: this is no text; is it the right file?"),
        ));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = line_at(e.as_bytes(), at);
        let byte = e.as_bytes()[at];
        Error::file(
            file,
            format!("line {line}: byte {byte:#04x} is not UTF-8 text; save the list as UTF-8"),
        )
    })?;
    Ok(match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n"),
        false => text,
    })
}

/// Whether a text has UTF-16's mark, or a zero byte in every other place of its beginning.
fn is_utf16(bytes: &[u8]) -> bool {
    let zeros = |from: usize| bytes.iter().skip(from).step_by(2).take(8).all(|b| *b == 0);
    bytes.starts_with(&[0xff, 0xfe])
        || bytes.starts_with(&[0xfe, 0xff])
        || (bytes.len() >= 4 && (zeros(0) || zeros(1)))
}

fn line_at(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().filter(|b| **b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_line_ends_do_not_matter_and_what_is_no_text_is_named() {
        let read = |bytes: &[u8]| text_of(bytes.to_vec(), Path::new("l.txt"));
        assert_eq!(read(b"\xef\xbb\xbfa 0\r\nb 1\r\n").expect("BOM"), "a 0\nb 1\n");
        assert_eq!(read(b"a 0\rb 1").expect("old Mac"), "a 0\nb 1");
        let wide: Vec<u8> = "a 0\nb 1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, part) in [
            (wide.as_slice(), "UTF-16"),
            (&[&[0xff, 0xfe][..], &wide].concat(), "UTF-16"),
            (b"a 0\nb\xe4r 1\n", "line 2: byte 0xe4 is not UTF-8"),
            (b"a 0\n\nb 1\0\n", "line 3: a zero byte"),
        ] {
            let message = read(bytes).expect_err(part).to_string();
            assert!(message.contains(part) && message.starts_with("l.txt: "), "{message}");
        }
    }
}
