//! Parquet files of images, as the Hugging Face hub stores data sets: a column of structs {bytes,
//! path}, and others beside it.

use std::path::{Path, PathBuf};

use cilbench::data::guarded;
use cilbench::{Error, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row, RowAccessor};

/// One row.
pub(crate) struct ImageRow {
    /// The row, from 0, in its file.
    pub number: usize,
    /// The encoded image.
    pub bytes: Vec<u8>,
    /// The file it was made of, if the file says.
    pub path: Option<String>,
    row: Row,
}

impl ImageRow {
    fn field(&self, name: &str) -> Result<&Field, String> {
        let found = self.row.get_column_iter().find(|(n, _)| *n == name);
        found.map(|(_, f)| f).ok_or_else(|| format!("there is no column '{name}'"))
    }

    /// An integer of a column, from 0 to `classes` − 1.
    pub(crate) fn label(&self, column: &str, classes: usize) -> Result<usize, String> {
        let value = match self.field(column)? {
            Field::Long(v) => *v,
            Field::Int(v) => i64::from(*v),
            Field::Short(v) => i64::from(*v),
            Field::Byte(v) => i64::from(*v),
            _ => return Err(format!("column '{column}' is not of integers")),
        };
        let label = usize::try_from(value).ok().filter(|v| *v < classes);
        label.ok_or_else(|| format!("{column} {value} is not a class (0 to {})", classes - 1))
    }

    /// A text of a column.
    pub(crate) fn text(&self, column: &str) -> Result<&str, String> {
        match self.field(column)? {
            Field::Str(v) => Ok(v),
            _ => Err(format!("column '{column}' is not of texts")),
        }
    }
}

/// Calls `each` for every row of a parquet file whose images are in one of the columns `names`.
/// Gives the number of rows.
pub(crate) fn rows(
    path: &Path,
    names: &[&str],
    each: &mut dyn FnMut(ImageRow) -> Result<(), String>,
) -> Result<usize> {
    let short = |e: &dyn std::fmt::Display| e.to_string().chars().take(200).collect::<String>();
    let damaged = |e: &dyn std::fmt::Display| {
        Error::file(path, format!("not a whole parquet file ({}); download it again", short(e)))
    };
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let reader = reading(|| SerializedFileReader::new(file)).map_err(|e| damaged(&e))?;
    let mut iterator = reading(|| reader.get_row_iter(None)).map_err(|e| damaged(&e))?;
    let mut number = 0;
    while let Some(row) = reading(|| iterator.next().transpose()).transpose() {
        let row = row.map_err(|e| {
            Error::file(
                path,
                format!("row {number} cannot be read ({}); download the file again", short(&e)),
            )
        })?;
        let at = |what: String| Error::file(path, format!("row {number}: {what}"));
        let (bytes, name) = image(&row, names).map_err(at)?;
        each(ImageRow { number, bytes, path: name, row }).map_err(at)?;
        number += 1;
    }
    Ok(number)
}

/// A call of the parquet reader, which panics on some damaged files.
fn reading<T>(call: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    guarded(call)
        .unwrap_or_else(|| Err(ParquetError::General("its contents contradict each other".into())))
        .map_err(|e| e.to_string())
}

/// The encoded image of a row, and the file it was made of.
fn image(row: &Row, names: &[&str]) -> Result<(Vec<u8>, Option<String>), String> {
    let column = row.get_column_iter().position(|(n, _)| names.contains(&n.as_str()));
    let column = column.ok_or_else(|| {
        format!("there is no column '{}'; is this the right data set?", names.join("' or '"))
    })?;
    let image = row.get_group(column).map_err(|e| e.to_string())?;
    let part = |name: &str| image.get_column_iter().position(|(n, _)| n == name);
    let bytes = part("bytes").ok_or("the image has no bytes in it")?;
    let bytes = image.get_bytes(bytes).map_err(|e| e.to_string())?.data().to_vec();
    Ok((bytes, part("path").and_then(|i| image.get_string(i).ok().cloned())))
}

/// The parquet files of a folder whose names begin with `stem`, sorted.
pub(crate) fn files(folder: &Path, stem: &str) -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with(stem) && name.ends_with(".parquet") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
