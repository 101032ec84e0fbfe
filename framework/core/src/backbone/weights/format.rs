//! What kind of file this is, by its first bytes; files that are no weights are called by name.

use std::path::Path;

use super::{Contents, safetensors, torch};
use crate::{Error, Result};

/// Beginnings of files that people have in place of weights, and what to do about them.
const OTHERS: &[(&[u8], &str)] = &[
    (b"", "it is empty (0 bytes); get it anew"),
    (
        b"version https://git-lfs",
        "it is a Git LFS pointer, not the weights: run `git lfs pull` in its repository, or \
         download the file itself",
    ),
    (
        b"GGUF",
        "it is a GGUF file, whose weights are quantised for llama.cpp; get the safetensors or \
         PyTorch file of the same network",
    ),
    (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file (Keras); get the safetensors or PyTorch file"),
    (b"\x1f\x8b", "it is compressed with gzip; unpack it first"),
    (b"BZh", "it is compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "it is compressed with xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; unpack it first"),
    (b"7z\xbc\xaf", "it is a 7z archive; unpack it first"),
    (b"\x89PNG", "it is an image"),
    (b"\xff\xd8\xff", "it is an image"),
    (b"\x93NUMPY", "it is one NumPy array; get the safetensors or PyTorch file"),
];

/// Reads a file of any format.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Contents> {
    let is =
        |begin: &[u8]| if begin.is_empty() { bytes.is_empty() } else { bytes.starts_with(begin) };
    if let Some((_, what)) = OTHERS.iter().find(|(begin, _)| is(begin)) {
        return Err(Error::file(path, *what));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return torch::read_zip(path, bytes);
    }
    // The first instruction of every pickle since protocol 2.
    if let [0x80, 2..=5, ..] = bytes {
        return torch::read_legacy(path, bytes);
    }
    if let Some(what) = text(bytes) {
        return Err(Error::file(path, what));
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return Err(Error::file(path, "it is a tar archive; unpack it first"));
    }
    safetensors::read(path, bytes)
}

/// The first words of a text, a page or a JSON file.
fn text(bytes: &[u8]) -> Option<String> {
    let begin = &bytes[..bytes.len().min(400)];
    let plain = |b: &u8| *b >= 0x20 || b.is_ascii_whitespace();
    if !begin.iter().all(plain) {
        return None;
    }
    let text = String::from_utf8_lossy(begin);
    let lower = text.trim_start_matches(['\u{feff}', ' ', '\n', '\r', '\t']).to_lowercase();
    let kind = match lower.chars().next() {
        Some('<') => "a web page (HTML or XML)",
        Some('{' | '[') => "a JSON text",
        _ => "a text",
    };
    let words: String = words(&text, lower.starts_with('<')).chars().take(100).collect();
    Some(format!(
        "it is {kind}, not weights: “{words}”; download the file itself, and look whether the \
         network or the site asks to sign in"
    ))
}

/// The words, without a page's tags.
fn words(text: &str, page: bool) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in text.chars() {
        match c {
            '<' if page => inside = true,
            '>' if page => {
                inside = false;
                out.push(' ');
            }
            _ if inside => {}
            c => out.push(c),
        }
    }
    let joined = out.split_whitespace().collect::<Vec<_>>().join(" ");
    if joined.is_empty() { text.split_whitespace().collect::<Vec<_>>().join(" ") } else { joined }
}
