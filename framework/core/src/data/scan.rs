//! Listing folders of images.

use std::path::Path;

use walkdir::WalkDir;

use crate::{Error, Result};

/// The endings of image files, in small letters.
const ENDINGS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "gif"];

/// The paths of all image files below a folder, relative to it, with `/` between the parts, sorted. Hidden files and files of other endings are left
/// out; symbolic links are followed.
///
/// # Errors
/// Names a folder that cannot be read, a loop of symbolic links, or a file name that is not UTF-8.
pub fn images_below(folder: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let visible = |e: &walkdir::DirEntry| e.depth() == 0 || !e.file_name().to_string_lossy().starts_with('.');
    for entry in WalkDir::new(folder).follow_links(true).into_iter().filter_entry(visible) {
        let entry = entry.map_err(|e| {
            let path = e.path().unwrap_or(folder).to_path_buf();
            match e.loop_ancestor() {
                Some(ancestor) => Error::file(&path, format!("this symbolic link leads back to {}; remove it", ancestor.display())),
                None => Error::io(&path)(e.into_io_error().unwrap_or_else(|| std::io::ErrorKind::Other.into())),
            }
        })?;
        let ending = entry.path().extension().map(|e| e.to_string_lossy().to_lowercase());
        if !entry.file_type().is_file() || !ending.is_some_and(|e| ENDINGS.contains(&e.as_str())) {
            continue;
        }
        let below = entry.path().strip_prefix(folder).unwrap_or(entry.path());
        let parts: Option<Vec<&str>> = below.iter().map(|p| p.to_str()).collect();
        let parts = parts.ok_or_else(|| Error::file(entry.path(), "the file's name is not UTF-8; rename it"))?;
        paths.push(parts.join("/"));
    }
    paths.sort_unstable();
    Ok(paths)
}

/// The names of the folders in a folder, sorted; hidden ones are left out.
///
/// # Errors
/// If the folder cannot be read.
pub fn folders_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| Error::file(entry.path(), "the folder's name is not UTF-8; rename it"))?;
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_images_are_listed_and_a_loop_is_named() {
        let root = tempfile::tempdir().expect("folder");
        for file in ["b/2.PNG", "a/1.jpg", "a/deep/3.webp", "a/readme.txt", ".hidden/4.jpg", "a/.5.jpg"] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, b"x").expect("file");
        }
        assert_eq!(images_below(root.path()).expect("scan"), ["a/1.jpg", "a/deep/3.webp", "b/2.PNG"]);
        assert_eq!(folders_in(root.path()).expect("folders"), ["a", "b"]);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(root.path(), root.path().join("b/back")).expect("link");
            let message = images_below(root.path()).expect_err("a loop").to_string();
            assert!(message.contains("b/back") && message.contains("leads back to"), "{message}");
        }
    }
}
