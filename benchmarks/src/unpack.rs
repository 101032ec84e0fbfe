//! Large parquet data sets, unpacked once into image files in the user's cache, so that an image can be read by its key.

use std::path::{Path, PathBuf};

use cilbench::{Error, Result, cache};
use sha2::{Digest, Sha256};

use crate::parquet;

/// The folder of `<class>/<file>` unpacked from the parquet files in `root`, its folder `data` or one called `name`; the class is the text of `column`.
/// `None` if there are none. What was unpacked before is used again.
pub(crate) fn class_folders(root: &Path, name: &str, column: &str) -> Result<Option<PathBuf>> {
    let mut files = Vec::new();
    for place in [root.to_path_buf(), root.join("data"), root.join(name), root.join(name).join("data")] {
        files = parquet::files(&place, "")?;
        if !files.is_empty() {
            break;
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let mut hash = Sha256::new();
    for file in &files {
        let about = std::fs::metadata(file).map_err(Error::io(file))?;
        let modified = about.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
        hash.update(format!("{}\0{}\0{}\n", file.display(), about.len(), modified.as_nanos()));
    }
    let folder = cache::folder()?.join("unpacked").join(format!("{name}-{}", &cilbench::hex(&hash.finalize())[..16]));
    if !folder.is_dir() {
        eprintln!("unpacking {} parquet file(s) into {}, once", files.len(), folder.display());
        unpack(&files, column, &folder)?;
    }
    Ok(Some(folder))
}

/// Unpacks under a temporary name: a folder that is there is whole.
fn unpack(files: &[PathBuf], column: &str, folder: &Path) -> Result<()> {
    let above = folder.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(above).map_err(Error::io(above))?;
    let place = tempfile::tempdir_in(above).map_err(Error::io(above))?;
    for file in files {
        let mut failed = None;
        let rows = parquet::rows(file, &["image", "img"], &mut |row| {
            let name = row.path.as_deref().and_then(|p| p.rsplit('/').next()).filter(|n| !n.is_empty());
            let name = name.ok_or("the row does not name its image file, so that no list can refer to it")?;
            let class = row.text(column)?;
            if [class, name].iter().any(|part| part.starts_with('.') || part.contains(['/', '\\'])) {
                return Err(format!("'{class}/{name}' is no name of an image"));
            }
            let path = place.path().join(class).join(name);
            let write = || {
                std::fs::create_dir_all(place.path().join(class))?;
                std::fs::write(&path, &row.bytes)
            };
            write().map_err(|e| {
                let text = e.to_string();
                failed = Some(Error::io(&path)(e));
                text
            })
        });
        rows.map_err(|e| failed.take().unwrap_or(e))?;
    }
    let place = place.keep();
    std::fs::rename(&place, folder).map_err(Error::io(folder))
}
