//! Files that are no weights are called by name, and damaged ones never bring the program down.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::WeightsFile;

fn refused(bytes: &[u8]) -> String {
    WeightsFile::parse(Path::new("weights"), bytes).err().expect("refused").to_string()
}

fn named(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backbones/names").join(name)
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        zip.start_file(*name, stored).expect("entry");
        zip.write_all(bytes).expect("bytes");
    }
    zip.finish().expect("zip").into_inner()
}

#[test]
fn what_is_no_weights_file_is_called_by_name() {
    for (bytes, expected) in [
        (&b""[..], "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "Git LFS pointer"),
        (
            b"<!doctype html><title>Sign in to the hub</title>",
            "a web page (HTML or XML), not weights: \u{201c}Sign in to the hub\u{201d}",
        ),
        (
            b"{\"error\": \"Repository not found\"}",
            "a JSON text, not weights: \u{201c}{\"error\": \"Repository not found\"}\u{201d}",
        ),
        (b"Entry not found", "a text, not weights: \u{201c}Entry not found\u{201d}"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x80\x02}q\0.", "a plain Python pickle"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\0\0", "not a whole safetensors file"),
    ] {
        let message = refused(bytes);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn archives_that_are_no_checkpoint_and_code_are_refused_by_name() {
    let script = refused(&zip(&[("m/data.pkl", b"N."), ("m/code/net.py", b"import os")]));
    assert!(script.contains("TorchScript") && script.contains("state_dict"), "{script}");
    assert!(refused(&zip(&[("a.npy", b"x")])).contains("NumPy archive"));
    assert!(refused(&zip(&[("readme", b"x")])).contains("without PyTorch's data.pkl"));
    let code = refused(&zip(&[("m/data.pkl", b"cos\nsystem\n(S'ls'\ntR.")]));
    assert!(code.contains("it calls os.system"), "{code}");
    assert!(refused(&zip(&[("m/data.pkl", b"}.")])).contains("no tensor"));
}

#[test]
fn types_without_arithmetic_are_named_when_they_are_used() {
    for (dtype, name) in
        [(Dtype::F8_E4M3, "F8_E4M3"), (Dtype::BOOL, "BOOL"), (Dtype::F8_E5M2, "F8_E5M2")]
    {
        let view = TensorView::new(dtype, vec![4], &[0u8; 4]).expect("view");
        let bytes = safetensors::serialize([("pos_embed", view)], None).expect("serialise");
        let file = WeightsFile::parse(Path::new("weights"), &bytes).expect("a whole file");
        let message = file
            .tensor("pos_embed", DType::F32, &Device::Cpu)
            .expect_err("no arithmetic")
            .to_string();
        assert!(message.contains(&format!("tensor 'pos_embed' is of type {name}")), "{message}");
    }
}

#[test]
fn no_part_and_no_flipped_bit_of_a_checkpoint_brings_the_reader_down() {
    for name in ["plain.pt", "before-1.6.pth", "timm.safetensors"] {
        let whole = std::fs::read(named(name)).expect("file");
        for end in (0..whole.len()).step_by(101) {
            assert!(
                WeightsFile::parse(Path::new(name), &whole[..end]).is_err(),
                "{name} up to {end}"
            );
        }
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            // Whatever comes of it: an error, or other values.
            let _ = WeightsFile::parse(Path::new(name), &bytes);
        }
    }
}

#[test]
fn pipes_folders_and_lone_shards_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let read = |path: &Path| WeightsFile::read(path).err().expect("refused").to_string();
    assert!(read(folder.path()).contains("this is a folder"));
    #[cfg(unix)]
    {
        let pipe = folder.path().join("pipe");
        let name = std::ffi::CString::new(pipe.to_str().expect("path")).expect("name");
        // SAFETY: `name` ends with a zero byte and lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert!(read(&pipe).contains("a pipe or a device"));
    }
    let shard = read(&named("model-00001-of-00002.safetensors"));
    assert!(
        shard.contains("one of 2 shards") && shard.contains("model.safetensors.index.json"),
        "{shard}"
    );
    let index = "model.safetensors.index.json";
    for file in [index, "model-00001-of-00002.safetensors"] {
        std::fs::copy(named(file), folder.path().join(file)).expect("copy");
    }
    let missing = read(&folder.path().join(index));
    assert!(missing.contains("the shard model-00002-of-00002.safetensors is missing"), "{missing}");
    std::fs::write(folder.path().join(index), r#"{"weight_map": {"a": "../b"}}"#).expect("write");
    assert!(read(&folder.path().join(index)).contains("no name of a file"));
}
