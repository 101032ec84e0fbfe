//! The lock of a run folder: one process at a time. The system releases it when the process ends,
//! however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::{Error, Result};

/// Held as long as it lives.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a folder.
    ///
    /// # Errors
    /// [`Error::Usage`] that says which process holds it.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path))?;
        held(file.try_lock(), &mut file, folder)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let text = format!(
            "process {} on {}",
            std::process::id(),
            if host.is_empty() { "this machine" } else { host.trim() }
        );
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(Error::io(&path))?;
        Ok(Self { _file: file })
    }

    /// Refuses a folder that another process holds, without taking or making anything.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn look(folder: &Path) -> Result<()> {
        match File::open(folder.join("lock")) {
            Ok(mut file) => held(file.try_lock_shared(), &mut file, folder),
            Err(_) => Ok(()),
        }
    }
}

/// What became of an attempt to lock a folder's file.
fn held(outcome: Result<(), TryLockError>, file: &mut File, folder: &Path) -> Result<()> {
    let path = folder.join("lock");
    match outcome {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(Error::io(&path))?;
            let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
            Err(Error::usage(format!(
                "{}: {holder} is working in this run folder; wait for it or choose another with --out DIR",
                folder.display()
            )))
        }
        Err(TryLockError::Error(e)) => Err(Error::io(&path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() {
        let folder = tempfile::tempdir().expect("folder");
        let first = Lock::take(folder.path()).expect("first");
        let message = Lock::take(folder.path()).err().expect("second").to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(
            Lock::look(folder.path())
                .expect_err("looked at")
                .to_string()
                .contains("is working in this run folder")
        );
        drop(first);
        Lock::look(folder.path()).expect("free");
        assert!(Lock::take(folder.path()).is_ok());
    }
}
