//! Large parquet data sets, unpacked once into image files in the user's cache, so that an image
//! can be read by its key.

use std::path::{Path, PathBuf};

use cilbench::{Error, Result, cache};
use sha2::{Digest, Sha256};

use crate::parquet;

/// The folder of `<class>/<file>` unpacked from the parquet files in `root`, its folder `data` or
/// one called `name`; the class is the text of `column`. `None` if there are none. What was
/// unpacked before is used again.
pub(crate) fn class_folders(root: &Path, name: &str, column: &str) -> Result<Option<PathBuf>> {
    class_folders_in(&cache::folder()?, root, name, column)
}

fn class_folders_in(
    cache: &Path,
    root: &Path,
    name: &str,
    column: &str,
) -> Result<Option<PathBuf>> {
    let mut files = Vec::new();
    for place in
        [root.to_path_buf(), root.join("data"), root.join(name), root.join(name).join("data")]
    {
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
        let modified = about
            .modified()
            .ok()
            .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
            .unwrap_or_default();
        hash.update(format!("{}\0{}\0{}\n", file.display(), about.len(), modified.as_nanos()));
    }
    let folder =
        cache.join("unpacked").join(format!("{name}-{}", &cilbench::hex(&hash.finalize())[..16]));
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
            let name =
                row.path.as_deref().and_then(|p| p.rsplit('/').next()).filter(|n| !n.is_empty());
            let name = name
                .ok_or("the row does not name its image file, so that no list can refer to it")?;
            let class = row.text(column)?;
            if [class, name].iter().any(|part| part.starts_with('.') || part.contains(['/', '\\']))
            {
                return Err(format!(
                    "'{class}/{name}' is no name of an image; download the file again"
                ));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parquet_file::{self, Beside};

    fn write(file: &Path, paths: &[&str], classes: &[&str]) {
        let images: Vec<_> =
            paths.iter().map(|p| (p.as_bytes().to_vec(), (*p).to_owned())).collect();
        parquet_file::write(file, "image", &images, Beside::Texts("wnid", classes));
    }

    #[test]
    fn images_are_unpacked_once_by_class_and_name() {
        let (root, cache) =
            (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        std::fs::create_dir(root.path().join("data")).expect("folder");
        let open = || class_folders_in(cache.path(), root.path(), "made-up", "wnid");
        assert_eq!(open().expect("nothing there"), None);
        let file = root.path().join("data/test-00000-of-00001.parquet");
        write(&file, &["art_0.jpg", "deep/toy_1.jpg"], &["n01443537", "n01484850"]);
        let folder = open().expect("unpack").expect("found");
        assert_eq!(
            std::fs::read(folder.join("n01484850/toy_1.jpg")).expect("file"),
            b"deep/toy_1.jpg"
        );
        assert_eq!(std::fs::read(folder.join("n01443537/art_0.jpg")).expect("file"), b"art_0.jpg");
        std::fs::write(folder.join("mark"), b"").expect("mark");
        assert!(open().expect("again").expect("found").join("mark").exists(), "not unpacked twice");
    }

    #[test]
    fn rows_that_cannot_be_named_are_refused_and_nothing_is_left() {
        let (root, cache) =
            (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let file = root.path().join("test.parquet");
        for (paths, classes, part) in [
            (
                ["a.jpg", ""],
                ["n01443537", "n01443537"],
                "row 1: the row does not name its image file",
            ),
            (
                ["a.jpg", ".."],
                ["n01443537", "n01443537"],
                "row 1: 'n01443537/..' is no name of an image; download the file again",
            ),
            (
                ["a.jpg", "b.jpg"],
                ["n01443537", "../up"],
                "row 1: '../up/b.jpg' is no name of an image; download the file again",
            ),
        ] {
            write(&file, &paths, &classes);
            let message = class_folders_in(cache.path(), root.path(), "made-up", "wnid")
                .expect_err(part)
                .to_string();
            assert!(message.contains(part), "{message}");
            assert_eq!(
                std::fs::read_dir(cache.path().join("unpacked")).expect("folder").count(),
                0
            );
        }
        let images = [(b"x".to_vec(), "a.jpg".to_owned())];
        parquet_file::write(&file, "image", &images, Beside::Integers("label", &[3]));
        let message = class_folders_in(cache.path(), root.path(), "made-up", "wnid")
            .expect_err("no wnid")
            .to_string();
        assert!(message.contains("there is no column 'wnid'"), "{message}");
    }
}
