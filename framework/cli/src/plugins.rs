//! Opens plugins: those of `--plugin`, of `plugins = […]` in a configuration file, of a run folder,
//! and of the folder that `CILBENCH_PLUGINS` names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cilbench::method::{self, MethodEntry, Origin};
use cilbench::plugin::{self, Opened, process};
use cilbench::{Error, Result};

use crate::args::{Experiment, GlobalArgs, RunArgs};
use crate::paths::require_exists;

/// The variable that names the folder of plugins that are always opened.
const FOLDER: &str = "CILBENCH_PLUGINS";

static TIMEOUT: OnceLock<Duration> = OnceLock::new();

/// The plugins that are open. Each is opened once.
static OPENED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Which plugins are opened before a command, and how.
pub(crate) struct PluginPolicy {
    /// Whether libraries are opened in processes of their own.
    pub isolate: bool,
    /// How long a process plugin may take to answer a call, in seconds, if `--plugin-timeout` does
    /// not say.
    pub timeout: Option<f64>,
    /// Whether the plugins of the folder `CILBENCH_PLUGINS` are opened.
    pub folder: bool,
}

impl Default for PluginPolicy {
    fn default() -> Self {
        Self { isolate: false, timeout: None, folder: true }
    }
}

impl PluginPolicy {
    /// For a command that has nothing to do with methods, or opens its plugin itself.
    pub(crate) fn without_folder() -> Self {
        Self { folder: false, ..Self::default() }
    }

    /// As the run with these options opened them.
    pub(crate) fn of_run(args: &RunArgs) -> Self {
        let plugins = &args.experiment.plugins;
        Self { isolate: plugins.isolate, timeout: plugins.plugin_timeout, folder: true }
    }

    /// Opens the plugins of the command line and of the environment.
    pub(crate) fn open(&self, global: &GlobalArgs) -> Result<()> {
        set_timeout(
            global.plugin_timeout.or(self.timeout).unwrap_or(process::TIMEOUT.as_secs_f64()),
        )?;
        let loader = Loader { isolate: self.isolate };
        global.plugin.iter().try_for_each(|name| loader.open(name))?;
        if self.folder { loader.open_folder() } else { Ok(()) }
    }
}

/// Opens the plugins that an experiment needs: those that its configuration file names, and those
/// that its run folder recorded if its method is not known without them.
pub(crate) fn open_for(experiment: &Experiment, named: &[String]) -> Result<()> {
    let loader = Loader { isolate: experiment.plugins.isolate };
    named.iter().try_for_each(|name| loader.open(name))?;
    if method::find(&experiment.method).is_err() {
        experiment.plugins.plugins.iter().try_for_each(|name| loader.open(name))?;
    }
    Ok(())
}

fn set_timeout(seconds: f64) -> Result<()> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(timeout) if !timeout.is_zero() => {
            TIMEOUT.get_or_init(|| timeout);
            Ok(())
        }
        _ => Err(Error::usage(format!(
            "--plugin-timeout {seconds}: a positive number of seconds is needed"
        ))),
    }
}

/// Opens plugins and registers their methods.
struct Loader {
    /// Whether libraries are opened in processes of their own.
    isolate: bool,
}

impl Loader {
    /// Opens what a user named: a library, or a command.
    fn open(&self, name: &str) -> Result<()> {
        let library = is_library(name);
        let key = match library {
            true => std::fs::canonicalize(name)
                .map_or_else(|_| name.to_owned(), |p| p.display().to_string()),
            false => process::PluginCommand::parse(name)?.absolute(),
        };
        if OPENED.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(());
        }
        if library {
            let path = Path::new(name);
            require_exists("plugin", path)?;
            let opened = if self.isolate { isolated(path)? } else { plugin::open(path)? };
            opened.register()?;
            eprintln!("plugin {} from {}", opened.plugin, opened.path.display());
        } else if let Some(entry) = process::register(name, timeout())?.first() {
            eprintln!("plugin {}", entry.origin);
        }
        OPENED.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        Ok(())
    }

    /// Opens all libraries in the folder that the environment names, if it names one.
    fn open_folder(&self) -> Result<()> {
        let Some(folder) = std::env::var_os(FOLDER).filter(|f| !f.is_empty()).map(PathBuf::from)
        else {
            return Ok(());
        };
        let entries = std::fs::read_dir(&folder)
            .map_err(|e| Error::usage(format!("{FOLDER}={}: {e}", folder.display())))?;
        let mut files: Vec<PathBuf> =
            entries.flatten().map(|e| e.path()).filter(|p| has_library_name(p)).collect();
        files.sort();
        for file in files {
            let name = file.to_str().ok_or_else(|| {
                Error::file(&file, "a plugin needs a path that is UTF-8: rename it")
            })?;
            self.open(name)?;
        }
        Ok(())
    }
}

/// How long a process plugin may take to answer a call.
pub(crate) fn timeout() -> Duration {
    TIMEOUT.get().copied().unwrap_or(process::TIMEOUT)
}

/// Opens a library in a process of its own.
pub(crate) fn isolated(path: &Path) -> Result<Opened> {
    let program = std::env::current_exe().map_err(Error::io("the program cilbench"))?;
    let words = [program.display().to_string(), "plugin".into(), "serve".into()].to_vec();
    process::isolate(path, words, timeout())
}

/// Whether a name is that of a library or of a file that cannot be executed. Any other name is a
/// command.
pub(crate) fn is_library(name: &str) -> bool {
    let path = Path::new(name);
    has_library_name(path) || path.is_dir() || (path.is_file() && !executable(path))
}

/// Whether a path ends as the name of a library does.
pub(crate) fn has_library_name(path: &Path) -> bool {
    path.file_name().is_some_and(|n| {
        let name = n.to_string_lossy();
        [".so", ".dylib", ".dll"].iter().any(|e| name.ends_with(e)) || name.contains(".so.")
    }) && !path.to_string_lossy().contains(' ')
        || path.is_file()
            && path.extension().is_some_and(|e| e == "so" || e == "dylib" || e == "dll")
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

/// How `--plugin` names the plugin of a method from any folder; none for a method that is built in.
pub(crate) fn place_of(entry: &MethodEntry) -> Result<Option<String>> {
    let Origin::Plugin { plugin, place } = &entry.origin else { return Ok(None) };
    Ok(Some(match plugin.kind {
        plugin::Kind::Binary => place.clone(),
        plugin::Kind::Process => process::PluginCommand::parse(place)?.absolute(),
    }))
}
