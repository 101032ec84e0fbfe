//! One spelling for each path of a list: what is compared and hashed must not depend on how it was
//! written.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// A relative or absolute path without empty parts, `.` and, as far as its own text goes, `..`.
pub(super) fn canonical(path: &str) -> Cow<'_, str> {
    let odd =
        path.starts_with('.') || path.ends_with('/') || path.contains("//") || path.contains("/.");
    if !odd {
        return Cow::Borrowed(path);
    }
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    Cow::Owned(format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

/// The folder below which a list's paths lie, by all of its absolute names.
pub(super) struct Root {
    folder: PathBuf,
    names: Vec<String>,
}

impl Root {
    pub(super) fn new(folder: &Path) -> Self {
        let mut names = Vec::new();
        for name in [std::path::absolute(folder), folder.canonicalize()].into_iter().flatten() {
            let name = name.to_str().map(|n| canonical(n).into_owned());
            if let Some(name) = name.filter(|n| !names.contains(n)) {
                names.push(name);
            }
        }
        Self { folder: folder.to_path_buf(), names }
    }

    /// A path of the list, relative to the root if it lies below it. Backslashes are separators
    /// unless there is a file whose name has them.
    pub(super) fn key(&self, path: &str) -> String {
        let slashed = match path.contains('\\') && !self.folder.join(path).exists() {
            true => Cow::Owned(path.replace('\\', "/")),
            false => Cow::Borrowed(path),
        };
        let plain = canonical(&slashed);
        if !plain.starts_with('/') {
            return plain.into_owned();
        }
        let below =
            self.names.iter().find_map(|name| plain.strip_prefix(name.as_str())?.strip_prefix('/'));
        below.map_or_else(|| plain.to_string(), str::to_owned)
    }

    /// The absolute path of a key, by the root's first name.
    pub(super) fn absolute(&self, key: &str) -> String {
        let root = self.names.first().map_or("", String::as_str);
        canonical(&format!("{root}/{key}")).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_is_one() {
        for (spelled, plain) in [
            ("a/b.png", "a/b.png"),
            ("./a/b.png", "a/b.png"),
            ("././a//b.png", "a/b.png"),
            ("a/./b.png", "a/b.png"),
            ("x/../a/b.png", "a/b.png"),
            ("../x/./b.png", "../x/b.png"),
            ("../../b.png", "../../b.png"),
            ("/a/../../b.png", "/b.png"),
            (".hidden/b.png", ".hidden/b.png"),
            ("a/..b.png", "a/..b.png"),
        ] {
            assert_eq!(canonical(spelled), plain, "{spelled}");
        }
    }

    #[test]
    fn absolute_paths_below_the_root_are_relative_and_backslashes_are_separators() {
        let folder = tempfile::tempdir().expect("folder");
        let root = Root::new(folder.path());
        let whole = |p: &str| format!("{}/{p}", folder.path().display());
        assert_eq!(root.key(&whole("train//a.png")), "train/a.png");
        assert_eq!(root.key(&whole("train/../../b.png")), canonical(&whole("../b.png")));
        assert_eq!(root.key("train\\cat\\a.png"), "train/cat/a.png");
        assert_eq!(root.key(".\\train\\a.png"), "train/a.png");
        assert_eq!(root.absolute("../b.png"), canonical(&whole("../b.png")));
        // A folder whose name begins alike is another one.
        assert_eq!(
            root.key(&format!("{}2/a.png", folder.path().display())),
            format!("{}2/a.png", folder.path().display())
        );
        #[cfg(unix)]
        {
            std::fs::write(folder.path().join("odd\\name.png"), b"x").expect("file");
            assert_eq!(root.key("odd\\name.png"), "odd\\name.png");
        }
    }
}
