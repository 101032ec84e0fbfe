//! The one error type of the framework: every message names what was wrong, where, and what to do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The result of everything in cilbench that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, sorted by who has to act.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be carried out as stated: an unknown name, a bad value, a conflict. Exit
    /// code 2.
    #[error("{0}")]
    Usage(String),
    /// A file that was read is not what it should be: damaged, truncated, of another shape. Exit
    /// code 1.
    #[error("{}: {what}", path.display())]
    File {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it and what to do.
        what: String,
    },
    /// The backbone, the device or this build cannot do what is asked. Exit code 2.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The operating system refused to read or write a file. Exit code 1.
    #[error("{}: {source}{}", path.display(), hint(source))]
    Io {
        /// The file or folder at fault.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A loss, a gradient or a logit stopped being finite. Exit code 1.
    #[error("{0}")]
    Diverged(String),
    /// The run was stopped from outside (Ctrl-C or a termination signal). Exit code 130, as of a
    /// program that Ctrl-C ends, so that a shell's loop ends too.
    #[error("interrupted {0}")]
    Interrupted(String),
    /// A method, a plugin or the harness broke a rule of the protocol. Exit code 1.
    #[error("{0}")]
    Protocol(String),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// An [`Error::Usage`] with this message.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// An [`Error::File`]: `path` is not what it should be.
    pub fn file(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), what: what.into() }
    }

    /// An [`Error::Io`] for `path`; made for `map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// An [`Error::Usage`] for an unknown name: lists what there is and suggests the nearest one.
    ///
    /// ```
    /// let error = cilbench::Error::unknown("method", "sr-lora", ["lora", "sr2-lora"]);
    /// assert_eq!(error.to_string(), "unknown method 'sr-lora': did you mean 'sr2-lora'? (there are: lora, sr2-lora)");
    /// ```
    pub fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known: Vec<&str> = known.into_iter().collect();
        known.sort_unstable();
        let nearest = known
            .iter()
            .map(|k| (strsim::jaro_winkler(&k.to_lowercase(), &name.to_lowercase()), *k))
            .filter(|(score, _)| *score > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = nearest.map(|(_, k)| format!(": did you mean '{k}'?")).unwrap_or_default();
        let known = match known.len() {
            0 => "none".to_owned(),
            n if n > 40 => format!("{}, … and {} more", known[..40].join(", "), n - 40),
            _ => known.join(", "),
        };
        Self::Usage(format!("unknown {what} '{name}'{hint} (there are: {known})"))
    }

    /// The exit code of a command that ends with this error: 2 for bad usage or configuration, 130
    /// for a run that was stopped, 1 for a failed one.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Unsupported(_) => 2,
            Self::Interrupted(_) => 130,
            _ => 1,
        }
    }
}

/// Runs `work`; a panic in it becomes an [`Error::Protocol`] with the panic's message.
pub fn catching<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::Protocol(format!("panicked: {}", text.unwrap_or("without a message"))))
    })
}

/// What to do about an error of the operating system, where that is not plain.
fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull => {
            "; make room and give the same command again, nothing is lost"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; give this user the permission, or choose another place (for a run with --out DIR, for a table with --export FILE)"
        }
        std::io::ErrorKind::ReadOnlyFilesystem => {
            "; choose another place (for a run with --out DIR, for a table with --export FILE)"
        }
        _ => "",
    }
}
