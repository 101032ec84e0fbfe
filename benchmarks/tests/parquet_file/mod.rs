//! Writes parquet files of images as the Hugging Face hub stores them; used by the tests of the
//! data sets and of the command.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// The column beside the images.
pub enum Beside<'a> {
    Integers(&'a str, &'a [i64]),
    Texts(&'a str, &'a [&'a str]),
}

/// A file with a column `image` of structs {bytes, path} and one beside it; `images` are (encoded
/// image, path).
pub fn write(file: &Path, image: &str, images: &[(Vec<u8>, String)], beside: Beside) {
    let (name, kind) = match beside {
        Beside::Integers(name, _) => (name, "int64"),
        Beside::Texts(name, _) => (name, "binary"),
    };
    let annotation = if kind == "binary" { " (UTF8)" } else { "" };
    let schema = format!(
        "message schema {{ optional group {image} {{ optional binary bytes; optional binary path (UTF8); }} optional {kind} {name}{annotation}; }}"
    );
    let schema = Arc::new(parse_message_type(&schema).expect("schema"));
    let target = std::fs::File::create(file).expect("file");
    let mut writer =
        SerializedFileWriter::new(target, schema, Arc::new(WriterProperties::builder().build()))
            .expect("writer");
    let mut group = writer.next_row_group().expect("group");
    let bytes: Vec<ByteArray> = images.iter().map(|(b, _)| b.clone().into()).collect();
    let paths: Vec<ByteArray> = images.iter().map(|(_, p)| p.clone().into_bytes().into()).collect();
    for values in [bytes, paths] {
        let mut column = group.next_column().expect("column").expect("column");
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, Some(&vec![2; values.len()]), None)
            .expect("bytes");
        column.close().expect("close");
    }
    let mut column = group.next_column().expect("column").expect("column");
    let levels = vec![1; images.len()];
    match beside {
        Beside::Integers(_, values) => {
            column.typed::<Int64Type>().write_batch(values, Some(&levels), None)
        }
        Beside::Texts(_, values) => {
            let values: Vec<ByteArray> =
                values.iter().map(|v| v.as_bytes().to_vec().into()).collect();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)
        }
    }
    .expect("values");
    column.close().expect("close");
    group.close().expect("close");
    writer.close().expect("close");
}
