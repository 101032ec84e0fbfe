//! Where plugins are found: `--plugin`, `plugins = […]` in the configuration file, the folder `CILBENCH_PLUGINS`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cilbench::method::{MethodEntry, Origin};
use cilbench::plugin::{self, Opened, process};
use cilbench::toml::{Table, Value};
use cilbench::{Error, Result};

use crate::prepare::there_is;

/// The folder of plugins that are always opened.
const FOLDER: &str = "CILBENCH_PLUGINS";

static TIMEOUT: OnceLock<Duration> = OnceLock::new();

/// What was opened already: each plugin only once.
static OPENED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Opens plugins and registers their methods.
pub(crate) struct Loader {
    /// Whether libraries are opened in processes of their own.
    pub isolate: bool,
}

impl Loader {
    /// How long a plugin in a process may take to answer a call.
    ///
    /// # Errors
    /// [`Error::Usage`] for no time at all.
    pub(crate) fn timeout(seconds: f64) -> Result<()> {
        match Duration::try_from_secs_f64(seconds) {
            Ok(timeout) if !timeout.is_zero() => {
                TIMEOUT.get_or_init(|| timeout);
                Ok(())
            }
            _ => Err(Error::usage(format!("--plugin-timeout {seconds}: at least a moment, in seconds"))),
        }
    }

    /// Opens what a user named: a library, or a command.
    pub(crate) fn open(&self, name: &str) -> Result<()> {
        let library = is_library(name);
        let key = match library {
            true => std::fs::canonicalize(name).map_or_else(|_| name.to_owned(), |p| p.display().to_string()),
            false => process::PluginCommand::parse(name)?.absolute(),
        };
        if OPENED.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(());
        }
        if library {
            let path = Path::new(name);
            there_is("plugin", path)?;
            let opened = if self.isolate { isolated(path)? } else { plugin::open(path)? };
            opened.register()?;
            eprintln!("plugin {} from {}", opened.plugin, opened.path.display());
        } else {
            if let Some(entry) = process::register(name, limit())?.first() {
                eprintln!("plugin {}", entry.origin);
            }
        }
        OPENED.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        Ok(())
    }

    /// Opens all libraries in the folder that the environment names, if it names one.
    pub(crate) fn open_folder(&self) -> Result<()> {
        let Some(folder) = std::env::var_os(FOLDER).filter(|f| !f.is_empty()).map(PathBuf::from) else { return Ok(()) };
        let entries = std::fs::read_dir(&folder).map_err(|e| Error::usage(format!("{FOLDER}={}: {e}", folder.display())))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| has_library_name(p)).collect();
        files.sort();
        for file in files {
            let name = file.to_str().ok_or_else(|| Error::file(&file, "a plugin needs a path that is UTF-8: rename it"))?;
            self.open(name)?;
        }
        Ok(())
    }
}

/// How long a plugin in a process may take to answer a call.
pub(super) fn limit() -> Duration {
    TIMEOUT.get().copied().unwrap_or(process::TIMEOUT)
}

/// Opens a library in processes of its own.
pub(crate) fn isolated(path: &Path) -> Result<Opened> {
    let program = std::env::current_exe().map_err(Error::io("the program cilbench"))?;
    let words = [program.display().to_string(), "plugin".into(), "serve".into()].to_vec();
    process::isolate(path, words, limit())
}

/// Whether a name is that of a library, or of a file that cannot be run; anything else is a command.
pub(super) fn is_library(name: &str) -> bool {
    let path = Path::new(name);
    has_library_name(path) || path.is_dir() || (path.is_file() && !executable(path))
}

fn has_library_name(path: &Path) -> bool {
    path.file_name().is_some_and(|n| {
        let name = n.to_string_lossy();
        [".so", ".dylib", ".dll"].iter().any(|e| name.ends_with(e)) || name.contains(".so.")
    }) && !path.to_string_lossy().contains(' ')
        || path.is_file() && path.extension().is_some_and(|e| e == "so" || e == "dylib" || e == "dll")
}

#[cfg(unix)]
fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn executable(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "exe")
}

/// The plugin a method came from, as it is found from any folder.
pub(crate) fn absolute(entry: &MethodEntry) -> Result<Option<String>> {
    let Origin::Plugin { plugin, place } = &entry.origin else { return Ok(None) };
    Ok(Some(match plugin.kind {
        plugin::Kind::Binary => place.clone(),
        plugin::Kind::Process => process::PluginCommand::parse(place)?.absolute(),
    }))
}

/// Takes `plugins = […]` out of a configuration file's table; a library's path is relative to the file.
pub(crate) fn in_config(file: &Path, table: &mut Table) -> Result<Vec<String>> {
    let bad = || Error::usage(format!("{}: plugins: expected a list of texts, as in plugins = [\"my_method.so\"]", file.display()));
    let list = match table.remove("plugins") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(bad()),
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    let name = |value: &Value| {
        let name = value.as_str().ok_or_else(bad)?;
        let beside = folder.join(name);
        Ok(if has_library_name(Path::new(name)) || beside.is_file() { beside.display().to_string() } else { name.to_owned() })
    };
    list.iter().map(name).collect()
}
