//! Listing folders of images.

use std::collections::BTreeMap;
use std::path::Path;

use walkdir::WalkDir;

use crate::{Error, Result};

/// The endings of image files that are read, in small letters.
const READ: [&str; 10] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// The endings of image files that are not read, in small letters.
const UNREAD: [&str; 28] = [
    "avif", "heic", "heif", "jxl", "jp2", "j2k", "jpf", "jpx", "jxr", "svg", "psd", "xcf", "tga",
    "ico", "pcx", "ppm", "pgm", "pbm", "pnm", "exr", "hdr", "dng", "cr2", "cr3", "nef", "arw",
    "orf", "apng",
];

/// Folders that archives and file servers leave behind. They hold copies and no images of the data
/// set.
const LEFTOVERS: [&str; 4] = ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"];

/// Whether files with this ending, in small letters, are read as images.
pub(super) fn is_read(ending: &str) -> bool {
    READ.contains(&ending)
}

/// The image files below a folder, and what else is there.
#[derive(Debug, Default)]
pub struct Scan {
    /// The paths of the images, relative to the folder, with `/` between the parts, sorted.
    pub images: Vec<String>,
    /// Everything that was left out.
    pub left_out: LeftOut,
}

/// What a scan left out, counted by reason.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// How many there are of each reason, and the first of them.
    reasons: BTreeMap<Reason, (usize, String)>,
    /// The folders with images that were left out: one example each.
    lost: BTreeMap<String, String>,
}

/// Why something is no image of the set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// An image of a format that is not read, by its ending.
    Unread(String),
    Hidden,
    Leftover,
    Dangling,
    NoEnding,
    /// A file of this ending.
    Other(String),
    NoFile,
    EmptyFolder,
}

impl LeftOut {
    /// One line for each reason: how many, the first of them, and what to do where something is
    /// lost.
    pub fn notes(&self) -> Vec<String> {
        self.reasons
            .iter()
            .map(|(reason, (count, first))| format!("left out: {}", reason.text(*count, first)))
            .collect()
    }

    /// The folders in which images were left out, each with the path of one of them.
    pub fn lost(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lost.iter().map(|(folder, example)| (folder.as_str(), example.as_str()))
    }

    /// Everything that this and `other` left out; `below` is the folder of `other`'s scan.
    pub fn merge(&mut self, other: Self, below: &str) {
        for (reason, (count, first)) in other.reasons {
            let first = format!("{below}/{first}");
            let here = self.reasons.entry(reason).or_insert_with(|| (0, first));
            here.0 += count;
        }
        let path = |p: &str| format!("{below}/{p}");
        self.lost.extend(other.lost.iter().map(|(folder, example)| (path(folder), path(example))));
    }

    fn add(&mut self, reason: Reason, path: &str, image: bool) {
        if image {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            self.lost.entry(folder.to_owned()).or_insert_with(|| path.to_owned());
        }
        let here = self.reasons.entry(reason).or_insert_with(|| (0, path.to_owned()));
        here.0 += 1;
        if path < here.1.as_str() {
            here.1 = path.to_owned();
        }
    }
}

impl Reason {
    fn text(&self, count: usize, first: &str) -> String {
        let s = if count == 1 { "" } else { "s" };
        match self {
            Self::Unread(ending) => {
                format!(
                    "{count} .{ending} image{s} (the first: {first}), a format that is not read; convert them to PNG or JPEG"
                )
            }
            Self::Hidden => format!("{count} hidden file{s} or folder{s} (the first: {first})"),
            Self::Leftover => format!(
                "{count} folder{s} that an archive or a file server left behind (the first: {first})"
            ),
            Self::Dangling => format!(
                "{count} symbolic link{s} to nothing, not named as images (the first: {first})"
            ),
            Self::NoEnding => format!(
                "{count} file{s} without an ending (the first: {first}); images need one, such as .jpg"
            ),
            Self::Other(ending) => format!("{count} .{ending} file{s} (the first: {first})"),
            Self::NoFile => format!("{count} pipe{s}, socket{s} or device{s} (the first: {first})"),
            Self::EmptyFolder => format!("{count} empty folder{s} (the first: {first})"),
        }
    }
}

/// What is said of a file by its name alone, before it is looked at; `None` for an image that is
/// read.
fn by_name(name: &str) -> Option<Reason> {
    if name.starts_with('.') {
        return Some(Reason::Hidden);
    }
    match ending(name) {
        None => Some(Reason::NoEnding),
        Some(e) if is_read(&e) => None,
        Some(e) if UNREAD.contains(&e.as_str()) => Some(Reason::Unread(e)),
        Some(e) => Some(Reason::Other(e)),
    }
}

fn ending(name: &str) -> Option<String> {
    name.rsplit_once('.').map(|(_, e)| e.to_lowercase()).filter(|e| !e.is_empty())
}

/// The image files below a folder. Hidden files, files of other endings and what archives leave
/// behind are counted and left out; symbolic links are followed.
///
/// # Errors
/// Names a folder that cannot be read, an image's link that leads to nothing, a loop of links, or a
/// name that is not UTF-8.
pub fn images_below(folder: &Path) -> Result<Scan> {
    let mut scan = Scan::default();
    let mut walk = WalkDir::new(folder).follow_links(true).min_depth(1).into_iter();
    // A folder followed by nothing deeper is empty.
    let mut open: Option<(usize, String)> = None;
    while let Some(entry) = walk.next() {
        let depth = entry.as_ref().map_or_else(walkdir::Error::depth, walkdir::DirEntry::depth);
        if let Some((_, path)) = open.take().filter(|(above, _)| *above >= depth) {
            scan.left_out.add(Reason::EmptyFolder, &path, false);
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                scan.left_out.add_failed(error, folder)?;
                continue;
            }
        };
        let Some(path) = relative(entry.path(), folder) else {
            return Err(Error::file(entry.path(), "the name is not UTF-8; rename it"));
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        if entry.file_type().is_dir() {
            let reason = if LEFTOVERS.contains(&name) {
                Some(Reason::Leftover)
            } else {
                name.starts_with('.').then_some(Reason::Hidden)
            };
            match reason {
                Some(reason) => {
                    scan.left_out.add(reason, &path, false);
                    walk.skip_current_dir();
                }
                None => open = Some((depth, path)),
            }
            continue;
        }
        match by_name(name) {
            None if entry.file_type().is_file() => scan.images.push(path),
            None => scan.left_out.add(Reason::NoFile, &path, false),
            Some(reason) => {
                let hidden = reason == Reason::Hidden && ending(name).is_some_and(|e| is_read(&e));
                let image = hidden || matches!(reason, Reason::Unread(_));
                scan.left_out.add(reason, &path, image);
            }
        }
    }
    if let Some((_, path)) = open {
        scan.left_out.add(Reason::EmptyFolder, &path, false);
    }
    scan.images.sort_unstable();
    Ok(scan)
}

impl LeftOut {
    /// Counts what could not be looked at, if its name says that it is no image.
    fn add_failed(&mut self, error: walkdir::Error, folder: &Path) -> Result<()> {
        let path = error.path().unwrap_or(folder).to_path_buf();
        let below = relative(&path, folder).unwrap_or_default();
        let name = below.rsplit('/').next().unwrap_or_default();
        if name.starts_with('.') {
            self.add(Reason::Hidden, &below, false);
            return Ok(());
        }
        if let Some(ancestor) = error.loop_ancestor() {
            let what =
                format!("this symbolic link leads back to {}; remove it", ancestor.display());
            return Err(Error::file(&path, what));
        }
        if let Ok(target) = std::fs::read_link(&path) {
            if matches!(by_name(name), Some(Reason::Other(_) | Reason::Unread(_))) {
                self.add(Reason::Dangling, &below, false);
                return Ok(());
            }
            let what = format!(
                "this symbolic link leads to {}, which is not there; repair the link, or remove it",
                target.display()
            );
            return Err(Error::file(&path, what));
        }
        Err(Error::io(&path)(
            error.into_io_error().unwrap_or_else(|| std::io::ErrorKind::Other.into()),
        ))
    }
}

/// A path below a folder, with `/` between the parts; `None` if it is not UTF-8.
fn relative(path: &Path, folder: &Path) -> Option<String> {
    let below = path.strip_prefix(folder).unwrap_or(path);
    let parts: Option<Vec<&str>> = below.iter().map(|p| p.to_str()).collect();
    Some(parts?.join("/"))
}

/// The names of the folders in a folder, sorted; hidden ones and what archives leave behind are
/// left out.
///
/// # Errors
/// If the folder cannot be read.
pub fn folders_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| {
            Error::file(entry.path(), "the folder's name is not UTF-8; rename it")
        })?;
        if !name.starts_with('.') && !LEFTOVERS.contains(&name) && entry.path().is_dir() {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("folder");
        for file in files {
            let path = root.path().join(file);
            let folder =
                if file.ends_with('/') { path.as_path() } else { path.parent().expect("parent") };
            std::fs::create_dir_all(folder).expect("folder");
            if !file.ends_with('/') {
                std::fs::write(path, b"x").expect("file");
            }
        }
        root
    }

    #[test]
    fn only_visible_images_are_listed_and_a_loop_is_named() {
        let root = tree(&[
            "b/2.PNG",
            "a/1.jpg",
            "a/deep/3.webp",
            "a/readme.txt",
            ".hidden/4.jpg",
            "a/.5.jpg",
            "c/6.TIF",
            "c/7.jfif",
        ]);
        let images = ["a/1.jpg", "a/deep/3.webp", "b/2.PNG", "c/6.TIF", "c/7.jfif"];
        assert_eq!(images_below(root.path()).expect("scan").images, images);
        assert_eq!(folders_in(root.path()).expect("folders"), ["a", "b", "c"]);
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(root.path(), root.path().join("b/back")).expect("link");
            let message = images_below(root.path()).expect_err("a loop").to_string();
            assert!(message.contains("b/back") && message.contains("leads back to"), "{message}");
        }
    }

    #[test]
    fn what_is_left_out_is_counted_by_reason_with_an_example() {
        let root = tree(&[
            "a/1.jpg",
            "a/2.heic",
            "a/1.HEIC",
            "a/3.svg",
            "a/notes.txt",
            "a/noending",
            "a/.DS_Store",
            "b/._1.jpg",
            "@eaDir/1.jpg",
            "__MACOSX/a/1.jpg",
            ".cache/x.jpg",
            "empty/",
            "z/deep/",
        ]);
        let scan = images_below(root.path()).expect("scan");
        assert_eq!(scan.images, ["a/1.jpg"]);
        let notes = scan.left_out.notes();
        for part in [
            "2 .heic images (the first: a/1.HEIC)",
            "1 .svg image (",
            "1 .txt file (the first: a/notes.txt)",
            "1 file without an ending (the first: a/noending)",
            "3 hidden files or folders (the first: .cache)",
            "2 folders that an archive or a file server left behind (the first: @eaDir)",
            "2 empty folders (the first: empty)",
        ] {
            assert!(notes.iter().any(|n| n.contains(part)), "'{part}' is not in {notes:?}");
        }
        assert_eq!(notes.len(), 7, "{notes:?}");
        assert_eq!(scan.left_out.lost().map(|(folder, _)| folder).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[cfg(unix)]
    #[test]
    fn dangling_links_are_judged_by_their_names() {
        let root = tree(&["a/1.jpg"]);
        let link = |name: &str| {
            std::os::unix::fs::symlink("/nowhere/at/all", root.path().join(name)).expect("link")
        };
        link("a/.#1.jpg");
        link("a/labels.json");
        let scan = images_below(root.path()).expect("neither is an image");
        assert_eq!(scan.images, ["a/1.jpg"]);
        assert!(
            scan.left_out.notes().iter().any(|n| n.contains("1 symbolic link to nothing")),
            "{:?}",
            scan.left_out.notes()
        );
        for name in ["a/2.jpg", "dogs"] {
            link(name);
            let message = images_below(root.path()).expect_err(name).to_string();
            assert!(
                message.contains(name)
                    && message.contains("leads to /nowhere/at/all, which is not there"),
                "{message}"
            );
            std::fs::remove_file(root.path().join(name)).expect("remove");
        }
    }
}
