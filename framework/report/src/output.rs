//! Writes results to files, and overwrites nothing but earlier results of its own.

use std::io::{Read, Write};
use std::path::Path;

use cilbench::{Error, Result};

/// Every text that this crate writes bears these words near its beginning, so that it is known
/// again; a CSV has [`CSV_START`] instead.
pub const MARK: &str = "written by cilbench";

/// How the first line of an exported CSV begins.
pub const CSV_START: &str = "scenario,data_id,backbone,weight_hash,";

/// Refuses a path that cannot be written to, or that holds something that is not an earlier result
/// of ours. `option` is named in the message.
///
/// # Errors
/// [`Error::Usage`] that says what is there.
pub fn check(option: &str, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
        let folder = folder.display();
        return Err(Error::usage(format!(
            "{option}: there is no folder {folder} to write into; make it first"
        )));
    }
    if path.is_dir() {
        return Err(Error::usage(format!(
            "{option} {}: this is a folder; name a file in it",
            path.display()
        )));
    }
    if path.exists() && !is_ours(path)? {
        return Err(Error::usage(format!(
            "{option} {}: this file is there already and is not an earlier export; it is left as it is. \
             Name another file, or remove this one",
            path.display()
        )));
    }
    Ok(())
}

/// Whether a file begins as those written here do. An empty file is nobody's.
fn is_ours(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(2000).read_to_end(&mut start).map_err(Error::io(path))?;
    let start = String::from_utf8_lossy(&start);
    Ok(start.is_empty() || start.contains(MARK) || start.starts_with(CSV_START))
}

/// Writes a file whole or not at all, after [`check`].
///
/// # Errors
/// [`Error::Usage`] as of [`check`]; [`Error::Io`] if the file cannot be written.
pub fn write(option: &str, path: &Path, bytes: &[u8]) -> Result<()> {
    check(option, path)?;
    replace(path, bytes)
}

/// Puts a file in the place of whatever is there, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions_of_new_files()
        .tempfile_in(folder)
        .map_err(Error::io(folder))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(Error::io(path))?;
    file.persist(path).map(drop).map_err(|e| Error::io(path)(e.error))
}

/// Temporary files are their owner's alone; a result should be as readable as any new file.
trait Permissions {
    fn permissions_of_new_files(&mut self) -> &mut Self;
}

impl Permissions for tempfile::Builder<'_, '_> {
    fn permissions_of_new_files(&mut self) -> &mut Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // The umask takes its part of it.
            self.permissions(std::fs::Permissions::from_mode(0o666));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_earlier_results_are_overwritten() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("run.json");
        std::fs::write(&path, "{\"format\": 1}").expect("write");
        let error = write("--export", &path, b"{}").expect_err("a run's record").to_string();
        assert!(error.contains("--export") && error.contains("run.json"), "{error}");
        assert_eq!(std::fs::read(&path).expect("read"), b"{\"format\": 1}");
        let ours = folder.path().join("board.csv");
        for text in [format!("{CSV_START}rank\n"), format!("{CSV_START}method\n")] {
            write("--export", &ours, text.as_bytes()).expect("ours");
            assert_eq!(std::fs::read_to_string(&ours).expect("read"), text);
        }
        assert!(
            check("--export", folder.path()).is_err()
                && check("--export", Path::new("/nowhere/a.csv")).is_err()
        );
    }
}
